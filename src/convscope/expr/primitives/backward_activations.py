"""Backward: the gradients of activations.

Each is the incoming gradient times the slope of the forward function at the recorded number. Slopes are written as the
kernels calculate them, from the function's input x or from its result y.
"""

# ruff: noqa: ARG005 - what is called through one table has one signature

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from convscope.expr.precision import Precision
from convscope.expr.primitives.activations import erf, sigmoid
from convscope.expr.primitives.primitive import Primitive, elementary
from convscope.typing import Numbers

_BELL = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715
SIXTH = float(np.float32(1 / 6))
"""The factor that PyTorch uses in the gradient of hardsigmoid, in float64 too."""
FAR = 1e4
"""exp of minus this is 0 in every type: products with it stay numbers."""


def _times(
    slope_formula: str,
    slope: Callable[..., Numbers],
    *,
    roundings: Callable[..., Numbers],
    bend: Callable[..., Numbers] | None = None,
    branch: Callable[..., str] | None = None,
    steep: Callable[..., Numbers] = lambda *_: 1.0,
) -> Primitive:
    """`{grad}` times a slope, whose own slope is `bend`.

    The roundings are those of the slope, absolute, and one more for the product. Where the exponential in a slope
    overflows, the slope loses its part of it: the smallest number, times `steep`.
    """

    def value(grad: Numbers, *rest: Numbers) -> Numbers:
        return grad * slope(*rest)

    def rounding_count(result: Numbers, grad: Numbers, *rest: Numbers) -> Numbers:
        return np.abs(result) + np.abs(grad) * roundings(*rest)

    def lost(grad: Numbers, *rest: Numbers) -> Numbers:
        return np.where(np.equal(grad, 0), 0.0, 1.0 + np.abs(grad) * np.minimum(steep(*rest), FAR))

    def slopes(grad: Numbers, x: Numbers) -> tuple[Numbers, Numbers]:
        assert bend is not None
        return slope(x), grad * bend(x)

    formula, known_slopes = f"{{grad}} × {slope_formula}", None if bend is None else slopes
    return elementary(formula, value, roundings=rounding_count, branch=branch, lost=lost, slopes=known_slopes)


def _kept(formula: str, keeps: Callable[..., Numbers], *, branch: Callable[..., str], nan: bool = False) -> Primitive:
    """The gradient itself or 0, exact; with `nan`, kernels differ if x is nan."""
    return elementary(
        formula,
        lambda grad, *rest: np.where(keeps(*rest), grad, 0.0),
        roundings=lambda f, grad, x, *rest: np.where(np.isnan(x) & nan, np.inf, 0.0),
        slopes=lambda grad, *rest: (np.where(keeps(*rest), 1.0, 0.0), *[0.0] * len(rest)),
        offset=lambda varies, *_: None if any(varies[1:]) else 0.0,
        branch=branch,
    )


def _silu(x: Numbers) -> Numbers:
    share = sigmoid(x)
    return share * (1 + x * (1 - share))


def _gelu(x: Numbers) -> Numbers:
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu_tanh(x: Numbers) -> Numbers:
    tanh = np.tanh(_BELL * (x + _GELU_CUBIC * x**3))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * _BELL * (1 + 3 * _GELU_CUBIC * x**2)


def _mish(x: Numbers) -> Numbers:
    tanh = np.tanh(np.logaddexp(0, x))
    return tanh + x * sigmoid(x) * (1 - tanh**2)


def _elu_slope(x: Numbers, alpha: Numbers, scale: Numbers, input_scale: Numbers) -> Numbers:
    curved_slope = alpha * scale * input_scale * np.exp(np.minimum(x, 0) * input_scale)
    return np.where(np.less_equal(x, 0), curved_slope, scale)


def _elu_slope_of_result(y: Numbers, alpha: Numbers, scale: Numbers, input_scale: Numbers) -> Numbers:
    return np.where(np.less_equal(y, 0), input_scale * (y + alpha * scale), scale)


def _logit(grad: Numbers, x: Numbers, eps: Numbers) -> Numbers:
    """With a limit that is not negative, 0 outside it; without one, nan where the logit is."""
    outside = np.where(np.less(eps, 0), np.where(np.less(x, 0) | np.greater(x, 1), np.nan, 1.0), 1.0 * _within(x, eps))
    edge = np.where(np.equal(x, 0) | np.equal(x, 1), np.inf, np.divide(1.0, x * (1 - x)))
    return np.where(np.equal(outside, 0), 0.0, grad * outside * edge)


def _within(x: Numbers, eps: Numbers) -> Numbers:
    return np.greater_equal(x, eps) & np.less_equal(x, 1 - np.asarray(eps))


def _logit_error(precision: Precision, f: Numbers, values: Sequence[Numbers], errors: Sequence[Numbers]) -> Numbers:  # noqa: ARG001
    """A difference, a product and a quotient; at a limit, which is rounded, and of nan either branch."""
    _, x, eps = values
    limit = 2 * precision.sum
    near = np.greater_equal(eps, 0) & (np.minimum(np.abs(x - eps), np.abs(x - (1 - np.asarray(eps)))) <= limit)
    near = near & (np.asarray(x) != 0) & (np.asarray(x) != 1) | (np.isnan(x) & np.greater_equal(eps, 0))
    return np.where(near, np.inf, 4 * precision.sum * np.abs(f) + precision.tiny * (np.asarray(f) != 0))


def _logit_branch(_grad: Numbers, x: Numbers, eps: Numbers) -> str:
    return "0, beyond the limit" if eps >= 0 and not _within(x, eps) else "{grad} ÷ ({x} × (1 − {x}))"


def _hardswish(grad: Numbers, x: Numbers) -> Numbers:
    return np.where(np.less_equal(x, -3), 0.0, np.where(np.less(x, 3), grad * (x / 3 + 0.5), grad))


BACKWARD_ACTIVATIONS: Mapping[str, Primitive] = {
    "pass_above": _kept(
        "{grad} if {x} > {threshold}, else 0",
        lambda x, threshold: ~np.less_equal(x, threshold),
        branch=lambda grad, x, threshold: "0" if x <= threshold else "{grad}",
    ),
    "pass_from": _kept(
        "{grad} if {x} ≥ {threshold}, else 0",
        lambda x, threshold: ~np.less(x, threshold),
        branch=lambda grad, x, threshold: "0" if x < threshold else "{grad}",
    ),
    "pass_between": _kept(
        "{grad} if {low} < {x} < {high}, else 0",
        lambda x, low, high: np.greater(x, low) & np.less(x, high),
        branch=lambda grad, x, low, high: "{grad}" if low < x < high else "0",
        nan=True,
    ),
    "pass_outside": _kept(
        "{grad} if |{x}| > {lambd}, else 0",
        lambda x, lambd: np.greater(np.abs(x), lambd),
        branch=lambda grad, x, lambd: "{grad}" if abs(x) > lambd else "0",
        nan=True,
    ),
    "leaky_relu_backward": elementary(
        "{grad} if {x} > 0, else {slope} × {grad}",
        lambda grad, x, slope: np.where(x > 0, grad, slope * grad),
        roundings=lambda f, grad, x, slope: np.where(x > 0, 0, 2 * f),
        slopes=lambda grad, x, slope: (np.where(x > 0, 1.0, slope), 0.0, np.where(x > 0, 0.0, grad)),
        branch=lambda grad, x, slope: "{grad}" if x > 0 else "{slope} × {grad}",
    ),
    "prelu_slope_backward": elementary(
        "0 if {x} > 0, else {grad} × {x}",
        lambda grad, x: np.where(x > 0, 0.0, grad * x),
        roundings=1,
        branch=lambda grad, x: "0" if x > 0 else "{grad} × {x}",
    ),
    "hardsigmoid_backward": elementary(
        "{grad} ÷ 6 if −3 < {x} < 3, else 0",
        lambda grad, x: np.where((x > -3) & (x < 3), grad * SIXTH, 0.0),
        roundings=2,
        branch=lambda grad, x: "{grad} ÷ 6" if -3 < x < 3 else "0",
    ),
    "hardswish_backward": elementary(
        "0 if {x} ≤ −3, {grad} × ({x} ÷ 3 + 0.5) if {x} < 3, else {grad}",
        _hardswish,
        roundings=lambda f, grad, x: np.where(np.abs(x) < 3, np.abs(f) + 2 * np.abs(grad) * (np.abs(x) + 0.5), 0.0),
        branch=lambda grad, x: "0" if x <= -3 else "{grad} × ({x} ÷ 3 + 0.5)" if x < 3 else "{grad}",
    ),
    "sigmoid_backward": _times(
        "{y} × (1 − {y})", lambda y: y * (1 - y), roundings=lambda y: 3 * np.abs(y * (1 - y)), bend=lambda y: 1 - 2 * y
    ),
    "tanh_backward": _times(
        "(1 − {y}²)", lambda y: 1 - y * y, roundings=lambda y: y * y + np.abs(1 - y * y), bend=lambda y: -2 * y
    ),
    "silu_backward": _times(
        "σ({x}) × (1 + {x} × (1 − σ({x})))",
        _silu,
        steep=lambda x: 1 + np.abs(x),
        roundings=lambda x: 14 * sigmoid(x) * (1 + 2 * np.minimum(np.abs(x), FAR) * np.minimum(1, sigmoid(-x) + 0.5)),
    ),
    "gelu_backward": _times(
        "the slope at {x} of x × 0.5 × (1 + erf(x ÷ √2))",
        _gelu,
        roundings=lambda x: 8 + np.minimum(np.abs(x), FAR) * np.exp(-0.5 * np.clip(x, -FAR, FAR) ** 2) * (8 + x * x),
    ),
    "gelu_tanh_backward": _times(
        "the slope at {x} of gelu, approximated by tanh",
        _gelu_tanh,
        roundings=lambda x: 12 + 40 * np.minimum(np.abs(x), 8) * (np.abs(x) < 8),
    ),
    "mish_backward": _times(
        "the slope at {x} of x × tanh(log(1 + exp(x)))",
        _mish,
        steep=lambda x: 1 + np.abs(x),
        roundings=lambda x: 30 * np.tanh(np.logaddexp(0, x)) + 30 * np.minimum(np.abs(x), FAR) * sigmoid(x),
    ),
    "softplus_backward": _times(
        "(1 ÷ (1 + exp(−{beta} × {x})) if {beta} × {x} ≤ {threshold}, else 1)",
        lambda x, beta, threshold: np.where(x * beta > threshold, 1.0, sigmoid(x * beta)),
        roundings=lambda x, beta, threshold: sigmoid(x * beta) * (12 + 2 * np.minimum(np.abs(x * beta), FAR)),
        branch=lambda grad, x, beta, threshold: (
            "{grad}" if x * beta > threshold else "{grad} ÷ (1 + exp(−{beta} × {x}))"
        ),
    ),
    "log_sigmoid_backward": _times(
        "1 ÷ (1 + exp({x}))", lambda x: sigmoid(-x), roundings=lambda x: 24 * np.where(x < 0, 1.0, sigmoid(-x))
    ),
    "elu_backward": _times(
        "({scale} if {x} > 0, else {scale} × {alpha} × {input_scale} × exp({input_scale} × {x}))",
        _elu_slope,
        roundings=lambda x, alpha, scale, input_scale: (
            np.abs(_elu_slope(x, alpha, scale, input_scale))
            * np.where(x > 0, 1, 12 + 4 * np.minimum(np.abs(x * input_scale), FAR))
        ),
        branch=lambda grad, x, *_: (
            "{grad} × {scale}" if x > 0 else "{grad} × {scale} × {alpha} × {input_scale} × exp({input_scale} × {x})"
        ),
    ),
    "elu_backward_of_result": _times(
        "({scale} if {y} > 0, else {input_scale} × ({y} + {alpha} × {scale}))",
        _elu_slope_of_result,
        roundings=lambda y, alpha, scale, input_scale: np.where(
            y > 0, np.abs(scale), 4 * np.abs(input_scale) * (np.abs(y) + np.abs(alpha * scale))
        ),
        branch=lambda grad, y, *_: (
            "{grad} × {scale}" if y > 0 else "{grad} × {input_scale} × ({y} + {alpha} × {scale})"
        ),
    ),
    "glu_backward": _times("1 ÷ (1 + exp(−{gate}))", sigmoid, roundings=lambda gate: 12 * sigmoid(gate)),
    "glu_gate_backward": _times(
        "{x} × σ({gate}) × (1 − σ({gate}))",
        lambda x, gate: x * sigmoid(gate) * sigmoid(-gate),
        steep=lambda x, gate: np.abs(x),
        roundings=lambda x, gate: 20 * np.abs(x) * sigmoid(gate),
    ),
    "logit_backward": Primitive("{grad} ÷ ({x} × (1 − {x}))", _logit, _logit_error, branch=_logit_branch, many=True),
    "dropout_backward": elementary(
        "{grad} × {mask} × {scale}",
        lambda grad, mask, scale: np.where(mask, grad * scale, 0.0 * grad),
        roundings=3,
    ),
}
