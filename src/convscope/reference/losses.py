"""Losses in plain NumPy: the negative log-likelihood of the labels, the mean squared error. Knows roundoff, NumPy."""

from typing import Any

import numpy as np

from convscope.reference.roundoff import Array, gamma

NONE, MEAN = 0, 1


def nll_loss(
    x: Array, target: Array, weight: Array | None = None, reduction: int = MEAN, ignore_index: int = -100
) -> tuple[Array, Array]:
    """Minus the label's log-probability, times its class weight; and the sum of the weights.

    >>> float(nll_loss(np.log([[0.25, 0.75]]), np.array([1]), None, 1, -100)[0].round(4))
    0.2877

    Args:
        x: Log-probabilities, shape (N, classes, ...) or (classes,).
        target: Labels, shape (N, ...) or ().
        weight: One number for each class, or None.
        reduction: 0 each by itself, 1 their mean, 2 their sum.
        ignore_index: The label that does not count.
    """
    losses, weights = _losses(x, target, weight, ignore_index)
    total = weights.sum()
    if reduction == NONE:
        return losses, np.zeros(())
    return (losses.sum() / total if reduction == MEAN else losses.sum()), total


def nll_loss_error(
    _y: Any,
    u: float,
    x: Array,
    target: Array,
    weight: Array | None = None,
    reduction: int = MEAN,
    ignore_index: int = -100,
) -> tuple[Any, Any]:
    """A sum of T products, and where it is divided the sum of T weights too."""
    losses, weights = _losses(x, target, weight, ignore_index)
    count = int(np.count_nonzero(weights))
    if reduction == NONE:
        return u * np.abs(losses) * (weight is not None), 0.0
    size, total = np.abs(losses).sum(), np.abs(weights).sum()
    of_total = gamma(count, u) if weight is not None else 0.0
    relative = gamma(count + 2, u) + of_total
    return size * relative / (total if reduction == MEAN and total else 1.0), total * of_total


def _losses(x: Array, target: Array, weight: Array | None, ignore_index: int) -> tuple[Array, Array]:
    """The loss of each label and its weight."""
    axis = 1 if x.ndim > 1 else 0
    counts = target != ignore_index
    safe = np.where(counts, target, 0)
    chosen = np.take_along_axis(x, np.expand_dims(safe, axis), axis).squeeze(axis)
    weights = np.where(counts, 1.0 if weight is None else np.asarray(weight)[safe], 0.0)
    return np.where(counts, -chosen * weights, 0.0), weights


def mse_loss(x: Array, target: Array, reduction: int = MEAN) -> Array:
    """The squares of the differences, or their mean or sum.

    >>> float(mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]), 1))
    2.0
    """
    squares = (x - target) ** 2
    return np.asarray(squares if reduction == NONE else squares.mean() if reduction == MEAN else squares.sum())


def mse_loss_error(_y: Any, u: float, x: Array, target: Array, reduction: int = MEAN) -> Any:
    """Two roundings of each difference, one of each square, and the sum's."""
    squares = (x - target) ** 2
    if reduction == NONE:
        return 4 * u * squares
    return gamma(squares.size + 5, u) * (squares.mean() if reduction == MEAN else squares.sum())
