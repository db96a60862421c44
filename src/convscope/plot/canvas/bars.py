"""Bars: shares with their intervals, one below the other. Knows sheets; nothing of what is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from convscope.plot.canvas.fonts import shorten, width
from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, Sheet
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED

STEP = 0.2  # inches from one bar to the next
LONGEST_NAME = 1.8


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its interval, all from 0 to 1."""

    name: str
    share: float
    low: float
    high: float
    strong: bool = False
    """Whether it has the accent colour."""


def bars(sheet: Sheet, at: tuple[float, float], wide: float, rows: Sequence[Bar], mark: float | None = None) -> float:
    """Draw shares on a scale from 0 to 100 %, each with its interval as a line; returns where they end.

    Args:
        sheet: Where to.
        at: x and y of the upper left corner, in inches.
        wide: Length of 100 %, in inches.
        rows: The shares.
        mark: A share that all are compared with, as a line across.
    """
    x, y = at
    left = x + min(LONGEST_NAME, max(width(row.name, LABEL) for row in rows)) + 0.12
    bottom = y + STEP * len(rows)
    for tick in range(0, 101, 25):
        place = left + wide * tick / 100
        sheet.line((place, place), (y, bottom))
        sheet.text(
            place, y - 0.05, f"{tick} %" if tick in {0, 100} else str(tick), points=FOOT, color=MUTED, align="center"
        )
    for k, row in enumerate(rows):
        middle = y + STEP * (k + 0.5)
        sheet.text(left - 0.08, middle, shorten(row.name, LABEL, LONGEST_NAME), align="right", middle=True)
        sheet.fill(left, middle - 0.05, wide * row.share, 0.1, ACCENT if row.strong else LINE)
        sheet.line((left + wide * row.low, left + wide * row.high), (middle, middle), color=INK, weight=0.9)
        sheet.text(left + wide + 0.12, middle, f"{100 * row.share:.1f} %", points=SMALL, mono=True, middle=True)
    if mark is not None:
        place = left + wide * mark
        sheet.line((place, place), (y, bottom), color=INK, weight=0.9)
    sheet.reach(left + wide + 0.6, bottom)
    return bottom
