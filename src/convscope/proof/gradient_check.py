"""Gradient check: the gradients of a whole training step against two computations without a backward pass.

The finite difference is the definition of a gradient: change a weight slightly, repeat the forward pass in float64 with
the reference, and compare the losses. The chain is the product of all derivatives from the loss back, in float64.
Random numbers, such as a dropout's mask, are the recorded ones. Knows traces, rules and the reference.
"""

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from convscope.errors import ConvscopeError, UsageError
from convscope.expr.call import Cell
from convscope.ops import OPS, Op
from convscope.proof.backward import operands_of
from convscope.proof.derivatives import UNABLE, Derivatives, chain, derivatives_of, numbers_of
from convscope.proof.gradient_propagation import addresses_of, layout_of, source_of_operand
from convscope.proof.recomputation import arguments_of
from convscope.proof.tolerance import root_mean_square
from convscope.proof.verification_report import AGREES, GradientCheck
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

STEP = 1e-5
"""The change of a weight, relative to the size of its parameter's weights."""
LEAST = 0.1
"""Minimum weight size for this change: a smaller change would be lost in the rounding of the loss."""
ZERO = 1e-5
"""The share of the largest gradient's size below which a gradient counts as zero."""
EACH = 3
"""Maximum number of weights changed in each parameter."""
COST, STEPS = 50_000_000, 5_000
"""Most numbers, and most steps, that are calculated again for it, about: a large network has fewer of its weights
moved, at least 2."""
KINKS: Mapping[str, tuple[str | float, ...]] = {
    "relu": (0.0,), "leaky_relu": (0.0,), "prelu": (0.0,), "elu": (0.0,), "abs": (0.0,), "threshold": ("threshold",),
    "hardtanh": ("min_val", "max_val"), "hardsigmoid": (-3.0, 3.0), "hardswish": (-3.0, 3.0), "clamp": ("min", "max"),
}  # fmt: skip
"""Operation -> the points at which its slope jumps: numbers, or the arguments that contain them."""


def check_gradients(
    trace: Trace,
    *,
    seed: int = 0,
    ops: Mapping[str, Op] = OPS,
    unresolved: Collection[int] = (),
    undecided: bool = False,
) -> GradientCheck:
    """Compare the gradients of a training step with finite differences and with the product of the chain.

    Args:
        trace: Of a training step.
        seed: Selects the weights that are changed, besides those with the largest gradients.
        ops: The rules.
        unresolved: Steps whose numbers are within their rounding errors; their gradients are left out.
        undecided: Whether numbers left their type on the way, so that gradients with infinities or nan are left out.
    """
    step = trace.training_step
    assert step is not None
    held = derivatives_of(trace, ops)
    names = [n for n, ref in step.gradients.items() if not {*unresolved}.intersection(held.behind(ref))]
    if undecided:
        names = [name for name in names if np.isfinite(numbers_of(trace, step.gradients[name])).all()]
    unable, moved, flipped, furthest, worst = "", 0, 0, 0.0, ""
    try:
        for name, cell, difference in _differences(held, names, np.random.default_rng(seed)):
            moved += 1
            if difference is None:
                flipped += 1
            elif not difference <= furthest:
                furthest, worst = difference, f"{name}[{', '.join(map(str, cell))}]"
    except UNABLE as error:
        unable = _reason(error, "finite difference")
    far, floor = dict[str, float](), _floor(trace)
    try:
        for name, whole in chain(trace, ops).items():
            if name not in names:
                continue
            recorded = numbers_of(trace, step.gradients[name])
            apart = np.where(recorded == whole, 0.0, np.abs(recorded - whole))
            far[name] = _share(float(np.max(apart, initial=0.0)), whole, floor)
            if far[name] > AGREES:  # its own operation may have rounded that much
                apart = np.maximum(0.0, apart - held.rounding(step.gradients[name]))
                far[name] = _share(float(np.max(apart, initial=0.0)), whole, floor)
    except UNABLE as error:
        unable = _reason(error, "product of the chain")
    last = max(far, key=lambda name: far[name], default="")
    left_out = len(step.gradients) - len(names)
    withheld = next(
        (
            f"{node.kind} gives no gradient of {of.name}, though its result depends on it"
            for node, of in held.withheld()
        ),
        "",
    )
    return GradientCheck(
        moved, flipped, furthest, worst, len(far), far.get(last, 0.0), last, unable, left_out, withheld
    )


def _reason(error: Exception, what: str) -> str:
    return f"the {what}, because {str(error).rstrip('.') if isinstance(error, ConvscopeError) else 'a step lacks it'}"


def _floor(trace: Trace) -> float:
    """The size used for gradients that are zero except for rounding: a small fraction of the largest gradient's.

    The bias of a convolution before batch norm has such a gradient, because the mean removes the bias.
    """
    step = trace.training_step
    assert step is not None
    sizes = (_size(numbers_of(trace, ref)) for ref in step.gradients.values())
    return ZERO * max(sizes, default=0.0)


def _size(gradient: Array) -> float:
    """The root mean square of the numbers that are finite: beside an infinity, any difference would be small."""
    return root_mean_square(gradient) if np.isfinite(gradient).any() else 0.0


def _share(difference: float, gradient: Array, floor: float) -> float:
    """A difference as a share of a gradient's size; infinite where it is nan, which no comparison would find large."""
    if math.isnan(difference):
        return np.inf
    size = max(_size(gradient), floor)
    return difference / size if size > 0 else 0.0 if difference == 0 else np.inf


def _differences(
    held: Derivatives, names: Collection[str], random: np.random.Generator
) -> Iterator[tuple[str, Cell, float | None]]:
    """Parameter, cell and how far the finite difference is from the gradient.

    None where something flipped, or the loss is not finite.
    """
    trace = held.trace
    step = trace.training_step
    assert step is not None
    floor, rounded = _floor(trace), _rounding_of_the_loss(trace, names)
    for ref, cell in _chosen(trace, names, random):
        gradient = numbers_of(trace, step.gradients[ref.name])
        weights = trace.parameters[ref.name].astype(np.float64)
        size = STEP * max(_size(weights), LEAST)
        change = np.zeros(weights.shape)
        change[cell] = size
        more, less = Forward(trace, {ref: weights + change}), Forward(trace, {ref: weights - change})
        slope = (more.loss() - less.loss()) / (2 * size)
        flips = more.pattern != less.pattern
        apart = abs(slope - float(gradient[cell]))
        share = _share(apart, gradient, floor) - rounded
        if share > AGREES and not flips:
            rounding = np.broadcast_to(held.rounding(step.gradients[ref.name]), gradient.shape)
            rest = float(np.maximum(0.0, apart - rounding[cell]))  # nan where apart is nan
            share = _share(rest, gradient, floor) - rounded
        yield ref.name, cell, max(0.0, share) if math.isfinite(slope) and not flips else None


def _rounding_of_the_loss(trace: Trace, names: Collection[str]) -> float:
    """How far the recorded loss is from the same loss in float64, as a share of it.

    Close to a minimum, output minus target is mostly rounding error, and the gradients are as inexact.
    """
    step = trace.training_step
    assert step is not None
    first = next((ref for ref in trace.outside.values() if ref.kind == "parameter" and ref.name in names), None)
    recorded = float(numbers_of(trace, step.loss))
    if first is None or not recorded:
        return 0.0
    exact = Forward(trace, {first: trace.parameters[first.name].astype(np.float64)}).loss()
    share = abs(exact - recorded) / abs(recorded)
    return share if math.isfinite(share) else 0.0


def _chosen(trace: Trace, names: Collection[str], random: np.random.Generator) -> list[tuple[Ref, Cell]]:
    """The weights to change: some of each parameter, or if that takes too long, some of all."""
    step = trace.training_step
    assert step is not None
    trained = [ref for ref in trace.outside.values() if ref.kind == "parameter" and ref.name in names]
    pairs = [(ref, cell) for ref in trained for cell in _cells(numbers_of(trace, step.gradients[ref.name]), random)]
    numbers = sum(math.prod(made.shape) for each in trace.all_steps[: step.loss.id] for made in each.results)
    most = max(2, min(COST // max(1, numbers), STEPS // step.loss.id))
    if len(pairs) <= most:
        return pairs
    return [pairs[int(index)] for index in np.linspace(len(pairs) - 1, len(pairs) // 2, most)]


def _cells(gradient: Array, random: np.random.Generator) -> list[Cell]:
    """The cell with the largest gradient, and random others."""
    drawn = random.choice(gradient.size, min(EACH, gradient.size), replace=False).tolist()
    places = dict.fromkeys([int(np.abs(gradient).argmax()), *drawn])
    return [tuple(int(i) for i in np.unravel_index(index, gradient.shape)) for index in [*places][:EACH]]


class Forward:
    """The forward pass once more, by the reference in float64, with some parameters changed."""

    def __init__(self, trace: Trace, changed: Mapping[Ref, Array]) -> None:
        self._trace = trace
        self._new = {ref.id: (ref, value) for ref, value in changed.items()}
        self._made: dict[tuple[int, int], Array] = {}
        self.pattern: list[bytes] = []
        """The active cells of each piecewise linear operation, and the maxima of each pooling."""

    def loss(self) -> float:
        """The loss.

        Raises:
            UsageError: a step on the way has no reference.
        """
        step = self._trace.training_step
        assert step is not None
        for each in self._trace.all_steps[: step.loss.id + 1]:
            changed = {name: array for name, ref in operands_of(each) for array in self._changed(ref)}
            if changed and each.role != "random":
                self._run(each, changed)
        if (step.loss.id, step.loss.output) not in self._made:
            return float(numbers_of(self._trace, step.loss))
        return float(self._made[step.loss.id, step.loss.output])

    def _changed(self, ref: Ref) -> Iterator[Array]:
        """An operand's numbers, if the change reaches it."""
        kind, number, output, _ = source_of_operand(self._trace, ref)
        if kind == "step" and (number, output) in self._made:
            yield self._made[number, output]
        elif kind == "parameter" and number in self._new:
            parameter, value = self._new[number]
            memory = np.zeros(int(max(addresses_of(layout_of(each)).max() for each in (parameter, ref))) + 1)
            memory[addresses_of(layout_of(parameter))] = value
            yield memory[addresses_of(layout_of(ref))]

    def _run(self, step: Step, changed: Mapping[str, Array]) -> None:
        operation = OPERATIONS.get(step.op)
        if operation is None:
            raise UsageError(f"{step.name} is a {step.op}, which has no reference.")
        arguments = arguments_of(self._trace, step)
        arguments.pop("states", None)  # an LSTM's recorded states would hide what the change does to later ones
        for name, array in changed.items():
            whole, _, position = name.partition(".")
            if position:
                items = list(arguments[whole])
                items[int(position)] = array
                arguments[whole] = tuple(items)
            else:
                arguments[name] = array
        result = operation.compute(**arguments)
        results = result if isinstance(result, tuple) else (result,)
        for output, made in enumerate(results):
            if made is not None:
                self._made[step.id, output] = made
                if made.dtype.kind in "iub":
                    self.pattern.append(made.tobytes())
        for kink in KINKS.get(step.op, ()):
            limit = arguments.get(kink) if isinstance(kink, str) else kink
            if limit is not None:
                self.pattern.append((np.asarray(arguments["self"]) > limit).tobytes())
