"""Places: which cells of a tensor an expression reads, written out when they are asked for. Knows NumPy."""

import math
from dataclasses import dataclass

import numpy as np

from convscope.typing import Array


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The cells at all combinations of positions on each axis, written out when they are asked for.

    >>> Places((np.array([0]), np.array([2, 3]))).cells().tolist()
    [[0, 2], [0, 3]]
    """

    positions: tuple[Array, ...]
    """On each axis, int64, shape (L,); of n cells, (n, L) where they differ from cell to cell."""

    def cells(self) -> Array:
        """int64, shape (T, axes); of n cells (n, T, axes)."""
        lead = next((at.shape[:1] for at in self.positions if at.ndim > 1), ())
        lengths = [at.shape[-1] for at in self.positions]
        cells = np.empty((*lead, *lengths, len(lengths)), np.int64)
        for axis, at in enumerate(self.positions):
            cells[..., axis] = along(at, axis, len(lengths))
        return cells.reshape(*lead, math.prod(lengths), len(lengths))


def along(positions: Array, axis: int, axes: int) -> Array:
    """Positions (L,) or (n, L) as an array that has `axes` more axes of length 1 but for one, and n before these.

    >>> along(np.zeros((7, 3)), 1, 3).shape
    (7, 1, 3, 1)
    """
    return positions.reshape(*positions.shape[:-1], *(-1 if a == axis else 1 for a in range(axes)))
