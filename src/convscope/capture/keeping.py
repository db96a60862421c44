"""Keeping: traces that keep less than everything, and make the rest again, bit for bit, when it is asked for.

Knows torch; the steps and numbers are those of a trace that keeps all.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from convscope.capture.arrays import tensors_of
from convscope.capture.describe import Census, Entry, Slot, describe, results_of
from convscope.capture.recorder import Enough, Recorder
from convscope.capture.recording import Recording
from convscope.capture.session import Session
from convscope.capture.tape import Call, Tape, memory, size_of, tensors_in
from convscope.errors import TraceError

MEGABYTE = 1_000_000
WINDOW = 64 * MEGABYTE
"""What is held at once of the calls that are made again."""


class SparseRecorder(Recorder):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Describes every call and holds the tensors of those that `wanted` accepts, as many bytes as `budget` allows."""

    def __init__(self, session: Session, wanted: Callable[[int], bool], budget: float, *, enough: bool = False) -> None:
        super().__init__(session.results)
        self.entries: list[Entry] = []
        self.census = Census(weak=True)
        self.outside: tuple[dict[str, Slot], dict[str, Slot]] = ({}, {})
        self._session = session
        self._wanted = wanted
        self._left = budget
        self._full = False
        self._enough = enough
        self._given: set[int] = set()
        self.born: set[int] = set()
        self._held: set[int] = set()
        self._last: Call | None = None

    def begin(self) -> None:
        """Note what is there before the pass: overrides stand in the place of parameters by now."""
        self.outside = outside_slots(self._session, self.census)
        given = (*self._session.tensors.values(), *self._session.intake.tensors.values())
        self._given = set(map(memory, given))

    def about_to_write(self, tensor: Tensor, now: int) -> None:
        """Copy what will be overwritten, if it is held, about to be, or was there before the pass."""
        place = memory(tensor)
        if place in self._held or place not in self.born or (self._wanted(now) and not self._full):
            super().about_to_write(tensor, now)
            self._left -= size_of(tensor)

    def _note(self, call: Call) -> None:
        self._last = call  # torch calls `detach` on new tensors that someone holds, so each is held for a moment
        time = len(self.tape.calls)
        _, args, kwargs, result, _ = call
        self._given.update(
            memory(t) for t in tensors_in([*args, *(kwargs or {}).values()]) if memory(t) not in self.born
        )
        self.born.update(memory(t) for t in tensors_in(result) if memory(t) not in self._given)
        if results_of(call):
            self.entries.append(describe(call, time, self.tape, self.census))
        self.tape.calls.append(call if self._wanted(time) and self._holds(call) else None)
        if self._full and self._enough:
            raise Enough

    def _holds(self, call: Call) -> bool:
        """Whether there is room for what the call adds; the call that a pass is repeated for always has it."""
        _, args, kwargs, result, _ = call
        sizes = {memory(t): size_of(t) for t in tensors_in([*args, *(kwargs or {}).values(), result])}
        added = {p: size for p, size in sizes.items() if p not in self._held and p not in self._given}
        if sum(added.values()) > self._left and not (self._enough and not self._held):
            self._full = True
        if self._full:
            return False
        self._left -= sum(added.values())
        self._held |= added.keys()
        return True


def outside_slots(session: Session, census: Census) -> tuple[dict[str, Slot], dict[str, Slot]]:
    """The slots of parameters and of inputs before a pass."""
    parameters = {name: census.slot(tensor) for name, tensor in session.tensors.items()}
    return parameters, {name: census.slot(tensor) for name, tensor in session.intake.tensors.items()}


class Recomputing(Recording):
    """A pass of which some calls were kept; the others are made again, a window of them at a time."""

    def __init__(self, session: Session, recorder: SparseRecorder, result: Any, window: float = WINDOW) -> None:
        super().__init__(session, recorder, result)
        self._recorder = recorder
        self._window = window
        self._again: Tape | None = None
        self._returned = [recorder.census.slot(tensor) for tensor in tensors_of(result)]

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """Every call that made a tensor, described."""
        return tuple(self._recorder.entries)

    def _slots_outside(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._recorder.outside

    def _slots_returned(self) -> list[Any]:
        return self._returned

    def fetch(self, time: int) -> tuple[Tape, Call]:
        """A call with its tensors, made again if it was not kept.

        Raises:
            TraceError: the weights changed since, or the model no longer does the same.
        """
        for tape in (self.tape, self._again):
            call = tape.calls[time] if tape is not None and time < len(tape.calls) else None
            if tape is not None and call is not None:
                return tape, call
        return self._run_again(time)

    def _run_again(self, time: int) -> tuple[Tape, Call]:
        changed = self.changed()
        if changed:
            raise TraceError(
                f"this number was not kept and cannot be made again: {', '.join(changed[:3])} changed since the trace; "
                "trace again."
            )
        self._again = None  # its memory goes first
        recorder = SparseRecorder(self.session, lambda t: t >= time, self._window, enough=True)
        self.session.run(recorder)
        told = [(e.op, e.time, [slot.shape for slot in e.results]) for e in recorder.entries]
        kept = [(e.op, e.time, [slot.shape for slot in e.results]) for e in self.entries[: len(told)]]
        call = recorder.tape.calls[time] if time < len(recorder.tape.calls) else None
        if told != kept or call is None:
            raise TraceError(
                "this number was not kept and cannot be made again: the model did something else the second time; "
                "trace it with keep='all'."
            )
        self._again = again = recorder.tape  # another thread may be here too
        return again, call
