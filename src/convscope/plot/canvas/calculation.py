"""Ledger: the lines of a calculation as in print, with bars for its terms, and the badge below. Knows no networks."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import FancyBboxPatch

from convscope.plot.canvas.fonts import width
from convscope.plot.canvas.sheet import LABEL, Sheet
from convscope.plot.canvas.style import MUTED
from convscope.render.numbers import number_of
from convscope.render.rows import BLANK, RULE, Row, render

LINE_HEIGHT = 0.175  # inches
BARS = 1.5  # inches, for bars to both sides
LESS, MORE = "#4393c3", "#d6604d"


def ledger(sheet: Sheet, y: float, rows: Sequence[Row | str], bars: frozenset[int]) -> float:
    """Lines of text and number, aligned as in print; a bar behind those in `bars`. Returns where they end."""
    em = width("0" * 100, LABEL - 1, mono=True) / 100
    lines = render(rows)
    wide = max(len(line) for line, row in zip(lines, rows, strict=True) if row is RULE or not _after(row))
    numbers = {i: number_of(row.number) for i, row in enumerate(rows) if i in bars and isinstance(row, Row)}
    finite = [abs(n) for n in numbers.values() if np.isfinite(n)]
    longest = max(finite, default=0.0) or 1.0
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if row is BLANK or line == "":
            y += LINE_HEIGHT / 2
            continue
        if row is RULE:
            sheet.line((0, em * wide), (y + 0.075, y + 0.075), MUTED, 0.5)
            y += 0.07
            continue
        y += LINE_HEIGHT
        bold = isinstance(row, Row) and row.label == "calculated"
        for part in re.finditer(r"\S+(?: \S+)*", line):
            sheet.text(em * part.start(), y, part.group(), points=LABEL - 1, mono=True, bold=bold)
        if i in numbers and np.isfinite(numbers[i]):
            middle = em * wide + 0.3 + BARS / 2
            length = BARS / 2 * numbers[i] / longest
            sheet.fill(middle + min(length, 0), y - 0.09, abs(length), 0.1, LESS if length < 0 else MORE)
            sheet.line((middle, middle), (y - 0.125, y + 0.045), MUTED, 0.5)
    return y


def _after(row: Row | str) -> bool:
    return isinstance(row, str) or bool(row.after)


def badge(sheet: Sheet, y: float, said: str, color: str) -> None:
    """A few words in a pill whose upper edge is at y."""
    w = width(said, LABEL) + 0.24
    pill = FancyBboxPatch(
        (0.0, y), w, 0.22, boxstyle="round,pad=0,rounding_size=0.11", facecolor="none", edgecolor=color, linewidth=0.8
    )
    sheet.axes.add_patch(pill)
    sheet.reach(w, y + 0.22)
    sheet.text(w / 2, y + 0.11, said, color=color, align="center", middle=True)
