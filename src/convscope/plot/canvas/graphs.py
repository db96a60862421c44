"""Graphs: a function as a curve with the calculated point on it, and shares as bars with their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convscope.expr.expr import Apply, Leaf
from convscope.expr.primitives import PRIMITIVES
from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, TINY, Sheet
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED, shorten, width
from convscope.render.numbers import compact

WIDE, HIGH = 2.4, 1.5  # inches
POINTS = 241
REACH = 4.0  # how far to both sides of 0, or 1.3 times as far as the point


def draw_graph(sheet: Sheet, top: float, apply: Apply) -> float:
    """The curve with its point, the axes through 0; returns where it ends, `top` where there is no curve to draw."""
    leaf, function = _variable(apply)
    if leaf is None:
        return top
    x, y = leaf.number, apply.value()
    reach = max(REACH, 1.3 * abs(x))
    xs = np.linspace(-reach, reach, POINTS)
    ys = function(xs)
    if not np.isfinite([x, y]).all() or np.isfinite(ys).sum() < POINTS / 3 or _straight(ys[np.isfinite(ys)]):
        return top
    low, high = _limits(ys[np.isfinite(ys)], y, reach)

    def place(across: NDArray[np.float64], up: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return (across + reach) / (2 * reach) * WIDE, top + (high - up) / (high - low) * HIGH

    (left, middle, right), (bottom, zero, ceiling) = place(np.array([-reach, 0, reach]), np.array([low, 0, high]))
    sheet.line((left, right), (zero, zero), LINE, 0.8)
    sheet.line((middle, middle), (bottom, ceiling), LINE, 0.8)
    seen = np.isfinite(ys) & (ys >= low) & (ys <= high)
    for run in np.split(np.arange(POINTS), np.flatnonzero(np.diff(seen)) + 1):
        if seen[run[0]] and len(run) > 1:
            across, up = place(xs[run], ys[run])
            sheet.line(across.tolist(), up.tolist(), INK, 1.1)
    (at,), (height,) = place(np.array([x]), np.array([y]))
    sheet.line((at, at), (zero, height), ACCENT, 0.7)
    sheet.line((middle, at), (height, height), ACCENT, 0.7)
    sheet.point(at, height, "o", ACCENT)
    sheet.text(left, top + HIGH + 0.12, compact(-reach, 3), points=TINY, mono=True, color=MUTED)
    sheet.text(right, top + HIGH + 0.12, compact(reach, 3), points=TINY, mono=True, color=MUTED, align="right")
    caption = f"from {leaf.label} = {compact(x)} to {compact(y)}"
    sheet.text(WIDE + 0.2, top + HIGH / 2, caption, points=SMALL, color=ACCENT, middle=True)
    return top + HIGH + 0.16


def _variable(apply: Apply) -> tuple[Leaf | None, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """The only argument that is not a constant of the call, and the primitive as a function of it alone."""
    arguments = list(apply.arguments.values())
    leaves = [a for a in arguments if isinstance(a, Leaf)]
    moving = [i for i, a in enumerate(leaves) if a.source.kind != "number"]
    value = PRIMITIVES[apply.function].value

    def function(xs: NDArray[np.float64]) -> NDArray[np.float64]:
        numbers = [leaf.number for leaf in leaves]
        results = []
        with np.errstate(all="ignore"):
            for x in xs:
                numbers[moving[0]] = float(x)
                results.append(float(value(*numbers)))
        return np.array(results)

    return (leaves[moving[0]] if len(leaves) == len(arguments) and len(moving) == 1 else None), function


def _straight(ys: NDArray[np.float64]) -> bool:
    """Whether the curve is a straight line, which a formula says better."""
    return bool(np.abs(np.diff(ys, 2)).max(initial=0.0) <= 1e-9 * np.abs(ys).max(initial=0.0))


def _limits(ys: NDArray[np.float64], y: float, reach: float) -> tuple[float, float]:
    """From the lowest to the highest number drawn, 0 and the point included; of a curve that runs away, a part."""
    most = max(reach, 1.3 * abs(y))
    low, high = max(min(float(ys.min()), y, 0.0), -most), min(max(float(ys.max()), y, 0.0), most)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


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
        column = left + wide * tick / 100
        sheet.line((column, column), (y, bottom))
        sheet.text(
            column, y - 0.05, f"{tick} %" if tick in {0, 100} else str(tick), points=FOOT, color=MUTED, align="center"
        )
    for k, row in enumerate(rows):
        middle = y + STEP * (k + 0.5)
        sheet.text(left - 0.08, middle, shorten(row.name, LABEL, LONGEST_NAME), align="right", middle=True)
        sheet.fill(left, middle - 0.05, wide * row.share, 0.1, ACCENT if row.strong else LINE)
        sheet.line((left + wide * row.low, left + wide * row.high), (middle, middle), color=INK, weight=0.9)
        sheet.text(left + wide + 0.12, middle, f"{100 * row.share:.1f} %", points=SMALL, mono=True, middle=True)
    if mark is not None:
        column = left + wide * mark
        sheet.line((column, column), (y, bottom), color=INK, weight=0.9)
    sheet.reach(left + wide + 0.6, bottom)
    return bottom
