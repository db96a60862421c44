"""Fake quantization of one number: to the nearest step of a scale, inside the range of an integer type."""

# ruff: noqa: ARG001 - what is called through one table has one signature

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from convscope.expr.precision import Precision
from convscope.expr.primitives.primitive import Primitive
from convscope.typing import Numbers

BEYOND = 2.0**62
"""Steps beyond this do not fit into the integer that kernels count them in."""


def _steps(x: Numbers, scale: Numbers, zero: Numbers, *, shifted: bool) -> Numbers:
    """The step that a number is brought to, counted from the smallest number of the integer type."""
    with np.errstate(all="ignore"):
        quotient = np.divide(x, scale)
    return np.round(quotient + zero) if shifted else np.round(quotient) + zero


def fake_quantized(
    x: Numbers, scale: Numbers, zero: Numbers, low: Numbers, high: Numbers, *, shifted: bool = False
) -> Numbers:
    """The quantized value of x.

    >>> float(fake_quantized(0.27, 0.1, 3.0, 0.0, 255.0))
    0.30000000000000004

    Args:
        shifted: Whether the zero point is added before rounding.
    """
    steps = _steps(x, scale, zero, shifted=shifted)
    return (np.clip(np.where(np.isnan(steps), low, steps), low, high) - zero) * scale


def is_representable(
    x: Numbers, scale: Numbers, zero: Numbers, low: Numbers, high: Numbers, *, shifted: bool = False
) -> Numbers:
    """1 where the step is inside the range."""
    steps = _steps(x, scale, zero, shifted=shifted)
    return 1.0 * ((steps >= low) & (steps <= high))


def _may_round_twice(precision: Precision, values: Sequence[float], *, shifted: bool) -> bool:
    """Whether a quotient is so close to the middle of two steps that a kernel may take the other one.

    Kernels multiply by 1 ÷ scale, in float32 whatever the type: two roundings, and one of a shift.
    """
    x, scale, zero = values[:3]
    quotient = float(np.divide(x, scale)) + (zero if shifted else 0.0)
    size = abs(float(np.divide(x, scale))) + abs(zero)
    return (
        not abs(quotient) < BEYOND
        or abs(quotient - np.floor(quotient) - 0.5) <= 4 * max(precision.sum, 2.0**-24) * size
    )


def _error(
    precision: Precision,
    result: float,
    values: Sequence[float],
    errors: object,
    *,
    shifted: bool,
) -> float:
    """The product rounds once, a shift once more; a step too far is a whole scale, beyond integers it is any number."""
    x, scale, zero, low, high = values
    if not abs(float(np.divide(x, scale))) < BEYOND:
        return float(max(abs(low - zero), abs(high - zero)) * scale * 2)
    step = scale if _may_round_twice(precision, values, shifted=shifted) else 0.0
    rounding = max(precision.sum, 2.0**-24)
    return float(step + 2 * rounding * (abs(result) + shifted * abs(zero) * scale) + precision.tiny)


def _mask_error(
    precision: Precision,
    result: float,
    values: Sequence[float],
    errors: object,
    *,
    shifted: bool,
) -> float:
    return 1.0 if _may_round_twice(precision, values, shifted=shifted) else 0.0


_STEP = "round({x} ÷ {scale}) + {zero}"
_SHIFTED = "round({x} ÷ {scale} + {zero})"


def _pair(name: str, step: str, *, shifted: bool) -> dict[str, Primitive]:
    return {
        name: Primitive(
            f"(min(max({step}, {{low}}), {{high}}) − {{zero}}) × {{scale}}",
            partial(fake_quantized, shifted=shifted),
            partial(_error, shifted=shifted),
        ),
        f"{name}_mask": Primitive(
            f"1 if {{low}} ≤ {step} ≤ {{high}}, else 0",
            partial(is_representable, shifted=shifted),
            partial(_mask_error, shifted=shifted),
        ),
    }


FAKE: Mapping[str, Primitive] = {
    **_pair("fake_quantize", _STEP, shifted=False),
    **_pair("fake_quantize_shifted", _SHIFTED, shifted=True),
}
