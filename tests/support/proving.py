"""Proving: what every honest trace must pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.proof.verification_report import StepReport, Verification

UNWRITTEN = {"empty", "new_empty"}
"""Memory that the next step fills: there is nothing to prove about it."""


def assert_proved(model: nn.Module, image: Any, cells: int = 60, *, vanishing: bool = False) -> Verification:
    """The traced output has the bits of an untraced run, and every step is proved.

    With `vanishing`, steps may be unresolved whose numbers are nothing but roundings, such as a normalized constant.
    """
    with fused_transformers(False), torch.no_grad():  # as in a trace
        plain = list(arrays(model(image.clone())))  # it may write into what it is given
    trace = cs.trace(model, image)
    traced = list(arrays(trace.output))
    assert len(plain) == len(traced) > 0
    for expected, got in zip(plain, traced, strict=True):
        np.testing.assert_array_equal(got, expected, strict=True)
    report = cs.verify(trace, cells=cells)
    nothing = {step.id for step in report.unresolved if vanishing and _vanishes(trace, step)}
    calculated = [step for step in report.steps if step.op not in UNWRITTEN and step.id not in nothing]
    wrong = [f"{s.name}: {s.op} {s.finding} {s.mismatch or ''}" for s in calculated if s.finding != "proved"]
    assert not wrong, wrong
    assert all(part.held for part in report.returned)
    assert report.proved or nothing or not calculated  # a model of no steps proves nothing
    assert report.share == 1 or nothing or not calculated
    return report


def _vanishes(trace: cs.Trace, step: StepReport) -> bool:
    """Whether a step's numbers are of the size of their bounds: the exact ones may all be 0."""
    output = np.abs(np.asarray(trace[step.id].output, np.float64))
    size = float(np.sqrt(np.mean(output**2)))
    return size == 0 or bool(output.max() <= 20 * step.resolution * size)


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


@contextmanager
def fused_transformers(enabled: bool) -> Iterator[None]:
    """PyTorch's fused transformer layers on or off."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
