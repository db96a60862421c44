"""Arithmetic: sums, products, powers, choices and comparisons of single numbers."""

# ruff: noqa: ARG001, ARG005 - what is called through one table has one signature

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from convscope.expr.precision import Precision, rounded
from convscope.expr.primitives.activations import erf
from convscope.expr.primitives.primitive import Primitive, elementary, no_offset
from convscope.typing import Array, Numbers


def _linear_in_one(varies: tuple[bool, ...], *_: object) -> float | None:
    """A product is linear while only one factor varies, and then goes through zero."""
    return None if sum(varies) > 1 else 0.0


def _linear_in_first(varies: tuple[bool, ...], *_: object) -> float | None:
    return None if any(varies[1:]) else 0.0


def _constants(*signs: float) -> Callable[..., Numbers]:
    """The offset of a sum: its terms that do not vary, with their signs."""
    return lambda varies, *terms: sum(s * t for v, s, t in zip(varies, signs, terms, strict=True) if not v)


def _chosen(choose: Callable[..., Numbers]) -> Callable[..., Numbers]:
    """The offset of a choice between two: the one that does not vary, where it was chosen."""

    def offset(varies: tuple[bool, ...], x: Numbers, y: Numbers) -> Numbers:
        first = choose(x, y)
        return np.where(first, 0.0 if varies[0] else x, 0.0 if varies[1] else y)

    return offset


def _ties(choose: Callable[..., Numbers]) -> Callable[..., tuple[Numbers, Numbers]]:
    """The slopes of a choice between two; equal ones share."""
    return lambda x, y: (np.where(x == y, 0.5, choose(x, y)), np.where(x == y, 0.5, 1.0 - choose(x, y)))


def _compare(sign: str, compare: Callable[[Numbers, Numbers], Numbers]) -> Primitive:
    return elementary(f"1 if {{x}} {sign} {{y}}, else 0", lambda x, y: 1.0 * compare(x, y))


def _integers(sign: str, combine: Callable[[Array, Array], Array]) -> Primitive:
    def value(x: Numbers, y: Numbers) -> Numbers:
        return np.asarray(combine(np.asarray(x, np.int64), np.asarray(y, np.int64)), np.float64)

    return elementary(f"{{x}} {sign} {{y}}", value)


def _single(
    formula: str, value: Callable[[Numbers], Numbers], slope: Callable[[Numbers], Numbers], roundings: float = 4
) -> Primitive:
    return elementary(formula, value, roundings=roundings, slopes=lambda x: (slope(x),))


def _typed(dtype: str) -> Primitive:
    """Another type; the same rounding as a kernel's, so nothing is left open."""
    return Primitive(f"{{x}}, rounded to {dtype}", lambda x: rounded(float(x), dtype), _as_given)


def _as_given(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    return float(errors[0])


def _power(x: Numbers, exponent: Numbers) -> Numbers:
    return np.asarray(x, np.float64) ** np.asarray(exponent, np.float64)


def _power_slopes(x: Numbers, exponent: Numbers) -> tuple[Numbers, Numbers]:
    x, exponent = np.asarray(x, np.float64), np.asarray(exponent, np.float64)
    logs = np.log(np.clip(np.where(x > 0, x, 1.0), 5e-324, 1.7e308))
    at_zero = np.where(exponent >= 0, 0.0, -np.inf)
    by_exponent = np.where(x > 0, x**exponent * logs, np.where(x == 0, at_zero, np.nan))
    return np.where(exponent == 0, 0.0, exponent * x ** (exponent - 1)), by_exponent


def _near_jump(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    """A quotient that is an integer but for rounding may be cut to this integer or to the one before."""
    quotient = float(np.divide(values[0], values[1]))
    u = max(precision.sum, precision.inner)  # a narrow type rounds the quotient before it is cut
    near = np.isfinite(quotient) and abs(quotient - np.round(quotient)) <= 2 * u * abs(quotient)
    return (1.0 if near else 0.0) + 2 * u * abs(result)


def _floor_error(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    """The remainder is found without rounding; what it leaves is divided and brought to the nearest integer.

    Its difference from the dividend, the division and the step down round once each, which is less than half a unit
    where the quotient has a few digits fewer than the type; beyond, and in a narrow type, it may be another number.
    Source: PyTorch, c10/util/generic_math.h, div_floor_floating.
    """
    roundings = 3 * precision.sum * abs(result)
    return float(
        (roundings if roundings > 0.1 else 0.0) + (2 * precision.inner * abs(result) + 1.0) * bool(precision.inner)
    )


def _erf_error(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    """For narrow types PyTorch's own erf, 1 - polynomial × exp(-x²), is as exact near 0 as near 1 (vec/functional)."""
    erf_bound = 4 * precision.sum * (abs(result) + 2 * bool(precision.stored)) + precision.tiny * (result != 0)
    return float(erf_bound + 1.13 * errors[0])


def _near_integer(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    """A number that its error takes across an integer is cut to this integer or to the one before."""
    distance = abs(values[0] - np.round(values[0]))
    return 1.0 if 0 < distance <= errors[0] + 8 * precision.sum * abs(values[0]) else 0.0


def _near_tie(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
    """The number is scaled, rounded and scaled back; close to the middle it may go either way."""
    step = 10.0 ** -values[1]
    scaled = float(values[0]) / step
    if abs(scaled) >= precision.room or abs(values[0]) * step >= precision.room:  # scaled beyond the type
        return math.inf
    tie = abs(scaled - np.floor(scaled) - 0.5) <= 4 * precision.sum * abs(scaled) + 1e-9
    return float(4 * precision.sum * abs(result) + (step if tie else 0.0))


def _round_decimals(x: Numbers, decimals: Numbers) -> Numbers:
    return np.round(x, int(decimals))  # of a float a float, of an array an array


def _middle(x: Numbers, low: Numbers, high: Numbers) -> Numbers:
    return np.minimum(np.maximum(x, low), high)


_erfc = np.vectorize(math.erfc, otypes=[float])
_CLAMP = elementary(
    "min(max({x}, {low}), {high})",
    _middle,
    slopes=lambda x, low, high: (
        np.where((x >= low) & (x <= high), 1.0, 0.0),
        np.where((x < low) & (low < high), 1.0, 0.0),
        np.where((x > high) | (low > high), 1.0, 0.0),
    ),
    offset=lambda varies, x, low, high: np.where((x >= low) & (x <= high), 0.0, _middle(x, low, high)),
)
_HARDTANH = elementary(  # as clamp, but PyTorch gives it the slope 0 at its limits
    "min(max({x}, {low}), {high})",
    _middle,
    slopes=lambda x, low, high: (
        np.where((x > low) & (x < high), 1.0, 0.0),
        np.where((x <= low) & (low < high), 1.0, 0.0),
        np.where((x >= high) | (low > high), 1.0, 0.0),
    ),
    offset=lambda varies, x, low, high: np.where((x > low) & (x < high), 0.0, _middle(x, low, high)),
)

ARITHMETIC: Mapping[str, Primitive] = {
    "identity": elementary("{x}", lambda x: x, slopes=lambda x: (1.0,), offset=no_offset),
    "to_float64": _typed("float64"),
    "to_float32": _typed("float32"),
    "to_bfloat16": _typed("bfloat16"),
    "to_float16": _typed("float16"),
    "add": elementary(
        "{x} + {y}", lambda x, y: x + y, roundings=1, slopes=lambda x, y: (1.0, 1.0), offset=_constants(1, 1)
    ),
    "add_scaled": elementary(
        "{x} + {alpha} × {y}",
        lambda x, alpha, y: x + alpha * y,
        roundings=lambda f, x, alpha, y: np.abs(f) + 2 * np.abs(alpha * y),
        way=lambda x, alpha, y: alpha * y,
        stored=lambda x, alpha, y: 1.01 * alpha * y,
        slopes=lambda x, alpha, y: (1.0, y, alpha),
        offset=lambda varies, x, alpha, y: (0.0 if varies[0] else x) + (0.0 if varies[2] else alpha * y),
    ),
    "sub": elementary(
        "{x} − {y}", lambda x, y: x - y, roundings=1, slopes=lambda x, y: (1.0, -1.0), offset=_constants(1, -1)
    ),
    "sub_scaled": elementary(
        "{x} − {alpha} × {y}",
        lambda x, alpha, y: x - alpha * y,
        roundings=lambda f, x, alpha, y: np.abs(f) + 2 * np.abs(alpha * y),
        way=lambda x, alpha, y: alpha * y,
        stored=lambda x, alpha, y: 1.01 * alpha * y,
        slopes=lambda x, alpha, y: (1.0, -y, -alpha),
        offset=lambda varies, x, alpha, y: (0.0 if varies[0] else x) - (0.0 if varies[2] else alpha * y),
    ),
    "mul": elementary("{x} × {y}", lambda x, y: x * y, roundings=1, slopes=lambda x, y: (y, x), offset=_linear_in_one),
    "div": elementary(
        "{x} ÷ {y}",
        np.divide,
        roundings=2,
        slopes=lambda x, y: (np.divide(1.0, y), -np.divide(x, y * y)),
        offset=_linear_in_first,
    ),
    "floor_div": Primitive("{x} ÷ {y}, rounded down", np.floor_divide, _floor_error),
    "trunc_div": Primitive("{x} ÷ {y}, rounded towards 0", lambda x, y: np.trunc(np.divide(x, y)), _near_jump),
    "remainder": elementary(
        "the remainder of {x} ÷ {y}",
        np.mod,
        roundings=lambda f, x, y: 2 * np.abs(y),
        slopes=lambda x, y: (1.0, -np.floor_divide(x, y)),
    ),
    "fmod": elementary(
        "the remainder of {x} ÷ {y}", np.fmod, roundings=1, slopes=lambda x, y: (1.0, -np.trunc(np.divide(x, y)))
    ),
    "addcmul": elementary(
        "{x} + {scale} × {y} × {z}",
        lambda x, scale, y, z: x + scale * y * z,
        roundings=lambda f, x, scale, y, z: np.abs(f) + 4 * np.abs(scale * y * z),
        way=lambda x, scale, y, z: scale * y * z,
        slopes=lambda x, scale, y, z: (1.0, y * z, scale * z, scale * y),
        offset=lambda varies, x, scale, y, z: (
            None
            if varies[2] and varies[3]
            else (0.0 if varies[0] else x) + (0.0 if varies[2] or varies[3] else scale * y * z)
        ),
    ),
    "addcdiv": elementary(
        "{x} + {scale} × {y} ÷ {z}",
        lambda x, scale, y, z: x + scale * np.divide(y, z),
        roundings=lambda f, x, scale, y, z: np.abs(f) + 4 * np.abs(scale * np.divide(y, z)),
        way=lambda x, scale, y, z: np.maximum(
            np.abs(scale * y), np.abs(np.divide(y, z)) * np.maximum(1, np.abs(scale))
        ),
        slopes=lambda x, scale, y, z: (1.0, np.divide(y, z), np.divide(scale, z), -scale * y / (z * z)),
    ),
    "evenly": elementary(
        "{start} + ({end} − {start}) × {index} ÷ {last}",
        lambda start, end, index, last: start + (end - start) * index / last,
        roundings=lambda f, start, end, index, last: 6 * (np.abs(start) + np.abs(end)),
        slopes=lambda start, end, index, last: (1 - index / last, index / last, 0.0, 0.0),
    ),
    "lerp": elementary(
        "{x} + {weight} × ({y} − {x})",
        lambda x, y, weight: np.where(np.abs(weight) < 0.5, x + weight * (y - x), y - (y - x) * (1 - weight)),
        roundings=lambda f, x, y, weight: 4 * (np.abs(x) + np.abs(y)) * (1 + np.abs(weight)),
        way=lambda x, y, weight: y - x,
        slopes=lambda x, y, weight: (1 - weight, weight, y - x),
        branch=lambda x, y, weight: (
            "{x} + {weight} × ({y} − {x})" if abs(weight) < 0.5 else "{y} − ({y} − {x}) × (1 − {weight})"
        ),
    ),
    "maximum": elementary(
        "max({x}, {y})",
        np.maximum,
        slopes=_ties(lambda x, y: 1.0 * (x > y)),
        steepest=1.0,
        offset=_chosen(lambda x, y: x >= y),
    ),
    "minimum": elementary(
        "min({x}, {y})",
        np.minimum,
        slopes=_ties(lambda x, y: 1.0 * (x < y)),
        steepest=1.0,
        offset=_chosen(lambda x, y: x <= y),
    ),
    "clamp": _CLAMP,
    "hardtanh": _HARDTANH,
    "clamp_min": elementary(  # of equal numbers the first one is selected
        "max({x}, {y})",
        np.maximum,
        slopes=lambda x, y: (1.0 * (x >= y), 1.0 * (x < y)),
        steepest=1.0,
        offset=_chosen(lambda x, y: x >= y),
    ),
    "clamp_max": elementary(
        "min({x}, {y})",
        np.minimum,
        slopes=lambda x, y: (1.0 * (x <= y), 1.0 * (x > y)),
        steepest=1.0,
        offset=_chosen(lambda x, y: x <= y),
    ),
    "neg": elementary("−{x}", lambda x: -x, slopes=lambda x: (-1.0,), offset=no_offset),
    "abs": elementary("|{x}|", np.abs, slopes=lambda x: (np.sign(x),), offset=no_offset),
    "sign": elementary("the sign of {x}", lambda x: 1.0 * (x > 0) - 1.0 * (x < 0)),
    "floor": elementary("{x}, rounded down", np.floor),
    "ceil": elementary("{x}, rounded up", np.ceil),
    "round_decimals": Primitive("{x}, rounded to {decimals} decimals", _round_decimals, _near_tie),
    "round": elementary("{x}, rounded to the nearest integer", np.round),
    "trunc": elementary("{x}, rounded towards 0", np.trunc),
    "cut": Primitive("{x}, cut to an integer", np.trunc, _near_integer),
    "frac": elementary("what {x} has behind the point", lambda x: x - np.trunc(x), slopes=lambda x: (np.ones_like(x),)),
    "reciprocal": _single("1 ÷ {x}", lambda x: np.divide(1.0, x), lambda x: -np.divide(1.0, x * x), 2),
    "sqrt": _single("√{x}", np.sqrt, lambda x: np.divide(0.5, np.sqrt(x)), 2),
    "rsqrt": _single("1 ÷ √{x}", lambda x: np.divide(1.0, np.sqrt(x)), lambda x: np.divide(-0.5, x * np.sqrt(x))),
    "exp": _single("exp({x})", np.exp, np.exp),
    "exp2": _single("2 to the {x}", np.exp2, lambda x: np.exp2(x) * np.log(2.0)),
    "expm1": _single("exp({x}) − 1", np.expm1, np.exp),
    "log": _single("log({x})", np.log, lambda x: np.divide(1.0, x)),
    "log2": _single("log₂({x})", np.log2, lambda x: np.divide(1.0, x * np.log(2.0))),
    "log10": _single("log₁₀({x})", np.log10, lambda x: np.divide(1.0, x * np.log(10.0))),
    "log1p": _single("log(1 + {x})", np.log1p, lambda x: np.divide(1.0, 1 + x)),
    "erf": Primitive("erf({x})", erf, _erf_error, slopes=lambda x: (2 / np.sqrt(np.pi) * np.exp(-x * x),)),
    "erfc": _single("1 − erf({x})", _erfc, lambda x: -2 / np.sqrt(np.pi) * np.exp(-x * x)),
    "sin": elementary("sin({x})", np.sin, roundings=lambda y, x: 4.0 * np.isfinite(x), slopes=lambda x: (np.cos(x),)),
    "cos": elementary("cos({x})", np.cos, roundings=lambda y, x: 4.0 * np.isfinite(x), slopes=lambda x: (-np.sin(x),)),
    "tan": _single("tan({x})", np.tan, lambda x: 1 + np.tan(x) ** 2, 8),
    "asin": _single("asin({x})", np.arcsin, lambda x: np.divide(1.0, np.sqrt(1 - x * x))),
    "acos": _single("acos({x})", np.arccos, lambda x: np.divide(-1.0, np.sqrt(1 - x * x))),
    "sinh": _single("sinh({x})", np.sinh, np.cosh),
    "cosh": _single("cosh({x})", np.cosh, np.sinh),
    "atan2": elementary(
        "the angle of the point ({y}, {x})",
        np.arctan2,
        roundings=8,
        slopes=lambda x, y: (np.divide(y, x * x + y * y), np.divide(-x, x * x + y * y)),
    ),
    "atan": _single("atan({x})", np.arctan, lambda x: 1 / (1 + x * x)),
    "pow": elementary("{x} to the {exponent}", _power, roundings=8, slopes=_power_slopes),
    "square": _single("{x}²", np.square, lambda x: 2 * x, 1),
    "where": elementary(
        "{yes} if {condition}, else {no}",
        np.where,
        slopes=lambda condition, yes, no: (0.0, np.where(condition, 1.0, 0.0), np.where(condition, 0.0, 1.0)),
        offset=lambda varies, condition, yes, no: np.where(
            condition, 0.0 if varies[1] else yes, 0.0 if varies[2] else no
        ),
        branch=lambda condition, yes, no: "{yes}" if condition else "{no}",
    ),
    "dropout": elementary(
        "{x} × {mask} ÷ (1 − {p})",
        lambda x, mask, p: np.where(mask, np.divide(x, 1 - p), 0.0 * x),
        roundings=4,
        slopes=lambda x, mask, p: (np.where(mask, np.divide(1.0, 1 - p), 0.0), 0.0, 0.0),
        offset=_linear_in_first,
    ),
    "eq": _compare("=", np.equal),
    "ne": _compare("≠", np.not_equal),
    "lt": _compare("<", np.less),
    "le": _compare("≤", np.less_equal),
    "gt": _compare(">", np.greater),
    "ge": _compare("≥", np.greater_equal),
    "logical_and": _compare("and", np.logical_and),
    "logical_or": _compare("or", np.logical_or),
    "logical_xor": _compare("differs from", np.logical_xor),
    "logical_not": elementary("1 if {x} is 0, else 0", lambda x: 1.0 * np.logical_not(x)),
    "bitwise_and": _integers("and", np.bitwise_and),
    "bitwise_or": _integers("or", np.bitwise_or),
    "bitwise_xor": _integers("xor", np.bitwise_xor),
    "bitwise_not": elementary("not {x}, bit by bit", lambda x: -x - 1.0),
    "isnan": elementary("1 if {x} is nan, else 0", lambda x: 1.0 * np.isnan(x)),
    "isinf": elementary("1 if {x} is infinite, else 0", lambda x: 1.0 * np.isinf(x)),
    "isfinite": elementary("1 if {x} is finite, else 0", lambda x: 1.0 * np.isfinite(x)),
}
