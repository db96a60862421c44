"""Functions of one or two numbers that losses, filters and statistics use: hypot, logit, xlogy, copysign, logaddexp.

Bounds in roundings (units of u) of a magnitude: a call of the C library or of Sleef counts 4, see `elementary`.
"""

# ruff: noqa: ARG005 - what is called through one table has one signature

import math
from collections.abc import Callable, Mapping

import numpy as np

from convscope.expr.primitives.primitive import Primitive, elementary, no_offset
from convscope.typing import Numbers

ONE_BY_LOG_2 = 1 / math.log(2.0)


def _truth(formula: str, value: Callable[[Numbers], Numbers]) -> Primitive:
    return elementary(f"1 if {{x}} {formula}, else 0", lambda x: 1.0 * value(x))


def _scaled(formula: str, factor: float) -> Primitive:
    """A product with a constant, which the kernel rounds too."""
    return elementary(formula, lambda x: x * factor, roundings=3, slopes=lambda x: (factor,), offset=no_offset)


def _sinc(x: Numbers) -> Numbers:
    return np.where(x == 0, 1.0, np.sin(np.pi * x) / np.where(x == 0, 1.0, np.pi * x))


def _sinc_slope(x: Numbers) -> Numbers:
    safe = np.where(x == 0, 1.0, x)
    return np.where(x == 0, 0.0, (np.cos(np.pi * x) - _sinc(safe)) / safe)


def _middle(x: Numbers, eps: Numbers) -> Numbers:
    return np.minimum(np.maximum(x, eps), 1 - eps)


def _logit(x: Numbers) -> Numbers:
    return np.log(np.divide(x, 1 - x))


def _logit_roundings(y: Numbers, x: Numbers, eps: Numbers = 0.0) -> Numbers:
    """Difference, quotient and logarithm; a limit that is written moves by one rounding, a logit by 1 ÷ eps of it."""
    limited = (x < eps) | (x > 1 - eps)
    return 4 + 4 * np.abs(y) + np.where(limited & (eps > 0), 1.2 / np.where(eps > 0, eps, 1.0), 0.0)


def _less(x: Numbers, y: Numbers) -> Numbers:
    """How far the smaller of two is below the larger; 0 for the same infinity twice."""
    return np.where(x == y, 0.0, np.abs(x - y))


def _log_add(base: Callable[[Numbers, Numbers], Numbers], scale: float) -> Primitive:
    """m + log(1 + exp(−d)), m the larger and d the distance.

    The distance is rounded once, which exp turns into d·exp(−d) < 0.4 of u; exp and log1p count 4 each, and the sum 1.
    """

    def slopes(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        share = 1 / (1 + np.exp((y - x) / scale))
        return share, 1 / (1 + np.exp((x - y) / scale))

    word = "exp" if scale == 1 else "2^"
    return elementary(
        f"log({word}({{x}}) + {word}({{y}}))" if scale == 1 else f"log₂({word}{{x}} + {word}{{y}})",
        base,
        roundings=lambda f, x, y: np.abs(f) + 14 * np.exp(-np.minimum(_less(x, y), 700.0) / scale),
        slopes=slopes,
    )


def _xlogy(x: Numbers, y: Numbers) -> Numbers:
    return np.where(np.isnan(y), np.nan, np.where(x == 0, 0.0, x * np.log(y)))


def _xlog1py(x: Numbers, y: Numbers) -> Numbers:
    return np.where(np.isnan(y), np.nan, np.where(x == 0, 0.0, x * np.log1p(y)))


def _first_slope(
    choose: Callable[[Numbers, Numbers], Numbers],
) -> Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]:
    """fmax and fmin give a tie to the first, and a number beside nan to that number."""

    def slopes(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        first = 1.0 * (choose(x, y) | np.isnan(y))
        return first, 1.0 - first

    return slopes


def _finite_or(x: Numbers, nan: Numbers, posinf: Numbers, neginf: Numbers) -> Numbers:
    return np.where(np.isnan(x), nan, np.where(np.isposinf(x), posinf, np.where(np.isneginf(x), neginf, x)))


def _power_of_two(y: Numbers) -> Numbers:
    return np.exp2(np.asarray(y, np.float64))


FUNCTIONS: Mapping[str, Primitive] = {
    "acosh": elementary("arcosh({x})", np.arccosh, roundings=4, slopes=lambda x: (np.divide(1.0, np.sqrt(x * x - 1)),)),
    "asinh": elementary("arsinh({x})", np.arcsinh, roundings=4, slopes=lambda x: (1 / np.sqrt(x * x + 1),)),
    "atanh": elementary("artanh({x})", np.arctanh, roundings=4, slopes=lambda x: (np.divide(1.0, 1 - x * x),)),
    "deg2rad": _scaled("{x} × π ÷ 180", math.pi / 180),
    "rad2deg": _scaled("{x} × 180 ÷ π", 180 / math.pi),
    "sinc": elementary(
        "sin(π × {x}) ÷ (π × {x})",
        _sinc,
        roundings=lambda y, x: np.where(x == 0, 0.0, 8 * np.abs(y) + 5),
        slopes=lambda x: (_sinc_slope(x),),
        branch=lambda x: "1" if x == 0 else "sin(π × {x}) ÷ (π × {x})",
    ),
    "logit": elementary(
        "log({x} ÷ (1 − {x}))",
        _logit,
        roundings=_logit_roundings,
        slopes=lambda x: (np.divide(1.0, x * (1 - x)),),
    ),
    "logit_within": elementary(
        "log(m ÷ (1 − m)), m = {x}, at least {eps} and at most 1 − {eps}",
        lambda x, eps: _logit(_middle(x, eps)),
        roundings=_logit_roundings,
        slopes=lambda x, eps: (np.where(x == _middle(x, eps), np.divide(1.0, x * (1 - x)), 0.0), 0.0),
    ),
    "nan_to_num": elementary(
        "{x}; {nan}, {posinf}, {neginf} for nan and infinities",
        _finite_or,
        slopes=lambda x, *_: (1.0 * np.isfinite(x), 1.0 * np.isnan(x), 1.0 * np.isposinf(x), 1.0 * np.isneginf(x)),
        offset=lambda varies, x, *limits: np.where(np.isfinite(x), 0.0, _finite_or(x, *limits)),
        branch=lambda x, *_: (
            "{nan}" if np.isnan(x) else "{x}" if np.isfinite(x) else "{posinf}" if x > 0 else "{neginf}"
        ),
    ),
    "angle": elementary("π if {x} < 0, else 0", lambda x: np.where(np.isnan(x), x, (x < 0) * np.pi), roundings=1),
    "signbit": _truth("has a minus sign", np.signbit),
    "isposinf": _truth("is +∞", np.isposinf),
    "isneginf": _truth("is −∞", np.isneginf),
    "mantissa": elementary(
        "the mantissa of {x}", lambda x: np.frexp(x)[0], slopes=lambda x: (np.exp2(-1.0 * np.frexp(x)[1]),)
    ),
    "exponent": elementary("the exponent of {x}", lambda x: 1.0 * np.frexp(x)[1]),
    "copysign": elementary(
        "|{x}| with the sign of {y}",
        np.copysign,
        slopes=lambda x, y: (np.where(x == 0, 0.0, np.copysign(1.0, x) * np.copysign(1.0, y)), 0.0),
        offset=no_offset,
    ),
    "hypot": elementary(
        "√({x}² + {y}²)",
        np.hypot,
        roundings=4,
        slopes=lambda x, y: (np.divide(x, np.hypot(x, y)), np.divide(y, np.hypot(x, y))),
    ),
    "fmax": elementary("the larger of {x} and {y}", np.fmax, slopes=_first_slope(lambda x, y: x >= y), steepest=1.0),
    "fmin": elementary("the smaller of {x} and {y}", np.fmin, slopes=_first_slope(lambda x, y: x <= y), steepest=1.0),
    "logaddexp": _log_add(np.logaddexp, 1.0),
    "logaddexp2": _log_add(np.logaddexp2, ONE_BY_LOG_2),
    "xlogy": elementary(
        "{x} × log({y}), 0 if {x} is 0",
        _xlogy,
        roundings=6,
        slopes=lambda x, y: (np.where((x == 0) & (y <= 0), 0.0, np.log(y)), np.divide(x, y)),
    ),
    "xlog1py": elementary(
        "{x} × log(1 + {y}), 0 if {x} is 0",
        _xlog1py,
        roundings=6,
        slopes=lambda x, y: (np.where((x == 0) & (y <= -1), 0.0, np.log1p(y)), np.divide(x, 1 + y)),
    ),
    "ldexp": elementary(
        "{x} × 2 to the {y}",
        lambda x, y: x * _power_of_two(y),
        roundings=10,
        way=lambda x, y: _power_of_two(y),
        slopes=lambda x, y: (_power_of_two(y), x * _power_of_two(y) * math.log(2.0)),
    ),
    "heaviside": elementary(
        "0 if {x} < 0, {y} if {x} = 0, else 1",
        lambda x, y: np.where(x == 0, y, 1.0 * (x > 0)),
        slopes=lambda x, y: (0.0, 1.0 * (x == 0)),
        branch=lambda x, y: "{y}" if x == 0 else "1" if x > 0 else "0",
    ),
}
