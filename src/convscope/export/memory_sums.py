"""Memory sums: bytes that the steps of a trace allocate, and how many are in use at once. Knows traces; no torch."""

import math
import re
from dataclasses import dataclass

from convscope.traces.step import Ref
from convscope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a forward pass; a view or an in-place operation allocates none."""

    by_step: tuple[int, ...]
    """Bytes of the results that each step allocated, hidden steps included."""
    peak: int
    """The most that is in use at once in evaluation, where a tensor is freed after its last use; weights excluded."""
    peak_at: str
    """The step at which this peak occurs."""

    @property
    def total(self) -> int:
        """Bytes of all results together: the most that training keeps for the backward pass."""
        return sum(self.by_step)


def bytes_of(ref: Ref) -> int:
    """Bytes of a tensor.

    >>> bytes_of(Ref("step", 0, "conv1", shape=(1, 8, 4, 4), dtype="bfloat16"))
    256
    """
    bits = re.search(r"\d+", ref.dtype)
    return math.prod(ref.shape) * (1 if bits is None else max(1, int(bits.group()) // 8))  # bool has one byte


def memory_use(trace: Trace) -> MemoryUse:
    """The memory that the steps of a trace allocate, and how much of it is in use at once."""
    sizes = {ref.memory: bytes_of(ref) for (kind, _), ref in trace.outside.items() if kind == "input"}
    born, last, by_step = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0), []
    elsewhere = {ref.memory for ref in trace.outside.values()} - set(sizes)
    for step in trace.all_steps:
        fresh = {r.memory: bytes_of(r) for r in step.results if r.memory not in sizes and r.memory not in elsewhere}
        sizes |= fresh
        born |= dict.fromkeys(fresh, step.id)
        by_step.append(sum(fresh.values()))
        for ref in (*step.results, *(ref for _, _, ref in step.refs())):
            if ref.memory in sizes:
                last[ref.memory] = step.id
    for ref in trace.returned or ():
        last[ref.memory] = len(trace.all_steps)
    changes = [0] * (len(trace.all_steps) + 2)
    for memory, size in sizes.items():
        changes[born[memory]] += size
        changes[last[memory] + 1] -= size
    peak, peak_at, used = 0, "", 0
    for step in trace.all_steps:
        used += changes[step.id]
        if used > peak:
            peak, peak_at = used, step.name
    return MemoryUse(tuple(by_step), peak, peak_at)
