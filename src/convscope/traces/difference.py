"""Difference: the effect of a changed pixel, kernel cell or bias, step by step. Uses traces and NumPy; no torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convscope.errors import UnknownName, UsageError
from convscope.escaping import joined
from convscope.rich_display import RichDisplay
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.type_checks import takes
from convscope.typing import Array


@dataclass(frozen=True, slots=True, eq=False)
class StepDifference:
    """The differences between the results of one step in two traces."""

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    """Shapes in the first and the second trace; if they differ, cells cannot be compared."""
    count: int
    """Cells."""
    changed: int
    """Number of cells that differ; NaN equals NaN."""
    largest: float
    """The largest absolute difference; NaN if a number is NaN in only one trace."""
    rms: float
    """The root of the mean squared difference over all cells."""

    @property
    def comparable(self) -> bool:
        """Whether both results have the same shape."""
        return self.shapes[0] == self.shapes[1]

    def __str__(self) -> str:
        if not self.comparable:
            return f"{self.name}: shapes {self.shapes[0]} and {self.shapes[1]}"
        if not self.changed:
            return f"{self.name}: the same"
        return f"{self.name}: {self.changed:,} of {self.count:,} cells, at most {self.largest:.4g}, RMS {self.rms:.4g}"


@dataclass(frozen=True, slots=True, eq=False)
class Difference(RichDisplay):
    """The differences between two traces; prints one line per step.

    >>> import torch, convscope as cs
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.ReLU())
    >>> black, white = cs.trace(net, torch.zeros(1, 1, 3, 3)), cs.trace(net, torch.ones(1, 1, 3, 3))
    >>> result = cs.difference(black, white)
    >>> len(result.steps), result[black.steps[0].name].changed
    (2, 1)
    """

    first: Trace
    second: Trace
    steps: tuple[StepDifference, ...]
    """The visible steps of both traces, in order."""
    missing: tuple[str, ...]
    """Names of visible steps in the first trace only."""
    added: tuple[str, ...]
    """Names of visible steps in the second trace only."""

    def __getitem__(self, name: str) -> StepDifference:
        """The difference of one step.

        Raises:
            UnknownName: no visible step of both traces has that name.
        """
        result = next((step for step in self.steps if step.name == name), None)
        if result is None:
            raise UnknownName("step of both traces", name, [step.name for step in self.steps])
        return result

    def __iter__(self) -> Iterator[StepDifference]:
        return iter(self.steps)

    def __str__(self) -> str:
        only = [f"{name}: only in the {side} trace" for side, names in self._only for name in names]
        return joined([*map(str, self.steps), *only])

    @property
    def _only(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("first", self.missing), ("second", self.added)

    @property
    def start(self) -> str | None:
        """The first step that differs, or None."""
        return next((step.name for step in self.steps if step.changed or not step.comparable), None)

    @takes()
    def cells(self, name: str) -> Array:
        """Second minus first, cell by cell, in float64 (complex128), for any step that both traces have.

        Raises:
            UnknownName: a trace has no step of that name.
            UsageError: the step's shape differs.
        """
        a, b = self.first[name].output, self.second[name].output
        if a.shape != b.shape:
            raise UsageError(f"{name} has shape {a.shape} in one trace and {b.shape} in the other.")
        return _minus(b, a)


@takes(first="Trace", second="Trace")
def difference(first: Trace, second: Trace) -> Difference:
    """Compare two traces step by step, matched by the steps' names.

    >>> import torch, convscope as cs
    >>> image = torch.zeros(1, 5, 5)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, bias=False), torch.nn.ReLU())
    >>> before = cs.trace(net, image)
    >>> image[0, 0, 0] = 1
    >>> cs.difference(before, cs.trace(net, image))["0"].changed
    1

    Args:
        first: The trace before.
        second: The trace after, of the same model or another with the same names.
    """
    after = {step.name: step for step in second.steps}
    before = {step.name for step in first.steps}
    return Difference(
        first,
        second,
        tuple(_compare(step, after[step.name]) for step in first.steps if step.name in after),
        tuple(step.name for step in first.steps if step.name not in after),
        tuple(name for name in after if name not in before),
    )


def _compare(a: Step, b: Step) -> StepDifference:
    shapes = (a.shape, b.shape)
    if a.shape != b.shape:
        return StepDifference(a.name, shapes, 0, 0, float("nan"), float("nan"))
    x, y = a.output, b.output
    same = _same(x, y)
    changed = int(same.size - np.count_nonzero(same))
    if not changed:
        return StepDifference(a.name, shapes, same.size, 0, 0.0, 0.0)
    distance = np.abs(_minus(y, x))
    return StepDifference(
        a.name, shapes, same.size, changed, float(distance.max()), float(np.sqrt(np.square(distance).mean()))
    )


def _minus(b: Array, a: Array) -> Array:
    """b - a in float64 (complex128); 0 where both are the same infinity or both NaN."""
    kind = np.complex128 if "c" in {a.dtype.kind, b.dtype.kind} else np.float64
    with np.errstate(invalid="ignore"):
        distance: Array = np.subtract(b, a, dtype=kind)
    return np.where(_same(a, b), 0.0, distance)


def _same(a: Array, b: Array) -> NDArray[np.bool_]:
    """Mask of equal numbers; NaN equals NaN."""
    mask: NDArray[np.bool_] = (a == b) | (np.isnan(a) & np.isnan(b))
    return mask
