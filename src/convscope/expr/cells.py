"""Gather: reading the few numbers that one cell needs from the recorded tensors, without copying more of them."""

import math
from collections.abc import Sequence

import numpy as np

from convscope.expr.call import Array, Call, Cell, Operand, broadcast_cell
from convscope.expr.expr import Cells, Leaf, number
from convscope.expr.precision import exact, widened

Axis = Array | Sequence[int] | range | int


def leaf(operand: Operand, cell: Cell) -> Leaf:
    """One cell of a tensor.

    >>> leaf(Operand.of(np.eye(2), "x"), (1, 1)).value()
    1.0
    """
    return Leaf(exact(operand.array[cell]), operand.source, cell)


def broadcast(operand: Operand | float | bool, cell: Cell, name: str) -> Leaf:
    """The number that broadcasting puts at a cell of the result; a plain number is called `name`."""
    if isinstance(operand, Operand):
        return leaf(operand, broadcast_cell(cell, operand.shape))
    return number(operand, name)


def outer(operand: Operand, axes: Sequence[Axis], *, drop_padding: bool = False) -> Cells:
    """The cells at all combinations of the given positions on each axis.

    Positions outside the tensor are padding: 0 there, marked in `inside`, or left out with `drop_padding`.

    >>> image = Operand.of(np.arange(9.0).reshape(1, 3, 3), "image", "input")
    >>> outer(image, [0, [-1, 0], [0, 1]]).values.tolist()
    [0.0, 0.0, 0.0, 1.0]

    Returns:
        Cells whose grid has one axis for each axis that was not a single number.
    """
    positions = [np.atleast_1d(np.asarray(axis, np.int64)) for axis in axes]
    valid = [(at >= 0) & (at < size) for at, size in zip(positions, operand.shape, strict=True)]
    padded = not all(bool(v.all()) for v in valid)
    if padded and drop_padding:
        positions = [at[v] for at, v in zip(positions, valid, strict=True)]
        padded = False
    lengths = [len(at) for at in positions]
    cells = np.empty((*lengths, len(lengths)), np.int64)
    for axis, at in enumerate(positions):
        cells[..., axis] = at.reshape([-1 if i == axis else 1 for i in range(len(lengths))])
    reachable = (
        [np.clip(at, 0, size - 1) for at, size in zip(positions, operand.shape, strict=True)] if padded else positions
    )
    values = widened(np.asarray(operand.array[np.ix_(*reachable)]))
    inside = None
    if padded:
        inside = np.ones(lengths, bool)
        for axis, fits in enumerate(valid):
            inside &= fits.reshape([-1 if i == axis else 1 for i in range(len(lengths))])
        values = np.where(inside, values, values.dtype.type(0))
        inside = inside.reshape(-1)
    grid = tuple(n for n, axis in zip(lengths, axes, strict=True) if not isinstance(axis, int))
    return Cells(values.reshape(-1), operand.source, cells.reshape(math.prod(lengths), len(lengths)), grid, inside)


def row(operand: Operand, cell: Cell, dims: Sequence[int]) -> Cells:
    """All cells that differ from `cell` only along `dims`.

    >>> row(Operand.of(np.eye(3), "x"), (1, 2), [1]).values.tolist()
    [0.0, 1.0, 0.0]
    """
    return outer(operand, [range(n) if i in dims else cell[i] for i, n in enumerate(operand.shape)])


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
    rest = iter(cell)
    return tuple(0 if axis in dims else next(rest) for axis in range(count))


def pair(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """A setting for each spatial axis: one number stands for all.

    >>> pair(3, 2), pair([1, 2], 2), pair([5], 2)
    ((3, 3), (1, 2), (5, 5))
    """
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values
