"""Classes: which output of a model means which class of a data set, also where the two name them in another order."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from convscope.cards import card_of
from convscope.data.dataset import Dataset
from convscope.errors import DataError
from convscope.training.objectives import decide, logits_of


@dataclass(frozen=True, slots=True)
class Classes:
    """From a model's output to the classes of a data set."""

    count: int
    """How many classes the data set has."""
    order: tuple[int, ...] | None
    """For each output the class of the data set that it means; None: the outputs are in the data set's order."""

    def decide(self, output: object) -> Tensor:
        """The class that each output means, shape (N,).

        Raises:
            DataError: the model has fewer outputs than the data has classes.
            ShapeError: the model answers with no tensor.
        """
        logits = logits_of(output)
        if logits.dim() != 2 or 1 < logits.shape[1] < self.count:
            given = "x".join(map(str, logits.shape[1:]))
            raise DataError(
                f"the model answers with {given} numbers for an image, and the data has {self.count} classes."
            )
        best = decide(logits, self.count)
        return best if self.order is None else torch.tensor(self.order, device=best.device)[best]


def classes_of(model: nn.Module, data: Dataset) -> Classes:
    """What a model's outputs mean on a data set: by name where both name the same classes, else by number.

    >>> from convscope.cards import Card, attach
    >>> model = nn.Linear(1, 2)
    >>> attach(model, Card("net", classes=("circle", "square")))
    >>> data = Dataset("two", np.zeros((1, 1, 1, 1), np.uint8), np.array([0]), ("square", "circle"))
    >>> classes_of(model, data).decide(torch.tensor([[5.0, 0.0]])).tolist()
    [1]
    """
    names = card_of(model).classes
    same = set(names) == set(data.classes) and len(names) == len(data.classes)
    if not same or names == data.classes:
        return Classes(len(data.classes), None)
    return Classes(len(data.classes), tuple(int(np.flatnonzero(np.array(data.classes) == name)[0]) for name in names))
