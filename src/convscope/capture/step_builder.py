"""Step builder: turn a linked pass into the Steps of a trace. Knows linked calls and names; no torch, no numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convscope.capture.broken_chains import Break, sentences
from convscope.capture.call_records import TensorMeta
from convscope.capture.dataflow import LinkedCall, OutsideTensors, TensorLink
from convscope.capture.gradient_names import Label
from convscope.capture.step_names import names_of
from convscope.capture.visibility import hidden_rows, moves_only
from convscope.traces.step import Kind, Ref, Step, Values


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
    """Of the last rows, those behind the forward pass: loss, gradients, updates."""

    @property
    def forward(self) -> Sequence[LinkedCall]:
        """The rows of the forward pass."""
        return self.rows[: len(self.rows) - len(self.labels)]


def build_steps(done: RecordedPass, values: Values) -> tuple[Step, ...]:
    """All steps of a pass, including hidden ones."""
    hidden = _hidden(done)
    names = _names(done, hidden)
    labels = dict(enumerate(done.labels, len(done.forward)))
    shown = _shown_inputs(done.rows, hidden)
    broken = sentences(done.broken, lambda link: names[_shown_source(done.rows, hidden, link)])

    def step(number: int) -> Step:
        entry = done.rows[number].entry
        label, name = labels.get(number), names["step", number]
        path = done.visits[entry.visit][0] if label is None else label.module
        arguments = _named_arguments(done.rows[number], names)
        return Step(
            id=number,
            name=name,
            module=path,
            module_type=done.types[path],
            op=entry.op,
            overload=entry.overload,
            arguments=arguments,
            inputs=shown[number],
            parameters={n: r.name for n, r in arguments.items() if isinstance(r, Ref) and r.kind == "parameter"},
            results=tuple(_ref(TensorLink("step", number, i, slot), name) for i, slot in enumerate(entry.results)),
            view=entry.view,
            hidden=hidden[number],
            overridden=number in done.replaced,
            broken=broken.get(number, ()),
            position=entry.position or 0,
            aliases=() if label is None else label.aliases,
            values=values,
        )

    return tuple(map(step, range(len(done.rows))))


def returned_refs(done: RecordedPass) -> tuple[Ref, ...]:
    """The reference of each returned tensor, in order."""
    names = _names(done, _hidden(done))
    return tuple(_ref(link, names[link.kind, link.id]) for link in done.outputs)


def _hidden(done: RecordedPass) -> list[bool]:
    returned = {row for link in done.outputs for row in _reads(link)}
    hidden = [*hidden_rows(done.forward, done.visits, returned), *(label.hidden for label in done.labels)]
    return [hid and row not in done.broken for row, hid in enumerate(hidden)]


def _names(done: RecordedPass, hidden: Sequence[bool]) -> dict[tuple[Kind, int], str]:
    """The name of every step, parameter, input and constant."""
    names = {key: ref.name for key, ref in outside_refs(done).items()}
    forward = names_of(done.forward, hidden[: len(done.forward)], done.visits)
    steps = [*forward, *(label.name for label in done.labels)]
    return names | {("step", number): name for number, name in enumerate(steps)}


def forward_names(done: RecordedPass) -> tuple[list[str], list[bool]]:
    """The names of the rows of a forward pass without labels, and whether each is hidden."""
    hidden = _hidden(done)
    return names_of(done.rows, hidden, done.visits), hidden


def outside_refs(done: RecordedPass) -> dict[tuple[Kind, int], Ref]:
    """The tensors that existed before the pass, as a whole."""
    results: dict[tuple[Kind, int], Ref] = {}
    groups: tuple[tuple[Kind, Mapping[str, TensorMeta]], ...] = (
        ("parameter", done.outside.parameters),
        ("input", done.outside.inputs),
        ("constant", {f"constant{i}": use[1] for i, use in enumerate(done.outside.constants)}),
    )
    for kind, slots in groups:
        for place, (name, slot) in enumerate(slots.items()):
            results[kind, place] = _ref(TensorLink(kind, place, 0, slot), name)
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


def _named_arguments(row: LinkedCall, names: Mapping[tuple[Kind, int], str]) -> dict[str, Any]:
    """The arguments, with a Ref for each tensor."""
    links = iter(row.links)

    def named(value: Any) -> Any:
        if isinstance(value, TensorMeta):
            link = next(links)
            return _ref(link, names[link.kind, link.id])
        return tuple(map(named, value)) if isinstance(value, tuple) else value

    return {name: named(value) for name, value in row.entry.arguments.items()}


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
        for read in row.reads():
            results.update(dict.fromkeys(shown[read] if hidden[read] else (read,)))
        shown.append(tuple(sorted(results)))
    return shown
