"""Broken chains: steps that use numbers which left PyTorch earlier in the pass, so their path to the image is broken.

A number that depends on the image leaves at a departure (`item()`, `numpy()`). Anything new that enters the pass
afterwards may hold it: a tensor that no step made, or a number among an operation's arguments. Conditions, sizes and
indices choose the path and are not numbers on it. Knows linked calls; no torch.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convscope.capture.dataflow import LinkedCall, TensorLink, slots_in
from convscope.capture.visibility import makes

UNWRITTEN = ("empty", "new_empty")


@dataclass(frozen=True, slots=True)
class Left:
    """A departure of numbers from PyTorch, linked to its source."""

    time: int
    link: TensorLink
    """The tensor whose numbers left."""
    way: str
    number: Any = None
    """The number, if it was a single one."""
    changed: bool = False
    """Whether other code then wrote into the tensor's memory."""


@dataclass(frozen=True, slots=True)
class Break:
    """An argument that may hold numbers from outside."""

    argument: str
    how: str
    """How the argument is affected: `holds`, `may hold`, `was written into`, `unwritten`."""
    left: Left | None = None
    """The departure of these numbers."""

    def says(self, name: str) -> str:
        """The break as a sentence; `name` is the step or input at which the numbers left."""
        if self.left is None:
            return f"{self.argument} holds numbers that were not written by a PyTorch operation"
        if self.how == "was written into":
            return (
                f"{self.argument} was written into outside PyTorch, which got its memory at {name} by {self.left.way}"
            )
        return f"{self.argument} {self.how} numbers that left PyTorch at {name} by {self.left.way}"


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """Tensors and numbers known before the pass."""

    memories: Collection[int] = ()
    """Memories of the tensors that the model holds."""
    numbers: Collection[Any] = ()
    """Numbers that the model holds or its code contains."""
    scalars: Callable[[int], Any] = lambda _: None
    """Constant -> its number if it holds exactly one, else None."""
    own: Callable[[int], bool] = lambda _: False
    """Visit -> whether a built-in torch layer ran, whose numbers come from its settings alone."""


@dataclass(slots=True)
class _Chain:
    """The state while rows are followed in order."""

    before: Before
    image: set[int] = field(default_factory=set)
    """Memories whose numbers depend on the image, or on a broken chain."""
    blank: set[int] = field(default_factory=set)
    """Memories that have not been written yet."""
    left: list[Left] = field(default_factory=list)
    """Departures of such numbers so far."""


def breaks_of(
    rows: Sequence[LinkedCall], departures: Sequence[Left], inputs: Collection[int], before: Before
) -> dict[int, tuple[Break, ...]]:
    """Row -> its arguments that may come from outside; rows without any are left out.

    Args:
        rows: All linked calls, in order.
        departures: Numbers that left PyTorch, in order.
        inputs: Memories of the inputs.
        before: Tensors and numbers known before the pass.
    """
    chain, result, waiting = _Chain(before, set(inputs)), dict[int, tuple[Break, ...]](), list(departures)
    for number, row in enumerate(rows):
        while waiting and waiting[0].time <= row.entry.time:
            _depart(chain, waiting.pop(0))
        broken = tuple(dict.fromkeys(_breaks(chain, row)))
        if broken:
            result[number] = broken
        _note(chain, row, broken=bool(broken))
    return result


def _depart(chain: _Chain, left: Left) -> None:
    """Record a departure, unless it only decides a condition: other numbers may come back."""
    if left.link.slot.memory in chain.image and not isinstance(left.number, bool):
        chain.left.append(left)


def _note(chain: _Chain, row: LinkedCall, *, broken: bool) -> None:
    """Update the state with the row's results and writes."""
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
"""Operations whose first operand is only the destination of a write."""


def _of_number(chain: _Chain, name: str, number: Any, *, inside: bool = False) -> Iterator[Break]:
    """The break, if a number, or a tensor of several (None), may be one that left."""
    same = next((left for left in reversed(chain.left) if number is not None and left.number == number), None)
    if same is not None:
        yield Break(name, "holds", same)
    elif number is None or not (inside or number in chain.before.numbers):
        yield Break(name, "may hold", chain.left[-1])


def sentences(
    broken: Mapping[int, tuple[Break, ...]], named: Callable[[TensorLink], str]
) -> dict[int, tuple[str, ...]]:
    """Row -> its breaks as sentences."""
    return {
        row: tuple(b.says("" if b.left is None else named(b.left.link)) for b in result)
        for row, result in broken.items()
    }
