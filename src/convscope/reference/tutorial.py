"""The operations of a first network, as one writes them: (H, W), (C, H, W) or (N, C, H, W) in, plain arguments.

Knows the operations of this room, errors and NumPy.
"""

import numpy as np
from numpy.typing import ArrayLike

from convscope.errors import ShapeError
from convscope.reference import activations, pooling
from convscope.reference.convolution import Padding, convolution
from convscope.reference.softmax import log_softmax
from convscope.reference.softmax import softmax as softmax_along
from convscope.typing import Array

Size = int | tuple[int, int]


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Array:
    """Slide `weight` over `x` and sum the products.

    >>> image = [[1, 2, 0, 1], [0, 1, 3, 1], [2, 2, 1, 0], [1, 0, 1, 3]]
    >>> conv2d(image, [[1, 0], [0, 1]])
    array([[2., 5., 1.],
           [2., 2., 3.],
           [2., 3., 4.]])

    Args:
        x: Input, shape (H, W), (C, H, W) or (N, C, H, W).
        weight: Kernels, shape (K, C / groups, R, S); or one kernel for one channel, shape (R, S).
        bias: One number per kernel, shape (K,), or None.
        stride: Step between windows, in input cells; one number, or rows and columns.
        padding: Rings of zeros around the input; or "same" for as many as keep its size, "valid" for none.
        dilation: Step between the cells of one window.
        groups: Channel groups that do not see each other.

    Returns:
        Shape (K, P, Q) or (N, K, P, Q), without K for a kernel of shape (R, S);
        P = (H + 2·padding - dilation·(R - 1) - 1) // stride + 1; float64.

    Raises:
        ShapeError: wrong numbers of axes, or kernels that do not fit the input.

    Source: PyTorch documentation, torch.nn.Conv2d (cross-correlation: the kernel is not flipped).
    """
    image, kernels = _image(x, "a convolution"), np.asarray(weight, np.float64)
    single = kernels.ndim == 2
    if single:
        kernels = kernels[None, None]
    if kernels.ndim != 4:
        raise ShapeError(f"kernels have the shape (K, C, R, S), and a single one (R, S), not {kernels.shape}.")
    offset = None if bias is None else np.atleast_1d(np.asarray(bias, np.float64))
    batch = image if image.ndim == 4 else np.expand_dims(image, 0 if image.ndim == 3 else (0, 1))
    out = convolution(batch, kernels, offset, stride, padding, dilation, False, 0, groups)
    if single:
        out = out[:, 0]
    return out if image.ndim == 4 else out[0]


def relu(x: ArrayLike) -> Array:
    """max(x, 0), cell by cell.

    >>> relu([[-1.0, 2.0]])
    array([[0., 2.]])
    """
    return activations.relu(np.asarray(x, np.float64))


def tanh(x: ArrayLike) -> Array:
    """The hyperbolic tangent, cell by cell: between -1 and 1.

    >>> tanh([0.0, 100.0])
    array([0., 1.])
    """
    return np.asarray(np.tanh(np.asarray(x, np.float64)))


def max_pool2d(x: ArrayLike, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Array:
    """The largest cell of each window.

    >>> max_pool2d([[2, 5, 1], [2, 2, 3], [2, 3, 4]], 2)
    array([[5.]])

    Args:
        x: Shape (H, W), (C, H, W) or (N, C, H, W).
        kernel_size: Size of the window; one number, or rows and columns.
        stride: Step between windows; the window's size if None.
        padding: Rings of cells that never win, around the input.

    Returns:
        Shape (P, Q), (C, P, Q) or (N, C, P, Q), P = (H + 2·padding - R) // stride + 1; float64.

    Raises:
        ShapeError: `x` has another number of axes.

    Source: PyTorch documentation, torch.nn.MaxPool2d.
    """
    return pooling.max_pool(_image(x, "max pooling"), _pair(kernel_size), _step(stride), padding)[0]


def avg_pool2d(x: ArrayLike, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Array:
    """The mean of each window; arguments as for `max_pool2d`, padding counts as zeros.

    >>> avg_pool2d([[[2, 5, 1], [2, 2, 3], [2, 3, 4]]], 3).round(4)
    array([[[2.6667]]])
    """
    return pooling.avg_pool(_image(x, "average pooling"), _pair(kernel_size), _step(stride), padding)


def softmax(x: ArrayLike, dim: int = -1) -> Array:
    """exp(x) divided by the sum of exp(x) along `dim`: positive numbers that sum to 1.

    >>> softmax([0.0, np.log(3.0)])
    array([0.25, 0.75])
    """
    return softmax_along(np.asarray(x, np.float64), dim)


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean of -log(softmax(logits)[label]): 0 when every label is certain, log(classes) for a blind guess.

    >>> round(cross_entropy([[0.0, 0.0], [0.0, 100.0]], [0, 1]), 4)
    0.3466

    Args:
        logits: Shape (N, classes).
        labels: Shape (N,), whole numbers from 0.

    Raises:
        ShapeError: the shapes do not fit.

    Source: PyTorch documentation, torch.nn.CrossEntropyLoss.
    """
    scores, classes = np.asarray(logits, np.float64), np.asarray(labels)
    if scores.ndim != 2 or classes.shape != scores.shape[:1]:
        raise ShapeError(f"logits of shape (N, classes) need N labels, not {scores.shape} and {classes.shape}.")
    return float(-log_softmax(scores)[np.arange(len(classes)), classes].mean())


def mse(x: ArrayLike, target: ArrayLike) -> float:
    """The mean squared difference.

    >>> mse([1.0, 3.0], [1.0, 1.0])
    2.0

    Raises:
        ShapeError: the shapes differ.
    """
    values, wanted = np.asarray(x, np.float64), np.asarray(target, np.float64)
    if values.shape != wanted.shape:
        raise ShapeError(f"values and targets must have one shape, not {values.shape} and {wanted.shape}.")
    return float(((values - wanted) ** 2).mean())


def _image(x: ArrayLike, what: str) -> Array:
    image = np.asarray(x, np.float64)
    if image.ndim not in {2, 3, 4}:
        raise ShapeError(f"{what} takes the shape (H, W), (C, H, W) or (N, C, H, W), not {image.shape}.")
    return image


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _step(stride: Size | None) -> tuple[int, ...]:
    return () if stride is None else _pair(stride)
