"""Cells: reading the few numbers that one cell needs from the recorded tensors, without copying more of them.

Each index of a cell may be an array of n indices instead of one: what is read has a leading axis of length n then.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Places, along, broadcast_cell
from convscope.expr.expr import Cells, Leaf, number
from convscope.expr.precision import exact, widened
from convscope.typing import Array

Axis = Array | Sequence[int] | range | int


class Span(NamedTuple):
    """Positions on one axis that begin at a cell's own: `start` + each of `offsets`."""

    start: int
    """Or one for each of n cells, shape (n,)."""
    offsets: Array
    """int64, shape (L,), or (n, L) where they differ from cell to cell."""

    def positions(self) -> Array:
        """int64, shape (L,); of n cells (n, L)."""
        return np.asarray(self.start)[..., None] + self.offsets


def leaf(operand: Operand, cell: Cell) -> Leaf:
    """One cell of a tensor.

    >>> leaf(Operand.of(np.eye(2), "x"), (1, 1)).value()
    1.0
    """
    value = operand.array[cell]
    return Leaf(widened(value) if isinstance(value, np.ndarray) else exact(value), operand.source, cell)


def broadcast(operand: Operand | float | bool, cell: Cell, name: str) -> Leaf:
    """The number that broadcasting puts at a cell of the result; a plain number is called `name`."""
    if isinstance(operand, Operand):
        return leaf(operand, broadcast_cell(cell, operand.shape))
    return number(operand, name)


def outer(operand: Operand, axes: Sequence[Axis], *, drop_padding: bool = False) -> Cells:
    """The cells at all combinations of the given positions on each axis, of one cell.

    Positions outside the tensor are padding: 0 there, marked in `inside`, or left out with `drop_padding`.

    >>> image = Operand.of(np.arange(9.0).reshape(1, 3, 3), "image", "input")
    >>> outer(image, [0, [-1, 0], [0, 1]]).values.tolist()
    [0.0, 0.0, 0.0, 1.0]

    Returns:
        Cells whose grid has one axis for each axis that was not a single number.
    """
    spans = [axis if isinstance(axis, int | range) else Span(0, np.asarray(axis, np.int64)) for axis in axes]
    return gather(operand, spans, drop_padding=drop_padding)


def gather(operand: Operand, axes: Sequence[int | range | Span], *, drop_padding: bool = False) -> Cells:
    """As `outer`, of one cell or of n cells at once.

    >>> image = Operand.of(np.arange(9.0).reshape(1, 3, 3), "image", "input")
    >>> rows, columns = np.array([0, 1]), np.array([2, 1])
    >>> gather(image, [0, rows, Span(columns, np.arange(-1, 1))]).values.tolist()
    [[1.0, 2.0], [3.0, 4.0]]

    Args:
        operand: What to read.
        axes: For each axis a position, or n of them for n cells; or positions that are the same for all cells; or a
            `Span` that begins at each cell's own.
        drop_padding: Leave padding out; the windows of all cells must lose the same cells.
    """
    positions = [_positions(axis) for axis in axes]
    valid = [(position >= 0) & (position < size) for position, size in zip(positions, operand.shape, strict=True)]
    padded = not all(bool(v.all()) for v in valid)
    if padded and drop_padding:
        masks = [v.reshape(-1, v.shape[-1]) for v in valid]
        assert all((v == v[:1]).all() for v in masks), "these windows lose different cells to the padding"
        positions = [position[..., v[0]] for position, v in zip(positions, masks, strict=True)]
        padded = False
    count = len(positions)
    reachable = (
        [np.clip(position, 0, size - 1) for position, size in zip(positions, operand.shape, strict=True)]
        if padded
        else positions
    )
    values = _read(operand.array, reachable)
    inside = None
    if padded:
        inside = np.ones((), bool)
        for axis, fits in enumerate(valid):
            inside = inside & along(fits, axis, count)
        values = np.where(inside, values, values.dtype.type(0))
        inside = np.broadcast_to(inside, values.shape).reshape(*values.shape[: values.ndim - count], -1)
    grid = tuple(
        position.shape[-1] for position, axis in zip(positions, axes, strict=True) if isinstance(axis, range | Span)
    )
    values = values.reshape(*values.shape[: values.ndim - count], -1)
    return Cells(values, operand.source, Places(tuple(positions)), grid, inside)


def _positions(axis: int | range | Span) -> Array:
    if isinstance(axis, Span):
        return axis.positions()
    return np.arange(axis.start, axis.stop, axis.step) if isinstance(axis, range) else np.asarray(axis)[..., None]


def _read(array: Array, positions: list[Array]) -> Array:
    """The numbers at all combinations of positions, widened: shape (L, M, ...), of n cells (n, L, M, ...)."""
    count = len(positions)
    spread = [along(position, axis, count) for axis, position in enumerate(positions)]
    if not array.flags.c_contiguous or not array.size:
        return widened(np.asarray(array[tuple(spread)]))
    full_axes = 0  # axes at the end that are read as they are
    while full_axes < count and _is_all(positions[count - 1 - full_axes], array.shape[count - 1 - full_axes]):
        full_axes += 1
    lead = count - full_axes
    block = math.prod(array.shape[lead:])
    flat: Array = np.zeros((), np.intp)
    for axis in range(lead):
        flat = flat + spread[axis].reshape(spread[axis].shape[: spread[axis].ndim - full_axes]) * (
            math.prod(array.shape[axis + 1 : lead])
        )
    values = array.reshape(-1, block).take(flat, axis=0) if full_axes else array.reshape(-1).take(flat)
    return widened(np.asarray(values).reshape((*flat.shape, *array.shape[lead:])))


def _is_all(positions: Array, size: int) -> bool:
    return positions.shape == (size,) and bool((positions == np.arange(size)).all())


def row(operand: Operand, cell: Cell, dims: Sequence[int]) -> Cells:
    """All cells that differ from `cell` only along `dims`.

    >>> row(Operand.of(np.eye(3), "x"), (1, 2), [1]).values.tolist()
    [0.0, 1.0, 0.0]
    """
    return gather(operand, [range(n) if i in dims else cell[i] for i, n in enumerate(operand.shape)])


def dims_of(call: Call, operand: Operand, name: str = "dim") -> tuple[int, ...]:
    """The axes that a reduction runs over, as non-negative numbers; all of them where none are named."""
    value = call.get(name)
    count = len(operand.shape)
    if value is None or value == []:
        return tuple(range(count))
    return tuple(d % count for d in ([value] if isinstance(value, int) else value)) if count else ()


def before_reduction(cell: Cell, dims: Sequence[int], count: int) -> Cell:
    """A cell of the reduced tensor as a cell of the original, 0 along `dims`, with or without kept axes.

    >>> before_reduction((4,), (1, 2), 3)
    (4, 0, 0)
    """
    if len(cell) == count:
        return cell
    kept_indices = iter(cell)
    return tuple(0 if axis in dims else next(kept_indices) for axis in range(count))


def pair(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """A setting for each spatial axis: one number stands for all.

    >>> pair(3, 2), pair([1, 2], 2), pair([5], 2)
    ((3, 3), (1, 2), (5, 5))
    """
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def winner_of(numbers: Array) -> Array:
    """Index of the number that max pooling selects along the last axis: the last nan, else the first maximum.

    >>> winner_of(np.array([[1.0, 3.0, 3.0], [np.nan, np.nan, 3.0]])).tolist()
    [1, 1]
    """
    is_nan = np.isnan(numbers)
    last = numbers.shape[-1] - 1 - np.argmax(is_nan[..., ::-1], axis=-1)
    return np.where(is_nan.any(-1), last, np.argmax(numbers, axis=-1))


def from_last_nan(window: Cells) -> Cells:
    """The cells of one window that max pooling selects from: those from its last nan on, or all."""
    if not np.isnan(window.values).any():
        return window
    count = len(window) - int(winner_of(window.values))
    return Cells(window.values[-count:], window.source, window.cells[-count:], (count,))
