"""Evaluation: a model's scores on a data set, and its prediction for one image. Uses torch; writes no files."""

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.cards.card import Card
from convscope.cards.card_inference import card_of
from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset, matched_by_number
from convscope.errors import DataError
from convscope.escaping import spelled
from convscope.inputs.pictures import Prepared, check_input, prepare
from convscope.models.loading import load_model
from convscope.render.numbers import decimal, percent, table
from convscope.rich_display import RichDisplay
from convscope.training.batches import Batches, as_batches
from convscope.training.objectives import Loss, make_loss, mse
from convscope.training.outputs import (
    answer,
    are_probabilities,
    check_classes,
    decide,
    ends_in,
    in_eval_mode,
    returned,
    scores_of,
)
from convscope.training.processes import agree, gathered, join
from convscope.training.reproducibility import quick_digest, weights_digest
from convscope.training.runs import Run, load_run
from convscope.training.runtime import Runtime, choose_device, make_runtime
from convscope.training.threads import Threads, threads_of_pass
from convscope.type_checks import takes

BATCH = 1000
BATCH_BYTES = 16 << 20
"""Upper limits of an evaluation batch: number of images, and their bytes."""


@dataclass(frozen=True, eq=False)
class Evaluation(RichDisplay):
    """A model's scores on a data set.

    >>> import numpy as np
    >>> scores = Evaluation("pets", ("cat", "dog"), 0.5, np.array([[8, 2], [0, 10]]))
    >>> scores.accuracy, scores.per_class[0]["recall"]
    (0.9, 0.8)
    """

    dataset: str
    classes: tuple[str, ...]
    loss: float
    """Mean loss over the images, with the loss function of the training."""
    confusion: NDArray[np.int64]
    """Confusion matrix: number of images of class row predicted as class column, shape (K, K)."""
    skipped: int = 0
    """Number of images that could not be read, not counted in the scores."""
    notes: tuple[str, ...] = ()
    """Caveats."""

    def __str__(self) -> str:
        return "\n".join([self.to_text(), *(spelled(f"note: {note}") for note in self.notes)])

    def to_text(self) -> str:
        """The scores in a line, those of each class, and the confusion matrix."""
        total = int(self.confusion.sum())
        skipped = f"; {self.skipped:,} more cannot be read" if self.skipped else ""
        line = f"{self.dataset}: {percent(self.accuracy)} of {total:,} images right, loss {decimal(self.loss)}{skipped}"
        rows = [(c["class"], f"{c['images']:,}", percent(c["recall"]), percent(c["precision"])) for c in self.per_class]
        scores = table([("class", "images", "recall", "precision"), *rows], "<>>>")
        counts = [(name, *(f"{n:,}" for n in row)) for name, row in zip(self.classes, self.confusion, strict=True)]
        matrix = table([("", *self.classes), *counts], "<" + ">" * len(self.classes))
        about = "confusion matrix: true class (rows), predicted class (columns)"
        return "\n".join(map(spelled, [line, "", *scores, "", about, *matrix]))

    @cached_property
    def accuracy(self) -> float:
        """Fraction of images predicted correctly."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """For each class: number of images, recall and precision."""
        result, options_used, right = self.confusion.sum(1), self.confusion.sum(0), np.diag(self.confusion)
        return [
            {
                "class": name,
                "images": int(result[k]),
                "recall": float(right[k] / result[k]) if result[k] else None,
                "precision": float(right[k] / options_used[k]) if options_used[k] else None,
            }
            for k, name in enumerate(self.classes)
        ]

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "images": int(self.confusion.sum()),
            "skipped": self.skipped,
            "notes": list(self.notes),
            "classes": self.per_class,
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prediction(RichDisplay):
    """A model's prediction for one image."""

    image: str
    classes: tuple[str, ...]
    output: NDArray[np.float32]
    """The model's output, shape (K,)."""
    probabilities: NDArray[np.float64] | None
    """Softmax of the output, or the output itself if it already holds probabilities, shape (K,); None for a model
    with a single output."""
    best: int
    """The class with the largest output; for a single output, the class number nearest to it."""
    label: int | None = None
    """The true class, if the image has a label."""
    notes: tuple[str, ...] = ()
    """The preprocessing of the image, and caveats about the prediction."""

    def __str__(self) -> str:
        return "\n".join(map(spelled, [*self.lines(), *(f"note: {note}" for note in self.notes)]))

    def __repr__(self) -> str:
        return spelled(f"<Prediction {self.lines(top=1)[0]}>")

    def lines(self, top: int = 3) -> list[str]:
        """The predicted class, whether it is correct, and the most probable classes.

        >>> shares = np.array([0.75, 0.25])
        >>> Prediction("a.png", ("plus", "x"), np.zeros(2, np.float32), shares, 0, label=1).lines()
        ['a.png: plus (wrong: it is x)', '  plus   75.00 %', '  x      25.00 %']
        """
        truth = ""
        if self.label is not None:
            truth = " (correct)" if self.best == self.label else f" (wrong: it is {self.classes[self.label]})"
        head = f"{self.image}: {self.classes[self.best]}{truth}"
        if self.probabilities is None:
            return [head, f"  {decimal(float(self.output[0]))}, nearest to class number {self.best}"]
        order = self.probabilities.argsort()[::-1][:top]
        width = max(len(self.classes[k]) for k in order)
        shares = [(self.classes[k], percent(float(self.probabilities[k]))) for k in order]
        return [head, *(f"  {name:<{width}}  {share:>8}" for name, share in shares)]

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "image": self.image,
            "class": self.classes[self.best],
            "index": self.best,
            "label": self.label,
            "output": self.output.tolist(),
            "probabilities": None if self.probabilities is None else self.probabilities.tolist(),
            "classes": list(self.classes),
            "notes": list(self.notes),
        }


def measure(model: nn.Module, batches: Batches, loss: Loss, runtime: Runtime, threads: Threads) -> Evaluation:
    """Evaluate a model, in eval mode, on a whole data set, up to a thousand images at a time.

    Several processes share the batches and add the results up in order: each returns what a single process would.

    Raises:
        DataError: none of the images can be read.
        ShapeError: the model's output is not one score per class, or has too few of them.
    """
    classes = batches.data.classes
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    losses: list[float] = []
    strange = 0
    size = max(1, min(BATCH, BATCH_BYTES // (4 * math.prod(batches.data.shape))))
    with torch.no_grad(), in_eval_mode(model), runtime.autocast():
        for images, labels in batches.in_order(size, runtime.rank, runtime.world):
            if not len(labels):  # none of them could be read
                losses.append(0.0)
                continue
            output = threads.run(partial(answer, model, images))
            check_classes(output, len(classes), one_number=loss is mse)
            losses.append(float(loss(output, labels)) * len(labels))
            strange += int((~output.isfinite()).any(1).sum())
            np.add.at(confusion, (labels.cpu().numpy(), decide(output, len(classes)).cpu().numpy()), 1)
    gathered_parts = gathered((losses, confusion, strange))
    total = 0.0  # the losses are added in the order of the batches, so that any number of processes gives the same sum
    for number in range(math.ceil(len(batches) / size)):
        total += gathered_parts[number % runtime.world][0][number // runtime.world]
    counts = sum((part for _, part, _ in gathered_parts), np.zeros_like(confusion))
    name, image_count = f"{batches.data.name}:{batches.data.split}", int(counts.sum())
    if not image_count:
        raise DataError(f"no image of {name} can be read.")
    not_finite = sum(part for *_, part in gathered_parts)
    notes = (
        f"{not_finite:,} of the {image_count:,} outputs have values that are not finite, so their classes mean "
        f"nothing.",
    )
    return Evaluation(
        name, classes, total / image_count, counts, batches.data.listed - image_count, notes if not_finite else ()
    )


@takes(run="Run | str | Path", dataset="Dataset | str")
def evaluate(
    run: Run | str | Path,
    dataset: str | Dataset | None = None,
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    device: str = "auto",
    strict: bool = False,
) -> Evaluation:
    """Evaluate a trained run on a data set, by default on the test split of its own data.

    Several processes (see `cs.launch`) share the work and all return the result. Images of a folder, or of `hub:`, that
    cannot be read are named and skipped, unless `strict`.

    >>> cs.evaluate("runs/shapes-cnn").accuracy  # doctest: +SKIP
    0.995

    Raises:
        RunError: the folder is not a run.
        UnknownName: unknown data set.
        DataError: the run was trained on data passed as arrays, and none is passed now; or the processes' data differ.
    """
    join()
    run = run if isinstance(run, Run) else load_run(run)
    data = dataset if isinstance(dataset, Dataset) else data_of(run, dataset, split, data_dir, strict=strict)
    runtime = make_runtime(device)
    model = run.model.to(runtime.device)
    data, notes = as_expected(data, card_of(model))
    agree("evaluation", lambda: {"data": quick_digest(data), "models": weights_digest(model)})
    check_input(model, data.preprocess.normalize(data.first()[0]), "evaluate it on data like those it was trained on")
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    batches = as_batches(data, runtime.device, dtype, channels_last=False)
    with threads_of_pass(choose=runtime.world == 1 and runtime.device.type == "cpu") as threads:
        result = measure(model, batches, make_loss(run.recipe), runtime, threads)
    return replace(result, notes=(*notes, *result.notes))


def as_expected(data: Dataset, card: Card) -> tuple[Dataset, tuple[str, ...]]:
    """A data set normalized and with its classes numbered as a model expects them, and notes on it.

    Raises:
        DataError: it has classes that the model does not know.
    """
    expected = card.preprocess
    data = replace(data, preprocess=replace(data.preprocess, mean=expected.mean, std=expected.std))
    if not card.classes or data.classes == card.classes:
        return data, ()
    unknown = sorted(set(data.classes) - set(card.classes))
    if len(unknown) == len(data.classes) == len(card.classes):
        return data, matched_by_number(data, card.classes, card.name)
    if unknown:
        raise DataError(
            f"{data.name} has the class {unknown[0]!r}, which {card.name} does not know; it knows "
            f"{', '.join(card.classes)}."
        )
    numbers = np.array([card.classes.index(name) for name in data.classes])
    return replace(data, labels=numbers[data.labels], classes=card.classes), ()


def data_of(run: Run, name: str | None, split: str, data_dir: str | Path | None, *, strict: bool = False) -> Dataset:
    """The data that a run was trained on, or other data prepared for its model.

    Args:
        run: A trained run.
        name: Another data set's name; None for the run's own.
        split: "train", "test" or "all".
        data_dir: Folder of the MNIST family's files, if it has changed since the training.
        strict: Whether an image that cannot be read is an error rather than skipped.

    Raises:
        DataError: the run was trained on data passed as arrays.
    """
    if name is not None:
        alike = card_of(run.model).preprocess.as_loaded() if name.startswith(("folder:", "hub:")) else {}
        return load_dataset(name, split=split, data_dir=data_dir, seed=run.config["seed"], strict=strict, **alike)
    trained_on = run.config["dataset"]
    if trained_on["source"] is None:
        raise DataError(
            f"{run.path} was trained on data passed as arrays ({trained_on['name']}); pass the data to evaluate on."
        )
    options = trained_on["options"].copy()
    if split != "train":
        options.pop("size", None)
    if data_dir is not None:
        options["data_dir"] = str(data_dir)
    if strict:
        options["strict"] = True
    return load_dataset(trained_on["source"], split=split, seed=trained_on["seed"], **options)


@takes(model="Module | Run | str | Path")
def predict(
    model: nn.Module | Run | str | Path, *images: object, data_dir: str | Path | None = None, device: str = "auto"
) -> list[Prediction]:
    """A model's predictions for images.

    >>> cs.predict("runs/shapes-cnn", "drawing.png")[0].best  # doctest: +SKIP
    1

    Args:
        model: A run, a run's folder, or any model, with or without class names.
        images: Files, `dataset:split/index`, or arrays (C, H, W).
        data_dir: Folder of the MNIST family's files; a run remembers where it read them.
        device: Where to move the model; "auto" leaves it where it is.

    Raises:
        ImageError: a file cannot be read.
        ShapeError: a picture cannot be converted to the model's input, or the model's output is neither one score per
            class nor a single number, such as a segmentation map.
    """
    if isinstance(model, str | Path) and (Path(model) / "config.json").exists():
        model = load_run(model)
    if isinstance(model, Run):
        data_dir = data_dir or model.config["dataset"]["options"].get("data_dir")
        model = model.model
    elif not isinstance(model, nn.Module):
        model = load_model(model)
    if device != "auto":
        model = model.to(choose_device(device))
    card = card_of(model)
    return [_predict_one(model, card, prepare(image, like=card, data_dir=data_dir)) for image in images]


def _predict_one(model: nn.Module, card: Card, prepared: Prepared) -> Prediction:
    check_input(model, prepared.array)
    parameter = next(model.parameters(), torch.empty(0))
    images = torch.tensor(prepared.array[None], dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad(), in_eval_mode(model):
        output = returned(model, images)
    result = interpret(model, output, card=card)
    return replace(result, image=prepared.name, label=prepared.label, notes=(*prepared.notes, *result.notes))


def interpret(model: nn.Module, output: object, *, card: Card | None = None) -> Prediction:
    """The class that a model's output for one image means, and the probabilities if there are several outputs.

    >>> interpret(nn.Linear(1, 2), np.zeros((1, 2), np.float32)).probabilities
    array([0.5, 0.5])

    Args:
        model: The model that made the output. After a final softmax the outputs already are probabilities; after a
            final sigmoid each output is a probability of its own.
        output: Logits or probabilities, shape (1, K) or (K,); or a dict or object with `logits`, as returned by
            `model(images)` or stored in a trace's `output`.
        card: What the outputs mean; by default the model's own card. Outputs without a class name are never predicted.

    Raises:
        ShapeError: the output is something else, such as a segmentation map; the message says what.
    """
    row = scores_of(output, 1).detach().float().cpu()  # (1, K)
    names = (card or card_of(model)).classes
    classes = names or tuple(str(k) for k in range(max(row.shape[1], 2)))
    probabilities, notes = None, _strange(row, len(classes), named=bool(names))
    if row.shape[1] > 1:
        shares = row.double() if are_probabilities(model, row) else row.double().softmax(1)
        if ends_in(model, nn.Sigmoid):
            shares = row.double()
            sigmoid = "the model ends in a sigmoid: each output is a probability of its own; they need not add up to 1."
            notes = (*notes, sigmoid)
        probabilities = shares[0].numpy()
    best = int(decide(row, len(classes))[0])
    named = (*classes, *(f"output {k}" for k in range(len(classes), row.shape[1])))
    return Prediction("output", named, row[0].numpy(), probabilities, best, notes=notes)


def _strange(row: Tensor, classes: int, *, named: bool) -> tuple[str, ...]:
    """Caveats of a prediction."""
    notes = []
    if not torch.isfinite(row).all():
        notes.append(
            "the model's output has values that are not finite, so this means nothing; check the weights and the image."
        )
    if row.shape[1] == 1 and not named:
        notes.append(
            "the model has a single output and no class names that say what it means; it is read as a class number."
        )
    if row.shape[1] > classes:
        notes.append(f"the model has {row.shape[1]} outputs and {classes} class names; the others are never predicted.")
    if 1 < row.shape[1] < classes:
        notes.append(f"the model has {row.shape[1]} outputs and {classes} class names; the last names have no output.")
    return tuple(notes)
