"""Chain: the product of the derivatives of all forward steps, from the loss back, against the recorded gradients.

The product is calculated in float64, while every recorded gradient is rounded. The total effect of these roundings is
known: by the chain rule it is the sum of each node's own rounding, propagated to the gradient. Uses traces and rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convscope.errors import UsageError
from convscope.expr.precision import Precision, gamma
from convscope.ops import OPS, Op
from convscope.proof.derivatives import SLICES, Derivatives, numbers_of
from convscope.proof.gradient_propagation import Layout, Tensor, addresses_of, key_of, layout_of, pull, target_of
from convscope.traces.step import BackwardNode, Ref
from convscope.traces.trace import Trace
from convscope.typing import Array


def chain(trace: Trace, ops: Mapping[str, Op] = OPS) -> dict[str, Array]:
    """The gradient of every parameter and input by the product of the whole chain, from the loss on, in float64.

    Raises:
        ConvscopeError: a step on the way has no vector-Jacobian product.
    """
    step = trace.training_step
    assert step is not None
    leaves = _leaves(trace)
    gradients = {ref.name: np.zeros(ref.shape) for ref in leaves.values()}
    arrived: dict[Tensor, Array] = {key_of(step.loss): np.ones(step.loss.shape)}
    for node in step.nodes:  # in the order in which they ran: all that meets in a result has arrived before it is used
        arriving = {
            key_of(result): arrived.pop(key_of(result)) for result, _ in node.received if key_of(result) in arrived
        }
        if not arriving and node.kind == SLICES:
            raise UsageError(
                "an operation wrote into a part of a tensor that other steps read too, which is not followed."
            )
        for target, total in _through(trace, node, arriving, ops).items():
            leaf = leaves.get(target[:2])
            if leaf is not None:
                gradients[leaf.name] += _onto(leaf, target[3], total)
            else:
                arrived[target] = arrived[target] + total if target in arrived else total
    return gradients


@dataclass(slots=True)
class _Arrived:
    """The gradients of one tensor from several nodes."""

    total: Array
    """The sum of the recorded ones."""
    unexplained: Array
    """The part of it that rounding does not explain."""
    magnitudes: Array
    """The sum of their magnitudes."""
    count: int = 0

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "_Arrived":
        """Nothing yet."""
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, gradient: Array, unexplained: Array) -> None:
        """Add one gradient."""
        self.total = self.total + gradient
        self.unexplained = self.unexplained + unexplained
        self.magnitudes = self.magnitudes + np.abs(gradient)
        self.count += 1

    def left(self, recorded: Array, dtype: str) -> Array:
        """The part of the recorded sum that rounding does not explain: each addition rounds the partial sum once."""
        precision = Precision.of(dtype)
        u = max(precision.sum, precision.stored)
        return self.unexplained + _beyond(recorded, self.total, gamma(max(0, self.count - 1), u) * self.magnitudes)


@np.errstate(all="ignore")  # a gradient may be infinite or nan
def unexplained(derivatives: Derivatives) -> dict[str, Array]:
    """Recorded gradient minus chain, of every parameter and input, without the known roundings of all nodes.

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
    ends = {ref.name: _Arrived.none(ref.shape) for ref in leaves.values()}
    arrived = {key_of(step.loss): _Arrived.none(step.loss.shape)}
    arrived[key_of(step.loss)].add(np.ones(step.loss.shape), np.zeros(step.loss.shape))
    for place, node in enumerate(step.nodes):
        received = dict[Tensor, Array]()
        for result, ref in node.received:
            recorded = numbers_of(trace, ref)
            left = arrived.pop(key_of(result), _Arrived.none(ref.shape)).left(recorded, ref.dtype)
            if left.any():
                received[key_of(result)] = left
        propagated = _through(trace, node, received, derivatives.ops)
        for derivative in derivatives.of_node(place):
            if derivative.expected is None:
                raise UsageError(f"the rule behind {node.kind} does not give the gradient of all that it read.")
            gradient, target = numbers_of(trace, derivative.gradient), target_of(trace, derivative.of)
            left = _beyond(gradient, derivative.expected, derivatives.allowed(derivative)) + propagated.pop(target, 0.0)
            leaf = leaves.get(target[:2])
            if leaf is not None:
                ends[leaf.name].add(_onto(leaf, target[3], gradient), _onto(leaf, target[3], left))
            else:
                arrived.setdefault(target, _Arrived.none(gradient.shape)).add(gradient, left)
    gradients = step.gradients
    return {name: end.left(numbers_of(trace, gradients[name]), gradients[name].dtype) for name, end in ends.items()}


def _beyond(recorded: Array, exact: Array, allowed: Array) -> Array:
    """The part of a difference that exceeds what is allowed; all of it where that is nan."""
    difference = np.where(recorded == exact, 0.0, recorded - exact)
    return np.where(np.abs(difference) <= allowed, 0.0, difference - np.sign(difference) * np.nan_to_num(allowed))


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
    pulled = pull(trace, arriving, targets.__contains__, through=node.custom or node.kind == SLICES, ops=ops)
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
