"""Gradient check: the gradients of a whole training step against two computations without a backward pass.

The finite difference is the definition of a gradient: change a weight slightly, repeat the forward pass in float64 with
the reference, and compare the losses. The chain is the product of all derivatives from the loss back, in float64.
Random numbers, such as a dropout's mask, are the recorded ones. Uses traces, rules and the reference.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from convscope.errors import ConvscopeError
from convscope.expr.call import Cell
from convscope.ops import OPS, Op
from convscope.proof.chain import chain, unexplained
from convscope.proof.derivatives import UNABLE, Derivatives, derivatives_of, largest_of
from convscope.proof.final_numbers import recorded_numbers
from convscope.proof.memory_limit import allowed
from convscope.proof.repeated_forward import Forward, Roundings, memory_of
from convscope.proof.tolerance import root_mean_square
from convscope.proof.verification_report import AGREES, RESOLVED, GradientCheck
from convscope.reference.parts import boxes
from convscope.traces.step import Ref
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

ULPS = 64
"""Units in the last place by which the losses of a repeated forward pass may differ, because all its sums round."""
SPARE = 100_000_000
"""Bytes of the allowance that a repeated forward pass leaves to its roundings and to what computes one part."""


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
    derivatives = derivatives_of(trace, ops)
    names = [n for n, ref in step.gradients.items() if not {*unresolved}.intersection(derivatives.behind(ref))]
    if undecided:
        names = [name for name in names if np.isfinite(recorded_numbers(trace, step.gradients[name])).all()]
    expected, far, unable = dict[str, Array](), dict[str, float](), ""
    try:
        expected, far = _chained(derivatives, names)
    except UNABLE as error:
        unable = _reason(error, "product of the chain")
    else:
        names = [*far]
    tally, too_large = _Tally(), _too_large(trace)
    try:
        for name, cell, difference in _differences(
            derivatives, [] if too_large else names, expected, np.random.default_rng(seed)
        ):
            tally.add(name, cell, difference)
    except UNABLE as error:
        unable = _reason(error, "finite difference")
    last = max(far, key=lambda name: far[name], default="")
    return GradientCheck(
        moved=tally.moved,
        flipped=tally.flipped,
        lost=tally.lost,
        furthest=tally.furthest,
        worst=tally.worst,
        chained=len(far),
        chain_furthest=far.get(last, 0.0),
        chain_worst=last,
        unable=unable,
        too_large=too_large,
        left_out=len(step.gradients) - len(names),
        withheld=_withheld(derivatives),
    )


@dataclass(slots=True, eq=False)
class _Tally:
    """Counts of the finite differences, and the one furthest from its gradient."""

    moved: int = 0
    flipped: int = 0
    lost: int = 0
    furthest: float = 0.0
    worst: str = ""

    def add(self, name: str, cell: Cell, difference: float | str) -> None:
        self.moved += 1
        self.flipped += difference is FLIPPED
        self.lost += difference is LOST
        if isinstance(difference, float) and not difference <= self.furthest:
            self.furthest, self.worst = difference, f"{name}[{', '.join(map(str, cell))}]"


def _withheld(derivatives: Derivatives) -> str:
    """A sentence about a step that gives no gradient of what its result depends on; empty if there is none."""
    for node, operand in derivatives.withheld():
        return f"{node.kind} gives no gradient of {operand.name}, though its result depends on it"
    return ""


def _chained(derivatives: Derivatives, names: Collection[str]) -> tuple[dict[str, Array], dict[str, float]]:
    """What a finite difference must equal, and how far each gradient is from the product of the chain.

    If a gradient is further away than `AGREES`, the known roundings of the backward pass are subtracted. One that then
    agrees, although the roundings exceed a tenth of its size, is not compared.

    Raises:
        ConvscopeError: a step on the way has no vector-Jacobian product.
    """
    trace, step = derivatives.trace, derivatives.trace.training_step
    assert step is not None
    floor = _floor(trace)
    chained = {name: gradient for name, gradient in chain(trace, derivatives.ops).items() if name in names}
    recorded = {name: recorded_numbers(trace, step.gradients[name]) for name in chained}
    far = {name: _furthest(recorded[name], gradient, floor) for name, gradient in chained.items()}
    parted = [name for name, share in far.items() if not share <= AGREES]
    left = unexplained(derivatives) if parted else {}
    for name in parted:
        unknown = left.pop(name)
        far[name] = _share(0.0 if unknown is None else largest_of(unknown), chained[name], floor)
        if unknown is not None:
            chained[name] = chained[name] + unknown
        rounded = _furthest(recorded[name], chained[name], floor)
        if far[name] <= AGREES and rounded > RESOLVED:
            del far[name]
    return chained, far


def _too_large(trace: Trace) -> int:
    """The bytes of a repeated forward pass in float64, where these are more than `verify` may take; else 0."""
    needed = memory_of(trace)
    return needed if needed > allowed(trace) - SPARE else 0


def _reason(error: Exception, method: str) -> str:
    return f"the {method}, because {str(error).rstrip('.') if isinstance(error, ConvscopeError) else 'a step lacks it'}"


def _floor(trace: Trace) -> float:
    """The size used for gradients that are zero except for rounding: a small fraction of the largest gradient's.

    The bias of a convolution before batch norm has such a gradient, because the mean removes the bias.
    """
    step = trace.training_step
    assert step is not None
    sizes = (_size(recorded_numbers(trace, ref)) for ref in step.gradients.values())
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


@np.errstate(invalid="ignore")  # infinities
def _furthest(recorded: Array, exact: Array, floor: float) -> float:
    """The largest difference between two gradients, as a share of the exact one's size."""
    largest = 0.0
    for box in boxes(exact.shape, range(exact.ndim)):
        difference = np.where(recorded[box] == exact[box], 0.0, np.abs(recorded[box] - exact[box]))
        largest = float(np.maximum(largest, np.max(difference, initial=0.0)))  # nan if one is
    return _share(largest, exact, floor)


def _differences(
    derivatives: Derivatives, names: Collection[str], expected: Mapping[str, Array], random: np.random.Generator
) -> Iterator[tuple[str, Cell, float | str]]:
    """Parameter, cell and how far the finite difference is from the gradient, or why there is none."""
    trace = derivatives.trace
    step = trace.training_step
    assert step is not None
    floor, roundings = _floor(trace), Roundings()
    for ref, cell in _chosen(trace, names, random):
        recorded = recorded_numbers(trace, step.gradients[ref.name])
        slope = _slope(trace, ref, cell, 1.0)
        share = np.inf if slope is None else _share(abs(slope - float(recorded[cell])), recorded, floor)
        if slope is None or share <= AGREES:
            yield ref.name, cell, FLIPPED if slope is None else share
            continue
        tried = [_slope(trace, ref, cell, times, roundings) for times in (1.0, 0.5, 2.0)]
        slopes = [slope for slope in tried if slope is not None]
        if len(slopes) < len(tried):
            yield ref.name, cell, FLIPPED
            continue
        known_rounding: Array | float = 0.0 if ref.name in expected else derivatives.rounding(step.gradients[ref.name])
        exact = expected.get(ref.name, recorded)
        difference = abs(slopes[0] - exact[cell]) - np.broadcast_to(known_rounding, exact.shape)[cell]
        blur = _share(3 * float(np.ptp(slopes)), exact, floor)
        share = _share(float(np.maximum(0.0, difference)), exact, floor)  # infinite where apart is nan
        if share > AGREES and difference <= _noise(trace, ref):  # too small a slope to be seen in the loss
            yield ref.name, cell, LOST
            continue
        if math.isfinite(blur):  # otherwise the gradient is zero, and no rounding excuses a slope
            share = max(0.0, share - blur)
        yield ref.name, cell, LOST if AGREES < blur < math.inf and share <= AGREES else share


FLIPPED, LOST = "flipped", "lost"
"""Why a weight has no finite difference: a ReLU or the maximum of a pooling flipped, or three changes disagree."""


def _slope(trace: Trace, ref: Ref, cell: Cell, times: float, roundings: Roundings | None = None) -> float | None:
    """The finite difference by one weight; None where something flipped, or the loss is not finite.

    Args:
        times: The change of the weight, as a multiple of the usual one.
        roundings: Those of the recorded forward pass, to repeat them.
    """
    weights = trace.parameters[ref.name].astype(np.float64)
    number, size = float(weights[cell]), times * STEP * max(_size(weights), LEAST)
    losses, patterns = [], []
    for changed in (number + size, number - size):
        weights[cell] = changed
        forward = Forward(trace, {ref: weights}, roundings)
        losses.append(forward.loss())
        patterns.append(forward.pattern)
    slope = (losses[0] - losses[1]) / (2 * size)
    return slope if patterns[0] == patterns[1] and math.isfinite(slope) else None


def _noise(trace: Trace, ref: Ref) -> float:
    """The difference quotient of two losses that differ by a few units in the last place of float64."""
    step = trace.training_step
    assert step is not None
    loss = abs(float(recorded_numbers(trace, step.loss)))
    return ULPS * 2.0**-52 * loss / (STEP * max(_size(trace.parameters[ref.name].astype(np.float64)), LEAST))


def _chosen(trace: Trace, names: Collection[str], random: np.random.Generator) -> list[tuple[Ref, Cell]]:
    """The weights to change: some of each parameter, or if that takes too long, some of all."""
    step = trace.training_step
    assert step is not None
    trained = [ref for ref in trace.outside.values() if ref.kind == "parameter" and ref.name in names]
    pairs = [
        (ref, cell) for ref in trained for cell in _cells(recorded_numbers(trace, step.gradients[ref.name]), random)
    ]
    numbers = sum(
        math.prod(result.shape) for forward_step in trace.all_steps[: step.loss.id] for result in forward_step.results
    )
    limit = max(2, min(COST // max(1, numbers), STEPS // step.loss.id))
    if len(pairs) <= limit:
        return pairs
    return [pairs[int(index)] for index in np.linspace(len(pairs) - 1, len(pairs) // 2, limit)]


def _cells(gradient: Array, random: np.random.Generator) -> list[Cell]:
    """The cell with the largest gradient, and random others."""
    random_indices = random.choice(gradient.size, min(EACH, gradient.size), replace=False).tolist()
    places = dict.fromkeys([int(np.abs(gradient).argmax()), *random_indices])
    return [tuple(int(i) for i in np.unravel_index(index, gradient.shape)) for index in [*places][:EACH]]
