"""Tape: the calls of one forward pass with their tensors, and what each tensor held at any call.

Knows torch's memory: tensors that share it, and writes into it. No names, no steps.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

Call = tuple[Any, tuple[Any, ...], dict[str, Any] | None, Any, int]
"""Function, arguments, keyword arguments, result, and the visit (of a module) during which it ran."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A memory that was written into."""

    bytes: Tensor
    """The memory itself, flat."""
    copies: list[tuple[int, Tensor]] = field(default_factory=list)
    """(time, all bytes before that write), in order."""


class Departure(NamedTuple):
    """Numbers of a tensor that left PyTorch during the pass, for Python, NumPy or compiled code."""

    time: int
    """The call that came next, or was the departure itself."""
    tensor: Any
    """The tensor, or its Slot where tensors are not kept."""
    way: str
    number: Any = None
    """The number, where it was a single one."""


@dataclass(slots=True, eq=False)
class Tape:
    """What was recorded. Time is counted in calls: a write at time t happens while call t runs."""

    calls: list[Call | None] = field(default_factory=list)
    """None for a call whose tensors were not kept, and where memory was handed out between calls."""
    visits: list[tuple[str, int]] = field(default_factory=lambda: [("", -1)])
    """(module path, visit that it was called from) of each call of a module."""
    writes: dict[int, Written] = field(default_factory=dict)
    """By memory."""
    moves: dict[int, list[tuple[int, Tensor, Tensor]]] = field(default_factory=dict)
    """id(tensor) -> (time, its shape and memory before the change, the tensor), for `t_`, `resize_`, `set_`,
    `.data =`."""
    undispatched: list[int] = field(default_factory=list)
    """The times that are no calls of torch: memory was handed out, or `.data` was assigned to."""
    departures: list[Departure] = field(default_factory=list)
    shared: dict[int, int] = field(default_factory=dict)
    """Departure -> the memory that was handed out then."""
    changed: set[int] = field(default_factory=set)
    """Departures after which that memory was written into by other code; known when the tape is settled."""

    def at(self, tensor: Tensor, time: int) -> Tensor:
        """`tensor` with the numbers it held when call `time` began."""
        if self.moves:
            tensor = self.shaped(tensor, time)
        written = self.writes.get(memory(tensor)) if self.writes else None
        if written is not None:
            for t, copy in written.copies:
                if t >= time:
                    return _seen(tensor, copy)
        return tensor

    def shaped(self, tensor: Tensor, time: int) -> Tensor:
        """`tensor` with the shape that it had when call `time` began."""
        return next((before for t, before, _ in self.moves.get(id(tensor), ()) if t >= time), tensor)

    def save_memory(self, tensor: Tensor, time: int) -> None:
        """Copy the memory of `tensor`, all of it, because call `time` is about to write into it."""
        key = memory(tensor)
        written = self.writes.get(key)
        if written is None:
            written = self.writes[key] = Written(flat(tensor))
        written.copies.append((time, flat(tensor).clone()))

    def save_shape(self, tensor: Tensor, time: int) -> None:
        """Keep the shape of `tensor`, because call `time` is about to change it in place."""
        alias = torch.ops.aten.alias.default(tensor)
        self.moves.setdefault(id(tensor), []).append((time, alias, tensor))


def settle(tape: Tape, given: Sequence[Tensor], born: Collection[int] | None = None) -> None:
    """End a tape: it no longer depends on tensors that are not the model's, and what was there before is as it was.

    Args:
        tape: The tape of a pass that has ended.
        given: The parameters, buffers and inputs, all of which are referred to, not copied.
        born: The memories that the pass made, where not every call is on the tape.
    """
    end = len(tape.calls)
    tape.changed = {place for place, key in tape.shared.items() if _written_outside(tape, key, place)}
    if tape.moves:
        _put_back_shapes(tape, given, born)
    foreign = _foreign(tape, set(map(id, given)))
    if not foreign and not tape.writes:
        return
    mine = set(map(memory, given))
    for key, tensor in foreign.items():
        if key not in mine and (born is None or key not in born):
            tape.save_memory(tensor, end)
    for key, written in tape.writes.items():
        was_there = key in mine or (key in foreign if born is None else key not in born)
        if was_there and written.copies[0][0] < end:
            if written.copies[-1][0] < end:
                written.copies.append((end, written.bytes.clone()))
            written.bytes.untyped_storage().copy_(written.copies[0][1].untyped_storage())


def _written_outside(tape: Tape, key: int, departure: int) -> bool:
    """Whether memory that was handed out no longer held the same at the next recorded write, or at the end."""
    written, since = tape.writes.get(key), tape.departures[departure].time
    if written is None:
        return False
    before, after = ([copy for time, copy in written.copies if time >= since] + [written.bytes])[:2]
    return not torch.equal(before, after)


def _put_back_shapes(tape: Tape, given: Sequence[Tensor], born: Collection[int] | None) -> None:
    """Give tensors that were there before the pass their shape and memory back; the tape keeps those of the end."""
    end, mine = len(tape.calls), set(map(id, given))
    made = {id(t): time for time, call in reversed([*enumerate(tape.calls)]) if call for t in tensors_in(call[3])}
    for key, moves in tape.moves.items():
        first, before, tensor = moves[0]
        here = made.get(key, end) < first if born is None else memory(before) in born
        if key in mine or not here:
            tape.save_shape(tensor, end)
            assign_data(tensor, before)


def assign_data(tensor: Tensor, source: Tensor) -> None:
    """`tensor.data = source`, seen by no recorder."""
    torch._C.TensorBase.data.__set__(tensor, source)  # type: ignore[attr-defined]  # a descriptor of C


def _foreign(tape: Tape, known: set[int]) -> dict[int, Tensor]:
    """One tensor for each memory that calls read although nothing on the tape made it."""
    foreign: list[Tensor] = []
    for call in tape.calls:
        if call is None:
            continue
        function, args, kwargs, result, _ = call
        places = _PLACES.get(id(function))
        if places is None:
            places = _PLACES[id(function)] = _places(function)
        for place in places[0]:
            if place < len(args) and id(args[place]) not in known and args[place] is not None:
                foreign += [tensor for tensor in tensors_in(args[place]) if id(tensor) not in known]
        if kwargs:
            foreign += [tensor for tensor in tensors_in([*kwargs.values()]) if id(tensor) not in known]
        if isinstance(result, tuple | list):
            known.update(map(id, result))
        else:
            known.add(id(result))
    return {memory(tensor): tensor for tensor in reversed(foreign)}


_PLACES: dict[int, tuple[tuple[int, ...], Any]] = {}  # by id(function), which is held too


def _places(function: Any) -> tuple[tuple[int, ...], Any]:
    """Which arguments of a function may be tensors or lists of them."""
    arguments = enumerate(function._schema.arguments)
    return tuple(place for place, argument in arguments if "Tensor" in str(argument.type)), function


def memory(tensor: Tensor) -> int:
    """What tensors share whose numbers lie in the same memory."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else id(tensor)


def size_of(tensor: Tensor) -> int:
    """How many bytes that memory has; for a tensor that lies in none of its own kind, as many as it stands for."""
    if tensor.layout is torch.strided:
        return int(tensor.untyped_storage().nbytes())
    return tensor.numel() * tensor.element_size()


def flat(tensor: Tensor) -> Tensor:
    """All bytes of the memory that `tensor` lies in."""
    if tensor.layout is not torch.strided:
        return tensor
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _seen(tensor: Tensor, copy: Tensor) -> Tensor:
    """A copied memory, seen through the shape of `tensor`."""
    if tensor.layout is not torch.strided:
        return copy
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(copy.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of an argument or a result: itself, or those in its lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
