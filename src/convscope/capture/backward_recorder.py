"""Backward recorder: also records which gradient belongs to which result, by hooks on autograd's nodes.

Each differentiable operation of a forward pass creates a node (`grad_fn`). In the backward pass, the node receives the
gradient of the operation's result and returns the gradients of its inputs. Knows torch's autograd; no names.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from convscope.capture.call_records import results_of
from convscope.capture.recorder import Recorder

Node = Any
"""torch.autograd.graph.Node."""
Result = tuple[int, int]
"""Time of a forward call, and which of its results."""


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
        self._nodes: dict[int, _Watched] = {}
        self._seen = -1
        self._handles: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self.backward_start:
            self.watch_last()
        return super().__torch_dispatch__(func, types, args, kwargs)

    def watch_last(self) -> None:
        """Find the node of the latest call; autograd adds it only after the call has returned."""
        time = len(self.tape.calls) - 1
        call = self.tape.calls[time] if time > self._seen else None
        self._seen = time
        for index, tensor in enumerate(results_of(call)) if call is not None else ():
            node = tensor.grad_fn
            if node is not None:
                watched = self._nodes.setdefault(id(node), _Watched(node))
                watched.results.setdefault(tensor.output_nr, (time, index))

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

    def _before_node(self, watched: _Watched) -> Any:
        node = watched.node
        custom = isinstance(node, torch.autograd.function.BackwardCFunction)
        targets = tuple(self._target(function, number) for function, number in node.next_functions)

        def before(received: tuple[Tensor | None, ...]) -> None:
            start = len(self.tape.calls)
            run = NodeRun(node.name(), custom, start, tuple(received), watched.results, goes_to=targets)
            self.runs.append(run)

        return before

    def _after_node(self, gave: tuple[Tensor | None, ...], _received: Any) -> None:
        self.runs[-1].gave, self.runs[-1].end = tuple(gave), len(self.tape.calls)

    def _target(self, function: Node, number: int) -> Result | Tensor | None:
        if function is None:
            return None
        known = self._nodes.get(id(function))
        if known is not None:
            return known.results.get(number)
        leaf = getattr(function, "variable", None)  # of an AccumulateGrad node
        return leaf if isinstance(leaf, Tensor) else None
