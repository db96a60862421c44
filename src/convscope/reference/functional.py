"""Functional: the operations of a first network as one writes them: (H, W), (C, H, W) or (N, C, H, W) in.

Uses the operations of this room, errors and NumPy. The gradients are written by hand, without automatic
differentiation: each takes the gradient of the loss with respect to an operation's output, and the operation's own
inputs, and returns the gradient with respect to those: the chain rule, one step.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from convscope.errors import ShapeError
from convscope.reference import activations, pooling
from convscope.reference.argument_checks import fitting
from convscope.reference.attention import log_softmax
from convscope.reference.attention import softmax as softmax_along
from convscope.reference.convolution import Padding, Sizes, borders_of, convolution, per_axis
from convscope.reference.pooling import max_pool
from convscope.typing import Array

Size = int | tuple[int, int]

PUBLISHED_IMAGE = np.array([[1.0, 2, 0, 1], [0, 1, 3, 1], [2, 2, 1, 0], [1, 0, 1, 3]])
"""The image of the tutorial that calculates a convolution by hand, shape (4, 4); read-only.

>>> max_pool2d(relu(conv2d(PUBLISHED_IMAGE, PUBLISHED_KERNEL)), 2)
array([[5.]])
"""
PUBLISHED_KERNEL = np.array([[1.0, 0], [0, 1]])
"""Its kernel, shape (2, 2); read-only."""
PUBLISHED_IMAGE.flags.writeable = PUBLISHED_KERNEL.flags.writeable = False


@fitting
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


@fitting
def relu(x: ArrayLike) -> Array:
    """max(x, 0), cell by cell.

    >>> relu([[-1.0, 2.0]])
    array([[0., 2.]])
    """
    return activations.relu(np.asarray(x, np.float64))


@fitting
def tanh(x: ArrayLike) -> Array:
    """The hyperbolic tangent, cell by cell: between -1 and 1.

    >>> tanh([0.0, 100.0])
    array([0., 1.])
    """
    return np.asarray(np.tanh(np.asarray(x, np.float64)))


@fitting
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


@fitting
def avg_pool2d(x: ArrayLike, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> Array:
    """The mean of each window; arguments as for `max_pool2d`, padding counts as zeros.

    >>> avg_pool2d([[[2, 5, 1], [2, 2, 3], [2, 3, 4]]], 3).round(4)
    array([[[2.6667]]])
    """
    return pooling.avg_pool(_image(x, "average pooling"), _pair(kernel_size), _step(stride), padding)


@fitting
def softmax(x: ArrayLike, dim: int = -1) -> Array:
    """exp(x) divided by the sum of exp(x) along `dim`: positive numbers that sum to 1.

    >>> softmax([0.0, np.log(3.0)])
    array([0.25, 0.75])
    """
    return softmax_along(np.asarray(x, np.float64), dim)


@fitting
def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean of -log(softmax(logits)[label]): 0 when every label is certain, log(classes) for a blind guess.

    >>> round(cross_entropy([[0.0, 0.0], [0.0, 100.0]], [0, 1]), 4)
    0.3466

    Args:
        logits: Shape (N, classes).
        labels: Shape (N,), integers from 0.

    Raises:
        ShapeError: the shapes do not fit.

    Source: PyTorch documentation, torch.nn.CrossEntropyLoss.
    """
    scores, classes = np.asarray(logits, np.float64), np.asarray(labels)
    if scores.ndim != 2 or classes.shape != scores.shape[:1]:
        raise ShapeError(f"logits of shape (N, classes) need N labels, not {scores.shape} and {classes.shape}.")
    return float(-log_softmax(scores)[np.arange(len(classes)), classes].mean())


@fitting
def mse(x: ArrayLike, target: ArrayLike) -> float:
    """The mean squared difference.

    >>> mse([1.0, 3.0], [1.0, 1.0])
    2.0

    Raises:
        ShapeError: the shapes differ.
    """
    values, targets = np.asarray(x, np.float64), np.asarray(target, np.float64)
    if values.shape != targets.shape:
        raise ShapeError(f"values and targets must have one shape, not {values.shape} and {targets.shape}.")
    return float(((values - targets) ** 2).mean())


def _image(x: ArrayLike, function: str) -> Array:
    image = np.asarray(x, np.float64)
    if image.ndim not in {2, 3, 4}:
        raise ShapeError(f"{function} takes the shape (H, W), (C, H, W) or (N, C, H, W), not {image.shape}.")
    return image


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _step(stride: Size | None) -> tuple[int, ...]:
    return () if stride is None else _pair(stride)


# Gradients: what a change of each input does to the loss


@fitting
def conv2d_backward(
    grad: Array,
    x: Array,
    weight: Array,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Gradients of a convolution: of its input, its kernels, its bias.

    Each output cell passes its gradient back along the products it was made of: to the input cell times the weight,
    to the weight times the input cell.

    >>> conv2d_backward(np.ones((1, 1, 1, 1)), np.full((1, 1, 2, 2), 3.0), np.full((1, 1, 2, 2), 5.0))[0]
    array([[[[5., 5.],
             [5., 5.]]]])

    Args:
        grad: Shape (N, K, P, Q), of the output.
        x: The input, shape (N, C, H, W).
        weight: The kernels, shape (K, C / groups, R, S).
        stride: As the convolution had; likewise the others.
        padding: Rings of zeros, or "same".
        dilation: Step between the cells of a kernel.
        groups: Number of groups of channels.

    Returns:
        Shapes (N, C, H, W), (K, C / groups, R, S) and (K,).
    """
    (n, k, *out), (r, s) = grad.shape, weight.shape[2:]
    step, spread = per_axis(stride, 2), per_axis(dilation, 2)
    borders = borders_of(padding, (r, s), spread)
    padded = np.pad(x, [(0, 0), (0, 0), *borders])
    grouped = padded.reshape(n, groups, -1, *padded.shape[2:])
    grouped_grad = grad.reshape(n, groups, k // groups, *out)
    to_weight = np.empty((groups, k // groups, *weight.shape[1:]))
    to_padded = np.zeros(grouped.shape)
    kernels = weight.reshape(to_weight.shape)
    for i, j in np.ndindex(r, s):  # the cells that kernel cell (i, j) met
        rows, columns = (
            slice(tap_index * d, tap_index * d + (count - 1) * st + 1, st)
            for tap_index, d, count, st in zip((i, j), spread, out, step, strict=True)
        )
        inputs_met = grouped[..., rows, columns]  # (N, G, C/G, P, Q)
        to_weight[..., i, j] = np.einsum("ngkpq,ngcpq->gkc", grouped_grad, inputs_met, optimize=True)
        to_padded[..., rows, columns] += np.einsum("ngkpq,gkc->ngcpq", grouped_grad, kernels[..., i, j], optimize=True)
    (top, _), (left, _) = borders
    to_x = to_padded.reshape(padded.shape)[..., top : top + x.shape[2], left : left + x.shape[3]]
    return to_x, to_weight.reshape(weight.shape), grad.sum((0, 2, 3))


@fitting
def linear_backward(grad: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of a linear layer: of its input (N, inputs), its weights (units, inputs), its bias (units,).

    >>> [g.tolist() for g in linear_backward(np.array([[1.0]]), np.array([[2.0, 3.0]]), np.array([[5.0, 7.0]]))]
    [[[5.0, 7.0]], [[2.0, 3.0]], [1.0]]
    """
    return grad @ weight, grad.T @ x, grad.sum(0)


@fitting
def relu_backward(grad: Array, x: Array) -> Array:
    """Passed on where the input was positive.

    >>> relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 5.0]

    Args:
        grad: The gradient of the output.
        x: The input, of the same shape.
    """
    return np.where(x > 0, grad, 0.0)


@fitting
def tanh_backward(grad: Array, y: Array) -> Array:
    """Times 1 - y², y the output.

    >>> tanh_backward(np.array([4.0]), np.tanh([0.0])).tolist()
    [4.0]

    Args:
        grad: The gradient of the output.
        y: The output, of the same shape.
    """
    return np.asarray(grad * (1 - y * y))


@fitting
def max_pool2d_backward(
    grad: Array, x: Array, kernel_size: tuple[int, int], stride: Sizes = (), padding: Sizes = 0
) -> Array:
    """To the winner of each window alone; of equal cells, to the first.

    >>> max_pool2d_backward(np.array([[[[7.0]]]]), np.array([[[[1.0, 4.0], [4.0, 0.0]]]]), (2, 2)).tolist()
    [[[[0.0, 7.0], [0.0, 0.0]]]]
    """
    winners = max_pool(x, kernel_size, stride, padding)[1]
    planes = x.reshape(-1, x.shape[-2] * x.shape[-1])
    out = np.zeros_like(planes)
    np.add.at(out, (np.arange(len(planes))[:, None], winners.reshape(len(planes), -1)), grad.reshape(len(planes), -1))
    return out.reshape(x.shape)


@fitting
def avg_pool2d_backward(
    grad: Array, x: Array, kernel_size: tuple[int, int], stride: Sizes = (), padding: Sizes = 0
) -> Array:
    """Shared out evenly over each window: a transposed convolution, channel by channel, with a kernel of 1 / (R·S).

    >>> avg_pool2d_backward(np.array([[[[8.0]]]]), np.zeros((1, 1, 2, 2)), (2, 2)).tolist()
    [[[[2.0, 2.0], [2.0, 2.0]]]]
    """
    (r, s), (h, w) = kernel_size, per_axis(padding, 2)
    step = kernel_size if not isinstance(stride, int) and not len(stride) else per_axis(stride, 2)
    kernel = np.full((1, 1, r, s), 1 / (r * s))
    planes = convolution(grad.reshape(-1, 1, *grad.shape[-2:]), kernel, None, step, transposed=True)
    out = np.zeros((len(planes), x.shape[-2] + 2 * h, x.shape[-1] + 2 * w))
    out[:, : planes.shape[2], : planes.shape[3]] = planes[:, 0]
    return out[:, h : h + x.shape[-2], w : w + x.shape[-1]].reshape(x.shape)


@fitting
def softmax_backward(grad: Array, y: Array, dim: int = -1) -> Array:
    """y·(grad - sum(grad·y)), y the output: raising one share lowers the others.

    >>> softmax_backward(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])).tolist()
    [[0.25, -0.25]]

    Args:
        grad: The gradient of the output.
        y: The output, of the same shape.
        dim: The axis of the classes.
    """
    return np.asarray(y * (grad - (grad * y).sum(dim, keepdims=True)))


@fitting
def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """The softmax minus 1 at the label, divided by N: what is expected minus what is right.

    >>> cross_entropy_backward(np.array([[0.0, 0.0]]), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    out = softmax(logits)
    out[np.arange(len(labels)), labels] -= 1
    return out / len(labels)


@fitting
def mse_backward(x: Array, target: Array) -> Array:
    """Twice the difference, divided by how many there are.

    >>> mse_backward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array([0., 2.])
    """
    return np.asarray(2 * (x - target) / max(1, math.prod(np.shape(x))))
