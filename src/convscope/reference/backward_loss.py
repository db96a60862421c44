"""Losses and softmax backward, written from the derivatives of their forward functions. Uses precision and NumPy."""

import numpy as np

from convscope.reference.precision import FUNCTION, gamma
from convscope.typing import Array, DType

MEAN = 1
"""`reduction="mean"`; 0 is none, 2 is the sum."""


def log_softmax_backward(grad_output: Array, output: Array, dim: int, input_dtype: DType = None) -> Array:
    """_log_softmax_backward_data: the Jacobian is the identity minus a row of probabilities.

    >>> log_softmax_backward(np.array([0.0, -1.0]), np.log([0.25, 0.75]), 0).round(12).tolist()
    [0.25, -0.25]

    Args:
        grad_output: The gradient of the log-probabilities.
        output: The log-probabilities themselves.
        dim: Along which the probabilities sum to 1.
        input_dtype: The type of the logits; changes no number.
    """
    return np.asarray(grad_output - np.exp(output) * grad_output.sum(dim, keepdims=True))


def log_softmax_backward_error(
    y: Array,
    u: float,
    grad_output: Array,
    output: Array,
    dim: int,
    input_dtype: DType = None,
    u_out: float = 0.0,
) -> Array:
    """A sum of n gradients, an exponential, a product and a difference."""
    n = grad_output.shape[dim] if grad_output.ndim else 1
    total = np.abs(grad_output).sum(dim, keepdims=True)
    share = np.exp(output)
    exponent = u * (5 * FUNCTION + 2)  # a fast exponential, see `softmax_error` of the forward
    share_of_sum = np.abs(share * grad_output.sum(dim, keepdims=True))
    return np.asarray(share * gamma(n, u) * total + (exponent + 2 * u_out) * share_of_sum + u * np.abs(y))


def softmax_backward(grad_output: Array, output: Array, dim: int, input_dtype: DType = None) -> Array:
    """_softmax_backward_data: the Jacobian is diag(y) - y·yᵀ."""
    return np.asarray(output * grad_output - output * (output * grad_output).sum(dim, keepdims=True))


def softmax_backward_error(
    y: Array,
    u: float,
    grad_output: Array,
    output: Array,
    dim: int,
    input_dtype: DType = None,
    u_out: float = 0.0,
) -> Array:
    """A sum of n products, a difference and a product; or y·grad and y·sum apart, each rounded."""
    n = grad_output.shape[dim] if grad_output.ndim else 1
    weighted = np.abs(output * grad_output)
    total = weighted.sum(dim, keepdims=True)
    stored = u_out * (weighted + np.abs(output) * np.abs((output * grad_output).sum(dim, keepdims=True)))
    return np.asarray(gamma(n + 3, u) * np.abs(output) * total + 3 * u * weighted + u * np.abs(y) + stored)


def nll_backward(
    grad_output: Array, x: Array, target: Array, weight: Array | None, reduction: int, ignore_index: int,
    total_weight: Array,
) -> Array:  # fmt: skip
    """nll_loss_backward and nll_loss2d_backward: minus the label's weight at the label, over their sum for a mean.

    >>> nll_backward(np.array(1.0), np.zeros((2, 3)), np.array([2, 0]), None, 1, -100, np.array(2.0)).tolist()
    [[0.0, 0.0, -0.5], [-0.5, 0.0, 0.0]]

    Args:
        grad_output: The gradient of the loss: one number, or one for each label where nothing is reduced.
        x: Log-probabilities, (N, C, ...) or (C,).
        target: Labels, (N, ...) or ().
        weight: The weight of each class, (C,), or None.
        reduction: See `MEAN`.
        ignore_index: A label that does not count.
        total_weight: Sum of the weights of all labels that count.
    """
    axis = 1 if x.ndim > 1 else 0
    classes = np.arange(x.shape[axis]).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    labels = np.expand_dims(np.asarray(target), axis)
    hit = (labels == classes) & (labels != ignore_index)
    arrives = grad_output if reduction else np.expand_dims(grad_output, axis)
    weights = np.ones(x.shape[axis]) if weight is None else weight
    scale = weights.reshape(classes.shape) * arrives
    if reduction == MEAN:
        scale = scale / total_weight if float(total_weight) else np.zeros_like(scale)
    return np.where(hit, -scale, 0.0)


def mse_backward(grad_output: Array, x: Array, target: Array, reduction: int) -> Array:
    """mse_loss_backward: twice the difference, over the number of cells for a mean."""
    return np.asarray(grad_output * (x - target) * (2 / (_count(x, target) if reduction == MEAN else 1)))


def smooth_l1_backward(grad_output: Array, x: Array, target: Array, reduction: int, beta: float) -> Array:
    """smooth_l1_loss_backward: the difference over beta, cut to -1 and 1."""
    difference = x - target
    slope = np.where(difference <= -beta, -1.0, np.where(difference >= beta, 1.0, difference / beta))
    return np.asarray(grad_output * slope / (_count(x, target) if reduction == MEAN else 1))


def huber_backward(grad_output: Array, x: Array, target: Array, reduction: int, delta: float) -> Array:
    """huber_loss_backward: the difference, cut to -delta and delta."""
    return np.asarray(
        grad_output * np.clip(x - target, -delta, delta) / (_count(x, target) if reduction == MEAN else 1)
    )


def binary_cross_entropy_backward(
    grad_output: Array, x: Array, target: Array, weight: Array | None = None, reduction: int = MEAN
) -> Array:
    """The slope of -(t·log x + (1 - t)·log(1 - x)): (x - t) / (x·(1 - x)), the denominator at least 1e-12."""
    slope = (x - target) / np.maximum((1 - x) * x, 1e-12)
    scale = 1.0 if weight is None else weight
    return np.asarray(grad_output * scale * slope / (_count(x, target) if reduction == MEAN else 1))


def _count(x: Array, target: Array) -> int:
    return int(np.prod(np.broadcast_shapes(x.shape, target.shape)))
