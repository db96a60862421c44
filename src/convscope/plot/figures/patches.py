"""Patches: for each channel a row of what excites it most and a row of what excites it least, all in one scale."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.plot.canvas.sheet import FOOT, SMALL, TINY, Place, Sheet, tile
from convscope.plot.canvas.style import LINE, MUTED, PAGE
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.patches import Patch, Patches

LONGEST, GAP = 0.52, 0.1  # inches
VEIL = 0.8
BEYOND = "#b9c7cf"
"""The colour outside the image: neither grey, nor the page."""


@takes(found="Patches")
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
        "pixels from 0 (black) to 1 (white), the same for all; blue-grey lies outside the image",
        "below each patch its number and the index of its image",
    )
    longest = LONGEST if max(found.frame) <= 16 else 2 * LONGEST
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


def _one(sheet: Sheet, patch: "Patch", at: Place, name: str) -> None:
    x, y, _, h = at
    sheet.picture(_colored(patch), at, name)
    sheet.frame(*at, color=LINE)
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
