"""Step builder: turn a linked pass into named Steps, and mark those whose numbers left PyTorch on the way. No torch.

A number that depends on the image leaves at a departure (`item()`, `numpy()`). Anything new that enters the pass
afterwards may hold it: a tensor that no step made, or a number among an operation's arguments. Conditions, sizes and
indices choose the path and are not numbers on it. Uses linked calls; no torch.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from convscope.capture.call_records import CallRecord, TensorMeta
from convscope.capture.dataflow import (
    LinkedCall,
    OutsideTensors,
    TensorLink,
    dropout_masks,
    hidden_rows,
    makes,
    moves_only,
    slots_in,
)
from convscope.capture.model_inspection import Number
from convscope.traces.step import Kind, Ref, Step, Values

UNWRITTEN = ("empty", "new_empty")


@dataclass(frozen=True, slots=True)
class Left:
    """A departure of numbers from PyTorch, linked to its source."""

    time: int
    link: TensorLink
    """The tensor whose numbers left."""
    way: str
    number: complex | None = None
    """The number, if it was a single one."""
    changed: bool = False
    """Whether other code then wrote into the tensor's memory."""


@dataclass(frozen=True, slots=True)
class Break:
    """An argument that may hold numbers from outside."""

    argument: str
    cause: str
    """How the argument is affected: `holds`, `may hold`, `was written into`, `unwritten`."""
    left: Left | None = None
    """The departure of these numbers."""

    def says(self, name: str) -> str:
        """The break as a sentence; `name` is the step or input at which the numbers left."""
        if self.left is None:
            return f"{self.argument} holds numbers that were not written by a PyTorch operation"
        if self.cause == "was written into":
            return (
                f"{self.argument} was written into outside PyTorch, which got its memory at {name} by {self.left.way}"
            )
        return f"{self.argument} {self.cause} numbers that left PyTorch at {name} by {self.left.way}"


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """Tensors and numbers known before the pass."""

    memories: Collection[int] = ()
    """Memories of the tensors that the model holds."""
    numbers: Collection[Number] = ()
    """Numbers that the model holds or its code contains."""
    scalars: Callable[[int], complex | None] = lambda _: None
    """Constant -> its number if it holds exactly one, else None."""
    is_plain_layer: Callable[[int], bool] = lambda _: False
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
    memories = {slot.memory for slot in (*entry.results, *entry.writes)}
    reads = any(link.slot.memory in chain.image for link in row.links) and not makes(entry.op)
    if broken or reads:
        chain.image |= memories
    if entry.op.startswith(UNWRITTEN):
        chain.blank |= memories
    elif not entry.view:
        chain.blank -= memories


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
            yield from _of_number(chain, name, entry.arguments[name], inside=chain.before.is_plain_layer(entry.visit))


PLACES = frozenset({"copy"})
"""Operations whose first operand is only the destination of a write."""


def _of_number(chain: _Chain, name: str, number: object, *, inside: bool = False) -> Iterator[Break]:
    """The break, if a number, or a tensor of several (None), may be one that left."""
    same = next((left for left in reversed(chain.left) if number is not None and left.number == number), None)
    if same is not None:
        yield Break(name, "holds", same)
    elif number is None or not (inside or number in chain.before.numbers):
        yield Break(name, "may hold", chain.left[-1])


def sentences(
    broken: Mapping[int, tuple[Break, ...]], name_of: Callable[[TensorLink], str]
) -> dict[int, tuple[str, ...]]:
    """Row -> its breaks as sentences."""
    return {
        row: tuple(b.says("" if b.left is None else name_of(b.left.link)) for b in result)
        for row, result in broken.items()
    }


PLAIN = {  # ATen names that differ from the documented names
    "addmm": "linear", "mm": "matmul", "bmm": "matmul", "baddbmm": "matmul", "_to_copy": "to",
    "_unsafe_view": "reshape", "_reshape_alias": "reshape", "constant_pad_nd": "pad",
}  # fmt: skip


def names_of(rows: Sequence[LinkedCall], hidden: Sequence[bool], visits: Sequence[tuple[str, int]]) -> list[str]:
    """A unique name for each row; visible ones get theirs first.

    The only visible step of a leaf module takes the module's path; others are `path.operation`, or `operation` in the
    model's own `forward`. Repeated names are numbered: `relu#2`. A dropout's mask is `dropout1.mask`.
    """
    masks, callers = dropout_masks(rows), {caller for _, caller in visits}
    shown: dict[int, int] = {}
    for row, hid in zip(rows, hidden, strict=True):
        shown[row.entry.visit] = shown.get(row.entry.visit, 0) + (not hid)
    names = [""] * len(rows)
    used: dict[str, int] = {}
    for turn in (False, True):
        for number, row in enumerate(rows):
            if hidden[number] is turn:
                visit = row.entry.visit
                path = visits[visit][0]
                is_only_row = not turn and path and shown[visit] == 1 and visit not in callers
                name = (
                    path if is_only_row else f"{path}.{'dropout' if number in masks else plain_name(row)}".lstrip(".")
                )
                names[number] = _numbered(name, used)
    for product, mask in masks.items():
        names[mask] = _numbered(f"{names[product]}.mask", used)
    return names


def _numbered(name: str, used: dict[str, int]) -> str:
    unique = name
    while unique in used:  # a module's own name may end in a number, too
        used[name] += 1
        unique = f"{name}#{used[name]}"
    used[unique] = 1
    return unique


def plain_name(row: LinkedCall) -> str:
    """The operation's name in PyTorch's documentation."""
    op, slots = row.entry.op, [link.slot for link in row.links]
    if op in {"convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution"} and len(slots) > 1:
        transposed = "_transpose" if row.entry.arguments.get("transposed") else ""
        return f"conv{transposed}{len(slots[1].shape) - 2}d"
    if op in {"view", "_unsafe_view", "_reshape_alias"} and slots and _flattens(slots[0], row.entry):
        return "flatten"
    if op == "mm" and len(row.links) > 1 and row.links[1].kind == "parameter":
        return "linear"
    if op in PLAIN:
        return PLAIN[op]
    if "scaled_dot_product" in op:
        return "attention"
    return op.rpartition("::")[2].lstrip("_").removeprefix("native_").removesuffix("_with_indices")


def _flattens(before: TensorMeta, entry: CallRecord) -> bool:
    """Whether the trailing axes were merged into one."""
    after = entry.results[0]
    if not 1 <= len(after.shape) < len(before.shape):
        return False
    leading = len(after.shape) - 1
    return before.shape[:leading] == after.shape[:leading] and after.shape[-1] == math.prod(before.shape[leading:])


@dataclass(frozen=True, slots=True)
class Label:
    """How a row appears as a step."""

    name: str
    module: str = ""
    hidden: bool = False
    aliases: tuple[str, ...] = ()
    """Further names: a residual sum passes one gradient on to both of its terms."""
    forward: int | None = None
    """The row of the forward pass whose derivative this is."""


@dataclass(frozen=True, slots=True)
class RecordedPass:
    """One forward pass as linked calls."""

    rows: Sequence[LinkedCall]
    outside: OutsideTensors
    visits: Sequence[tuple[str, int]]
    types: Mapping[str, str]
    """Module path -> class name."""
    outputs: Sequence[TensorLink]
    """Links of the returned tensors."""
    replaced: Collection[int] = ()
    """Rows whose result the caller overrode."""
    broken: Mapping[int, tuple[Break, ...]] = field(default_factory=dict)
    """Row -> sentences on the numbers it uses that had left PyTorch."""
    labels: Sequence[Label] = ()
    """Labels of the last rows, those after the forward pass: loss, gradients, updates."""

    @property
    def forward(self) -> Sequence[LinkedCall]:
        """The rows of the forward pass."""
        return self.rows[: len(self.rows) - len(self.labels)]


def build_steps(recorded: RecordedPass, values: Values) -> tuple[Step, ...]:
    """All steps of a pass, including hidden ones."""
    hidden = _hidden(recorded)
    names = _names(recorded, hidden)
    labels = dict(enumerate(recorded.labels, len(recorded.forward)))
    shown = _shown_inputs(recorded.rows, hidden)
    broken = sentences(recorded.broken, lambda link: names[_shown_source(recorded.rows, hidden, link)])

    def step(number: int) -> Step:
        entry = recorded.rows[number].entry
        label, name = labels.get(number), names["step", number]
        path = recorded.visits[entry.visit][0] if label is None else label.module
        arguments = _named_arguments(recorded.rows[number], names)
        return Step(
            id=number,
            name=name,
            module=path,
            module_type=recorded.types[path],
            op=entry.op,
            overload=entry.overload,
            arguments=arguments,
            inputs=shown[number],
            parameters={n: r.name for n, r in arguments.items() if isinstance(r, Ref) and r.kind == "parameter"},
            results=tuple(_ref(TensorLink("step", number, i, slot), name) for i, slot in enumerate(entry.results)),
            view=entry.view,
            hidden=hidden[number],
            overridden=number in recorded.replaced,
            broken=broken.get(number, ()),
            position=0 if "output_mask" in entry.arguments else entry.position or 0,
            aliases=() if label is None else label.aliases,
            values=values,
        )

    return tuple(map(step, range(len(recorded.rows))))


def returned_refs(recorded: RecordedPass) -> tuple[Ref, ...]:
    """The reference of each returned tensor, in order."""
    names = _names(recorded, _hidden(recorded))
    return tuple(_ref(link, names[link.kind, link.id]) for link in recorded.outputs)


def _hidden(recorded: RecordedPass) -> list[bool]:
    returned = {row for link in recorded.outputs for row in _reads(link)}
    hidden = [*hidden_rows(recorded.forward, recorded.visits, returned), *(label.hidden for label in recorded.labels)]
    return [hid and row not in recorded.broken for row, hid in enumerate(hidden)]


def _names(recorded: RecordedPass, hidden: Sequence[bool]) -> dict[tuple[Kind, int], str]:
    """The name of every step, parameter, input and constant."""
    names = {key: ref.name for key, ref in outside_refs(recorded).items()}
    forward = names_of(recorded.forward, hidden[: len(recorded.forward)], recorded.visits)
    steps = [*forward, *(label.name for label in recorded.labels)]
    return names | {("step", number): name for number, name in enumerate(steps)}


def forward_names(recorded: RecordedPass) -> tuple[list[str], list[bool]]:
    """The names of the rows of a forward pass without labels, and whether each is hidden."""
    hidden = _hidden(recorded)
    return names_of(recorded.rows, hidden, recorded.visits), hidden


def outside_refs(recorded: RecordedPass) -> dict[tuple[Kind, int], Ref]:
    """The tensors that existed before the pass, as a whole."""
    results: dict[tuple[Kind, int], Ref] = {}
    groups: tuple[tuple[Kind, Mapping[str, TensorMeta]], ...] = (
        ("parameter", recorded.outside.parameters),
        ("input", recorded.outside.inputs),
        ("constant", {f"constant{i}": use[1] for i, use in enumerate(recorded.outside.constants)}),
    )
    for kind, slots in groups:
        for index, (name, slot) in enumerate(slots.items()):
            results[kind, index] = _ref(TensorLink(kind, index, 0, slot), name)
    return results


def _ref(link: TensorLink, name: str) -> Ref:
    slot = link.slot
    return Ref(
        kind=link.kind,
        id=link.id,
        name=name,
        output=link.output,
        shape=slot.shape,
        dtype=slot.dtype,
        stride=slot.stride,
        offset=slot.offset,
        memory=slot.memory,
        rewritten=link.rewritten,
    )


def _named_arguments(row: LinkedCall, names: Mapping[tuple[Kind, int], str]) -> dict[str, object]:
    """The arguments, with a Ref for each tensor."""
    links = iter(row.links)

    def with_name(value: object) -> object:
        if isinstance(value, TensorMeta):
            link = next(links)
            return _ref(link, names[link.kind, link.id])
        return tuple(map(with_name, value)) if isinstance(value, tuple) else value

    return {name: with_name(value) for name, value in row.entry.arguments.items()}


def _reads(link: TensorLink) -> tuple[int, ...]:
    return (link.id, *link.rewritten) if link.kind == "step" else link.rewritten


def _shown_source(rows: Sequence[LinkedCall], hidden: Sequence[bool], link: TensorLink) -> tuple[Kind, int]:
    """The visible source behind a hidden copy or view."""
    while link.kind == "step" and hidden[link.id] and moves_only(rows[link.id].entry.op) and rows[link.id].links:
        link = rows[link.id].links[0]
    return link.kind, link.id


def _shown_inputs(rows: Sequence[LinkedCall], hidden: Sequence[bool]) -> list[tuple[int, ...]]:
    """For each row, the visible rows that it reads, directly or through hidden ones."""
    shown: list[tuple[int, ...]] = []
    for row in rows:
        results: dict[int, None] = {}
        for source in row.reads():
            results.update(dict.fromkeys(shown[source] if hidden[source] else (source,)))
        shown.append(tuple(sorted(results)))
    return shown
