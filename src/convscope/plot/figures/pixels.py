"""Pixels: a picture as the numbers it is made of; a colour picture as its three planes."""

from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.data.options import check_bytes
from convscope.errors import ShapeError, UsageError
from convscope.plot.arguments import picture_of_name
from convscope.plot.canvas.sheet import LABEL, SMALL, TINY, Area, Sheet, snap, tile
from convscope.plot.canvas.style import INK, MUTED, PAGE, size, styled, width
from convscope.type_checks import takes
from convscope.typing import Array

Crop = tuple[int, int, int, int]
"""A part of a picture: its top row, left column, height and width, in pixels."""
Units = Literal[255, 1]

WHOLE = 32  # a picture up to this size is written out in full
CELL = 0.235  # inches
LINES = "#8a8883"  # visible on black and on white
PLANES = ("red", "green", "blue")
COLUMN = 2.1  # inches
SIGN = 0.36  # inches between two planes, for a + or =


@takes()
@styled()
def pixels(picture: Array | str | Path, *, crop: Crop | None = None, name: str = "", units: Units = 255) -> Figure:
    """A picture as the grid of its pixel values, each number in its own grey. A colour picture becomes its planes.

    >>> figure = pixels(np.eye(3))
    >>> sorted({text.get_text() for text in figure.axes[0].texts} & {"0", "255"})
    ['0', '255']

    Args:
        picture: Grey (1, H, W) or (H, W), or colour (3, H, W); uint8 from 0 to 255, or float from 0 to 1. Or a
            file, or an image of a data set: "mnist:test/7".
        crop: Which part to write out; by default all of a picture up to 32x32, else the 24x24 that vary most.
        name: What the figure is titled.
        units: Whether white is 255 or 1.

    Raises:
        ShapeError: the picture has another shape.
        UsageError: the crop is outside the picture.
    """
    picture, own_name = picture_of_name(picture)
    name = name or own_name
    values = _unit(picture)
    if len(values) == 3:
        return planes(picture, crop=crop, name=name)
    part = _part(values, crop, WHOLE, 24)
    shown = _cut(values, part)[0]
    texts = _texts(shown, units)
    is_whole = shown.shape == values.shape[1:]
    sheet = Sheet()
    facts = (size(values.shape), "" if is_whole else _where(part), f"0 is black, {units} is white")
    y = sheet.header(name or "pixels", " · ".join(filter(None, facts))) + 0.24
    x = 0.2
    if not is_whole:
        w, h = tile(values.shape, 2.4)
        _marked(sheet, values, (0, y, w, h), part)
        x = w + 0.6
    cell = max(CELL, min(0.45, 2 / max(shown.shape)))
    wide = max(cell, 0.05 * max(map(len, texts.ravel())) + 0.08)
    area = (snap(x), snap(y), snap(snap(wide) * shown.shape[1]), snap(snap(cell) * shown.shape[0]))
    sheet.picture(shown[None], area, "pixels")
    sheet.grid(area, shown.shape[0], shown.shape[1], color=LINES)
    sheet.write(texts, np.stack([shown] * 3, axis=-1), area)
    _indices(sheet, area, part)
    return sheet.finish()


@takes()
@styled()
def planes(picture: Array, *, crop: Crop | None = None, name: str = "") -> Figure:
    """A colour picture as the sum of its red, green and blue plane, and some of its pixels from 0 to 255 and 0 to 1.

    >>> len(planes(np.zeros((3, 8, 8), np.uint8)).axes[0].images) >= 4
    True

    Args:
        picture: Shape (3, H, W); uint8 from 0 to 255, or float from 0 to 1.
        crop: Which pixels to write out, by default the 6x6 that vary most.
        name: What the figure is titled.

    Raises:
        ShapeError: the picture has no three channels.
        UsageError: the crop is outside the picture.
    """
    values = _unit(picture)
    if len(values) != 3:
        raise ShapeError(f"planes need a colour picture of shape (3, H, W), not {np.shape(picture)}; use pixels.")
    part = _part(values, crop, 6, 6)
    shown = _cut(values, part)
    sheet = Sheet()
    top = (
        sheet.header(name or "planes", f"{size(values.shape)} · light adds up: each pixel is red + green + blue") + 0.3
    )
    column = snap(max(COLUMN, part[3] * 0.35))
    w, h = tile(values.shape, min(column, 3.2))
    below = snap(top + h + 0.78)
    sheet.text(0, top - 0.08, "picture", bold=True)
    _marked(sheet, values, (0, top, w, h), part)
    sheet.text(0, below - 0.08, _where(part), points=SMALL, color=MUTED)
    sheet.picture(shown, (0, below, *tile(shown.shape, column)), "crop")
    for k, plane in enumerate(PLANES):
        x = snap((column + SIGN) * (k + 1))
        sheet.text(
            x - (column - w + SIGN) / 2, top + h / 2, "=++"[k], points=13, color=MUTED, align="center", middle=True
        )
        sheet.text(x, top - 0.08, plane, bold=True)
        sheet.text(x + width(plane, LABEL, bold=True) + 0.07, top - 0.08, f"channel {k}", points=SMALL, color=MUTED)
        _marked(sheet, _tinted(values, k), (x, top, w, h), part)
        _ramp(sheet, k, (x, top + h + 0.2, w))
        _written(sheet, shown, k, (x, below, column))
    return sheet.finish()


BYTES = 70
"""Bytes of memory that a figure takes at most for each number of a large picture, besides the picture."""


def _unit(picture: Array) -> NDArray[np.float64]:
    """Any picture as float64 from 0 to 1, shape (1, H, W) or (3, H, W)."""
    values = np.asarray(picture)
    scale = 255 if values.dtype == np.uint8 else 1
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or len(values) not in {1, 3} or 0 in values.shape:
        raise ShapeError(f"a picture has the shape (H, W), (1, H, W) or (3, H, W), not {np.shape(picture)}.")
    if values.dtype.kind not in "fu" or not (values >= 0).all() or not (values <= scale).all():
        raise ShapeError(
            "a picture has uint8 pixels from 0 to 255 or float pixels from 0 to 1, "
            f"not {values.dtype} from {values.min()} to {values.max()}; undo its normalization first."
        )
    check_bytes(f"the pixels of a drawn {size(values.shape)} picture", BYTES * values.size, "Scale the picture down.")
    return values.astype(np.float64) / scale


def _part(values: Array, crop: Crop | None, limit: int, crop_side: int) -> Crop:
    """The part to write out: what was asked, or all of a small picture, or the busiest part of a large one."""
    height, width = values.shape[1:]
    if crop is None:
        return (0, 0, height, width) if max(height, width) <= limit else _busiest(values, crop_side)
    if not isinstance(crop, tuple | list) or len(crop) != 4 or not all(isinstance(n, int | np.integer) for n in crop):
        raise UsageError(f"a crop is (top, left, rows, columns) in pixels, not {crop!r}.")
    top, left, rows, columns = crop
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
        raise UsageError(
            f"the crop of {rows}x{columns} pixels at row {top}, column {left} is outside the picture of "
            f"{height}x{width}; give top row, left column, height and width."
        )
    if max(rows, columns) > 2 * WHOLE:
        raise UsageError(f"a crop of {rows}x{columns} numbers cannot be read; take at most {2 * WHOLE} of each.")
    return crop


def _busiest(values: Array, longest: int) -> Crop:
    """The block of at most longest x longest pixels whose values vary most."""
    height, width = values.shape[1:]
    rows, columns = min(height, longest), min(width, longest)
    down, across = height // rows, width // columns
    blocks = values[:, : down * rows, : across * columns].reshape(-1, down, rows, across, columns)
    busy = blocks.var(axis=(2, 4)).sum(axis=0)  # (down, across)
    top, left = np.unravel_index(int(busy.argmax()), busy.shape)
    return int(top) * rows, int(left) * columns, rows, columns


def _cut(values: Array, part: Crop) -> Array:
    top, left, rows, columns = part
    return values[..., top : top + rows, left : left + columns]


def _where(part: Crop) -> str:
    top, left, rows, columns = part
    return f"rows {top} to {top + rows - 1}, columns {left} to {left + columns - 1}"


def _tinted(values: Array, channel: int) -> Array:
    """One plane in its own colour: the other two are dark."""
    tinted = np.zeros_like(values)
    tinted[channel] = values[channel]
    return tinted


def _marked(sheet: Sheet, values: Array, area: Area, part: Crop) -> None:
    """A picture with a frame around `part`."""
    sheet.picture(values, area, "picture")
    (x, y, w, h), (height, width) = area, values.shape[1:]
    top, left, rows, columns = part
    if (rows, columns) != (height, width):
        frame = (x + w * left / width, y + h * top / height, w * columns / width, h * rows / height)
        sheet.frame(*frame, color=INK, weight=2.2)
        sheet.frame(*frame, color=PAGE, weight=1.0)


def _ramp(sheet: Sheet, channel: int, position: tuple[float, float, float]) -> None:
    """One plane's colours with both ends, in both units: above the bar 0 to 255, below it 0 to 1."""
    x, y, w = position
    ramp = _tinted(np.linspace(0, 1, 256)[None, None].repeat(3, axis=0), channel)
    sheet.picture(ramp, (x, snap(y), w, 0.06), "legend")
    for low, high, line in (("0", "255", y - 0.05), ("0", "1", y + 0.16)):
        sheet.text(x, line, low, points=TINY + 0.5, mono=True, color=MUTED)
        sheet.text(x + w, line, high, points=TINY + 0.5, mono=True, color=MUTED, align="right")


def _written(sheet: Sheet, shown: Array, channel: int, position: tuple[float, float, float]) -> None:
    """The pixels of one plane as numbers, from 0 to 255 and below from 0 to 1."""
    x, y, w = position
    rows, columns = shown.shape[1:]
    h = snap(rows * 0.22)
    tinted = _tinted(shown, channel)
    units: tuple[Units, ...] = (255, 1)
    for unit in units:
        sheet.text(x, y - 0.08, f"0 to {unit}", points=SMALL, color=MUTED)
        sheet.picture(tinted, (x, y, w, h), f"{PLANES[channel]} 0 to {unit}")
        sheet.grid((x, y, w, h), rows, columns, color=LINES)
        sheet.write(_texts(shown[channel], unit), np.moveaxis(tinted, 0, -1), (x, y, w, h))
        y = snap(y + h + 0.32)


def _texts(shown: Array, units: Units) -> NDArray[np.str_]:
    """Levels from 0 to 1 as text: integers from 0 to 255 where they are such, else three decimals."""
    if units == 1:
        texts = [f"{v:.3f}" if 0 < v < 1 else f"{v:.0f}" for v in shown.ravel()]
    else:
        levels = shown.ravel() * 255
        is_integer = np.allclose(levels, np.rint(levels), atol=1e-3)
        texts = [f"{v:.0f}" if is_integer else f"{v:.1f}" for v in levels]
    return np.array(texts, np.str_).reshape(shown.shape)


def _indices(sheet: Sheet, area: Area, part: Crop) -> None:
    """Row and column numbers along a grid."""
    x, y, w, h = area
    top, left, rows, columns = part
    for row in range(rows):
        middle = y + h * (row + 0.5) / rows
        sheet.text(x - 0.06, middle, str(top + row), points=TINY, mono=True, color=MUTED, align="right", middle=True)
    for column in range(columns):
        middle = x + w * (column + 0.5) / columns
        sheet.text(middle, y - 0.05, str(left + column), points=TINY, mono=True, color=MUTED, align="center")
