"""Receptive field: the image, with what a number cannot depend on veiled; beside it the field itself, enlarged."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.plot.canvas.sheet import SMALL, Sheet, tile
from convscope.plot.canvas.style import ACCENT, MUTED, PAGE, size
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.receptive_field import ReceptiveField

LONGEST = 3.0  # inches
VEIL = 0.8
LINE = 110  # characters
SMALL_SHARE = 0.4  # of the image's longer side: fields up to this are also drawn enlarged


@takes(found="ReceptiveField")
def receptive_field(found: "ReceptiveField") -> Figure:
    """Draw which pixels a number can depend on: the others are veiled, the box around them is outlined.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(1, 1, 3), torch.ones(1, 9, 9))
    >>> figure = receptive_field(cs.probe.receptive_field(trace, "conv2d", (0, 1, 2)))
    >>> [str(image.get_label()) for image in figure.axes[0].images]
    ['image', 'field']

    Args:
        found: The result of `cs.probe.receptive_field`.

    Raises:
        UsageError: the input is not a grey or colour picture.
    """
    if found.cells.ndim != 3 or len(found.cells) not in {1, 3}:
        raise UsageError(f"an input of {size(found.cells.shape)} is not a grey or colour picture to draw the field on.")
    sheet = Sheet()
    caption = [line for part in str(found).splitlines() for line in textwrap.wrap(part, LINE)]
    y = sheet.header(f"What {found.name} can depend on", *caption) + 0.12
    shown = _veiled(found)
    w, h = tile(found.cells.shape, LONGEST)
    sheet.picture(shown, (0, y, w, h), "image")
    if not found.count:
        return sheet.finish()
    (top, bottom), (left, right) = found.box[1:]
    cell = w / found.cells.shape[2], h / found.cells.shape[1]
    box = (left * cell[0], y + top * cell[1], (right - left + 1) * cell[0], (bottom - top + 1) * cell[1])
    sheet.frame(*box, color=ACCENT, weight=1.0)
    part = shown[:, top : bottom + 1, left : right + 1]
    if max(part.shape[1:]) <= SMALL_SHARE * max(found.cells.shape[1:]):
        x = w + 0.3
        across, down = tile(part.shape, LONGEST / 2)
        sheet.picture(part, (x, y, across, down), "field")
        sheet.frame(x, y, across, down, color=ACCENT, weight=1.0)
        sheet.text(x, y + down + 0.15, f"rows {top} to {bottom}", points=SMALL, color=MUTED)
        sheet.text(x, y + down + 0.29, f"columns {left} to {right}", points=SMALL, color=MUTED)
    return sheet.finish()


def _veiled(found: "ReceptiveField") -> NDArray[np.float64]:
    """The picture in colours, all but the field faded to the page: (3, H, W)."""
    picture = np.clip(np.nan_to_num(found.picture.astype(np.float64)), 0, 1)
    colored = np.broadcast_to(picture, (3, *picture.shape[1:]))
    page = np.array(to_rgb(PAGE))[:, None, None]
    read = found.cells.max(axis=0)
    return np.where(read, colored, (1 - VEIL) * colored + VEIL * page)
