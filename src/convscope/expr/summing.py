"""Exact sums: many numbers added with one rounding, one row or many rows at once. Knows NumPy only."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FEW = 512
"""Up to this many numbers are added faster by `math.fsum` than by arrays."""


def exact_sum(numbers: Array) -> float:
    """The sum with one rounding; NaN and infinities as IEEE arithmetic gives them.

    >>> exact_sum(np.array([1e16, 1.0, -1e16]))
    1.0
    """
    return float(exact_sums(numbers[None])[0])


def _one_by_one(numbers: Array) -> float:
    try:
        return math.fsum(numbers.tolist())
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
        largest = np.abs(rows).max(-1)
        exponent = np.frexp(largest)[1]
        bits = count.bit_length()  # count < 2**bits, so the sum is below 2**(bits + exponent)
        first, rest = _split(rows, np.ldexp(1.0, bits + exponent))
        second, rest = _split(rest, np.ldexp(1.0, 2 * bits + exponent - 53))
        third = rest.sum(-1)
        off = np.ldexp(1.0, 4 * bits + exponent - 159)  # of that sum, which is rounded
        high, low = _two_sum(first, second)
        low, lost = _two_sum(low, third)
        total, low = _two_sum(high, low)
        far = np.abs(low) + np.abs(lost) + off
        half = np.spacing(np.abs(total)) * np.where(np.frexp(total)[0] % 0.5 == 0, 0.249, 0.499)
        sure = (far < half) | ((first == 0) & (largest == 0))
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
    other = total - x
    return total, (x - (total - other)) + (y - other)
