"""Confusion matrix: how often each class is predicted as each other class."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from convscope.errors import ShapeError
from convscope.plot.arguments import confusion_of
from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, TINY, Area, Sheet, snap
from convscope.plot.canvas.style import INK, MUTED, ColorScale, abridge, on, styled, width
from convscope.type_checks import takes
from convscope.typing import Array

WRITTEN = 20  # up to this many classes the counts are written out
LISTED = 8  # most frequent mistakes named beside a larger matrix
LONGEST_NAME = 1.3  # inches
ZERO = "#c9c5bc"
RIGHT = "#e9e6df"  # behind the images that were classified correctly


@takes()
@styled()
def confusion(matrix: object, classes: Sequence[str] | None = None, *, name: str = "") -> Figure:
    """How many images of each class were taken for which: a row for each true class. Mistakes have the colour.

    >>> figure = confusion(np.array([[9, 1], [0, 10]]), ["square", "circle"])
    >>> [t.get_text() for t in figure.axes[0].texts if t.get_text().endswith("0.00 %")]
    ['90.00 %', '100.00 %']

    Args:
        matrix: Counts, shape (K, K), rows true and columns predicted; or an Evaluation; or a Run or its folder, which
            is then evaluated on its test data.
        classes: The K class names; needed for counts.
        name: What the figure is titled.

    Raises:
        ShapeError: the matrix is not square, or has another number of classes.
    """
    counts, classes, title = confusion_of(matrix, classes)
    if counts.ndim != 2 or counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ShapeError(
            f"a confusion matrix of {len(classes)} classes has the shape ({len(classes)}, {len(classes)}), "
            f"not {counts.shape}."
        )
    images = counts.sum(axis=1)
    shares = counts / np.maximum(images, 1)[:, None]
    wrong = np.where(np.eye(len(classes), dtype=bool), 0.0, shares)
    scale = ColorScale.of(wrong)
    sheet = Sheet()
    right = int(np.trace(counts))
    accuracy = f"{100 * right / max(int(counts.sum()), 1):.2f} %"
    fact = f"{right:,} of {int(counts.sum()):,} images are classified correctly: {accuracy}"
    top = sheet.header(name or title, fact) + 0.3
    cell = _cell(len(classes))
    left = snap(max(min(LONGEST_NAME, max(width(c, LABEL) for c in classes)) + 0.12, 0.4))
    top = _names(sheet, (left, top), cell, classes)
    area = (left, top, cell * len(classes), cell * len(classes))
    sheet.map(wrong, area, scale, "mistakes")
    for k in range(len(classes)):
        sheet.fill(left + cell * k, top + cell * k, cell, cell, RIGHT)
    if len(classes) <= WRITTEN:
        _counts(sheet, area, counts, scale.colors(wrong))
        _recall(sheet, area, cell, np.diagonal(shares), images)
    else:
        _list(sheet, (left + area[2] + 0.3, top), counts, classes)
    _legend(sheet, top + area[3] + 0.22, left, scale)
    return sheet.finish()


def _cell(classes: int) -> float:
    """The side of one cell, in inches."""
    if classes > WRITTEN:
        return snap(max(0.02, 6.4 / classes))
    return 0.6 if classes <= 4 else 0.42 if classes <= 12 else 0.34


def _names(sheet: Sheet, corner: tuple[float, float], cell: float, classes: Sequence[str]) -> float:
    """Predicted classes above and true classes on the left; returns where the matrix begins."""
    left, top = corner
    every = max(1, math.ceil(0.11 / cell))  # of very many classes only some have room for their name
    points = min(LABEL, cell * every * 72 * 0.75)
    shown = {k: abridge(classes[k], points, LONGEST_NAME) for k in range(0, len(classes), every)}
    longest = max(width(text, points) for text in shown.values())
    turned = longest > cell * every * 0.85
    begin = snap(top + 0.12 + (longest if turned else 0.12))
    sheet.text(left, top - 0.02, "predicted", points=SMALL, color=MUTED)
    sheet.text(left - 0.08, begin - 0.06, "true", points=SMALL, color=MUTED, align="right")
    for k, text in shown.items():
        middle = cell * (k + 0.5)
        if turned:
            sheet.text(left + middle + points / 72 * 0.36, begin - 0.05, text, points=points, turn=90)
        else:
            sheet.text(left + middle, begin - 0.06, text, points=points, align="center")
        sheet.text(left - 0.08, begin + middle, text, points=points, align="right", middle=True)
    return begin


def _counts(sheet: Sheet, area: Area, counts: Array, colors: Array) -> None:
    sheet.grid(area, len(counts), len(counts))
    cell = area[2] / len(counts)
    points = min(LABEL, cell * 72 / (0.68 * max(4, len(f"{int(counts.max()):,}"))))
    for (row, column), count in np.ndenumerate(counts):
        same = row == column
        color = INK if same else on(colors[row, column]) if count else ZERO
        sheet.text(
            area[0] + cell * (column + 0.5),
            area[1] + cell * (row + 0.5),
            f"{int(count):,}",
            points=points,
            mono=True,
            bold=same,
            color=color,
            align="center",
            middle=True,
        )


def _recall(sheet: Sheet, area: Area, cell: float, recall: Array, images: Array) -> None:
    """The share of each class that was found, and how many images it has."""
    x = area[0] + area[2] + 0.16
    sheet.text(x, area[1] - 0.06, "found", points=SMALL, color=MUTED)
    sheet.text(x + 0.72, area[1] - 0.06, "of", points=SMALL, color=MUTED)
    for k, share in enumerate(recall):
        middle = area[1] + cell * (k + 0.5)
        text = f"{100 * share:.2f} %" if images[k] else "no images"
        sheet.text(x, middle, text, points=FOOT, mono=True, middle=True)
        sheet.text(x + 0.72, middle, f"{int(images[k]):,}", points=FOOT, mono=True, color=MUTED, middle=True)


def _list(sheet: Sheet, corner: tuple[float, float], counts: Array, classes: Sequence[str]) -> None:
    """The most frequent mistakes, by name."""
    x, y = corner
    sheet.text(x, y + 0.1, "most frequent mistakes", points=SMALL, color=MUTED)
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, counts)
    for line, column in enumerate(np.argsort(-wrong, axis=None, kind="stable")[:LISTED]):
        true, predicted = divmod(int(column), len(classes))
        if wrong[true, predicted]:
            text = f"{classes[true]} taken for {classes[predicted]}"
            sheet.text(x, y + 0.32 + 0.17 * line, f"{int(wrong[true, predicted]):>4,}", points=FOOT, mono=True)
            sheet.text(x + 0.36, y + 0.32 + 0.17 * line, text, points=FOOT)


def _legend(sheet: Sheet, y: float, left: float, scale: ColorScale) -> None:
    """What the colours of the mistakes mean."""
    if scale.high == 0:
        sheet.text(left, y, "no mistakes", points=SMALL, color=MUTED, middle=True)
        return
    sheet.text(left, y, "0 %", points=TINY + 0.5, mono=True, color=MUTED, middle=True)
    bar = (snap(left + 0.24), snap(y - 0.03), 1.3, 0.06)
    sheet.map(np.linspace(0, scale.high, 256)[None], bar, scale, "legend")
    caption = f"{100 * scale.high:.3g} % of the images of a class"
    sheet.text(left + 1.6, y, caption, points=TINY + 0.5, color=MUTED, middle=True)
