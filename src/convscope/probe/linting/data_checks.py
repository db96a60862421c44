"""Checks of data, of names, and of a model that is evaluated: its mode, and how images are prepared for it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convscope.data.dataset import AT_ONCE, Dataset, shared
from convscope.filters import Filter, edge_response
from convscope.probe.linting.evidence import FAILURES, Evidence
from convscope.probe.linting.findings import Finding
from convscope.probe.support.report import Proportion
from convscope.training.outputs import decide

LARGE = 20.0
"""Inputs beyond this are unscaled pixels: normalized ones stay below 5."""
CLEARER = 0.05
"""By how much another preprocessing must raise the accuracy to be reported, besides being significant."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MNIST = ((0.1307,), (0.3081,))


def missing_eval(evidence: Evidence) -> Iterator[Finding]:
    """The same images, asked twice, get different answers because dropout is on."""
    evaluation = evidence.evaluation
    if evaluation.output is None or evaluation.again is None or not evaluation.observed.trained("dropout"):
        return
    difference = float((evaluation.output - evaluation.again).abs().max())
    if difference > 0:
        changed = _changed(evidence, evaluation.output, evaluation.again)
        observation = f"outputs of two runs differ by up to {difference:.3g}, and {changed} change class: dropout is on"
        yield Finding("missing-eval", "", observation, {"difference": difference, "changed": changed.to_json()})


def batch_norm_in_training_mode(evidence: Evidence) -> Iterator[Finding]:
    """The same images get different answers in other batches because batch norm is in training mode."""
    evaluation = evidence.evaluation
    if evaluation.error and any(words in evaluation.error for words in ("more than 1 value per channel",)):
        yield Finding("batch-norm-in-training-mode", "", evaluation.error)
    if evaluation.output is None or evaluation.halves is None or not evaluation.observed.trained("batch norm"):
        return
    difference = float((evaluation.output - evaluation.halves).abs().max())
    changed = _changed(evidence, evaluation.output, evaluation.halves)
    counters = [name for name in evaluation.buffers if not name.endswith("num_batches_tracked")]
    statistics = f"; asking moved {len(counters)} running statistics" if counters else ""
    observation = (
        f"in batches of half the size outputs differ by up to {difference:.3g}, {changed} are given another class"
    )
    observation += statistics
    yield Finding(
        "batch-norm-in-training-mode", "", observation, {"difference": difference, "changed": changed.to_json()}
    )


def missing_normalization(evidence: Evidence) -> Iterator[Finding]:
    """Inputs a hundred times too large, or images that the model knows far better when prepared otherwise."""
    largest = float(evidence.images.abs().max())
    result = _better(evidence, _scalings(evidence.images))
    if result is not None:
        name, plain, prepared = result
        observation = f"{plain} of the images are classified correctly as they are, and {prepared} when they are {name}"
        yield Finding("missing-normalization", evidence.data.name, observation, _json(name, plain, prepared))
    elif largest > LARGE and not _starts_with_norm(evidence):
        observation = (
            f"inputs go from {float(evidence.images.min()):.4g} to "
            f"{float(evidence.images.max()):.4g}, standard deviation "
        )
        yield Finding(
            "missing-normalization",
            evidence.data.name,
            observation + f"{float(evidence.images.std()):.3g}",
            {"most": largest},
        )


def channel_order(evidence: Evidence) -> Iterator[Finding]:
    """The model classifies far more images correctly when their channels are in another order."""
    if evidence.images.shape[1] != 3:
        return
    orders = [order for order in permutations(range(3)) if order != (0, 1, 2)]
    orderings: dict[str, Callable[[], Tensor]] = {
        f"given with the channels in the order {', '.join(map(str, order))}": _ordered(evidence.images, order)
        for order in orders
    }
    result = _better(evidence, orderings)
    if result is not None:
        name, plain, reordered = result
        observation = (
            f"{plain} of the images are classified correctly as they are, and {reordered} when they are {name}"
        )
        yield Finding("channel-order", evidence.data.name, observation, _json(name, plain, reordered))


def channels_last(evidence: Evidence) -> Iterator[Finding]:
    """The model fails on the images and takes them when their last axis is moved to the front."""
    if not evidence.evaluation.error or evidence.images.shape[-1] not in {1, 3}:
        return
    try:
        evidence.answers(evidence.images[:2].permute(0, 3, 1, 2))
    except FAILURES:
        return
    shape = tuple(evidence.images.shape[i] for i in (3, 1, 2))
    observation = f"the model fails on images of {tuple(evidence.images.shape[1:])} and takes {shape}"
    yield Finding("channels-last", evidence.data.name, observation, {"shape": list(evidence.images.shape[1:])})


def _ordered(images: Tensor, order: tuple[int, ...]) -> Callable[[], Tensor]:
    return lambda: images[:, list(order)]


def _scalings(images: Tensor) -> Mapping[str, Callable[[], Tensor]]:
    """Other ways to prepare the same images, in words."""
    large = float(images.abs().max()) > LARGE
    result: dict[str, Callable[[], Tensor]] = {
        "divided by 255": lambda: images / 255,
        "multiplied by 255": lambda: images * 255,
    }
    unit = images / 255 if large else images
    if float(unit.min()) >= 0 and float(unit.max()) <= 1:
        result |= {
            "scaled to -1..1": lambda: 2 * unit - 1,
            "inverted (1 - x)": lambda: 1 - unit,
        }
        published = {1: ("MNIST", MNIST), 3: ("ImageNet", IMAGENET)}
        if images.shape[1] in published:
            name, (mean, std) = published[images.shape[1]]
            shift, scale = (torch.tensor(v, dtype=unit.dtype, device=unit.device)[:, None, None] for v in (mean, std))
            result[f"normalized by {name}'s mean and standard deviation"] = lambda: (unit - shift) / scale
    return result


def _better(
    evidence: Evidence, preparations: Mapping[str, Callable[[], Tensor]]
) -> tuple[str, Proportion, Proportion] | None:
    """The preparation under which far more images are right than as they are, if there is one.

    It must be significant (McNemar's exact test on the images that change sides, at 1 % divided by the number of
    preparations), by at least `CLEARER`, and lead at least half of the way from guessing to all.
    """
    if evidence.evaluation.error:
        return None
    plain = _right(evidence, evidence.images)
    frequent = max(evidence.data.counts().values()) / len(evidence.data)
    best: tuple[str, Proportion, Proportion] | None = None
    for name, make in preparations.items():
        try:
            prepared = _right(evidence, make())
        except FAILURES:
            continue
        gained, lost = int((prepared & ~plain).sum()), int((plain & ~prepared).sum())
        share = float(prepared.mean())
        clear = share - float(plain.mean()) > CLEARER and share > (1 + frequent) / 2
        if clear and mcnemar(gained, lost) < 0.01 / len(preparations) and (best is None or share > best[2].share):
            best = name, Proportion(int(plain.sum()), len(plain)), Proportion(int(prepared.sum()), len(prepared))
    return best


def _right(evidence: Evidence, images: Tensor) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    output = evidence.answers(images).nan_to_num()
    return np.asarray((decide(output, len(evidence.data.classes)) == evidence.labels).cpu().numpy(), np.bool_)


def mcnemar(gained: int, lost: int) -> float:
    """One-sided p-value of McNemar's exact test: of at least `gained` gains, if gains and losses are equally likely.

    >>> round(mcnemar(5, 0), 5)
    0.03125
    """
    total = gained + lost
    return float(sum(math.comb(total, k) for k in range(gained, total + 1)) / 2**total)


def _changed(evidence: Evidence, first: Tensor, second: Tensor) -> Proportion:
    classes = len(evidence.data.classes)
    decisions = [decide(output.nan_to_num(), classes) for output in (first, second)]
    return Proportion(int((decisions[0] != decisions[1]).sum()), len(first))


def _starts_with_norm(evidence: Evidence) -> bool:
    return bool(evidence.layers) and "Norm" in evidence.layers[0].kind


def _json(name: str, plain: Proportion, prepared: Proportion) -> dict[str, object]:
    return {"as_they_are": plain.to_json(), "otherwise": prepared.to_json(), "how": name}


DIRECTIONS: Mapping[str, str] = {"vertical": r"\bverti[ck]al", "horizontal": r"\bhorizontal"}
NUMBER = re.compile(r"\d+")


def images_in_both(evidence: Evidence) -> Iterator[Finding]:
    """Test images that occur, pixel for pixel, in the training data."""
    if evidence.test is None:
        return
    shared_indices = shared(evidence.data, evidence.test)
    if len(shared_indices):
        observation = (
            f"{len(shared_indices):,} of the {len(evidence.test):,} test images occur among the "
            f"{len(evidence.data):,} training images"
        )
        numbers = {"both": len(shared_indices), "test": len(evidence.test)}
        yield Finding(
            "test-in-training",
            evidence.test.name,
            f"{observation}{_accuracy_note(evidence, evidence.test, shared_indices)}",
            numbers,
        )


def class_titles(evidence: Evidence) -> Iterator[Finding]:
    """Every class is titled with a number, and with another one than its own."""
    yield from _mistitled(evidence.data.classes, evidence.data.name)
    if evidence.card.classes != evidence.data.classes:
        yield from _mistitled(evidence.card.classes, evidence.card.name)


def class_order(evidence: Evidence) -> Iterator[Finding]:
    """The model's answers fit the labels far better when its outputs are taken in another order."""
    classes = len(evidence.data.classes)
    if evidence.evaluation.error or classes < 2:
        return
    output = evidence.answers(evidence.images).nan_to_num()
    if output.shape[1] < classes:
        return
    answers, labels = decide(output, classes).cpu().numpy(), evidence.labels.cpu().numpy()
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, answers), 1)
    label_of_output = counts.argmax(axis=0)  # the label that each output mostly stands for
    if sorted(label_of_output.tolist()) != list(range(classes)):
        return
    plain, reordered = answers == labels, label_of_output[answers] == labels
    gained, lost = int((reordered & ~plain).sum()), int((plain & ~reordered).sum())
    if (
        reordered.mean() > (1 + max(evidence.data.counts().values()) / len(evidence.data)) / 2
        and mcnemar(gained, lost) < 0.01
    ):
        observation = ", ".join(
            f"output {k} answers {evidence.data.classes[m]!r}" for k, m in enumerate(label_of_output) if m != k
        )
        right = [Proportion(int(hits.sum()), len(hits)) for hits in (plain, reordered)]
        text = f"{right[0]} are right as the classes are listed, {right[1]} if {observation}"
        yield Finding("class-order", evidence.card.name, text, {"meant": label_of_output.tolist()})


def kernel_titles(kernels: Mapping[str, object]) -> Iterator[Finding]:
    """Kernels whose title names edges of one direction, or corners, while they respond to other edges."""
    for title, kernel in kernels.items():
        result = edge_response(kernel if isinstance(kernel, Filter | str) else np.asarray(kernel, np.float64))
        directions = [way for way, pattern in DIRECTIONS.items() if re.search(pattern, title, re.IGNORECASE)]
        corners = not directions and re.search(r"\bcorners?\b", title, re.IGNORECASE) and result.direction != "none"
        if corners or (len(directions) == 1 and result.direction != directions[0]):
            evidence = f"titled {title!r}, it answers {result}: it finds {_finds(result.direction)}"
            numbers = {"vertical": result.vertical, "horizontal": result.horizontal}
            yield Finding("kernel-title", title, evidence, numbers)


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
    fitted = [(low, high) for low, high, fits in limits if fits]
    if len(fitted) > 1 and len({(round(low, 9), round(high, 9)) for low, high in fitted}) > 1:
        spans = [high - low for low, high in fitted]
        evidence = (
            f"{len(fitted)} of {len(limits)} pictures begin and end at their own minimum and maximum: the same step of "
            f"grey "
            f"stands for {max(spans) / min(spans):.3g} times as much in one as in another"
        )
        yield Finding("own-scales", "", evidence, {"limits": [list(pair) for pair in fitted]})


def _accuracy_note(evidence: Evidence, test: Dataset, shared_indices: NDArray[np.intp]) -> str:
    """The accuracy on test images that the model was trained on, and on the others."""
    if evidence.evaluation.error or len(shared_indices) == len(test):
        return ""
    hits, counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for start in range(0, len(test), AT_ONCE):
        raw, read_indices = test.readable(slice(start, start + AT_ONCE))
        if len(read_indices):
            output = evidence.answers(torch.from_numpy(test.preprocess.normalize(raw)).to(evidence.images))
            right = decide(output.nan_to_num(), len(test.classes)).cpu().numpy() == test.labels[read_indices]
            new = (~np.isin(read_indices, shared_indices)).astype(np.intp)
            hits += np.bincount(new[right], minlength=2)
            counts += np.bincount(new, minlength=2)
    on_shared, on_new = (Proportion(int(hit), int(count)) for hit, count in zip(hits, counts, strict=True))
    return f"; the model gets {on_shared} of these right and {on_new} of the others"


def _mistitled(titles: tuple[str, ...], name: str) -> Iterator[Finding]:
    numbers = [NUMBER.findall(title) for title in titles]
    if len(titles) < 2 or any(len(result) != 1 for result in numbers):
        return
    shift = {int(result[0]) - k for k, result in enumerate(numbers)}
    if len(shift) == 1 and shift != {0}:
        evidence = ", ".join(f"class {k} is titled {title!r}" for k, title in enumerate(titles[:3]))
        yield Finding("class-titles", name, evidence, {"titles": list(titles), "shift": shift.pop()})


def _finds(direction: str) -> str:
    return {"both": "edges of both directions alike", "none": "no straight edge"}.get(direction, f"{direction} edges")
