"""Losses and softmax backward, written from the derivatives of their forward functions. Uses precision and NumPy."""

from collections.abc import Callable

import numpy as np

from convscope.reference.losses import label_gaps, margin_gaps
from convscope.reference.precision import FUNCTION, carried, gamma, smallest
from convscope.typing import Array, DType

MEAN = 1
"""`reduction="mean"`; 0 is none, 2 is the sum."""


def log_softmax_backward(grad_output: Array, output: Array, dim: int, input_dtype: DType = None) -> Array:
    """_log_softmax_backward_data: the Jacobian is the identity minus a row of probabilities.

    >>> log_softmax_backward(np.array([0.0, -1.0]), np.log([0.25, 0.75]), 0).round(12).tolist()
    [0.25, -0.25]

    Args:
        grad_output: The gradient of the log-probabilities.
        output: The log-probabilities themselves.
        dim: Along which the probabilities sum to 1.
        input_dtype: The type of the logits; changes no number.
    """
    return np.asarray(grad_output - np.exp(output) * grad_output.sum(dim, keepdims=True))


def log_softmax_backward_error(
    y: Array,
    u: float,
    grad_output: Array,
    output: Array,
    dim: int,
    input_dtype: DType = None,
    u_out: float = 0.0,
) -> Array:
    """A sum of n gradients, an exponential, a product and a difference."""
    n = grad_output.shape[dim] if grad_output.ndim else 1
    total = np.abs(grad_output).sum(dim, keepdims=True)
    share = np.exp(output)
    exponent = u * (5 * FUNCTION + 2)  # a fast exponential, see `softmax_error` of the forward
    share_of_sum = np.abs(share * grad_output.sum(dim, keepdims=True))
    return np.asarray(share * gamma(n, u) * total + (exponent + 2 * u_out) * share_of_sum + u * np.abs(y))


def softmax_backward(grad_output: Array, output: Array, dim: int, input_dtype: DType = None) -> Array:
    """_softmax_backward_data: the Jacobian is diag(y) - y·yᵀ."""
    return np.asarray(output * grad_output - output * (output * grad_output).sum(dim, keepdims=True))


def softmax_backward_error(
    y: Array,
    u: float,
    grad_output: Array,
    output: Array,
    dim: int,
    input_dtype: DType = None,
    u_out: float = 0.0,
) -> Array:
    """A sum of n products, a difference and a product; or y·grad and y·sum apart, each rounded."""
    n = grad_output.shape[dim] if grad_output.ndim else 1
    weighted = np.abs(output * grad_output)
    total = weighted.sum(dim, keepdims=True)
    stored = u_out * (weighted + np.abs(output) * np.abs((output * grad_output).sum(dim, keepdims=True)))
    return np.asarray(gamma(n + 3, u) * np.abs(output) * total + 3 * u * weighted + u * np.abs(y) + stored)


def nll_backward(
    grad_output: Array, x: Array, target: Array, weight: Array | None, reduction: int, ignore_index: int,
    total_weight: Array,
) -> Array:  # fmt: skip
    """nll_loss_backward and nll_loss2d_backward: minus the label's weight at the label, over their sum for a mean.

    >>> nll_backward(np.array(1.0), np.zeros((2, 3)), np.array([2, 0]), None, 1, -100, np.array(2.0)).tolist()
    [[0.0, 0.0, -0.5], [-0.5, 0.0, 0.0]]

    Args:
        grad_output: The gradient of the loss: one number, or one for each label where nothing is reduced.
        x: Log-probabilities, (N, C, ...) or (C,).
        target: Labels, (N, ...) or ().
        weight: The weight of each class, (C,), or None.
        reduction: See `MEAN`.
        ignore_index: A label that does not count.
        total_weight: Sum of the weights of all labels that count.
    """
    axis = 1 if x.ndim > 1 else 0
    classes = np.arange(x.shape[axis]).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    labels = np.expand_dims(np.asarray(target), axis)
    hit = (labels == classes) & (labels != ignore_index)
    arrives = grad_output if reduction else np.expand_dims(grad_output, axis)
    weights = np.ones(x.shape[axis]) if weight is None else weight
    scale = weights.reshape(classes.shape) * arrives
    if reduction == MEAN:
        scale = scale / total_weight if float(total_weight) else np.zeros_like(scale)
    return np.where(hit, -scale, 0.0)


def mse_backward(grad_output: Array, x: Array, target: Array, reduction: int) -> Array:
    """mse_loss_backward: twice the difference, over the number of cells for a mean."""
    return np.asarray(grad_output * (x - target) * (2 / (_count(x, target) if reduction == MEAN else 1)))


def smooth_l1_backward(grad_output: Array, x: Array, target: Array, reduction: int, beta: float) -> Array:
    """smooth_l1_loss_backward: the difference over beta, cut to -1 and 1."""
    difference = x - target
    slope = np.where(difference <= -beta, -1.0, np.where(difference >= beta, 1.0, difference / beta))
    return np.asarray(grad_output * slope / (_count(x, target) if reduction == MEAN else 1))


def huber_backward(grad_output: Array, x: Array, target: Array, reduction: int, delta: float) -> Array:
    """huber_loss_backward: the difference, cut to -delta and delta."""
    return np.asarray(
        grad_output * np.clip(x - target, -delta, delta) / (_count(x, target) if reduction == MEAN else 1)
    )


def binary_cross_entropy_backward(
    grad_output: Array, x: Array, target: Array, weight: Array | None = None, reduction: int = MEAN
) -> Array:
    """The slope of -(t·log x + (1 - t)·log(1 - x)): (x - t) / (x·(1 - x)), the denominator at least 1e-12."""
    slope = (x - target) / np.maximum((1 - x) * x, 1e-12)
    scale = 1.0 if weight is None else weight
    return np.asarray(grad_output * scale * slope / (_count(x, target) if reduction == MEAN else 1))


def soft_margin_backward(grad_output: Array, x: Array, target: Array, reduction: int) -> Array:
    """soft_margin_loss_backward: -target·z / (1 + z) with z = exp(-x·target), over the number of cells for a mean.

    >>> soft_margin_backward(np.array(1.0), np.array([0.0]), np.array([-1.0]), 2)
    array([0.5])
    """
    slope = -target / (1 + np.exp(x * target))
    return np.asarray(grad_output * slope / (_count(x, target) if reduction == MEAN else 1))


def soft_margin_backward_error(
    y: Array, u: float, grad_output: Array, x: Array, target: Array, reduction: int
) -> Array:
    """The exponent's rounding is multiplied by the exponent; z may underflow, or overflow, which makes nan."""
    at = np.abs(x * target)
    lost = np.abs(grad_output * target) * smallest(u) * (np.exp(-x * target) < 1)
    return carried((at + FUNCTION + 8) * u * np.abs(y) + lost, np.exp(-x * target) * (1 + np.abs(target)), u)


def multi_margin_backward(
    grad_output: Array, x: Array, target: Array, p: float, margin: float, weight: Array | None = None,
    reduction: int = MEAN,
) -> Array:  # fmt: skip
    """multi_margin_loss_backward: the slope of each open hinge at its wrong class, minus all of them at the right one.

    >>> one, x = np.array(1.0), np.array([[0.0, 0.5, 2.0]])
    >>> multi_margin_backward(one, x, np.array([1]), 1, 1.0, None, 2).round(3).tolist()
    [[0.333, -0.667, 0.333]]

    Args:
        grad_output: Of the loss: one number, or one for each image where nothing is reduced.
        x: Scores, shape (N, C) or (C,).
        target: Labels, shape (N,) or ().
        p: The power of each hinge, 1 or 2.
        margin: What the right class must be ahead by.
        weight: Of each class, (C,), or None.
        reduction: See `MEAN`.
    """
    gaps, scale = margin_gaps(x, target, margin, weight)
    slopes = np.where(gaps > 0, scale * (1.0 if p == 1 else 2 * gaps), 0.0)  # a gap of nan is not open
    return _to_both_classes(slopes, grad_output, x, target, reduction)


def multi_margin_backward_error(
    y: Array, u: float, grad_output: Array, x: Array, target: Array, p: float, margin: float,
    weight: Array | None = None, reduction: int = MEAN,
) -> Array:  # fmt: skip
    """A gap that rounding may close counts with its whole slope. A square's slope moves by twice the gap's error."""
    gaps, scale = margin_gaps(x, target, margin, weight)
    rows = np.atleast_2d(x)
    right = np.abs(np.take_along_axis(rows, target.reshape(-1, 1), 1))
    off = 3 * u * (abs(margin) + np.abs(rows) + right) * np.ones(gaps.shape)
    slopes = np.abs(np.where(gaps > 0, scale * (1.0 if p == 1 else 2 * gaps), 0.0))
    unsure = np.abs(scale) * np.where(np.abs(gaps) <= off, 1.0 if p == 1 else 2 * (np.abs(gaps) + off), 0.0)
    moved = unsure + (0.0 if p == 1 else np.where(gaps + off > 0, 2 * np.abs(scale) * off, 0.0))
    count = rows.shape[1]
    each = moved + gamma(count + 6, u) * (slopes + moved)
    return np.abs(_to_both_classes(each, grad_output, x, target, reduction)) + 2 * u * np.abs(y)


def _to_both_classes(slopes: Array, grad_output: Array, x: Array, target: Array, reduction: int) -> Array:
    """(N, C): the slopes of the wrong classes, 0 at the right one, as the gradient of the scores."""
    passed = slopes.copy()
    np.put_along_axis(passed, target.reshape(-1, 1), -slopes.sum(1, keepdims=True), 1)
    return _of_rows(passed, grad_output, x, reduction)


def multilabel_margin_backward(grad_output: Array, x: Array, target: Array, reduction: int, is_target: Array) -> Array:
    """multilabel_margin_loss_backward: for each open pair minus 1 at the right class, 1 at the wrong one, by classes.

    Args:
        grad_output: Of the loss: one number, or one for each image where nothing is reduced.
        x: Scores, shape (N, C) or (C,).
        target: Right classes, in the shape of `x`; a negative one ends a list.
        reduction: See `MEAN`.
        is_target: 1 where a class is right, in the shape of `x`.
    """
    return _of_rows(_pair_counts(x, target, lambda gaps: gaps > 0, -1.0), grad_output, x, reduction)


def multilabel_margin_backward_error(
    y: Array, u: float, grad_output: Array, x: Array, target: Array, reduction: int, is_target: Array
) -> Array:
    """A pair whose gap rounding may close counts or not; the sum of all that a class may be in, and three roundings."""
    largest = 3 * u * (1 + 2 * np.abs(x).max(initial=0.0))
    unsure = _pair_counts(x, target, lambda gaps: np.abs(gaps) <= largest, 1.0)
    pairs = _pair_counts(x, target, lambda gaps: gaps > -largest, 1.0)
    each = unsure + gamma(np.atleast_2d(x).shape[1] + 4, u) * pairs
    return np.abs(_of_rows(each, grad_output, x, reduction)) + 2 * u * np.abs(y)


def _pair_counts(x: Array, target: Array, counts: Callable[[Array], Array], at_right: float) -> Array:
    """(N, C): of the pairs that count, how many a class is the wrong one in, and `at_right` for each it is right in."""
    rows, (gaps, right) = np.atleast_2d(x), label_gaps(x, target)
    sums = np.zeros(rows.shape)
    for row, gap, mark, targets in zip(sums, gaps, np.atleast_2d(right), np.atleast_2d(target), strict=True):
        counted = counts(gap)
        row[mark == 0] += counted.sum(0)
        np.add.at(row, targets[: len(gap)], at_right * counted.sum(1))
    return sums


def _of_rows(slopes: Array, grad_output: Array, x: Array, reduction: int) -> Array:
    """Slopes (N, C) divided by the classes, and by the images of a mean, times what arrives at each image."""
    arrives = grad_output.reshape(-1, 1) if grad_output.ndim else grad_output
    divisor = max(slopes.shape[1], 1) * (len(slopes) if reduction == MEAN else 1)
    return np.asarray((slopes / max(divisor, 1) * arrives).reshape(x.shape))


def _count(x: Array, target: Array) -> int:
    return int(np.prod(np.broadcast_shapes(x.shape, target.shape)))
