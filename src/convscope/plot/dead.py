"""Dead: a square for each unit of each step, coloured by what is known of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from convscope.plot.sheet import FOOT, LABEL, SMALL, Sheet
from convscope.plot.style import INK, LINE, MUTED
from convscope.plot.typeface import shorten, width

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe import Dead, StepUnits

COLORS: Mapping[str, str] = {"alive": "#cfe3da", "dead": INK, "saturated": "#d6604d", "duplicate": "#4393c3"}
SIDE, GAP, ROW = 0.1, 0.02, 40  # inches, inches, units in a line


def dead(found: "Dead") -> Figure:
    """Draw which units are dead, saturated or duplicates of an earlier one: a square for each.

    >>> import convscope as cs
    >>> found = cs.probe.dead(cs.load_model("shapes-cnn"), cs.load_dataset("shapes", split="test"))
    >>> dead(found).axes[0].texts[0].get_text()
    'Dead, saturated and duplicate units of shapes-cnn'

    Args:
        found: The result of `cs.probe.dead`.
    """
    sheet = Sheet()
    facts = f"{found.dataset} · {found.images:,} images · {ROW} units to a line, unit 0 first"
    y = sheet.header(f"Dead, saturated and duplicate units of {found.model}", facts) + 0.2
    x = 0.0
    for name, color in COLORS.items():
        sheet.fill(x, y - 0.08, SIDE, SIDE, color)
        sheet.text(x + SIDE + 0.05, y, name, points=SMALL)
        x += SIDE + 0.25 + width(name, SMALL)
    left = max(width(shorten(step.step, LABEL, 2.2), LABEL) for step in found.steps) + 0.2
    y += 0.25
    for step in found.steps:
        y = _row(sheet, step, left, y) + 0.14
    return sheet.finish()


def _row(sheet: Sheet, step: "StepUnits", left: float, y: float) -> float:
    """One step; returns where it ends."""
    states = dict.fromkeys(range(len(step.low)), "alive")
    states |= {pair.other: "duplicate" for pair in step.duplicates}
    states |= dict.fromkeys(step.saturated.tolist(), "saturated") | dict.fromkeys(step.dead.tolist(), "dead")
    sheet.text(0, y + 0.085, shorten(step.step, LABEL, 2.2))
    for unit, state in states.items():
        row, column = divmod(unit, ROW)
        sheet.fill(left + column * (SIDE + GAP), y + row * (SIDE + GAP), SIDE, SIDE, COLORS[state])
    lines = (len(states) - 1) // ROW + 1
    counts = [f"{sum(s == name for s in states.values())} {name}" for name in COLORS if name in states.values()]
    x = left + min(ROW, len(states)) * (SIDE + GAP) + 0.1
    sheet.text(x, y + 0.08, ", ".join(counts), points=FOOT, color=MUTED)
    bottom = y + lines * (SIDE + GAP)
    sheet.line((0, x), (bottom + 0.06, bottom + 0.06), LINE, 0.3)
    return bottom
