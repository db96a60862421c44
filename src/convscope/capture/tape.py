"""Tape: the calls of one forward pass with their tensors, and the contents of each tensor at the time of any call.

Uses torch's memory: tensors that share it, and writes to it. No names, no steps.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch._C import FunctionSchema


class Operator(Protocol):
    """An ATen overload such as `torch.ops.aten.relu.default`, or a stand-in for one."""

    @property
    def _schema(self) -> FunctionSchema: ...
    @property
    def is_view(self) -> bool:
        """Whether its result is a view of its first argument."""


Call: TypeAlias = tuple[Operator, tuple[object, ...], dict[str, object] | None, object, int]
"""Function, arguments, keyword arguments, result, and the visit (of a module) during which it ran."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A memory that was written to."""

    bytes: Tensor
    """The memory itself, flat."""
    copies: list[tuple[int, Tensor]] = field(default_factory=list)
    """(time, all bytes before that write), in order."""


class Departure(NamedTuple):
    """Numbers of a tensor that left PyTorch during the pass, for Python, NumPy or compiled code."""

    time: int
    """Time of the next call, or of the call that is the departure itself."""
    tensor: object
    """The tensor, or its slot if tensors are not kept."""
    way: str
    number: complex | None = None
    """The number, if it was a single one."""


@dataclass(slots=True, eq=False)
class Tape:
    """The recording. Time is counted in calls: a write at time t happens during call t."""

    calls: list[Call | None] = field(default_factory=list)
    """The calls; None for one whose tensors were not kept, or for memory handed out between calls."""
    visits: list[tuple[str, int]] = field(default_factory=lambda: [("", -1)])
    """(module path, index of the calling visit) of each call of a module."""
    writes: dict[int, Written] = field(default_factory=dict)
    """Memory -> its contents before each write."""
    moves: dict[int, list[tuple[int, Tensor, Tensor]]] = field(default_factory=dict)
    """id(tensor) -> (time, its shape and memory before the change, the tensor), for `t_`, `resize_`, `set_`,
    `.data =`."""
    undispatched: list[int] = field(default_factory=list)
    """Times without a torch call: memory was handed out, `.data` was assigned, or a dropout layer was inactive."""
    departures: list[Departure] = field(default_factory=list)
    shared: dict[int, int] = field(default_factory=dict)
    """Departure -> the memory handed out at that time."""
    changed: set[int] = field(default_factory=set)
    """Departures after which other code wrote to that memory; known once the tape is finalized."""

    def numbers_at(self, tensor: Tensor, time: int) -> Tensor:
        """`tensor` with the numbers it held when call `time` began."""
        if self.moves:
            tensor = self.shaped(tensor, time)
        written = self.writes.get(memory(tensor)) if self.writes else None
        if written is not None:
            for t, copy in written.copies:
                if t >= time:
                    return _as_view(tensor, copy)
        return tensor

    def shaped(self, tensor: Tensor, time: int) -> Tensor:
        """`tensor` with the shape that it had when call `time` began."""
        return next((before for t, before, _ in self.moves.get(id(tensor), ()) if t >= time), tensor)

    def save_memory(self, tensor: Tensor, time: int) -> None:
        """Copy the whole memory of `tensor`, because call `time` is about to write to it."""
        key = memory(tensor)
        written = self.writes.get(key)
        if written is None:
            written = self.writes[key] = Written(flat(tensor))
        written.copies.append((time, flat(tensor).clone()))

    def save_shape(self, tensor: Tensor, time: int) -> None:
        """Save the shape of `tensor`, because call `time` is about to change it in place."""
        alias = torch.ops.aten.alias.default(tensor)
        self.moves.setdefault(id(tensor), []).append((time, alias, tensor))


def finalize(tape: Tape, existing: Sequence[Tensor], born: Collection[int] | None = None) -> None:
    """Finalize a tape: make it independent of foreign tensors, and restore all memory that existed before the pass.

    Args:
        tape: The tape of a completed pass.
        existing: The parameters, buffers and inputs, which are referenced, not copied.
        born: Memories allocated by the pass; needed only if not every call is on the tape.
    """
    end = len(tape.calls)
    if tape.shared:
        tape.changed = {position for position, key in tape.shared.items() if _written_outside(tape, key, position)}
    if tape.moves:
        _put_back_shapes(tape, existing, born)
    foreign = _foreign(tape, set(map(id, existing)))
    if not foreign and not tape.writes:
        return
    existing_memories = set(map(memory, existing))
    # Other tensors may change after the pass, so the tape takes copies of their memory.
    for key, tensor in foreign.items():
        if key not in existing_memories and (born is None or key not in born):
            tape.save_memory(tensor, end)
    # Memory from before the pass gets its first contents back; the tape keeps a copy of the last ones.
    for key, written in tape.writes.items():
        existed_before = key in existing_memories or (key in foreign if born is None else key not in born)
        if existed_before and written.copies[0][0] < end:
            if written.copies[-1][0] < end:
                written.copies.append((end, written.bytes.clone()))
            written.bytes.untyped_storage().copy_(written.copies[0][1].untyped_storage())


def _written_outside(tape: Tape, key: int, departure: int) -> bool:
    """Whether memory that was handed out had changed by the next recorded write, or by the end."""
    written, since = tape.writes.get(key), tape.departures[departure].time
    if written is None:
        return False
    before, after = ([copy for time, copy in written.copies if time >= since] + [written.bytes])[:2]
    return not torch.equal(before, after)


def _put_back_shapes(tape: Tape, existing: Sequence[Tensor], born: Collection[int] | None) -> None:
    """Restore shape and memory of tensors that existed before the pass; the tape keeps the final ones."""
    end, existing_ids = len(tape.calls), set(map(id, existing))
    made_at = {id(t): time for time, call in reversed([*enumerate(tape.calls)]) if call for t in tensors_in(call[3])}
    for key, moves in tape.moves.items():
        first, before, tensor = moves[0]
        made_by_pass = made_at.get(key, end) < first if born is None else memory(before) in born
        if key in existing_ids or not made_by_pass:
            tape.save_shape(tensor, end)
            assign_data(tensor, before)


def assign_data(tensor: Tensor, source: Tensor) -> None:
    """`tensor.data = source`, bypassing all recorders."""
    torch._C.TensorBase.data.__set__(tensor, source)  # type: ignore[attr-defined]  # a descriptor of C


def _foreign(tape: Tape, made_ids: set[int]) -> dict[int, Tensor]:
    """One tensor for each memory that calls read and that no call on the tape made."""
    foreign: list[Tensor] = []
    for call in tape.calls:
        if call is None:
            continue
        function, args, kwargs, result, _ = call
        positions = _POSITIONS.get(id(function))
        if positions is None:
            positions = _POSITIONS[id(function)] = _tensor_positions(function)
        for position in positions[0]:
            if position < len(args) and id(args[position]) not in made_ids and args[position] is not None:
                foreign += [tensor for tensor in tensors_in(args[position]) if id(tensor) not in made_ids]
        if kwargs:
            foreign += [tensor for tensor in tensors_in([*kwargs.values()]) if id(tensor) not in made_ids]
        if isinstance(result, tuple | list):
            made_ids.update(map(id, result))
        else:
            made_ids.add(id(result))
    return {memory(tensor): tensor for tensor in reversed(foreign)}


_POSITIONS: dict[int, tuple[tuple[int, ...], Operator]] = {}  # by id(function); the value keeps the function alive


def _tensor_positions(function: Operator) -> tuple[tuple[int, ...], Operator]:
    """Indices of a function's arguments that may be tensors or lists of them."""
    arguments = enumerate(function._schema.arguments)
    return tuple(position for position, argument in arguments if "Tensor" in str(argument.type)), function


def memory(tensor: Tensor) -> int:
    """An identifier of a tensor's memory, shared by all of its views."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else id(tensor)


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's memory; for a non-strided tensor, the bytes of its elements."""
    if tensor.layout is torch.strided:
        return int(tensor.untyped_storage().nbytes())
    return tensor.numel() * tensor.element_size()


def flat(tensor: Tensor) -> Tensor:
    """All bytes of a tensor's memory."""
    if tensor.layout is not torch.strided:
        return tensor
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _as_view(tensor: Tensor, copy: Tensor) -> Tensor:
    """A view of a copied memory with the shape and strides of `tensor`."""
    if tensor.layout is not torch.strided:
        return copy
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(copy.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of an argument or a result: the value itself, or those in its lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
