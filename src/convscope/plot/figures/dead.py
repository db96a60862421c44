"""Dead: a square for each unit of each step, coloured by what is known of it.

The squares of a step are one image, so that a file stays small however many units there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, Sheet, snap
from convscope.plot.canvas.style import DPI, INK, LINE, MUTED, PAGE, shorten, width
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.dead import Dead, StepUnits

COLORS: Mapping[str, str] = {"alive": "#cfe3da", "dead": INK, "saturated": "#d6604d", "duplicate": "#4393c3"}
SIDE, GAP = 0.1, 0.02  # inches, of the squares that say what colours mean


@dataclass(frozen=True, slots=True)
class Squares:
    """How the units of a step are laid out, in pixels of the figure."""

    side: int
    gap: int
    row: int
    """Units in a line."""

    @property
    def pitch(self) -> float:
        """From one unit to the next, in inches."""
        return (self.side + self.gap) / DPI


LARGE, SMALLER = Squares(20, 4, 40), Squares(6, 2, 128)
MANY = 256
"""Where a step has more units than this, the squares of all are small."""


@takes(found="Dead")
def dead(found: "Dead") -> Figure:
    """Draw which units are dead, saturated or duplicates of an earlier one: a square for each.

    >>> import convscope as cs
    >>> result = cs.probe.dead(cs.load_model("shapes-cnn"), cs.load_dataset("shapes", split="test"))
    >>> dead(result).axes[0].texts[0].get_text()
    'Dead, saturated and duplicate units of shapes-cnn'

    Args:
        found: The result of `cs.probe.dead`.
    """
    squares = SMALLER if max(len(step.low) for step in found.steps) > MANY else LARGE
    sheet = Sheet()
    facts = f"{found.dataset} · {found.images:,} images · {squares.row} units to a line, unit 0 first"
    y = sheet.header(f"Dead, saturated and duplicate units of {found.model}", facts) + 0.2
    x = 0.0
    for name, color in COLORS.items():
        sheet.fill(x, y - 0.08, SIDE, SIDE, color)
        sheet.text(x + SIDE + 0.05, y, name, points=SMALL)
        x += SIDE + 0.25 + width(name, SMALL)
    left = snap(max(width(shorten(step.step, LABEL, 2.2), LABEL) for step in found.steps) + 0.2)
    y += 0.25
    for step in found.steps:
        y = _row(sheet, step, squares, left, snap(y)) + 0.14
    return sheet.finish()


def _row(sheet: Sheet, step: "StepUnits", squares: Squares, left: float, y: float) -> float:
    """One step; returns where it ends."""
    states = np.zeros(len(step.low), np.intp)
    states[[pair.other for pair in step.duplicates]] = 3
    states[step.saturated], states[step.dead] = 2, 1
    across, down = min(squares.row, len(states)), -(-len(states) // squares.row)
    wide, high = across * squares.pitch, down * squares.pitch
    sheet.text(0, y + 0.085, shorten(step.step, LABEL, 2.2))
    sheet.colors(_squares(states, squares), (left, y + snap(max(0, SIDE - high) / 2), wide, high), step.step)
    counts = [
        f"{n:,} {name}{'s' * (name == 'duplicate' and n > 1)}"
        for name, n in zip(COLORS, np.bincount(states).tolist(), strict=False)
        if n
    ]
    x = left + wide + 0.1
    sheet.text(x, y + 0.08, ", ".join(counts), points=FOOT, color=MUTED)
    bottom = y + max(high, 0.12)
    sheet.line((0, x), (bottom + 0.06, bottom + 0.06), LINE, 0.3)
    return bottom


def _squares(states: NDArray[np.intp], squares: Squares) -> NDArray[np.float64]:
    """The colours of units that are `states` of COLORS, pixel by pixel: shape (height, width, 3)."""
    across = min(squares.row, len(states))
    padded = np.full(-(-len(states) // across) * across, len(COLORS))
    padded[: len(states)] = states
    colors = np.array([to_rgb(color) for color in (*COLORS.values(), PAGE)])[padded.reshape(-1, across)]
    cells = np.full((len(colors), squares.side + squares.gap, across, squares.side + squares.gap, 3), to_rgb(PAGE))
    cells[:, : squares.side, :, : squares.side] = colors[:, None, :, None]
    return cells.reshape(cells.shape[0] * cells.shape[1], -1, 3)
