"""Products: window × kernel = products as grids of numbers, a row for each channel. Knows expressions; no steps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convscope.expr.expr import Cells, Dot
from convscope.plot.canvas.fonts import shorten, width
from convscope.plot.canvas.sheet import LABEL, SMALL, TINY, Place, Sheet, snap, tile
from convscope.plot.canvas.style import LINE, MUTED, ColorScale, size
from convscope.render.channels import Channel
from convscope.render.grids import region
from convscope.render.numbers import NumberScale as Digits

Array = NDArray[np.float64]
Grey = Callable[[Array, NDArray[np.int64]], Array]
"""(numbers (T,), their cells (T, axes)) -> how bright the pixel is that each was, 0 to 1."""

WRITTEN = 9  # windows up to 9x9 are written out in numbers
WIDE, SLIM = (0.52, 0.34), (0.42, 0.27)  # inches, a cell of a small window, and of one beyond 5x5
SIGN = 0.42  # inches, for the sign between two grids
GAP = 0.18  # inches between two channels
HEAD = 0.36  # inches, for what stands above a grid
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
            name, _, where = column.says(channel).partition(", ")
            room = max(w, 1.35) + SIGN - 0.08
            if not where or k:  # a kernel's indices stay together
                name, where = column.says(channel), ""
            sheet.text(x, y - 0.2, shorten(name, LABEL, room, bold=True), bold=True)
            sheet.text(x, y - 0.07, where or size(channel.terms.shape), points=SMALL, color=MUTED)
            column.draw(sheet, channel, (x, y, w, h))
            if k:
                sign = "=" if k == len(columns) - 1 else "×"
                gap = x - (SIGN + max(w, 1.35) - w) / 2
                sheet.text(gap, y + h / 2, sign, points=13, color=MUTED, align="center", middle=True)
        y += h + GAP
    return _legends(sheet, y - GAP + 0.16, step, w, columns)


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

    def draw(self, sheet: Sheet, channel: Channel, at: Place) -> None:
        """The channel's numbers in their cells; padding hatched."""
        terms = channel.terms
        values, inside = self.numbers[terms], self.inside[terms]
        if self.bright is not None:
            levels = np.where(inside, self.bright[terms], 1.0)
            sheet.picture(levels[None], at, self.name)
            colors = np.stack([levels] * 3, axis=-1)
        else:
            assert self.scale is not None
            sheet.map(values, at, self.scale, self.name)
            colors = self.scale.colors(values)
        written = max(terms.shape) <= WRITTEN
        _hatch(sheet, ~inside, at, gap=0.075 if written else 0.05)
        if written:
            sheet.grid(at, terms.shape[0], terms.shape[1], color=LINES if self.bright is not None else LINE)
            texts = [self.digits.show(float(v)) if i else "" for v, i in zip(values.flat, inside.flat, strict=True)]
            sheet.write(np.array(texts, np.str_).reshape(terms.shape), colors, at)
            _pads(sheet, ~inside, at)


def _columns(dot: Dot, channels: list[Channel], digits: Digits, grey: Grey | None) -> list[_ProductColumn]:
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
    total = _ProductColumn("products", products, digits, scales[2], lambda _: "products", inside)
    return [window, kernel, total]


def _scales(groups: list[Array | None]) -> list[ColorScale | None]:
    """One scale for all signed numbers, so that colours can be compared; one each where it would hide some of them."""
    each = [None if group is None else ColorScale.of(group) for group in groups]
    limits = [scale.limit for scale in each if scale is not None and scale.ends != (0.0, 0.0)]
    if not limits or max(limits) > TOGETHER * min(limits):
        return each
    one = ColorScale.of(*(group for group in groups if group is not None))
    return [None if group is None else one for group in groups]


def _legends(sheet: Sheet, y: float, step: float, w: float, columns: list[_ProductColumn]) -> float:
    """What the colours mean: under the grid they belong to, or once for all."""
    scales = [column.scale for column in columns]
    known = [scale for scale in scales if scale is not None]
    if len(columns) > 1 and len({id(scale) for scale in known}) == 1:
        first = next(k for k, scale in enumerate(scales) if scale is not None)
        sheet.legend(snap(step * first), y, step * (len(columns) - first - 1) + w, known[0])
    else:
        for k, scale in enumerate(scales):
            if scale is not None:
                sheet.legend(snap(step * k), y, max(w, 1.35), scale)
    if columns[0].scale is None:
        said = "pixels, black to white"
        sheet.text(0, y, said, points=TINY + 0.5, color=MUTED, middle=True)
    return y + (0.26 if any(scale.strange for scale in known) else 0.1)


def _hatch(sheet: Sheet, outside: NDArray[np.bool_], at: Place, gap: float) -> None:
    """Cells of padding: no number of the tensor, so neither a colour nor a grey."""
    x, y, w, h = at
    wide, high = w / outside.shape[1], h / outside.shape[0]
    for row, column in np.argwhere(outside):
        left, top = x + wide * column, y + high * row
        sheet.fill(left, top, wide, high, PADDING)
        for start in np.arange(gap, wide + high, gap):
            xs = (left + max(0.0, start - high), left + min(start, wide))
            ys = (top + min(start, high), top + max(0.0, start - wide))
            sheet.line(xs, ys, "#d6d2c8", 0.4)


def _pads(sheet: Sheet, outside: NDArray[np.bool_], at: Place) -> None:
    x, y, w, h = at
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
