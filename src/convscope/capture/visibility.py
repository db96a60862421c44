"""Visibility: which calls are shown as steps, and which are hidden because they only prepare others.

These rules, in this order, hide:

1. *preparation*: calls that depend on no input, except arithmetic on parameters; and updates of the model's own state,
   such as running statistics;
2. *copies* and bookkeeping (`clone`, `detach`, a cast to the same type), anywhere;
3. inside a leaf module (one that calls no other), *layout* (views, slices, transpositions) around its arithmetic;
4. the layout that a matrix product needs for its operands and its result, if it merges and splits leading axes;
5. in a sequence of layout operations in one `forward`, all but the last.

Knows linked calls; no torch, no names.
"""

from collections.abc import Collection, Iterator, Sequence

from convscope.capture.call_records import CallRecord, TensorMeta
from convscope.capture.dataflow import LinkedCall, TensorLink
from convscope.ops import role_of

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
        for read in row.reads():
            readers[read].append(number)
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


def _merges(whole: TensorMeta, merged: TensorMeta) -> bool:
    """Whether leading axes were merged or repeated, and the last ones unchanged."""
    kept = len(merged.shape) - 1
    longer = len(whole.shape) >= max(3, len(merged.shape))
    return kept > 0 and longer and whole.shape[-kept:] == merged.shape[-kept:]


def _show_source(number: int, rows: Sequence[LinkedCall], hidden: list[bool]) -> None:
    """Show the last layout step before a returned copy."""
    while role_of(rows[number].entry.op) == "copy" and rows[number].links and rows[number].links[0].kind == "step":
        number = rows[number].links[0].id
    if role_of(rows[number].entry.op) != "copy" and rows[number].links:
        hidden[number] = False
