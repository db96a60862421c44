"""Borders: each training as a point, how strongly it draws the outlines of yellow and of red squares."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from convscope.plot.canvas.sheet import FOOT, SMALL, Sheet
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED
from convscope.type_checks import takes

if TYPE_CHECKING:
    from convscope.probe.borders import Borders

SIDE = 2.8  # inches
COLORS = {"vanish": "#b2182b", "stay": ACCENT, "nowhere": MUTED}
SAID = {"vanish": "red borders vanish", "stay": "red borders stay", "nowhere": "no borders at all"}


@takes(found="Borders")
def borders(found: "Borders") -> Figure:
    """Draw the strongest outline of a red square against that of a yellow one, a point per training.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import convscope as cs
    >>> runs = cs.probe.trainings("color-shapes", count=1, folder=mkdtemp(), epochs=1)
    >>> len(borders(cs.probe.borders(runs)).axes)
    1

    Args:
        found: The result of `cs.probe.borders`.
    """
    sheet = Sheet()
    facts = (
        f"{len(found.runs)} training{'s' * (len(found.runs) != 1)} · how far a map goes beyond ground and inside",
        f"in percent of the layer's range; drawn from {100 * found.visible:.0f} % on (thin lines)",
    )
    top = sheet.header("Borders of red and of yellow squares in the first maps", *facts) + 0.25
    left = 0.4
    for tick in range(0, 101, 25):
        x, y = left + SIDE * tick / 100, top + SIDE * (1 - tick / 100)
        sheet.line((left, left + SIDE), (y, y), color=LINE)
        sheet.line((x, x), (top, top + SIDE), color=LINE)
        sheet.text(left - 0.07, y, str(tick), points=FOOT, mono=True, color=MUTED, align="right", middle=True)
        sheet.text(x, top + SIDE + 0.14, str(tick), points=FOOT, mono=True, color=MUTED, align="center")
    sheet.line((left, left + SIDE), (top + SIDE, top), color=INK, weight=0.5)
    drawn = SIDE * found.visible
    sheet.line((left, left + SIDE), (top + SIDE - drawn, top + SIDE - drawn), color=MUTED, weight=0.5)
    sheet.line((left + drawn, left + drawn), (top, top + SIDE), color=MUTED, weight=0.5)
    sheet.text(left + SIDE, top + SIDE + 0.32, "yellow outline", points=SMALL, color=MUTED, align="right")
    sheet.text(0, top - 0.12, "red outline", points=SMALL, color=MUTED)
    for run in found.runs:
        x, y = (min(1.0, run.most(color)) for color in ("yellow", "red"))
        sheet.point(left + SIDE * x, top + SIDE * (1 - y), "o", COLORS[run.outcome])
    for k, (outcome, words) in enumerate(SAID.items()):
        y = top + 0.2 * k + 0.1
        sheet.point(left + SIDE + 0.25, y, "o", COLORS[outcome])
        sheet.text(left + SIDE + 0.35, y, f"{words}: {found.share(outcome)}", points=SMALL, middle=True)
    return sheet.finish()
