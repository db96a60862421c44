"""Breaks: steps that take numbers which left PyTorch earlier in the pass, so that no chain leads to the image.

A number that depends on the image leaves at a departure (`item()`, `numpy()`). Whatever comes into the pass after that
and was not known before may hold it: a tensor that no step made, a number among an operation's arguments. Conditions,
sizes and indexes are choices of a path, not numbers of it. Knows rows; no torch.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convscope.capture.dataflow import LinkedCall, TensorLink, slots_in
from convscope.capture.visibility import makes

UNWRITTEN = ("empty", "new_empty")


@dataclass(frozen=True, slots=True)
class Left:
    """A departure, linked."""

    time: int
    link: TensorLink
    """What left."""
    way: str
    number: Any = None
    """The number, where it was a single one."""
    changed: bool = False
    """Whether the tensor's memory was then written into from outside."""


@dataclass(frozen=True, slots=True)
class Break:
    """An argument that may hold numbers from outside."""

    argument: str
    how: str
    """`holds`, `may hold`, `was written into`, `unwritten`."""
    left: Left | None = None
    """Where they left."""

    def says(self, name: str) -> str:
        """In words; `name` is what the step or input is called that they left at."""
        if self.left is None:
            return f"{self.argument} holds numbers that no operation of PyTorch wrote"
        if self.how == "was written into":
            return (
                f"{self.argument} was written into outside PyTorch, which got its memory at {name} by {self.left.way}"
            )
        return f"{self.argument} {self.how} numbers that left PyTorch at {name} by {self.left.way}"


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """What was known before the pass, and the numbers of tensors that hold one."""

    memories: Collection[int] = ()
    """Of tensors that the model holds."""
    numbers: Collection[Any] = ()
    """That the model holds or its code contains."""
    scalars: Callable[[int], Any] = lambda _: None
    """Constant -> its number, of one that holds a single one; else None."""
    own: Callable[[int], bool] = lambda _: False
    """Visit -> whether a layer of torch's own ran, which takes numbers from its settings alone."""


@dataclass(slots=True)
class _Chain:
    """What is known while rows are followed in order."""

    before: Before
    image: set[int] = field(default_factory=set)
    """Memories that hold numbers which depend on the image, or on what broke."""
    blank: set[int] = field(default_factory=set)
    """Memories that nothing has written."""
    left: list[Left] = field(default_factory=list)
    """Departures of such numbers so far."""


def breaks_of(
    rows: Sequence[LinkedCall], departures: Sequence[Left], inputs: Collection[int], before: Before
) -> dict[int, tuple[Break, ...]]:
    """Row -> what of its arguments may come from outside; rows without any are left out.

    Args:
        rows: All of them, in order.
        departures: Numbers that left PyTorch, in order.
        inputs: The memories of the inputs.
        before: What was known before the pass.
    """
    chain, found, waiting = _Chain(before, set(inputs)), dict[int, tuple[Break, ...]](), list(departures)
    for number, row in enumerate(rows):
        while waiting and waiting[0].time <= row.entry.time:
            _depart(chain, waiting.pop(0))
        broken = tuple(dict.fromkeys(_breaks(chain, row)))
        if broken:
            found[number] = broken
        _note(chain, row, broken=bool(broken))
    return found


def _depart(chain: _Chain, left: Left) -> None:
    """Conditions choose a path; whatever else leaves may come back."""
    if left.link.slot.memory in chain.image and not isinstance(left.number, bool):
        chain.left.append(left)


def _note(chain: _Chain, row: LinkedCall, *, broken: bool) -> None:
    """What the row's results and writes hold from now on."""
    entry = row.entry
    made = {slot.memory for slot in (*entry.results, *entry.writes)}
    reads = any(link.slot.memory in chain.image for link in row.links) and not makes(entry.op)
    if broken or reads:
        chain.image |= made
    if entry.op.startswith(UNWRITTEN):
        chain.blank |= made
    elif not entry.view:
        chain.blank -= made


def _breaks(chain: _Chain, row: LinkedCall) -> Iterator[Break]:
    entry = row.entry
    written = {slot.memory for slot in entry.writes}
    for (name, _, slot), link in zip(slots_in(entry.arguments), row.links, strict=True):
        changed = next((left for left in chain.left if left.changed and left.link.slot.memory == slot.memory), None)
        if changed is not None:
            yield Break(name, "was written into", changed)
        if slot.memory in chain.blank and 0 not in slot.shape and not (entry.view or slot.memory in written):
            yield from [] if makes(entry.op) or entry.op in PLACES else [Break(name, "unwritten")]
        if link.kind == "constant" and chain.left and slot.memory not in chain.before.memories:
            yield from _of_number(chain, name, chain.before.scalars(link.id))
    if chain.left:
        for name in entry.scalars:
            yield from _of_number(chain, name, entry.arguments[name], inside=chain.before.own(entry.visit))


PLACES = frozenset({"copy"})
"""Operations whose first operand says only where to write."""


def _of_number(chain: _Chain, name: str, number: Any, *, inside: bool = False) -> Iterator[Break]:
    """Whether a number, or a tensor of several (None), may be one that left."""
    same = next((left for left in reversed(chain.left) if number is not None and left.number == number), None)
    if same is not None:
        yield Break(name, "holds", same)
    elif number is None or not (inside or number in chain.before.numbers):
        yield Break(name, "may hold", chain.left[-1])


def sentences(
    broken: Mapping[int, tuple[Break, ...]], named: Callable[[TensorLink], str]
) -> dict[int, tuple[str, ...]]:
    """Row -> its breaks in words."""
    return {
        row: tuple(b.says("" if b.left is None else named(b.left.link)) for b in found) for row, found in broken.items()
    }
