"""Connections: which pixels each unit reads, of a dense layer and of a convolution with its shared weights."""

from collections.abc import Callable, Iterator
from functools import partial

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from convscope.errors import UsageError
from convscope.plot.canvas.sheet import SMALL, Sheet
from convscope.plot.canvas.style import INK, LINE, MUTED
from convscope.type_checks import takes

LARGEST = 8
NODE, STEP, GAP = 0.085, 0.115, 0.06
"""Size of a node, from node to node, and between two rows of the image, in inches."""
CELL = 0.2
REACH = 1.7
"""Inches between the pixels and the units."""
PANEL = 4.3

Lines = Iterator[tuple[int, int, str]]
"""Pixel, unit, and the colour of the weight between them."""


@takes()
def connections(size: int = 5, kernel: int = 3) -> Figure:
    """A dense layer, in which every unit reads every pixel, beside a convolution, whose units share their weights.

    Each line is one product, and each colour one weight: the dense layer has a colour for every line, the convolution
    one for every cell of its kernel.

    >>> figure = connections(size=4, kernel=2)
    >>> len(figure.axes[0].lines)  # 16 pixels · 9 units, and 4 products · 9 units
    180

    Args:
        size: Rows and columns of the image, 2 to 8.
        kernel: Rows and columns of the convolution's kernel, 1 to `size`; stride 1, no padding.

    Raises:
        UsageError: a size that cannot be drawn.
    """
    if not 2 <= size <= LARGEST or not 1 <= kernel <= size:
        raise UsageError(
            f"an image of {size}x{size} under a kernel of {kernel}x{kernel} cannot be drawn; give a size of "
            f"2 to {LARGEST}, and a kernel of 1 to that size."
        )
    pixels, out = size**2, size - kernel + 1
    products = kernel**2 * out**2
    sheet = Sheet()
    top = sheet.header(
        "Dense and local connections",
        f"{size}x{size} pixels, {out}x{out} units; a line is one product, a colour one weight",
        "thick: the first and the last unit; the image has the colours of the first one's weights",
    )
    line_colors = _colors(pixels * out**2)
    draw = partial(_panel, sheet, size=size, out=out)
    draw((0, top), lines=_dense(pixels, out**2, line_colors), color=lambda pixel: line_colors[pixel * out**2])
    _say(sheet, 0, top, "dense layer", f"{pixels} · {out**2} = {pixels * out**2:,} lines", "each has its own weight")
    colors = _colors(kernel**2)
    draw((PANEL, top), lines=_local(size, kernel, colors), color=lambda pixel: _in_window(pixel, size, kernel, colors))
    shared = f"{kernel} · {kernel} = {kernel**2} weight{'s' * (kernel > 1)}, each used {out**2} times"
    _say(sheet, PANEL, top, f"convolution {kernel}x{kernel}", f"{kernel**2} · {out**2} = {products:,} lines", shared)
    return sheet.finish()


def _colors(count: int) -> list[str]:
    return [to_hex(color) for color in mpl.colormaps["turbo"](np.linspace(0.04, 0.96, count))]


def _dense(pixels: int, units: int, colors: list[str]) -> Lines:
    for pixel, unit in np.ndindex(pixels, units):  # shifted from unit to unit, so that no two look alike
        yield pixel, unit, colors[(pixel + unit * pixels // (2 * units)) % pixels * units + unit]


def _local(size: int, kernel: int, colors: list[str]) -> Lines:
    for unit, (top, left) in enumerate(np.ndindex(size - kernel + 1, size - kernel + 1)):
        for color, (row, column) in zip(colors, np.ndindex(kernel, kernel), strict=True):
            yield (top + row) * size + left + column, unit, color


def _in_window(pixel: int, size: int, kernel: int, colors: list[str]) -> str:
    """The colour of the weight that the first unit has for a pixel."""
    row, column = divmod(pixel, size)
    return colors[row * kernel + column] if row < kernel and column < kernel else LINE


def _say(sheet: Sheet, x: float, top: float, name: str, *facts: str) -> None:
    sheet.text(x, top + 0.2, name, bold=True)
    for number, fact in enumerate(facts):
        sheet.text(x, top + 0.37 + 0.15 * number, fact, points=SMALL, color=MUTED)


def _panel(
    sheet: Sheet, origin: tuple[float, float], *, size: int, out: int, lines: Lines, color: Callable[[int], str]
) -> None:
    """The image, its pixels one below the other, the units, and the lines; two units have thicker ones."""
    x, y = origin[0], origin[1] + 0.75
    heights = [_height(y, index, size) for index in range(size**2)]
    middle = (heights[-1] + y) / 2
    first = middle - (_height(0, out**2 - 1, out)) / 2
    units = [_height(first, index, out) for index in range(out**2)]
    corner = middle - CELL * size / 2
    for pixel, (row, column) in enumerate(np.ndindex(size, size)):
        sheet.fill(x + CELL * column, corner + CELL * row, CELL, CELL, color(pixel))
        sheet.frame(x + CELL * column, corner + CELL * row, CELL, CELL, color=MUTED, weight=0.4)
    left = x + CELL * size + 0.35
    for pixel, unit, weight in lines:
        ends = [left + NODE, left + REACH], [heights[pixel] + NODE / 2, units[unit] + NODE / 2]
        thick = unit in {0, out**2 - 1}
        sheet.line(*ends, color=weight if thick else f"{weight}60", weight=1.2 if thick else 0.35)
    for nodes, column in ((heights, left), (units, left + REACH)):
        for height in nodes:
            sheet.fill(column, height, NODE, NODE, INK)
    sheet.text(left + NODE / 2, y - 0.07, "pixels", points=SMALL, color=MUTED, align="center")
    sheet.text(left + REACH + NODE / 2, min(y, first) - 0.07, "units", points=SMALL, color=MUTED, align="center")


def _height(start: float, index: int, columns: int) -> float:
    return start + index * STEP + index // columns * GAP
