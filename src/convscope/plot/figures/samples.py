"""Samples: images of a data set, class by class."""

import numpy as np
from matplotlib.figure import Figure

from convscope.data.dataset import Dataset
from convscope.errors import UsageError
from convscope.plot.arguments import dataset_of
from convscope.plot.canvas.sheet import FOOT, LABEL, TINY, Sheet, tile
from convscope.plot.canvas.style import MUTED, abridge, size, styled, width
from convscope.type_checks import takes

MOST_CLASSES = 20
MOST_IMAGES = 100  # of a class
LONGEST, GAP = 0.62, 0.09  # inches
LONGEST_LABEL = 2.2


@takes(dataset="Dataset | str")
@styled()
def samples(dataset: Dataset | str, *, per_class: int = 10) -> Figure:
    """Images of each class, with the index by which each can be asked for.

    >>> data = Dataset("two", np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1]), ("plus", "cross"))
    >>> len(samples(data).axes[0].images)
    2

    Args:
        dataset: A Dataset or the name of one; of more than 20 classes the first 20 are drawn, and the figure says so.
        per_class: How many images of each class at most, evenly spaced over the class; never more than 100.

    Raises:
        UsageError: `per_class` is not a positive number.
    """
    data: Dataset = dataset_of(dataset)
    per_class = min(per_class, MOST_IMAGES)
    sheet = Sheet()
    classes = data.classes[:MOST_CLASSES]
    w, h = tile(data.shape, LONGEST if max(data.shape[1:]) <= 64 else 2 * LONGEST)
    chosen = spread(data, per_class)
    names = _names(data, chosen, w + GAP - 0.03)
    y = sheet.header(data.name, *_facts(data, per_class, chosen, numbered=not names)) + 0.1
    label = min(max(width(name, LABEL, bold=True) for name in classes), LONGEST_LABEL)
    left = max(label, 0.4) + 0.2
    for k, name in enumerate(classes):
        members = [index for index in chosen if data.labels[index] == k]
        sheet.text(0, y + 0.13, abridge(name, LABEL, LONGEST_LABEL, bold=True), bold=True)
        sheet.text(0, y + 0.27, f"{data.counts()[name]:,}", points=FOOT, mono=True, color=MUTED)
        for column, index in enumerate(members):
            area = (left + column * (w + GAP), y, w, h)
            picture = data.picture(index)
            sheet.picture(picture if len(picture) in {1, 3} else picture[:1], area, f"{data.split}/{index}")
            caption = names[index] if names else str(index)
            sheet.text(area[0], y + h + 0.1, caption, points=TINY, mono=True, color=MUTED)
        y += max(h, 0.3) + 0.22
    return sheet.finish()


@takes(dataset="Dataset")
def spread(dataset: Dataset, per_class: int) -> list[int]:
    """Indices of at most `per_class` images, and 100, of each class, evenly spaced over the class, class after class.

    Images that cannot be read are left out.

    >>> data = Dataset("two", np.zeros((5, 1, 3, 3), np.uint8), np.array([0, 0, 0, 1, 1]), ("plus", "cross"))
    >>> spread(data, 2)
    [0, 2, 3, 4]

    Raises:
        UsageError: `per_class` is not a positive number.
    """
    if per_class < 1:
        raise UsageError(f"per_class must be 1 or more, not {per_class}.")
    results: list[int] = []
    for k in range(len(dataset.classes)):
        members = np.flatnonzero(dataset.labels == k)
        positions = np.linspace(0, len(members) - 1, min(per_class, MOST_IMAGES, len(members))).round().astype(np.intp)
        results += dataset.readable(members[positions])[1].tolist()
    return results


def _names(dataset: Dataset, chosen: list[int], max_width: float) -> dict[int, str]:
    """The images' own names, where each of them has room; else their numbers say which they are."""
    names = {index: dataset.names[index] for index in chosen} if dataset.names else {}
    return names if all(width(name, TINY, mono=True) <= max_width for name in names.values()) else {}


def _facts(dataset: Dataset, per_class: int, chosen: list[int], *, numbered: bool) -> tuple[str, ...]:
    shown = (
        f"{MOST_CLASSES} of {len(dataset.classes)} classes, the first" if len(dataset.classes) > MOST_CLASSES else ""
    )
    least = max(dataset.counts().values())
    some = f"{per_class} of each class, evenly spaced" if least > per_class else ""
    index = f"each with its index, as in {dataset.name}:{dataset.split}/{chosen[-1]}" if numbered and chosen else ""
    images = "1 image" if len(dataset) == 1 else f"{len(dataset):,} images"
    return (
        f"{dataset.split} · {images} of {size(dataset.shape)} · {len(dataset.classes)} classes",
        " · ".join(filter(None, (shown, some, index))),
    )
