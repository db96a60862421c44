"""Filtered: a picture, a kernel with its numbers, and the filtered picture, side by side."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.errors import ShapeError
from convscope.filters import Filter
from convscope.plot.canvas.sheet import SMALL, TINY, Sheet, snap, tile
from convscope.plot.canvas.style import MUTED, ColorScale, size, styled
from convscope.preprocess import Preprocess
from convscope.render.numbers import compact
from convscope.type_checks import takes
from convscope.typing import Array

LONGEST = 3.0  # inches, a picture
CELL = (0.52, 0.34)  # inches, one number of the kernel
WRITTEN = 9  # kernels up to 9x9 are written out in numbers
SMALL_MAP = 12  # and outputs up to 12x12
SIGN = 0.5  # inches, for the sign between two terms
CHANNELS = ("red", "green", "blue")


@takes(kernel="Filter")
@styled()
def filtered(picture: Array, kernel: Filter, output: Array, *, name: str = "") -> Figure:
    """A picture, the kernel with its numbers, and the output, as one line: picture ∗ kernel = output.

    The output is drawn in signed colours, zero in the middle; it stays a picture where the kernel's numbers sum to 1.

    >>> from convscope.filters import FILTERS, apply_filter
    >>> square = np.zeros((1, 10, 10))
    >>> square[:, 3:7, 3:7] = 1
    >>> kernel = FILTERS["vertical"]
    >>> [str(image.get_label()) for image in filtered(square, kernel, apply_filter(square, kernel)).axes[0].images]
    ['picture', 'kernel', 'legend', 'output', 'legend']

    Args:
        picture: What was filtered, shape (C, H, W) from 0 to 1, shown in grey where the output has one channel; or
            other numbers, shape (1, H, W).
        kernel: The Filter.
        output: What `convscope.filters.apply_filter` gave, shape (1, P, Q), or (3, P, Q) channel by channel.
        name: What the picture is called.

    Raises:
        ShapeError: the picture or the output has another shape.
    """
    shown, result = np.asarray(picture, np.float64), np.asarray(output, np.float64)
    if not all(array.ndim == 3 and len(array) in {1, 3} and array.size for array in (shown, result)):
        raise ShapeError(
            f"picture and output have 1 or 3 channels, shape (C, H, W), not {shown.shape} and {result.shape}."
        )
    if len(result) == 1 and len(shown) == 3:
        shown = np.asarray(Preprocess(channels=1).apply(shown, white=1.0), np.float64)
    sheet = Sheet()
    top = sheet.header(f"{kernel.name} on {name}" if name else kernel.name, _facts(kernel, result)) + 0.4
    w, h = tile(shown.shape, LONGEST)
    middle = top + h / 2
    _term(sheet, 0, top, "picture", size(shown.shape))
    if shown.min() >= 0 and shown.max() <= 1:
        sheet.picture(shown, (0, snap(top), w, h), "picture")
    else:  # typed numbers
        sheet.numbers(shown[0], (0, snap(top), w, h), ColorScale.of(shown), "picture")
    sheet.text(w + SIGN / 2, middle, "∗", points=14, color=MUTED, align="center", middle=True)
    x = _kernel(sheet, w + SIGN, top, middle, kernel)
    sheet.text(x + SIGN / 2, middle, "=", points=14, color=MUTED, align="center", middle=True)
    x = snap(x + SIGN)
    pixel = w / shown.shape[2], h / shown.shape[1]
    _outputs(sheet, x, snap(top), result, pixel=pixel, as_picture=_is_picture(kernel))
    return sheet.finish()


def _facts(kernel: Filter, result: NDArray[np.float64]) -> str:
    finds = f"finds {kernel.finds} · " if kernel.finds else ""
    return f"{finds}output from {compact(float(result.min()))} to {compact(float(result.max()))}"


def _is_picture(kernel: Filter) -> bool:
    """Whether a plain area keeps its brightness, so that the output is a picture again."""
    return abs(kernel.total - 1) < 1e-6


def _kernel(sheet: Sheet, x: float, top: float, middle: float, kernel: Filter) -> float:
    """The kernel with its numbers, at the height of the pictures' middle; returns where it ends."""
    scale = ColorScale.of(kernel.kernel)
    w, h = _kernel_size(kernel.shape)
    y = snap(max(middle - h / 2, top))
    _term(sheet, x, y, "kernel", size(kernel.shape))
    draw = sheet.numbers if max(kernel.shape) <= WRITTEN else sheet.map
    draw(kernel.kernel, (snap(x), y, w, h), scale, "kernel")
    sheet.legend(x, y + h + 0.15, max(w, 1.3), scale)
    sheet.text(x, y + h + 0.38, f"sum {compact(kernel.total)}", points=SMALL, mono=True, color=MUTED)
    return x + max(w, 1.3)


def _outputs(
    sheet: Sheet, x: float, y: float, result: NDArray[np.float64], *, pixel: tuple[float, float], as_picture: bool
) -> None:
    """The output at the picture's own magnification, so that both can be compared cell by cell.

    In signed colours, one scale over all channels; a picture again where the kernel keeps plain areas as they are.
    """
    w, h = snap(pixel[0] * result.shape[2]), snap(pixel[1] * result.shape[1])
    if as_picture:
        _term(sheet, x, y, "output", size(result.shape))
        sheet.picture(result, (x, y, w, h), "output")
        _grey_legend(
            sheet, x, y + h + 0.15, ", less and more is clipped" if result.min() < 0 or result.max() > 1 else ""
        )
        return
    scale = ColorScale.of_maps(result)
    for k, plane in enumerate(result):
        left = snap(x + (w + 0.2) * k)
        called = "output" if len(result) == 1 else f"output, {CHANNELS[k]}"
        _term(sheet, left, y, called, size(result.shape if len(result) == 1 else plane.shape))
        draw = sheet.numbers if max(plane.shape) <= SMALL_MAP else sheet.map
        draw(plane, (left, y, w, h), scale, called)
    sheet.legend(x, y + h + 0.15, min(max(w, 1.5), 2.4), scale)


def _grey_legend(sheet: Sheet, x: float, y: float, more: str) -> None:
    sheet.text(x, y, "0", points=TINY + 0.5, mono=True, color=MUTED, middle=True)
    sheet.picture(np.linspace(0, 1, 256)[None, None], (snap(x + 0.12), snap(y - 0.03), 1.4, 0.06), "legend")
    sheet.text(x + 1.58, y, f"1{more}", points=TINY + 0.5, mono=True, color=MUTED, middle=True)


def _term(sheet: Sheet, x: float, y: float, name: str, shape: str) -> None:
    """What one term is called, above it."""
    sheet.text(x, y - 0.23, name, bold=True)
    sheet.text(x, y - 0.08, shape, points=SMALL, mono=True, color=MUTED)


def _kernel_size(shape: tuple[int, int]) -> tuple[float, float]:
    if max(shape) > WRITTEN:
        return tile(shape, 2.4)
    return snap(CELL[0]) * shape[1], snap(CELL[1]) * shape[0]
