"""Robustness: the accuracy on shifted, hidden or noisy images, and how far trivial features of the images go."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.plot.canvas.calculation import Bar, bars
from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, Sheet, snap
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED, ColorScale, abridge, shorten, styled
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:
    from convscope.probe.shortcut import FeatureRule, Shortcut
    from convscope.probe.support.robustness import Shift

SIDE = 1.9  # of a map, in inches
AXES = {
    "translation": "across: pixels to the right; down: pixels downwards",
    "erase": "across and down: where the upper left corner of a patch of {side}×{side} pixels is",
}
SERIES = (ACCENT, INK, "#b2182b", "#2166ac", "#b9b5ac", MUTED)


@takes(found="Shift")
@styled()
def shift(found: "Shift") -> Figure:
    """Draw how many images each model answers correctly at each level, on one scale.

    >>> import convscope as cs
    >>> figure = shift(cs.probe.shift("shapes-cnn", "shapes", reach=1))
    >>> "shapes-cnn" in [t.get_text() for t in figure.axes[0].texts]
    True

    Args:
        found: The result of `cs.probe.shift`.
    """
    sheet = Sheet()
    facts = f"share of {found.images:,} images answered correctly · {len(found.levels)} levels"
    note = AXES.get(found.kind, "thin lines: Wilson 95 %").format(side=f"{max(level[-1] for level in found.levels):g}")
    top = sheet.header(f"{found.dataset}: {found.kind}", facts, note) + 0.3
    if found.kind in {"translation", "erase"}:
        _maps(sheet, top, found)
    else:
        _curves(sheet, top, found)
    return sheet.finish()


def _maps(sheet: Sheet, top: float, result: "Shift") -> None:
    """A map per model, on one scale from 0 to 100 % for all."""
    across = "pixels right" if result.kind == "translation" else "column"
    downs = sorted({level[0] for level in result.levels})
    rights = sorted({level[1] for level in result.levels})
    scale = ColorScale(0.0, 1.0)
    side = snap(SIDE)
    for k, model in enumerate(result.models):
        x = (side + 0.55) * k
        values = np.full((len(downs), len(rights)), np.nan)
        for level, share in zip(result.levels, result.accuracy(k), strict=True):
            if result.kind == "translation" or level[2]:
                values[downs.index(level[0]), rights.index(level[1])] = share
        area = (x, top + 0.16, side, snap(side * len(downs) / len(rights)))
        sheet.text(x, top - 0.04, shorten(model.model, LABEL, side, bold=True), bold=True)
        facts = f"{model.parameters:,} parameters · unmoved {100 * result.accuracy(k)[result.unmoved]:.1f} %"
        sheet.text(x, top + 0.1, facts, points=FOOT, color=MUTED)
        sheet.map(values, area, scale, model.model)
        bottom = area[1] + area[3]
        sheet.text(x, bottom + 0.12, compact(rights[0]), points=FOOT, mono=True, color=MUTED)
        sheet.text(x + side, bottom + 0.12, compact(rights[-1]), points=FOOT, mono=True, color=MUTED, align="right")
        sheet.text(x + side / 2, bottom + 0.12, across, points=FOOT, color=MUTED, align="center")
        for value, column in ((downs[0], area[1] + 0.05), (downs[-1], bottom - 0.05)):
            sheet.text(
                x - 0.05, column, compact(value), points=FOOT, mono=True, color=MUTED, align="right", middle=True
            )
    sheet.text(0, bottom + 0.4, "0 %", points=FOOT, mono=True, color=MUTED, middle=True)
    sheet.map(np.linspace(0, 1, 256)[None], (snap(0.3), snap(bottom + 0.37), 1.3, 0.06), scale, "legend")
    sheet.text(1.68, bottom + 0.4, "100 %", points=FOOT, mono=True, color=MUTED, middle=True)


def _curves(sheet: Sheet, top: float, result: "Shift") -> None:
    """A line per model over the levels, each named at its end, with the interval of each level."""
    wide, high = 4.2, 2.2
    levels = np.array([level[0] for level in result.levels])
    order = np.argsort(levels)
    span = float(levels.max() - levels.min()) or 1.0
    xs: NDArray[np.float64] = wide * (levels[order] - levels.min()) / span + 0.45
    for tick in range(0, 101, 25):
        y = top + high * (1 - tick / 100)
        sheet.line((0.45, 0.45 + wide), (y, y), color=LINE)
        sheet.text(0.38, y, f"{tick} %", points=FOOT, mono=True, color=MUTED, align="right", middle=True)
    for k, model in enumerate(result.models):
        color = SERIES[k % len(SERIES)]
        ys = top + high * (1 - result.accuracy(k)[order])
        sheet.line(list(map(float, xs)), list(map(float, ys)), color=color, weight=1.2)
        for x, (low, high_end) in zip(map(float, xs), result.intervals(k)[order].tolist(), strict=True):
            sheet.line((x, x), (top + high * (1 - low), top + high * (1 - high_end)), color=color, weight=0.5)
        sheet.text(wide + 0.6, top + 0.16 * k + 0.05, model.model, points=SMALL, color=color)
    for column in (0, len(order) // 2, len(order) - 1):
        level = compact(float(levels[order][column]), 3)
        sheet.text(float(xs[column]), top + high + 0.16, level, points=FOOT, mono=True, color=MUTED, align="center")
    sheet.text(0.45 + wide / 2, top + high + 0.36, result.unit, points=FOOT, color=MUTED, align="center")


LISTED = 12  # classes of the histogram


@takes(found="Shortcut")
@styled()
def shortcut(found: "Shortcut") -> Figure:
    """Draw what each feature alone gets right, and the best one's histogram for each class.

    >>> import convscope as cs
    >>> figure = shortcut(cs.probe.shortcut("shapes"))
    >>> [t.get_text() for t in figure.axes[0].texts][:1]
    ['shapes: what one trivial number achieves']

    Args:
        found: The result of `cs.probe.shortcut`.
    """
    sheet = Sheet()
    facts: tuple[str, ...] = (
        f"share of {found.guess.n:,} test images; rules fitted on {found.trained_on:,}; thin lines: Wilson 95 %",
        "the upright line is guessing the most frequent class",
    )
    best = found.features[0]
    if best.exact is not None and found.possible is not None:
        facts += (f"{best.name} alone: {100 * best.exact:.1f} % of all {found.possible:,} possible images",)
    top = sheet.header(f"{found.dataset}: what one trivial number achieves", *facts) + 0.3
    rows = [Bar(f.name, f.test.share, *f.test.interval, strong=k == 0) for k, f in enumerate(found.features)]
    rows.append(Bar("all, added up", found.together.share, *found.together.interval))
    bars(sheet, (0, top), 2.4, rows, found.guess.share)
    _histogram(sheet, (sheet.right + 0.45, top), best, found.classes)
    return sheet.finish()


def _histogram(sheet: Sheet, corner: tuple[float, float], best: "FeatureRule", classes: tuple[str, ...]) -> None:
    """The training images of each class by the best feature, a strip each, the strips on one scale."""
    x, y = corner
    wide, high = 3.0, min(0.6, 2.2 / min(len(classes), LISTED))
    counts = best.counts[:LISTED]
    largest, step = max(1, int(counts.max())), wide / counts.shape[1]
    sheet.text(x, y - 0.05, f"{best.name} of the training images", points=SMALL, color=MUTED)
    for k, row in enumerate(counts):
        base = y + (high + 0.16) * (k + 1)
        sheet.line((x, x + wide), (base, base))
        for column, count in enumerate(row):
            tall = high * count / largest
            if count:
                sheet.fill(x + step * column, base - tall, step, tall, ACCENT)
        sheet.text(x + wide + 0.1, base - high / 2, abridge(classes[k], LABEL, 1.8), middle=True)
    base = y + (high + 0.16) * len(counts) + 0.12
    sheet.text(x, base, compact(best.edges[0], 4), points=FOOT, mono=True, color=MUTED)
    sheet.text(x + wide, base, compact(best.edges[-1], 4), points=FOOT, mono=True, color=MUTED, align="right")
    if len(classes) > LISTED:
        sheet.text(x, base + 0.16, f"and {len(classes) - LISTED} more classes", points=FOOT, color=MUTED)
