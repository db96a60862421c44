"""Shortcut: the accuracy of trivial features on a data set, and the distribution of the best one in each class."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from convscope.plot.canvas.graphs import Bar, bars
from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, Sheet
from convscope.plot.canvas.style import ACCENT, MUTED, abridge
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:
    from convscope.probe.shortcut import FeatureRule, Shortcut

LISTED = 12  # classes of the histogram


@takes(found="Shortcut")
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


def _histogram(sheet: Sheet, at: tuple[float, float], best: "FeatureRule", classes: tuple[str, ...]) -> None:
    """The training images of each class by the best feature, a strip each, the strips on one scale."""
    x, y = at
    wide, high = 3.0, min(0.6, 2.2 / min(len(classes), LISTED))
    counts = best.counts[:LISTED]
    most, step = max(1, int(counts.max())), wide / counts.shape[1]
    sheet.text(x, y - 0.05, f"{best.name} of the training images", points=SMALL, color=MUTED)
    for k, row in enumerate(counts):
        base = y + (high + 0.16) * (k + 1)
        sheet.line((x, x + wide), (base, base))
        for column, count in enumerate(row):
            tall = high * count / most
            if count:
                sheet.fill(x + step * column, base - tall, step, tall, ACCENT)
        sheet.text(x + wide + 0.1, base - high / 2, abridge(classes[k], LABEL, 1.8), middle=True)
    base = y + (high + 0.16) * len(counts) + 0.12
    sheet.text(x, base, compact(best.edges[0], 4), points=FOOT, mono=True, color=MUTED)
    sheet.text(x + wide, base, compact(best.edges[-1], 4), points=FOOT, mono=True, color=MUTED, align="right")
    if len(classes) > LISTED:
        sheet.text(x, base + 0.16, f"and {len(classes) - LISTED} more classes", points=FOOT, color=MUTED)
