"""Classes: which output of a model means which class of a data set, also where the two name them in another order."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset, matched_by_number
from convscope.errors import DataError
from convscope.training.outputs import check_classes, decide, scores_of


@dataclass(frozen=True, slots=True)
class Classes:
    """From a model's output to the classes of a data set."""

    count: int
    """How many classes the data set has."""
    order: tuple[int, ...] | None
    """For each output the class of the data set that it means, -1 for one that it does not have; None: the outputs are
    in the data set's order."""
    notes: tuple[str, ...] = ()
    """What to know before relying on an answer."""

    def decide(self, output: object, images: int) -> Tensor:
        """The class that the output for each of some images means, shape (N,); -1 for one that the data does not have.

        Raises:
            ShapeError: the model answers with something else than scores, or with fewer than the data has classes.
        """
        scores = scores_of(output, images)
        check_classes(scores, self.count)
        if self.order is None:
            return decide(scores, self.count)
        best = decide(scores, len(self.order))
        return torch.tensor(self.order, device=best.device)[best]


def classes_of(model: nn.Module, data: Dataset) -> Classes:
    """What a model's outputs mean on a data set: by name where it knows the data's classes, else by number.

    >>> import numpy as np
    >>> from convscope.cards.card import Card, attach
    >>> model = nn.Linear(1, 3)
    >>> attach(model, Card("net", classes=("circle", "cross", "square")))
    >>> data = Dataset("two", np.zeros((1, 1, 1, 1), np.uint8), np.array([0]), ("square", "circle"))
    >>> classes_of(model, data).decide(torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.0, 5.0], [0.0, 5.0, 0.0]]), 3).tolist()
    [1, 0, -1]

    Raises:
        DataError: the data set has classes that the model does not know, and others that it knows.
    """
    card = card_of(model)
    if not card.classes or card.classes == data.classes:
        return Classes(len(data.classes), None)
    unknown = [name for name in data.classes if name not in card.classes]
    if len(unknown) == len(data.classes) == len(card.classes):
        return Classes(len(data.classes), None, matched_by_number(data, card.classes, card.name))
    if unknown:
        raise DataError(
            f"{data.name} has the class {unknown[0]!r}, which {card.name} does not know; it knows "
            f"{shortened(card.classes)}."
        )
    order = [data.classes.index(name) if name in data.classes else -1 for name in card.classes]
    return Classes(len(data.classes), tuple(order))


def notes_of(classes: Sequence[Classes]) -> tuple[str, ...]:
    """The notes on the classes of several models, without repetitions.

    >>> notes_of([Classes(2, None, ("by number",)), Classes(2, None), Classes(2, None, ("by number",))])
    ('by number',)
    """
    return tuple(dict.fromkeys(note for each in classes for note in each.notes))


def shortened(names: Sequence[str], most: int = 12) -> str:
    """Names in a sentence, the first of them where they are many.

    >>> shortened("abcd", most=2)
    'a, b and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
