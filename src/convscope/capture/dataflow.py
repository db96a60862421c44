"""Data flow: link each tensor argument to the call that made it and choose the calls shown as steps. No torch.

These rules, in this order, hide calls:

1. *preparation*: calls that depend on no input, except arithmetic on parameters; and updates of the model's own state,
   such as running statistics;
2. *copies* and bookkeeping (`clone`, `detach`, a cast to the same type), anywhere;
3. inside a leaf module (one that calls no other), *layout* (views, slices, transpositions) around its arithmetic;
4. the layout that a matrix product needs for its operands and its result, if it merges and splits leading axes;
5. in a sequence of layout operations in one `forward`, all but the last.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from convscope.capture.call_records import CallRecord, TensorMeta
from convscope.ops import role_of
from convscope.traces.step import Kind


@dataclass(frozen=True, slots=True)
class TensorLink:
    """The origin of one tensor argument: a Ref without its name."""

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
        for position, slot in enumerate(outside.parameters.values()):
            self._made.setdefault(slot.serial, ("parameter", position, 0))
            self._parameters.setdefault(slot.memory, []).append((position, slot))
        for position, slot in enumerate(outside.inputs.values()):
            self._made[slot.serial] = ("input", position, 0)

    def row(self, entry: CallRecord, number: int) -> LinkedCall:
        """The linked call of the next record; `number` is its id."""
        links = tuple(self.link(slot, entry.time, name, item) for name, item, slot in slots_in(entry.arguments))
        for memory in entry.memories_written:
            self._writers.setdefault(memory, []).append(number)
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
        kind, source_id, output = self._made[slot.serial]
        since = source_id if kind == "step" else -1
        return TensorLink(kind, source_id, output, slot, tuple(row for row in writers if row > since))

    def link_if_known(self, slot: TensorMeta) -> TensorLink | None:
        """The source of a tensor without reading it; None if it has never been read."""
        is_known = slot.serial in self._made or (slot.memory not in self._writers and self._parameter(slot) is not None)
        return self.link(slot, -1, "", 0) if is_known else None

    def _parameter(self, slot: TensorMeta) -> int | None:
        """The parameter that a tensor equals or is a view of."""
        source = self._made.get(slot.serial)
        if source is not None and source[0] == "parameter":
            return source[1]
        for position, parameter in self._parameters.get(slot.memory, ()):
            if _covers(parameter, slot):
                return position
        return None


def _covers(parameter: TensorMeta, part: TensorMeta) -> bool:
    """Whether all cells of `part` belong to `parameter`, which is assumed to be dense."""
    return parameter.dtype == part.dtype and parameter.offset <= part.offset and _end(part) <= _end(parameter)


def _end(slot: TensorMeta) -> int:
    return slot.offset + sum((n - 1) * s for n, s in zip(slot.shape, slot.stride, strict=True)) + 1


def slots_in(arguments: Mapping[str, object]) -> Iterator[tuple[str, int, TensorMeta]]:
    """The tensors among the arguments: name, index in a list of tensors, slot."""
    for name, value in arguments.items():
        if isinstance(value, TensorMeta):
            yield name, 0, value
        elif isinstance(value, tuple):
            yield from ((name, i, item) for i, item in enumerate(value) if isinstance(item, TensorMeta))


MADE_HERE = {"empty", "zeros", "ones", "full", "arange", "eye", "linspace", "rand", "randn", "randint", "randperm"}
"""First parts of the names of `*_like` and similar operations, which read a tensor's shape but not its numbers."""
PRODUCTS = {"bmm", "mm", "addmm", "baddbmm"}
RESHAPES = {"view", "_unsafe_view", "expand", "clone", "reshape"}


def hidden_rows(rows: Sequence[LinkedCall], visits: Sequence[tuple[str, int]], outputs: Collection[int]) -> list[bool]:
    """For each row, whether it is hidden.

    Args:
        rows: All linked calls, in order.
        visits: (module path, calling visit) of each visit.
        outputs: The rows whose results the model returned.
    """
    hidden = [prepares or _copies(row.entry, row.links) for row, prepares in zip(rows, _prepared(rows), strict=True)]
    _hide_in_leaves(rows, hidden, visits)
    readers = _readers(rows)
    products = {
        folded
        for number, row in enumerate(rows)
        if row.entry.op in PRODUCTS
        for folded in _around(number, rows, readers)
    }
    for number, row in enumerate(rows):
        run = [_continues(row.entry, rows[reader].entry) and reader not in products for reader in readers[number]]
        layout = moves_only(row.entry.op) and number not in outputs and bool(run) and all(run)
        hidden[number] = hidden[number] or layout or number in products
    for number in outputs:  # returned results are shown, unless they repeat a shown one
        if role_of(rows[number].entry.op) == "copy":
            _show_source(number, rows, hidden)
    return hidden if not all(hidden) else [False] * len(hidden)


def moves_only(op: str) -> bool:
    """Whether an operation only moves numbers to another shape or other memory."""
    return role_of(op) in {"view", "copy"}


def _continues(entry: CallRecord, after: CallRecord) -> bool:
    return moves_only(after.op) and after.visit == entry.visit


def _prepared(rows: Sequence[LinkedCall]) -> list[bool]:
    """Rule 1, by following what each memory depends on: 1 an input, 2 a parameter."""
    depends: dict[int, int] = {}
    state: set[int] = set()  # memories of parameters and buffers
    prepared = []
    for row in rows:
        entry = row.entry
        result = 0
        for link in row.links:
            outside = {"input": 1, "parameter": 2}.get(link.kind, 0)
            if link.kind == "parameter":
                state.add(link.slot.memory)
            if not makes(entry.op):
                result |= outside | depends.get(link.slot.memory, 0)
        for slot in (*entry.results, *entry.writes):
            depends[slot.memory] = depends.get(slot.memory, 0) | result
        updates = any(slot.memory in state for slot in entry.writes) and not _returns_new(entry)
        prepared.append(updates or result == 0 or (result == 2 and moves_only(entry.op)))
    return prepared


def makes(op: str) -> bool:
    """Whether an operation only creates a tensor."""
    name = op.removeprefix("new_").removesuffix("_like")
    return name in MADE_HERE or name.startswith(("empty", "bernoulli"))


def _returns_new(entry: CallRecord) -> bool:
    written = {slot.memory for slot in entry.writes}
    return any(slot.memory not in written for slot in entry.results)


def _copies(entry: CallRecord, links: Sequence[TensorLink]) -> bool:
    """Rule 2."""
    if entry.op == "_to_copy":
        return entry.results[0].dtype == links[0].slot.dtype
    return role_of(entry.op) == "copy"


def _hide_in_leaves(rows: Sequence[LinkedCall], hidden: list[bool], visits: Sequence[tuple[str, int]]) -> None:
    """Rule 3."""
    callers = {caller for _, caller in visits}
    works = {row.entry.visit for row, hid in zip(rows, hidden, strict=True) if not hid and not moves_only(row.entry.op)}
    leaves = {visit for visit in works if visit not in callers and visits[visit][0]}
    for number, row in enumerate(rows):
        if row.entry.visit in leaves and moves_only(row.entry.op):
            hidden[number] = True


def _readers(rows: Sequence[LinkedCall]) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in rows]
    for number, row in enumerate(rows):
        for source in row.reads():
            readers[source].append(number)
    return readers


def _around(product: int, rows: Sequence[LinkedCall], readers: Sequence[Sequence[int]]) -> Iterator[int]:
    """Rule 4: the layout operations around a matrix product."""
    folded = False
    for link in rows[product].links:
        row = link.id
        while link.kind == "step" and rows[row].entry.op in RESHAPES and readers[row] and max(readers[row]) <= product:
            source = rows[row].links[0]
            if not _merges(source.slot, rows[row].entry.results[0]):
                break
            folded = True
            yield row
            if source.kind != "step":
                break
            row = source.id
    if folded and len(readers[product]) == 1:
        after = rows[readers[product][0]].entry
        if after.op in RESHAPES and _merges(after.results[0], rows[product].entry.results[0]):
            yield readers[product][0]


def _merges(before: TensorMeta, merged: TensorMeta) -> bool:
    """Whether leading axes were merged or repeated, and the last ones unchanged."""
    trailing = len(merged.shape) - 1
    longer = len(before.shape) >= max(3, len(merged.shape))
    return trailing > 0 and longer and before.shape[-trailing:] == merged.shape[-trailing:]


def _show_source(number: int, rows: Sequence[LinkedCall], hidden: list[bool]) -> None:
    """Show the last layout step before a returned copy."""
    while role_of(rows[number].entry.op) == "copy" and rows[number].links and rows[number].links[0].kind == "step":
        number = rows[number].links[0].id
    if role_of(rows[number].entry.op) != "copy" and rows[number].links:
        hidden[number] = False


def dropout_masks(rows: Sequence[LinkedCall]) -> dict[int, int]:
    """Row of each active dropout's product -> row of its mask: what was drawn, divided by the share that is kept."""
    keep_shares = {
        n: row.entry.arguments["p"] for n, row in enumerate(rows) if row.entry.op == "bernoulli" and _has_p(row)
    }
    masks = {
        number
        for number, row in enumerate(rows)
        if row.entry.op == "div"
        and [keep_shares.get(source) for source in _steps(row)] == [row.entry.arguments["other"]]
    }
    uses: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        for mask in _steps(row) & masks if row.entry.op == "mul" else ():
            uses.setdefault(mask, []).append(number)
    return {numbers[0]: mask for mask, numbers in uses.items()}  # a backward pass multiplies by the mask again


def _has_p(row: LinkedCall) -> bool:
    return isinstance(row.entry.arguments.get("p"), float)


def _steps(row: LinkedCall) -> set[int]:
    return {link.id for link in row.links if link.kind == "step"}
