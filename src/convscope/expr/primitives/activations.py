"""Activations: the functions that networks put between their layers.

Sources of the formulas: the documentation of torch.nn.functional; of gelu, Hendrycks and Gimpel 2016; of mish,
Misra 2019; of elu, Clevert and others 2015.
"""

# ruff: noqa: ARG005 - what is called through one table has one signature

import math
from collections.abc import Mapping

import numpy as np

from convscope.expr.primitives.primitive import Primitive, elementary, no_offset
from convscope.typing import Numbers

erf = np.vectorize(math.erf, otypes=[float])
ROOT_2 = math.sqrt(2)
ROOT_2_PI = math.sqrt(2 * math.pi)


def sigmoid(x: Numbers) -> Numbers:
    """1 / (1 + exp(-x)).

    >>> float(sigmoid(0.0))
    0.5
    """
    return 1 / (1 + np.exp(-x))


def gelu(x: Numbers) -> Numbers:
    """x times the standard normal distribution function at x."""
    return x * 0.5 * (1 + erf(x / ROOT_2))


def gelu_slope(x: Numbers) -> Numbers:
    """The derivative of `gelu`."""
    return 0.5 * (1 + erf(x / ROOT_2)) + x * np.exp(-0.5 * x * x) / ROOT_2_PI


def _inner(x: Numbers) -> Numbers:
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _gelu_tanh_slope(x: Numbers) -> Numbers:
    tanh = _inner(x)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


def softplus(x: Numbers, beta: Numbers = 1.0, threshold: Numbers = 20.0) -> Numbers:
    """A smooth relu; x itself beyond the threshold."""
    return np.where(x * beta > threshold, x, np.log1p(np.exp(np.minimum(x * beta, threshold))) / beta)


def _softplus_slopes(x: Numbers, beta: Numbers, threshold: Numbers) -> tuple[Numbers, ...]:
    is_curved = x * beta <= threshold
    return (
        np.where(is_curved, sigmoid(x * beta), 1.0),
        np.where(is_curved, (x * sigmoid(x * beta) - softplus(x, beta, threshold)) / beta, 0.0),
        0.0,
    )


def _mish(x: Numbers) -> Numbers:
    return x * np.tanh(np.logaddexp(0, x))


def _mish_slope(x: Numbers) -> Numbers:
    tanh = np.tanh(np.logaddexp(0, x))
    return tanh + x * (1 - tanh**2) * sigmoid(x)


def _elu(x: Numbers, alpha: Numbers, scale: Numbers, input_scale: Numbers) -> Numbers:
    return np.where(x > 0, x * scale, np.expm1(np.minimum(x, 0) * input_scale) * alpha * scale)


def _elu_slopes(x: Numbers, alpha: Numbers, scale: Numbers, input_scale: Numbers) -> tuple[Numbers, ...]:
    low = -_finite(np.minimum(x, 0))
    grown = np.exp(low * input_scale)
    return (
        np.where(x > 0, scale, alpha * scale * input_scale * grown),
        np.where(x > 0, 0.0, (grown - 1) * scale),
        np.where(x > 0, x, (grown - 1) * alpha),
        np.where(x > 0, 0.0, alpha * scale * low * grown),
    )


def _finite(x: Numbers) -> Numbers:
    """|x|, cut where every exponential of it is 0 or beyond every type: 0 times it stays 0."""
    return np.minimum(np.abs(x), 1e4)


def _times_exp(x: Numbers) -> Numbers:
    """x·exp(x) of a negative number."""
    low = -_finite(x)
    return low * np.exp(low)


def _six(x: Numbers) -> Numbers:
    return np.clip(x + 3, 0, 6)


def _threshold(x: Numbers, threshold: Numbers, value: Numbers) -> Numbers:
    return np.where(x <= threshold, value, x)


def _glu(x: Numbers, gate: Numbers) -> Numbers:
    return x * sigmoid(gate)


ACTIVATIONS: Mapping[str, Primitive] = {
    "relu": elementary(
        "max(0, {x})",
        lambda x: np.maximum(0.0, x),
        slopes=lambda x: (np.where(x > 0, 1.0, 0.0),),
        steepest=1.0,
        offset=no_offset,
    ),
    "leaky_relu": elementary(
        "{x} if {x} > 0, else {slope} × {x}",
        lambda x, slope: np.where(x > 0, x, slope * x),
        roundings=lambda y, x, slope: np.where(x > 0, 0, 2 * y),
        slopes=lambda x, slope: (np.where(x > 0, 1.0, slope), np.where(x > 0, 0.0, x)),
        offset=no_offset,
        branch=lambda x, slope: "{x}" if x > 0 else "{slope} × {x}",
    ),
    "threshold": elementary(
        "{x} if {x} > {threshold}, else {value}",
        _threshold,
        slopes=lambda x, threshold, value: (np.where(x > threshold, 1.0, 0.0), 0.0, np.where(x > threshold, 0.0, 1.0)),
        offset=lambda varies, x, threshold, value: np.where(x > threshold, 0.0, value),
        branch=lambda x, threshold, value: "{x}" if x > threshold else "{value}",
    ),
    "hardshrink": elementary(
        "{x} if |{x}| > {lambd}, else 0",
        lambda x, lambd: np.where(np.abs(x) <= lambd, 0.0, x),
        slopes=lambda x, lambd: (np.where(np.abs(x) > lambd, 1.0, 0.0), 0.0),
        offset=no_offset,
        branch=lambda x, lambd: "{x}" if abs(x) > lambd else "0",
    ),
    "softshrink": elementary(
        "{x} − {lambd} if {x} > {lambd}, {x} + {lambd} if {x} < −{lambd}, else 0",
        lambda x, lambd: np.where(np.abs(x) <= lambd, 0.0 * x, x - np.sign(x) * lambd),
        roundings=1,
        slopes=lambda x, lambd: (np.where(np.abs(x) > lambd, 1.0, 0.0), np.where(np.abs(x) > lambd, -np.sign(x), 0.0)),
        offset=lambda varies, x, lambd: np.where(np.abs(x) > lambd, -np.sign(x) * lambd, 0.0),
        branch=lambda x, lambd: "{x} − {lambd}" if x > lambd else "{x} + {lambd}" if x < -lambd else "0",
    ),
    "elu": elementary(
        "{scale} × {x} if {x} > 0, else {scale} × {alpha} × (exp({input_scale} × {x}) − 1)",
        _elu,
        roundings=12,
        slopes=_elu_slopes,
        branch=lambda x, *_: "{scale} × {x}" if x > 0 else "{scale} × {alpha} × (exp({input_scale} × {x}) − 1)",
    ),
    "celu": elementary(
        "{x} if {x} > 0, else {alpha} × (exp({x} ÷ {alpha}) − 1)",
        lambda x, alpha: np.where(x > 0, x, np.expm1(np.minimum(x, 0) / alpha) * alpha),
        roundings=12,
        slopes=lambda x, alpha: (
            np.where(x > 0, 1.0, np.exp(np.minimum(x, 0) / alpha)),
            np.where(x > 0, 0.0, np.expm1(np.minimum(x, 0) / alpha) - _times_exp(np.minimum(x, 0) / alpha)),
        ),
        branch=lambda x, alpha: "{x}" if x > 0 else "{alpha} × (exp({x} ÷ {alpha}) − 1)",
    ),
    "hardsigmoid": elementary(
        "min(max({x} + 3, 0), 6) ÷ 6",
        lambda x: _six(x) / 6,
        roundings=lambda y, x: 4 * np.clip(y, 0, 1),
        slopes=lambda x: (np.where(np.abs(x) < 3, 1 / 6, 0.0),),
        offset=lambda varies, x: np.where(np.abs(x) < 3, 0.5, np.where(x > 0, 1.0, 0.0)),
    ),
    "hardswish": elementary(
        "{x} × min(max({x} + 3, 0), 6) ÷ 6",
        lambda x: x * _six(x) / 6,
        roundings=6,
        way=lambda x: x * _six(x),
        slopes=lambda x: (np.where(x <= -3, 0.0, np.where(x < 3, x / 3 + 0.5, 1.0)),),
    ),
    "silu": elementary(
        "{x} ÷ (1 + exp(−{x}))",
        lambda x: x * sigmoid(x),
        roundings=10,
        slopes=lambda x: (sigmoid(x) * (1 + x * (1 - sigmoid(x))),),
        lost=lambda x: x,
    ),
    "mish": elementary(
        "{x} × tanh(log(1 + exp({x})))",
        _mish,
        roundings=lambda y, x: y * (24 + _finite(x)),
        slopes=lambda x: (_mish_slope(x),),
        lost=lambda x: x,
    ),
    "softplus": elementary(
        "log(1 + exp({beta} × {x})) ÷ {beta} if {beta} × {x} ≤ {threshold}, else {x}",
        softplus,
        roundings=lambda y, x, beta, threshold: y * (16 + _finite(x * beta)) * (x * beta <= threshold),
        slopes=_softplus_slopes,
        branch=lambda x, beta, threshold: "{x}" if x * beta > threshold else "log(1 + exp({beta} × {x})) ÷ {beta}",
    ),
    "log_sigmoid": elementary(
        "−log(1 + exp(−{x}))",
        lambda x: -np.logaddexp(0, -x),
        roundings=lambda y, x: y * (16 + _finite(x)),
        slopes=lambda x: (sigmoid(-x),),
    ),
    "gelu": elementary(
        "{x} × 0.5 × (1 + erf({x} ÷ √2))",
        gelu,
        roundings=lambda y, x: 8 * x,
        slopes=lambda x: (gelu_slope(x),),
        steepest=1.13,
    ),
    "gelu_tanh": elementary(
        "{x} × 0.5 × (1 + tanh(√(2 ÷ π) × ({x} + 0.044715 × {x}³)))",
        lambda x: x * 0.5 * (1 + _inner(x)),
        roundings=lambda y, x: 12 * x,
        slopes=lambda x: (_gelu_tanh_slope(x),),
        steepest=1.13,
    ),
    "sigmoid": elementary(
        "1 ÷ (1 + exp(−{x}))",
        sigmoid,
        roundings=10,
        slopes=lambda x: (sigmoid(x) * sigmoid(-x),),
    ),
    "tanh": elementary("tanh({x})", np.tanh, roundings=6, slopes=lambda x: (1 - np.tanh(x) ** 2,)),
    "glu": elementary(
        "{x} ÷ (1 + exp(−{gate}))",
        _glu,
        roundings=12,
        slopes=lambda x, gate: (sigmoid(gate), x * sigmoid(gate) * sigmoid(-gate)),
        lost=lambda x, gate: x,
    ),
}
