"""Witness: what the NumPy reference says about a recorded step, recomputed when first asked and kept for a while.

Knows traces and the reference; nothing of rules and expressions.
"""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from convscope.capture import Step, Trace
from convscope.errors import ConvscopeError
from convscope.proof.padding import multiplies_padding
from convscope.reference import OPERATIONS
from convscope.reference.casting import wrapped

Array = NDArray[Any]
Cell = tuple[int, ...]

ROUNDOFF = {
    "float64": (2.0**-53, 0.0),
    "float32": (2.0**-24, 0.0),
    "bfloat16": (2.0**-24, 2.0**-8),
    "float16": (2.0**-24, 2.0**-11),
}
"""Recorded type -> the unit roundoffs of its kernel's sums and of its result (see `reference.roundoff`)."""
KEPT = 4
"""Recomputed steps that are kept for each trace: who explains one cell often explains its neighbour."""


@dataclass(frozen=True, slots=True, eq=False)
class Recomputed:
    """One result of a step, recomputed from the step's recorded inputs."""

    values: Array
    """float64, in the shape of the result."""
    bounds: Array
    """How far the recorded numbers may lie from these; broadcasts to `values`."""

    def agrees(self, cell: Cell, recorded: float) -> bool:
        """Whether a recorded number lies within its bound; nan agrees with nan."""
        value = float(self.values[cell])
        bound = float(np.broadcast_to(self.bounds, self.values.shape)[cell])
        return value == recorded or abs(value - recorded) <= bound or (np.isnan(value) and np.isnan(recorded))


def recomputed(trace: Trace, step: Step, output: int = 0, *, normwise: bool = False) -> Recomputed | None:
    """What the reference gives for a step; None where it has no such operation, or not in this form.

    Args:
        output: Which result, of a step that has several.
        normwise: With the bounds of kernels that mix whole planes, where the operation has such.
    """
    key = (step.id, normwise)
    with _KEEPING:
        kept = _KEPT.setdefault(trace, OrderedDict())
        found = kept.get(key)
    if found is None:  # in several threads, each recomputes
        found = recompute(trace, step, normwise=normwise)
    with _KEEPING:
        kept[key] = found
        kept.move_to_end(key)
        while len(kept) > KEPT:
            kept.popitem(last=False)
    return found.get(output)


_KEEPING = Lock()
_KEPT: WeakKeyDictionary[Trace, OrderedDict[tuple[int, bool], dict[int, Recomputed]]] = WeakKeyDictionary()


def recompute(trace: Trace, step: Step, *, normwise: bool = False) -> dict[int, Recomputed]:
    """Result -> what the reference gives for it; empty where it has no such operation, or not in this form.

    It has none of complex numbers.
    """
    operation = OPERATIONS.get(step.op)
    if operation is None or step.is_complex:
        return {}
    arguments: dict[str, Any] = trace.operands(step)
    if step.op == "native_dropout" and arguments["train"]:
        arguments["mask"] = step.outputs[1]  # drawn at random: recorded, not calculated
    if not multiplies_padding(trace, step, arguments):
        arguments["multiplies_padding"] = False
    found = {}
    try:
        with np.errstate(all="ignore"):
            result = operation.compute(**arguments)
        values = result if isinstance(result, tuple) else (result,)
        for output, value in enumerate(values):
            if value is not None and output < len(step.results):
                u, u_out = ROUNDOFF.get(step.results[output].dtype, (2.0**-24, 0.0))
                with np.errstate(all="ignore"):  # memory that was never written holds anything
                    bounds = operation.bound(u=u, u_out=u_out, normwise=normwise, result=result, **arguments)
                bound = bounds[output] if isinstance(bounds, tuple) else bounds
                values_held = wrapped(value, step.results[output].dtype)
                found[output] = Recomputed(values_held, np.zeros(()) if bound is None else bound)
    except ConvscopeError:
        return {}
    return found
