"""Matrix products: mm, bmm, addmm, matmul, linear, and products of more than two. Uses errors, precision and NumPy."""

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.errors import ShapeError
from convscope.reference.argument_checks import fitting
from convscope.reference.operation import Operation, flushing
from convscope.reference.precision import carried, gamma
from convscope.typing import Array


@fitting
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Every output unit is the sum of all inputs times its weights, plus its bias.

    >>> linear(np.array([1.0, 2.0]), np.array([[3.0, 4.0], [0.5, 0.0]]), np.array([0.0, 10.0]))
    array([11. , 10.5])

    Args:
        x: Input, shape (..., inputs).
        weight: Shape (units, inputs).
        bias: Shape (units,), or None.

    Returns:
        Shape (..., units); float64.

    Raises:
        ShapeError: `weight` expects another number of inputs.

    Source: PyTorch documentation, torch.nn.Linear.
    """
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    if x.shape[-1:] != weight.shape[-1:]:
        raise ShapeError(f"the weights {weight.shape} take {weight.shape[-1]} inputs, the input {x.shape} ends in "
                         f"{x.shape[-1] if x.ndim else 'nothing'}; transpose or flatten one of them.")  # fmt: skip
    out = x @ weight.T
    return out if bias is None else out + bias


def linear_error(_y: Array, u: float, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """A sum of T products and a bias, in any order: gamma(T + 1) of the magnitudes."""
    size = linear(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias))
    return carried(gamma(x.shape[-1] + 1, u) * size, size, u)


def product(x: Array, right: Array) -> Array:
    """mm, bmm, mv, dot, matmul: rows of `x` times columns of `right`; leading axes are batches and broadcast.

    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    return np.asarray(np.matmul(x, right))


def product_error(_y: Array, u: float, x: Array, right: Array) -> Array:
    """A sum of T products, in any order: gamma(T) of the magnitudes (Higham, section 3.5)."""
    size = product(np.abs(x), np.abs(right))
    return carried(gamma(x.shape[-1], u) * size, size, u)


def addmm(x: Array, left: Array, right: Array, beta: float = 1, alpha: float = 1) -> Array:
    """addmm, addmv, baddbmm: beta·x + alpha·(left @ right). With beta = 0, `x` is not looked at, NaN included.

    >>> addmm(np.array([10.0]), np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[21.]])
    """
    if x.dtype.kind != "f":  # kernels of integers read the scales as integers
        alpha, beta = int(alpha), int(beta)
    scaled = alpha * product(left, right)
    return scaled if beta == 0 else beta * x + scaled


def addmm_error(
    _y: Array, u: float, x: Array, left: Array, right: Array, beta: float = 1, alpha: float = 1, u_out: float = 0.0
) -> Array:
    """A sum of T products and a bias: gamma(T + 1) of the magnitudes; more where a scale is written and applied.

    Where the tensors are narrower than the sum, product and scaled `x` may be rounded to their type before they are
    added, and so may the scales be (PyTorch, aten/src/ATen/native/BlasKernel.cpp, gemv).
    """
    roundings = left.shape[-1] + (1 if alpha == beta == 1 else 5)
    magnitude = addmm(np.abs(x), np.abs(left), np.abs(right), abs(beta), abs(alpha))
    between = np.abs(addmm(x, left, right, 0, alpha)) + (0.0 if beta in {0, 1} else np.abs(beta * x))
    return carried(gamma(roundings, u) * magnitude + 2 * u_out * between, magnitude, u)


# Products of more than two: addbmm, addr, and the product of three tensors of a bilinear layer


def addbmm(x: Array, left: Array, batch2: Array, beta: float = 1, alpha: float = 1) -> Array:
    """addbmm: beta·x + alpha·(the sum of all left @ batch2). With beta = 0, `x` is not looked at, NaN included."""
    return _scaled(x, np.matmul(left, batch2).sum(0), beta, alpha)


def addbmm_error(
    _y: Array, u: float, x: Array, left: Array, batch2: Array, beta: float = 1, alpha: float = 1, u_out: float = 0.0
) -> Array:
    """A sum of B·T products, each batch scaled and added to the result in the type of the result: B stores."""
    batches, _, depth = left.shape
    size = np.abs(addbmm(np.abs(x), np.abs(left), np.abs(batch2), abs(beta), abs(alpha)))
    roundings = batches * depth + (1 if alpha == beta == 1 else 5 + batches)
    return carried((gamma(roundings, u) + gamma(2 * batches + 2, u_out)) * size, size, u)


def addr(x: Array, vec1: Array, vec2: Array, beta: float = 1, alpha: float = 1) -> Array:
    """addr: beta·x + alpha·(the outer product of two vectors).

    >>> addr(np.zeros((1, 2)), np.array([2.0]), np.array([3.0, 4.0]))
    array([[6., 8.]])
    """
    return _scaled(x, np.multiply.outer(vec1, vec2), beta, alpha)


def addr_error(_y: Array, u: float, x: Array, vec1: Array, vec2: Array, beta: float = 1, alpha: float = 1) -> Array:
    """Two scales written and applied, a product and a sum, all in the type of the result: 6 of the magnitudes."""
    return gamma(6, u) * addr(np.abs(x), np.abs(vec1), np.abs(vec2), abs(beta), abs(alpha))


def _scaled(x: Array, product: Array, beta: float, alpha: float) -> Array:
    if product.dtype.kind != "f":  # kernels of integers read the scales as integers
        alpha, beta = int(alpha), int(beta)
    return alpha * product if beta == 0 else beta * x + alpha * product


def trilinear(
    i1: Array, i2: Array, i3: Array, expand1: Sequence[int], expand2: Sequence[int], expand3: Sequence[int],
    sumdim: Sequence[int], unroll_dim: int = 1,
) -> Array:  # fmt: skip
    """_trilinear: three tensors, each with new axes of length 1, multiplied and summed over some axes.

    >>> x, w, y = np.array([[2.0]]), np.array([[[3.0]]]), np.array([[5.0]])
    >>> trilinear(x, w, y, [1, 3], [0], [1, 2], [2, 3])
    array([[30.]])
    """
    spread = (np.expand_dims(x, tuple(axes)) for x, axes in ((i1, expand1), (i2, expand2), (i3, expand3)))
    labels = []
    for x in spread:
        axes_kept = [axis for axis in range(x.ndim) if x.shape[axis] != 1]
        labels.append((x.reshape([x.shape[axis] for axis in axes_kept]), axes_kept))
    rank = i1.ndim + len(expand1)
    sizes = np.ones(rank, int)
    for x, axes_kept in labels:
        sizes[axes_kept] = x.shape
    out = [axis for axis in range(rank) if axis not in sumdim]
    present = {axis for _, axes_kept in labels for axis in axes_kept}
    flat = [part for x, axes_kept in labels for part in (x, axes_kept)]
    total = np.einsum(*flat, [axis for axis in out if axis in present], optimize=False)
    return np.asarray(total).reshape([sizes[axis] for axis in out])


def trilinear_error(
    _y: Array, u: float, i1: Array, i2: Array, i3: Array, expand1: Sequence[int], expand2: Sequence[int],
    expand3: Sequence[int], sumdim: Sequence[int], unroll_dim: int = 1, u_out: float = 0.0,
) -> Array:  # fmt: skip
    """T terms of two products: gamma(T + 1) of the magnitudes; narrow types store sums over one input, and parts."""
    size = trilinear(np.abs(i1), np.abs(i2), np.abs(i3), expand1, expand2, expand3, sumdim)
    spread = [np.expand_dims(x, tuple(a)).shape for x, a in ((i1, expand1), (i2, expand2), (i3, expand3))]
    sizes = np.broadcast_shapes(*spread)
    parts = sizes[unroll_dim] if unroll_dim in sumdim else 1
    terms = int(np.prod([sizes[axis] for axis in sumdim]))
    return carried((gamma(terms + 1, u) + gamma(2 + parts, u_out)) * size, size, u)


def cross(x: Array, right: Array, dim: int = -1) -> Array:
    """linalg_cross: the vector that is perpendicular to two others, as long as the area between them.

    >>> cross(np.array([1.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0]))
    array([0., 0., 2.])
    """
    left, other = (np.moveaxis(a, dim, 0) for a in np.broadcast_arrays(x, right))
    return np.stack([left[i - 2] * other[i - 1] - left[i - 1] * other[i - 2] for i in range(3)], dim)


def cross_error(_y: Array, u: float, x: Array, right: Array, dim: int = -1) -> Array:
    """Two products and a difference: three roundings of the magnitudes."""
    left, other = (np.moveaxis(np.abs(a), dim, 0) for a in np.broadcast_arrays(x, right))
    size = np.stack([left[i - 2] * other[i - 1] + left[i - 1] * other[i - 2] for i in range(3)], dim)
    return carried(gamma(2, u) * size, size, u)


OUTER_PRODUCTS: Mapping[str, Operation] = {
    "linalg_cross": Operation(cross, cross_error),
    "addbmm": Operation(addbmm, flushing(addbmm_error, addbmm, "left", "batch2")),
    "addr": Operation(addr, addr_error),
    "_trilinear": Operation(trilinear, trilinear_error),
}
