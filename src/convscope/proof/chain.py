"""Chain: the product of the derivatives of all forward steps, from the loss back, against the recorded gradients.

The product is calculated in float64, while every recorded gradient is rounded. The total effect of these roundings is
known: by the chain rule it is the sum of each node's own rounding, propagated to the gradient. Uses traces and rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from convscope.errors import UsageError
from convscope.expr.precision import Precision, gamma
from convscope.ops import OPS, Op
from convscope.proof.derivatives import Derivatives, beyond, largest_of
from convscope.proof.final_numbers import numbers_of, recorded_numbers
from convscope.proof.gradient_propagation import Layout, Tensor, addresses_of, key_of, layout_of, result_key, target_of
from convscope.proof.partial_writes import SLICES, pull_node
from convscope.reference.parts import boxes
from convscope.traces.step import BackwardNode, Ref
from convscope.traces.trace import Trace
from convscope.typing import Array

LOST = 0.01
"""The share of a gradient that may be missing by rounding; a path that is missing is larger, or makes no difference."""


def chain(trace: Trace, ops: Mapping[str, Op] = OPS) -> dict[str, Array]:
    """The gradient of every parameter and input by the product of the whole chain, from the loss on, in float64.

    Raises:
        ConvscopeError: a step on the way has no vector-Jacobian product.
    """
    step = trace.training_step
    assert step is not None
    leaves = _leaves(trace)
    gradients = dict[str, Array]()
    arrived: dict[Tensor, Array] = {key_of(step.loss): np.ones(step.loss.shape)}
    for node in step.nodes:  # in the order in which they ran: all that meets in a result has arrived before it is used
        keys = [result_key(trace, result) for result, _ in node.received]
        arriving = {key: arrived.pop(key) for key in keys if key in arrived}
        if node.kind == SLICES and not _all_arrived(trace, node, arriving):
            raise UsageError(
                "an operation wrote into a part of a tensor that other steps read too, which is not followed."
            )
        for target, total in _through(trace, node, arriving, ops).items():
            leaf = leaves.get(target[:2])
            if leaf is None:
                arrived[target] = arrived[target] + total if target in arrived else total
                continue
            part = _onto(leaf, target[3], total)
            gradients[leaf.name] = gradients[leaf.name] + part if leaf.name in gradients else part
        del arriving
    return {ref.name: gradients[ref.name] if ref.name in gradients else np.zeros(ref.shape) for ref in leaves.values()}


def _all_arrived(trace: Trace, node: BackwardNode, arriving: Mapping[Tensor, Array]) -> bool:
    """Whether the gradients that arrive at a tensor written in part are about the recorded one.

    Autograd makes a new node for a view whose memory was written; what goes through one is not recorded, and missing.
    """
    for result, gradient in node.received:
        chained, recorded = arriving.get(result_key(trace, result)), numbers_of(trace, gradient)
        if chained is None or not largest_of(chained - recorded) <= LOST * largest_of(recorded):
            return False
    return bool(node.received)


@dataclass(slots=True)
class _Arrived:
    """The gradients of one tensor from several nodes."""

    trace: Trace
    shape: tuple[int, ...]
    gradients: list[Ref | Array] = field(default_factory=list)
    """The recorded ones; an array of one that is recorded in another layout."""
    unexplained: Array | None = None
    """The part of their sum that rounding does not explain; None where that is nothing."""

    def add(self, gradient: Ref | Array, unexplained: Array | None) -> None:
        """Add one gradient."""
        self.gradients.append(gradient)
        self.unexplained = _sum(self.unexplained, unexplained)

    def left(self, ref: Ref) -> Array | None:
        """The part of the recorded sum that rounding does not explain: each addition rounds the partial sum once.

        None where that is nothing.
        """
        precision, rest = Precision.of(ref.dtype), None
        u = gamma(max(0, len(self.gradients) - 1), max(precision.sum, precision.stored))
        recorded = recorded_numbers(self.trace, ref)
        terms = [recorded_numbers(self.trace, g) if isinstance(g, Ref) else g for g in self.gradients]
        for box in boxes(self.shape, range(len(self.shape))):
            total, magnitudes = np.zeros((2, *recorded[box].shape))
            for term in terms:
                total, magnitudes = total + term[box], magnitudes + np.abs(term[box], dtype=np.float64)
            part = beyond(recorded[box], total, u * magnitudes)
            if part.any():
                rest = np.zeros(self.shape) if rest is None else rest
                rest[box] = part
        return _sum(self.unexplained, rest)


def _sum(first: Array | None, second: Array | None) -> Array | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


@np.errstate(all="ignore")  # a gradient may be infinite or nan
def unexplained(derivatives: Derivatives) -> dict[str, Array | None]:
    """Recorded gradient minus chain, of every parameter and input, without the known roundings of all nodes.

    None where these explain all of it.

    The rounding of a node is the difference between the gradients that it returned and its forward step's derivative
    applied to those that it received, within the bound `Derivatives.allowed`. The chain rule is linear, so the
    difference from the chain is the sum of all these roundings, each multiplied by the derivatives that follow it.
    Only what exceeds these bounds is propagated; it is zero unless a node is wrong, or a gradient was lost on its way.

    Raises:
        ConvscopeError: a step on the way has no vector-Jacobian product.
    """
    trace, step = derivatives.trace, derivatives.trace.training_step
    assert step is not None
    leaves = _leaves(trace)
    ends = {ref.name: _Arrived(trace, ref.shape) for ref in leaves.values()}
    arrived = {key_of(step.loss): _Arrived(trace, step.loss.shape, [np.ones(step.loss.shape)])}
    for place, node in enumerate(step.nodes):
        received = dict[Tensor, Array]()
        for result, ref in node.received:
            key = result_key(trace, result)
            left = arrived.pop(key, _Arrived(trace, ref.shape)).left(ref)
            if left is not None:
                received[key] = left
        propagated = _through(trace, node, received, derivatives.ops)
        for derivative in derivatives.of_node(place):
            if derivative.expected is None:
                raise UsageError(f"the rule behind {node.kind} does not give the gradient of all that it read.")
            gradient, target = derivative.gradient, target_of(trace, derivative.of)
            left = _sum(derivatives.unexplained(derivative), propagated.pop(target, None))
            leaf = leaves.get(target[:2])
            if leaf is None:
                arrived.setdefault(target, _Arrived(trace, gradient.shape)).add(gradient, left)
            elif target[3] in {None, layout_of(leaf)}:
                ends[leaf.name].add(gradient, left)
            else:
                part = None if left is None else _onto(leaf, target[3], left)
                ends[leaf.name].add(_onto(leaf, target[3], numbers_of(trace, gradient)), part)
    return {name: end.left(step.gradients[name]) for name, end in ends.items()}


def _leaves(trace: Trace) -> dict[tuple[str, int], Ref]:
    """The parameters and inputs that have a gradient."""
    step = trace.training_step
    assert step is not None
    leaves = {(ref.kind, ref.id): ref for ref in trace.outside.values() if ref.name in step.gradients}
    return {key: ref for key, ref in leaves.items() if key[0] in {"parameter", "input"}}


def _through(
    trace: Trace, node: BackwardNode, arriving: dict[Tensor, Array], ops: Mapping[str, Op]
) -> dict[Tensor, Array]:
    """Propagate the gradients of a node's results to the inputs of its forward operation.

    Raises:
        UsageError: the rule lacks the gradient of an input.
    """
    if not arriving:
        return {}
    targets = {target_of(trace, operand) for operand, _ in node.gave}
    pulled = pull_node(trace, node, arriving, ops)
    missing = targets - pulled.keys()
    if missing:
        raise UsageError(f"the rule behind {node.kind} does not give the gradient of all that it read.")
    return {target: np.asarray(sum(parts[1:], parts[0])) for target, parts in pulled.items()}


def _onto(parameter: Ref, layout: Layout | None, gradient: Array) -> Array:
    """The gradient of a view of a parameter as one of the whole parameter, matched by memory addresses."""
    if layout in {None, layout_of(parameter)}:
        return gradient
    assert layout is not None
    addresses, cells = (addresses_of(one_layout) for one_layout in (layout, layout_of(parameter)))
    memory = np.zeros(max(int(addresses.max(initial=0)), int(cells.max(initial=0))) + 1)
    np.add.at(memory, addresses, gradient)
    return np.asarray(memory[cells])
