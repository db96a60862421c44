"""Gradients of a recorded backward pass: the result that each belongs to, found by hooks, and its name.

Each differentiable operation of a forward pass creates a node (`grad_fn`). In the backward pass, the node receives the
gradient of the operation's result and returns the gradients of its inputs; `BackwardRecorder` records both.

Names are modelled on PyTorch's own: `conv1.grad` is the gradient of the output of `conv1`, `conv1.weight.grad` that of
a parameter, `input.grad` that of the image. If several paths contribute, their sum is a separate row, `conv1.grad#sum`,
and its terms are `conv1.grad#1`, `conv1.grad#2`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from convscope.capture.call_records import TensorMeta, results_of
from convscope.capture.dataflow import LinkedCall, makes, moves_only
from convscope.capture.recorder import Overload, Recorder
from convscope.capture.step_builder import Label, plain_name
from convscope.capture.tape import memory, tensors_in


class Result(NamedTuple):
    """A result of a forward call."""

    time: int
    output: int
    whole: Tensor | None = None
    """Of a call that wrote into a part of a tensor: that tensor, with everything else it holds after the call. Of a
    call that made a view whose memory was written later: that view."""
    until: int | None = None
    """The last call whose writes that view holds."""

    @property
    def moment(self) -> int:
        """The last call whose writes it holds."""
        return self.time if self.until is None else self.until


@dataclass(slots=True, eq=False)
class NodeRun:
    """One node of the backward pass: its incoming and outgoing gradients, and its time."""

    kind: str
    """The node's name: `ConvolutionBackward0`, or the class of a custom function."""
    custom: bool
    """Whether the user wrote the backward function (`torch.autograd.Function`)."""
    start: int
    """Time of its first call."""
    received: tuple[Tensor | None, ...]
    """The gradient of each result of the node's forward operation."""
    results: dict[int, Result]
    """Number of the result -> the forward call that made it."""
    end: int = -1
    gave: tuple[Tensor | None, ...] = ()
    """The gradient of each input of the forward operation that the node follows."""
    goes_to: tuple[Result | Tensor | None, ...] = ()
    """The tensor of each of these gradients: the result of a forward call, or a leaf (a parameter or an input)."""


@dataclass(slots=True, eq=False)
class _Watched:
    node: Node
    results: dict[int, Result] = field(default_factory=dict)


class BackwardRecorder(Recorder):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Records a forward pass with gradients, and its backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[NodeRun] = []
        """The nodes of the backward pass, in the order in which they ran."""
        self.loss_start = self.backward_start = self.update_start = 0
        """Times of the first calls of the loss, the backward pass and the update."""
        self.nested = False
        """Whether the forward pass or the loss ran a backward pass of its own."""
        self._nodes: dict[int, _Watched] = {}
        self._handled = -1
        self._handles: list[RemovableHandle] = []

    @property
    def phase(self) -> str:
        """The loss or the backward pass, once the model has returned."""
        return "the backward pass" if self.backward_start else "the loss" if self.loss_start else ""

    def __torch_dispatch__(
        self, func: Overload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        if not self.backward_start:
            self.watch_last()
            self._watch_written_views((args, kwargs))
            self.nested = self.nested or torch._C._current_autograd_node() is not None
        return super().__torch_dispatch__(func, types, args, kwargs)

    def idles(self, p: float, x: Tensor) -> Tensor:
        """The gradient of what an inactive dropout layer returned is that of its input, which made the node."""
        self.watch_last()
        return super().idles(p, x)

    def watch_last(self) -> None:
        """Find the node of the latest call; autograd adds it only after the call has returned."""
        time = len(self.tape.calls) - 1
        call = self.tape.calls[time] if time > self._handled else None
        self._handled = time
        for index, tensor in enumerate(results_of(call)) if call is not None else ():
            node = tensor.grad_fn
            if node is not None:
                watched = self._nodes.setdefault(id(node), _Watched(node))
                watched.results.setdefault(tensor.output_nr, Result(time, index))
                base = None if tensor._base is None else tensor._base.grad_fn
                if base is not None and base.name() == SLICES and id(base) not in self._nodes:  # just written into
                    self._nodes[id(base)] = _Watched(base, {0: Result(time, index, tensor._base)})

    def _watch_written_views(self, arguments: tuple[tuple[object, ...], dict[str, object] | None]) -> None:
        """Find the nodes of views that are read after their memory was written: autograd makes them when it reads."""
        if not self.tape.writes:
            return
        for tensor in tensors_in([*arguments[0], *(arguments[1] or {}).values()]):
            if tensor._base is None or memory(tensor) not in self.tape.writes:
                continue
            node, made = tensor.grad_fn, self._time_made(tensor)
            if node is not None and made is not None and id(node) not in self._nodes:
                result = Result(*made, tensor, len(self.tape.calls) - 1)
                self._nodes[id(node)] = _Watched(node, {tensor.output_nr: result})

    def _time_made(self, tensor: Tensor) -> tuple[int, int] | None:
        """The latest call that returned a tensor, and the index of the result."""
        for time, call in reversed([*enumerate(self.tape.calls)]):
            for index, result in enumerate(results_of(call)) if call is not None else ():
                if result is tensor:
                    return time, index
        return None

    def begin_backward(self) -> None:
        """Called between the loss and the backward pass: puts a hook before and after every node."""
        self.watch_last()
        self.backward_start = len(self.tape.calls)
        for watched in self._nodes.values():
            self._handles.append(watched.node.register_prehook(self._before_node(watched)))
            self._handles.append(watched.node.register_hook(self._after_node))

    def end_backward(self) -> None:
        """Called after the backward pass, or when it failed: removes the hooks and the references to the graph."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._nodes.clear()
        self.runs = _joined(self.runs)

    def _before_node(self, watched: _Watched) -> Callable[[tuple[Tensor | None, ...]], None]:
        node = watched.node
        custom = isinstance(node, torch.autograd.function.BackwardCFunction)
        targets = tuple(self._target(function, number) for function, number in node.next_functions)

        def before(received: tuple[Tensor | None, ...]) -> None:
            start = len(self.tape.calls)
            run = NodeRun(node.name(), custom, start, tuple(received), watched.results, goes_to=targets)
            self.runs.append(run)

        return before

    def _after_node(self, gave: tuple[Tensor | None, ...], _received: object) -> None:
        self.runs[-1].gave, self.runs[-1].end = tuple(gave), len(self.tape.calls)

    def _target(self, function: Node | None, number: int) -> Result | Tensor | None:
        if function is None:
            return None
        node_run = self._nodes.get(id(function))
        if node_run is not None:
            return node_run.results.get(number)
        leaf = getattr(function, "variable", None)  # of an AccumulateGrad node
        return leaf if isinstance(leaf, Tensor) else None


def _joined(runs: Sequence[NodeRun]) -> list[NodeRun]:
    """Two nodes of an operation in place on a view as one.

    Autograd differentiates with respect to the whole memory: the view's node gives the gradient of that memory after
    the write, and `CopySlices` takes it back to the memory before. The operation itself received the gradient
    of the view.
    """
    joined: list[NodeRun] = []
    for run in runs:
        if run.kind == SLICES:
            views = (
                earlier
                for earlier in joined
                if _calls(earlier) == _calls(run) and earlier.gave and earlier.kind != SLICES
            )
            view = next((earlier for earlier in views if earlier.gave[0] is run.received[0]), None)
            if view is not None:
                joined.remove(view)
                run.received, run.results = view.received, view.results
        joined.append(run)
    return joined


def _calls(run: NodeRun) -> dict[int, tuple[int, int, int]]:
    return {number: (result.time, result.output, result.moment) for number, result in run.results.items()}


SLICES = "torch::autograd::CopySlices"
"""Autograd's name for an operation in place on a view."""
LOSS = "loss"
SUM = "#sum"


@dataclass(frozen=True, slots=True)
class GradientOf:
    """A tensor of the backward pass and the name of its gradient."""

    name: str
    """`conv1.grad`, `conv1.weight.grad`, or one term of it, `conv1.grad#1`."""
    slot: TensorMeta
    time: int
    """It was made before this time."""
    rank: int
    """Which name a row with several gets: 0 of a parameter or input, 1 of a visible step, 2 of a hidden one, 3 of a
    term."""
    module: str = ""
    since: int = 0
    """The first call of the custom function that gave it: what it only passed on is another gradient. 0 of others."""


@dataclass(slots=True)
class Naming:
    """Facts about the rows after the forward pass, used to name them."""

    rows: Sequence[LinkedCall]
    first: int
    """The first row of the loss."""
    backward: int
    """The first row of the backward pass."""
    gradients: Sequence[GradientOf]
    node_of: Mapping[int, tuple[str, str, int]]
    """Row -> name, module and row of the forward step during whose derivative it ran."""
    updates: Mapping[int, tuple[str, str, bool, tuple[str, ...]]]
    """Row -> an update's name, module, whether it is hidden, and further names."""
    reserved: Iterable[str] = ()
    """The names of the forward pass."""
    _named: dict[int, list[GradientOf]] = field(default_factory=dict)


def labels_of(naming: Naming) -> list[Label]:
    """The label of every row from the loss on."""
    makers, writers = _makers(naming), _writers(naming)
    for gradient in naming.gradients:
        row = _earliest_alike(naming.rows, makers, writers, gradient)
        if row is not None:
            naming._named.setdefault(row, []).append(gradient)
    used = dict.fromkeys(naming.reserved, 1)
    last = max((row for row in range(naming.first, naming.backward) if not _prepares(naming.rows[row])), default=-1)
    return [_numbered(_label(naming, row, last), used) for row in range(naming.first, len(naming.rows))]


def _label(naming: Naming, row: int, last: int) -> Label:
    if row in naming.updates:
        return Label(*naming.updates[row])
    link = naming.rows[row]
    if row < naming.backward:
        name = LOSS if row == last else f"{LOSS}.{plain_name(link)}"
        return Label(name, hidden=_prepares(link))
    name, module, forward = naming.node_of.get(row, ("", "", -1))
    gradients = sorted(naming._named.get(row, ()), key=lambda gradient: gradient.rank)
    made_by = None if forward < 0 else forward
    if gradients:
        names = tuple(dict.fromkeys(gradient.name for gradient in gradients))
        hidden = gradients[0].rank == 2 and _prepares(link)
        return Label(names[0], gradients[0].module, hidden, names[1:], made_by)
    inner = f"{name or LOSS}.backward.{plain_name(link)}"
    return Label(inner, module, _prepares(link), forward=made_by)


def _numbered(label: Label, used: dict[str, int]) -> Label:
    used[label.name] = used.get(label.name, 0) + 1
    count = used[label.name]
    name = label.name if count == 1 else f"{label.name}#{count}"
    return Label(name, label.module, label.hidden, label.aliases, label.forward)


def _prepares(row: LinkedCall) -> bool:
    """Whether a row only moves numbers or creates tensors."""
    return moves_only(row.entry.op) or makes(row.entry.op)


def _makers(naming: Naming) -> dict[int, list[int]]:
    """Tensor -> the rows that made it or wrote into it."""
    makers: dict[int, list[int]] = {}
    for number in range(naming.first, len(naming.rows)):
        for slot in naming.rows[number].entry.results:
            makers.setdefault(slot.serial, []).append(number)
    return makers


def _writers(naming: Naming) -> dict[int, list[int]]:
    """Memory -> the rows that wrote into it."""
    writers: dict[int, list[int]] = {}
    for number in range(naming.backward, len(naming.rows)):
        for written in naming.rows[number].entry.memories_written:
            writers.setdefault(written, []).append(number)
    return writers


def _earliest_alike(
    rows: Sequence[LinkedCall],
    makers: Mapping[int, list[int]],
    writers: Mapping[int, list[int]],
    gradient: GradientOf,
) -> int | None:
    """The row that a gradient's name belongs to: the earliest whose cells are the gradient's, behind views of it.

    A linear layer's gradient is transposed twice: that changes no index, so the name goes to the product.
    """
    maker_rows = [row for row in makers.get(gradient.slot.serial, ()) if rows[row].entry.time < gradient.time]
    if not maker_rows:
        return None
    later = [
        row
        for row in writers.get(gradient.slot.memory, ())
        if maker_rows[-1] < row and rows[row].entry.time < gradient.time
    ]
    if later:
        return _written_whole(rows, later[-1], gradient.slot)
    return max(_alike(rows, maker_rows[-1], gradient.slot, gradient.since), key=lambda pair: pair[0])[1]


def _written_whole(rows: Sequence[LinkedCall], row: int, slot: TensorMeta) -> int | None:
    """The row that made all numbers of a gradient that was written later; None where only a part of it was."""
    result = rows[row].entry.results[0]
    if (result.offset, math.prod(result.shape)) != (slot.offset, math.prod(slot.shape)):
        return None
    source = rows[row].links[-1] if rows[row].entry.op == "copy" else None
    return source.id if source is not None and source.kind == "step" and not source.rewritten else row


def _alike(rows: Sequence[LinkedCall], row: int, slot: TensorMeta, since: int) -> Iterator[tuple[int, int]]:
    yield 0, row
    distance = 0
    while rows[row].entry.view and rows[row].links and rows[row].links[0].kind == "step":
        link = rows[row].links[0]
        row, distance = link.id, distance + 1
        if link.rewritten or link.output or rows[row].entry.op == "expand" or rows[row].entry.time < since:
            return
        if _same_cells(rows[row].entry.results[0], slot):
            yield distance, row


def _same_cells(first: TensorMeta, second: TensorMeta) -> bool:
    """Whether two tensors have the same cells in the same memory, by the same indices."""
    if (first.memory, first.offset, first.dtype, first.shape) != (
        second.memory,
        second.offset,
        second.dtype,
        second.shape,
    ):
        return False
    steps = zip(first.shape, first.stride, second.stride, strict=True)
    return all(one == other for size, one, other in steps if size > 1)
