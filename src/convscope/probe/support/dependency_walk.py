"""Dependency walk: a mask on a step's result followed back to the inputs, and the axes and index ranges on the way.

Memory that was written in place is followed by address, as explanations follow it. Uses traces and rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.ops.lookup import dependencies_of, is_known, selects, spreads
from convscope.progress import Progress, silent
from convscope.proof.backward import WRITES, Backward, Result, is_constant, onto, operands_of
from convscope.proof.calls import call_of
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

LAST = {"addmm", "mm", "bmm", "baddbmm", "native_layer_norm"}
"""Operations that keep their units on the last axis."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of a result."""

    unit: int
    """The axis of the channels of maps, or of the units of a vector."""
    places: tuple[int, ...]
    """Rows and columns, or tokens; empty for a vector."""


def axes_of(step: Step) -> Axes:
    """The layout of a step's result: the first axis counts images, the units are on the second or the last one.

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


def ranges(indices: Sequence[int] | NDArray[np.int64], limit: int = 8) -> str:
    """Runs of indices, with their step where it is not 1.

    >>> ranges([3]), ranges([2, 3, 4, 5]), ranges([0, 2, 4, 6, 8]), ranges([1, 2, 3, 7, 8, 9])
    ('3', '2 to 5', '0 to 8 by 2', '1 to 3, 7 to 9')

    Args:
        indices: In ascending order.
        limit: How many runs are named; the others are only counted.
    """
    left, runs = [int(index) for index in indices], []
    while left:
        step = left[1] - left[0] if len(left) > 1 else 1
        length = 1
        while length < len(left) and left[length] - left[length - 1] == step:
            length += 1
        if length == 2 and step > 1:
            length = 1
        step_note = "" if step == 1 else f" by {step}"
        runs.append(str(left[0]) if length == 1 else f"{left[0]} to {left[length - 1]}{step_note}")
        left = left[length:]
    shown = runs if len(runs) <= limit else [*runs[: limit - 1], f"and {len(runs) - limit + 1} runs more"]
    return ", ".join(shown)


Marks = NDArray[np.bool_]


@dataclass(slots=True)
class Followed:
    """Where marks got to, and what was met on the way."""

    inputs: Mapping[str, Marks] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Steps that take numbers which left PyTorch: what they depend on besides is unknown."""
    spreading: list[Step] = field(default_factory=list)
    """Steps that may read along whole axes, the last one first."""

    def counts(self) -> tuple[int, int, int, int]:
        """How much has been met."""
        return len(self.chosen), len(self.unknown), len(self.broken), len(self.spreading)

    def since(self, counts: tuple[int, int, int, int]) -> "Followed":
        """What was met after that much had been."""
        chosen, unknown, broken, spreading = counts
        return Followed(
            self.inputs, self.chosen[chosen:], self.unknown[unknown:], self.broken[broken:], self.spreading[spreading:]
        )


class DependencyWalk:
    """Follows marks on results of one trace to its inputs.

    Where all marks meet on one result, what comes before it is followed once and remembered: in a network of blocks the
    fields of most steps go the same way from there.
    """

    def __init__(self, trace: Trace, progress: Progress = silent) -> None:
        self.trace, self._progress = trace, progress
        self._varies = depending(trace)
        self._known: dict[tuple[Result, bytes], Followed] = {}

    def __call__(self, step: Step, marks: Array) -> Followed:
        """Follow marks on a step's result to the inputs; they are not 0 where a cell is meant."""
        back = Backward(self.trace, self._varies)
        back.weights[step.id, 0] = marks
        result = Followed()
        counts_before: dict[tuple[Result, bytes], tuple[int, int, int, int]] = {}
        for result_key in _results(self.trace, step.id):
            self._progress("following the number back", step.id - result_key[0], step.id + 1)
            remaining = back.weights.pop(result_key, None)
            if remaining is None or result_key not in self._varies or not remaining.any():
                continue
            if not back.weights and not any(array.any() for array in back.inputs.values()):
                key = result_key, blake2b(np.packbits(remaining != 0).tobytes(), digest_size=16).digest()
                if key in self._known:
                    _went_on(result, self._known[key])
                    break
                counts_before[key] = result.counts()
            _through(back, result, self.trace.all_steps[result_key[0]], result_key[1], remaining)
        else:
            result.inputs = {name: array > 0 for name, array in back.inputs.items()}
        self._progress("following the number back", step.id + 1, step.id + 1)
        self._known |= {key: result.since(counts) for key, counts in counts_before.items()}
        return result


def _results(trace: Trace, last: int) -> Iterator[Result]:
    """The results of a step and of those before it, the last step first."""
    for step_id in range(last, -1, -1):
        yield from ((step_id, index) for index in range(len(trace.all_steps[step_id].results)))


def _went_on(walk: Followed, known_rest: Followed) -> None:
    """What is known of the rest of the way."""
    walk.inputs = known_rest.inputs
    walk.chosen += known_rest.chosen
    walk.unknown += known_rest.unknown
    walk.broken += known_rest.broken
    walk.spreading += known_rest.spreading


def _through(back: Backward, walk: Followed, step: Step, index: int, marks: Array) -> None:
    """Marks on one result of one step: to its operands."""
    if step.broken:
        walk.broken.append(step.name)
    refs = {n: r for n, r in operands_of(step) if not (step.op in WRITES and n == "self")}
    varies = frozenset(name for name, ref in refs.items() if _depends(back.varies, ref))
    call = call_of(back.trace, step, index)
    if not is_known(call):
        walk.unknown.append(step.name)
    if spreads(call):
        walk.spreading.append(step)
    if selects(call, varies):
        walk.chosen.append(step.name)
    for name, gradient in dependencies_of(call, marks, varies).items():
        onto(back, step, name, refs[name], gradient)


def depending(trace: Trace) -> frozenset[Result]:
    """The results that depend on an input's numbers, integers and truth values included, or may do so through
    numbers that left PyTorch."""
    result: set[Result] = set()
    for step in trace.all_steps:
        if step.broken and not step.overridden:
            result |= {(step.id, index) for index in range(len(step.results))}
        if is_constant(step) or step.overridden:
            continue
        if any(_depends(result, ref) for name, ref in operands_of(step) if not (step.op in WRITES and name == "self")):
            result |= {(step.id, index) for index in range(len(step.results))}
    return frozenset(result)


def _depends(dependent: set[Result] | frozenset[Result], ref: Ref) -> bool:
    written = any((writer, 0) in dependent for writer in ref.rewritten)
    return written or ref.kind == "input" or (ref.kind == "step" and (ref.id, ref.output) in dependent)
