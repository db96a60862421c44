"""Parts: boxes of cells that fill an array, and what an operation takes to make the cells of one. Uses NumPy."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from convscope.reference.operation import Arguments
from convscope.typing import Array

Box = tuple[slice, ...]
Shape = tuple[int, ...]

CELLS = 2**18
"""Cells of a part, where the operation can be cut so finely: 2 MB of float64."""
ALL = slice(None)


class Part(NamedTuple):
    """Some cells of a result."""

    box: Box
    """Where they are in the first result."""
    arguments: Arguments
    """What the operation takes to make them."""
    others: Box | None = None
    """Where they are in its other results, if not at the same place."""
    outputs: tuple[int, ...] | None = None
    """Which results the operation gives with these arguments, where it leaves some out."""


Cut = Callable[[Arguments, Shape, int], Iterator[Part]]
"""(arguments by their ATen names, shape of the first result, cells) -> parts of at most `cells` cells."""


def boxes(shape: Shape, axes: Sequence[int], cells: int = CELLS) -> Iterator[Box]:
    """Boxes that fill an array, cut along `axes`, the first axis first, until none has more than `cells` cells.

    >>> [box[0] for box in boxes((3, 4), (0,), 8)]
    [slice(0, 2, None), slice(2, 3, None)]
    """
    size = math.prod(shape)
    if size <= cells or not axes:
        yield (ALL,) * len(shape)
        return
    axis, *rest = axes
    each = max(1, cells * shape[axis] // size)
    for start in range(0, shape[axis], each):
        length = min(each, shape[axis] - start)
        for box in boxes((*shape[:axis], length, *shape[axis + 1 :]), rest, cells):
            yield (*box[:axis], slice(start, start + length), *box[axis + 1 :])


def first_of(arguments: Arguments) -> tuple[str, Array]:
    """The input's name and numbers: the first argument."""
    name = next(iter(arguments))
    return name, arguments[name]
