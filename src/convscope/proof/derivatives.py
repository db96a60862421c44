"""Derivatives: each recorded gradient against the derivative of its forward step.

A backward operation may be computed correctly and still be the derivative of another function: a custom autograd
function can return anything. So every gradient is compared with the vector-Jacobian product of the *forward* step, in
float64, from that step's recorded inputs. Uses traces and rules, not the reference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from types import EllipsisType
from weakref import WeakKeyDictionary
from weakref import ref as weak

import numpy as np

from convscope.errors import ConvscopeError
from convscope.ops import OPS, Op
from convscope.ops.source_cells import MOVES, SOURCES
from convscope.proof.final_numbers import recorded_numbers
from convscope.proof.gradient_propagation import Tensor, key_of, pull, result_key, target_of
from convscope.proof.gradient_range import moved_by_statistics, numbers_of_ref, range_of
from convscope.proof.partial_writes import pull_node
from convscope.proof.recomputation import recomputed_result
from convscope.proof.repeated_node import follows_formula
from convscope.proof.status import StepStatus
from convscope.proof.tolerance import root_mean_square
from convscope.proof.verification_report import RESOLVED, Mismatch
from convscope.reference.parts import Box, boxes
from convscope.traces.step import BackwardNode, Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

UNIT = 2.0**-24
"""The unit roundoff of float32, in which gradients are recorded."""
KEPT = 4
"""Number of nodes whose derivatives are cached: several steps contain gradients of the same node."""
KEPT_BYTES = 64_000_000
"""Memory of the cached derivatives, beyond which those found before are dropped."""
OF_RESULT = frozenset({"Sigmoid", "Tanh", "Expm1", "Elu"})
"""Nodes whose slope is calculated from a recorded result between -1 and 1."""
OF_DISTANCE = frozenset({"Std", "StdMean", "Var", "VarMean"})
"""Nodes whose slope is a distance from a mean, which holds the roundings of both."""
STEEP = frozenset({"Pow", "Sqrt", "Rsqrt", "Reciprocal", "Log", "Log2", "Log10"})
"""Nodes whose slope may be infinite: times a gradient of 0, a kernel calculates nan."""
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

    moved: float = 0.0
    """How far one rounding of the numbers that its slope is calculated from moves the gradient, per unit roundoff."""

    @property
    def slack(self) -> float:
        """The relative error that the roundings of the operations in between may add."""
        return 16 * UNIT * self.node.operations

    def allowed(self, bounds: Array | float, box: Box | EllipsisType = ..., typical: float | None = None) -> Array:
        """How far a recorded gradient may be from the derivative: its bound, and the roundings in between.

        A slope such as y·(1 - y) or y + 1, taken from a result y near 1 or -1, holds the rounding of y; one such as
        x - mean those of x and of the mean.

        Args:
            bounds: Of the gradient: one for each cell, or one number.
            box: The cells that are asked for.
            typical: `self.typical`, if it is known already.
        """
        assert self.expected is not None
        bound = bounds[box] if isinstance(bounds, np.ndarray) and bounds.ndim else bounds
        size = self.typical if typical is None else typical
        return np.asarray(bound + self.slack * (np.abs(self.expected[box]) + size) + 4 * UNIT * self.moved)

    @property
    def typical(self) -> float:
        """The root mean square of the derivative, where it is finite."""
        assert self.expected is not None
        return root_mean_square(self.expected) if np.isfinite(self.expected).any() else 0.0

    def disagrees(self, recorded: Array, bounds: Array | float) -> Array:
        """A mask of the cells in which a recorded gradient is not the derivative."""
        assert self.expected is not None
        wrong, typical = np.zeros(self.expected.shape, bool), self.typical
        for box in boxes(wrong.shape, range(wrong.ndim)):
            numbers, expected = recorded[box], self.expected[box]
            with np.errstate(all="ignore"):
                close = np.abs(numbers - expected) <= self.allowed(bounds, box, typical)
                same = (numbers == expected) | (np.isnan(numbers) & np.isnan(expected))
            wrong[box] = ~close & ~same
        return wrong


class Derivatives:
    """The derivatives behind all gradients of a training step, each found when first asked for."""

    def __init__(self, trace: Trace, ops: Mapping[str, Op] = OPS) -> None:
        self._trace, self.ops = weak(trace), ops  # a trace holds on to its derivatives, not they to it
        self._derivatives_of: dict[int, tuple[Derivative, ...]] = {}

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
        if place not in self._derivatives_of:
            while len(self._derivatives_of) >= KEPT or sum(map(_bytes, self._derivatives_of.values())) > KEPT_BYTES:
                self._derivatives_of.pop(next(iter(self._derivatives_of)))
            self._derivatives_of[place] = tuple(self._derivatives(self.nodes[place]))
        return self._derivatives_of[place]

    def status(self, step: Step) -> tuple[StepStatus | None, Mismatch | None]:
        """The status that the derivatives give a step: None if it has no gradient, or the correct one."""
        derivatives = self.of_step(step)
        open_ = any(derivative.expected is None for derivative in derivatives)
        for derivative in derivatives:
            mismatch, left = self._judged(derivative) if derivative.expected is not None else (None, False)
            if mismatch is not None:
                return "wrong derivative", mismatch
            open_ = open_ or left
        return ("underived" if open_ else None), None

    def _bounds(self, gradient: Ref) -> Array | float:
        """The reference's bounds of a gradient; behind views of it the largest one."""
        largest = 0.0
        for number in self.behind(gradient):
            witness = recomputed_result(self.trace, self.trace.all_steps[number])
            if witness is None:
                continue
            if number == gradient.id and witness.bounds.shape == gradient.shape and witness.bounds.any():
                return witness.bounds
            largest = max(largest, float(np.max(witness.bounds, initial=0.0)))
        return largest

    def rounding(self, gradient: Ref) -> Array | float:
        """How far a recorded gradient is from what its operation gives in float64, within that operation's bounds.

        A bias's gradient at 224x224 is a sum of 25,088 terms for two images, which float32 rounds by up to about 1e-3.
        Of a gradient behind views, the largest; of a sum of several paths, that of all of them.
        """
        largest = 0.0
        for number in self.behind(gradient):
            step = self.trace.all_steps[number]
            witness = recomputed_result(self.trace, step)
            if witness is None:
                continue
            with np.errstate(all="ignore"):
                own_rounding: Array = np.minimum(np.abs(step.output - witness.values), witness.bounds)
            terms = [
                ref for _, _, ref in step.refs() if step.op == "add" and ref.kind == "step" and ref.id > self._first
            ]
            for term in terms:
                own_rounding = own_rounding + self.rounding(term)
            if number == gradient.id and own_rounding.shape == gradient.shape and step.op not in MOVES:
                return own_rounding
            largest = max(largest, float(np.max(own_rounding, initial=0.0)))
        return largest

    def unexplained(self, derivative: Derivative) -> Array | None:
        """How far a recorded gradient is from its derivative beyond what `status` allows; None where it nowhere is."""
        assert derivative.expected is not None
        recorded = self._numbers(derivative.gradient)
        if not self._beyond(derivative, recorded, 0.0, None):
            return None
        bounds = self._bounds(derivative.gradient) + self._moved(derivative.gradient)
        bounds = bounds + range_of(self.trace, derivative.node, derivative.gradient).lost
        left = np.zeros(derivative.expected.shape)
        return (
            left if self._beyond(derivative, recorded, bounds, left) and not self._follows_formula(derivative) else None
        )

    @np.errstate(all="ignore")  # a gradient may be infinite or nan
    def _beyond(self, derivative: Derivative, recorded: Array, bounds: Array | float, left: Array | None) -> bool:
        """Whether a gradient differs from its derivative by more than is allowed; by how much more goes into `left`."""
        assert derivative.expected is not None
        some, typical = False, derivative.typical
        for box in boxes(recorded.shape, range(recorded.ndim)):
            allowed = derivative.allowed(bounds, box, typical)
            if left is None:
                some = some or not (np.abs(recorded[box] - derivative.expected[box]) <= allowed).all()
            else:
                left[box] = beyond(recorded[box], derivative.expected[box], allowed)
                some = some or bool(left[box].any())
        return some

    def _judged(self, derivative: Derivative) -> tuple[Mismatch | None, bool]:
        """The first cell that is not the derivative, and whether some left the type and stay undecided.

        The step's own bounds, and what underflows on the way, are found only where they are needed.
        """
        recorded = self._numbers(derivative.gradient)
        if not derivative.disagrees(recorded, 0.0).any():
            return None, 4 * UNIT * derivative.moved > RESOLVED * derivative.typical > 0
        bounds = self._bounds(derivative.gradient)
        left = bool(np.any(derivative.disagrees(recorded, 0.0) & np.isinf(bounds)))
        if not derivative.disagrees(recorded, bounds).any():
            return None, left
        bounds = bounds + self._moved(derivative.gradient)
        if not derivative.disagrees(recorded, bounds).any():
            return None, left
        assert derivative.expected is not None
        numbers = range_of(self.trace, derivative.node, derivative.gradient)
        bounds = bounds + numbers.lost
        wrong, not_finite = (
            derivative.disagrees(recorded, bounds),
            ~np.isfinite(recorded) | ~np.isfinite(derivative.expected),
        )
        unsettled = wrong & not_finite & numbers.overflows
        if kind_of(derivative.node) in STEEP:
            unsettled |= wrong & np.isnan(recorded) & (derivative.expected == 0)
        if (wrong & ~unsettled).any() and self._follows_formula(derivative):
            rounded = float(np.max(np.abs(recorded - derivative.expected)[wrong & ~unsettled]))
            return None, left or bool(unsettled.any()) or not rounded <= RESOLVED * derivative.typical
        if (wrong & ~unsettled).any():
            cell = tuple(int(i) for i in np.unravel_index(int((wrong & ~unsettled).argmax()), wrong.shape))
            limit = float(np.broadcast_to(derivative.allowed(bounds), wrong.shape)[cell])
            return Mismatch(cell, float(recorded[cell]), float(derivative.expected[cell]), limit, "derivative"), False
        return None, left or bool(unsettled.any()) or numbers.lost > RESOLVED * derivative.typical

    def _follows_formula(self, derivative: Derivative) -> bool:
        """Whether the recorded operations, repeated in float64, give the derivative."""
        assert derivative.expected is not None
        return follows_formula(
            self.trace, derivative.node, derivative.gradient, derivative.expected, derivative.typical
        )

    def _moved(self, gradient: Ref) -> Array | float:
        """How far saved statistics, which are rounded, move a gradient; of one behind views, at most."""
        largest = 0.0
        for number in self.behind(gradient):
            step = self.trace.all_steps[number]
            with np.errstate(all="ignore"):
                moved = moved_by_statistics(self.trace, step, gradient.output if number == gradient.id else 0)
            if moved is not None and moved.shape == gradient.shape:
                return moved
            largest = max(largest, 0.0 if moved is None else float(np.max(moved, initial=0.0)))
        return largest

    def of_step(self, step: Step) -> tuple[Derivative, ...]:
        """The derivatives whose gradients a step of the backward pass contains, if any."""
        places = self._nodes_of.get(step.id, ())
        alike = [
            derivative
            for index in places
            for derivative in self.of_node(index)
            if step.id in self._given(derivative.node, derivative.gradient)
        ]
        return tuple(alike)

    def behind(self, gradient: Ref) -> Iterator[int]:
        """The step that made a gradient, and those whose numbers it only moved."""
        step = self.trace.all_steps[(gradient.id, *gradient.rewritten)[-1]]
        yield step.id
        while step.op in MOVES:
            moved = SOURCES.get(step.op, "")
            source = next((ref for name, _, ref in step.refs() if moved in {"", name}), None)
            if source is None or source.kind != "step" or source.id <= self._first:
                return
            step = self.trace.all_steps[source.id]
            yield step.id

    @cached_property
    def _first(self) -> int:
        return max((result.id for node in self.nodes for result, _ in node.received), default=-1)

    @cached_property
    def _nodes_of(self) -> dict[int, tuple[int, ...]]:
        """Step of the backward pass -> the nodes that gave its numbers."""
        nodes: dict[int, tuple[int, ...]] = {}
        for index, node in enumerate(self.nodes):
            for _, gradient in node.gave:
                for step in self._given(node, gradient):
                    nodes[step] = (*nodes.get(step, ()), index)
        return nodes

    def _given(self, node: BackwardNode, gradient: Ref) -> Iterator[int]:
        """The steps whose numbers a node gave: of a custom function, not those that it received and only passed on."""
        first, *earlier = self.behind(gradient)
        yield first
        received = {next(self.behind(ref)) for _, ref in node.received} if node.custom else set[int]()
        yield from takewhile(lambda step: step not in received, () if first in received else earlier)

    def _derivatives(self, node: BackwardNode) -> Iterator[Derivative]:
        weights = {result_key(self.trace, result): self._numbers(gradient) for result, gradient in node.received}
        if any(map(np.iscomplexobj, weights.values())):
            yield from (Derivative(gradient, operand, node, None) for operand, gradient in node.gave)
            return
        received = max(map(largest_of, weights.values()), default=0.0)
        per_unit = self._moved_by_rounding(node)
        moved = received * per_unit if per_unit else 0.0  # 0 also for an infinite gradient
        pulled: dict[Tensor, list[Array]]
        try:
            with np.errstate(all="ignore"):
                pulled = pull_node(self.trace, node, weights, self.ops)
        except UNABLE:
            pulled = {}
        for target in dict.fromkeys(target_of(self.trace, operand) for operand, _ in node.gave):
            pairs = [(operand, gradient) for operand, gradient in node.gave if target_of(self.trace, operand) == target]
            parts = pulled.get(target, [])
            if len(pairs) == 1 and parts:
                parts = [sum(parts[1:], parts[0])]
            for index, (operand, gradient) in enumerate(pairs):
                fits = len(parts) == len(pairs) and parts[index].shape == gradient.shape
                yield Derivative(gradient, operand, node, parts[index] if fits else None, moved)

    def _moved_by_rounding(self, node: BackwardNode) -> float:
        """How far a slope moves, per unit roundoff of the numbers that it is calculated from; 0 if it follows them."""
        kind = kind_of(node)
        if kind in OF_RESULT:
            return 1.0
        if kind not in OF_DISTANCE:
            return 0.0
        operands = (numbers_of_ref(self.trace, operand) for operand, _ in node.gave)
        largest = max(map(largest_of, operands), default=0.0)
        if not kind.startswith("Std"):
            return 2 * largest  # 2 (x - mean) / (n - 1)
        least = min(float(np.min(np.abs(self._numbers(result)), initial=np.inf)) for result, _ in node.received)
        return largest / least if least > 0 else np.inf  # (x - mean) / (n - 1) / std

    def withheld(self) -> Iterator[tuple[BackwardNode, Ref]]:
        """The gradients that custom functions should have given: they gave none, and the derivative is not zero."""
        for node in self.nodes:
            weights = {key_of(result): self._numbers(gradient) for result, gradient in node.received}
            for operand in node.withheld:
                try:
                    parts = pull(
                        self.trace, weights, {target_of(self.trace, operand)}.__contains__, through=True, ops=self.ops
                    )
                    zero = not any(part.any() for gradients in parts.values() for part in gradients)
                except UNABLE:
                    zero = False
                if not zero:
                    yield node, operand

    def _numbers(self, ref: Ref) -> Array:
        return recorded_numbers(self.trace, ref)


def kind_of(node: BackwardNode) -> str:
    """The operation of a node, as autograd names it, without its number."""
    return node.kind.rstrip("0123456789").removesuffix("Backward")


def _bytes(derivatives: tuple[Derivative, ...]) -> int:
    return sum(one.expected.nbytes for one in derivatives if one.expected is not None)


def largest_of(numbers: Array) -> float:
    """The largest magnitude; nan where one is nan, 0 of none."""
    return float(np.maximum(numbers.max(), -numbers.min())) if numbers.size else 0.0


def beyond(recorded: Array, exact: Array, allowed: Array | float) -> Array:
    """The part of a difference that exceeds what is allowed; all of it where that is nan."""
    difference = np.where(recorded == exact, 0.0, recorded - exact)
    return np.where(np.abs(difference) <= allowed, 0.0, difference - np.sign(difference) * np.nan_to_num(allowed))


def derivatives_of(trace: Trace, ops: Mapping[str, Op] = OPS) -> Derivatives:
    """The derivatives of a trace, kept with it."""
    if ops is not OPS:
        return Derivatives(trace, ops)
    return _OF.setdefault(trace, Derivatives(trace))


_OF: WeakKeyDictionary[Trace, Derivatives] = WeakKeyDictionary()
