"""Gradients: how much of the loss's gradient reaches each layer, now and over a training. Does it vanish on the way?

The model is copied and runs in training mode, as its training ran. Uses torch, runs and data; no pictures.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.errors import UnknownName, UsageError
from convscope.models.loading import load_model
from convscope.probe.support.batching import balanced, feeder
from convscope.probe.support.gradient_norms import GradientPoint, LayerGradients, measured
from convscope.probe.support.report import ProbeReport, Table, sample_size
from convscope.progress import Progress, silent
from convscope.render.numbers import compact
from convscope.rich_display import RichDisplay
from convscope.training.evaluation import data_of
from convscope.training.job import DataSource, as_dataset
from convscope.training.objectives import LOSSES, Loss, make_loss
from convscope.training.runs import Run, load_run
from convscope.type_checks import takes
from convscope.typing import Array

VANISHED = 0.01
"""The gradient vanishes if less than this share of its norm reaches the first layer, and explodes above its inverse."""
HEAD = ("layer", "kind", "weights", "gradient at outputs", "times the last", "gradient of weights", "times the weights")


@dataclass(frozen=True, slots=True, eq=False)
class Gradients(RichDisplay):
    """The gradients of a model's layers over images, and over a training."""

    model: str
    dataset: str
    images: int
    batch: int
    loss: str
    points: tuple[GradientPoint, ...]
    """The kept steps of a training in order; the last one is the model itself."""

    @property
    def verdict(self) -> str:
        """What the model's present weights do to the gradient, in one sentence."""
        latest = self.points[-1]
        first, last = latest.layers[0], latest.layers[-1]
        share, low, high = latest.share
        if not np.isfinite(last.outputs).all() or not np.isfinite(first.outputs).all():
            return "the gradient is not finite."
        if len(latest.layers) == 1:
            return f"{first.layer} is the only layer with a weight matrix: the gradient cannot vanish on the way."
        effect = "vanishes" if share < VANISHED else "explodes" if share > 1 / VANISHED else "does not vanish"
        interval = f"median of {len(first.outputs):,} images; 95 %: {compact(low, 2)} to {compact(high, 2)}"
        names = [f"layer {each.layer}" if each.layer.isdigit() else each.layer for each in (first, last)]
        compared = f"at {names[0]} its norm is {compact(share, 3)} times that at {names[1]}"
        return f"the gradient {effect}: {compared} ({interval})."

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "images": self.images,
            "batch": self.batch,
            "loss": self.loss,
            "verdict": self.verdict,
            "points": [_plain(point) for point in self.points],
        }

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        latest = self.points[-1]
        head = f"{self.model} on {self.dataset}: {sample_size(self.images, 0)}, {self.loss}, batches of {self.batch}"
        rows = [_row(layer, latest.layers[-1]) for layer in latest.layers]
        silenced = [
            f"{layer.layer}: no gradient at all in {int((layer.outputs == 0).sum()):,} of {len(layer.outputs):,} images"
            for layer in latest.layers
            if (layer.outputs == 0).any()
        ]
        layers = Table(HEAD, rows, right=(2, 3, 4, 5, 6))
        training = [self._training()] if len(self.points) > 1 else []
        return ProbeReport.of(head, self.verdict, layers, silenced, *training)

    def _training(self) -> Table:
        first, last = self.points[-1].layers[0].layer, self.points[-1].layers[-1].layer
        rows = [
            (
                "now" if point.step is None else f"{point.step:,}",
                compact(point.loss),
                *(compact(float(np.median(point.layers[k].outputs)), 3) for k in (0, -1)),
                compact(point.share[0], 3),
            )
            for point in self.points
        ]
        return Table(("step", "loss", f"gradient at {first}", f"at {last}", "ratio"), rows, right=(0, 1, 2, 3, 4))


@takes(model="Module | Run | str | Path")
def gradients(
    model: nn.Module | Run | str | Path,
    data: DataSource | None = None,
    *,
    loss: str | None = None,
    images: int = 256,
    batch: int = 64,
    points: int = 9,
    seed: int = 0,
    progress: Progress = silent,
) -> Gradients:
    """How much of the loss's gradient reaches each layer of a model, now and over its training.

    >>> import torch, convscope as cs
    >>> _ = torch.manual_seed(0)
    >>> layers = [part for _ in range(6) for part in (nn.Linear(20, 20), nn.Sigmoid())]
    >>> deep = nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.Sigmoid(), *layers, nn.Linear(20, 2))
    >>> result = gradients(deep, cs.load_dataset("shapes"))
    >>> result.points[0].share[0] < 1e-5
    True

    Args:
        model: A module, a run, a run's folder, or a name. It is copied; the copy runs in training mode.
        data: Labelled images, or a data set's name: then its training images; a run brings its own.
        loss: cross-entropy, mse or nll; by default a run's own, else cross-entropy.
        images: How many images, balanced over the classes and drawn by `seed`; at least `batch` of them are used
            where there are as many, and only whole batches.
        batch: Images in a batch.
        points: Kept steps of a run to measure at, the first and the last included; 1 for its present weights alone.
        seed: The seed of the images and of dropout's masks.
        progress: Receives how many points are done.

    Returns:
        Norms for each layer with a weight matrix or kernels.

    Raises:
        UsageError: there are no data, or a count is below 1.
        UnknownName: no such loss or data set.
        TrainingError: no trainable layer has a weight matrix, or the loss does not depend on any.
        ShapeError: the model does not take these images, or does not answer with one score per class.
    """
    for name, count in (("images", images), ("batch", batch), ("points", points)):
        if count < 1:
            raise UsageError(f"{name} must be at least 1, not {count}.")
    run = _run_of(model)
    module = run.model if run is not None else load_model(model) if isinstance(model, str | Path) else model
    assert isinstance(module, nn.Module)
    train = _images(data, run)
    loss_name, function = _loss(loss, run)
    batches = _batches(train, module, images, batch, seed)
    measured_points: list[GradientPoint] = []
    times = _times(run, module, points)
    progress("gradients", 0, len(times))
    for step, weights in times:
        twin = copy.deepcopy(module)
        if weights:
            twin.load_state_dict({name: torch.from_numpy(value) for name, value in weights().items()}, strict=False)
        measured_points.append(measured(twin, batches, function, step, seed))
        progress("gradients", len(measured_points), len(times))
    count = sum(len(labels) for _, labels in batches)
    dataset = f"{train.name}:{train.split}"
    return Gradients(card_of(module).name, dataset, count, len(batches[0][1]), loss_name, tuple(measured_points))


def _run_of(model: Any) -> Run | None:
    if isinstance(model, Run):
        return model
    is_folder = isinstance(model, str | Path) and Path(model, "config.json").is_file()
    return load_run(model) if is_folder else None


def _images(data: DataSource | None, run: Run | None) -> Dataset:
    """The training images that are given, or those of the run."""
    chosen = data if data is not None or run is None else data_of(run, None, "train", None)
    if chosen is None:
        raise UsageError("gradients need labelled images; pass a data set: cs.probe.gradients(model, data).")
    return as_dataset(chosen, "train")


def _loss(loss: str | None, run: Run | None) -> tuple[str, Loss]:
    if loss is None and run is not None:
        return run.recipe.loss, make_loss(run.recipe)
    name = loss or "cross-entropy"
    if name not in LOSSES:
        raise UnknownName("loss", name, LOSSES)
    return name, LOSSES[name]


def _batches(data: Dataset, model: nn.Module, images: int, batch: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Whole batches of images as the model takes them, with their labels, in an order drawn by the seed."""
    raw, indices = data.readable(balanced(data, images, seed))
    order = np.random.default_rng(seed).permutation(len(indices))
    size = min(batch, len(indices))
    fed, labels = feeder(data, model)(raw[order]), torch.from_numpy(np.asarray(data.labels[indices[order]], np.int64))
    starts = range(0, len(order) - size + 1, size)
    return [(fed[start : start + size], labels[start : start + size]) for start in starts]


Weights = Callable[[], Mapping[str, Array]]


def _times(run: Run | None, model: nn.Module, points: int) -> list[tuple[int | None, Weights | None]]:
    """The points to measure at: a step and its weights; the model as it is comes last, with None as its weights."""
    steps: Sequence[int] = [] if run is None else run.steps
    if run is None or not steps:
        return [(None, None)]
    at_last = run.weights_at(steps[-1])
    state = model.state_dict()
    same = all(np.array_equal(state[name].cpu().numpy(), value) for name, value in at_last.items() if name in state)
    before = steps[:-1] if same else steps
    spread = np.unique(np.linspace(0, len(before) - 1, min(points - 1, len(before))).round().astype(int)).tolist()
    stored_points = [(before[k], partial(run.weights_at, before[k])) for k in spread]
    return [*stored_points, (steps[-1] if same else None, None)]


def _row(layer: LayerGradients, last: LayerGradients) -> tuple[str, ...]:
    middle, end = float(np.median(layer.outputs)), float(np.median(last.outputs))
    return (
        layer.layer,
        layer.kind,
        f"{layer.weights:,}",
        compact(middle, 3),
        compact(middle / end, 3) if end else "–",
        compact(float(np.median(layer.batches)), 3),
        compact(layer.relative, 2),
    )


def _plain(point: GradientPoint) -> dict[str, object]:
    share, low, high = point.share
    return {
        "step": point.step,
        "loss": point.loss,
        "share": {"median": share, "low": low, "high": high, "interval": "order statistics 95 %"},
        "layers": [
            {
                "layer": layer.layer,
                "kind": layer.kind,
                "weights": layer.weights,
                "outputs": float(np.median(layer.outputs)),
                "without": int((layer.outputs == 0).sum()),
                "gradient": float(np.median(layer.batches)),
                "relative": layer.relative,
            }
            for layer in point.layers
        ],
    }
