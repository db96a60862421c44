"""Recomputation: traces that store only some numbers, within a memory budget, and recompute the rest bit for bit."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from convscope.capture.call_records import CallRecord, TensorIds, TensorMeta, describe, results_of
from convscope.capture.dataflow import slots_in
from convscope.capture.recorder import Recorder, StopRecording
from convscope.capture.recording import Recording, tensors_of
from convscope.capture.session import TracingSession
from convscope.capture.tape import Call, Departure, Tape, memory, size_of, tensors_in
from convscope.errors import TraceError
from convscope.memory import available

MEGABYTE = 1_000_000
WINDOW = 64 * MEGABYTE
"""Maximum bytes of recomputed calls held at once."""
UNWRITTEN = ("empty", "new_empty", "resize")
"""Name prefixes of operations whose results are uninitialized memory."""
COPIES = frozenset({"_to_copy", "cat", "clone", "contiguous", "copy"})
"""Operations that pass such memory on."""
WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes per number -> the integer type that reads its bits."""


class SparseRecorder(Recorder):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Describes every call, and holds the tensors of those that `is_kept` accepts, up to `budget` bytes."""

    def __init__(
        self, session: TracingSession, is_kept: Callable[[int], bool], budget: float, *, enough: bool = False
    ) -> None:
        super().__init__(session.results)
        self._leave_out(session, is_kept, budget, enough=enough)

    def _leave_out(
        self, session: TracingSession, is_kept: Callable[[int], bool], budget: float, *, enough: bool = False
    ) -> None:
        self.is_complete = False
        """Whether nothing was left out so far."""
        self.window: float = WINDOW
        """Maximum bytes of recomputed calls to hold."""
        self.entries: list[CallRecord] = []
        self.sums: dict[int, int] = {}
        """Time -> checksum of a call's results, to check that a repetition gives the same."""
        self._unwritten: set[int] = set()
        self.numbers: dict[int, complex] = {}
        """Serial -> value of a single-number tensor that entered during the pass."""
        self.kept_bytes = 0
        """Bytes of the tensors held."""
        self.census = TensorIds(weak=True)
        self.outside: tuple[dict[str, TensorMeta], dict[str, TensorMeta]] = ({}, {})
        self._session = session
        self._is_kept = is_kept
        self._left = budget
        self._full = False
        self._enough = enough
        self._existing: set[int] = set()
        self.born: set[int] = set()
        self._held_memories: set[int] = set()
        self._last: Call | None = None

    def begin(self) -> None:
        """Record the state before the pass; overrides have already replaced parameters."""
        self.outside = outside_slots(self._session, self.census)
        existing = (*self._session.tensors.values(), *self._session.intake.tensors.values())
        self._existing = set(map(memory, existing))

    def departs(self, tensor: Tensor, way: str, number: complex | None = None) -> None:
        """Record the departure with the tensor's slot, because the tensor may not be kept."""
        slot = self.census.slot(tensor, self.tape.shaped(tensor, len(self.tape.calls)))
        self.tape.departures.append(Departure(len(self.tape.calls), slot, way, number))

    def about_to_write(self, tensor: Tensor, time: int) -> None:
        """Copy memory about to be overwritten, if it is held, will be, or existed before the pass."""
        address = memory(tensor)
        if address in self._held_memories or address not in self.born or (self._is_kept(time) and not self._full):
            super().about_to_write(tensor, time)
            self._left -= size_of(tensor)
            self.kept_bytes += size_of(tensor)

    def _note(self, call: Call) -> None:
        self._last = call  # torch calls `detach` on new tensors that are referenced, so hold each one briefly
        time = len(self.tape.calls)
        _, args, kwargs, result, _ = call
        if self.tape.departures:
            self._note_numbers([*args, *(kwargs or {}).values()])
        self._existing.update(
            memory(t) for t in tensors_in([*args, *(kwargs or {}).values()]) if memory(t) not in self.born
        )
        self.born.update(memory(t) for t in tensors_in(result) if memory(t) not in self._existing)
        if results_of(call):
            entry = describe(call, time, self.tape, self.census)
            self.entries.append(entry)
            if not entry.view and self._is_written(entry):
                with torch._C._DisableTorchDispatch():
                    self.sums[time] = sum_of_bits(self.tape.numbers_at(results_of(call)[0], time + 1))
        self.tape.calls.append(call if self._is_kept(time) and self._holds(call) else None)
        if self._full and self._enough:
            raise StopRecording

    def _is_written(self, entry: CallRecord) -> bool:
        """Whether a call's result is free of uninitialized memory, which differs from pass to pass.

        Uninitialized memory may be filled in parts, and copied before it is complete.
        """
        copied = [slot for _, _, slot in slots_in(entry.arguments)] if entry.op in COPIES else []
        begins = entry.op.startswith(UNWRITTEN)
        if begins or any(slot.memory in self._unwritten for slot in (*entry.results, *entry.writes, *copied)):
            self._unwritten.update(slot.memory for slot in entry.results)
            return False
        return True

    def _note_numbers(self, arguments: list[object]) -> None:
        """Record numbers that enter as tensors, because the tensors may not be kept."""
        for tensor in tensors_in(arguments):
            if not tensor.dim() and memory(tensor) not in self.born and memory(tensor) not in self._existing:
                with torch._C._DisableTorchDispatch():
                    self.numbers[self.census.slot(tensor).serial] = tensor.item()

    def _holds(self, call: Call) -> bool:
        """Whether the budget has room for the call's results; the call that a pass is repeated for always fits."""
        _, args, kwargs, result, _ = call
        sizes = {memory(t): size_of(t) for t in tensors_in([*args, *(kwargs or {}).values(), result])}
        added = {p: size for p, size in sizes.items() if p not in self._held_memories and p not in self._existing}
        if sum(added.values()) > self._left and not (self._enough and not self._held_memories):
            self._full = True
        if self._full:
            return False
        self._left -= sum(added.values())
        self.kept_bytes += sum(added.values())
        self._held_memories |= added.keys()
        return True


def sum_of_bits(tensor: Tensor) -> int:
    """A checksum over the bits of a tensor, independent of the order; 0 for tensors without strided memory.

    >>> sum_of_bits(torch.tensor([1.0, 2.0])) == sum_of_bits(torch.tensor([2.0, 1.0])) != 0
    True
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or not tensor.numel() or tensor.is_meta:
        return 0
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    kind = WHOLE_NUMBERS[tensor.itemsize]
    return int(tensor.resolve_neg().view(kind).sum(dtype=torch.int64 if tensor.itemsize < 4 else kind))


def outside_slots(session: TracingSession, census: TensorIds) -> tuple[dict[str, TensorMeta], dict[str, TensorMeta]]:
    """The slots of parameters and of inputs before a pass."""
    parameters = {name: census.slot(tensor) for name, tensor in session.tensors.items()}
    return parameters, {name: census.slot(tensor) for name, tensor in session.intake.tensors.items()}


def readable(size: int, beside: int = 0) -> str:
    """Bytes in human-readable form; `beside` is a number printed next to it, whose unit then serves for both.

    >>> readable(3_140_000_000), readable(3_140_000_000, 20_000_000_000), readable(70_000)
    ('3.1 GB', '3.1', '0.07 MB')
    """
    unit = max(size, beside) >= 1e9
    number = f"{size / (1e9 if unit else 1e6):.2g}" if size < (1e10 if unit else 1e7) else ""
    number = number or f"{size / (1e9 if unit else 1e6):,.0f}"
    return number if beside else f"{number} {'GB' if unit else 'MB'}"


def bytes_of(dtype: str) -> int:
    """Bytes per number of this type."""
    return int(getattr(torch, dtype).itemsize)


class Recomputing(Recording):
    """A pass of which only some calls were kept; the others are recomputed, a window at a time."""

    def __init__(self, session: TracingSession, recorder: SparseRecorder, result: object) -> None:
        super().__init__(session, recorder, result)
        self._recorder = recorder
        self._again: Tape | None = None
        self._returned = [recorder.census.slot(tensor) for tensor in tensors_of(result)]

    @cached_property
    def entries(self) -> Sequence[CallRecord]:
        """Every call that made a tensor, described."""
        return tuple(self._recorder.entries)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note on how much was kept."""
        total_bytes = sum(math.prod(s.shape) * bytes_of(s.dtype) for e in self.entries if not e.view for s in e.results)
        note = f"kept {readable(self._recorder.kept_bytes, total_bytes)} of {readable(total_bytes)}"
        return (f"{note} of results; other steps are recomputed on demand.", *super().notes)

    def _slots_outside(self) -> tuple[dict[str, TensorMeta], dict[str, TensorMeta]]:
        return self._recorder.outside

    def _slots_returned(self) -> list[TensorMeta]:
        return self._returned

    @property
    def _census(self) -> TensorIds:
        return self._recorder.census

    def _slot_of(self, departure: Departure) -> TensorMeta:
        assert isinstance(departure.tensor, TensorMeta)
        return departure.tensor

    def _scalar(self, use: tuple[int, TensorMeta, str, int]) -> complex | None:
        return self._recorder.numbers.get(use[1].serial)

    def fetch(self, time: int) -> tuple[Tape, Call]:
        """A call with its tensors, recomputed if it was not kept.

        Raises:
            TraceError: the weights changed since, or the model no longer does the same computation.
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
                f"this number was not kept and cannot be recomputed: {', '.join(changed[:3])} changed since the trace; "
                "trace again."
            )
        self._again = None  # free its memory first
        recorder = SparseRecorder(self.session, lambda t: t >= time, self._recorder.window, enough=True)
        self.session.run(recorder)
        original, repeated = (
            [(e.op, e.time, [slot.shape for slot in e.results], r.sums.get(e.time)) for e in r.entries[:count]]
            for count in [len(recorder.entries)]
            for r in (self._recorder, recorder)
        )
        call = recorder.tape.calls[time] if time < len(recorder.tape.calls) else None
        if repeated != original or call is None:
            raise TraceError(
                "this number was not kept and cannot be recomputed: the model did something else the second time; "
                "trace it with keep='all'."
            )
        self._again = again = recorder.tape  # another thread may do the same
        return again, call


UNCOUNTED = 16 * MEGABYTE
"""Numbers that calls may make before their bytes are counted: counting each would cost more than it saves."""
LARGE = MEGABYTE
"""Size of a tensor above which every call is checked; below it, calls are checked in groups."""
CALLS = 16
"""Calls per group: checking each one would take a twentieth of a small network's time."""
UNASKED = 256 * MEGABYTE
"""Bytes that may be added before the system is queried for free memory, which takes up to a millisecond."""


class BudgetRecorder(SparseRecorder):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Keeps every call until they take as much memory as is still free; then works like `keep=NUMBER`.

    It then holds half of that budget and leaves the other half for recomputed calls.
    """

    def __init__(self, session: TracingSession) -> None:
        Recorder.__init__(self, session.results)
        self.is_complete = True
        self.kept_bytes = 0
        self._session = session
        self._held_memories = set()
        self._uncounted = 0
        self._counted = self._looked = 0  # calls
        self._large = False
        self._look_at = CALLS
        for tensor in session.intake.tensors.values():
            if tensor.numel() > LARGE:
                self._large, self._look_at = True, 1
        self._copied = 0
        self._ask_at = UNASKED

    def begin(self) -> None:
        """Do nothing yet: the state before the pass is needed only once calls are no longer kept."""
        if not self.is_complete:
            super().begin()

    def departs(self, tensor: Tensor, way: str, number: complex | None = None) -> None:
        """Record the departure with its tensor, as long as all tensors are kept."""
        if self.is_complete:
            self.tape.departures.append(Departure(len(self.tape.calls), tensor, way, number))
        else:
            super().departs(tensor, way, number)

    def about_to_write(self, tensor: Tensor, time: int) -> None:
        """Copy the memory that is about to be overwritten."""
        if self.is_complete:
            self.tape.save_memory(tensor, time)
            self._copied += size_of(tensor)
            self._uncounted += tensor.numel()
        else:
            super().about_to_write(tensor, time)

    def _note(self, call: Call) -> None:
        if not self.is_complete:
            super()._note(call)
            return
        calls = self.tape.calls
        calls.append(call)
        if len(calls) >= self._look_at:
            self._look()

    def _look(self) -> None:
        """Add up the numbers made by the latest calls."""
        calls = self.tape.calls
        sizes = [tensor.numel() for call in calls[self._looked :] if call for tensor in tensors_in(call[3])]
        self._looked = len(calls)
        self._large = self._large or max(sizes, default=0) > LARGE
        self._look_at = self._looked + (1 if self._large else CALLS)
        self._uncounted += sum(sizes)
        if self._uncounted > UNCOUNTED:
            self._count()

    def _count(self) -> None:
        """Add up the bytes held, and start to economize once they reach what is still free."""
        self._uncounted = 0
        for call in self.tape.calls[self._counted :]:
            for tensor in tensors_in([*call[1], *(call[2] or {}).values(), call[3]] if call else []):
                address = memory(tensor)
                if address not in self._held_memories:
                    self._held_memories.add(address)
                    self.kept_bytes += size_of(tensor)
        self._counted = len(self.tape.calls)
        held_bytes = self.kept_bytes + self._copied
        if held_bytes < self._ask_at:
            return
        free = free_memory(self._session.subject.device)
        self._ask_at = held_bytes + max(UNASKED, (free - held_bytes) // 8)
        if held_bytes >= free:
            self._economize((held_bytes + free) / 2)

    def _economize(self, budget: float) -> None:
        """Describe every call so far, and keep the tensors of those that fit into half of the budget."""
        calls, departures = self.tape.calls, self.tape.departures
        self.tape.calls, self.tape.departures = [], []
        self._leave_out(self._session, lambda _: True, budget / 2)
        self.window = budget / 2
        self.begin()
        for time, tensor, way, number in departures:
            assert isinstance(tensor, Tensor)
            slot = self.census.slot(tensor, self.tape.shaped(tensor, time))
            self.tape.departures.append(Departure(time, slot, way, number))
        for call in calls:
            if call is None:
                self.tape.calls.append(None)
            else:
                super()._note(call)
        for address in [*self.tape.writes]:
            if address in self.born and address not in self._held_memories:
                del self.tape.writes[address]
        self.kept_bytes += sum(size_of(copy) for written in self.tape.writes.values() for _, copy in written.copies)


def free_memory(device: torch.device) -> int:
    """Bytes available to tensors on a device, including those that torch has cached."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return available()
