"""Memory budget: keep every call until half of the free memory is used, then only a quarter of it.

Knows torch; nothing of steps.
"""

from typing import Any

import torch
from torch import Tensor

from convscope.capture.recompute import MEGABYTE, SparseRecorder
from convscope.capture.recorder import Recorder
from convscope.capture.session import TracingSession
from convscope.capture.tape import Call, Departure, memory, size_of, tensors_in
from convscope.memory import available

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
        self.whole = True
        self.kept = 0
        self._session = session
        self._held = set()
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
        if not self.whole:
            super().begin()

    def departs(self, tensor: Tensor, way: str, number: Any = None) -> None:
        """Record the departure with its tensor, as long as all tensors are kept."""
        if self.whole:
            self.tape.departures.append(Departure(len(self.tape.calls), tensor, way, number))
        else:
            super().departs(tensor, way, number)

    def about_to_write(self, tensor: Tensor, now: int) -> None:
        """Copy the memory that is about to be overwritten."""
        if self.whole:
            self.tape.save_memory(tensor, now)
            self._copied += size_of(tensor)
            self._uncounted += tensor.numel()
        else:
            super().about_to_write(tensor, now)

    def _note(self, call: Call) -> None:
        if not self.whole:
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
                place = memory(tensor)
                if place not in self._held:
                    self._held.add(place)
                    self.kept += size_of(tensor)
        self._counted = len(self.tape.calls)
        held = self.kept + self._copied
        if held < self._ask_at:
            return
        free = free_memory(self._session.subject.device)
        self._ask_at = held + max(UNASKED, (free - held) // 8)
        if held >= free:
            self._economize((held + free) / 2)

    def _economize(self, budget: float) -> None:
        """Describe every call so far, and keep the tensors of those that fit into half of the budget."""
        calls, departures = self.tape.calls, self.tape.departures
        self.tape.calls, self.tape.departures = [], []
        self._leave_out(self._session, lambda _: True, budget / 2)
        self.window = budget / 2
        self.begin()
        for time, tensor, way, number in departures:
            slot = self.census.slot(tensor, self.tape.shaped(tensor, time))
            self.tape.departures.append(Departure(time, slot, way, number))
        for call in calls:
            if call is None:
                self.tape.calls.append(None)
            else:
                super()._note(call)
        for place in [*self.tape.writes]:
            if place in self.born and place not in self._held:
                del self.tape.writes[place]
        self.kept += sum(size_of(copy) for written in self.tape.writes.values() for _, copy in written.copies)


def free_memory(device: torch.device) -> int:
    """Bytes available to tensors on a device, including those that torch has cached."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return available()
