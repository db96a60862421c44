"""Strip: a whole network at a glance, from the image to its answer, with its branches; deep ones folded by module."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.plot.choice import choose
from convscope.plot.fold import Part, fold
from convscope.plot.sheet import FOOT, LABEL, SMALL, TINY, Sheet, snap, tile
from convscope.plot.steps import Trace, numbers
from convscope.plot.style import INK, MUTED, Scale, size, table
from convscope.plot.typeface import shorten, width

MOST_PARTS = 20
MOST_MAPS = 16
MOST_UNITS = 128
LISTED = 10  # answers up to this many units are written out
BLOCK = 1.5  # inches, the height of a part's maps
GAP = 0.34  # inches between parts, for the arrow
PAGE_WIDTH = 11.5
HEAD = 0.42  # inches, name and shape
LANE = 0.13  # inches between lines that go round
LONGEST_NAME = 1.35


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One part, ready to draw."""

    name: str
    shape: str
    said: str
    values: NDArray[np.float64]  # maps (K, P, Q), units (U,), or the image (C, H, W)
    picture: bool
    reads: tuple[int, ...]
    called: tuple[str, ...]  # names of the units of the answer
    answer: bool

    @property
    def listed(self) -> bool:
        """Whether its units are written out instead of drawn."""
        return self.answer and self.values.ndim == 1 and len(self.values) <= LISTED

    @property
    def grid(self) -> tuple[int, int, float]:
        """Rows and columns of its tiles, and the longest side of one, in inches."""
        shown = min(len(self.values), MOST_MAPS)
        if shown <= 2:
            return shown, 1, 0.8 if shown == 1 else 0.73
        if shown <= 4:
            return 2, 2, 0.55
        across = 2 if shown <= 8 else 4
        return -(-shown // across), across, 0.36

    @property
    def wide(self) -> float:
        """How wide its maps are, in inches."""
        if self.picture:
            return tile(self.values.shape, 0.8)[0]
        if self.values.ndim == 3:
            _, across, longest = self.grid
            return across * (tile(self.values.shape, longest)[0] + 0.02) - 0.02
        if self.listed:
            return 0.75 + max((width(c, FOOT) for c in self.called), default=0.1)
        return 0.09 * -(-min(len(self.values), MOST_UNITS) // 16)

    @property
    def room(self) -> float:
        """How wide the whole column is, in inches."""
        name = min(width(self.name, LABEL, bold=True), LONGEST_NAME)
        return max(
            self.wide, name, width(self.shape, SMALL, mono=True), 0.75, *(width(s, TINY) for s in self.said.split("\n"))
        )


def network(
    trace: Trace,
    *,
    depth: int | None = None,
    shared: bool = False,
    picture: NDArray[Any] | None = None,
    name: str = "",
    classes: Sequence[str] = (),
) -> Figure:
    """The whole network on one strip: each step with its name, its shape and its maps, arrows for what reads what.

        cs.plot.network(cs.trace(model, image))

    Steps that only lay numbers out anew are left out. More than twenty are folded by module. A line below the strip
    leads from a step to a later one that also reads it: a branch, a skip connection.

    Args:
        trace: A trace of one image (of several, the first is drawn).
        depth: How many levels of modules to open; by default all, or as many as there is room for.
        shared: One colour scale for all steps instead of one for each.
        picture: The image as a person sees it, shape (C, H, W) from 0 to 1.
        name: What the model is called.
        classes: Names of the last step's units.
    """
    parts, hidden = fold(trace, MOST_PARTS, depth)
    columns = _columns(parts, picture, tuple(classes))
    common = Scale.of(*(c.values for c in columns if not c.picture)) if shared else None
    sheet = Sheet()
    y = sheet.header(name or "network", _facts(parts, hidden, shared)) + 0.2
    if common:
        sheet.legend(0, y, 2.4, common)
        y += 0.3
    rows = _rows(columns)
    for row in rows:
        y = _draw_row(sheet, y, columns, row, common)
    return sheet.finish()


def _facts(parts: Sequence[Part], hidden: int, shared: bool) -> str:
    count = sum(len(part.steps) for part in parts)
    folded = f" in {len(parts)} parts" if count > len(parts) else ""
    left = f", and {hidden} that only lay{'s' if hidden == 1 else ''} numbers out anew" if hidden else ""
    scale = "one colour scale for all steps" if shared else "each in its own colour scale"
    return f"{count} step{'s' if count > 1 else ''}{folded}{left} · {scale}"


def _columns(parts: Sequence[Part], picture: NDArray[Any] | None, classes: tuple[str, ...]) -> list[_Column]:
    """The image, where it is known, and every part; `reads` are places in this list."""
    columns = [] if picture is None else [_image(np.asarray(picture, np.float64))]
    first = len(columns)
    for place, part in enumerate(parts):
        values = numbers(part.last)
        said = [f"{len(part.steps)} steps"] if len(part.steps) > 1 else []
        most = MOST_MAPS if values.ndim == 3 else MOST_UNITS
        said += [f"{most} of {len(values):,}"] if len(values) > most else []
        reads = tuple(r + first for r in part.reads if r + first >= 0)
        answer = place == len(parts) - 1
        shape = size(np.shape(part.last.output)[1:])
        columns.append(
            _Column(part.name, shape, "\n".join(said), values, False, reads, classes if answer else (), answer)
        )
    return columns


def _image(picture: NDArray[np.float64]) -> _Column:
    shown = picture if picture.ndim == 3 else picture[None]
    shape = size(shown.shape)
    return _Column("image", shape, "", shown if len(shown) in {1, 3} else shown[:1], True, (), (), False)


def _rows(columns: Sequence[_Column]) -> list[list[int]]:
    """Which parts stand on which line: as many as fit, broken where the fewest branches are cut."""
    rows, start = [], 0
    while start < len(columns):
        room, end = 0.0, start
        while end < len(columns) and (end == start or room + columns[end].room <= PAGE_WIDTH):
            room += columns[end].room + GAP
            end += 1
        if end < len(columns):
            least = start + max(1, (end - start) * 3 // 5)
            end = min(range(least, end + 1), key=lambda e: (_cut(columns, e), -e))
        rows.append(list(range(start, end)))
        start = end
    return rows


def _cut(columns: Sequence[_Column], place: int) -> int:
    """How many lines that go round would be cut by ending a line before `place`."""
    return sum(read < place - 1 for column in columns[place:] for read in column.reads if read < place)


def _draw_row(sheet: Sheet, y: float, columns: Sequence[_Column], row: Sequence[int], common: Scale | None) -> float:
    """One line of parts with its arrows; returns where the next begins."""
    x, lefts = 0.0, dict[int, float]()
    high = max(_high(columns[place]) for place in row)
    middle = y + HEAD + min(0.32, high / 2)
    if row[0] > 0 and row[0] - 1 in columns[row[0]].reads:
        sheet.text(0, middle, "→", points=9, color=MUTED, middle=True)
        x = 0.24
    for place in row:
        column = columns[place]
        lefts[place] = x = snap(x)
        _draw_column(sheet, (x, y), column, common)
        x += column.room
        if place + 1 < len(columns) and place in columns[place + 1].reads:
            sheet.text(x + GAP / 2, middle, "→", points=9, color=MUTED, align="center", middle=True)
        x += GAP
    feet = {place: y + HEAD + _high(columns[place]) + _feet(columns[place], common) for place in row}
    lanes = _draw_branches(sheet, feet, columns, lefts)
    return max(feet.values()) + lanes * LANE + 0.3


def _high(column: _Column) -> float:
    if column.picture:
        return tile(column.values.shape, 0.8)[1]
    if column.values.ndim == 3:
        down, _, longest = column.grid
        return down * (tile(column.values.shape, longest)[1] + 0.02)
    if column.listed:
        return 0.16 * len(column.values)
    return 0.09 * min(len(column.values), 16)


def _feet(column: _Column, common: Scale | None) -> float:
    """How much a column needs below its maps: the legend, and lines of what to say."""
    if column.picture or column.listed:
        return 0.04
    return (0.27 if common is None else 0.08) + 0.1 * (column.said.count("\n") + 1 if column.said else 0)


def _draw_column(sheet: Sheet, at: tuple[float, float], column: _Column, common: Scale | None) -> None:
    x, y = at
    sheet.text(x, y + 0.1, shorten(column.name, LABEL, LONGEST_NAME, bold=True), bold=True)
    sheet.text(x, y + 0.25, column.shape, points=SMALL, mono=True, color=MUTED)
    top, high = snap(y + HEAD - 0.06), _high(column)
    if column.picture:
        sheet.picture(column.values, (x, top, *tile(column.values.shape, 0.8)), column.name)
        return
    scale = common or Scale.of(column.values)
    below = top + high + 0.08
    if column.values.ndim == 3:
        _draw_tiles(sheet, (x, top), column, scale)
    elif column.listed:
        _draw_answer(sheet, (x, top), column)
        return
    else:
        _draw_cells(sheet, (x, top), column, scale)
    if common is None:
        sheet.legend_below(x, below, max(column.wide, 0.75), scale)
        below += 0.19
    for line in column.said.split("\n") if column.said else ():
        sheet.text(x, below + 0.06, line, points=TINY, color=MUTED)
        below += 0.1


def _draw_tiles(sheet: Sheet, at: tuple[float, float], column: _Column, scale: Scale) -> None:
    chosen = choose(column.values, MOST_MAPS, "channels")
    _, across, longest = column.grid
    w, h = tile(column.values.shape, longest)
    for place, k in enumerate(chosen.shown):
        left = snap(at[0] + (w + 0.02) * (place % across))
        top = snap(at[1] + (h + 0.02) * (place // across))
        sheet.map(column.values[k], (left, top, w, h), scale, f"{column.name}[{k}]")


def _draw_cells(sheet: Sheet, at: tuple[float, float], column: _Column, scale: Scale) -> None:
    """Units as small cells, column by column of sixteen."""
    chosen = choose(column.values, MOST_UNITS, "units")
    shown = column.values[list(chosen.shown)]
    for start in range(0, len(shown), 16):
        part = shown[start : start + 16]
        at_part = (snap(at[0] + 0.09 * (start // 16)), at[1], 0.09, snap(0.09 * len(part)))
        sheet.map(part[:, None], at_part, scale, f"{column.name}[{chosen.shown[start]}]")


def _draw_answer(sheet: Sheet, at: tuple[float, float], column: _Column) -> None:
    """The last units with their names and numbers, the largest in bold."""
    called = column.called if len(column.called) == len(column.values) else tuple(map(str, range(len(column.values))))
    room = max(width(c, FOOT) for c in called)
    best = int(np.nanargmax(column.values)) if len(column.values) > 1 and not np.isnan(column.values).all() else -1
    for k, value in enumerate(table(column.values)):
        line = at[1] + 0.1 + 0.16 * k
        sheet.text(at[0], line, called[k], points=FOOT, bold=k == best)
        sheet.text(at[0] + room + 0.62, line, str(value), points=FOOT, mono=True, bold=k == best, align="right")


def _draw_branches(sheet: Sheet, feet: dict[int, float], columns: Sequence[_Column], lefts: dict[int, float]) -> int:
    """Lines below the strip from a part to the later parts, beyond the next, that read it; returns how many lanes.

    Where a reader stands on another line of the figure, the line ends with its name.
    """
    busy: list[float] = []  # how far to the right each lane is taken
    for source in range(max(lefts) + 1):
        readers = [place for place in range(source + 2, len(columns)) if source in columns[place].reads]
        here = [place for place in readers if place in lefts]
        away = [columns[place].name for place in readers if place > max(lefts)] if source in lefts else []
        if not here and not away:
            continue
        starts = lefts[source] + columns[source].room - 0.14 if source in lefts else 0.0
        said = f"to {', '.join(away)}" if away else f"from {columns[source].name}" if source not in lefts else ""
        text_at = max([starts] + [lefts[place] + 0.12 for place in here]) + 0.06 if away else 0.0
        ends = max([lefts[place] + 0.12 for place in here], default=starts)
        ends = max(ends, text_at + width(said, TINY)) if said else ends
        lane = next((n for n, taken in enumerate(busy) if taken < starts - 0.1), len(busy))
        busy[lane : lane + 1] = [ends]
        down = max(feet.values()) + LANE * (lane + 1)
        if source in lefts:
            sheet.line((starts, starts), (feet[source], down), MUTED, 0.8)
        sheet.line((starts, ends), (down, down), MUTED, 0.8)
        for place in here:
            into = lefts[place] + 0.12
            sheet.line((into, into), (down, feet[place] + 0.02), MUTED, 0.8)
            sheet.point(into, feet[place] + 0.02, "^", MUTED)
        if said:
            sheet.text(text_at, down - 0.03, said, points=TINY, color=INK)
    return len(busy)
