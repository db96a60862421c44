"""Network column: one part of a network in the figure: name, shape, and its maps, units or output."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, TINY, Sheet, snap, tile
from convscope.plot.canvas.step_maps import Choice, FoldedPart, choose, extent, numbers, pick_channels
from convscope.plot.canvas.style import MUTED, ColorScale, abridge, shorten, size, width
from convscope.reference import softmax
from convscope.render.numbers import aligned, percent
from convscope.typing import Array

MOST_MAPS, MOST_UNITS = 16, 128
LISTED = 10  # an answer of up to this many units is written out,
LARGEST = 5  # of more the largest
HEAD = 0.47  # inches, name, shape and operation
SINGLE = 0.8  # inches, the image or an only map
UNIT = 0.09  # inches
DOWN = 16  # units in one column of cells
LINE = 0.16  # inches between the lines of an answer
SHARE = 0.5  # inches for a probability
NARROWEST, LONGEST_NAME = 0.75, 1.35  # inches

Kind = Literal["image", "maps", "units", "answer"]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkColumn:
    """One part, ready to draw."""

    kind: Kind
    name: str
    shape: str
    values: NDArray[np.float64]
    """The image (C, H, W), maps (K, P, Q) or units (U,)."""
    chosen: Choice
    """Which maps or units are drawn."""
    notes: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    """Places of the columns that it reads."""
    called: tuple[str, ...] = ()
    """Names of the units of an answer."""
    operation: str = ""
    """The operation with its settings, such as `convolution 3x3, stride 2`; empty for several steps."""
    shares: tuple[str, ...] = ()
    """The probability of each unit of an answer as text."""

    @property
    def grid(self) -> tuple[int, int, float]:
        """Rows and columns of its maps, and the longest side of one, in inches."""
        shown = len(self.chosen.shown)
        if shown <= 2:
            return shown, 1, SINGLE if shown == 1 else 0.73
        if shown <= 4:
            return 2, 2, 0.55
        across = 2 if shown <= 8 else 4
        return -(-shown // across), across, 0.36

    @property
    def block(self) -> tuple[float, float]:
        """Width and height of what is drawn below the name, in inches."""
        if self.kind == "image":
            return tile(self.values.shape, SINGLE)
        if self.kind == "maps":
            down, across, longest = self.grid
            w, h = tile(self.values.shape, longest)
            return across * (w + 0.02) - 0.02, down * (h + 0.02) - 0.02
        if self.kind == "answer":
            names = (
                max(min(width(self.called[k], FOOT), LONGEST_NAME) for k in self.chosen.shown)
                if self.chosen.shown
                else 0
            )
            return names + 0.62 + (SHARE if self.shares else 0), LINE * len(self.chosen.shown)
        shown = len(self.chosen.shown)
        return UNIT * -(-shown // DOWN), UNIT * min(shown, DOWN)

    @property
    def room(self) -> float:
        """How wide the whole column is, in inches."""
        name = min(width(self.name, LABEL, bold=True), LONGEST_NAME)
        notes = max((width(note, TINY) for note in self.notes), default=0)
        operation = min(width(self.operation, TINY), LONGEST_NAME)
        return max(self.block[0], name, width(self.shape, SMALL, mono=True), operation, notes, NARROWEST)

    def feet(self, common: ColorScale | None) -> float:
        """How much it needs below its block for legend and notes, in inches."""
        legend = 0.27 if common is None and self.kind in {"maps", "units"} else 0.08
        return legend + 0.1 * len(self.notes)


def image_column(picture: Array) -> NetworkColumn:
    """The image as a person sees it, shape (C, H, W) or (H, W)."""
    shown = np.asarray(picture, np.float64)
    shown = shown if shown.ndim == 3 else shown[None]
    planes = shown if len(shown) in {1, 3} else shown[:1]
    return NetworkColumn("image", "image", size(shown.shape), planes, Choice(1, (0,), ""))


def part_column(
    part: FoldedPart, before: Mapping[int, Choice], *, reads: tuple[int, ...], classes: tuple[str, ...], last: bool
) -> NetworkColumn:
    """A part of a network.

    Args:
        part: The part.
        before: Step id -> which of its channels are drawn, of the parts before.
        reads: Places of the columns that it reads.
        classes: Names of the units, if it is the last.
        last: Whether it is the last part, the network's answer.
    """
    values = numbers(part.last)
    notes = [f"{len(part.steps)} steps"] if len(part.steps) > 1 else []
    kind: Kind = "maps" if values.ndim == 3 else "units"
    called: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    if kind == "maps":
        chosen = pick_channels(part.last, values, before if len(part.steps) == 1 else {}, MOST_MAPS)
    elif last and (len(values) <= LISTED or len(classes) == len(values)):
        kind = "answer"
        called = classes if len(classes) == len(values) else tuple(map(str, range(len(values))))
        chosen = _largest(values)
        if len(classes) == len(values) > 1:
            shares, origin = _shares(values, part.last.op)
            notes.append(origin)
    else:
        chosen = choose(values, MOST_UNITS, "units")
    if chosen.summary:
        notes.append(f"{len(chosen.shown)} of {chosen.count:,}")
    shape = extent(part.last)
    operation = re.sub(r"(?<=\d)x(?=\d)", "×", part.last.says) if len(part.steps) == 1 else ""
    return NetworkColumn(kind, part.name, shape, values, chosen, tuple(notes), reads, called, operation, shares)


def _shares(values: NDArray[np.float64], op: str) -> tuple[tuple[str, ...], str]:
    """The probabilities of an answer as text, and where they come from: the numbers themselves, or their softmax."""
    if "sigmoid" in op or (values.min() >= 0 and abs(values.sum() - 1) < 1e-4):
        return tuple(map(percent, values.tolist())), "percent: the numbers themselves"
    return tuple(map(percent, softmax(values).tolist())), "percent: softmax of the numbers"


def _largest(values: NDArray[np.float64]) -> Choice:
    """All units of a short answer, the largest of a long one."""
    if len(values) <= LISTED:
        return Choice(len(values), tuple(range(len(values))), "")
    units = np.argsort(-values, kind="stable")[:LARGEST]
    return Choice(len(values), tuple(map(int, units)), f"{LARGEST} of {len(values):,} units, the largest")


def draw_column(sheet: Sheet, corner: tuple[float, float], column: NetworkColumn, common: ColorScale | None) -> None:
    """Draw a column with its upper left corner at x, y; `common` is the scale of all columns, if they share one."""
    x, y = corner
    sheet.text(x, y + 0.1, shorten(column.name, LABEL, LONGEST_NAME, bold=True), bold=True)
    sheet.text(x, y + 0.25, column.shape, points=SMALL, mono=True, color=MUTED)
    if column.operation:
        sheet.text(x, y + 0.36, shorten(column.operation, TINY, LONGEST_NAME), points=TINY, color=MUTED)
    top, (w, h) = snap(y + HEAD), column.block
    below = top + h + 0.08
    scale = common or ColorScale.of_maps(column.values)
    if column.kind == "image":
        sheet.picture(column.values, (x, top, w, h), column.name)
    elif column.kind == "answer":
        _draw_answer(sheet, (x, top), column)
    else:
        (_draw_tiles if column.kind == "maps" else _draw_cells)(sheet, (x, top), column, scale)
        if common is None:
            sheet.legend_below(x, below, max(w, NARROWEST), scale)
            below += 0.19
    for line, note in enumerate(column.notes):
        sheet.text(x, below + 0.06 + 0.1 * line, note, points=TINY, color=MUTED)


def _draw_tiles(sheet: Sheet, corner: tuple[float, float], column: NetworkColumn, scale: ColorScale) -> None:
    _, across, longest = column.grid
    w, h = tile(column.values.shape, longest)
    for position, k in enumerate(column.chosen.shown):
        left = snap(corner[0] + (w + 0.02) * (position % across))
        top = snap(corner[1] + (h + 0.02) * (position // across))
        sheet.map(column.values[k], (left, top, w, h), scale, f"{column.name}[{k}]")


def _draw_cells(sheet: Sheet, corner: tuple[float, float], column: NetworkColumn, scale: ColorScale) -> None:
    """Units as small cells, from top to bottom, then from left to right."""
    shown = column.values[list(column.chosen.shown)]
    for start in range(0, len(shown), DOWN):
        part = shown[start : start + DOWN]
        rectangle = (snap(corner[0] + UNIT * (start // DOWN)), corner[1], UNIT, snap(UNIT * len(part)))
        sheet.map(part[:, None], rectangle, scale, f"{column.name}[{column.chosen.shown[start]}]")


def _draw_answer(sheet: Sheet, corner: tuple[float, float], column: NetworkColumn) -> None:
    """The last units with their names and numbers, the largest in bold."""
    shown = list(column.chosen.shown)
    values = column.values[shown]
    best = int(np.argmax(np.nan_to_num(values, nan=-np.inf))) if len(values) > 1 else -1
    for line, (k, text) in enumerate(zip(shown, aligned(values), strict=True)):
        y, bold = corner[1] + 0.1 + LINE * line, line == best
        sheet.text(corner[0], y, abridge(column.called[k], FOOT, LONGEST_NAME), points=FOOT, bold=bold)
        right = corner[0] + column.block[0] - (SHARE if column.shares else 0)
        sheet.text(right, y, str(text), points=FOOT, mono=True, bold=bold, align="right")
        if column.shares:
            sheet.text(right + SHARE, y, column.shares[k], points=FOOT, mono=True, bold=bold, align="right")
