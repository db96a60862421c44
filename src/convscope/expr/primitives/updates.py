"""Updates: the parts of an optimizer step for one parameter: decay, running means, directions, the step itself."""

# ruff: noqa: ARG005 - what is called through one table has one signature

import math
from collections.abc import Mapping, Sequence

import numpy as np

from convscope.expr.precision import Precision
from convscope.expr.primitives.primitive import Primitive, elementary
from convscope.typing import Numbers


def _root_error(square: float, error: float) -> float:
    """How far the root of a number that is inexact by `error` may be off, near zero too."""
    return min(error / (2 * math.sqrt(square)), math.sqrt(error)) if square > 0 else math.sqrt(error)


def _scaled(gradient: Numbers, square: Numbers, eps: Numbers) -> Numbers:
    return gradient / (np.sqrt(square) + eps)


def _scaled_error(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    gradient, square, eps = map(float, values)
    size = math.sqrt(max(square, 0.0)) + eps
    root_error = _root_error(max(square, 0.0), float(errors[1])) + float(errors[2]) + 2 * precision.sum * size
    if not size > root_error:
        return math.inf if gradient or errors[0] else precision.tiny
    rounding = 6 * precision.sum * abs(result) + precision.tiny
    return float(rounding + 1.001 * (float(errors[0]) + abs(result) * root_error) / (size - root_error))


def _ratio(mean_square_step: Numbers, square: Numbers, eps: Numbers, gradient: Numbers) -> Numbers:
    return np.sqrt(mean_square_step + eps) / np.sqrt(square + eps) * gradient


UPDATES: Mapping[str, Primitive] = {
    "descend": elementary(
        "{before} − {lr} × {direction}",
        lambda before, lr, direction: before - lr * direction,
        roundings=lambda f, before, lr, direction: 2 * np.abs(f) + 4 * np.abs(lr * direction),
        slopes=lambda before, lr, direction: (1.0, -direction, -lr),
    ),
    "decay": elementary(
        "{before} × (1 − {lr} × {weight_decay})",
        lambda before, lr, weight_decay: before * (1 - lr * weight_decay),
        roundings=lambda f, before, lr, weight_decay: 3 * np.abs(before),
        slopes=lambda before, lr, weight_decay: (1 - lr * weight_decay, -before * weight_decay, -before * lr),
    ),
    "with_decay": elementary(
        "{gradient} + {weight_decay} × {before}",
        lambda gradient, weight_decay, before: gradient + weight_decay * before,
        roundings=lambda f, gradient, weight_decay, before: np.abs(f) + 2 * np.abs(weight_decay * before),
        slopes=lambda gradient, weight_decay, before: (1.0, before, weight_decay),
    ),
    "momentum": elementary(
        "{momentum} × {before} + (1 − {dampening}) × {gradient}",
        lambda momentum, before, dampening, gradient: momentum * before + (1 - dampening) * gradient,
        roundings=lambda f, m, before, dampening, gradient: 2 * np.abs(m * before) + 4 * np.abs(gradient) + np.abs(f),
        slopes=lambda m, before, dampening, gradient: (before, m, -gradient, 1 - dampening),
    ),
    "look_ahead": elementary(
        "{gradient} + {momentum} × {velocity}",
        lambda gradient, momentum, velocity: gradient + momentum * velocity,
        roundings=lambda f, gradient, momentum, velocity: np.abs(f) + 2 * np.abs(momentum * velocity),
        slopes=lambda gradient, momentum, velocity: (1.0, velocity, momentum),
    ),
    "running_mean": elementary(
        "{beta} × {before} + (1 − {beta}) × {gradient}",
        lambda beta, before, gradient: beta * before + (1 - beta) * gradient,
        roundings=lambda f, beta, before, gradient: (
            2 * np.abs(before) + 4 * (1 - beta) * (np.abs(before) + np.abs(gradient))
        ),
        slopes=lambda beta, before, gradient: (before - gradient, beta, 1 - beta),
    ),
    "moving_average": elementary(
        "(1 − {momentum}) × {before} + {momentum} × {batch}",
        lambda momentum, before, batch: (1 - momentum) * before + momentum * batch,
        roundings=lambda f, momentum, before, batch: (
            np.abs(f)
            + 4 * np.abs((1 - momentum) * before)
            + 4 * np.abs(momentum * batch)
            + 2 * np.abs(momentum * before)
        ),  # the last term: the momentum itself is rounded, and 1 − momentum by as much
        slopes=lambda momentum, before, batch: (batch - before, 1 - momentum, momentum),
    ),
    "running_square": elementary(
        "{beta} × {before} + (1 − {beta}) × {gradient}²",
        lambda beta, before, gradient: beta * before + (1 - beta) * gradient * gradient,
        roundings=8,
        slopes=lambda beta, before, gradient: (before - gradient**2, beta, 2 * (1 - beta) * gradient),
    ),
    "unbiased": elementary(
        "{mean} ÷ (1 − {beta}^{step})",
        lambda mean, beta, step: mean / (1 - beta**step),
        roundings=4,
        slopes=lambda mean, beta, step: (1 / (1 - beta**step), 0.0, 0.0),
    ),
    "centred_square": elementary(
        "{square} − {mean}²",
        lambda square, mean: square - mean * mean,
        roundings=lambda f, square, mean: np.abs(f) + 3 * mean * mean,
        slopes=lambda square, mean: (1.0, -2 * mean),
    ),
    "scaled": Primitive("{gradient} ÷ (√{square} + {eps})", _scaled, _scaled_error),
    "ratio_of_roots": elementary(
        "√({moved} + {eps}) ÷ √({square} + {eps}) × {gradient}",
        _ratio,
        roundings=10,
        slopes=lambda moved, square, eps, gradient: (
            _ratio(moved, square, eps, gradient) / (2 * (moved + eps)),
            _ratio(moved, square, eps, gradient) / (2 * (square + eps)),
            0.0,
            np.sqrt(moved + eps) / np.sqrt(square + eps),
        ),
    ),
}
