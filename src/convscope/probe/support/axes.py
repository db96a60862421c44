"""Layout: which axis of a step's result counts images, which its units or channels, and which are places."""

from dataclasses import dataclass

from convscope.errors import UsageError
from convscope.traces.step import Step

LAST = {"addmm", "mm", "bmm", "baddbmm", "native_layer_norm"}
"""Operations that keep their units on the last axis."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a result."""

    unit: int
    """Of the channels of maps, of the units of a vector."""
    places: tuple[int, ...]
    """Rows and columns, or tokens; empty for a vector."""


def axes_of(step: Step) -> Axes:
    """How a step's result lies: the first axis counts images, the units are on the second or the last one.

    >>> from convscope.traces.step import Ref
    >>> maps = Ref("step", 0, "conv1", shape=(1, 8, 26, 26))
    >>> axes_of(Step(0, "conv1", "", "", "convolution", "", {}, (), {}, (maps,)))
    Axes(unit=1, places=(2, 3))

    Raises:
        UsageError: the result is a single number or counts images alone.
    """
    count = len(step.shape)
    if count < 2:
        raise UsageError(
            f"{step.name} gives {'x'.join(map(str, step.shape)) or 'one number'} for a batch, so it has no units to "
            "look at; name a step with maps or a vector."
        )
    last = count == 3 and step.op != "convolution"
    unit = count - 1 if last or step.op in LAST else 1
    return Axes(unit, tuple(axis for axis in range(1, count) if axis != unit))
