"""Answers: the classes that several models predict for each batch, and how similar their layers are on it.

Knows torch, watched steps and similarities; not how the results are reported.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.capture.activations import ActivationWatch
from convscope.data.dataset import Dataset
from convscope.probe.support.batching import batch_size
from convscope.probe.support.class_mapping import classes_of, notes_of
from convscope.probe.support.scan import Batch, BatchResult
from convscope.probe.support.similarity import LEAST, dependence, gram
from convscope.traces.trace import Trace

LAYERS = 12
"""The most layers of a model that are compared, evenly spread."""


class Answers:
    """What each batch is asked, and how the answers are added up."""

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
            seen = watch(images, lambda _step, result: gram(result) if full else None, whole=True)
            answers.append(classes.decide(seen[""], len(batch)))
            grams.append([seen[name] for name in named] if full else [])
        given = torch.stack(answers, 1).cpu().numpy()  # (n, M)
        return self._counted(batch, given) | self._alike(grams, len(batch) if full else 0)

    def _counted(self, batch: Batch, given: NDArray[np.int64]) -> BatchResult:
        labels = batch.labels.cpu().numpy()
        right = given == labels[:, None]
        differ = np.flatnonzero((given != given[:, :1]).any(axis=1))
        kept = differ[: self._shown]
        return {
            "right": right.sum(axis=0),
            "same": (given[:, :, None] == given[:, None]).sum(axis=0),
            "only": (right[:, :, None] & ~right[:, None]).sum(axis=0),  # (M, M): row right, column wrong
            "disagreeing": np.array(len(differ)),
            "indices": batch.indices[kept],
            "labels": labels[kept],
            "answers": given[kept],
        }

    def _alike(self, grams: Sequence[Sequence[Tensor]], images: int) -> BatchResult:
        found: BatchResult = {"alike on": np.array(images)}
        for one, left in enumerate(self._layers):
            own = [dependence([layer], [layer])[0, 0] for layer in grams[one]]
            found[f"own {one}"] = np.array(own) if images else np.zeros(len(left))
            for other in range(one + 1, len(self._layers)):
                shape = (len(left), len(self._layers[other]))
                found[f"cross {one} {other}"] = dependence(grams[one], grams[other]) if images else np.zeros(shape)
        return found

    def merge(self, one: BatchResult, two: BatchResult) -> BatchResult:
        """Two parts together; of the disagreements the first ones."""
        listed = {"indices", "labels", "answers"}
        return {
            name: np.concatenate([one[name], two[name]])[: self._shown] if name in listed else one[name] + two[name]
            for name in one
        }


def layers_of(sketch: Trace) -> tuple[str, ...]:
    """Activations and the last step, evenly spread; all steps in a model without activations."""
    fit = [step for step in sketch.steps if len(step.shape) > 1]
    chosen = [step for step in fit if step.role == "activation" or step is fit[-1]]
    chosen = chosen if len(chosen) > 1 else fit
    spread = np.linspace(0, len(chosen) - 1, min(LAYERS, len(chosen))).round().astype(int)
    return tuple(chosen[at].name for at in spread)
