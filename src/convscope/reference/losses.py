"""Losses: of pairs of numbers, of scores and class indices. Uses precision and NumPy.

`reduction` is ATen's number: 0 keeps the losses apart, 1 averages, 2 adds.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.parts import Box, boxes
from convscope.reference.precision import FUNCTION, carried, gamma, smallest
from convscope.typing import Array

Each = Callable[..., Array]


def _reduced(losses: Array, reduction: int) -> Array:
    return losses if reduction == 0 else np.asarray(np.divide(losses.sum(), losses.size if reduction == 1 else 1))


def _reduced_error(losses: Array, errors: Array, reduction: int, u: float) -> Array:
    """The errors of all losses added up, and the roundings of a sum of as many, and a division."""
    if reduction == 0:
        return errors
    return _sum_error(np.abs(losses).sum(), errors.sum(), losses.size, reduction, u)


def _sum_error(total: Array, error_sum: Array, count: int, reduction: int, u: float) -> Array:
    """The same from the magnitudes of `count` losses, and from their errors, added up."""
    divisor = count if reduction == 1 else 1
    return carried((error_sum + gamma(count + 1, u) * (total + error_sum)) / max(divisor, 1), total, u)


def paired(pair_loss: Each) -> Callable[..., Array]:
    """A loss of pairs, reduced; the losses of many pairs are added up some at a time."""

    def loss(x: Array, target: Array, *, reduction: int = 1, **settings: object) -> Array:
        if reduction == 0:
            return np.asarray(pair_loss(_widened(x), _widened(target), **_all_widened(settings)))
        pieces = (np.asarray(pair_loss(*pair, **others)) for pair, others in _pairs(x, target, settings))
        count, total = 0, np.zeros(())
        for losses in pieces:
            count, total = count + losses.size, total + losses.sum()
        return np.asarray(np.divide(total, count if reduction == 1 else 1))

    return loss


def _pairs(
    x: Array, target: Array, settings: Mapping[str, object]
) -> Iterator[tuple[tuple[Array, Array], dict[str, object]]]:
    """All pairs in float64, some at a time, with what a weight has for them."""
    arrays = (value for value in (x, target, *settings.values()) if isinstance(value, np.ndarray))
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    for box in boxes(shape, range(len(shape))):
        pair, others = (_at(value, box) for value in (x, target)), {n: _at(value, box) for n, value in settings.items()}
        first, second = pair
        yield (first, second), others


def _at(value: Any, box: Box) -> Any:
    """What a broadcast tensor has in a box, in float64; everything else as it is."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return _widened(value)
    inside = box[len(box) - value.ndim :]
    return _widened(value[tuple(slice(None) if n == 1 else part for n, part in zip(value.shape, inside, strict=True))])


def _all_widened(settings: Mapping[str, object]) -> dict[str, Any]:
    return {name: _widened(value) for name, value in settings.items()}


def _widened(value: Any) -> Any:
    return value.astype(np.float64, copy=False) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def paired_error(
    pair_loss: Each,
    rounded: Each,
    on_the_way: Each | None = None,
    stored: Each | None = None,
    underflow: Callable[..., float] | None = None,
) -> Callable[..., Array]:
    """`rounded` adds up the magnitudes that a kernel rounds: to its own type, and to a narrow one, unless
    `stored` says that it puts down less in between.

    Each loss may lose numbers below the smallest of the type, times what `underflow` says that these are multiplied by.
    Where a number `on_the_way` is beyond the type's range, nothing is known of the loss.
    """

    def error(
        _y: Array, u: float, x: Array, target: Array, *, reduction: int = 1, u_out: float = 0.0, **settings: object
    ) -> Array:
        if reduction == 0:
            return each((_widened(x), _widened(target)), u, u_out, _all_widened(settings))[1]
        count, total, error_sum = 0, np.zeros(()), np.zeros(())
        for pair, others in _pairs(x, target, settings):
            losses, errors = each(pair, u, u_out, others)
            count, total, error_sum = count + losses.size, total + np.abs(losses).sum(), error_sum + errors.sum()
        return _sum_error(total, error_sum, count, reduction, u)

    def each(pair: tuple[Array, Array], u: float, u_out: float, settings: dict[str, Any]) -> tuple[Array, Array]:
        """The loss of each pair, and its error."""
        losses = np.asarray(pair_loss(*pair, **settings))
        narrow = u_out * (stored or rounded)(*pair, **settings) if u_out else 0.0
        errors = np.broadcast_to(u * rounded(*pair, **settings) + narrow, losses.shape)
        errors = errors + 2 * smallest(u_out or u) * (1.0 if underflow is None else max(1.0, underflow(**settings)))
        if on_the_way is not None:
            errors = carried(errors, on_the_way(*pair, **settings), u_out or u)
        return losses, errors

    return error


def squared(x: Array, target: Array) -> Array:
    """mse_loss of one pair: the square of the difference."""
    return np.asarray(np.square(x - target))


def squared_rounded(x: Array, target: Array) -> Array:
    """A difference, whose rounding counts twice in the square, and the square."""
    return 3 * squared(x, target)


def smooth(x: Array, target: Array, beta: float = 1.0) -> Array:
    """smooth_l1_loss of one pair: a parabola below beta, a line beyond.

    >>> smooth(np.array([0.5, 3.0]), np.zeros(2)).tolist()
    [0.125, 2.5]
    """
    distance = np.abs(x - target)
    return np.asarray(np.where(distance < beta, np.divide(np.square(distance), 2 * beta), distance - beta / 2))


def smooth_rounded(x: Array, target: Array, beta: float = 1.0) -> Array:
    """A parabola: its difference twice, a square, two scales; a line: |x - y| minus beta, both rounded."""
    distance = np.abs(x - target)
    line = distance > 0.98 * beta
    return 6 * np.abs(smooth(x, target, beta)) + np.where(line, 2 * (distance + beta), 0.0)


def _inverse_beta(beta: float = 1.0) -> float:
    """The square of a small difference, which may underflow, is divided by beta."""
    return 1 / beta if beta else 1.0


def huber(x: Array, target: Array, delta: float = 1.0) -> Array:
    """huber_loss of one pair: a parabola up to delta, a line of slope delta beyond."""
    distance = np.abs(x - target)
    return np.asarray(np.where(distance <= delta, np.square(distance) / 2, delta * (distance - delta / 2)))


def huber_rounded(x: Array, target: Array, delta: float = 1.0) -> Array:
    """The magnitudes of `smooth_rounded`, with the line scaled by a delta that is rounded when it is written."""
    distance = np.abs(x - target)
    line = distance > 0.98 * delta
    return 6 * np.abs(huber(x, target, delta)) + np.where(line, 3 * delta * (distance + delta), 0.0)


def soft_margin(x: Array, target: Array) -> Array:
    """soft_margin_loss of one pair: log(1 + exp(-x·target))."""
    return np.asarray(np.logaddexp(0, -x * target))


def soft_margin_rounded(x: Array, target: Array) -> Array:
    """The product moves the logarithm by at most as much; so does the exponential's error, times e / (1 + e)."""
    exponent = -x * target
    part = 1 / (1 + np.exp(-exponent))
    return np.asarray(part * (2.5 * np.abs(exponent) + FUNCTION) + (FUNCTION + 1) * soft_margin(x, target))


def soft_margin_stored(x: Array, target: Array) -> Array:
    """A product, an exponential, a logarithm: the first two times e / (1 + e)."""
    exponent = -x * target
    return np.asarray((np.abs(exponent) + 1) * 1.5 / (1 + np.exp(-exponent)) + 2 * soft_margin(x, target))


def entropy(x: Array, target: Array, weight: Array | None = None) -> Array:
    """binary_cross_entropy of one pair, its logarithms at least -100."""
    yes, no = (np.maximum(f, -100.0) for f in (np.log(x), np.log1p(-x)))
    return np.asarray((1.0 if weight is None else weight) * ((target - 1) * no - target * yes))


def entropy_rounded(x: Array, target: Array, weight: Array | None = None) -> Array:
    """Two logarithms, each with a factor, and their difference: FUNCTION + 3 of both, and two of the result."""
    yes, no = (np.abs(np.maximum(f, -100.0)) for f in (np.log(x), np.log1p(-x)))
    size = np.abs(target - 1) * no + np.abs(target) * yes
    scale = 1.0 if weight is None else np.abs(weight)
    return np.asarray(scale * (FUNCTION + 3) * size + 2 * np.abs(entropy(x, target, weight)))


def entropy_stored(x: Array, target: Array, weight: Array | None = None) -> Array:
    """Each part a logarithm, a factor and a product; then a difference and a weight."""
    yes, no = (np.abs(np.maximum(f, -100.0)) for f in (np.log(x), np.log1p(-x)))
    size = np.abs(target - 1) * no + np.abs(target) * yes
    return np.asarray(3.1 * size * (1.0 if weight is None else np.abs(weight)) + 2 * np.abs(entropy(x, target, weight)))


def logit_entropy(x: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None) -> Array:
    """binary_cross_entropy_with_logits of one pair: of the sigmoid, found without it."""
    scale = 1.0 if pos_weight is None else (pos_weight - 1) * target + 1
    return np.asarray((1.0 if weight is None else weight) * ((1 - target) * x + scale * np.logaddexp(0, -x)))


def logit_entropy_rounded(
    x: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None
) -> Array:
    """The product with x: 3; the logarithm: FUNCTION + 8 of it and its factor, whose own parts round, too."""
    log = np.logaddexp(0, -x)
    extra_weight = 0.0 if pos_weight is None else (pos_weight - 1) * target
    size = 3 * np.abs((1 - target) * x) + log * (
        (FUNCTION + 8) * np.abs(1 + extra_weight) + 3 * np.abs(extra_weight) + 1
    )
    scale = 1.0 if weight is None else np.abs(weight)
    return np.asarray(scale * size + 2 * np.abs(logit_entropy(x, target, weight, pos_weight)))


def logit_entropy_stored(
    x: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None
) -> Array:
    """Two roundings of the product with x; the logarithm, its factor and their product; a difference and a weight."""
    extra_weight = 0.0 if pos_weight is None else (pos_weight - 1) * target
    size = 2.1 * np.abs((1 - target) * x) + np.logaddexp(0, -x) * (
        3.1 * np.abs(1 + extra_weight) + 2.1 * np.abs(extra_weight)
    )
    scale = 1.0 if weight is None else np.abs(weight)
    return np.asarray(scale * size + 2 * np.abs(logit_entropy(x, target, weight, pos_weight)))


def nll(x: Array, target: Array, weight: Array | None, reduction: int, ignore_index: int) -> tuple[Array, Array]:
    """nll_loss_forward, nll_loss2d_forward: minus the score of the correct class, weighted; and the sum of the weights.

    >>> nll(np.array([[-1.0, -3.0]]), np.array([1]), None, 1, -100)
    (array(3.), array(1.))
    """
    losses, weights = _nll_each(x, target, weight, ignore_index)
    total = weights.sum() if reduction or not target.ndim else 0.0
    if reduction == 0:
        return losses, np.asarray(total)
    return np.asarray(np.divide(losses.sum(), total if reduction == 1 else 1.0)), np.asarray(total)


def nll_error(
    y: tuple[Array, Array], u: float, x: Array, target: Array, weight: Array | None, reduction: int, ignore_index: int
) -> tuple[Array, Array]:
    """A product each, a sum of n, and the sum of n weights that divides it; kernels add in the type of the result."""
    losses, weights = _nll_each(x, target, weight, ignore_index)
    count = int(np.count_nonzero(weights))
    sizes = np.abs(weights).sum()
    total = gamma(count, u) * sizes if weight is not None or count > 128 else np.zeros(())
    if reduction == 0:
        return u * np.abs(losses), np.asarray(total if not target.ndim else 0.0)
    size = np.abs(losses).sum()
    share, underflow = size, 0.0
    if reduction == 1:  # small weights make products underflow, and divide what that loses
        share = np.divide(size * sizes, weights.sum() ** 2)  # weights of both signs may nearly cancel in their sum
        underflow = np.divide(count * smallest(u), np.abs(weights.sum())) if weight is not None else 0.0
    return carried(gamma((2 if reduction == 1 else 1) * count + 2, u) * share + underflow, size, u), np.asarray(total)


def _nll_each(x: Array, target: Array, weight: Array | None, ignore_index: int) -> tuple[Array, Array]:
    """The loss of each target, 0 where it is ignored, and its weight."""
    counts = target != ignore_index
    classes = np.where(counts, target, 0)
    axis = min(1, target.ndim)
    scores = np.take_along_axis(x, np.expand_dims(classes, axis), axis).squeeze(axis)
    weights = np.where(counts, 1.0 if weight is None else weight[classes], 0.0)
    return np.where(counts, -scores, 0.0) * weights, np.asarray(weights, np.float64)


def multi_margin(
    x: Array, target: Array, p: float = 1, margin: float = 1, weight: Array | None = None, reduction: int = 1
) -> Array:
    """multi_margin_loss: max(0, margin - correct + wrong)^p over all wrong classes, divided by the classes.

    >>> float(multi_margin(np.array([[0.0, 0.5, 2.0]]), np.array([2])))
    0.0
    """
    gaps, scale = margin_gaps(x, target, margin, weight)
    losses = (_opened(gaps) ** p * scale).sum(1) / gaps.shape[1]
    return _reduced(losses if x.ndim > 1 or reduction else losses.reshape(target.shape), reduction)


def multi_margin_error(
    _y: Array, u: float, x: Array, target: Array, p: float = 1, margin: float = 1, weight: Array | None = None,
    reduction: int = 1,
) -> Array:  # fmt: skip
    """Two roundings of the gap's magnitudes, twice as much in its square; a weight, a sum of C, a division."""
    gaps, scale = margin_gaps(x, target, margin, weight)
    rows = np.atleast_2d(x)
    gap_error = 3 * u * (abs(margin) + np.abs(rows) + np.abs(np.take_along_axis(rows, target.reshape(-1, 1), 1)))
    open_, gap_error = _opened(gaps), np.where(scale * (gaps + gap_error) > 0, gap_error, 0.0)
    hinge_error = scale * (gap_error if p == 1 else 2 * open_ * gap_error + gap_error**2)
    losses, classes = (open_**p * scale).sum(1) / gaps.shape[1], gaps.shape[1]
    errors = hinge_error.sum(1) / classes + gamma(classes + 4, u) * (losses + hinge_error.sum(1) / classes)
    return _reduced_error(losses, errors if x.ndim > 1 or reduction else errors.reshape(target.shape), reduction, u)


def margin_gaps(x: Array, target: Array, margin: float, weight: Array | None) -> tuple[Array, Array]:
    """(N, C): margin - right + wrong, and what its hinge is multiplied by: 0 for the right class itself."""
    rows, classes = np.atleast_2d(x), target.reshape(-1, 1)
    scale = np.ones(rows.shape) * (1.0 if weight is None else weight[classes])
    np.put_along_axis(scale, classes, 0.0, 1)
    return margin - np.take_along_axis(rows, classes, 1) + rows, scale


def _opened(gaps: Array) -> Array:
    """The hinge: a gap above 0, else 0, as for nan, which is not above."""
    return np.where(gaps > 0, gaps, 0.0)


def multilabel_margin(x: Array, target: Array, reduction: int) -> tuple[Array, Array]:
    """multilabel_margin_loss_forward: max(0, 1 - correct + wrong) over all pairs, by classes; the correct ones.

    >>> multilabel_margin(np.array([0.1, 0.2, 0.4, 0.8]), np.array([3, 0, -1, 1]), 0)[1]
    array([1., 0., 0., 1.])
    """
    gaps, right = label_gaps(x, target)
    losses = np.array([_opened(g).sum() for g in gaps]) / max(np.atleast_2d(x).shape[1], 1)
    losses = losses if x.ndim > 1 else losses.reshape(())
    return _reduced(losses, reduction), right


def multilabel_margin_error(_y: object, u: float, x: Array, target: Array, reduction: int) -> tuple[Array, Array]:
    """Two roundings of each pair's magnitudes, a sum of all pairs, a division."""
    gaps, _ = label_gaps(x, target)
    rows, classes = np.atleast_2d(x), max(np.atleast_2d(x).shape[1], 1)
    sizes = [3 * u * (1 + 2 * np.abs(row).max(initial=0.0)) * g.size for row, g in zip(rows, gaps, strict=True)]
    losses = np.array([_opened(g).sum() for g in gaps]) / classes
    errors = np.array(sizes) / classes + np.array([gamma(g.size + 2, u) for g in gaps]) * losses
    losses, errors = (losses, errors) if x.ndim > 1 else (losses.reshape(()), errors.reshape(()))
    return _reduced_error(losses, errors, reduction, u), np.zeros(())


def label_gaps(x: Array, target: Array) -> tuple[list[Array], Array]:
    """For each row 1 - right + wrong for all pairs, and 1 where a class is right; a negative target ends a list."""
    rows, gaps = np.atleast_2d(x), []
    right = np.zeros(rows.shape)
    for row, targets, mark in zip(rows, np.atleast_2d(target), right, strict=True):
        ends = np.flatnonzero(targets < 0)
        labels = targets[: ends[0]] if len(ends) else targets
        mark[labels] = 1.0
        gaps.append(1 - row[labels][:, None] + row[mark == 0][None])
    return gaps, right.reshape(x.shape)


_PAIRED: Mapping[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "mse_loss": (paired(squared), paired_error(squared, squared_rounded)),
    "smooth_l1_loss": (paired(smooth), paired_error(smooth, smooth_rounded, underflow=_inverse_beta)),
    "huber_loss": (paired(huber), paired_error(huber, huber_rounded)),
    "soft_margin_loss": (
        paired(soft_margin),
        paired_error(soft_margin, soft_margin_rounded, lambda x, target: np.exp(-x * target), soft_margin_stored),
    ),
    "binary_cross_entropy": (paired(entropy), paired_error(entropy, entropy_rounded, None, entropy_stored)),
    "binary_cross_entropy_with_logits": (
        paired(logit_entropy),
        paired_error(logit_entropy, logit_entropy_rounded, None, logit_entropy_stored),
    ),
}
LOSSES: Mapping[str, Operation] = {
    **{name: Operation(loss, error, widens=True) for name, (loss, error) in _PAIRED.items()},
    "nll_loss_forward": Operation(nll, nll_error),
    "nll_loss2d_forward": Operation(nll, nll_error),
    "multi_margin_loss": Operation(multi_margin, multi_margin_error),
    "multilabel_margin_loss_forward": Operation(multilabel_margin, multilabel_margin_error),
}
