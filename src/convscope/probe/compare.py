"""Compare: two or more models on the same data: what they cost, how often they are right, where they disagree, and
how alike their layers represent the images. Uses scans, costs and similarities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convscope.capture.tracing import trace
from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.errors import UsageError
from convscope.probe.support.batching import as_data, batch_size, first_of, kind_of, pictures
from convscope.probe.support.model_measures import Answers, Cost, cka, costs, layers_of
from convscope.probe.support.report import Z95, ProbeReport, Proportion, Table, noted, sample_size
from convscope.probe.support.scan import READ, BatchResult, at_work, scan
from convscope.progress import Progress, silent
from convscope.rich_display import RichDisplay
from convscope.training.outputs import answer, in_eval_mode
from convscope.training.runs import Model, as_model
from convscope.training.runtime import make_runtime
from convscope.type_checks import takes

HEAD = ("model", "parameters", "multiply-adds", "ms an image", "accuracy")


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One of the models."""

    name: str
    cost: Cost
    accuracy: Proportion
    layers: tuple[str, ...]
    """The steps whose representations are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two of the models on the same images."""

    one: int
    other: int
    same: int
    """Images given the same class by both."""
    only_one: int
    """Images that only the first is right on."""
    only_other: int
    """Images that only the second is right on."""
    images: int
    similarity: NDArray[np.float64] = field(repr=False)
    """Linear CKA of the layers of the first (rows) and of the second (columns)."""

    @property
    def difference(self) -> tuple[float, float, float]:
        """Accuracy of the second minus that of the first, and its 95 % interval for paired answers.

        Source: A. Agresti, Y. Min, Simple improved confidence intervals for comparing matched proportions, 2005.
        """
        b, c, n = self.only_other + 0.5, self.only_one + 0.5, self.images + 2
        half = Z95 * float(np.sqrt((b + c) - (b - c) ** 2 / n)) / n
        middle = (b - c) / n
        return (self.only_other - self.only_one) / self.images, max(-1.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True, eq=False)
class Disagreement:
    """An image that not all models give the same class."""

    image: int
    """Its index in the data set."""
    label: int
    answers: tuple[int, ...]
    """The class that each model gives it; -1 for one that the data set does not have."""
    picture: NDArray[np.float32] = field(repr=False)
    """From 0 to 1, as the first model is shown it."""


@dataclass(frozen=True, slots=True, eq=False)
class Compare(RichDisplay):
    """Models on the same data."""

    dataset: str
    """Name and split."""
    classes: tuple[str, ...]
    images: int
    """The number of images."""
    skipped: int
    """The number of images that could not be read."""
    models: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    disagreements: tuple[Disagreement, ...]
    """The first of them, in the order of the data set."""
    disagreeing: int
    """The number of images for which the models predict different classes."""
    alike_on: int
    """Images that the similarities are calculated from."""
    machine: str
    """The device on which the times were measured."""
    notes: tuple[str, ...] = ()
    """Caveats of the accuracies."""

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON, without pixels."""
        return {
            "dataset": self.dataset,
            "images": self.images,
            "skipped": self.skipped,
            "machine": self.machine,
            "models": [_plain(model) for model in self.models],
            "pairs": [_plain_pair(pair) for pair in self.pairs],
            "disagreeing": self.disagreeing,
            "disagreements": [
                {"image": d.image, "label": d.label, "answers": list(d.answers)} for d in self.disagreements
            ],
            "alike_on": self.alike_on,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        rows = [
            (
                model.name,
                f"{model.cost.parameters:,}",
                f"{model.cost.multiply_adds:,}",
                f"{model.cost.milliseconds:.3g} ({model.cost.least:.3g} to {model.cost.most:.3g})",
                str(model.accuracy),
            )
            for model in self.models
        ]
        size = sample_size(self.images, self.skipped)
        head = f"{self.dataset}: {size}; intervals: Wilson 95 %; times: {self.machine}"
        message = [line for pair in self.pairs for line in self._pair_lines(pair)]
        return ProbeReport.of(head, noted(self.notes), Table(HEAD, rows, right=(1, 2, 3)), message)

    def _pair_lines(self, pair: Pair) -> list[str]:
        first, second = self.models[pair.one], self.models[pair.other]
        shift, low, high = (100 * value for value in pair.difference)
        lines = [
            f"{first.name} and {second.name}: the same class for {Proportion(pair.same, self.images)}; only "
            f"{first.name} is right on {pair.only_one:,} images, only {second.name} on {pair.only_other:,}: a "
            f"difference "
            f"of {shift:+.2f} points ({low:+.2f} to {high:+.2f}, paired, Agresti-Min 95 %)"
        ]
        if pair.similarity.size and np.isfinite(pair.similarity).any():
            row, column = np.unravel_index(int(np.nanargmax(pair.similarity)), pair.similarity.shape)
            lines.append(
                f"most alike are {first.layers[row]} of {first.name} and {second.layers[column]} of {second.name}: "
                f"CKA {pair.similarity[row, column]:.3f} on {self.alike_on:,} images"
            )
        return lines


@takes(models="list | tuple | Sequence", data="Dataset | str")
def compare(
    models: Sequence[Model],
    data: Dataset | str,
    *,
    shown: int = 24,
    names: Sequence[str] = (),
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> Compare:
    """Compare two or more models on the same data.

    >>> import convscope as cs
    >>> models = [cs.load_model("shapes-cnn"), cs.load_model("shapes-mlp")]
    >>> result = compare(models, cs.load_dataset("shapes", split="test"))
    >>> [model.cost.multiply_adds for model in result.models]
    [150048, 15720]

    Args:
        models: Two or more, run folders and names too; each gets the images as its card says, and is left as it was.
        data: The images, with labels, or the name of a data set: then its test images.
        shown: How many images the models disagree on are kept.
        names: What to call them; by default what their cards say, numbered where two are the same.
        folder: Where an interrupted scan keeps what it has found, so that it goes on.
        progress: Receives how many images are done.

    Raises:
        UsageError: fewer than two models, or another number of names.
        DataError: a model does not know one of the data's classes.
        ShapeError: a model cannot take these images, answers with something else than one score per class (maps, as
            segmentation does), or has fewer outputs than the data has classes.
    """
    if len(models) < 2 or len(names) not in {0, len(models)}:
        raise UsageError(
            f"compare takes two or more models, and as many names or none, not {len(models)} and {len(names)}."
        )
    nets, data = [as_model(model) for model in models], as_data(data, "test")
    _refuse_other_answers(nets, data)
    sketches = [trace(model, first_of(data, model), keep=0) for model in nets]
    layers = [layers_of(sketch) for sketch in sketches]
    answers = Answers(data, nets, layers, shown)
    settings = {"layers": [list(layer_names) for layer_names in layers], "shown": shown}
    result = scan(
        data, nets, answers, answers.merge, what="comparing", settings=settings, folder=folder, progress=progress
    )
    images = int(result[READ])
    called = _numbered(names or [card_of(model).name for model in nets])
    paid, machine = _costs(nets, data)
    compared = tuple(
        Compared(name, cost, Proportion(int(right), images), layer_names)
        for name, cost, right, layer_names in zip(called, paid, result["right"], layers, strict=True)
    )
    return Compare(
        f"{data.name}:{data.split}",
        data.classes,
        images,
        data.listed - images,
        compared,
        tuple(_pair(result, first, second, images) for first, second in combinations(range(len(nets)), 2)),
        _disagreements(result, pictures(data, nets[0])),
        int(result["disagreeing"]),
        int(result["alike on"]),
        machine,
        answers.notes,
    )


def _refuse_other_answers(models: Sequence[nn.Module], data: Dataset) -> None:
    """Refuse models that do not answer an image with a score per class, before anything is measured."""
    for model in models:
        with torch.no_grad(), in_eval_mode(model):
            answer(model, first_of(data, model).to(*kind_of(model)))


def _disagreements(result: BatchResult, picture: Callable[[int], NDArray[np.float32]]) -> tuple[Disagreement, ...]:
    rows = zip(result["indices"].tolist(), result["labels"].tolist(), result["answers"].tolist(), strict=True)
    return tuple(Disagreement(i, label, tuple(answers), picture(i)) for i, label, answers in rows)


def _pair(batch: BatchResult, first: int, second: int, images: int) -> Pair:
    alike = cka(batch[f"cross {first} {second}"], batch[f"own {first}"], batch[f"own {second}"])
    only = batch["only"]
    return Pair(
        first,
        second,
        int(batch["same"][first, second]),
        int(only[first, second]),
        int(only[second, first]),
        images,
        alike,
    )


def _costs(models: Sequence[nn.Module], data: Dataset) -> tuple[tuple[Cost, ...], str]:
    """The cost of each model, and the device on which it was measured."""
    runtime = make_runtime(str(kind_of(models[0])[0]))
    with at_work(models, runtime):
        batches = []
        for model in models:
            images = first_of(data, model, batch_size(data))
            batches.append(images.to(*kind_of(model)))
        result = costs(models, batches)
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count != 1)}" if runtime.device.type == "cpu" else ""
    return result, f"{runtime.device.type}{threads}, batches of {result[0].batch}"


def _numbered(names: Sequence[str]) -> list[str]:
    """Names made different: net, net (2).

    >>> _numbered(["net", "other", "net"])
    ['net', 'other', 'net (2)']
    """
    return [name if (n := names[: k + 1].count(name)) == 1 else f"{name} ({n})" for k, name in enumerate(names)]


def _plain(model: Compared) -> dict[str, object]:
    cost = model.cost
    return {
        "model": model.name,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "milliseconds": cost.milliseconds,
        "milliseconds_range": [cost.least, cost.most],
        "batch": cost.batch,
        "accuracy": model.accuracy.to_json(),
        "layers": list(model.layers),
    }


def _plain_pair(pair: Pair) -> dict[str, object]:
    shift, low, high = pair.difference
    return {
        "models": [pair.one, pair.other],
        "same": pair.same,
        "only_one": pair.only_one,
        "only_other": pair.only_other,
        "difference": {"value": shift, "low": low, "high": high, "interval": "Agresti-Min 95 %"},
        "cka": pair.similarity.tolist(),
    }
