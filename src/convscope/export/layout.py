"""Layout: where each number of a chain is written: a sheet for each step, its kernels and biases beside its maps.

A tensor is written as *planes*, rectangles with a heading: a channel of a map, a kernel's slice for one input channel.
If only part of a tensor is needed, a plane shows the smallest box of rows and columns that contains it.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.escaping import spelled
from convscope.export.chain import Chain
from convscope.export.chain_numbers import Key, Numbers
from convscope.expr.expr import Cells, Dot, Leaf
from convscope.typing import Array

ROWS, COLUMNS = 1_048_576, 16_384
"""The size limits of a sheet in Excel and in LibreOffice."""
TOP = 3
"""The first row of a sheet with numbers, below its title and description."""
FIRST, RECORDED, DIFFERENCES = "network", "recorded", "differences"
"""The sheets that are about the whole network."""


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
class Block:
    """One tensor on a sheet."""

    numbers: Numbers
    planes: list[Plane] = field(default_factory=list)
    rows: Array = field(default_factory=lambda: np.empty(0, np.int64))
    """The row of each of its numbers, (n,)."""
    columns: Array = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(eq=False)
class Sheet:
    """One sheet: a step with its parameters, or an input."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)


class Layout:
    """The sheets of a chain, and the position of every number.

    Attributes:
        sheets: In the order of the pass.
        names: All names of sheets, those about the whole network too.
        blocks: The position of each tensor.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.sheets: list[Sheet] = []
        self.names: list[str] = [FIRST, RECORDED, DIFFERENCES]
        self.blocks: dict[Key, tuple[int, Block]] = {}
        parameters = _owners(chain)
        for numbers in chain.tensors.values():
            if numbers.key.kind == "input":
                self._alone(numbers, f"{numbers.key.name}: the network's inputs")
        for numbers in chain.tensors.values():
            if numbers.key.kind == "step":
                self._step(numbers, parameters.get(numbers.key, []))
        for numbers in chain.tensors.values():
            if numbers.key not in self.blocks:
                self._alone(numbers, f"{numbers.key.name}: the model's constants")
        self._check()

    def sheet_of(self, key: Key) -> int:
        """The index in `names` of the sheet that a tensor is on."""
        return self.blocks[key][0]

    def positions(self, numbers: Numbers, part: Leaf | Cells) -> Array:
        """The position of each number of a part of an expression: (T, 3) sheet, row, column; padding is at -1."""
        located = self.chain.locate(numbers, part)
        sheet, block = self.blocks[located.numbers.key]
        result = np.empty((len(located.places), 3), np.int64)
        result[:, 0] = sheet
        result[:, 1], result[:, 2] = block.rows[located.places], block.columns[located.places]
        result[located.places < 0] = -1
        return result

    def _sheet(self, name: str, title: str) -> tuple[int, Sheet]:
        sheet = Sheet(sheet_name(name, self.names), title)
        self.sheets.append(sheet)
        self.names.append(sheet.name)
        return len(self.names) - 1, sheet

    def _add(self, index: int, sheet: Sheet, numbers: Numbers) -> Block:
        block = Block(numbers, rows=np.zeros(len(numbers), np.int64), columns=np.zeros(len(numbers), np.int64))
        sheet.blocks.append(block)
        self.blocks[numbers.key] = index, block
        return block

    def _alone(self, numbers: Numbers, title: str) -> None:
        index, sheet = self._sheet(numbers.key.name, title)
        _place(self._add(index, sheet, numbers), TOP, 1)

    def _step(self, numbers: Numbers, parameters: list[Numbers]) -> None:
        step = numbers.step
        assert step is not None
        result = f", result {numbers.key.output}" if numbers.key.output else ""
        index, sheet = self._sheet(step.name, f"{step.name}: {step.says}{result}")
        block = self._add(index, sheet, numbers)
        mine = [(self._add(index, sheet, p), p) for p in parameters if p.key not in self.blocks]
        if len(numbers.shape) > 2 and (max(numbers.shape[2:]) > 1 or any(len(p.shape) > 2 for _, p in mine)):
            self._banded(block, [b for b, _ in mine])
        else:
            self._listed(block, [b for b, _ in mine])

    def _banded(self, block: Block, parameters: list[Block]) -> None:
        """Write maps below each other, each beside its kernel and bias (to the left if these are small)."""
        numbers = block.numbers
        fits = [b for b in parameters if b.numbers.shape[:1] == (numbers.shape[1],)]
        single = [b for b in fits if len(b.numbers.shape) == 1]
        kernels = [b for b in fits if len(b.numbers.shape) > 1]
        height, width = _size(numbers, 1)
        left = [b for b in kernels if b.numbers.shape[1] * (_size(b.numbers, 0)[0] + 2) <= max(height, 12)]
        beside = max([1 * bool(single), *(_size(b.numbers, 0)[1] for b in left)])
        offset = beside + 3 if beside else 1
        row = TOP
        for channel in np.unique(numbers.cells[:, 1]).tolist():
            under = row
            for b in [*single, *left]:
                under = _place(b, under, 1, lead=channel)[0]
            bottom = _place(block, row, offset, lead=channel, axis=1)[0]
            across = offset + width + 1
            for b in kernels:
                if b not in left:
                    below, across = _place(b, row, across, lead=channel, across=True)
                    bottom = max(bottom, below)
            row = max(under, bottom) + bool(parameters)
        self._rest([b for b in parameters if b not in fits], offset + width + 2)

    def _listed(self, block: Block, parameters: list[Block]) -> None:
        """Write units below each other, with their biases beside them and the weights of each unit to the right."""
        _place(block, TOP, 1)
        width = _size(block.numbers)[1]
        column, rest = 1 + width + 1, []
        for b in sorted(parameters, key=lambda b: len(b.numbers.shape)):
            if len(b.numbers.shape) == 1 and width == 1:
                column = _beside(b, block, column)
            elif len(b.numbers.shape) == 2 and (like := self._like(block.numbers, b.numbers)) is not None:
                column = _weights(b, like, column)
            else:
                rest.append(b)
        self._rest(rest, column + 1)

    def _rest(self, blocks: list[Block], column: int) -> None:
        row = TOP
        for block in blocks:
            row = _place(block, row, column)[0]

    def _like(self, numbers: Numbers, weight: Numbers) -> Array | None:
        """The arrangement of a linear layer's input, for the weights of each unit: (T, 2), if it is on one sheet."""
        expr = self.chain.expression(numbers, 0)
        if not isinstance(expr, Dot) or expr.right is None:
            return None
        across = self.chain.locate(numbers, expr.right)
        at = self.positions(numbers, expr.left)
        if across.numbers is not weight or len({*at[:, 0]}) != 1 or len(at) != weight.shape[1]:
            return None
        units, places = np.divmod(weight.flat[across.places], weight.shape[1])
        if len({*units}) != 1:
            return None
        like = np.empty((weight.shape[1], 2), np.int64)
        like[places] = at[:, 1:] - at[:, 1:].min(axis=0)
        return like

    def _check(self) -> None:
        for sheet in self.sheets:
            for block in sheet.blocks:
                if block.rows.max(initial=0) >= ROWS or block.columns.max(initial=0) >= COLUMNS:
                    raise UsageError(
                        f"{block.numbers.key.name} does not fit on a sheet of {ROWS:,} rows and {COLUMNS:,} columns; "
                        "choose a number of an earlier step."
                    )


def sheet_name(name: str, taken: list[str]) -> str:
    """A name that a sheet may have: at most 31 characters, none that formulas reserve, and not one of `taken`.

    >>> sheet_name("layer1.0/relu", []), sheet_name("Conv1", ["conv1"]), sheet_name("'", [])
    ('layer1.0_relu', 'Conv1~2', '_')
    """
    name = re.sub(r"[^\w .#~=+@%$-]", "_", spelled(name)).strip("'").strip() or "_"
    name = f"{name}_" if name.lower() == "history" else name  # a name that Excel keeps for itself
    used = {other.lower() for other in taken}
    result, number = name[:31], 2
    while result.lower() in used:
        result = f"{name[: 30 - len(str(number))]}~{number}"
        number += 1
    return result


def _owners(chain: Chain) -> dict[Key, list[Numbers]]:
    """The parameters that each step reads first."""
    seen: set[str] = set()
    result: dict[Key, list[Numbers]] = {}
    for numbers in chain.calculated:
        assert numbers.step is not None
        for _, _, ref in numbers.step.refs():
            for key in chain.sources(numbers, ref):
                if key.kind == "parameter" and key.name not in seen:
                    seen.add(key.name)
                    result.setdefault(numbers.key, []).append(chain.tensors[key])
    return result


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
        drawn = [axis for axis in axes if axis >= count - 2] if count > 2 else []
        drawn = drawn if any(shape[axis] > 1 for axis in drawn) else []
        leading = [axis for axis in axes if axis not in drawn and shape[axis] > 1]
        if not drawn:
            drawn, leading = leading[-2 if count == 2 else -1 :], leading[: -2 if count == 2 else -1]
        return cls(leading, drawn)

    def grid(self, numbers: Numbers) -> tuple[Array, Array]:
        """The row and column of every number within its plane."""
        none = np.zeros(len(numbers), np.int64)
        rows = numbers.cells[:, self.plane[0]] if self.plane else none
        return rows, numbers.cells[:, self.plane[1]] if len(self.plane) > 1 else none

    def box(self, numbers: Numbers) -> tuple[range, range]:
        """The rows and columns of a plane that holds all needed numbers."""
        rows, columns = self.grid(numbers)
        return range(int(rows.min()), int(rows.max()) + 1), range(int(columns.min()), int(columns.max()) + 1)


def _size(numbers: Numbers, skip: int = -1) -> tuple[int, int]:
    """Rows and columns of a plane."""
    rows, columns = _View.of(numbers.shape, skip).box(numbers)
    return len(rows), len(columns)


def _place(
    block: Block, row: int, column: int, *, lead: int | None = None, axis: int = 0, across: bool = False
) -> tuple[int, int]:
    """Write the planes of a tensor under or beside each other; returns the next free row and column.

    Args:
        lead: Only those with this index on `axis`.
    """
    numbers = block.numbers
    view = _View.of(numbers.shape, -1 if lead is None else axis)
    chosen = np.arange(len(numbers)) if lead is None else np.flatnonzero(numbers.cells[:, axis] == lead)
    rows, columns = view.grid(numbers)
    down, beside = view.box(numbers)
    labelled = numbers.key.kind != "parameter"
    above = 1 + (labelled and len(view.plane) > 1)  # the heading, and the numbers of the columns
    leading, inverse = np.unique(numbers.cells[chosen][:, view.leading], axis=0, return_inverse=True)
    for position, index in enumerate(leading):
        which = chosen[inverse.reshape(-1) == position]
        block.rows[which] = row + above + rows[which] - down.start
        block.columns[which] = column + columns[which] - beside.start
        heading = _heading(numbers, {axis: lead, **dict(zip(view.leading, map(int, index), strict=True))})
        block.planes.append(
            Plane(
                heading,
                row + above,
                column,
                len(down),
                len(beside),
                (*down,) if labelled and view.plane else (),
                (*beside,) if labelled and len(view.plane) > 1 else (),
            )
        )
        row, column = (row, column + len(beside) + 1) if across else (row + above + len(down) + 1, column)
    return row + (above + len(down) + 1) * across, column


def _beside(bias: Block, result: Block, column: int) -> int:
    """Write a bias for each unit, in the unit's row; returns the next free column."""
    row_of = dict(zip(result.numbers.cells[:, -1].tolist(), result.rows.tolist(), strict=True))
    bias.rows = np.array([row_of.get(unit, TOP + 1) for unit in bias.numbers.cells[:, -1].tolist()], np.int64)
    bias.columns[:] = column
    bias.planes.append(Plane(_short(bias.numbers), TOP + 1, column, int(bias.rows.max()) - TOP, 1))
    return column + 2


def _weights(weight: Block, like: Array, column: int) -> int:
    """Write the weights of each unit as the input is arranged; returns the next free column."""
    height, width = (int(last) + 1 for last in like.max(axis=0))
    units, places = weight.numbers.cells.T
    for unit in np.unique(units):
        which = np.flatnonzero(units == unit)
        weight.rows[which] = TOP + 1 + like[places[which], 0]
        weight.columns[which] = column + like[places[which], 1]
        heading = f"{_short(weight.numbers)} of unit {unit}" if width > 2 else str(unit)
        weight.planes.append(Plane(heading, TOP + 1, column, height, width))
        column += width + (width > 1)
    return column + (width == 1)


def _short(numbers: Numbers) -> str:
    return numbers.key.name.rpartition(".")[2]


def _heading(numbers: Numbers, index: dict[int, int | None]) -> str:
    """The heading of a plane: `channel 3`, `kernel 0, channel 1`, `bias 2`; axes without an index are whole."""
    at = {axis: i for axis, i in index.items() if i is not None}
    axes = len(numbers.shape)
    if numbers.key.kind == "parameter" and axes < 3:
        return f"{_short(numbers)} {', '.join(map(str, at.values()))}".strip()
    words = {0: "kernel" if numbers.key.kind == "parameter" else "image", 1: "channel"}
    return ", ".join(f"{words.get(axis, f'axis {axis}')} {i}" for axis, i in sorted(at.items()))
