"""Padding: whether the kernel of a convolution multiplied the zeros of its padding. Knows traces and the reference.

It matters only where a weight is infinite or no number: zero times such a weight is nan. PyTorch has kernels that
multiply padding (a matrix product of unfolded windows) and kernels that leave it out (oneDNN's direct ones); which one
ran depends on shapes, types and processor, so it is read off the numbers that it made.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.errors import ConvscopeError
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Step
from convscope.traces.trace import Trace


def multiplies_padding(trace: Trace, step: Step, arguments: Mapping[str, Any] | None = None) -> bool:
    """Whether a recorded convolution holds nan wherever multiplied padding makes it; True where that shows nowhere.

    Args:
        arguments: The step's, by name, where the caller has them already.
    """
    if step.op != "convolution" or step.is_complex:
        return True
    weight = trace.operand(step, "weight") if arguments is None else arguments["weight"]
    if step.arguments["transposed"] or np.isfinite(weight).all():
        return True
    given = trace.operands(step) if arguments is None else arguments
    operation = OPERATIONS[step.op]
    try:
        with_zeros = operation.compute(**given)
        without = operation.compute(**given, multiplies_padding=False)
    except ConvscopeError:
        return True
    differs = np.isnan(with_zeros) & ~np.isnan(without)  # type: ignore[arg-type]  # one result
    return not differs.any() or bool(np.isnan(step.output[differs]).any())
