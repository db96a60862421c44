"""Distances between rows, lengths of vectors, weight norm. Uses precision and NumPy."""

from collections.abc import Mapping

import numpy as np

from convscope.reference.operation import Operation, wide
from convscope.reference.precision import FUNCTION, carried, cast, gamma, smallest
from convscope.reference.reductions import Axes, vector_norm, vector_norm_error
from convscope.typing import Array, DType, Numbers


def norm(x: Array, p: float | None = 2, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """norm: `vector_norm`, where no p means 2."""
    return vector_norm(cast(x, dtype), 2 if p is None else p, dim, keepdim)


def norm_error(y: Array, u: float, x: Array, p: float | None = 2, dim: Axes = None, **_: object) -> Numbers:
    """The same bound as `vector_norm_error`."""
    return vector_norm_error(y, u, x, 2 if p is None else p, dim)


def dist(x: Array, right: Array, p: float = 2) -> Array:
    """dist: the p-norm of the difference of two tensors, all cells together."""
    return vector_norm(np.asarray(x - right), p)


def dist_error(y: Array, u: float, x: Array, right: Array, p: float = 2, u_out: float = 0.0) -> Numbers:
    """A rounding of each difference, to the type of the tensors; and `vector_norm_error` of what comes then."""
    difference = np.asarray(x - right)
    if p == 0:
        return 0.0
    underflow = (difference.size * smallest(u)) ** (1 / max(p, 1.0)) if np.isfinite(p) else 0.0
    return vector_norm_error(y, u, difference, p) + (2 * u + 2 * u_out) * np.abs(y) + underflow


def cdist(x1: Array, x2: Array, p: float, compute_mode: int | None = None) -> Array:  # kernels differ
    """_cdist_forward: the p-norm of each row of `x1`, (..., P, M), minus each row of `x2`, (..., R, M): (..., P, R).

    >>> cdist(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [1.0, 0.0]]), 2.0)
    array([[5., 1.]])
    """
    lead = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    result = np.empty((*lead, x1.shape[-2], x2.shape[-2]))
    for row in range(x1.shape[-2]):  # row by row: all differences at once need much memory
        result[..., row, :] = _length(x1[..., row, None, :] - x2, p)
    return result


def cdist_error(y: Array, u: float, x1: Array, x2: Array, p: float, compute_mode: int | None = None) -> Numbers:
    """The same bound as `_length_error`."""
    return _length_error(y, u, x1.shape[-1], p)


def euclidean(x1: Array, x2: Array) -> Array:
    """_euclidean_dist: `cdist` of p = 2, which kernels expand into |x|² + |y|² - 2xy."""
    return cdist(x1, x2, 2.0)


def euclidean_error(y: Array, u: float, x1: Array, x2: Array, u_out: float = 0.0) -> Array:
    """A product of rows with M + 2 cells, whose squares have M roundings of their own: 2M + 4 of (|x| + |y|)².

    Two things cancel there, so a small distance has a large share of it: the root of a number that is e off is
    between √(d² - e) and √(d² + e). Narrow types store the squares and the sum.
    """
    first_squares, second_squares = (np.square(x).sum(-1) for x in (x1, x2))
    crossed = np.matmul(np.abs(x1), np.abs(np.swapaxes(x2, -1, -2)))
    magnitude = first_squares[..., :, None] + second_squares[..., None, :] + 2 * crossed
    square_error = (gamma(2 * x1.shape[-1] + 4, u) + 2 * u_out) * magnitude + x1.shape[-1] * smallest(u)
    wider = np.maximum(np.sqrt(y**2 + square_error) - y, y - np.sqrt(np.maximum(y**2 - square_error, 0.0)))
    return carried(wider + (2 * u + u_out) * y, magnitude, u)


def pdist(x: Array, p: float = 2.0) -> Array:
    """_pdist_forward: the distances of all pairs of rows, the first row's before the second's.

    >>> pdist(np.array([[0.0], [1.0], [4.0]]))
    array([1., 4., 3.])
    """
    rows = [_length(x[row] - x[row + 1 :], p) for row in range(len(x) - 1)]
    return np.concatenate(rows) if rows else np.empty(0)


def pdist_error(y: Array, u: float, x: Array, p: float = 2.0) -> Numbers:
    """The same bound as `_length_error`."""
    return _length_error(y, u, x.shape[-1], p)


def _length(difference: Array, p: float) -> Array:
    size = np.abs(difference)
    if p == 0:
        return np.asarray((size > 0).sum(-1), np.float64)
    return np.asarray(size.max(-1, initial=0.0) if np.isinf(p) else (size**p).sum(-1) ** (1 / p))


def _length_error(y: Array, u: float, terms: int, p: float) -> Numbers:
    """A rounding of each difference, which the power multiplies by p; a power, a sum, and a root that divides by p.

    Powers below the smallest number of the type are lost; M of them make a distance of at most (M·tiny)^(1/p).
    """
    if p == 0:
        return 0.0
    if np.isinf(p):
        return u * y
    underflow = (terms * smallest(u)) ** (1 / max(p, 1.0))
    bound = (2 * u + gamma(terms + FUNCTION + 1, u) / p + FUNCTION * u) * y + underflow
    return carried(bound, y**p, u)


def cdist_backward(grad: Array, x1: Array, x2: Array, p: float, cdist: Array) -> Array:
    """_cdist_backward: every distance's gradient, along its direction, to the row of `x1`; the distances are recorded.

    >>> x, y, one = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), np.array([[1.0]])
    >>> cdist_backward(one, x, y, 2.0, 5 * one)
    array([[-0.6, -0.8]])
    """
    result = np.zeros((*cdist.shape[:-1], x1.shape[-1]))
    for row in range(x1.shape[-2] if p else 0):
        slopes = _slopes(x1[..., row, None, :] - x2, cdist[..., row, :, None], p)
        result[..., row, :] = (grad[..., row, :, None] * slopes).sum(-2)
    return result


def cdist_backward_error(
    y: Array, u: float, grad: Array, x1: Array, x2: Array, p: float, cdist: Array
) -> Array:  # fmt: skip
    """A sum of R products, and the errors of `_slope_errors`, each times its gradient."""
    result = np.zeros(y.shape)
    for row in range(x1.shape[-2]):
        difference, lengths = x1[..., row, None, :] - x2, cdist[..., row, :, None]
        result[..., row, :] = _slope_sum_error(u, grad[..., row, :, None], difference, lengths, p)
    return result


def pdist_backward(grad: Array, x: Array, p: float, pdist: Array) -> Array:
    """_pdist_backward: every distance's gradient, along its direction, to both of its rows."""
    result, start = np.zeros(x.shape), 0
    for row in range(len(x) - 1 if p else 0):
        end = start + len(x) - 1 - row
        terms = grad[start:end, None] * _slopes(x[row] - x[row + 1 :], pdist[start:end, None], p)
        result[row] += terms.sum(0)
        result[row + 1 :] -= terms
        start = end
    return result


def pdist_backward_error(y: Array, u: float, grad: Array, x: Array, p: float, pdist: Array) -> Array:
    """As `cdist_backward_error`, of all rows but the row itself."""
    pairs = np.zeros((len(x), len(x)), np.int64)
    first, second = np.triu_indices(len(x), 1)
    pairs[first, second] = pairs[second, first] = np.arange(len(first))
    result = np.zeros(y.shape)
    for row in range(len(x) if len(x) > 1 else 0):
        others = np.delete(np.arange(len(x)), row)
        numbers = pairs[row, others][:, None]
        result[row] = _slope_sum_error(u, grad[numbers], x[row] - x[others], pdist[numbers], p)
    return result


def _slope_sum_error(u: float, grad: Array, difference: Array, lengths: Array, p: float) -> Array:
    size, slopes = np.abs(grad), np.abs(_slopes(difference, lengths, p))
    if p == 0:
        return np.zeros(slopes.shape[:-2] + slopes.shape[-1:])
    terms = size.shape[-2] + 1
    error = gamma(terms, u) * (size * slopes).sum(-2) + 1.01 * (size * _slope_errors(u, difference, lengths, p)).sum(-2)
    return np.where(np.isnan(error), np.inf, error)


def _slopes(difference: Array, lengths: Array, p: float) -> Array:
    """The slope of a distance by each difference; of a maximum, where the difference is as large as it."""
    sign = np.sign(difference)
    if p == 1:
        return np.broadcast_to(np.nan_to_num(sign), np.broadcast_shapes(sign.shape, lengths.shape))
    if np.isinf(p):
        size = np.abs(difference)
        chosen = sign * ((size == lengths) | _equal_once_rounded(size, lengths))
        return np.where(np.isnan(np.abs(size - lengths)), np.nan, chosen)
    slopes = sign * (np.abs(difference) / lengths) ** (p - 1)
    return np.where((lengths == 0) | ((difference == 0) & (p < 2)), 0.0, slopes)


def _equal_once_rounded(size: Array, lengths: Array) -> Array:
    """Whether a difference rounds to a distance that float32 holds: kernels of float32 compare what they rounded."""
    single = lengths.astype(np.float32)
    return np.asarray((size.astype(np.float32) == single) & (single == lengths))


def _slope_errors(u: float, difference: Array, lengths: Array, p: float) -> Array:
    """A rounding of the difference, which the power multiplies by p - 1; two powers, a product and a quotient.

    A power below the smallest number of the type is lost; one beyond the largest makes anything possible.
    """
    slopes = np.abs(_slopes(difference, lengths, p))
    size = np.abs(difference)
    if np.isinf(p):
        wide_kernel = u < 2.0**-40  # for which only the same number is the largest
        return np.where(wide_kernel & (size != lengths) & _equal_once_rounded(size, lengths), np.inf, 0.0)
    if p in {0, 1}:
        return np.where(np.isnan(difference) & (p == 1), np.inf, np.zeros_like(slopes))  # kernels differ in nan's sign
    divisor = lengths ** (p - 1)
    if p == 2:
        return 3 * u * slopes
    lost = np.where(slopes > 0, smallest(u) * (1 + size + 1 / np.maximum(size, smallest(u))) / divisor, 0.0)
    reach = np.maximum(divisor, size ** max(p - 1, 0.0))
    return carried((2 * FUNCTION + 4 + abs(p - 1)) * u * slopes + lost, np.where(slopes > 0, reach, 0.0), u)


def weight_norm(v: Array, g: Array, dim: int = 0) -> tuple[Array, Array]:
    """_weight_norm_interface: v scaled so that each of its slices along `dim` has the length g; and the lengths it had.

    >>> weight_norm(np.array([[3.0, 4.0]]), np.array([[10.0]]))
    (array([[6., 8.]]), array([[5.]]))
    """
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    lengths = np.sqrt(np.square(v).sum(axes, keepdims=True))
    return v * (g / lengths), lengths.reshape(g.shape)


def weight_norm_error(y: tuple[Array, Array], u: float, v: Array, g: Array, dim: int = 0) -> tuple[Array, Array]:
    """A sum of n squares, gamma(n), halved by the root, a root, a division, a product; nothing cancels."""
    inside = gamma(v.size // max(v.shape[dim], 1) + 1, u) / 2 + 2 * u
    squares = (y[1] ** 2).reshape([-1 if axis == dim % v.ndim else 1 for axis in range(v.ndim)])
    return carried((inside + 3 * u) * np.abs(y[0]), squares + 0 * y[0], u), carried(inside * y[1], y[1] ** 2, u)


def weight_norm_backward(
    grad_w: Array, saved_v: Array, saved_g: Array, saved_norms: Array, dim: int
) -> tuple[Array, Array]:
    """_weight_norm_interface_backward: the gradients of v and g, of w = g·v / |v|.

    >>> weight_norm_backward(np.ones((1, 2)), np.array([[3.0, 4.0]]), np.array([[10.0]]), np.array([[5.0]]), 0)
    (array([[ 0.32, -0.24]]), array([[1.4]]))

    Args:
        grad_w: The gradient of the scaled vectors.
        saved_v, saved_g, saved_norms: The vectors v, their lengths g after scaling, and their norms |v|.
        dim: The axis along which the vectors are counted.
    """
    scale, along, norms = _weighed(grad_w, saved_v, saved_g, saved_norms, dim)
    return scale * (grad_w - saved_v * along / norms), along.reshape(saved_g.shape)


def weight_norm_backward_error(
    _y: object, u: float, grad_w: Array, saved_v: Array, saved_g: Array, saved_norms: Array, dim: int
) -> tuple[Array, Array]:
    """Of g: a sum of n products, gamma(n), and a division. Of v: 2 roundings of scale × gradient, 4 of the other part.

    The other part inherits the error of g, times scale × v / |v|; the difference of both is rounded once more.
    """
    scale, along, norms = _weighed(grad_w, saved_v, saved_g, saved_norms, dim)
    sizes = np.abs(scale)
    terms = saved_v.size // max(saved_v.shape[dim], 1)
    reach = _weighed(np.abs(grad_w), np.abs(saved_v), saved_g, saved_norms, dim)[1]
    along_error = gamma(terms + 2, u) * reach
    scaled_size, along_size = sizes * np.abs(grad_w), sizes * np.abs(saved_v / norms)
    error = 3 * u * scaled_size + along_size * (along_error + 5 * u * (np.abs(along) + along_error))
    return carried(error, scaled_size + along_size * reach * norms, u), carried(along_error, reach * norms, u).reshape(
        saved_g.shape
    )


def _weighed(grad: Array, v: Array, g: Array, norms: Array, dim: int) -> tuple[Array, Array, Array]:
    """g / |v|, the gradient along v, and |v|, of each vector."""
    line = [-1 if axis == dim % v.ndim else 1 for axis in range(v.ndim)]
    axes = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    lengths = norms.reshape(line)
    return g.reshape(line) / lengths, (grad * v).sum(axes, keepdims=True) / lengths, lengths


DISTANCES: Mapping[str, Operation] = {
    "norm": Operation(norm, wide(norm_error)),
    "dist": Operation(dist, dist_error),
    "_cdist_forward": Operation(cdist, wide(cdist_error)),
    "_euclidean_dist": Operation(euclidean, euclidean_error),
    "_pdist_forward": Operation(pdist, wide(pdist_error)),
    "_cdist_backward": Operation(cdist_backward, wide(cdist_backward_error)),
    "_pdist_backward": Operation(pdist_backward, wide(pdist_backward_error)),
    "_weight_norm_interface": Operation(weight_norm, wide(weight_norm_error)),
}
