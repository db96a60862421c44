"""Dependencies: which cells of its operands an operation reads for given cells of its result.

A mask is an array that is 1 at the cells in question. A cell counts as read where the operation's definition names it,
whatever its weight; interpolation reads only what it does not multiply by 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from convscope.expr.call import Call
from convscope.ops.vjp import VJP, Matrix, Varies
from convscope.typing import Array


def as_mask(mask: Array) -> Array:
    """Any array as a mask: 1 where it is not 0."""
    return np.not_equal(mask, 0).astype(np.float32)


def everything(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells of each operand: for operations whose dependencies are not known more narrowly."""
    share = np.float32(mask.any())
    return {name: np.full(operand.shape, share) for name, operand in call.operands().items() if name in varies}


def window_matrix(length: int, out_length: int, window: Sequence[int]) -> Matrix:
    """(wanted, length): 1 where window `row` has a tap on cell `column`.

    >>> window_matrix(4, 2, (2, 2, 0, 1)).tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]

    Args:
        window: Its size, stride, padding and dilation.
    """
    size, stride, padding, dilation = window
    result = np.zeros((out_length, length), np.float32)
    taps = np.arange(out_length)[:, None] * stride - padding + np.arange(size) * dilation  # (P, R)
    inside = (taps >= 0) & (taps < length)
    result[np.nonzero(inside)[0], taps[inside]] = 1.0
    return result


def through_windows(mask: Array, matrices: Sequence[Matrix], shape: Sequence[int]) -> Array:
    """A mask on a result as a mask on the cells that it reads along its last axes.

    Only the smallest box around all cells of the mask is used, which is small for one deep cell.

    Args:
        mask: Shape (..., P, Q).
        matrices: For each of these axes (P, H): the cells that each position reads.
        shape: (H, W).

    Returns:
        Shape (..., H, W), 1 and 0.
    """
    axes, lead = len(matrices), mask.shape[: mask.ndim - len(matrices)]
    flat = mask.reshape(-1, *mask.shape[mask.ndim - axes :])
    result = np.zeros((len(flat), *shape), np.float32)
    any_mask: Array = flat.max(axis=0, initial=0.0)
    rows, columns = [], []
    for axis, matrix in enumerate(matrices):
        used = np.flatnonzero(any_mask.max(axis=tuple(a for a in range(axes) if a != axis), initial=0.0))
        row = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        reached = np.flatnonzero(matrix[row].any(axis=0))
        rows.append(row)
        columns.append(slice(int(reached[0]), int(reached[-1]) + 1) if len(reached) else slice(0, 0))
    part = flat[(slice(None), *rows)]
    for axis, matrix in enumerate(matrices):
        part = np.moveaxis(np.moveaxis(part, axis + 1, -1) @ matrix[rows[axis], columns[axis]], -1, axis + 1)
    result[(slice(None), *columns)] = part > 0
    return result.reshape(*lead, *shape)


@dataclass(frozen=True, slots=True)
class MovedCells:
    """Dependencies of an operation that only moves numbers: its VJP carries a mask to the cells they came from."""

    vjp: Callable[[Call, Array, Varies], VJP]

    def __call__(self, call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
        """A mask on the result as masks on the operands that vary."""
        if not varies:
            return {}
        with np.errstate(invalid="ignore"):  # constants beside it may be infinite
            back = self.vjp(call, as_mask(mask), varies)
        return {name: as_mask(gradient) for name, gradient in back.gradients.items()}
