"""Precision: how finely a kernel rounds, by the type of its result. Imports nothing of convscope.

Every bound of the rules is a multiple of these numbers. A sum or product of floats with p significant bits is
rounded by at most u = 2**-p of its magnitude (Higham, Accuracy and Stability of Numerical Algorithms, SIAM 2002,
section 2.2). PyTorch adds bfloat16 and half in float32 and rounds once at the end, so a result of these types has two
numbers: the accumulator's and its own.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Rounding = Literal["wide", "stores between", "narrow"]
"""How a CPU kernel treats bfloat16 and half: calculates in float32 and rounds its result; does so and also stores
intermediate results in the narrow type; or calculates in the narrow type itself."""
OUR_OWN = 2.0**-53
"""The unit roundoff of float64, in which the rules themselves calculate."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The unit roundoffs of one kernel.

    >>> Precision.of("bfloat16").stored
    0.00390625
    """

    sum: float
    """Relative rounding of one operation inside the kernel, with our own float64 rounding added."""
    stored: float
    """Relative rounding when the result is stored; 0 where it is stored as it was accumulated."""
    tiny: float
    """Numbers below this are no longer rounded relatively (subnormal, or flushed to zero)."""
    largest: float
    """Beyond this the result is infinite."""
    inner: float = 0.0
    """Relative rounding of what the kernel puts down in between, in the type of its result."""

    @property
    def room(self) -> float:
        """Beyond this a sum on its way is infinite: narrow types are added in float32, if not in themselves."""
        return PRECISIONS["float32"].largest if self.stored and self.sum < self.stored else self.largest

    def finer(self, roundoff: float) -> bool:
        """Whether numbers of this type have to be rounded for a kernel that rounds by so much."""
        return max(self.sum, self.stored) < 0.9 * roundoff

    @classmethod
    def of(cls, dtype: str, rounding: Rounding = "wide") -> "Precision":
        """The precision of a kernel whose result has this type; integers and booleans are exact.

        Args:
            dtype: As PyTorch names it: "float32", "bfloat16", "int64".
            rounding: Where the kernel rounds numbers of a narrow type.
        """
        result = PRECISIONS.get(dtype, EXACT)
        if not result.stored:
            return result
        if rounding == "narrow":
            return replace(result, sum=result.stored, inner=result.stored)
        return replace(result, inner=result.stored) if rounding == "stores between" else result


EXACT = Precision(OUR_OWN, 0.0, 0.0, float("inf"))
PRECISIONS = {
    "float64": Precision(2.0**-53 + OUR_OWN, 0.0, 2.0**-1022, 1.7976931348623157e308),
    "float32": Precision(2.0**-24 + OUR_OWN, 0.0, 2.0**-126, 3.4028234663852886e38),
    "bfloat16": Precision(2.0**-24 + OUR_OWN, 2.0**-8, 2.0**-126, 3.3895313892515355e38),
    "float16": Precision(2.0**-24 + OUR_OWN, 2.0**-11, 2.0**-14, 65504.0),
}


def gamma(roundings: float, u: float) -> float:
    """The largest relative error that `roundings` roundings can build up, in any order.

    >>> gamma(10, 2.0**-24) < 1.000001 * 10 * 2.0**-24
    True

    Source: Higham 2002, lemma 3.1: n*u / (1 - n*u). Beyond n*u = 1 it says nothing: infinity.
    """
    spread = roundings * u
    return spread / (1 - spread) if spread < 1 else float("inf")


def rounded(value: float, dtype: str) -> float:
    """A number as a tensor of this type holds it, rounded to the nearest, ties to even.

    >>> rounded(0.1, "float32"), rounded(257.0, "bfloat16")
    (0.10000000149011612, 256.0)
    """
    if not math.isfinite(value) or dtype not in {"float32", "bfloat16", "float16"}:
        return value
    with np.errstate(all="ignore"):
        single = float(np.float32(value))  # PyTorch converts to the narrow types by way of float32
        if dtype == "float16":
            return float(np.float16(single))
    if dtype == "float32" or not math.isfinite(single):
        return single
    exponent = max(math.frexp(single)[1], -125)  # below that, subnormal: the digits stay where they are
    nearest = math.ldexp(round(math.ldexp(single, 8 - exponent)), exponent - 8)
    return nearest if abs(nearest) < 2.0**128 else math.copysign(math.inf, value)
