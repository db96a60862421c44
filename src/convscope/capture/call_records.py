"""Call records: a call without its tensors: operation, named arguments, and the identity of each tensor.

Uses torch's schemas; holds no tensors.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from convscope.capture.recorder import writes_of
from convscope.capture.tape import Call, Operator, Tape, memory, tensors_in
from convscope.errors import TraceError
from convscope.ops import role_of


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """A tensor's identity, its memory, and its layout there."""

    serial: int
    """Identifies the tensor, whatever is written into it."""
    memory: int
    """Identifies the memory, shared by all views of it."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: str


@dataclass(frozen=True, slots=True)
class CallRecord:
    """The description of one call."""

    op: str
    overload: str
    arguments: dict[str, object]
    """The arguments as in a Step, with a TensorMeta for each tensor."""
    results: tuple[TensorMeta, ...]
    writes: tuple[TensorMeta, ...]
    view: bool
    """Whether its results are views of its arguments and it writes nothing."""
    visit: int
    time: int
    """The call's index in its tape."""
    scalars: tuple[str, ...] = ()
    """Names of numeric arguments that differ from their defaults."""
    position: int | None = None
    """Which result of the call this record is of, where each of the results has a record of its own."""

    @property
    def memories_written(self) -> tuple[int, ...]:
        """The memories that it writes into, each once, however many parts of it are written."""
        return tuple(dict.fromkeys(slot.memory for slot in self.writes))


class TensorIds:
    """Numbers the tensors. With `weak`, tensors may be freed and their memory reused by others."""

    def __init__(self, *, weak: bool = False) -> None:
        self._weak = weak
        self._known: dict[int, tuple[int, object]] = {}
        self._lay: dict[int, set[int]] = {}
        """With `weak`: tensor -> the memories it has used; `.data = ...` gives it another."""
        self._memories: dict[int, int] = {}
        self._users: dict[int, int] = {}
        self._count = 0

    def slot(self, tensor: Tensor, earlier_view: Tensor | None = None) -> TensorMeta:
        """The tensor's description; `earlier_view` is the tensor as it was then, if its shape has changed since."""
        shown = tensor if earlier_view is None else earlier_view
        if shown.is_nested:
            raise TraceError("the model makes nested tensors, whose rows differ in length; trace it with padded ones.")
        dtype = str(shown.dtype).removeprefix("torch.")
        address = memory(shown)
        memory_number = self._memories.get(address)
        if memory_number is None:
            self._count += 1
            memory_number = self._memories[address] = self._count
        serial = self._serial(tensor, address)
        if shown.layout is not torch.strided:
            return TensorMeta(serial, memory_number, tuple(shown.shape), (0,) * shown.dim(), 0, dtype)
        return TensorMeta(serial, memory_number, tuple(shown.shape), shown.stride(), int(shown.storage_offset()), dtype)

    def _serial(self, tensor: Tensor, address: int) -> int:
        key = id(tensor)
        entry = self._known.get(key)
        if entry is None:
            self._count += 1
            hold: object = weakref.ref(tensor, partial(self._forget, key)) if self._weak else tensor
            entry = self._known[key] = (self._count, hold)
        if self._weak and address not in self._lay.setdefault(key, set()):
            self._lay[key].add(address)
            self._users[address] = self._users.get(address, 0) + 1
        return entry[0]

    def _forget(self, key: int, _: object) -> None:
        self._known.pop(key, None)
        for lies in self._lay.pop(key, ()):
            self._users[lies] -= 1
            if not self._users[lies]:
                self._memories.pop(lies, None)
                del self._users[lies]


def describe(call: Call, time: int, tape: Tape, census: TensorIds) -> CallRecord:
    """The record of a call."""
    func, args, kwargs, _, visit = call
    signature = signature_of(func)
    passed = dict(zip(signature.names, args, strict=False)) | (kwargs or {})

    def before(tensor: Tensor) -> TensorMeta:
        return census.slot(tensor, tape.shaped(tensor, time) if tape.moves else None)

    def after(tensor: Tensor) -> TensorMeta:
        return census.slot(tensor, tape.shaped(tensor, time + 1) if tape.moves else None)

    arguments = {name: _plain(passed.get(name, default), before) for name, default in signature.defaults.items()}
    writes = tuple(after(tensor) for tensor in writes_of(call))
    reshapes = bool(writes) and role_of(signature.op) == "view"  # `squeeze_`: other axes, the same numbers
    results = tuple(map(after, results_of(call)))
    scalars = tuple(
        n for n in signature.scalars if type(passed.get(n)) in NUMBERS and passed[n] != signature.defaults[n]
    )
    view, writes = signature.view or reshapes, () if reshapes else writes
    return CallRecord(signature.op, signature.overload, arguments, results, writes, view, visit, time, scalars)


def results_of(call: Call) -> list[Tensor]:
    """The tensors that a call returned or, if there are none, those that it wrote into."""
    return list(tensors_in(call[3])) or writes_of(call)


def returned_by(call: Call) -> Sequence[object]:
    """What a call returned, by position, including what is not a tensor, such as a gradient that was not requested."""
    return call[3] if isinstance(call[3], tuple | list) else (call[3],)


def argument_of(call: Call, name: str, item: int) -> Tensor:
    """The tensor passed to a call as argument `name`."""
    func, args, kwargs, _, _ = call
    names = signature_of(func).names
    index = names.index(name)
    value = args[index] if index < len(args) else (kwargs or {})[name]
    tensor = value[item] if isinstance(value, list | tuple) else value
    assert isinstance(tensor, Tensor)
    return tensor


class OpSignature(NamedTuple):
    """A function's schema, in the form needed for every call."""

    function: Operator
    op: str
    overload: str
    names: tuple[str, ...]
    defaults: dict[str, object]
    """Argument -> its default, without those that are only written into (`out=`)."""
    view: bool
    scalars: tuple[str, ...]
    """Names of numeric arguments; a tensor may be passed for one."""


CALCULATED = ("Tensor", "number", "float", "complex")
"""Schema types of numeric arguments; sizes and indices are `int`."""
NUMBERS = {int, float, complex}
_SIGNATURES: dict[int, OpSignature] = {}  # by id(function)


def signature_of(func: Operator) -> OpSignature:
    """The signature of an overload, cached."""
    signature = _SIGNATURES.get(id(func))
    if signature is None:
        signature = _SIGNATURES[id(func)] = _signature(func)
    return signature


def _signature(func: Operator) -> OpSignature:
    schema = func._schema
    space, _, name = schema.name.partition("::")
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
    if writes and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return OpSignature(
        func,
        name if space == "aten" else f"{space}::{name}",
        schema.overload_name or "default",
        tuple(argument.name for argument in schema.arguments),
        {a.name: a.default_value if a.has_default_value() else None for a in schema.arguments if not a.is_out},
        bool(func.is_view),
        tuple(a.name for a in schema.arguments if any(kind in str(a.type) for kind in CALCULATED)),
    )


def _plain(value: object, slot: Callable[[Tensor], TensorMeta]) -> object:
    """An argument with torch's own value types replaced by plain ones."""
    if isinstance(value, Tensor):
        return slot(value)
    if isinstance(value, list | tuple):
        plain = [_plain(item, slot) for item in value]
        return tuple(plain) if any(isinstance(item, TensorMeta) for item in plain) else plain
    if value is None or isinstance(value, bool | int | float | complex | str):
        return value
    if isinstance(value, torch.Generator):
        return None
    return str(value).removeprefix("torch.")
