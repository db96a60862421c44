"""Moments: mean and variance over some axes, and how far kernels may be from them. PyTorch's kernels differ in how they
add, and therefore in how large their errors can be:

- "chunked": Welford's updates in chunks of 16, merged pairwise, lane by lane (ATen/native/cpu/moments_utils.h, for
  layer norm and group norm of contiguous memory); on a GPU the threads of a block share a row. Variances of float32
  on a CPU and batch norm of contiguous float32 are added in float64, which is far better.
- "in turn": one cell after the other, the mean first and the squares after it, or both by Welford's updates (batch
  norm of channels-last memory, variances of other types).
- "one pass": sums of cells and of squares, subtracted at the end (group norm of channels-last memory).

Uses precision and NumPy.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from convscope.reference.precision import carried, gamma
from convscope.typing import Array

Kernel = Literal["chunked", "in turn", "one pass"]
THREADS, LEVELS = 128, 11
"""Threads of a GPU that share a row, at least, and levels on which these merge: log2 of them and four more."""


class Moments(NamedTuple):
    """What the cells of a row have in common; every array has the axes of the row with length 1.

    >>> moments_of(np.array([1.0, 3.0]), (0,))
    Moments(cells=2, mean=array([2.]), variance=array([1.]), span=array([2.]), square=array([5.]))
    """

    cells: int
    mean: Array
    variance: Array
    """Divided by the number of cells."""
    span: Array
    """The largest less the smallest."""
    square: Array
    """The mean of the squares."""


def moments_of(x: Array, axes: tuple[int, ...]) -> Moments:
    """The moments over `axes`."""
    average = _mean(x, axes)
    span = np.asarray(x.max(axes, keepdims=True) - x.min(axes, keepdims=True)) if x.size else np.zeros_like(average)
    return Moments(_count(x, axes), average, _mean((x - average) ** 2, axes), span, _mean(x**2, axes))


def joined(parts: Sequence[Array], shape: tuple[int, ...]) -> Moments:
    """The moments of one row whose cells come some at a time, so that its float64 copy never exists as a whole.

    >>> joined([np.array([1.0]), np.array([3.0, 5.0])], (1,)).mean.tolist()
    [3.0]

    Args:
        parts: Of any shapes and float types, at least one cell each.
        shape: What each moment is shaped to.
    """
    count = sum(part.size for part in parts)
    average = sum(float(part.sum(dtype=np.float64)) for part in parts) / count
    squares, about, low, high = 0.0, 0.0, np.inf, -np.inf
    for part in parts:
        wide = part.astype(np.float64)
        squares, about = squares + float(np.square(wide).sum()), about + float(np.square(wide - average).sum())
        low, high = np.minimum(low, wide.min()), np.maximum(high, wide.max())
    each = (average, about / count, high - low, squares / count)
    return Moments(count, *(np.full(shape, number) for number in each))


def moments(x: Array, axes: tuple[int, ...], correction: float = 0) -> tuple[Array, Array]:
    """Mean and variance over `axes`, which are kept with length 1; the squares are divided by n - `correction`.

    >>> moments(np.array([1.0, 3.0]), (0,))
    (array([2.]), array([1.]))
    """
    average = _mean(x, axes)
    squares = ((x - average) ** 2).sum(axes, keepdims=True)
    count = _count(x, axes)
    return average, squares / (np.maximum(0, count - correction) if count else np.nan)


def moments_error(
    x: Array,
    axes: tuple[int, ...],
    u: float,
    correction: float = 0,
    kernel: Kernel = "in turn",
    squares: Kernel | None = None,
) -> tuple[Array, Array]:
    """How far a kernel's mean and variance may be from `moments`: see `error_of`."""
    return error_of(moments_of(x, axes), u, correction, kernel, squares)


def error_of(
    row: Moments, u: float, correction: float = 0, kernel: Kernel = "in turn", squares: Kernel | None = None
) -> tuple[Array, Array]:
    """How far a kernel's mean and variance may be from `moments`.

    Every kernel but "one pass" merges parts a and b of n_a and n_b cells, from single cells up to all of them, with
    d = m_b - m_a, c = n_b / n, w = n_a·n_b / n (Chan, Golub, LeVeque, The American Statistician 37, 1983):

        m = m_a + c·d        M = M_a + M_b + w·d²        (M: sum of squared distances from the mean)

    The mean. A merge rounds by u·(|m| + 3·|c·d|), and hands a share n_a/n and n_b/n of earlier errors on. The root's
    error is therefore the sum over all merges of n/n_all of that. Each cell is in at most D merges, (n + 1)/2 on
    average in the most lopsided tree; |m| <= |mean| + |m - mean|, and the parts of one level deviate by no more than
    the standard deviation s on average, so the first terms add up to u·(min(D, (n + 1)/2)·|mean| + D·s). Of the
    second, those where b is the smaller part are, by Cauchy and Schwarz and because all w·d² add up to n·s², at most
    3u·s·sqrt(log2 n + 2); those where it is the larger are disjoint: at most 3u times the range. A plain sum has the
    first terms alone.

    The variance. M's own roundings are 7u of each w·d² and 2u of M for each level, together (2D + 8)·u·n·s². What the
    errors e of the means do to d is, by Cauchy and Schwarz, at most 2·sqrt(n·s²)·sqrt(sum of w·(|e_a| + |e_b|)²), a
    half more in Welford's form, whose second distance is taken after the update; call that 2·n·s·q, see `_distances`;
    q² is its second order. In two passes the errors of the mean add up to 0, which leaves the square of it. A sum of
    squares beyond the type is infinite on its way, and nothing is known of the variance.

    Args:
        row: The moments of the cells.
        u: Unit roundoff of the type the kernel adds in.
        correction: Taken from n, as for `moments`.
        kernel: How it adds.
        squares: How it adds the squares, where that is better than the mean: two passes, each in turn.
    """
    n, average, variance, span, square = row
    if n == 1:  # the number itself, and the square of its distance from itself: no kernel rounds either
        return np.zeros_like(average), np.zeros_like(average)
    depth, deviation = _depth(n, kernel), np.sqrt(variance)
    roundoff = _second_order(depth, u)
    steady = (min(depth, (n + 1) / 2) + 1) * np.abs(average)
    mean_error = roundoff * (steady + (depth + 3 * _root(n, 2, 1)) * deviation + 3 * span)
    if kernel == "one pass":
        sum_of_squares = gamma(n + 4, u) * square
        spread = sum_of_squares + 2 * np.abs(average) * mean_error + mean_error**2
    else:
        distance_error = _distances(n, average, deviation, span, u, squares or kernel)
        if squares is None and kernel == "in turn":
            distance_error = distance_error + 2 * mean_error
        spread = (
            2 * deviation * distance_error + distance_error**2 + mean_error**2 + roundoff * (2 * depth + 8) * variance
        )
    largest_sum = n * (square if kernel == "one pass" else variance)
    return mean_error, carried(spread, largest_sum, u) * n / np.maximum(0, n - correction)


def _distances(n: int, average: Array, deviation: Array, span: Array, u: float, kernel: Kernel) -> Array:
    """q of `moments_error`: root of the mean of w·(|e_a| + |e_b|)², one and a half times for Welford's form.

    In any tree, e <= u·(n + 1)/2·A with A the largest |m| + 3·|c·d|, and the sum of min(n_a, n_b)·(n + 2)²/4 over all
    merges is at most (n + 2)³/6, by induction: t/4 + (t³ + (1 - t)³)/6 <= 1/6 for t <= 1/2.

    In turn, e of the first k cells is at most u·((k + 1)/2·|mean| + (2/3·sqrt(k·n) + 3·sqrt(2n/k))·s), by Cauchy and
    Schwarz over the distances so far, which is squared and added up over k; the caller adds 2·off for what several
    threads merge.

    In chunks, e <= u·(D·|mean| + 3·range) + u·(D + 3·sqrt(2·log2 n + 2))·r, with r the root mean square distance of the
    part's cells from the mean. Updates within a chunk add up to n in w, each level of pairwise merges to n/4, the
    merges of up to 16 lanes to n: (5 + 2·log2 n)·n for the first term; n·r² of one level is at most n·s², on D levels.

    A GPU's threads add k cells in turn each, and merge what they have on L levels; the bound is the larger one of both.
    With the mean m_t and the deviation s_t of a thread's cells, the merges of all threads add up to the mean of their
    k·q², where the roots of the mean of m_t² and s_t² are at most |mean| + s and s. Above them, a part's error is the
    mean of its threads', each u·((k + 1)/2·|m_t| + (2/3·k + 3·sqrt(2))·s_t), and each of the L levels adds up to twice
    n times its mean square. More threads than 128 make k smaller by more than the root of L larger.
    """
    largest = np.abs(average) + span
    any_order = 0.612 * (n + 2) * np.sqrt(1 + 2 / max(n, 1)) * _second_order(n, u) * (largest + 3 * span)
    if kernel != "chunked":
        one_by_one = (
            0.289 * (n + 2) * np.abs(average) + (0.471 * n + 3 * np.sqrt(2 + 2 * np.log(max(n, 1)))) * deviation
        )
        return np.asarray(np.minimum(any_order, 1.5 * _second_order(n, u) * one_by_one))
    depth = _depth(n, "chunked", threads=False)
    steady = (depth * np.abs(average) + 3 * span) * _root(n, 5, 2)
    moving = (depth + 3 * _root(n, 2, 2)) * np.sqrt(2 * depth) * deviation
    in_chunks = np.sqrt(2) * _second_order(depth, u) * (steady + moving)
    share = max(1.0, n / THREADS)
    size = np.abs(average) + deviation
    inside = 0.289 * (share + 2) * size + (0.471 * share + 3 * np.sqrt(2 + 2 * np.log(share))) * deviation
    above = ((share + 1) / 2 * size + (2 * share / 3 + 4.3) * deviation) * np.sqrt(2 * LEVELS)
    by_threads = _second_order(share + LEVELS, u) * (inside + above)
    return np.asarray(np.minimum(any_order, 1.5 * np.maximum(in_chunks, by_threads)))


def _depth(n: int, kernel: Kernel, *, threads: bool = True) -> float:
    """In how many merges a cell is at most.

    In chunks: 16 updates, log2 of the chunks up and as many down, 16 lanes and a rest of 15; on a GPU each of at least
    128 threads has a share of the row first.
    """
    if kernel != "chunked":
        return float(n)
    return float(min(n, 48 + 2 * np.log2(max(n, 2)) + (n / THREADS if threads else 0)))


def _root(n: int, constant: float, levels: float) -> float:
    return float(np.sqrt(constant + levels * np.log2(max(n, 2))))


def _second_order(depth: float, u: float) -> float:
    """u, with the higher-order errors of `merges` merges; infinite if these dominate."""
    return u / (1 - 2 * depth * u) if 2 * depth * u < 1 else np.inf


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    """NaN of nothing, without NumPy's warning."""
    return np.asarray(np.divide(x.sum(axes, keepdims=True), _count(x, axes)))


def _count(x: Array, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
