"""Losses: of pairs of numbers (unreduced, summed or averaged), and of scores against class indices."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Places, Source
from convscope.expr.cells import broadcast, leaf
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import gamma
from convscope.expr.primitives.losses import LOSSES as FUNCTIONS
from convscope.ops import titles
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.pointwise import through_vjp
from convscope.ops.vjp import VJP, Varies, first_result, fitted, only, wide
from convscope.typing import Array

NONE, MEAN = 0, 1
"""How a loss is reduced, as ATen numbers it; 2 is a sum."""
APPLIED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "mse_loss": ("squared_error", {"x": "self", "y": "target"}),
    "smooth_l1_loss": ("smooth_l1", {"x": "self", "y": "target", "beta": "beta"}),
    "huber_loss": ("huber", {"x": "self", "y": "target", "delta": "delta"}),
    "soft_margin_loss": ("soft_margin", {"x": "self", "y": "target"}),
    "binary_cross_entropy": ("binary_cross_entropy", {"x": "self", "y": "target", "weight": "weight"}),
    "binary_cross_entropy_with_logits": (
        "binary_cross_entropy_of_logit",
        {"x": "self", "y": "target", "weight": "weight", "positive": "pos_weight"},
    ),
}
TOGETHER = 2**18
"""Pairs whose losses are calculated at a time."""
"""Operation -> the loss of one pair, and where its arguments are in the call."""


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def paired_loss(call: Call, cell: Cell) -> Apply | Dot:
    """The loss of one pair, or the sum or the mean of the losses of all.

    >>> x, y = (Operand.of(np.array(numbers), "x") for numbers in ([1.0, 2.0], [0.0, 5.0]))
    >>> paired_loss(Call("mse_loss", {"self": x, "target": y, "reduction": 1}, ()), ()).value()
    5.0
    """
    if call["reduction"] == NONE:
        return _of_pair(call, cell)
    name, arguments = _arguments(call)
    shape = _shape(arguments)
    losses = np.zeros(math.prod(shape))
    errors = np.zeros(losses.shape)
    arrays = [_raw(argument) for argument in arguments.values()]
    flat = [np.broadcast_to(array, shape).ravel() if array.ndim else array for array in arrays]
    for start in range(0, len(losses), TOGETHER):
        part = losses[start : start + TOGETHER]
        values = [
            np.asarray(array[start : start + TOGETHER] if array.ndim else np.full(part.shape, array), np.float64)
            for array in flat
        ]
        part[:] = FUNCTIONS[name].value(*values)
        errors[start : start + TOGETHER] = FUNCTIONS[name].errors(call.precision, part, *values)
    places = Places(tuple(np.arange(n) for n in shape))

    def derive(index: int) -> Apply:
        return _of_pair(call, tuple(map(int, np.unravel_index(index, shape))))

    source = Source("loss", "computed", shape, call.dtype)
    cells = Cells(losses, source, places, (len(losses),), errors=errors, derive=derive)
    averaged = call["reduction"] == MEAN
    note = f"the {'mean' if averaged else 'sum'} of {len(losses):,} losses"
    return Dot(cells, divisor=len(losses) if averaged else 1.0, note=note)


def _of_pair(call: Call, cell: Cell) -> Apply:
    name, arguments = _arguments(call)
    return Apply(
        name, {key: broadcast(argument, cell, key) for key, argument in arguments.items()}, note="the loss of a pair"
    )


def _arguments(call: Call) -> tuple[str, dict[str, Operand | float]]:
    """The loss and its arguments; a weight that is not given is 1."""
    name, places = APPLIED[call.op]
    arguments: dict[str, Operand | float | None] = {key: call[parameter] for key, parameter in places.items()}
    return name, {key: 1.0 if value is None else value for key, value in arguments.items()}


def _shape(arguments: Mapping[str, Operand | float]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(argument.shape for argument in arguments.values() if isinstance(argument, Operand)))


def _raw(operand: Operand | float) -> Array:
    return np.asarray(operand.array if isinstance(operand, Operand) else operand)


def _numbers(operand: Operand | float) -> Array:
    return np.asarray(operand.array if isinstance(operand, Operand) else operand, np.float64)


def paired_loss_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The slope of each pair's loss, times the weight of its result."""
    only(call, varies, "self", "target")
    name, arguments = _arguments(call)
    shape = _shape(arguments)
    if call["reduction"] == MEAN:
        weights = weights / max(int(np.prod(shape)), 1)
    names = {
        key: APPLIED[call.op][1][key] if isinstance(argument, Operand) else "" for key, argument in arguments.items()
    }
    values = {key: _numbers(argument) for key, argument in arguments.items()}
    shapes = {parameter: call[parameter].shape for parameter in names.values() if parameter}
    return through_vjp(name, values, names, np.broadcast_to(weights, shape), varies=varies, shapes=shapes)


def paired_loss_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """One pair, or all."""
    shape = _shape(_arguments(call)[1])
    full = np.broadcast_to(as_mask(mask), shape)
    return {name: as_mask(fitted(full, call[name].shape)) for name in varies}


# Losses against class indices


def nll(call: Call, cell: Cell) -> Expr:
    """The negated score of the correct class, times its class weight; summed, or averaged by these weights.

    The second result is the sum of the weights, which divides a mean. Targets with `ignore_index` do not count.
    Source: PyTorch documentation, torch.nn.NLLLoss.
    """
    picked = _picked(call)
    per_sample = call["reduction"] == NONE and bool(call["target"].shape)
    if call.output:
        weights = _weight_cells(call, picked)
        return (
            number(0, "no sum of weights")
            if per_sample
            else Dot(weights, note="the sum of the weights of these classes")
        )
    if per_sample:
        return _cell_loss(call, cell)
    total = float(picked.weights.sum())
    scores, weights = _score_cells(call, picked), _weight_cells(call, picked, sign=-1.0)
    averaged = call["reduction"] == MEAN
    note = f"the {'weighted mean' if averaged else 'sum'} of {len(scores):,} losses"
    extra = len(scores) if averaged else 1  # the divisor is a sum of as many weights
    return Dot(scores, weights, divisor=total if averaged else 1.0, note=note, extra=extra)


class _Picked(NamedTuple):
    """The targets that count."""

    cells: Array
    """(T, axes): the cell of the correct class in the scores."""
    classes: Array
    """(T,)"""
    weights: Array
    """(T,): 1 without weights."""


def _picked(call: Call) -> _Picked:
    targets: Array = np.asarray(call["target"].array)
    counts = np.asarray(targets != call["ignore_index"])
    places, classes = np.argwhere(counts), targets[counts].astype(np.int64)
    axis = min(1, targets.ndim)  # after the images; a single vector has no images
    cells = np.insert(places, axis, classes, axis=1).astype(np.int64)
    weight: Operand | None = call.get("weight")
    return _Picked(cells, classes, np.ones(len(classes)) if weight is None else wide(weight)[classes])


def _score_cells(call: Call, picked: _Picked) -> Cells:
    scores: Operand = call["self"]
    values = scores.array[tuple(picked.cells.T)].astype(np.float64)
    return Cells(values.reshape(-1), scores.source, picked.cells, (len(picked.cells),))


def _weight_cells(call: Call, picked: _Picked, sign: float = 1.0) -> Cells:
    weight: Operand | None = call.get("weight")
    source = Source("weight", "number") if weight is None else weight.source
    if weight is not None and sign < 0:
        source = Source(f"−{weight.source.name}", "computed", weight.shape, weight.source.dtype)
    return Cells(sign * picked.weights, source, picked.classes[:, None], (len(picked.classes),))


def _cell_loss(call: Call, cell: Cell) -> Expr:
    target = int(call["target"].array[cell])
    if target == call["ignore_index"]:
        return number(0, "ignored")
    score = leaf(call["self"], (*cell[:1], target, *cell[1:]))
    loss = Apply("neg", {"x": score})
    weight: Operand | None = call.get("weight")
    return loss if weight is None else Apply("mul", {"x": leaf(weight, (target,)), "y": loss})


def nll_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass minus the weight to the score of each correct class."""
    first_result(call)
    only(call, varies, "self")
    picked = _picked(call)
    result: Array = np.zeros(call["self"].shape)
    slopes: Array = -picked.weights
    if call["reduction"] == MEAN:
        slopes = slopes / picked.weights.sum()
    targets = np.delete(picked.cells, min(1, call["target"].array.ndim), axis=1) if call["target"].shape else None
    per_sample = call["reduction"] == NONE and targets is not None
    result[tuple(picked.cells.T)] = slopes * (
        weights[tuple(targets.T)] if per_sample and targets is not None else weights
    )
    return VJP({"self": result})


def nll_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The scores of the correct classes; targets and weights are read whole."""
    mask, picked = as_mask(mask), _picked(call)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if "self" in varies:
        masks["self"] = np.zeros(call["self"].shape, np.float32)
        per_sample = call["reduction"] == NONE and bool(mask.ndim)
        of_each = mask[tuple(np.delete(picked.cells, 1, axis=1).T)] if per_sample else mask.max(initial=0.0)
        masks["self"][tuple(picked.cells.T)] = 0.0 if call.output else of_each
    return masks


class Hinges(NamedTuple):
    """The terms of a margin loss: one hinge for each pair of a correct and a wrong class of an image."""

    image: Array
    """(T,)"""
    right: Array
    """(T,): the class of each target."""
    wrong: Array
    """(T,)"""
    weights: Array
    """(T,): the weight of the correct class; 1 without weights."""


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def margin(call: Call, cell: Cell) -> Expr:
    """The sum of the hinges over all pairs of a correct and a wrong class, divided by the number of classes.

    The second result of the multi-label loss marks the correct classes.
    Source: PyTorch documentation, torch.nn.MultiMarginLoss, MultiLabelMarginLoss.
    """
    if call.output:
        return number(float(_right_classes(call)[cell]), "whether this class is correct")
    hinges = hinges_of(call)
    if call["reduction"] == NONE and cell:
        hinges = Hinges(*(part[hinges.image == cell[0]] for part in hinges))
    wished, power = margin_of(call)
    gaps, sizes = gaps_of(call, hinges, wished)
    gap_error = 4 * call.precision.sum * sizes  # what the difference rounds; the hinge has slope 0 or 1
    values = np.where(gaps > 0, gaps, 0.0) ** power * hinges.weights
    slope = 1.0 if power == 1 else 2 * np.where(gaps > 0, gaps, 0.0) + gap_error
    errors = hinges.weights * (gap_error * slope) + gamma(3, call.precision.sum) * values
    errors = np.where(gaps + gap_error > 0, errors, 0.0)

    def derive(index: int) -> Apply | Leaf:
        return hinge_of(call, hinges, index)

    places = np.stack([hinges.image, hinges.wrong], axis=1)
    cells = Cells(
        values, Source("hinge", "computed", rows_of(call), call.dtype), places, (len(values),), None, errors, derive
    )
    divisor = rows_of(call)[1] * (rows_of(call)[0] if call["reduction"] == MEAN else 1)
    return Dot(
        cells, divisor=divisor, note=f"{len(values):,} pairs of classes, by how much they violate the margin", extra=2
    )


def rows_of(call: Call) -> tuple[int, int]:
    """Images and classes; a single vector is one image."""
    shape = call["self"].shape
    return (shape[0], shape[1]) if len(shape) > 1 else (1, shape[0] if shape else 1)


def margin_of(call: Call) -> tuple[float, int]:
    """The margin, and the power that a hinge is raised to."""
    return float(call.get("margin", 1)), int(call.get("p", 1))


def hinges_of(call: Call) -> Hinges:
    """The hinges of all images."""
    images, classes = rows_of(call)
    targets: Array = call["target"].array.reshape(images, -1)
    labels = np.where(np.cumsum(targets < 0, axis=1) > 0, -1, targets)  # the first negative one ends the list
    image, position = np.nonzero(labels >= 0)
    right = labels[image, position]
    is_right = _right_classes(call).reshape(images, classes)
    pairs = [(i, j, k) for i, j in zip(image, right, strict=True) for k in np.flatnonzero(is_right[i] == 0)]
    triples = np.array(pairs, np.int64).reshape(-1, 3)
    weight: Operand | None = call.get("weight")
    weights = np.ones(len(triples)) if weight is None else wide(weight)[triples[:, 1]]
    return Hinges(triples[:, 0], triples[:, 1], triples[:, 2], weights)


def _right_classes(call: Call) -> Array:
    images, classes = rows_of(call)
    result: Array = np.zeros((images, classes))
    for row, targets in zip(result, call["target"].array.reshape(images, -1), strict=True):
        for target in targets:
            if target < 0:
                break
            row[target] = 1.0
    return result.reshape(call["self"].shape)


def gaps_of(call: Call, hinges: Hinges, wished: float) -> tuple[Array, Array]:
    """margin − correct + wrong for each pair, and the magnitudes of these terms."""
    scores = wide(call["self"]).reshape(rows_of(call))
    right, wrong = scores[hinges.image, hinges.right], scores[hinges.image, hinges.wrong]
    return wished - right + wrong, abs(wished) + np.abs(right) + np.abs(wrong)


def hinge_of(call: Call, hinges: Hinges, index: int, *, slope: bool = False) -> Apply | Leaf:
    """One pair as an expression; or what its slope is a multiple of."""
    lead = (int(hinges.image[index]),) if len(call["self"].shape) > 1 else ()
    right, wrong = (leaf(call["self"], (*lead, int(classes[index]))) for classes in (hinges.right, hinges.wrong))
    wished, power = margin_of(call)
    gap = Apply("add", {"x": Apply("sub", {"x": number(wished, "margin"), "y": right}), "y": wrong})
    hinge: Apply | Leaf = Apply(
        "fmax", {"x": gap, "y": number(0, "no loss")}, note="by how much this pair violates the margin"
    )
    if slope:
        hinge = number(1, "the slope of the hinge") if power == 1 else hinge
    elif power != 1:
        hinge = Apply("square", {"x": hinge})
    weight: Operand | None = call.get("weight")
    return hinge if weight is None else Apply("mul", {"x": leaf(weight, (int(hinges.right[index]),)), "y": hinge})


def margin_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to both classes of every pair that violates the margin."""
    first_result(call)
    only(call, varies, "self")
    hinges, (wished, power) = hinges_of(call), margin_of(call)
    gaps, _ = gaps_of(call, hinges, wished)
    images, classes = rows_of(call)
    scale = hinges.weights / (classes * (images if call["reduction"] == MEAN else 1)) * (gaps > 0)
    scale = scale * (weights.reshape(-1)[hinges.image] if weights.ndim else weights)
    slope = scale if power == 1 else scale * 2 * gaps
    result: Array = np.zeros((images, classes))
    np.add.at(result, (hinges.image, hinges.right), -slope)
    np.add.at(result, (hinges.image, hinges.wrong), slope)
    value = float(np.sum(scale * gaps**power))
    linear = float(np.sum(result * wide(call["self"]).reshape(images, classes)))
    constant = float(np.sum(scale) * wished) if power == 1 else value - linear
    return VJP({"self": result.reshape(call["self"].shape)}, constant, linear=power == 1)


def margin_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All classes of an image; targets and weights are read whole."""
    mask = as_mask(mask)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if "self" in varies:
        per_sample = not call.output and mask.ndim
        reached = mask[:, None] if per_sample else np.zeros(1, np.float32) if call.output else mask
        masks["self"] = np.broadcast_to(reached, call["self"].shape).copy()
    return masks


_PAIRED = Op(paired_loss, paired_loss_dependencies, paired_loss_vjp, rounding="stores between")
_NLL = Op(
    nll,
    nll_dependencies,
    nll_vjp,
    title=titles.named("negative log-likelihood"),
    rounding="narrow",
    selected_by=("target",),
)
_MARGIN = Op(margin, margin_dependencies, margin_vjp, selected_by=("target",))
LOSSES: Mapping[str, Op] = {
    "mse_loss": _PAIRED,
    "smooth_l1_loss": _PAIRED,
    "huber_loss": _PAIRED,
    "soft_margin_loss": _PAIRED,
    "binary_cross_entropy": _PAIRED,
    "binary_cross_entropy_with_logits": _PAIRED,
    "nll_loss_forward": _NLL,
    "nll_loss2d_forward": _NLL,
    "multi_margin_loss": _MARGIN,
    "multilabel_margin_loss_forward": _MARGIN,
}
