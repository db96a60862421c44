"""Reductions: sum, mean, variance, product, norm, running sums, log of a sum of exponentials.

Knows precision and NumPy. `dim` is an axis, several, or None (or none of them) for all, as in PyTorch.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack

import numpy as np

from convscope.reference.precision import FUNCTION, carried, cast, gamma, smallest
from convscope.typing import Array, DType, Numbers

Axes = int | Sequence[int] | None


def axes_of(dim: Axes, rank: int) -> tuple[int, ...]:
    """The axes that `dim` means, counted from the front.

    >>> axes_of(None, 3), axes_of(-1, 3), axes_of([0, -2], 3)
    ((0, 1, 2), (2,), (0, 1))
    """
    if dim is None or (not isinstance(dim, int | np.integer) and not len(dim)):
        return tuple(range(rank))
    return tuple(int(d) % rank if rank else 0 for d in np.atleast_1d(dim)) if rank else ()


def count_of(x: Array, dim: Axes) -> int:
    """How many cells meet in one cell of the result."""
    return int(np.prod([x.shape[a] for a in axes_of(dim, x.ndim)], dtype=np.int64))


def total(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """sum: of float64 cells, or of integers and booleans as int64."""
    return np.asarray(cast(x, dtype).sum(axes_of(dim, x.ndim), keepdims=keepdim))


def total_error(y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Numbers:
    """Higham, section 4.2: any order of n additions is within gamma(n) of the sum of magnitudes; integers exact."""
    if y.dtype.kind != "f":
        return 0.0
    size = total(np.abs(x), dim, keepdim, dtype)
    return carried(gamma(count_of(x, dim), u) * size, size, u)


def mean(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """mean: the sum divided by the count; NaN of nothing."""
    return np.asarray(np.divide(cast(x, dtype).sum(axes_of(dim, x.ndim), keepdims=keepdim), count_of(x, dim)))


def mean_error(_y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """As a sum, and a division."""
    size, count = mean(np.abs(x), dim, keepdim, dtype), count_of(x, dim)
    return carried(gamma(count + 2, u) * size, count * size, u)


def product_of(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """prod: all cells multiplied."""
    return np.asarray(cast(x, dtype).prod(axes_of(dim, x.ndim), keepdims=keepdim))


def product_of_error(y: Array, u: float, x: Array, dim: Axes = None, **_: object) -> Numbers:
    """n multiplications: gamma(n) of the result (Higham, lemma 3.1); and what underflows, times all above 1."""
    if y.dtype.kind != "f":
        return 0.0
    axes, size = axes_of(dim, x.ndim), np.abs(x)
    low = np.where((size > 0) & (size < 1), size, 1.0).prod(axes)
    lost = np.where(low < smallest(u), count_of(x, dim) * smallest(u) * np.maximum(size, 1.0).prod(axes), 0.0)
    return gamma(count_of(x, dim), u) * np.abs(y) + lost.reshape(y.shape)


def running_sum(x: Array, dim: int, dtype: DType = None) -> Array:
    """cumsum: each cell plus all before it on the axis."""
    return cast(x, dtype).cumsum(dim) if x.ndim else x


def running_sum_error(y: Array, u: float, x: Array, dim: int, dtype: DType = None) -> Numbers:
    """As a sum of as many cells as the axis has, at most."""
    if y.dtype.kind != "f":
        return 0.0
    size = running_sum(np.abs(x), dim, dtype)
    return carried(gamma(count_of(x, dim), u) * size, size, u)


class Degrees(TypedDict, total=False):
    """What the squares of a variance are divided by, in either form of ATen, and whether the axes are kept."""

    correction: float | None
    keepdim: bool
    unbiased: bool | None


def var_mean(
    x: Array, dim: Axes = None, correction: float | None = None, keepdim: bool = False, unbiased: bool | None = None
) -> tuple[Array, Array]:
    """var_mean: variance and mean; the squares are divided by n - correction (1 unless said; `unbiased` False: 0).

    >>> var_mean(np.array([1.0, 2.0, 3.0]), dim=0)
    (array(1.), array(2.))
    """
    axes, minus = _choice(x, dim, correction, unbiased)
    average, variance = moments(x, axes, minus)
    return _kept(variance, axes, keepdim), _kept(average, axes, keepdim)


def var_mean_error(
    _y: object, u: float, x: Array, dim: Axes = None, correction: float | None = None, keepdim: bool = False,
    unbiased: bool | None = None, u_out: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """As `moments_error`: float32 is added in float64 or in chunks, other types in turn."""
    axes, minus = _choice(x, dim, correction, unbiased)
    kernel: Kernel = "in turn" if u_out or u < 2.0**-40 else "chunked"
    off, spread = moments_error(x, axes, u, minus, kernel)
    return _kept(spread, axes, keepdim), _kept(off, axes, keepdim)


def var(x: Array, dim: Axes = None, **how: Unpack[Degrees]) -> Array:
    """var: the first of `var_mean`."""
    return var_mean(x, dim, **how)[0]


def var_error(y: Array, u: float, x: Array, dim: Axes = None, u_out: float = 0.0, **how: Unpack[Degrees]) -> Array:
    """The same bound as `moments_error`."""
    return var_mean_error(y, u, x, dim, u_out=u_out, **how)[0]


def std(x: Array, dim: Axes = None, **how: Unpack[Degrees]) -> Array:
    """std: the square root of `var`."""
    return np.sqrt(var(x, dim, **how))


def std_error(y: Array, u: float, x: Array, dim: Axes = None, u_out: float = 0.0, **how: Unpack[Degrees]) -> Array:
    """The variance may be smaller or larger: the root of the smaller lies further off. And a rounding of the root."""
    off = var_error(y, u, x, dim, u_out, **how)
    return np.asarray(y - np.sqrt(np.maximum(0, y**2 - off)) + 2 * u * y + np.where(y**2 < off, np.sqrt(off), 0.0))


def std_mean(x: Array, dim: Axes = None, **how: Unpack[Degrees]) -> tuple[Array, Array]:
    """std_mean: standard deviation and mean."""
    variance, average = var_mean(x, dim, **how)
    return np.sqrt(variance), average


def std_mean_error(
    y: tuple[Array, ...], u: float, x: Array, dim: Axes = None, u_out: float = 0.0, **how: Unpack[Degrees]
) -> tuple[Array, Array]:
    """As `std_error` and `moments_error`."""
    return std_error(y[0], u, x, dim, u_out, **how), var_mean_error(y, u, x, dim, u_out=u_out, **how)[1]


def vector_norm(x: Array, order: float = 2, dim: Axes = None, keepdim: bool = False) -> Array:
    """linalg_vector_norm: (sum |x|^order)^(1/order); infinities give the largest and smallest magnitude, 0 counts.

    >>> vector_norm(np.array([3.0, -4.0])), vector_norm(np.array([3.0, -4.0]), np.inf)
    (array(5.), array(4.))
    """
    axes, size = axes_of(dim, x.ndim), np.abs(x)
    if np.isinf(order):
        return np.asarray(size.max(axes, keepdims=keepdim) if order > 0 else size.min(axes, keepdims=keepdim))
    if order == 0:
        return np.asarray((x != 0).sum(axes, keepdims=keepdim), np.float64)
    return np.asarray((size**order).sum(axes, keepdims=keepdim) ** (1.0 / order))


def vector_norm_error(y: Array, u: float, x: Array, order: float = 2, dim: Axes = None, **_: object) -> Numbers:
    """No term cancels: n additions and two powers are a relative error, which the root divides by |order|.

    Of other orders than 1 and 2, 1 / order is written, which turns the root S^(1/order) by a share u·|log y|, and so is
    the order, which turns each power by u·|order·log x| and the root by a share of it.

    Powers of small numbers underflow, and those of large ones with a negative order. If a sum S may be off by b, n
    times the smallest number, its root is off by at most S^(1/order)·b/S for S >= b and an order of 1 or more, because
    the root is concave, and by b^(1/order) below. Of other orders, it is between the roots of S - b and S + b.
    """
    if np.isinf(order) or order == 0:
        return 0.0
    plain, count = order in {1, 2}, count_of(x, dim)
    share = gamma(count + (1 if plain else FUNCTION), u) / abs(order) + (0 if order == 1 else FUNCTION * u)
    if not plain:
        logs = np.abs(np.log(np.where((x != 0) & np.isfinite(x), np.abs(x), 1.0)))
        share = share + u * (logs.max(initial=0.0) + np.abs(np.log(np.where(y > 0, y, 1.0))))
    size, lost = np.abs(y), count * smallest(u)
    total = size**order
    off = np.where(size > 0, share * size, 0.0)
    if order > 1:
        rest = size * lost / np.where(total >= lost, total, 1.0)
        off = off + np.where(total >= lost, rest, np.where(y != 0, lost ** (1 / order), 0.0))
    elif order != 1:
        around = [np.abs(np.maximum(total + by, 0.0) ** (1 / order) - size) for by in (-lost, lost)]
        off = off + np.where(y != 0, np.maximum(*around), 0.0)
    return carried(off, total, u)


def _choice(x: Array, dim: Axes, correction: float | None, unbiased: bool | None) -> tuple[tuple[int, ...], float]:
    """The forms of ATen: var(x, unbiased), var(x, dim, unbiased), var(x, dim, correction=...)."""
    if unbiased is not None:
        correction = 1.0 if unbiased else 0.0
    return axes_of(dim, x.ndim), 1.0 if correction is None else correction


def _kept(values: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    return values if keepdim else np.asarray(values.squeeze(axes))


# Moments: mean and variance over some axes, and how far kernels may be from them. PyTorch's kernels differ in how they
# add, and with it in how large their errors can be:
#
# - "chunked": Welford's updates in chunks of 16, merged pairwise, lane by lane (ATen/native/cpu/moments_utils.h, for
#   layer norm and group norm of contiguous memory); on a GPU the threads of a block share a row. Variances of float32
#   on a CPU and batch norm of contiguous float32 are added in float64, which is far better.
# - "in turn": one cell after the other, the mean first and the squares after it, or both by Welford's updates (batch
#   norm of channels-last memory, variances of other types).
# - "one pass": sums of cells and of squares, subtracted in the end (group norm of channels-last memory).


Kernel = Literal["chunked", "in turn", "one pass"]


def moments(x: Array, axes: tuple[int, ...], correction: float = 0) -> tuple[Array, Array]:
    """Mean and variance over `axes`, which are kept with length 1; the squares are divided by n - `correction`.

    >>> moments(np.array([1.0, 3.0]), (0,))
    (array([2.]), array([1.]))
    """
    average = _mean(x, axes)
    squares = ((x - average) ** 2).sum(axes, keepdims=True)
    return average, squares / np.maximum(0, _count(x, axes) - correction)


def moments_error(
    x: Array,
    axes: tuple[int, ...],
    u: float,
    correction: float = 0,
    kernel: Kernel = "in turn",
    squares: Kernel | None = None,
) -> tuple[Array, Array]:
    """How far a kernel's mean and variance may lie from `moments`.

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
        x: The cells.
        axes: Over which; kept with length 1.
        u: Unit roundoff of the type the kernel adds in.
        correction: Taken from n, as for `moments`.
        kernel: How it adds.
        squares: How it adds the squares, where that is better than the mean: two passes, each in turn.
    """
    n = _count(x, axes)
    average = _mean(x, axes)
    if n == 1:  # the number itself, and the square of its distance from itself: no kernel rounds either
        return np.zeros_like(average), np.zeros_like(average)
    variance = _mean((x - average) ** 2, axes)
    span = np.asarray(x.max(axes, keepdims=True) - x.min(axes, keepdims=True)) if n else np.zeros_like(average)
    depth, deviation = _depth(n, kernel), np.sqrt(variance)
    by = _second_order(depth, u)
    steady = (min(depth, (n + 1) / 2) + 1) * np.abs(average)
    off = by * (steady + (depth + 3 * _root(n, 2, 1)) * deviation + 3 * span)
    if kernel == "one pass":
        sum_of_squares = gamma(n + 4, u) * _mean(x**2, axes)
        spread = sum_of_squares + 2 * np.abs(average) * off + off**2
    else:
        moved = _distances(n, average, deviation, span, u, squares or kernel)
        if squares is None and kernel == "in turn":
            moved = moved + 2 * off
        spread = 2 * deviation * moved + moved**2 + off**2 + by * (2 * depth + 8) * variance
    largest_sum = n * (_mean(x**2, axes) if kernel == "one pass" else variance)
    return off, carried(spread, largest_sum, u) * n / np.maximum(0, n - correction)


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
    """
    largest = np.abs(average) + span
    any_order = 0.612 * (n + 2) * np.sqrt(1 + 2 / max(n, 1)) * _second_order(n, u) * (largest + 3 * span)
    if kernel != "chunked":
        one_by_one = (
            0.289 * (n + 2) * np.abs(average) + (0.471 * n + 3 * np.sqrt(2 + 2 * np.log(max(n, 1)))) * deviation
        )
        return np.asarray(np.minimum(any_order, 1.5 * _second_order(n, u) * one_by_one))
    depth = _depth(n, "chunked")
    steady = (depth * np.abs(average) + 3 * span) * _root(n, 5, 2)
    moving = (depth + 3 * _root(n, 2, 2)) * np.sqrt(2 * depth) * deviation
    return np.asarray(np.minimum(any_order, 1.5 * np.sqrt(2) * _second_order(depth, u) * (steady + moving)))


def _depth(n: int, kernel: Kernel) -> float:
    """In how many merges a cell is at most.

    In chunks: 16 updates, log2 of the chunks up and as many down, 16 lanes and a rest of 15; on a GPU each of at least
    128 threads has a share of the row first.
    """
    return float(min(n, 48 + 2 * np.log2(max(n, 2)) + n / 128)) if kernel == "chunked" else float(n)


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


def log_sum_exp(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """logsumexp: log of the sum of exp(x) along one or more axes."""
    axes = axes_of(dim, x.ndim)
    top = x.max(axes, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    y = top + np.log(np.exp(x - top).sum(axes, keepdims=True))
    return np.asarray(y if keepdim else y.squeeze(axes))


def log_sum_exp_error(
    y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, u_out: float = 0.0
) -> Array:
    """As `log_softmax_error`: y = max + log s; exponentials, sum and logarithm are stored in the output's type."""
    axes = axes_of(dim, x.ndim)
    wide = log_sum_exp(x, dim, True)
    top = x.max(axes, keepdims=True)
    shares = np.exp(x - wide)
    error = sum_share(x, shares, u, axes) + FUNCTION * u * np.abs(wide - top) + 2 * u * np.abs(wide)
    below = np.where(shares > 0, shares * np.abs(x - top), 0.0).sum(axes, keepdims=True)
    error = error + u_out * (3 + below + np.abs(wide - top))
    return np.asarray(error if keepdim or not x.ndim else error.reshape(y.shape))


def sum_share(x: Array, y: Array, u: float, dim: Axes) -> Array:
    """Relative error of s: each exp(d) is off by FUNCTION + |d| roundings and counts as much as its share y of s."""
    terms = int(np.prod([x.shape[a] for a in axes_of(dim, x.ndim)]))
    below = np.where(y > 0, np.abs(x - x.max(dim, keepdims=True)), 0.0)
    return np.asarray(gamma(terms, u) + u * (FUNCTION + (y * below).sum(dim, keepdims=True)))
