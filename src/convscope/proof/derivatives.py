"""Derivatives: each recorded gradient against the derivative of its forward step, and against the whole chain.

A backward operation may be computed correctly and still be the derivative of another function: a custom autograd
function can return anything. So every gradient is compared with the vector-Jacobian product of the *forward* step, in
float64, from that step's recorded inputs. Knows traces and rules, not the reference.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary
from weakref import ref as weak

import numpy as np

from convscope.errors import ConvscopeError, UsageError
from convscope.ops import OPS, Op
from convscope.ops.source_cells import MOVES
from convscope.proof.backward import WRITES, operands_of
from convscope.proof.calls import call_of
from convscope.proof.recomputation import recomputed
from convscope.proof.status import StepStatus
from convscope.proof.verification_report import Mismatch
from convscope.traces.step import BackwardNode, Kind, Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

Layout = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and offset."""
Tensor = tuple[Kind, int, int, Layout | None]
"""Kind, id and output of a result or an input; of a parameter also its layout, because steps read it through views."""
UNIT = 2.0**-24
"""The unit roundoff of float32, in which gradients are recorded."""
KEPT = 4
"""Number of nodes whose derivatives are cached: several steps contain gradients of the same node."""
IDLE = "dropout"
"""A dropout layer in evaluation mode; an active one is recorded as the operations that it consists of."""
OF_RESULT = frozenset({"Sigmoid", "Tanh", "Expm1", "Elu"})
"""Nodes whose slope is calculated from a recorded result between -1 and 1."""
STOPS = frozenset({"detach"})
"""Forward operations through which no gradient goes."""
UNABLE = (ConvscopeError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, AssertionError)


@dataclass(frozen=True, slots=True, eq=False)
class Derivative:
    """One recorded gradient and the one that the forward step's derivative gives."""

    gradient: Ref
    """The recorded gradient."""
    of: Ref
    """The tensor that it is the gradient of."""
    node: BackwardNode
    expected: Array | None
    """float64; None where the forward step has no vector-Jacobian product by this operand."""

    received: float = 0.0
    """The largest gradient that the node received, where its slope is calculated from the recorded result."""

    @property
    def slack(self) -> float:
        """The relative error that the roundings of the operations in between may add."""
        return 16 * UNIT * self.node.operations

    def allowed(self, bounds: Array | float) -> Array:
        """How far a recorded gradient may be from the derivative: its bound, and the roundings in between.

        A slope such as y·(1 - y) or y + 1, taken from a result y near 1 or -1, holds the rounding of y.
        """
        assert self.expected is not None
        size = np.abs(self.expected)
        finite = size[np.isfinite(size)]
        typical = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
        return np.asarray(bounds + self.slack * (size + typical) + 4 * UNIT * self.received)

    def disagrees(self, recorded: Array, bounds: Array | float) -> Array:
        """A mask of the cells in which a recorded gradient is not the derivative."""
        assert self.expected is not None
        with np.errstate(all="ignore"):
            close = np.abs(recorded - self.expected) <= self.allowed(bounds)
            same = (recorded == self.expected) | (np.isnan(recorded) & np.isnan(self.expected))
            return np.asarray(~close & ~same)


class Derivatives:
    """The derivatives behind all gradients of a training step, each found when first asked for."""

    def __init__(self, trace: Trace, ops: Mapping[str, Op] = OPS) -> None:
        self._trace, self.ops = weak(trace), ops  # a trace holds on to its derivatives, not they to it
        self._found: dict[int, tuple[Derivative, ...]] = {}

    @property
    def trace(self) -> Trace:
        """The trace of the training step."""
        trace = self._trace()
        assert trace is not None, "the trace is gone"
        return trace

    @property
    def nodes(self) -> tuple[BackwardNode, ...]:
        """The nodes of the backward pass."""
        step = self.trace.training_step
        return () if step is None else step.nodes

    def of_node(self, place: int) -> tuple[Derivative, ...]:
        """Every gradient that one node gave."""
        if place not in self._found:
            while len(self._found) >= KEPT:
                self._found.pop(next(iter(self._found)))
            self._found[place] = tuple(self._derivatives(self.nodes[place]))
        return self._found[place]

    def status(self, step: Step) -> tuple[StepStatus | None, Mismatch | None]:
        """The status that the derivatives give a step: None if it has no gradient, or the correct one."""
        held = self.of_step(step)
        for one in held:
            mismatch = self._mismatch(one) if one.expected is not None else None
            if mismatch is not None:
                return "wrong derivative", mismatch
        return ("underived" if any(one.expected is None for one in held) else None), None

    def _bounds(self, gradient: Ref) -> Array | float:
        """The reference's bounds of a gradient; behind views of it the largest one."""
        largest = 0.0
        for number in self.behind(gradient):
            witness = recomputed(self.trace, self.trace.all_steps[number])
            if witness is None:
                continue
            if number == gradient.id and witness.bounds.shape == gradient.shape and witness.bounds.any():
                return witness.bounds
            largest = max(largest, float(np.max(witness.bounds, initial=0.0)))
        return largest

    def rounding(self, gradient: Ref) -> Array | float:
        """How far a recorded gradient is from what its operation gives in float64, within that operation's bounds.

        A bias's gradient at 224x224 is a sum of 25,088 terms for two images, which float32 rounds by up to some 1e-3.
        Of a gradient behind views, the largest; of a sum of several paths, that of all of them.
        """
        largest = 0.0
        for number in self.behind(gradient):
            step = self.trace.all_steps[number]
            witness = recomputed(self.trace, step)
            if witness is None:
                continue
            with np.errstate(all="ignore"):
                own: Array = np.minimum(np.abs(step.output - witness.values), witness.bounds)
            terms = [
                ref for _, _, ref in step.refs() if step.op == "add" and ref.kind == "step" and ref.id > self._first
            ]
            for term in terms:
                own = own + self.rounding(term)
            if number == gradient.id and own.shape == gradient.shape and step.op not in MOVES:
                return own
            largest = max(largest, float(np.max(own, initial=0.0)))
        return largest

    def _mismatch(self, one: Derivative) -> Mismatch | None:
        """The first cell that is not the derivative; the step's own bounds are found only where they are needed."""
        recorded = self._numbers(one.gradient)
        bounds: Array | float = 0.0
        if one.disagrees(recorded, bounds).any():
            bounds = self._bounds(one.gradient)
        wrong = one.disagrees(recorded, bounds)
        if not wrong.any():
            return None
        assert one.expected is not None
        cell = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        limit = float(np.broadcast_to(one.allowed(bounds), wrong.shape)[cell])
        return Mismatch(cell, float(recorded[cell]), float(one.expected[cell]), limit, "derivative")

    def of_step(self, step: Step) -> tuple[Derivative, ...]:
        """The derivatives whose gradients a step of the backward pass contains, if any."""
        places = self._nodes_of.get(step.id, ())
        alike = [one for index in places for one in self.of_node(index) if step.id in self.behind(one.gradient)]
        return tuple(alike)

    def behind(self, gradient: Ref) -> Iterator[int]:
        """The step that made a gradient, and those whose numbers it only moved."""
        step = self.trace.all_steps[gradient.id]
        yield step.id
        while step.op in MOVES:
            source = next((ref for _, _, ref in step.refs()), None)
            if source is None or source.kind != "step" or source.id <= self._first:
                return
            step = self.trace.all_steps[source.id]
            yield step.id

    @cached_property
    def _first(self) -> int:
        return max((made.id for node in self.nodes for made, _ in node.received), default=-1)

    @cached_property
    def _nodes_of(self) -> dict[int, tuple[int, ...]]:
        """Step of the backward pass -> the nodes that gave its numbers."""
        nodes: dict[int, tuple[int, ...]] = {}
        for index, node in enumerate(self.nodes):
            for _, gradient in node.gave:
                for step in self.behind(gradient):
                    nodes[step] = (*nodes.get(step, ()), index)
        return nodes

    def _derivatives(self, node: BackwardNode) -> Iterator[Derivative]:
        targets = {target_of(self.trace, of) for of, _ in node.gave}
        weights = {_key(made): self._numbers(gradient) for made, gradient in node.received}
        of_result = node.kind.rstrip("0123456789").removesuffix("Backward") in OF_RESULT
        received = max((float(np.max(np.abs(w), initial=0.0)) for w in weights.values()), default=0.0)
        pulled: dict[Tensor, list[Array]]
        try:
            pulled = pull(self.trace, weights, targets.__contains__, through=node.custom, ops=self.ops)
        except UNABLE:
            pulled = {}
        for target in dict.fromkeys(target_of(self.trace, of) for of, _ in node.gave):
            pairs = [(of, gradient) for of, gradient in node.gave if target_of(self.trace, of) == target]
            parts = pulled.get(target, [])
            if len(pairs) == 1 and parts:
                parts = [sum(parts[1:], parts[0])]
            for index, (of, gradient) in enumerate(pairs):
                fits = len(parts) == len(pairs) and parts[index].shape == gradient.shape
                yield Derivative(gradient, of, node, parts[index] if fits else None, received if of_result else 0.0)

    def withheld(self) -> Iterator[tuple[BackwardNode, Ref]]:
        """The gradients that custom functions should have given: they gave none, and the derivative is not zero."""
        for node in self.nodes:
            weights = {_key(made): self._numbers(gradient) for made, gradient in node.received}
            for of in node.withheld:
                try:
                    parts = pull(
                        self.trace, weights, {target_of(self.trace, of)}.__contains__, through=True, ops=self.ops
                    )
                    zero = not any(part.any() for each in parts.values() for part in each)
                except UNABLE:
                    zero = False
                if not zero:
                    yield node, of

    def _numbers(self, ref: Ref) -> Array:
        return self.trace.all_steps[ref.id].outputs[ref.output].astype(np.float64)


def derivatives_of(trace: Trace, ops: Mapping[str, Op] = OPS) -> Derivatives:
    """The derivatives of a trace, kept with it."""
    if ops is not OPS:
        return Derivatives(trace, ops)
    return _OF.setdefault(trace, Derivatives(trace))


_OF: WeakKeyDictionary[Trace, Derivatives] = WeakKeyDictionary()


def chain(trace: Trace, ops: Mapping[str, Op] = OPS) -> dict[str, Array]:
    """The gradient of every parameter and input by the product of the whole chain, from the loss on, in float64.

    Raises:
        ConvscopeError: a step on the way has no vector-Jacobian product.
    """
    step = trace.training_step
    assert step is not None
    leaves = {(ref.kind, ref.id): ref for ref in trace.outside.values() if ref.name in step.gradients}
    leaves = {key: ref for key, ref in leaves.items() if key[0] in {"parameter", "input"}}
    gradients = {ref.name: np.zeros(ref.shape) for ref in leaves.values()}
    arrived: dict[Tensor, Array] = {_key(step.loss): np.ones(step.loss.shape)}
    for node in step.nodes:  # in the order in which they ran: all that meets in a result has arrived before it is used
        for target, total in _through(trace, node, arrived, ops).items():
            kind, number, _, layout = target
            if (kind, number) in leaves:
                whole = leaves[kind, number]
                gradients[whole.name] += total if layout in {None, layout_of(whole)} else _onto(whole, layout, total)
            else:
                arrived[target] = arrived[target] + total if target in arrived else total
    return gradients


def _through(
    trace: Trace, node: BackwardNode, arrived: dict[Tensor, Array], ops: Mapping[str, Op]
) -> dict[Tensor, Array]:
    """Propagate the gradients of a node's results to the inputs of its forward operation.

    Raises:
        UsageError: the rule lacks the gradient of an input.
    """
    arriving = {_key(made): arrived.pop(_key(made)) for made, _ in node.received if _key(made) in arrived}
    if not arriving:
        return {}
    targets = {target_of(trace, of) for of, _ in node.gave}
    pulled = pull(trace, arriving, targets.__contains__, through=node.custom, ops=ops)
    missing = targets - pulled.keys()
    if missing:
        raise UsageError(f"the rule behind {node.kind} does not give the gradient of all that it read.")
    return {target: np.asarray(sum(parts[1:], parts[0])) for target, parts in pulled.items()}


def _onto(whole: Ref, layout: Layout | None, gradient: Array) -> Array:
    """The gradient of a view of a parameter as one of the whole parameter, matched by memory addresses."""
    assert layout is not None
    addresses, cells = (addresses_of(each) for each in (layout, layout_of(whole)))
    memory = np.zeros(max(int(addresses.max(initial=0)), int(cells.max(initial=0))) + 1)
    np.add.at(memory, addresses, gradient)
    return np.asarray(memory[cells])


def addresses_of(layout: Layout) -> Array:
    """The address of every cell, in the tensor's shape."""
    shape, stride, offset = layout
    return np.asarray(offset + sum(i * s for i, s in zip(np.indices(shape), stride, strict=True)), np.int64)


def layout_of(ref: Ref) -> Layout:
    """The memory layout of a tensor."""
    return ref.shape, ref.stride, ref.offset


def pull(
    trace: Trace,
    weights: Mapping[Tensor, Array],
    is_target: Callable[[Tensor], bool],
    *,
    through: bool,
    ops: Mapping[str, Op],
) -> dict[Tensor, list[Array]]:
    """Propagate weights on results back to the targets: one array for each operand.

    Args:
        weights: Result -> weights on its cells.
        is_target: Whether to stop at a source and collect its weights.
        through: Whether to continue through the steps in between; otherwise only operands that are targets count.

    Raises:
        UsageError: a step on the way cannot be followed.
    """
    pending = dict(weights)
    collected: dict[Tensor, list[Array]] = {}
    varies = _varying(trace, is_target) if through else frozenset()
    while pending:
        key = max(pending, key=lambda result: result[1])
        weight, step = pending.pop(key), trace.all_steps[key[1]]
        sources = {name: source_of_operand(trace, ref) for name, ref in operands_of(step) if _counts(step, name, ref)}
        wanted = {name: s for name, s in sources.items() if is_target(s) or (s[0] == "step" and s[1:3] in varies)}
        if not wanted or step.op in STOPS:
            continue
        op = ops.get(step.op)
        if op is None or op.vjp is None:
            raise UsageError(f"{step.name} is a {step.op}, which has no vector-Jacobian product.")
        pulled = op.vjp(call_of(trace, step, key[2]), weight, frozenset(wanted))
        for name, source in wanted.items():
            if name not in pulled.gradients:
                continue
            gradient = pulled.gradients[name]
            if is_target(source):
                collected.setdefault(source, []).append(gradient)
            else:
                pending[source] = pending[source] + gradient if source in pending else gradient
    return collected


def _varying(trace: Trace, is_target: Callable[[Tensor], bool]) -> frozenset[tuple[int, int]]:
    """The results that depend on a target through steps that pass gradients on."""
    varies: set[tuple[int, int]] = set()
    for step in trace.all_steps:
        if step.op in STOPS or step.role in {"create", "random"}:
            continue
        sources = [source_of_operand(trace, ref, partly=True) for n, ref in operands_of(step) if _counts(step, n, ref)]
        if any(is_target(source) or (source[0] == "step" and source[1:3] in varies) for source in sources):
            varies |= {(step.id, output) for output, made in enumerate(step.results) if "float" in made.dtype}
    return frozenset(varies)


def _counts(step: Step, name: str, ref: Ref) -> bool:
    return "float" in ref.dtype and not (step.op in WRITES and name == "self")


def target_of(trace: Trace, of: Ref) -> Tensor:
    """The tensor of a gradient as the forward steps read it: a view of a parameter counts as that parameter."""
    if of.kind == "step" and trace.all_steps[of.id].view:
        viewed = next(ref for _, _, ref in trace.all_steps[of.id].refs())
        if viewed.kind == "parameter":
            return ("parameter", viewed.id, 0, layout_of(of))
    return _key(of)


def source_of_operand(trace: Trace, ref: Ref, *, partly: bool = False) -> Tensor:
    """The step that made an operand's numbers: its own, or the last that overwrote it in place.

    Raises:
        UsageError: only a part of it was written, unless `partly`.
    """
    ref = _before_idle(trace, ref)
    if not ref.rewritten:
        return _key(ref)
    writer = trace.all_steps[ref.rewritten[-1]]
    for output, made in enumerate(writer.results):
        if partly or (made.shape, made.stride, made.offset) == (ref.shape, ref.stride, ref.offset):
            return ("step", writer.id, output, None)
    raise UsageError(f"{ref.name} was written into in parts, which is not followed.")


def _before_idle(trace: Trace, ref: Ref) -> Ref:
    """The tensor that inactive dropout layers returned as it was: autograd sees only this one."""
    while ref.kind == "step" and not ref.rewritten and trace.all_steps[ref.id].op == IDLE:
        ref = trace.all_steps[ref.id].arguments["input"]
    return ref


def _key(ref: Ref) -> Tensor:
    return (
        ref.kind,
        ref.id,
        ref.output if ref.kind == "step" else 0,
        layout_of(ref) if ref.kind == "parameter" else None,
    )
