"""Receptive fields: the pixels that a number can depend on, and the patches that excite a channel most and least."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.plot.canvas.sheet import FOOT, SMALL, TINY, Area, Sheet, tile
from convscope.plot.canvas.style import ACCENT, LINE, MUTED, PAGE, size, styled
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.patches import Patch, Patches
    from convscope.probe.receptive_field import ReceptiveField

LONGEST = 3.0  # inches, the image
LONGEST_PATCH, GAP = 0.52, 0.1  # inches
VEIL = 0.8
LETTERS = 110  # in a line of text
SMALL_SHARE = 0.4  # of the image's longer side: fields up to this are also drawn enlarged


@takes(found="ReceptiveField")
@styled()
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
    caption = [line for part in str(found).splitlines() for line in textwrap.wrap(part, LETTERS)]
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


def _veiled(field: "ReceptiveField") -> NDArray[np.float64]:
    """The picture in colours, all but the field faded to the page: (3, H, W)."""
    picture = np.clip(np.nan_to_num(field.picture.astype(np.float64)), 0, 1)
    colored = np.broadcast_to(picture, (3, *picture.shape[1:]))
    page = np.array(to_rgb(PAGE))[:, None, None]
    inside = field.cells.max(axis=0)
    return np.where(inside, colored, (1 - VEIL) * colored + VEIL * page)


BEYOND = "#b9c7cf"
"""The colour outside the image: neither grey, nor the page."""


@takes(found="Patches")
@styled()
def patches(found: "Patches", *, most: int = 16) -> Figure:
    """Draw the patches of each channel: on the left those that excite it most, on the right least.

    Every patch is drawn from 0 to 1, black to white, with its number below; none is stretched to its own range.

    >>> import convscope as cs
    >>> result = cs.probe.patches(cs.load_model("crosses"), cs.load_dataset("crosses"), "conv1", count=2)
    >>> len(patches(result).axes[0].images)
    4

    Args:
        found: The result of `cs.probe.patches`.
        most: How many channels at most; the figure says how many there are.

    Raises:
        UsageError: `most` is not positive.
    """
    if most < 1:
        raise UsageError(f"most must be 1 or more, not {most}.")
    sheet = Sheet()
    size = f"{found.frame[0]}×{found.frame[1]}"
    units = list(found.most)[:most]
    some = f" · {len(units)} of {found.units} channels" if len(units) < found.units else ""
    y = sheet.header(
        f"What excites {found.step} of {found.model}",
        f"{found.dataset} · {found.images:,} images · patches of {size} pixels, exact receptive fields{some}",
        "pixels from 0 (black) to 1 (white), the same for all; blue-grey is outside the image",
        "below each patch its number and the index of its image",
    )
    longest = LONGEST_PATCH if max(found.frame) <= 16 else 2 * LONGEST_PATCH
    w, h = tile(found.frame, longest)
    step = max(w, 0.5) + GAP
    left, middle = 0.45, 0.45 + step * len(found.most[units[0]]) + 0.25
    y += 0.18
    sheet.text(left, y, "most", bold=True)
    sheet.text(middle, y, "least", bold=True)
    y += 0.1
    for unit in units:
        sheet.text(0, y + h / 2, str(unit), points=SMALL, mono=True, color=MUTED, middle=True)
        for x, row in ((left, found.most[unit]), (middle, found.least[unit])):
            for rank, patch in enumerate(row):
                _one(sheet, patch, (x + rank * step, y, w, h), f"{unit} {rank}")
        y += h + 0.36
    return sheet.finish()


def _one(sheet: Sheet, patch: "Patch", area: Area, name: str) -> None:
    x, y, _, h = area
    sheet.picture(_colored(patch), area, name)
    sheet.frame(*area, color=LINE)
    sheet.text(x, y + h + 0.11, compact(patch.value, 3), points=FOOT, mono=True)
    sheet.text(x, y + h + 0.22, str(patch.image), points=TINY, mono=True, color=MUTED)


def _colored(patch: "Patch") -> NDArray[np.float64]:
    """A patch in colours, faded where the number cannot look and of its own colour outside the image: (3, h, w)."""
    page, beyond = (np.array(to_rgb(color))[:, None, None] for color in (PAGE, BEYOND))
    picture = np.clip(np.nan_to_num(patch.picture.astype(np.float64)), 0, 1)
    planes = picture if len(picture) in {1, 3} else picture[:1]
    colored = np.broadcast_to(planes, (3, *planes.shape[1:]))
    share = np.array([0.0, 1 - VEIL, 1.0])[patch.kind]
    return np.where(patch.kind == 0, beyond, share * colored + (1 - share) * page)
