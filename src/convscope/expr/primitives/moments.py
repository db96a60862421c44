"""Moments: means and variances of many numbers, and how far a kernel that merges parts may be from them.

A kernel merges parts of a row, from single cells up to all of them. With D merges on a cell's way, a mean is off by
about u·D·|mean|, plus u·D standard deviations; that moves every squared distance which was taken from it (Chan, Golub
and LeVeque, The American Statistician 37, 1983). How large D is depends on the kernel, see `KERNELS`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log, log2, sqrt
from typing import NamedTuple

import numpy as np

from convscope.expr.precision import Precision, sums
from convscope.expr.primitives.primitive import Primitive
from convscope.typing import Numbers, Row

# ruff: noqa: ARG001 - what is called through one table has one signature


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


def mean_roundings(rows: Row, kernel: str = "variance") -> Numbers:
    """How many roundings of the mean magnitude are as much as a kernel's mean may be off; of each row.

    Half of all cells come before a cell on average, however a kernel merges; the distances from the mean are one
    standard deviation on average at each level; what a larger part moves a smaller one is at most the range.
    """
    n = rows.shape[-1]
    largest = np.maximum(np.max(rows, axis=-1, initial=0.0), -np.min(rows, axis=-1, initial=0.0))
    if not n:
        return np.ones_like(largest)
    moderate = (largest > 0) & (largest < np.inf)
    with np.errstate(all="ignore"):
        unit = np.where(moderate, largest, 1.0)[..., None]  # no square is then too large or too small for float64
        mean = sums(rows, lambda part: part / unit) / n
        deviation = np.sqrt(sums(rows, lambda part: np.square(part / unit - mean[..., None])) / n)
        depth = merges(n, chunked=KERNELS[kernel].chunked)
        roundings = (min(depth, (n + 1) / 2) + 1) * np.abs(mean)
        roundings += (depth + 3 * sqrt(log2(max(n, 2)) + 2)) * deviation + 3 * np.ptp(rows, axis=-1) / unit[..., 0]
        return np.where(moderate, 1.01 * roundings / (sums(rows, lambda part: np.abs(part / unit)) / n), 1.0)


def variance(rows: Row, mean: Numbers, correction: Numbers) -> Numbers:
    """The mean square distance from the mean, by n - correction; of each row, nan of none."""
    if not rows.shape[-1]:
        return np.full(rows.shape[:-1], np.nan)
    with np.errstate(all="ignore"):
        squares = sums(rows, lambda part: np.square(part - np.asarray(mean)[..., None]))
        return np.divide(squares, np.maximum(rows.shape[-1] - correction, 0.0))


def _error(
    kernel: str, precision: Precision, result: Numbers, values: tuple[Row, Numbers, Numbers], errors: Sequence[Numbers]
) -> Numbers:
    """2·s·q + q², with s the standard deviation and q how far distances from the mean are off; and M's roundings."""
    rows, mean, correction = values
    n = rows.shape[-1]
    if n <= 1:
        return 0.0
    middle = np.asarray(mean)[..., None]
    way, spread = KERNELS[kernel], sums(rows, lambda part: np.square(part - middle)) / n
    squared = sums(rows, np.square) / n if way.at_once else 0.0
    # where a narrow mean is stored before the squares are taken, that rounding counts as well
    mean_error = errors[1] + 1.05 * precision.inner * np.abs(mean)
    depth = merges(n, chunked=way.chunked)
    if 2 * depth * precision.sum >= 1:
        return np.inf
    u = precision.sum / (1 - 2 * depth * precision.sum)
    if way.at_once:
        total = u * (n + 4) * squared + 2 * np.abs(mean) * mean_error + mean_error * mean_error
    else:
        q = _distances(rows, mean, np.sqrt(spread), u, chunked=way.distances)
        q = q + (0.0 if way.distances else 2 * mean_error)  # merged by several threads
        total = 2 * np.sqrt(spread) * q + q * q + mean_error * mean_error + (2 * depth + 8) * u * spread
    inherited: Numbers = 0.0
    if np.any(errors[0]):
        shift = errors[0] + np.max(errors[0], axis=-1, keepdims=True)
        inherited = np.sum(shift * (2 * np.abs(rows - middle) + shift), axis=-1) / n
    total = (total + inherited) * n / np.maximum(n - correction, 1.0) + precision.tiny
    largest_sum = n * (squared if way.at_once else spread)
    return np.where(largest_sum < precision.room, total, np.inf)  # the kernel's sum of squares may be infinite


def _distances(rows: Row, mean: Numbers, deviation: Numbers, u: float, *, chunked: bool) -> Numbers:
    """By how much each distance from the mean is off, as a root mean square over all merges.

    In any order: 0.408·(n + 2) of the largest number a merge handles, half as much again because Welford takes the
    second distance after the update. In turn: the mean's part grows with n, that of the standard deviation with its
    root. In chunks: D of the mean, at 5 + 2·log2 n levels, and of the standard deviation, at 2·D. On a GPU each of 128
    threads goes through its k cells in turn, whose mean may be a standard deviation from that of all; then the threads
    merge, on 11 levels, means that are off by k/2 of that and by 2k/3 of their own cells' deviation.
    """
    n, span = rows.shape[-1], np.ptp(rows, axis=-1)
    largest = 0.612 * (n + 2) * sqrt(1 + 2 / n) * (np.abs(mean) + 4 * span) if 2 * n * u < 1 else np.inf
    if not chunked:
        spread = (0.471 * n + 3 * sqrt(2 + 2 * float(np.log(n)))) * deviation
        merged = 1.5 * (0.289 * (n + 2) * np.abs(mean) + spread)
    else:
        levels = log2(max(n, 2))
        depth = min(n, 48 + 2 * levels)
        steady = (depth * np.abs(mean) + 3 * span) * sqrt(5 + 2 * levels)
        moving = (depth + 3 * sqrt(2 + 2 * levels)) * sqrt(2 * depth) * deviation
        k = max(1.0, n / 128)
        each = 0.289 * (k + 2) * np.abs(mean) + (0.76 * k + 0.578 + 3 * sqrt(2 + 2 * log(k))) * deviation
        each += sqrt(22) * ((k + 1) / 2 * np.abs(mean) + (7 * k / 6 + 4.8) * deviation)
        merged = 1.5 * np.maximum(sqrt(2) * (steady + moving), each)
    return u * np.minimum(largest, merged)


_VARIANCE_FORMULA = "sum of ({cells} − {mean})² ÷ (n − {correction})"
MOMENTS: Mapping[str, Primitive] = {
    name: Primitive(_VARIANCE_FORMULA, variance, partial(_error, name), many=True) for name in KERNELS
}
