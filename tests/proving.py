"""Proving: what every honest trace must pass."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.proof import Report

UNWRITTEN = {"empty", "new_empty"}
"""Memory that the next step fills: there is nothing to prove about it."""


def assert_proved(model: nn.Module, image: Any, cells: int = 60) -> Report:
    """The traced output has the bits of an untraced run, and every step is proved."""
    with torch.no_grad():
        plain = list(arrays(model(image.clone())))  # it may write into what it is given
    trace = cs.trace(model, image)
    traced = list(arrays(trace.output))
    assert len(plain) == len(traced) > 0
    for expected, got in zip(plain, traced, strict=True):
        np.testing.assert_array_equal(got, expected, strict=True)
    report = cs.verify(trace, cells=cells)
    calculated = [step for step in report.steps if step.op not in UNWRITTEN]
    wrong = [f"{s.name}: {s.op} {s.finding} {s.mismatch or ''}" for s in calculated if s.finding != "proved"]
    assert not wrong, wrong
    assert report.proved
    assert report.share == 1
    return report


def arrays(output: Any) -> Iterator[np.ndarray[Any, Any]]:
    """The numbers of what a model returned, or of what its trace says it returned; narrow types as float32."""
    if isinstance(output, Tensor):
        yield (output.float() if output.dtype in {torch.bfloat16, torch.float16} else output).numpy()
    elif isinstance(output, np.ndarray):
        yield output
    elif hasattr(output, "values"):
        for item in output.values():
            yield from arrays(item)
    elif isinstance(output, list | tuple):
        for item in output:
            yield from arrays(item)
