"""Gradients of the tutorial operations, by hand: what a change of each input does to the loss.

Knows the operations of this room and NumPy; no automatic differentiation. Every function takes the gradient of the
loss with respect to an operation's output, and what the operation was given, and returns the gradient with respect to
that: the chain rule, one step.
"""

import numpy as np

from convscope.reference.convolution import Padding, Sizes, borders_of, convolution, per_axis
from convscope.reference.pooling import max_pool
from convscope.reference.softmax import softmax
from convscope.typing import Array


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
    passed = grad.reshape(n, groups, k // groups, *out)
    to_weight = np.empty((groups, k // groups, *weight.shape[1:]))
    to_padded = np.zeros(grouped.shape)
    kernels = weight.reshape(to_weight.shape)
    for i, j in np.ndindex(r, s):  # the cells that kernel cell (i, j) met
        rows, columns = (
            slice(at * d, at * d + (many - 1) * st + 1, st)
            for at, d, many, st in zip((i, j), spread, out, step, strict=True)
        )
        met = grouped[..., rows, columns]  # (N, G, C/G, P, Q)
        to_weight[..., i, j] = np.einsum("ngkpq,ngcpq->gkc", passed, met, optimize=True)
        to_padded[..., rows, columns] += np.einsum("ngkpq,gkc->ngcpq", passed, kernels[..., i, j], optimize=True)
    (top, _), (left, _) = borders
    to_x = to_padded.reshape(padded.shape)[..., top : top + x.shape[2], left : left + x.shape[3]]
    return to_x, to_weight.reshape(weight.shape), grad.sum((0, 2, 3))


def linear_backward(grad: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of a linear layer: of its input (N, inputs), its weights (units, inputs), its bias (units,).

    >>> [g.tolist() for g in linear_backward(np.array([[1.0]]), np.array([[2.0, 3.0]]), np.array([[5.0, 7.0]]))]
    [[[5.0, 7.0]], [[2.0, 3.0]], [1.0]]
    """
    return grad @ weight, grad.T @ x, grad.sum(0)


def relu_backward(grad: Array, x: Array) -> Array:
    """Passed on where the input was positive.

    >>> relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 5.0]

    Args:
        grad: Of the output.
        x: The input, of the same shape.
    """
    return np.where(x > 0, grad, 0.0)


def tanh_backward(grad: Array, y: Array) -> Array:
    """Times 1 - y², y the output.

    >>> tanh_backward(np.array([4.0]), np.tanh([0.0])).tolist()
    [4.0]

    Args:
        grad: Of the output.
        y: The output, of the same shape.
    """
    return np.asarray(grad * (1 - y * y))


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


def softmax_backward(grad: Array, y: Array, dim: int = -1) -> Array:
    """y·(grad - sum(grad·y)), y the output: raising one share lowers the others.

    >>> softmax_backward(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])).tolist()
    [[0.25, -0.25]]

    Args:
        grad: Of the output.
        y: The output, of the same shape.
        dim: The axis of the classes.
    """
    return np.asarray(y * (grad - (grad * y).sum(dim, keepdims=True)))


def cross_entropy_backward(logits: Array, labels: Array) -> Array:
    """The softmax minus 1 at the label, divided by N: what is expected minus what is right.

    >>> cross_entropy_backward(np.array([[0.0, 0.0]]), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    out = softmax(logits)
    out[np.arange(len(labels)), labels] -= 1
    return out / len(labels)


def mse_backward(x: Array, target: Array) -> Array:
    """Twice the difference, divided by how many there are.

    >>> mse_backward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array([0., 2.])
    """
    return np.asarray(2 * (x - target) / max(1, np.size(x)))
