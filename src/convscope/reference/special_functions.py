"""Functions of one or two numbers beyond the usual ones: erf, sinc, logit, xlogy, logaddexp, nan_to_num.

Uses pointwise, precision, NumPy and math. Errors charge `FUNCTION` roundings for a call of exp, log, sin and the like,
as in `pointwise`.
"""

import math

import numpy as np

from convscope.reference.pointwise import floating
from convscope.reference.precision import FUNCTION, cast, scalar, written
from convscope.typing import Array, Numbers


def sinc(x: Array) -> Array:
    """sin(πx) / (πx), and 1 at 0."""
    return np.sinc(floating(x))


def sinc_error(y: Array, u: float, x: Array) -> Array:
    """πx is rounded twice, which moves the sine by 2u·|πx| at most, and the quotient by 4u; the rest is relative."""
    return np.where(x == 0, 0.0, u * (5 + (FUNCTION + 2) * np.abs(y)))


def logit(x: Array, eps: float | None = None) -> Array:
    """The logarithm of x / (1 - x); with eps, x is first brought to between eps and 1 - eps.

    >>> float(logit(np.array(0.5))), round(float(logit(np.array(2.0), 0.25)), 4)
    (0.0, 1.0986)
    """
    p = floating(x)
    p = p if eps is None or eps < 0 else np.clip(p, eps, 1 - eps)
    return np.asarray(np.log(p / (1 - p)))


def logit_error(y: Array, u: float, x: Array, eps: float | None = None) -> Numbers:
    """The difference, the quotient and the logarithm; a limit is written, and the slope there is about 1 / eps."""
    error = u * (3 + FUNCTION * np.abs(y))
    if eps is None or eps <= 0:
        return error
    return error + np.where((x < eps) | (x > 1 - eps), 2 * u / eps, 0.0)


def without_nan(
    x: Array, nan: float | None = None, posinf: float | None = None, neginf: float | None = None,
    result_type: str = "float64",
) -> Array:  # fmt: skip
    """nan_to_num: nan becomes 0 and infinities the largest number of the type, unless other numbers are named."""
    if x.dtype.kind != "f":
        return x
    largest = {"bfloat16": 3.3895313892515355e38, "float16": 65504.0, "float32": float(np.finfo(np.float32).max)}
    type_maximum = largest.get(result_type, float(np.finfo(np.float64).max))
    limits = [cast(np.asarray(usual if v is None else v, np.float64), result_type)
              for v, usual in ((nan, 0.0), (posinf, type_maximum), (neginf, -type_maximum))]  # fmt: skip
    return np.nan_to_num(x, nan=float(limits[0]), posinf=float(limits[1]), neginf=float(limits[2]))


def angle(x: Array) -> Array:
    """The angle of a real number: π if it is negative, else 0."""
    return np.where(np.isnan(x), x, np.where(x < 0, np.pi, 0.0))


def parts_of_number(x: Array) -> tuple[Array, Array]:
    """frexp: mantissa and exponent, x = mantissa · 2^exponent."""
    mantissa, exponent = np.frexp(x)
    return mantissa, exponent.astype(np.int32)


def copysign(x: Numbers, right: Numbers) -> Array:
    """The size of x with the sign of the other."""
    return np.copysign(floating(x), floating(right))


def copysign_error(_y: Array, u: float, x: Numbers, right: Numbers) -> Numbers:
    """Exact, but a number is written in the tensor's type."""
    return scalar(x, u) + 0.0 * np.asarray(scalar(right, u))


def log_add(x: Array, right: Array) -> Array:
    """logaddexp: log(exp(x) + exp(right))."""
    return np.logaddexp(floating(x), floating(right))


def log_add_error(y: Array, u: float, x: Array, right: Array) -> Array:
    """The larger, plus log(1 + exp(-d)): exp and log1p are within FUNCTION roundings of exp(-d), the sum adds one."""
    d = np.where(x == right, 0.0, np.abs(x - right))
    return u * (np.abs(y) + (2 * FUNCTION + 2) * np.exp(-d))


def log_add_2(x: Array, right: Array) -> Array:
    """logaddexp2: log2(2^x + 2^right)."""
    return np.logaddexp2(floating(x), floating(right))


def log_add_2_error(y: Array, u: float, x: Array, right: Array) -> Array:
    """The bound of `log_add_error`, with base 2 and one more product, whose factor 1 / log 2 is below 1.5."""
    d = np.where(x == right, 0.0, np.abs(x - right))
    return u * (np.abs(y) + 1.5 * (2 * FUNCTION + 2) * np.exp2(-d))


def times_log(x: Numbers, right: Numbers) -> Array:
    """xlogy: x · log(right), 0 where x is 0 and `right` a number."""
    base, argument = floating(x), floating(right)
    return np.where(np.isnan(argument), np.nan, np.where(base == 0, 0.0, base * np.log(argument)))


def times_log_error(y: Array, u: float, x: Numbers, right: Numbers) -> Array:
    """A function call and a product; a number is written, and the logarithm moves by what it loses relatively."""
    base, argument = np.abs(floating(x)), np.abs(floating(right))
    relative_error = np.where(argument > 0, scalar(right, u) / np.where(argument > 0, argument, 1.0), 0.0)
    return np.where(base == 0, 0.0, u * (FUNCTION + 2) * np.abs(y) + base * relative_error)


def times_log_of_sum(x: Numbers, right: Numbers) -> Array:
    """special_xlog1py: x · log(1 + right), 0 where x is 0 and `right` a number."""
    base, argument = floating(x), floating(right)
    return np.where(np.isnan(argument), np.nan, np.where(base == 0, 0.0, base * np.log1p(argument)))


def times_log_of_sum_error(y: Array, u: float, x: Numbers, right: Numbers) -> Array:
    """A function call and a product; a number is written, and the logarithm moves by that over 1 + right."""
    base, argument = np.abs(floating(x)), floating(right)
    moved = np.where(argument > -1, scalar(right, u) / np.where(argument > -1, 1 + argument, 1.0), 0.0)
    return np.where(base == 0, 0.0, u * (FUNCTION + 2) * np.abs(y) + base * moved)


def scaled_by_power(x: Array, right: Array) -> Array:
    """ldexp: x · 2^right."""
    return np.asarray(x * np.exp2(floating(right)))


def scaled_by_power_error(y: Array, u: float, x: Array, right: Array) -> Array:
    """A power and a product; where the power leaves the type on its way, anything may come out."""
    bound = u * (FUNCTION + 2) * np.abs(y)
    with np.errstate(over="ignore"):
        power = np.exp2(floating(right))
    return np.where((power >= 2.0**127) | (power <= 2.0**-126), np.where(x == 0, 0.0, np.inf), bound)


def step_function(x: Array, values: Array) -> Array:
    """heaviside: 0 below 0, 1 above, and `values` at 0."""
    return np.where(x == 0, values, np.where(x > 0, 1, 0)).astype(np.result_type(x, values))


def step_error(_y: Array, u: float, x: Array, values: Numbers) -> Numbers:
    """Exact, but a number is written."""
    return np.where(x == 0, written(values, u) if np.ndim(values) == 0 else 0.0, 0.0)


# The error function of an array, which NumPy does not have


NEAR = 2.0
"""Up to here the series is quick; beyond it the C library's erf is called cell by cell."""

CHUNK = 2**13
"""Cells that go through the series together: they stay in the processor's cache."""

TERMS = tuple(2.0 / math.sqrt(math.pi) * math.prod(2.0 / (2 * k + 1) for k in range(1, n + 1)) for n in range(36))


def erf(x: Array) -> Array:
    """2/sqrt(pi) times the integral of exp(-t²) from 0 to x.

    >>> float(erf(np.array(0.5))) - math.erf(0.5)
    0.0

    Up to |x| = 2 by the series erf(x) = 2/sqrt(pi)·exp(-x²)·sum over n of 2^n·x^(2n+1) / (1·3·5·...·(2n+1)), whose
    terms are all positive, so that nothing cancels (Abramowitz and Stegun, Handbook of Mathematical Functions,
    7.1.6); 36 terms are exact to 1e-17 there. Within 1e-15 of the result everywhere, relative to it.
    """
    cells = np.asarray(x, np.float64).ravel()
    y = np.empty_like(cells)
    for start in range(0, len(cells), CHUNK):
        part = cells[start : start + CHUNK]
        square = np.minimum(part * part, NEAR * NEAR)
        total = np.full(part.shape, TERMS[-1])
        for term in reversed(TERMS[:-1]):
            total *= square
            total += term
        y[start : start + CHUNK] = total * np.exp(-square) * part
    is_large = ~(np.abs(cells) <= NEAR)
    y[is_large] = np.fromiter(map(math.erf, cells[is_large].tolist()), np.float64)
    return y.reshape(np.shape(x))


def erfc(x: Array) -> Array:
    """1 - erf(x), without the loss of digits for large x."""
    x = np.asarray(x, np.float64)
    return np.fromiter(map(math.erfc, x.ravel().tolist()), np.float64).reshape(x.shape)
