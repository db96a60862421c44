"""Moments: the variance of many numbers, and how far a kernel's mean and variance may lie from them.

A kernel merges parts of a row, from single cells up to all of them. With D merges on a cell's way, a mean is off by
about u·D·|mean|, plus u·D standard deviations; that moves every squared distance which was taken from it (Chan, Golub
and LeVeque, The American Statistician 37, 1983). How large D is depends on the kernel, see `KERNELS`.
"""

# ruff: noqa: ARG001 - what is called through one table has one signature

from collections.abc import Mapping, Sequence
from functools import partial
from math import log2, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convscope.expr.precision import Precision
from convscope.expr.primitives.primitive import Primitive

Row = NDArray[np.float64]


class MomentKernel(NamedTuple):
    """How a kernel adds."""

    chunked: bool
    """The mean: in chunks of 16 that are merged pairwise, else one cell after the other."""
    distances: bool
    """The squared distances: in chunks, or in a second pass, for which the errors of the mean add up to 0."""
    at_once: bool = False
    """As the mean of squares less the squared mean."""


KERNELS: Mapping[str, MomentKernel] = {
    "variance": MomentKernel(chunked=True, distances=True),
    "variance_in_passes": MomentKernel(chunked=False, distances=True),
    "variance_in_turn": MomentKernel(chunked=False, distances=False),
    "variance_at_once": MomentKernel(chunked=False, distances=False, at_once=True),
}
"""Layer norm, group norm, variances of float32; batch norm of channels-last memory and of narrow types; variances of
other types; group norm of channels-last memory."""


def merges(count: int, *, chunked: bool) -> float:
    """How many merges are on a cell's way at most: 16 in a chunk, up and down the chunks, 16 lanes, a rest of 15.

    On a GPU at least 128 threads share the row.
    """
    return min(count, 48 + 2 * log2(max(count, 2)) + count / 128) if chunked else count


def mean_roundings(row: Row, kernel: str = "variance") -> float:
    """How many roundings of the mean magnitude are as much as a kernel's mean may be off.

    Half of all cells come before a cell on average, however a kernel merges; the distances from the mean are one
    standard deviation on average at each level; what a larger part moves a smaller one is at most the range.
    """
    n, largest = row.size, float(np.max(np.abs(row), initial=0.0))
    if not 0 < largest < np.inf:
        return 1.0
    part = row / largest  # so that no square is too large or too small for float64
    depth = merges(n, chunked=KERNELS[kernel].chunked)
    off = (min(depth, (n + 1) / 2) + 1) * abs(float(np.mean(part)))
    off += (depth + 3 * sqrt(log2(max(n, 2)) + 2)) * float(np.std(part)) + 3 * float(np.ptp(part))
    return 1.01 * off / float(np.mean(np.abs(part)))


def variance(row: Row, mean: Any, correction: float) -> Any:
    """The mean square distance from the mean, by n - correction."""
    with np.errstate(all="ignore"):
        return np.divide(np.sum((row - mean) ** 2), np.maximum(row.size - correction, 0.0))


def _error(kernel: str, precision: Precision, result: float, values: Sequence[Any], errors: Sequence[Any]) -> float:
    """2·s·q + q², with s the standard deviation and q how far distances from the mean are off; and M's roundings."""
    row, mean, correction = values
    n = row.size
    if n <= 1:
        return 0.0
    way, spread = KERNELS[kernel], float(np.mean((row - mean) ** 2))
    # where a narrow mean is stored before the squares are taken, that rounding counts as well
    off = float(errors[1]) + 1.05 * precision.inner * abs(mean)
    depth = merges(n, chunked=way.chunked)
    if 2 * depth * precision.sum >= 1:
        return float("inf")
    u = precision.sum / (1 - 2 * depth * precision.sum)
    if way.at_once:
        total = u * (n + 4) * float(np.mean(row**2)) + 2 * abs(mean) * off + off * off
    else:
        q = _distances(row, float(mean), sqrt(spread), u, chunked=way.distances)
        q += 0.0 if way.distances else 2 * off  # merged by several threads
        total = 2 * sqrt(spread) * q + q * q + off * off + (2 * depth + 8) * u * spread
    inherited = 0.0
    if np.any(errors[0]):
        shift = np.asarray(errors[0]) + float(np.max(errors[0]))
        inherited = float(np.sum(shift * (2 * np.abs(row - mean) + shift))) / n
    return float((total + inherited) * n / max(n - correction, 1.0) + precision.tiny)


def _distances(row: Row, mean: float, deviation: float, u: float, *, chunked: bool) -> float:
    """By how much each distance from the mean is off, as a root mean square over all merges.

    In any order: 0.408·(n + 2) of the largest number a merge handles, half as much again because Welford takes the
    second distance after the update. In turn: the mean's part grows with n, that of the standard deviation with its
    root. In chunks: D of the mean, at 5 + 2·log2 n levels, and of the standard deviation, at 2·D.
    """
    n, span = row.size, float(np.ptp(row))
    largest = 0.612 * (n + 2) * sqrt(1 + 2 / n) * (abs(mean) + 4 * span) if 2 * n * u < 1 else np.inf
    if not chunked:
        in_turn = 0.289 * (n + 2) * abs(mean) + (0.471 * n + 3 * sqrt(2 + 2 * float(np.log(n)))) * deviation
        largest = min(largest, 1.5 * in_turn)
    else:
        depth, levels = merges(n, chunked=True), log2(max(n, 2))
        steady = (depth * abs(mean) + 3 * span) * sqrt(5 + 2 * levels)
        moving = (depth + 3 * sqrt(2 + 2 * levels)) * sqrt(2 * depth) * deviation
        largest = min(largest, 1.5 * sqrt(2) * (steady + moving))
    return u * float(largest)


_VARIANCE_FORMULA = "sum of ({cells} − {mean})² ÷ (n − {correction})"
MOMENTS: Mapping[str, Primitive] = {name: Primitive(_VARIANCE_FORMULA, variance, partial(_error, name)) for name in KERNELS}
