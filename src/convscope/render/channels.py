"""Channels: the planes of a window, one for each channel that it covers. Knows expressions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convscope.expr.expr import Dot, exact_sum

LARGEST = 64
"""Larger windows are not drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """The terms of one channel of a window."""

    number: int | None
    """The channel of the tensor that contains the window; None if there is only one."""
    terms: NDArray[np.int64]
    """Indices into the sum's terms, shape (R, S)."""
    total: float
    """The sum of its products."""


def area_of(dot: Dot) -> int:
    """Number of consecutive terms in each plane of the window; 0 if the sum is not a window of planes."""
    grid = dot.left.grid
    kernel = dot.right is not None and dot.right.source.kind != "computed"
    if len(grid) - kernel != 2 or len(dot.left.source.shape) < 3 or max(grid[-2:]) > LARGEST or len(dot.left) < 2:
        return 0
    return int(np.prod(grid[-2:]))


def channels_of(dot: Dot) -> list[Channel]:
    """The window's planes, one per channel; empty if the sum is not a window of planes.

    Args:
        dot: A convolution, a pooling, an interpolation, a mean over planes.
    """
    shape = dot.left.source.shape
    if not area_of(dot):
        return []
    planes = np.arange(len(dot.left)).reshape(-1, *dot.left.grid[-2:])
    products = dot.products
    numbers = [int(dot.left.cells[plane[0, 0], -3]) if shape[-3] > 1 else None for plane in planes]
    return [Channel(k, plane, exact_sum(products[plane].ravel())) for k, plane in zip(numbers, planes, strict=True)]
