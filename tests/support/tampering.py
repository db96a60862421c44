"""Traces that lie: recorded numbers, arguments or weights changed after the fact, and what a report says of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from convscope.proof.verification_report import StepReport, Verification
from convscope.traces.step import Step
from convscope.traces.trace import Trace

Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


class Tampered:
    """A trace's source that lies: about what a step made, read, or was told to do."""

    def __init__(
        self,
        trace: Trace,
        *,
        outputs: Mapping[str, Change] | None = None,
        operands: Mapping[tuple[str, str], Change] | None = None,
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._honest = trace._source
        self._outputs = {trace[name].id: change for name, change in (outputs or {}).items()}
        self._operands = {(trace[n].id, argument): change for (n, argument), change in (operands or {}).items()}
        warned = {trace[name].id: dict(new) for name, new in (arguments or {}).items()}
        self._steps = tuple(
            dataclasses.replace(step, values=self, arguments={**step.arguments, **warned.get(step.id, {})})
            for step in trace.all_steps
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def steps(self) -> tuple[Step, ...]:
        return self._steps

    def output(self, step: int, index: int) -> Any:
        result = self._honest.output(step, index)
        return self._outputs[step](result.copy()) if step in self._outputs and index == 0 else result

    def operand(self, step: int, name: str, item: int) -> Any:
        result = self._honest.operand(step, name, item)
        return self._operands[step, name](result.copy()) if (step, name) in self._operands else result


def tampered(trace: Trace, **lies: Any) -> Trace:
    return Trace(Tampered(trace, **lies))


class Net(nn.Module):
    """Convolution, in-place ReLU, pooling, a residual, a linear layer; every size different from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, (3, 4), stride=(2, 1), padding=(1, 2))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.fc = nn.Linear(5 * 3 * 7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        return self.fc((x + self.conv2(x)).flatten(1))  # type: ignore[no-any-return]


def found(report: Verification, name: str) -> StepReport:
    return next(step for step in report.steps if step.name == name)


def assert_only(report: Verification, name: str) -> StepReport:
    """The step is a mismatch, and nothing else is."""
    assert [step.name for step in report.mismatches] == [name]
    assert not report.proved
    assert report.share < 1
    assert name in {step.name for step in report.steps if step.mismatch is not None}
    return found(report, name)


# Mutations: each turns its step, and only its step, red.


def shift(cell: tuple[int, ...], by: float) -> Change:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array[cell] += by
        return array

    return change
