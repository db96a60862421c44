"""Compare: what models cost and achieve, how alike their layers are, and the images that they disagree on."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from convscope.plot.canvas.calculation import Bar, bars
from convscope.plot.canvas.sheet import FOOT, SMALL, TINY, Sheet, tile
from convscope.plot.canvas.style import ACCENT, MUTED, ColorScale, abridge, shorten, styled, width
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.compare import Compare, Disagreement, Pair

CELL = 0.24  # inches, a cell of the similarities
LONGEST, ACROSS = 0.62, 8  # inches, images in a row
WRONG = "#b2182b"


@takes(found="Compare")
@styled()
def compare(found: "Compare") -> Figure:
    """Draw accuracies with their intervals, the similarity of layers, and images that the models disagree on.

    >>> import convscope as cs
    >>> models = [cs.load_model("shapes-cnn"), cs.load_model("shapes-mlp")]
    >>> figure = compare(cs.probe.compare(models, cs.load_dataset("shapes", split="test")))
    >>> figure.axes[0].texts[0].get_text()
    '2 models on shapes:test'

    Args:
        found: The result of `cs.probe.compare`.
    """
    sheet = Sheet()
    y = sheet.header(
        f"{len(found.models)} models on {found.dataset}",
        f"{found.images:,} images · lines: Wilson 95 % · times: {found.machine}",
    )
    rows = [Bar(m.name, m.accuracy.share, *m.accuracy.interval, strong=True) for m in found.models]
    y = max(bars(sheet, (0, y + 0.25), 2.4, rows), sheet.bottom) + 0.2
    for model in found.models:
        cost = model.cost
        caption = (
            f"{cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds, "
            f"{compact(cost.milliseconds, 3)} ms an image"
        )
        sheet.text(0, y, f"{model.name}: {caption}", points=SMALL, color=MUTED)
        y += 0.15
    for pair in found.pairs:
        if pair.similarity.size:
            y = _similarity(sheet, found, pair, y + 0.3)
    return _disagreements(sheet, found, y + 0.3).finish()


def _similarity(sheet: Sheet, comparison: "Compare", pair: "Pair", y: float) -> float:
    """One matrix of layers by layers; returns where it ends."""
    first, second = comparison.models[pair.one], comparison.models[pair.other]
    sheet.text(0, y, f"layers of {first.name} (down) and {second.name} (across): linear CKA", bold=True)
    sheet.text(0, y + 0.15, f"on {comparison.alike_on:,} images; 1 is the same, 0 unrelated", points=SMALL, color=MUTED)
    left = max(width(shorten(name, FOOT, 1.8), FOOT) for name in first.layers) + 0.1
    tall = max(width(shorten(name, FOOT, 1.8), FOOT) for name in second.layers)
    top = y + 0.3 + tall
    rows, columns = pair.similarity.shape
    area = (left, top, CELL * columns, CELL * rows)
    scale = ColorScale(-1.0, 1.0)
    sheet.map(pair.similarity, area, scale, f"similarity {pair.one} {pair.other}")
    texts = np.array([[f"{value:.2f}" for value in row] for row in pair.similarity])
    sheet.write(texts, scale.colors(pair.similarity), area)
    for row, name in enumerate(first.layers):
        sheet.text(0, top + CELL * (row + 0.6), shorten(name, FOOT, 1.8), points=FOOT)
    for column, name in enumerate(second.layers):
        sheet.text(left + CELL * (column + 0.65), top - 0.05, shorten(name, FOOT, 1.8), points=FOOT, turn=90)
    return float(top + CELL * rows)


def _disagreements(sheet: Sheet, comparison: "Compare", y: float) -> Sheet:
    """The images that not all models give the same class, with each model's answer."""
    some = (
        f", the first {len(comparison.disagreements)}" if len(comparison.disagreements) < comparison.disagreeing else ""
    )
    sheet.text(
        0, y, f"images that they disagree on: {comparison.disagreeing:,} of {comparison.images:,}{some}", bold=True
    )
    if comparison.disagreements:
        order = "index and class, then the answers in the order of the models"
        sheet.text(0, y + 0.15, order, points=SMALL, color=MUTED)
    y += 0.3
    for position, case in enumerate(comparison.disagreements):
        row, column = divmod(position, ACROSS)
        tall = 0.25 + 0.11 * (len(comparison.models) + 1)
        _case(sheet, comparison, case, column * (LONGEST + 0.3), y + row * (LONGEST + tall))
    return sheet


def _case(sheet: Sheet, comparison: "Compare", case: "Disagreement", x: float, y: float) -> None:
    picture = case.picture if len(case.picture) in {1, 3} else case.picture[:1]
    w, h = tile(picture.shape, LONGEST)
    sheet.picture(picture, (x, y, w, h), f"image {case.image}")
    max_width = LONGEST + 0.25
    caption = abridge(f"{case.image} {comparison.classes[case.label]}", TINY, max_width)
    sheet.text(x, y + h + 0.11, caption, points=TINY, color=MUTED)
    for line, answer in enumerate(case.answers):
        right = answer == case.label
        text = abridge(comparison.classes[answer] if answer >= 0 else "another class", TINY, max_width)
        sheet.text(x, y + h + 0.22 + 0.11 * line, text, points=TINY, color=ACCENT if right else WRONG)
