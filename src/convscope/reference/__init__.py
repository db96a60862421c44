"""Every operation in plain NumPy, float64: convscope's definition of what an operation means.

Uses errors and NumPy: no torch, and nothing of how operations are explained. `OPERATIONS` holds every ATen operation
that convscope can recompute, each with the error a sound kernel may make; the functions beside it are those of a first
network, to read and to train it with.

>>> float(conv2d([[[1, 2], [3, 4]]], [[[[1, 0], [0, 1]]]])[0, 0, 0])
5.0
"""

from convscope.reference.functional import (
    PUBLISHED_IMAGE,
    PUBLISHED_KERNEL,
    avg_pool2d,
    avg_pool2d_backward,
    conv2d,
    conv2d_backward,
    cross_entropy,
    cross_entropy_backward,
    linear_backward,
    max_pool2d,
    max_pool2d_backward,
    mse,
    mse_backward,
    relu,
    relu_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from convscope.reference.matmul import linear
from convscope.reference.operation import Operation, Result
from convscope.reference.table import OPERATIONS, lookup
from convscope.reference.training import LAYERS, LOSSES, OPTIMIZERS, Layer, adadelta, adam, backward, forward, sgd, step

__all__ = [
    "LAYERS",
    "LOSSES",
    "OPERATIONS",
    "OPTIMIZERS",
    "PUBLISHED_IMAGE",
    "PUBLISHED_KERNEL",
    "Layer",
    "Operation",
    "Result",
    "adadelta",
    "adam",
    "avg_pool2d",
    "avg_pool2d_backward",
    "backward",
    "conv2d",
    "conv2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "forward",
    "linear",
    "linear_backward",
    "lookup",
    "max_pool2d",
    "max_pool2d_backward",
    "mse",
    "mse_backward",
    "relu",
    "relu_backward",
    "sgd",
    "softmax",
    "softmax_backward",
    "step",
    "tanh",
    "tanh_backward",
]


def __dir__() -> list[str]:
    """The public names, without the modules that they are in: what completion offers."""
    return sorted(__all__)
