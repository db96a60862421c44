"""Backward partition: how the gradient of a large input is recomputed some cells at a time.

A gradient is cut where its forward operation falls apart: into single cells, planes, or rows of a softmax.
Normalizations have their own file; convolutions are with their forward operation. Uses NumPy.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from convscope.reference.operation import Arguments
from convscope.reference.parts import ALL, Box, Cut, Part, Shape, boxes


def alike(axes: Callable[[Arguments, Shape], Sequence[int]], *names: str) -> Cut:
    """Several tensors have these axes as the result has them, and cells that differ in them read nothing of each other.

    Args:
        axes: (arguments, shape of the result) -> the axes.
        names: The tensors.
    """

    def cut(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
        tensors = {name: arguments[name] for name in names if isinstance(arguments.get(name), np.ndarray)}
        fits = [
            axis
            for axis in axes(arguments, shape)
            if all(x.ndim > axis and x.shape[axis] == shape[axis] for x in tensors.values())
        ]
        size, largest = math.prod(shape), max(x.size for x in tensors.values())
        for box in boxes(shape, fits, max(1, cells * size // max(size, largest, 1))):
            yield Part(box, {**arguments, **{name: x[_at(box, fits, x.ndim)] for name, x in tensors.items()}})

    return cut


def _at(box: Box, fits: Sequence[int], axes: int) -> Box:
    return tuple(box[axis] if axis in fits else ALL for axis in range(axes))


def _planes(rank: int, *names: str) -> Cut:
    """Operations with `rank` spatial axes, on each channel by itself."""
    return alike(lambda _, shape: range(len(shape) - rank), *names)


def _except_dim(arguments: Arguments, shape: Shape) -> list[int]:
    dim = int(arguments["dim"]) % max(1, len(shape))
    return [axis for axis in range(len(shape)) if axis != dim]


POINTWISE = (
    "threshold_backward", "hardtanh_backward", "softshrink_backward", "hardshrink_backward", "leaky_relu_backward",
    "_prelu_kernel_backward", "hardsigmoid_backward", "hardswish_backward", "sigmoid_backward", "tanh_backward",
    "silu_backward", "gelu_backward", "mish_backward", "softplus_backward", "elu_backward", "native_dropout_backward",
)  # fmt: skip
"""Gradients of operations that work cell by cell."""
_RESIZED = ("upsample_nearest", "_upsample_nearest_exact")
_INTERPOLATED = (("linear", 1), ("bilinear", 2), ("bicubic", 2), ("trilinear", 3))
_BORDERED = ("reflection", "replication")

BACKWARD_CUTS: Mapping[str, Cut] = {
    **{f"max_pool{rank}d_with_indices_backward": _planes(rank, "grad_output", "self", "indices") for rank in (2, 3)},
    **{f"adaptive_max_pool{rank}d_backward": _planes(rank, "grad_output", "self", "indices") for rank in (2, 3)},
    **{f"avg_pool{rank}d_backward": _planes(rank, "grad_output", "self") for rank in (2, 3)},
    **{f"_adaptive_avg_pool{rank}d_backward": _planes(rank, "grad_output", "self") for rank in (2, 3)},
    **{f"{name}{rank}d_backward": _planes(rank, "grad_output") for name in _RESIZED for rank in (1, 2, 3)},
    **{f"upsample_{name}{rank}d_backward": _planes(rank, "grad_output") for name, rank in _INTERPOLATED},
    **{f"_upsample_{name}2d_aa_backward": _planes(2, "grad_output") for name in ("bilinear", "bicubic")},
    **{f"{name}_pad{rank}d_backward": _planes(rank, "grad_output", "self") for name in _BORDERED for rank in (1, 2, 3)},
    **{f"{name}_backward_data": alike(_except_dim, "grad_output", "output") for name in ("_softmax", "_log_softmax")},
}
"""ATen name -> how its result falls into parts."""
