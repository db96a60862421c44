"""Calculation: its lines as in print, window × kernel = products as grids of numbers, functions as curves, and bars."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray

from convscope.expr.expr import Apply, Cells, Dot, Leaf
from convscope.expr.primitives import PRIMITIVES
from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, TINY, Area, Sheet, snap, tile
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED, ColorScale, shorten, size, width
from convscope.render.numbers import NumberScale as Digits
from convscope.render.numbers import compact, number_of
from convscope.render.sums import BLANK, RULE, Row, region, render
from convscope.render.worksheet import Channel

Array = NDArray[np.float64]
Grey = Callable[[Array, NDArray[np.int64]], Array]
"""(numbers (T,), their cells (T, axes)) -> how bright the pixel is that each was, 0 to 1."""

WRITTEN = 9  # windows up to 9x9 are written out in numbers
WIDE, SLIM = (0.52, 0.34), (0.42, 0.27)  # inches, a cell of a small window, and of one beyond 5x5
SIGN = 0.42  # inches, for the sign between two grids
GAP = 0.18  # inches between two channels
HEAD = 0.36  # inches, for what is above a grid
LINES = "#8a8883"  # visible on black and on white
PADDING = "#efece5"
TOGETHER = 6.0  # scales that differ by less are one


def draw_products(
    sheet: Sheet, top: float, dot: Dot, channels: list[Channel], *, digits: Digits, grey: Grey | None
) -> float:
    """A row of grids for each of `channels`; returns where the last one ends.

    Args:
        sheet: What to draw on.
        top: Where to begin.
        dot: The sum.
        channels: Some of its channels.
        digits: How the products are written.
        grey: How the window's numbers look as pixels, where they are such.
    """
    columns = _columns(dot, channels, digits, grey)
    w, h = _size(channels[0].terms.shape)
    step = max(w, 1.35) + SIGN
    y = top
    for channel in channels:
        y = snap(y + HEAD)
        for k, column in enumerate(columns):
            x = snap(step * k)
            name, _, indices = column.says(channel).partition(", ")
            label_width = max(w, 1.35) + SIGN - 0.08
            if not indices or k:  # a kernel's indices stay together
                name, indices = column.says(channel), ""
            sheet.text(x, y - 0.2, shorten(name, LABEL, label_width, bold=True), bold=True)
            sheet.text(x, y - 0.07, indices or size(channel.terms.shape), points=SMALL, color=MUTED)
            column.draw(sheet, channel, (x, y, w, h))
            if k:
                sign = "=" if k == len(columns) - 1 else "×"
                gap = x - (SIGN + max(w, 1.35) - w) / 2
                sheet.text(gap, y + h / 2, sign, points=13, color=MUTED, align="center", middle=True)
        y += h + GAP
    return _legends(sheet, y - GAP + 0.16, step, w, columns)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A sum over a window of one channel, to be drawn small: its products, or its kernel."""

    dot: Dot
    channel: Channel

    @property
    def kernel(self) -> str:
        """The plane of weights that it is multiplied by, such as `conv1.weight[0, 0]`; empty without one."""
        right = self.dot.right
        return "" if right is None else _place(right, int(self.channel.terms[0, 0]))

    @property
    def weights(self) -> Array:
        """The weights, shape (R, S)."""
        return np.asarray(self.dot.weights[self.channel.terms])

    @property
    def products(self) -> Array:
        """The products, shape (R, S)."""
        return np.asarray(self.dot.products[self.channel.terms])

    def draw(self, sheet: Sheet, area: Area, scale: ColorScale, name: str) -> None:
        """The products in their cells; padding hatched."""
        digits = Digits.of(map(float, self.products.flat))
        _columns(self.dot, [self.channel], digits, None, scale=scale, name=name)[-1].draw(sheet, self.channel, area)


@dataclass(frozen=True, slots=True, eq=False)
class _ProductColumn:
    """One of window, kernel and products: its numbers, how they are written and coloured."""

    name: str
    numbers: Array
    digits: Digits
    scale: ColorScale | None
    """None for pixels, which are grey."""
    says: Callable[[Channel], str]
    inside: NDArray[np.bool_]
    bright: Array | None = None

    def draw(self, sheet: Sheet, channel: Channel, area: Area) -> None:
        """The channel's numbers in their cells; padding hatched."""
        terms = channel.terms
        values, inside = self.numbers[terms], self.inside[terms]
        if self.bright is not None:
            levels = np.where(inside, self.bright[terms], 1.0)
            sheet.picture(levels[None], area, self.name)
            colors = np.stack([levels] * 3, axis=-1)
        else:
            assert self.scale is not None
            sheet.map(values, area, self.scale, self.name)
            colors = self.scale.colors(values)
        written = max(terms.shape) <= WRITTEN
        _hatch(sheet, ~inside, area, gap=0.075 if written else 0.05)
        if written:
            sheet.grid(area, terms.shape[0], terms.shape[1], color=LINES if self.bright is not None else LINE)
            texts = [self.digits.show(float(v)) if i else "" for v, i in zip(values.flat, inside.flat, strict=True)]
            sheet.write(np.array(texts, np.str_).reshape(terms.shape), colors, area)
            _pads(sheet, ~inside, area)


def _columns(
    dot: Dot,
    channels: list[Channel],
    digits: Digits,
    grey: Grey | None,
    *,
    scale: ColorScale | None = None,
    name: str = "products",
) -> list[_ProductColumn]:
    shown = np.concatenate([channel.terms.ravel() for channel in channels])
    inside = np.ones(len(dot.left), bool) if dot.left.inside is None else dot.left.inside
    everywhere = np.ones(len(dot.left), bool)
    values, products = np.where(inside, dot.values, 0.0), dot.products
    bright = None if grey is None else grey(values, dot.left.cells)
    groups = [None if bright is not None else values[shown], None if dot.right is None else dot.weights[shown]]
    scales = _scales([*groups, products[shown]])
    window = _ProductColumn(
        "window", values, Digits.of(map(float, values[shown])), scales[0], lambda c: region(dot.left, c.terms),
        inside, bright,
    )  # fmt: skip
    if dot.right is None:
        return [window]
    right = dot.right
    weights = Digits.of(map(float, dot.weights[shown]))
    kernel = _ProductColumn(
        "kernel", dot.weights, weights, scales[1], lambda c: _place(right, int(c.terms[0, 0])), everywhere
    )
    total = _ProductColumn(name, products, digits, scale or scales[2], lambda _: "products", inside)
    return [window, kernel, total]


def _scales(groups: list[Array | None]) -> list[ColorScale | None]:
    """One scale for all signed numbers, so that colours can be compared; one each where it would hide some of them."""
    scales = [None if group is None else ColorScale.of(group) for group in groups]
    limits = [scale.limit for scale in scales if scale is not None and scale.ends != (0.0, 0.0)]
    if not limits or max(limits) > TOGETHER * min(limits):
        return scales
    common = ColorScale.of(*(group for group in groups if group is not None))
    return [None if group is None else common for group in groups]


def _legends(sheet: Sheet, y: float, step: float, w: float, columns: list[_ProductColumn]) -> float:
    """What the colours mean: under the grid they belong to, or once for all."""
    scales = [column.scale for column in columns]
    drawn_scales = [scale for scale in scales if scale is not None]
    if len(columns) > 1 and len({id(scale) for scale in drawn_scales}) == 1:
        first = next(k for k, scale in enumerate(scales) if scale is not None)
        sheet.legend(snap(step * first), y, step * (len(columns) - first - 1) + w, drawn_scales[0])
    else:
        for k, scale in enumerate(scales):
            if scale is not None:
                sheet.legend(snap(step * k), y, max(w, 1.35), scale)
    if columns[0].scale is None:
        caption = "pixels, black to white"
        sheet.text(0, y, caption, points=TINY + 0.5, color=MUTED, middle=True)
    return y + (0.26 if any(scale.strange for scale in drawn_scales) else 0.1)


def _hatch(sheet: Sheet, outside: NDArray[np.bool_], area: Area, gap: float) -> None:
    """Cells of padding: no number of the tensor, so neither a colour nor a grey."""
    x, y, w, h = area
    wide, high = w / outside.shape[1], h / outside.shape[0]
    for row, column in np.argwhere(outside):
        left, top = x + wide * column, y + high * row
        sheet.fill(left, top, wide, high, PADDING)
        for start in np.arange(gap, wide + high, gap):
            xs = (left + max(0.0, start - high), left + min(start, wide))
            ys = (top + min(start, high), top + max(0.0, start - wide))
            sheet.line(xs, ys, "#d6d2c8", 0.4)


def _pads(sheet: Sheet, outside: NDArray[np.bool_], area: Area) -> None:
    x, y, w, h = area
    wide, high = w / outside.shape[1], h / outside.shape[0]
    box = width("pad", TINY) + 0.04
    for row, column in np.argwhere(outside):
        middle = x + wide * (column + 0.5), y + high * (row + 0.5)
        sheet.fill(middle[0] - box / 2, middle[1] - 0.05, box, 0.1, PADDING)
        sheet.text(*middle, "pad", points=TINY, color=MUTED, align="center", middle=True)


def _place(cells: Cells, term: int) -> str:
    """Which plane of the kernel: `conv1.weight[3, 0]`."""
    if cells.source.kind == "computed":
        return cells.source.name
    return f"{cells.source.name}[{', '.join(map(str, cells.cells[term][:-2]))}]"


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    if max(shape) > WRITTEN:
        return tile(shape, 2.2)
    cell = WIDE if max(shape) <= 5 else SLIM
    return snap(snap(cell[0]) * shape[1]), snap(snap(cell[1]) * shape[0])


LINE_HEIGHT = 0.175  # inches
BARS = 1.5  # inches, for bars to both sides
LESS, MORE = "#4393c3", "#d6604d"


def ledger(sheet: Sheet, y: float, rows: Sequence[Row | str], bars: frozenset[int]) -> float:
    """Lines of text and number, aligned as in print; a bar behind those in `bars`. Returns where they end."""
    em = width("0" * 100, LABEL - 1, mono=True) / 100
    lines = render(rows)
    wide = max(len(line) for line, row in zip(lines, rows, strict=True) if row is RULE or not _after(row))
    numbers = {i: number_of(row.number) for i, row in enumerate(rows) if i in bars and isinstance(row, Row)}
    finite = [abs(n) for n in numbers.values() if np.isfinite(n)]
    longest = max(finite, default=0.0) or 1.0
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if row is BLANK or line == "":
            y += LINE_HEIGHT / 2
            continue
        if row is RULE:
            sheet.line((0, em * wide), (y + 0.075, y + 0.075), MUTED, 0.5)
            y += 0.07
            continue
        y += LINE_HEIGHT
        bold = isinstance(row, Row) and row.label == "calculated"
        for part in re.finditer(r"\S+(?: \S+)*", line):
            sheet.text(em * part.start(), y, part.group(), points=LABEL - 1, mono=True, bold=bold)
        if i in numbers and np.isfinite(numbers[i]):
            middle = em * wide + 0.3 + BARS / 2
            length = BARS / 2 * numbers[i] / longest
            sheet.fill(middle + min(length, 0), y - 0.09, abs(length), 0.1, LESS if length < 0 else MORE)
            sheet.line((middle, middle), (y - 0.125, y + 0.045), MUTED, 0.5)
    return y


def _after(row: Row | str) -> bool:
    return isinstance(row, str) or bool(row.after)


def badge(sheet: Sheet, y: float, text: str, color: str) -> None:
    """A few words in a pill whose upper edge is at y."""
    w = width(text, LABEL) + 0.24
    pill = FancyBboxPatch(
        (0.0, y), w, 0.22, boxstyle="round,pad=0,rounding_size=0.11", facecolor="none", edgecolor=color, linewidth=0.8
    )
    sheet.axes.add_patch(pill)
    sheet.reach(w, y + 0.22)
    sheet.text(w / 2, y + 0.11, text, color=color, align="center", middle=True)


GRAPH_WIDE, GRAPH_HIGH = 2.4, 1.5  # inches
POINTS = 241
REACH = 4.0  # how far to both sides of 0, or 1.3 times as far as the point


def draw_graph(sheet: Sheet, top: float, apply: Apply) -> float:
    """The curve with its point, the axes through 0; returns where it ends, `top` where there is no curve to draw."""
    leaf, function = _variable(apply)
    if leaf is None:
        return top
    x, y = leaf.scalar, apply.value()
    reach = max(REACH, 1.3 * abs(x))
    xs = np.linspace(-reach, reach, POINTS)
    ys = function(xs)
    if not np.isfinite([x, y]).all() or np.isfinite(ys).sum() < POINTS / 3 or _straight(ys[np.isfinite(ys)]):
        return top
    low, high = _limits(ys[np.isfinite(ys)], y, reach)

    def on_sheet(
        across: NDArray[np.float64], up: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return (across + reach) / (2 * reach) * GRAPH_WIDE, top + (high - up) / (high - low) * GRAPH_HIGH

    (left, middle, right), (bottom, zero, ceiling) = on_sheet(np.array([-reach, 0, reach]), np.array([low, 0, high]))
    sheet.line((left, right), (zero, zero), LINE, 0.8)
    sheet.line((middle, middle), (bottom, ceiling), LINE, 0.8)
    visible = np.isfinite(ys) & (ys >= low) & (ys <= high)
    for run in np.split(np.arange(POINTS), np.flatnonzero(np.diff(visible)) + 1):
        if visible[run[0]] and len(run) > 1:
            across, up = on_sheet(xs[run], ys[run])
            sheet.line(across.tolist(), up.tolist(), INK, 1.1)
    (point_x,), (height,) = on_sheet(np.array([x]), np.array([y]))
    sheet.line((point_x, point_x), (zero, height), ACCENT, 0.7)
    sheet.line((middle, point_x), (height, height), ACCENT, 0.7)
    sheet.point(point_x, height, "o", ACCENT)
    sheet.text(left, top + GRAPH_HIGH + 0.12, compact(-reach, 3), points=TINY, mono=True, color=MUTED)
    sheet.text(right, top + GRAPH_HIGH + 0.12, compact(reach, 3), points=TINY, mono=True, color=MUTED, align="right")
    caption = f"from {leaf.label} = {compact(x)} to {compact(y)}"
    sheet.text(GRAPH_WIDE + 0.2, top + GRAPH_HIGH / 2, caption, points=SMALL, color=ACCENT, middle=True)
    return top + GRAPH_HIGH + 0.16


def _variable(apply: Apply) -> tuple[Leaf | None, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """The only argument that is not a constant of the call, and the primitive as a function of it alone."""
    arguments = list(apply.arguments.values())
    leaves = [a for a in arguments if isinstance(a, Leaf)]
    moving = [i for i, a in enumerate(leaves) if a.source.kind != "number"]
    value = PRIMITIVES[apply.function].value

    def function(xs: NDArray[np.float64]) -> NDArray[np.float64]:
        numbers = [leaf.number for leaf in leaves]
        results = []
        with np.errstate(all="ignore"):
            for x in xs:
                numbers[moving[0]] = float(x)
                results.append(float(value(*numbers)))
        return np.array(results)

    return (leaves[moving[0]] if len(leaves) == len(arguments) and len(moving) == 1 else None), function


def _straight(ys: NDArray[np.float64]) -> bool:
    """Whether the curve is a straight line, which a formula says better."""
    return bool(np.abs(np.diff(ys, 2)).max(initial=0.0) <= 1e-9 * np.abs(ys).max(initial=0.0))


def _limits(ys: NDArray[np.float64], y: float, reach: float) -> tuple[float, float]:
    """From the lowest to the highest number drawn, 0 and the point included; of a curve that runs away, a part."""
    furthest = max(reach, 1.3 * abs(y))
    low, high = max(min(float(ys.min()), y, 0.0), -furthest), min(max(float(ys.max()), y, 0.0), furthest)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


STEP = 0.2  # inches from one bar to the next
LONGEST_NAME = 1.8


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its interval, all from 0 to 1."""

    name: str
    share: float
    low: float
    high: float
    strong: bool = False
    """Whether it has the accent colour."""


def bars(
    sheet: Sheet, corner: tuple[float, float], wide: float, rows: Sequence[Bar], mark: float | None = None
) -> float:
    """Draw shares on a scale from 0 to 100 %, each with its interval as a line; returns where they end.

    Args:
        sheet: Where to.
        corner: x and y of the upper left corner, in inches.
        wide: Length of 100 %, in inches.
        rows: The shares.
        mark: A share that all are compared with, as a line across.
    """
    x, y = corner
    left = x + min(LONGEST_NAME, max(width(row.name, LABEL) for row in rows)) + 0.12
    bottom = y + STEP * len(rows)
    for tick in range(0, 101, 25):
        column = left + wide * tick / 100
        sheet.line((column, column), (y, bottom))
        sheet.text(
            column, y - 0.05, f"{tick} %" if tick in {0, 100} else str(tick), points=FOOT, color=MUTED, align="center"
        )
    for k, row in enumerate(rows):
        middle = y + STEP * (k + 0.5)
        sheet.text(left - 0.08, middle, shorten(row.name, LABEL, LONGEST_NAME), align="right", middle=True)
        sheet.fill(left, middle - 0.05, wide * row.share, 0.1, ACCENT if row.strong else LINE)
        sheet.line((left + wide * row.low, left + wide * row.high), (middle, middle), color=INK, weight=0.9)
        sheet.text(left + wide + 0.12, middle, f"{100 * row.share:.1f} %", points=SMALL, mono=True, middle=True)
    if mark is not None:
        column = left + wide * mark
        sheet.line((column, column), (y, bottom), color=INK, weight=0.9)
    sheet.reach(left + wide + 0.6, bottom)
    return bottom
