"""Placement: the numbers of one tensor as rectangles on a sheet, with headings and the numbers of rows and columns."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from convscope.export.chain_numbers import Numbers
from convscope.typing import Array

TOP = 3
"""The first row of a sheet with numbers, below its title and description."""


class Plane(NamedTuple):
    """A rectangle of numbers on a sheet, with the numbers of its rows and columns around it."""

    heading: str
    row: int
    """The cell of its top left number; the heading is above it."""
    column: int
    height: int
    width: int
    rows: tuple[int, ...] = ()
    """The index of each row; empty where rows need no number."""
    columns: tuple[int, ...] = ()


@dataclass(eq=False)
class PlacedTensor:
    """One tensor on a sheet."""

    numbers: Numbers
    planes: list[Plane] = field(default_factory=list)
    rows: Array = field(default_factory=lambda: np.empty(0, np.int64))
    """The row of each of its numbers, (n,)."""
    columns: Array = field(default_factory=lambda: np.empty(0, np.int64))


class _View(NamedTuple):
    """How a tensor is cut into planes: those axes number the planes, these are the rows and columns of each."""

    leading: list[int]
    plane: list[int]

    @classmethod
    def of(cls, shape: tuple[int, ...], skip: int = -1) -> "_View":
        """The view of a tensor, or of its part with one index on the axis `skip`; axes of one number are left out.

        >>> _View.of((1, 8, 28, 28)), _View.of((1, 10)), _View.of((8, 3, 3, 3), skip=0)
        (_View(leading=[1], plane=[2, 3]), _View(leading=[], plane=[1]), _View(leading=[1], plane=[2, 3]))
        """
        count = len(shape)
        axes = [axis for axis in range(count) if axis != skip]
        plane = [axis for axis in axes if axis >= count - 2] if count > 2 else []
        plane = plane if any(shape[axis] > 1 for axis in plane) else []
        leading = [axis for axis in axes if axis not in plane and shape[axis] > 1]
        if not plane:
            plane, leading = leading[-2 if count == 2 else -1 :], leading[: -2 if count == 2 else -1]
        return cls(leading, plane)

    def grid(self, numbers: Numbers) -> tuple[Array, Array]:
        """The row and column of every number within its plane."""
        none = np.zeros(len(numbers), np.int64)
        rows = numbers.cells[:, self.plane[0]] if self.plane else none
        return rows, numbers.cells[:, self.plane[1]] if len(self.plane) > 1 else none

    def box(self, numbers: Numbers) -> tuple[range, range]:
        """The rows and columns of a plane that holds all needed numbers."""
        rows, columns = self.grid(numbers)
        return range(int(rows.min()), int(rows.max()) + 1), range(int(columns.min()), int(columns.max()) + 1)


def plane_size(numbers: Numbers, skip: int = -1) -> tuple[int, int]:
    """Rows and columns of a plane."""
    rows, columns = _View.of(numbers.shape, skip).box(numbers)
    return len(rows), len(columns)


def place(
    block: PlacedTensor,
    row: int,
    column: int,
    *,
    lead: int | None = None,
    axis: int = 0,
    across: bool = False,
    title: str = "",
) -> tuple[int, int]:
    """Write the planes of a tensor under or beside each other; returns the next free row and column.

    Args:
        lead: Only those with this index on `axis`.
        title: What the headings begin with; rows and columns then have no numbers.
    """
    numbers = block.numbers
    view = _View.of(numbers.shape, -1 if lead is None else axis)
    chosen = np.arange(len(numbers)) if lead is None else np.flatnonzero(numbers.cells[:, axis] == lead)
    rows, columns = view.grid(numbers)
    down, plane_columns = view.box(numbers)
    labelled = numbers.key.kind != "parameter" and not title
    above = 1 + (labelled and len(view.plane) > 1)  # the heading, and the numbers of the columns
    leading, inverse = np.unique(numbers.cells[chosen][:, view.leading], axis=0, return_inverse=True)
    for position, index in enumerate(leading):
        plane_numbers = chosen[inverse.reshape(-1) == position]
        block.rows[plane_numbers] = row + above + rows[plane_numbers] - down.start
        block.columns[plane_numbers] = column + columns[plane_numbers] - plane_columns.start
        plane_index = {axis: lead, **dict(zip(view.leading, map(int, index), strict=True))}
        heading = plane_heading(numbers, plane_index, title)
        block.planes.append(
            Plane(
                heading,
                row + above,
                column,
                len(down),
                len(plane_columns),
                (*down,) if labelled and view.plane else (),
                (*plane_columns,) if labelled and len(view.plane) > 1 else (),
            )
        )
        row, column = (row, column + len(plane_columns) + 1) if across else (row + above + len(down) + 1, column)
    return row + (above + len(down) + 1) * across, column


def place_beside(bias: PlacedTensor, result: PlacedTensor, column: int) -> int:
    """Write a bias for each unit, in the unit's row; returns the next free column."""
    row_of = dict(zip(result.numbers.cells[:, -1].tolist(), result.rows.tolist(), strict=True))
    bias.rows = np.array([row_of.get(unit, TOP + 1) for unit in bias.numbers.cells[:, -1].tolist()], np.int64)
    bias.columns[:] = column
    bias.planes.append(Plane(short_name(bias.numbers), TOP + 1, column, int(bias.rows.max()) - TOP, 1))
    return column + 2


def place_weights(weight: PlacedTensor, like: Array, column: int) -> int:
    """Write the weights of each unit as the input is arranged; returns the next free column."""
    height, width = (int(last) + 1 for last in like.max(axis=0))
    units, places = weight.numbers.cells.T
    for unit in np.unique(units):
        unit_numbers = np.flatnonzero(units == unit)
        weight.rows[unit_numbers] = TOP + 1 + like[places[unit_numbers], 0]
        weight.columns[unit_numbers] = column + like[places[unit_numbers], 1]
        heading = f"{short_name(weight.numbers)} of unit {unit}" if width > 2 else str(unit)
        weight.planes.append(Plane(heading, TOP + 1, column, height, width))
        column += width + (width > 1)
    return column + (width == 1)


def short_name(numbers: Numbers) -> str:
    """The last part of its name: `weight`."""
    return numbers.key.name.rpartition(".")[2]


def plane_heading(numbers: Numbers, index: dict[int, int | None], title: str = "") -> str:
    """The heading of a plane: `channel 3`, `kernel 0, channel 1`, `bias 2`; axes without an index are whole."""
    fixed = {axis: i for axis, i in index.items() if i is not None}
    axes = len(numbers.shape)
    if numbers.key.kind == "parameter" and axes < 3:
        return f"{title or short_name(numbers)} {', '.join(map(str, fixed.values()))}".strip()
    words = {0: "kernel" if numbers.of_parameter else "image", 1: "channel"}
    axis_words = [f"{words.get(axis, f'axis {axis}')} {i}" for axis, i in sorted(fixed.items())]
    return ", ".join([title, *axis_words] if title else axis_words)
