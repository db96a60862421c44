"""Backward: the gradients of losses, by a prediction x; count is what the loss was divided by."""

# ruff: noqa: ARG005 - what is called through one table has one signature

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.expr.precision import Precision
from convscope.expr.primitives.primitive import Primitive, elementary
from convscope.typing import Numbers


def _smooth_l1(grad: Numbers, x: Numbers, target: Numbers, beta: Numbers, count: Numbers) -> Numbers:
    difference = x - target
    return (
        grad
        * np.where(difference <= -beta, -1.0, np.where(difference >= beta, 1.0, np.divide(difference, beta)))
        / count
    )


def _soft_margin(grad: Numbers, x: Numbers, target: Numbers, count: Numbers) -> Numbers:
    return np.divide(-grad * target, 1 + np.exp(x * target)) / count


def _soft_margin_error(
    precision: Precision, result: Numbers, values: Sequence[Numbers], _errors: Sequence[Numbers]
) -> Numbers:
    """The exponent's rounding, an exponential and 8 more; kernels divide exp(-x·target), which may overflow."""
    grad, x, target, _ = values
    grown = np.exp(-x * target)
    near = (np.abs(x * target) + 16) * precision.sum * np.abs(result)
    lost = np.abs(grad * target) * precision.tiny * (grown < 1) + precision.tiny
    return np.where(grown * (1 + np.abs(target)) < precision.room, near + lost, np.inf)


def _spread(x: Numbers) -> Numbers:
    return np.maximum(x * (1 - x), 1e-12)


BACKWARD_LOSSES: Mapping[str, Primitive] = {
    "mse_backward": elementary(
        "{grad} × 2 × ({x} − {target}) ÷ {count}",
        lambda grad, x, target, count: grad * 2 * (x - target) / count,
        roundings=5,
        slopes=lambda grad, x, target, count: (
            2 * (x - target) / count,
            2 * grad / count,
            -2 * grad / count,
            -grad * 2 * (x - target) / (count * count),
        ),
    ),
    "smooth_l1_backward": elementary(
        "{grad} × min(max(({x} − {target}) ÷ {beta}, −1), 1) ÷ {count}",
        _smooth_l1,
        roundings=8,
    ),
    "huber_backward": elementary(
        "{grad} × min(max({x} − {target}, −{delta}), {delta}) ÷ {count}",
        lambda grad, x, target, delta, count: grad * np.clip(x - target, -delta, delta) / count,
        roundings=8,
    ),
    "binary_cross_entropy_backward": elementary(
        "{grad} × {weight} × ({x} − {target}) ÷ ({x} × (1 − {x})) ÷ {count}",
        lambda grad, x, target, weight, count: grad * weight * (x - target) / _spread(x) / count,
        roundings=10,
    ),
    "soft_margin_backward": Primitive(
        "−{grad} × {target} ÷ (1 + exp({x} × {target})) ÷ {count}", _soft_margin, _soft_margin_error, many=True
    ),
    "nll_backward": elementary(
        "−{grad} × {weight} ÷ {total}",
        lambda grad, weight, total: -grad * weight / total,
        roundings=4,
        slopes=lambda grad, weight, total: (-weight / total, -grad / total, grad * weight / (total * total)),
    ),
    "nll_backward_at": elementary(
        "−{grad} ÷ {count} if {label} = {index}, else 0",
        lambda grad, count, label, index: np.where(label == index, -grad / count, 0.0),
        roundings=4,
        slopes=lambda grad, count, label, index: (
            np.where(label == index, -1 / count, 0.0),
            np.where(label == index, grad / (count * count), 0.0),
            0.0,
            0.0,
        ),
        branch=lambda grad, count, label, index: "−{grad} ÷ {count}" if label == index else "0",
    ),
}
