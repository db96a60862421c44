"""Data flow: link each tensor argument to the call that made it. Knows call records only; no torch, no step names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from convscope.capture.call_records import CallRecord, TensorMeta
from convscope.traces.step import Kind


@dataclass(frozen=True, slots=True)
class TensorLink:
    """Where one tensor argument came from: a Ref without its name."""

    kind: Kind
    id: int
    output: int
    slot: TensorMeta
    rewritten: tuple[int, ...] = ()


@dataclass(slots=True)
class LinkedCall:
    """A call record and the links of its arguments, in the order of `slots_in`."""

    entry: CallRecord
    links: tuple[TensorLink, ...]

    def reads(self) -> Iterator[int]:
        """The rows that made or wrote the tensors it reads."""
        for link in self.links:
            if link.kind == "step":
                yield link.id
            yield from link.rewritten


@dataclass(slots=True)
class OutsideTensors:
    """The tensors that existed before the pass: identities, and names in order."""

    parameters: Mapping[str, TensorMeta]
    inputs: Mapping[str, TensorMeta]
    constants: list[tuple[int, TensorMeta, str, int]] = field(default_factory=list)
    """(time, slot, argument, index in it) of the first use of each tensor that is not a parameter or input."""


class Linker:
    """Links call records one by one, in the order of execution."""

    def __init__(self, outside: OutsideTensors) -> None:
        self._outside = outside
        self._made: dict[int, tuple[Kind, int, int]] = {}  # serial -> (kind, id, output)
        self._writers: dict[int, list[int]] = {}  # memory -> rows that wrote to it
        self._parameters: dict[int, list[tuple[int, TensorMeta]]] = {}  # memory -> parameters stored there
        for place, slot in enumerate(outside.parameters.values()):
            self._made.setdefault(slot.serial, ("parameter", place, 0))
            self._parameters.setdefault(slot.memory, []).append((place, slot))
        for place, slot in enumerate(outside.inputs.values()):
            self._made[slot.serial] = ("input", place, 0)

    def row(self, entry: CallRecord, number: int) -> LinkedCall:
        """The linked call of the next record; `number` is its id."""
        links = tuple(self.link(slot, entry.time, name, item) for name, item, slot in slots_in(entry.arguments))
        for slot in entry.writes:
            self._writers.setdefault(slot.memory, []).append(number)
        for index, result in enumerate(entry.results):
            self._made[result.serial] = ("step", number, index)
        return LinkedCall(entry, links)

    def link(self, slot: TensorMeta, time: int, name: str, item: int) -> TensorLink:
        """The source of a tensor that is read now."""
        writers = self._writers.get(slot.memory, ())
        if not writers:
            parameter = self._parameter(slot)
            if parameter is not None:
                return TensorLink("parameter", parameter, 0, slot)
        if slot.serial not in self._made:
            self._made[slot.serial] = ("constant", len(self._outside.constants), 0)
            self._outside.constants.append((time, slot, name, item))
        kind, place, output = self._made[slot.serial]
        since = place if kind == "step" else -1
        return TensorLink(kind, place, output, slot, tuple(row for row in writers if row > since))

    def seen(self, slot: TensorMeta) -> TensorLink | None:
        """The source of a tensor without reading it; None if it has never been read."""
        known = slot.serial in self._made or (slot.memory not in self._writers and self._parameter(slot) is not None)
        return self.link(slot, -1, "", 0) if known else None

    def _parameter(self, slot: TensorMeta) -> int | None:
        """The parameter that a tensor equals or is a view of."""
        known = self._made.get(slot.serial)
        if known is not None and known[0] == "parameter":
            return known[1]
        for place, whole in self._parameters.get(slot.memory, ()):
            if _covers(whole, slot):
                return place
        return None


def _covers(whole: TensorMeta, part: TensorMeta) -> bool:
    """Whether all cells of `part` belong to `whole`, which is assumed to be dense."""
    return whole.dtype == part.dtype and whole.offset <= part.offset and _end(part) <= _end(whole)


def _end(slot: TensorMeta) -> int:
    return slot.offset + sum((n - 1) * s for n, s in zip(slot.shape, slot.stride, strict=True)) + 1


def slots_in(arguments: Mapping[str, Any]) -> Iterator[tuple[str, int, TensorMeta]]:
    """The tensors among the arguments: name, index in a list of tensors, slot."""
    for name, value in arguments.items():
        if isinstance(value, TensorMeta):
            yield name, 0, value
        elif isinstance(value, tuple):
            yield from ((name, i, item) for i, item in enumerate(value) if isinstance(item, TensorMeta))
