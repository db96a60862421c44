"""Matrix products: mm, bmm, addmm, baddbmm, matmul, linear. Knows errors, roundoff and NumPy."""

import numpy as np

from convscope.errors import ShapeError
from convscope.reference.roundoff import carried, gamma
from convscope.typing import Array


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
