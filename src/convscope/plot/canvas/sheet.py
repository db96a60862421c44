"""Sheet: paper to lay pictures, numbers and text on, in inches from its upper left corner.

Grows with what is put on it and becomes a Figure at the end. Uses the style; nothing of networks or data.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from convscope.plot.canvas.style import (
    DIVERGING,
    DPI,
    INK,
    LINE,
    MUTED,
    NOT_FINITE,
    ColorScale,
    StyledFigure,
    font,
    on,
    printable,
    width,
)
from convscope.render.numbers import aligned, compact
from convscope.typing import Array

TITLE, LABEL, SMALL, FOOT, TINY = 10.5, 8.0, 7.0, 6.5, 5.5
"""Sizes of type, in points."""

MOST_PIXELS = 4000
"""Largest width and height of a picture that is drawn as it is: several pixels of it are one of the figure."""

Align = Literal["left", "center", "right"]
Area = tuple[float, float, float, float]
"""A rectangle on the sheet: x, y, width, height, in inches."""


class Sheet:
    """Paper without a size. `finish` cuts it to what was put on it, plus a margin.

    >>> sheet = Sheet()
    >>> sheet.text(0, 0.1, "one line")
    >>> sheet.finish().get_size_inches()[1] > 0.5
    np.True_
    """

    def __init__(self, margin: float = 0.3) -> None:
        self.margin = margin
        self.right = self.bottom = 0.0
        self.page = StyledFigure()
        self.axes = self.page.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_autoscale_on(False)

    def finish(self) -> StyledFigure:
        """The figure: as large as what is on it."""
        width, height = snap(self.right + 2 * self.margin), snap(self.bottom + 2 * self.margin)
        self.page.set_size_inches(width, height)
        self.axes.set_xlim(-self.margin, width - self.margin)
        self.axes.set_ylim(height - self.margin, -self.margin)
        return self.page

    def reach(self, x: float, y: float) -> None:
        """Make the sheet reach at least to this point."""
        self.right, self.bottom = max(self.right, x), max(self.bottom, y)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        points: float = LABEL,
        color: str = INK,
        bold: bool = False,
        mono: bool = False,
        align: Align = "left",
        middle: bool = False,
        turn: float = 0,
    ) -> None:
        """Write `text`, its baseline (or its middle) at y."""
        text = printable(text)
        artist = Text(
            x,
            y,
            text,
            color=color,
            fontproperties=font(text, points, bold=bold, mono=mono),
            horizontalalignment=align,
            verticalalignment="center_baseline" if middle else "baseline",
            rotation=turn,
            rotation_mode="anchor",
            usetex=False,
            parse_math=False,
            clip_on=False,
        )
        self.axes.add_artist(artist)
        if not turn:
            self.reach(x + width(text, points, bold=bold, mono=mono) * {"left": 1, "center": 0.5, "right": 0}[align], y)

    def header(self, title: str, *facts: str) -> float:
        """The figure's title, and under it in grey what else there is to say; returns where the rest begins."""
        self.text(0, 0.12, title, points=TITLE, bold=True)
        lines = [fact for fact in facts if fact]
        for line, fact in enumerate(lines):
            self.text(0, 0.31 + 0.15 * line, fact, points=SMALL, color=MUTED)
        return 0.36 + 0.15 * len(lines)

    def line(self, xs: Sequence[float], ys: Sequence[float], color: str = LINE, weight: float = 0.6) -> None:
        """A thin line through points."""
        self.axes.add_line(
            Line2D(xs, ys, color=color, linewidth=weight, solid_capstyle="butt", solid_joinstyle="round")
        )
        self.reach(max(xs), max(ys))

    def frame(self, x: float, y: float, w: float, h: float, *, color: str = LINE, weight: float = 0.6) -> None:
        """The outline of a rectangle."""
        self.axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=color, linewidth=weight))
        self.reach(x + w, y + h)

    def fill(self, x: float, y: float, w: float, h: float, color: str) -> None:
        """A plain rectangle."""
        self.axes.add_patch(Rectangle((x, y), w, h, facecolor=color, edgecolor="none"))
        self.reach(x + w, y + h)

    def map(self, values: Array, area: Area, scale: ColorScale, name: str = "") -> None:
        """Signed numbers of shape (H, W) in the colours of `scale`, in the rectangle x, y, width, height."""
        shown = np.ma.masked_invalid(np.asarray(_reduced(values), np.float64))
        self._image(shown, area, name, cmap=DIVERGING, norm=scale.norm)
        self.frame(*area)

    def picture(self, picture: Array, area: Area, name: str = "") -> None:
        """A picture of shape (1, H, W) or (3, H, W), from 0 to 1, in its own colours."""
        values = np.clip(np.asarray(_reduced(np.moveaxis(np.asarray(picture), 0, -1)), np.float64), 0, 1)  # (H, W, C)
        if values.shape[2] == 1:
            self._image(values[..., 0], area, name, cmap="gray", vmin=0, vmax=1)
        else:
            self._image(values, area, name)
        self.frame(*area)

    def colors(self, colors: NDArray[np.float64], area: Area, name: str = "") -> None:
        """Colours of shape (H, W, 3), from 0 to 1, as they are and without a frame."""
        self._image(colors, area, name)

    def _image(self, values: Array, area: Area, name: str, **colors: Any) -> None:
        x, y, w, h = area
        limits = {key: colors.pop(key) for key in ("vmin", "vmax") if key in colors}
        image = AxesImage(
            self.axes, extent=(x, x + w, y + h, y), origin="upper", interpolation="auto", resample=False, **colors
        )
        image.set_data(values)
        image.set_clim(**limits) if limits else None
        image.set_label(name)
        self.axes.add_image(image)
        self.reach(x + w, y + h)

    def numbers(self, values: Array, area: Area, scale: ColorScale, name: str = "") -> None:
        """Numbers of shape (H, W), each written into its coloured cell."""
        self.map(values, area, scale, name)
        self.grid(area, values.shape[0], values.shape[1])
        self.write(aligned(values), scale.colors(values), area)

    def write(self, texts: NDArray[np.str_], colors: NDArray[np.float64], area: Area) -> None:
        """Texts of shape (H, W) into the cells of `area`, legible on `colors` of shape (H, W, 3)."""
        x, y, w, h = area
        rows, columns = texts.shape
        longest = max(7 if any("." in text for text in texts.ravel()) else 3, *map(len, texts.ravel()))
        points = min(7.5, w / columns * 72 / (0.68 * longest), h / rows * 72 * 0.5)
        for (row, column), text in np.ndenumerate(texts):
            self.text(
                x + w * (column + 0.5) / columns,
                y + h * (row + 0.5) / rows,
                str(text),
                points=points,
                mono=True,
                color=on(colors[row, column]),
                align="center",
                middle=True,
            )

    def grid(self, area: Area, rows: int, columns: int, color: str = LINE) -> None:
        """Thin lines between cells."""
        x, y, w, h = area
        for row in range(1, rows):
            self.line((x, x + w), (y + h * row / rows,) * 2, color, 0.4)
        for column in range(1, columns):
            self.line((x + w * column / columns,) * 2, (y, y + h), color, 0.4)

    def legend(self, x: float, y: float, w: float, scale: ColorScale, points: float = 6.0) -> None:
        """The colours of `scale` with both of its ends, in a line of width w around y."""
        low, high = scale.ends
        if low == high:
            self.text(x, y, "all numbers are 0", points=points, color=MUTED, middle=True)
            return
        left, right = compact(low), compact(high, plus=low < 0)
        if scale.beyond:
            left, right = f"≤ {left}" if low < 0 else left, f"≥ {right}" if high > 0 else right
        x_bar = x + width(left, points, mono=True) + 0.06
        w_bar = max(w - (x_bar - x) - width(right, points, mono=True) - 0.06, 0.15)
        self.text(x, y, left, points=points, mono=True, color=MUTED, middle=True)
        self.text(x_bar + w_bar + 0.06, y, right, points=points, mono=True, color=MUTED, middle=True)
        bar = (snap(x_bar), snap(y - 0.03), snap(w_bar), 0.06)
        self._image(np.linspace(low, high, 256)[None], bar, "legend", cmap=DIVERGING, norm=scale.norm)
        self.frame(*bar, weight=0.4)
        if scale.strange:
            caption = f"{scale.strange:,} not finite"
            self.fill(x, y + 0.09, 0.06, 0.06, NOT_FINITE)
            self.text(x + 0.1, y + 0.12, caption, points=points, color=MUTED, middle=True)
        elif scale.beyond:
            cells = (
                f"{scale.beyond:,} cell{'s' if scale.beyond > 1 else ''} beyond the end{'s' if low < 0 < high else ''}"
            )
            self.text(x, y + 0.12, cells, points=points, color=MUTED, middle=True)

    def legend_below(self, x: float, y: float, w: float, scale: ColorScale) -> None:
        """A narrow legend: the colours at y, both ends beneath."""
        low, high = scale.ends
        if low == high:
            self.text(x, y + 0.06, "all 0", points=TINY, color=MUTED)
            return
        bar = (snap(x), snap(y), snap(w), 0.05)
        self._image(np.linspace(low, high, 256)[None], bar, "legend", cmap=DIVERGING, norm=scale.norm)
        self.frame(*bar, weight=0.4)
        self.text(x, y + 0.14, compact(low, 3), points=TINY, mono=True, color=MUTED)
        right = compact(high, 3, plus=low < 0) + (" not finite" if scale.strange else "")
        right = f"≥ {right}" if scale.beyond else right
        self.text(x + w, y + 0.14, right, points=TINY, mono=True, color=MUTED, align="right")

    def point(self, x: float, y: float, mark: str, color: str) -> None:
        """A small mark: `^` the tip of an arrow, `o` a dot."""
        self.axes.add_line(Line2D([x], [y], marker=mark, markersize=3.2, color=color, linestyle="none"))


def _reduced(values: Array) -> Array:
    """Means of blocks of a picture (H, W, ...) of more pixels than are drawn, which else takes gigabytes to draw.

    >>> _reduced(np.zeros((3, 10 * MOST_PIXELS))).shape
    (3, 4000)
    """
    high, wide = (-(-length // MOST_PIXELS) for length in np.shape(values)[:2])
    if max(high, wide) <= 1:
        return values
    rows, columns = values.shape[0] // high, values.shape[1] // wide
    blocks = values[: rows * high, : columns * wide].reshape(rows, high, columns, wide, *values.shape[2:])
    return np.asarray(blocks.mean((1, 3)))


def snap(inches: float) -> float:
    """The nearest length of whole pixels, so that the cells of a picture are equally wide."""
    return round(inches * DPI) / DPI


def tile(shape: tuple[int, ...], longest: float) -> tuple[float, float]:
    """(width, height) in inches of a picture (..., H, W) whose longer side is at most `longest`.

    Cells that span three pixels or more span whole ones, so that all are equally wide.

    >>> tile((3, 3), 0.5)
    (0.495, 0.495)
    """
    rows, columns = shape[-2:]
    pixels = longest * DPI / max(rows, columns)
    pixels = float(int(pixels + 1e-9)) if pixels >= 3 else pixels
    return snap(max(columns * pixels / DPI, 0.04)), snap(max(rows * pixels / DPI, 0.04))
