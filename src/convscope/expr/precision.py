"""Precision: how finely a kernel rounds by the type of its result, how integers wrap around, exact sums.

Every bound of the rules is a multiple of these numbers. A sum or product of floats with p significant bits is
rounded by at most u = 2**-p of its magnitude (Higham, Accuracy and Stability of Numerical Algorithms, SIAM 2002,
section 2.2). PyTorch adds bfloat16 and half in float32 and rounds once at the end, so a result of these types has two
numbers: the accumulator's and its own.

Uses NumPy. Python's own integers calculate without limits, and `wrapped` takes the result back into the type:
additions, subtractions and products modulo 2**bits, so it does not matter when that is done.
"""

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, overload

import numpy as np

from convscope.typing import Array, Numbers, Row

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

    @property
    def flushes(self) -> bool:
        """Whether a kernel may treat subnormal factors as 0, as in products of bfloat16 pairs.

        Source: Intel, Instruction Set Extensions Programming Reference, VDPBF16PS.
        """
        return max(self.stored, self.inner) == 2.0**-8

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


@overload
def gamma(roundings: float, u: float) -> float: ...
@overload
def gamma(roundings: Numbers, u: float) -> Numbers: ...
def gamma(roundings: Numbers, u: float) -> Numbers:
    """The largest relative error that `roundings` roundings can build up, in any order; of an array, each by itself.

    >>> gamma(10, 2.0**-24) < 1.000001 * 10 * 2.0**-24
    True

    Source: Higham 2002, lemma 3.1: n*u / (1 - n*u). Beyond n*u = 1 it says nothing: infinity.
    """
    spread = roundings * u
    if isinstance(spread, np.ndarray):
        with np.errstate(all="ignore"):
            return np.where(spread < 1, spread / (1 - spread), np.inf)
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


def _short(value: Numbers) -> Numbers:
    """Whether every floating-point type holds it exactly: bfloat16 has 8 significant bits."""
    digits = np.frexp(value)[0] * 256
    return ~np.isfinite(value) | (digits == np.floor(digits))


def writing_error(value: Numbers, precision: Precision) -> Numbers:
    """How far a literal number may be from its rounding to a type: half the spacing of the type's numbers there.

    That spacing no longer shrinks below the smallest normal number.

    >>> writing_error(0.5, Precision.of("float32")), writing_error(1e-40, Precision.of("float32")) > 1e-46
    (0.0, True)
    """
    coarsest, size = max(precision.sum, precision.stored), np.abs(value)
    with np.errstate(all="ignore"):
        is_exact = _short(value) & (
            (size >= precision.tiny) | (size % (2 * 2.0 ** np.round(np.log2(coarsest)) * precision.tiny) == 0)
        )
    error = np.where(is_exact, 0.0, coarsest * np.maximum(size, precision.tiny))
    return error if error.ndim else float(error)


BITS: Mapping[str, int] = {f"{sign}int{bits}": bits for bits in (8, 16, 32, 64) for sign in ("u", "")}
"""The integer types, as PyTorch names them, and their width."""
FINEST = 2**53
"""Up to here float64 holds every integer."""


def wrapped(value: int, dtype: str) -> int:
    """An integer as a tensor of this type holds it: modulo 2**bits, from 0 or from -2**(bits - 1) on.

    >>> wrapped(300, "uint8"), wrapped(128, "int8"), wrapped(2, "bool")
    (44, -128, 1)
    """
    if dtype == "bool":
        return int(value != 0)
    width = 1 << BITS[dtype]
    lowest = 0 if dtype.startswith("u") else -(width // 2)
    return (value - lowest) % width + lowest


def exact(value: float | np.generic) -> float | int:
    """A number of an array as a float; as an integer where a float would round it.

    >>> exact(np.int64(3)), exact(np.int64(2**62 + 1))
    (3.0, 4611686018427387905)
    """
    result = float(value)
    return result if not isinstance(value, np.integer) or int(result) == int(value) else int(value)


def widened(array: Array) -> Array:
    """An array in float64; as it is where it holds integers that float64 would round."""
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and ((array > FINEST) | (array < -FINEST)).any():
        return array
    return array.astype(np.float64)


def _truncated(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


def _power(x: int, exponent: int) -> int:
    """A negative exponent leaves 0 of all but 1 and -1."""
    if exponent >= 0:
        return int(x**exponent)
    if abs(x) != 1:
        return 0
    return x if exponent % 2 else 1


def _product(row: Sequence[int]) -> int:
    return math.prod(row)


WHOLE: Mapping[str, Callable[..., int]] = {
    "add": operator.add,
    "add_scaled": lambda x, alpha, y: x + alpha * y,
    "sub": operator.sub,
    "sub_scaled": lambda x, alpha, y: x - alpha * y,
    "mul": operator.mul,
    "neg": operator.neg,
    "abs": operator.abs,
    "square": lambda x: x * x,
    "pow": _power,
    "floor_div": operator.floordiv,
    "trunc_div": _truncated,
    "remainder": operator.mod,
    "fmod": lambda x, y: x - y * _truncated(x, y),
    "product": _product,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "bitwise_not": operator.invert,
    "identity": lambda x: x,
}
"""The functions of `FUNCTIONS` whose results may leave a type's range, between integers and without rounding."""


# Exact sums: many numbers added with one rounding, one row or many rows at once


BLOCK = 2**18
"""Numbers of a row that are changed at a time."""
FEW = 512
"""Up to this many numbers are added faster by `math.fsum` than by arrays."""


def exact_sum(numbers: Array) -> float:
    """The sum with one rounding; NaN and infinities as IEEE arithmetic gives them.

    >>> exact_sum(np.array([1e16, 1.0, -1e16]))
    1.0
    """
    return float(exact_sums(numbers[None])[0])


def sums(rows: Row, change: Callable[[Row], Row]) -> Array:
    """The sum of each row of changed numbers, some numbers at a time: a copy of a large row does not fit into memory.

    >>> sums(np.array([1.0, 2.0]), np.square)
    np.float64(5.0)
    """
    if rows.shape[-1] <= BLOCK:
        return cast("Array", np.sum(change(rows), axis=-1))
    starts = range(0, rows.shape[-1], BLOCK)
    return cast("Array", sum(np.sum(change(rows[..., start : start + BLOCK]), axis=-1) for start in starts))


def _one_by_one(numbers: Array) -> float:
    blocks = (numbers[start : start + BLOCK].tolist() for start in range(0, len(numbers), BLOCK))
    try:
        return math.fsum(itertools.chain.from_iterable(blocks))
    except (OverflowError, ValueError):
        with np.errstate(all="ignore"):
            return float(np.sum(numbers))


def exact_sums(rows: Array) -> Array:
    """The sum of each row with one rounding, as `math.fsum` gives it, in a fraction of its time.

    >>> exact_sums(np.array([[1e16, 1.0, -1e16], [0.1, 0.2, 0.3]])).tolist()
    [1.0, 0.6]

    Each number is split twice at a fixed place, so that the upper parts of a row add up without rounding. What remains
    is added in float64 and cannot change the rounded sum, except where that is close to the middle of two numbers;
    there, and beyond the range in which the split is exact, `fsum` adds the row.

    Args:
        rows: float64, shape (n, T).

    Returns:
        Shape (n,).

    Source: Rump, Ogita and Oishi, Accurate Floating-Point Summation Part I, SIAM Journal on Scientific Computing 31,
    2008: lemma 3.2 for the split, and Knuth's TwoSum.
    """
    count = rows.shape[-1]
    if rows.size <= FEW:
        return np.array([_one_by_one(row) for row in rows], np.float64)
    with np.errstate(all="ignore"):
        largest = np.maximum(rows.max(-1), -rows.min(-1))
        exponent = np.frexp(largest)[1]
        bits = count.bit_length()  # count < 2**bits, so the sum is below 2**(bits + exponent)
        first, second, third = np.zeros((3, len(rows)))
        for start in range(0, count, BLOCK):
            upper, remainder = _split(rows[:, start : start + BLOCK], np.ldexp(1.0, bits + exponent))
            lower, remainder = _split(remainder, np.ldexp(1.0, 2 * bits + exponent - 53))
            first, second, third = first + upper, second + lower, third + remainder.sum(-1)
        third_error = np.ldexp(1.0, 4 * bits + exponent - 159)  # of that sum, which is rounded
        high, low = _two_sum(first, second)
        low, low_error = _two_sum(low, third)
        total, low = _two_sum(high, low)
        total_error = np.abs(low) + np.abs(low_error) + third_error
        half = np.spacing(np.abs(total)) * np.where(np.frexp(total)[0] % 0.5 == 0, 0.249, 0.499)
        sure = (total_error < half) | ((first == 0) & (largest == 0))
        sure &= np.isfinite(largest) & (np.abs(exponent) < 800)
    for row in np.flatnonzero(~sure):
        total[row] = _one_by_one(rows[row])
    return np.asarray(total)


def _split(rows: Array, unit: Array) -> tuple[Array, Array]:
    """The sum of what is left of the bit that is 2**-53 of `unit`, exact, and what is right of it."""
    upper = rows + unit[:, None]
    upper -= unit[:, None]
    return upper.sum(-1), rows - upper


def _two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """A sum and its rounding error."""
    total = x + y
    y_part = total - x
    return total, (x - (total - y_part)) + (y - y_part)
