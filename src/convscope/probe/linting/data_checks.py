"""Checks of data and of what things are called: images in both splits, classes, kernels, pictures.

Knows evidence, filters and data; of a figure only what every matplotlib figure has.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convscope.data.dataset import AT_ONCE, Dataset, shared
from convscope.filters import Filter, edge_response
from convscope.probe.linting.evaluation_checks import mcnemar
from convscope.probe.linting.evidence import Evidence
from convscope.probe.linting.findings import Finding
from convscope.probe.support.proportion import Proportion
from convscope.training.outputs import decide

DIRECTIONS: Mapping[str, str] = {"vertical": r"\bverti[ck]al", "horizontal": r"\bhorizontal"}
NUMBER = re.compile(r"\d+")


def images_in_both(seen: Evidence) -> Iterator[Finding]:
    """Test images that occur, pixel for pixel, in the training data."""
    if seen.test is None:
        return
    both = shared(seen.data, seen.test)
    if len(both):
        said = f"{len(both):,} of the {len(seen.test):,} test images occur among the {len(seen.data):,} training images"
        numbers = {"both": len(both), "test": len(seen.test)}
        yield Finding("test-in-training", seen.test.name, f"{said}{_known(seen, seen.test, both)}", numbers)


def class_titles(seen: Evidence) -> Iterator[Finding]:
    """Every class is titled with a number, and with another one than its own."""
    yield from _mistitled(seen.data.classes, seen.data.name)
    if seen.card.classes != seen.data.classes:
        yield from _mistitled(seen.card.classes, seen.card.name)


def class_order(seen: Evidence) -> Iterator[Finding]:
    """The model's answers fit the labels far better when its outputs are taken in another order."""
    classes = len(seen.data.classes)
    if seen.asked.error or classes < 2:
        return
    output = seen.answers(seen.images).nan_to_num()
    if output.shape[1] < classes:
        return
    given, labels = decide(output, classes).cpu().numpy(), seen.labels.cpu().numpy()
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, given), 1)
    meant = counts.argmax(axis=0)  # the label that each output mostly stands for
    if sorted(meant.tolist()) != list(range(classes)):
        return
    now, then = given == labels, meant[given] == labels
    gained, lost = int((then & ~now).sum()), int((now & ~then).sum())
    if then.mean() > (1 + max(seen.data.counts().values()) / len(seen.data)) / 2 and mcnemar(gained, lost) < 0.01:
        said = ", ".join(f"output {k} answers {seen.data.classes[m]!r}" for k, m in enumerate(meant) if m != k)
        right = [Proportion(int(hits.sum()), len(hits)) for hits in (now, then)]
        text = f"{right[0]} are right as the classes are listed, {right[1]} if {said}"
        yield Finding("class-order", seen.card.name, text, {"meant": meant.tolist()})


def kernel_titles(kernels: Mapping[str, Any]) -> Iterator[Finding]:
    """Kernels whose title names one direction of edges while they answer the other."""
    for title, kernel in kernels.items():
        found = edge_response(kernel if isinstance(kernel, Filter | str) else np.asarray(kernel, np.float64))
        named = [way for way, pattern in DIRECTIONS.items() if re.search(pattern, title, re.IGNORECASE)]
        if len(named) == 1 and found.direction != named[0]:
            said = f"titled {title!r}, it answers {found}: it finds {_finds(found.direction)}"
            numbers = {"vertical": found.vertical, "horizontal": found.horizontal}
            yield Finding("kernel-title", title, said, numbers)


def own_scales(figure: Any) -> Iterator[Finding]:
    """Pictures of numbers in one figure, each of whose colours begin and end at its own least and greatest number."""
    limits = []
    for axes in figure.axes:
        for image in axes.images:
            values = np.ma.asarray(image.get_array())
            # a single row or column is a scale drawn as a bar
            if values.ndim == 2 and min(values.shape) > 1 and values.count() and values.min() < values.max():
                low, high = map(float, image.get_clim())
                limits.append((low, high, bool(np.allclose((low, high), (values.min(), values.max())))))
    own = [(low, high) for low, high, fits in limits if fits]
    if len(own) > 1 and len({(round(low, 9), round(high, 9)) for low, high in own}) > 1:
        spans = [high - low for low, high in own]
        said = (
            f"{len(own)} of {len(limits)} pictures begin and end at their own minimum and maximum: the same step of "
            f"grey "
            f"stands for {max(spans) / min(spans):.3g} times as much in one as in another"
        )
        yield Finding("own-scales", "", said, {"limits": [list(pair) for pair in own]})


def _known(seen: Evidence, test: Dataset, both: NDArray[np.intp]) -> str:
    """How the model does on test images that it was trained on, and on the others."""
    if seen.asked.error or len(both) == len(test):
        return ""
    hits, counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for start in range(0, len(test), AT_ONCE):
        raw, read = test.readable(slice(start, start + AT_ONCE))
        if len(read):
            output = seen.answers(torch.from_numpy(test.preprocess.normalize(raw)).to(seen.images))
            right = decide(output.nan_to_num(), len(test.classes)).cpu().numpy() == test.labels[read]
            new = (~np.isin(read, both)).astype(np.intp)
            hits += np.bincount(new[right], minlength=2)
            counts += np.bincount(new, minlength=2)
    known, others = (Proportion(int(hit), int(count)) for hit, count in zip(hits, counts, strict=True))
    return f"; the model gets {known} of these right and {others} of the others"


def _mistitled(titles: tuple[str, ...], where: str) -> Iterator[Finding]:
    numbers = [NUMBER.findall(title) for title in titles]
    if len(titles) < 2 or any(len(found) != 1 for found in numbers):
        return
    shift = {int(found[0]) - k for k, found in enumerate(numbers)}
    if len(shift) == 1 and shift != {0}:
        said = ", ".join(f"class {k} is titled {title!r}" for k, title in enumerate(titles[:3]))
        yield Finding("class-titles", where, said, {"titles": list(titles), "shift": shift.pop()})


def _finds(direction: str) -> str:
    return {"both": "edges of both directions alike", "none": "no straight edge"}.get(direction, f"{direction} edges")
