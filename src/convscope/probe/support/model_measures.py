"""Model measures: what a model costs, which classes it predicts, and how similar its layers are to another model's.

Source: S. Kornblith et al., Similarity of neural network representations revisited, ICML 2019 (CKA); T. Nguyen,
M. Raghu, S. Kornblith, Do wide and deep networks learn the same things?, ICLR 2021 (over batches); L. Song et al.,
Feature selection via dependence maximization, JMLR 2012 (the unbiased estimator).
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convscope.capture.activations import ActivationWatch
from convscope.data.dataset import Dataset
from convscope.probe.support.batching import batch_size, classes_of, notes_of
from convscope.probe.support.scan import Batch, BatchResult
from convscope.traces.trace import Trace

REPEATS = 7
LONG_ENOUGH = 0.02
"""Seconds that one measurement lasts at least, where a pass is shorter."""
Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image."""

    parameters: int
    """Numbers that training can change."""
    multiply_adds: int
    """Multiply-adds of convolutions, matrix products and attention; everything else is left out."""
    milliseconds: float
    """Median time for an image, in a batch."""
    least: float
    """The shortest of the measured times, in milliseconds."""
    most: float
    """The longest."""
    batch: int
    """Images in the batch that was timed."""


def costs(models: Sequence[nn.Module], batches: Sequence[Tensor]) -> tuple[Cost, ...]:
    """The cost of one image for each model; the models take turns, so that other load affects all of them equally.

    >>> with torch.no_grad():
    ...     cost = costs([nn.Conv2d(1, 4, 3)], [torch.zeros(2, 1, 10, 10)])[0]
    >>> cost.parameters, cost.multiply_adds
    (40, 2304)

    Args:
        models: In evaluation mode, on their device; gradients are the caller's.
        batches: For each model a batch that it is timed on, shape (n, C, H, W).
    """
    counted = [_multiply_adds(model, batch[:1]) for model, batch in zip(models, batches, strict=True)]
    passes = [_passes(model, batch) for model, batch in zip(models, batches, strict=True)]
    times: list[list[float]] = [[] for _ in models]
    for _ in range(REPEATS):
        for model, batch, count, durations in zip(models, batches, passes, times, strict=True):
            durations.append(1000 * _timed(model, batch, count) / (count * len(batch)))
    return tuple(
        Cost(_parameters(model), adds, statistics.median(durations), min(durations), max(durations), len(batch))
        for model, adds, durations, batch in zip(models, counted, times, batches, strict=True)
    )


def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    """PyTorch's own count of floating-point operations, two for each multiply-add, and what it leaves out."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2


def _attention(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Scores and their sum with the values: (N, H, L, D) by (N, H, S, D)."""
    images, heads, length, depth = query
    return 2 * images * heads * length * key[2] * (depth + value[3])


def _heads(query: Shape, key: Shape, _value: Shape, width: int, *_: object, **__: object) -> int:
    """A whole attention layer on (N, L, E): four projections and the attention between."""
    images, length = query[0], query[1]
    return 2 * images * (2 * (length + key[1]) * width**2 + 2 * length * key[1] * width)


def _encoder(source: Shape, width: int, *more: Any, **_: Any) -> int:
    """A whole encoder layer: attention, then two linear layers."""
    images, length = source[0], source[1]
    hidden = more[12][0]  # the fifteenth argument is the first linear layer's weight, (F, E)
    return _heads(source, source, source, width) + 4 * images * length * width * int(hidden)


FUSED: Any = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._native_multi_head_attention: _heads,
    torch.ops.aten._transformer_encoder_layer_fwd: _encoder,
}
"""Floating-point operations of what PyTorch's own count leaves out."""


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _passes(model: nn.Module, batch: Tensor) -> int:
    """How many passes are timed together, so that they last long enough; the first pass of all is not counted."""
    _timed(model, batch, 1)
    return max(1, min(1000, round(LONG_ENOUGH / _timed(model, batch, 1))))


def _timed(model: nn.Module, batch: Tensor, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        model(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - start


LEAST = 4
"""The fewest images in a batch from which the estimator can be calculated."""


def gram(result: Tensor) -> Tensor:
    """The products of a batch's images with each other, the diagonal 0: (N, N), float64.

    Args:
        result: Shape (N, ...); each image is one vector.
    """
    vectors = result.flatten(1).float()
    vectors = vectors - vectors.mean(dim=0)
    products = (vectors @ vectors.T).double()
    return products.fill_diagonal_(0.0)


def dependence(grams: Sequence[Tensor], other_grams: Sequence[Tensor]) -> NDArray[np.float64]:
    """The unbiased Hilbert-Schmidt independence criterion of every layer with every other: (L, M).

    >>> import torch
    >>> line = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    >>> one, same = gram(line), gram(3 * line)
    >>> cka(*(dependence([a], [b]) for a, b in ((one, same), (one, one), (same, same))))
    array([[1.]])
    """
    similarity = np.zeros((len(grams), len(other_grams)))
    for row, first in enumerate(grams):
        for column, second in enumerate(other_grams):
            similarity[row, column] = _hsic(first, second)
    return similarity


def _hsic(first: Tensor, second: Tensor) -> float:
    n = len(first)
    cross = float((first * second).sum())
    totals = float(first.sum()) * float(second.sum()) / ((n - 1) * (n - 2))
    lines = 2 * float(first.sum(dim=0) @ second.sum(dim=0)) / (n - 2)
    return (cross + totals - lines) / (n * (n - 3))


def cka(cross: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred kernel alignment from sums of dependences: 1 for the same representation, about 0 for unrelated ones.

    Args:
        cross: The layers of one model with those of another, (L, M).
        first: The first model's layers with themselves, (L, L), or its diagonal (L,).
        second: The second model's layers with themselves, (M, M) or (M,).

    Returns:
        (L, M); nan where a layer gives the same for all images.
    """
    left, right = (np.diag(part) if part.ndim == 2 else part for part in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.round(cross / np.sqrt(np.outer(left, right)), 12))


LAYERS = 12
"""The most layers of a model that are compared, evenly spread."""


class Answers:
    """The measurements of each batch, and their sums."""

    def __init__(self, data: Dataset, models: Sequence[nn.Module], layers: Sequence[Sequence[str]], shown: int) -> None:
        self._classes = [classes_of(model, data) for model in models]
        self.notes = notes_of(self._classes)
        self._watches = [ActivationWatch(model, named) for model, named in zip(models, layers, strict=True)]
        self._layers, self._shown = layers, shown
        self._full = min(batch_size(data), len(data))

    def __call__(self, batch: Batch) -> BatchResult:
        """Answers, and dependences between layers."""
        answers, grams = [], []
        full = len(batch) == self._full and len(batch) >= LEAST
        for images, watch, classes, named in zip(
            (batch.images, *batch.others), self._watches, self._classes, self._layers, strict=True
        ):
            results = watch(images, lambda _step, result: gram(result) if full else None, whole=True)
            answers.append(classes.decide(results[""], len(batch)))
            grams.append([results[name] for name in named] if full else [])
        predicted = torch.stack(answers, 1).cpu().numpy()  # (n, M)
        return self._counted(batch, predicted) | self._alike(grams, len(batch) if full else 0)

    def _counted(self, batch: Batch, predicted: NDArray[np.int64]) -> BatchResult:
        labels = batch.labels.cpu().numpy()
        right = predicted == labels[:, None]
        differ = np.flatnonzero((predicted != predicted[:, :1]).any(axis=1))
        shown = differ[: self._shown]
        return {
            "right": right.sum(axis=0),
            "same": (predicted[:, :, None] == predicted[:, None]).sum(axis=0),
            "only": (right[:, :, None] & ~right[:, None]).sum(axis=0),  # (M, M): row right, column wrong
            "disagreeing": np.array(len(differ)),
            "indices": batch.indices[shown],
            "labels": labels[shown],
            "answers": predicted[shown],
        }

    def _alike(self, grams: Sequence[Sequence[Tensor]], images: int) -> BatchResult:
        similarity: BatchResult = {"alike on": np.array(images)}
        for first, left in enumerate(self._layers):
            self_dependence = [dependence([layer], [layer])[0, 0] for layer in grams[first]]
            similarity[f"own {first}"] = np.array(self_dependence) if images else np.zeros(len(left))
            for second in range(first + 1, len(self._layers)):
                shape = (len(left), len(self._layers[second]))
                similarity[f"cross {first} {second}"] = (
                    dependence(grams[first], grams[second]) if images else np.zeros(shape)
                )
        return similarity

    def merge(self, first: BatchResult, second: BatchResult) -> BatchResult:
        """Two parts together; of the disagreements the first ones."""
        listed = {"indices", "labels", "answers"}
        return {
            name: np.concatenate([first[name], second[name]])[: self._shown]
            if name in listed
            else first[name] + second[name]
            for name in first
        }


def layers_of(sketch: Trace) -> tuple[str, ...]:
    """Activations and the last step, evenly spread; all steps in a model without activations."""
    fit = [step for step in sketch.steps if len(step.shape) > 1]
    chosen = [step for step in fit if step.role == "activation" or step is fit[-1]]
    chosen = chosen if len(chosen) > 1 else fit
    spread = np.linspace(0, len(chosen) - 1, min(LAYERS, len(chosen))).round().astype(int)
    return tuple(chosen[index].name for index in spread)
