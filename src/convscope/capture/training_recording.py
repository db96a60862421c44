"""Training recording: the steps of a forward pass, its loss, its backward pass and its update.

A backward operation that returns several gradients becomes one step for each, so that each has its name, shape and
badge. Uses torch; returns NumPy arrays.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

from torch import Tensor

from convscope.capture.call_records import CallRecord, TensorMeta, argument_of, returned_by
from convscope.capture.dataflow import LinkedCall, Linker, slots_in
from convscope.capture.gradients import SUM, BackwardRecorder, GradientOf, Naming, NodeRun, Result, labels_of
from convscope.capture.recording import Recording, array_of
from convscope.capture.step_builder import Label, Left, RecordedPass, forward_names
from convscope.capture.training_step import TrainingSession
from convscope.errors import UsageError
from convscope.traces.step import BackwardNode, Ref, Step, TrainingStep, weights_digest
from convscope.typing import Array

LEAF, VISIBLE, HIDDEN, TERM = 0, 1, 2, 3
MOMENTUM = {
    "native_batch_norm": "momentum", "_native_batch_norm_legit": "momentum",
    "cudnn_batch_norm": "exponential_average_factor", "miopen_batch_norm": "exponential_average_factor",
}  # fmt: skip
"""Batch norm -> its argument that says how much of a running statistic the batch replaces."""


@dataclass(frozen=True, slots=True, eq=False)
class RunningStatistic:
    """A running mean or variance that a batch norm moved."""

    name: str
    """The buffer: `bn1.running_mean`."""
    row: int
    """The row of the batch norm."""
    after: Tensor
    slot: TensorMeta
    argument: str
    """`running_mean` or `running_var`."""
    norm: CallRecord
    rate: str
    """The name of batch norm's momentum."""

    @property
    def entry(self) -> CallRecord:
        """Its update as an operation of its own."""
        norm_arguments = self.norm.arguments
        arguments = {
            self.argument: norm_arguments[self.argument],
            "input": norm_arguments["input"],
            "momentum": norm_arguments[self.rate],
        }
        scalars = ("momentum",) if self.rate in self.norm.scalars else ()
        return replace(
            self.norm, op=f"convscope::{self.argument}", overload="default", arguments=arguments, scalars=scalars,
            results=(self.slot,), writes=(),
        )  # fmt: skip


class TrainingRecording(Recording):
    """A whole training step with all of its calls."""

    labels = ("target",)

    def __init__(self, session: TrainingSession, recorder: BackwardRecorder, result: object) -> None:
        super().__init__(session, recorder, result)
        self.training_session = session
        self.recorder = recorder

    @cached_property
    def entries(self) -> Sequence[CallRecord]:
        """Every call that made a tensor, described; one record for each result of a backward operation or update."""
        calls = self._sums_in_one([part for entry in self._described() for part in self._parts(entry)])
        self._statistics = list(self._running(calls))
        return (*calls, *(statistic.entry for statistic in self._statistics))

    def _sums_in_one(self, calls: Sequence[CallRecord]) -> list[CallRecord]:
        """A sum that keeps its axes and the view that drops them, as one record: a bias's gradient has its shape.

        Autograd undoes a broadcast over leading axes by such a pair of calls (`sum_to`), whose first result nothing
        else reads; if a node received or returned that result, it is a gradient of its own.
        """
        readers = Counter(slot.serial for entry in calls for _, _, slot in slots_in(entry.arguments))
        nodes = ((*run.received, *run.gave) for run in self.recorder.runs)
        readers.update(self._slot(tensor).serial for tensors in nodes for tensor in tensors if tensor is not None)
        merged: list[CallRecord] = []
        for entry in calls:
            previous = merged[-1] if merged else entry
            backward = previous.time >= self.recorder.backward_start
            if backward and entry.op == "view" and _drops_axes(previous, entry, readers):
                merged[-1] = replace(
                    previous, arguments={**previous.arguments, "keepdim": False}, results=entry.results, scalars=()
                )
            else:
                merged.append(entry)
        return merged

    def _parts(self, entry: CallRecord) -> Iterator[CallRecord]:
        call = self.tape.calls[entry.time]
        assert call is not None
        if not isinstance(call[3], tuple) or entry.time < self.recorder.backward_start:
            yield entry
            return
        outputs = [output for output, tensor in enumerate(returned_by(call)) if isinstance(tensor, Tensor)]
        for output, slot in zip(outputs, entry.results, strict=True):
            arguments = entry.arguments
            if "output_mask" in arguments:  # each step asks for its own gradient alone
                arguments = {**arguments, "output_mask": [i == output for i in range(len(returned_by(call)))]}
            scalars = () if entry.time >= self.recorder.update_start else entry.scalars  # settings, from no image
            yield replace(entry, arguments=arguments, results=(slot,), position=output, scalars=scalars)

    def _running(self, calls: Sequence[CallRecord]) -> Iterator[RunningStatistic]:
        """The new running statistics: batch norm writes them as it normalizes, so no call of their own returns them."""
        names = {id(tensor): name for name, tensor in self.session.tensors.items()}
        for row, entry in enumerate(calls):
            rate = MOMENTUM.get(entry.op, "")
            if rate and entry.arguments["training"] and entry.arguments.get("running_mean") is not None:
                call = self.tape.calls[entry.time]
                assert call is not None
                for argument in ("running_mean", "running_var"):
                    tensor = argument_of(call, argument, 0)
                    after = self.tape.numbers_at(tensor, entry.time + 1)
                    name = names.get(id(tensor))
                    if name is not None:  # else a copy, which instance norm makes: its mean is written back by a call
                        yield RunningStatistic(name, row, after, self._census.slot(after), argument, entry, rate)

    def _rows(self, linker: Linker) -> tuple[list[LinkedCall], list[Left]]:
        rows, left = super()._rows(linker)
        for number, statistic in enumerate(self._statistics, len(rows) - len(self._statistics)):
            names = [name for name, _, _ in slots_in(rows[statistic.row].entry.arguments)]
            links = dict(zip(names, rows[statistic.row].links, strict=True))  # as they were when batch norm ran
            rows[number] = LinkedCall(statistic.entry, (links[statistic.argument], links["input"]))
        return rows, left

    def output(self, step: int, index: int) -> Array:
        """Result `index` of a step."""
        entry = self.entries[step]
        late = step - (len(self.entries) - len(self._statistics))
        if late >= 0:
            return array_of(self._statistics[late].after)
        if entry.position is None:
            return super().output(step, index).reshape(entry.results[index].shape)  # see `_sums_in_one`
        tape, call = self.fetch(entry.time)
        tensor = returned_by(call)[entry.position]
        assert isinstance(tensor, Tensor)
        return array_of(tape.numbers_at(tensor, entry.time + 1))

    @cached_property
    def linked(self) -> RecordedPass:
        """The whole step, with the names of loss, gradients and updates."""
        return replace(self._unlabelled, labels=self._labels)

    @cached_property
    def _unlabelled(self) -> RecordedPass:
        return self._link()

    @cached_property
    def _first_rows(self) -> tuple[int, int]:
        """The first row of the loss, and of the backward pass."""
        times = [entry.time for entry in self.entries[: len(self.entries) - len(self._statistics)]]
        starts = (self.recorder.loss_start, self.recorder.backward_start)
        return tuple(sum(time < start for time in times) for start in starts)  # type: ignore[return-value]

    @cached_property
    def _row_at(self) -> Mapping[int, int]:
        """Time of a call -> its first row."""
        return {entry.time: row for row, entry in reversed([*enumerate(self.entries)])}

    @cached_property
    def _labels(self) -> list[Label]:
        loss, backward = self._first_rows
        unlabelled = self._unlabelled
        names, hidden = forward_names(replace(unlabelled, rows=unlabelled.rows[:loss]))
        modules = [unlabelled.visits[row.entry.visit][0] for row in unlabelled.rows[:loss]]
        naming = Naming(unlabelled.rows, loss, backward, (), {}, dict(self._updates()), tuple(names))
        of_loss = labels_of(replace_rows(naming, unlabelled.rows[:backward]))
        names += [label.name for label in of_loss]
        modules += [""] * len(of_loss)
        hidden += [label.hidden for label in of_loss]
        naming.gradients = list(self._gradients(names, modules, hidden))
        naming.node_of = self._nodes(names, modules)
        return labels_of(naming)

    def _updates(self) -> Iterator[tuple[int, tuple[str, str, bool, tuple[str, ...]]]]:
        for update in self.training_session.updates:
            first = self._row_at[update.time]
            module = self._module_of(update.parameter)
            outputs = [output for output, tensor in enumerate(returned_by(update.call)) if isinstance(tensor, Tensor)]
            for row, output in enumerate(outputs, first):
                kind = update.results[output].removeprefix(update.parameter)
                aliases = tuple(f"{tied_name}{kind}" for tied_name in self._tied.get(update.parameter, ()))
                yield row, (update.results[output], module, output > 0, aliases)
        uses, seen = Counter(statistic.name for statistic in self._statistics), Counter[str]()
        for row, statistic in enumerate(self._statistics, len(self.entries) - len(self._statistics)):
            name, seen[statistic.name] = statistic.name, seen[statistic.name] + 1
            label, numbered = f"{name}.updated", f"{name}.updated#{seen[name]}"  # of a layer that runs several times
            if seen[name] < uses[name]:
                yield row, (numbered, self._module_of(name), False, ())
            else:
                yield row, (label, self._module_of(name), False, (numbered,) if uses[name] > 1 else ())

    def _module_of(self, name: str) -> str:
        """The module that holds a parameter."""
        path = name.rpartition(".")[0]
        return path if path in self.session.subject.modules else ""

    def _slot(self, tensor: Tensor) -> TensorMeta:
        return self._census.slot(tensor)

    def _gradients(self, names: Sequence[str], modules: Sequence[str], hidden: Sequence[bool]) -> Iterator[GradientOf]:
        """Every tensor of the backward pass that is the gradient of something, or one of its terms."""
        runs, end = self.recorder.runs, self.recorder.update_start
        terms: dict[int | Result, list[tuple[Tensor, NodeRun]]] = {}
        for run in runs:
            for tensor, target in zip(run.gave, run.goes_to, strict=False):
                if tensor is not None and target is not None:
                    key = id(target) if isinstance(target, Tensor) else target
                    terms.setdefault(key, []).append((tensor, run))
        for name, tensor in self.training_session.gradients.items():
            leaf = self._leaf(name)
            module = self._module_of(name)
            total = GradientOf(f"{name}.grad", self._slot(tensor), end, LEAF, module)
            yield from self._total(total, terms.get(id(leaf), ()))
            yield from (replace(total, name=f"{tied_name}.grad") for tied_name in self._tied.get(name, ()))
        for run in runs:
            for number, result in run.results.items():
                tensor = run.received[number] if number < len(run.received) else None
                if tensor is not None:
                    row = self._row_at[result.time]
                    name = f"{names[row]}.grad" if not result.output else f"{names[row]}.grad.{result.output}"
                    rank = HIDDEN if hidden[row] else VISIBLE
                    total = GradientOf(name, self._slot(tensor), run.start, rank, modules[row])
                    yield from self._total(total, terms.get(result, ()))

    @cached_property
    def _tied(self) -> Mapping[str, tuple[str, ...]]:
        """Parameter -> its names in the other modules that share it."""
        subject = self.session.subject
        names = {id(tensor): name for name, tensor in subject.parameters.items()}
        tied: dict[str, tuple[str, ...]] = {}
        for tied_name, tensor in subject.model.named_parameters(remove_duplicate=False):
            name = names.get(id(tensor), tied_name)
            if name != tied_name:
                tied[name] = (*tied.get(name, ()), tied_name)
        return tied

    def _leaf(self, name: str) -> Tensor:
        session = self.training_session
        return session.tensors[name] if name in session.tensors else session.intake.tensors[name]

    def _total(self, total: GradientOf, terms: Sequence[tuple[Tensor, NodeRun]]) -> Iterator[GradientOf]:
        """A gradient; where several paths meet, their sum and its terms."""
        starts = [run.start if run.custom else 0 for _, run in terms]
        if len(terms) > 1:
            yield replace(total, name=total.name + SUM)
            for number, ((term, run), start) in enumerate(zip(terms, starts, strict=True), 1):
                yield GradientOf(f"{total.name}#{number}", self._slot(term), run.end, TERM, total.module, start)
        yield replace(total, since=max(starts, default=0))

    def _nodes(self, names: Sequence[str], modules: Sequence[str]) -> dict[int, tuple[str, str, int]]:
        """Row of the backward pass -> the forward step during whose derivative it ran."""
        running = {time: run for run in self.recorder.runs for time in range(run.start, run.end)}
        firsts = ((run, next(iter(run.results.values()), None)) for run in self.recorder.runs)
        forward = {id(run): self._row_at[result.time] for run, result in firsts if result is not None}
        timed = ((row, running.get(entry.time)) for row, entry in enumerate(self.entries))
        rows = {row: forward[id(run)] for row, run in timed if run is not None and id(run) in forward}
        return {row: (names[made_by], modules[made_by], made_by) for row, made_by in rows.items()}

    @property
    def weights(self) -> str:
        """A digest of the model's parameters and buffers before the step."""
        tensors = ((name, self.session.tensors[name]) for name in self.session.subject.parameters)
        return weights_digest((n, str(t.dtype).removeprefix("torch."), array_of(t)) for n, t in tensors)

    @property
    def training_step(self) -> TrainingStep:
        """The record of the loss, gradients and update for the trace, which keeps it."""
        session, recorder, end = self.training_session, self.recorder, self.recorder.update_start
        gradients = {name: self._made(tensor, end) for name, tensor in session.gradients.items()}
        updated = {update.parameter: self._result_ref(Result(update.time, 0)) for update in session.updates}
        loss = self._result_ref(next(iter(recorder.runs[0].results.values())))
        nodes = tuple(map(self._node, recorder.runs))
        mode = "training" if session.all_train else "evaluation"
        state = tuple(name for update in session.updates for name in update.before)
        first = len(self.entries) - len(self._statistics)
        statistics = {statistic.name: self._ref(row, 0) for row, statistic in enumerate(self._statistics, first)}
        return TrainingStep(
            mode, session.loss_name, session.optimizer_says, loss, gradients, updated, nodes, session.origin, state,
            statistics,
        )  # fmt: skip

    def _node(self, run: NodeRun) -> BackwardNode:
        results = [(self._result_ref(result), run.received[number]) for number, result in run.results.items()]
        gradients = [*zip(run.goes_to, run.gave, strict=False)]
        received = tuple((ref, self._made(grad, run.start)) for ref, grad in results if grad is not None)
        gave = tuple(
            (self._target(target), self._made(grad, run.end))
            for target, grad in gradients
            if target is not None and grad is not None
        )
        operations = sum(run.start <= entry.time < run.end for entry in self.entries)
        withheld = tuple(self._target(target) for target, grad in gradients if target is not None and grad is None)
        return BackwardNode(
            run.kind.rpartition("::")[2], run.custom, received, gave, operations, withheld if run.custom else ()
        )

    def _target(self, target: Result | Tensor) -> Ref:
        if not isinstance(target, Tensor):
            return self._result_ref(target)
        serial = self._slot(target).serial
        refs = self.outside().values()
        slots = (*self.linked.outside.parameters.values(), *self.linked.outside.inputs.values())
        return next(ref for ref, slot in zip(refs, slots, strict=False) if slot.serial == serial)

    def _result_ref(self, result: Result) -> Ref:
        """The reference of a call's result, or of the whole tensor that it wrote into."""
        if result.whole is not None and self._slot(result.whole).serial in self._makers:
            return self._made(result.whole, result.moment + 1)
        row = self._row_at[result.time]
        if self.entries[row].position is None:
            return self._ref(row, result.output)
        return self._ref(row, 0)

    def _ref(self, row: int, output: int) -> Ref:
        step = self.all_steps[row]
        return step.results[output]

    @cached_property
    def all_steps(self) -> tuple[Step, ...]:
        """All steps, once."""
        return self.steps()

    @cached_property
    def _makers(self) -> Mapping[int, Sequence[tuple[int, int, int]]]:
        """Tensor -> (time, row, output) of every call that made it or wrote into it."""
        makers: dict[int, list[tuple[int, int, int]]] = {}
        for row, entry in enumerate(self.entries):
            for output, slot in enumerate(entry.results):
                makers.setdefault(slot.serial, []).append((entry.time, row, output))
        return makers

    @cached_property
    def _writers(self) -> Mapping[int, Sequence[tuple[int, int]]]:
        """Memory -> (time, row) of every call that wrote into it."""
        writers: dict[int, list[tuple[int, int]]] = {}
        for row, entry in enumerate(self.entries):
            for memory in entry.memories_written:
                writers.setdefault(memory, []).append((entry.time, row))
        return writers

    def _made(self, tensor: Tensor, before: int) -> Ref:
        """The reference of a tensor as it was before a time."""
        slot = self._slot(tensor)
        made = [(row, output) for time, row, output in self._makers.get(slot.serial, ()) if time < before]
        if not made:
            raise UsageError(
                "a gradient is a tensor that no recorded operation made: PyTorch returned one it was given."
            )
        first, output = made[-1]
        ref = self._ref(first, output)
        later = tuple(row for time, row in self._writers.get(slot.memory, ()) if first < row and time < before)
        return replace(ref, rewritten=later) if later else ref


def _drops_axes(total: CallRecord, view: CallRecord, readers: Mapping[int, int]) -> bool:
    """Whether a view removes exactly the axes that a sum has added up."""
    if total.op != "sum" or not total.arguments.get("keepdim"):
        return False
    (result,), source = total.results, view.arguments["self"]
    if not isinstance(source, TensorMeta) or source.serial != result.serial or readers[result.serial] != 1:
        return False
    summed = {axis % len(result.shape) for axis in cast("Sequence[int]", total.arguments["dim"])}
    return view.results[0].shape == tuple(size for axis, size in enumerate(result.shape) if axis not in summed)


def replace_rows(naming: Naming, rows: Sequence[LinkedCall]) -> Naming:
    """The naming of a pass, restricted to its first rows."""
    return Naming(rows, naming.first, naming.backward, naming.gradients, {}, {}, naming.reserved)
