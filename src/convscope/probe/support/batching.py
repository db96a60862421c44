"""Batching: models and data as named, images in batches as a model takes them, and which output means which class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.cards.card_inference import at_size, card_of
from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset, matched_by_number
from convscope.errors import DataError
from convscope.escaping import first_few
from convscope.inputs.pictures import check_input
from convscope.models.preparation import give_shapes
from convscope.preprocess import Preprocess
from convscope.training.outputs import check_classes, decide, scores_of
from convscope.typing import Array


def as_data(data: Dataset | str, split: str) -> Dataset:
    """A data set; of one that is given by name, this split.

    >>> as_data("shapes", "test").split
    'test'
    """
    return load_dataset(data, split=split) if isinstance(data, str) else data


MOST_IMAGES = 256
MOST_BYTES = 16 << 20
"""The most images in a batch, and the most bytes that they take: sizes at which small networks run fastest."""


def batch_size(data: Dataset) -> int:
    """The batch size, a function of the images' shape alone, so that every process cuts the same batches.

    >>> from convscope.data.catalog import load_dataset
    >>> batch_size(load_dataset("shapes", split="test"))
    256
    """
    return max(1, min(MOST_IMAGES, MOST_BYTES // (4 * int(np.prod(data.shape)))))


def feeder(data: Dataset, model: nn.Module) -> Callable[[Array], Tensor]:
    """A function from raw images of a data set to what this model takes: float32, shape (n, C, H, W).

    A model whose card says what it expects gets that; any other gets the images as the data set prepares them.

    Raises:
        DataError: no image of the data set can be read.
        ShapeError: the model cannot take images of this shape.
    """
    expected = _expected(data, model)
    channels, height, width = data.shape
    fits = expected.size in {None, (height, width)} and expected.channels in {None, channels}
    plain = fits and not expected.background and (not expected.binary or data.preprocess.binary)
    scaled = replace(expected, scale=data.preprocess.scale)

    def fed(raw: Array) -> Tensor:
        if plain:
            return torch.from_numpy(scaled.normalize(raw))
        return torch.from_numpy(np.stack([expected.apply(image, data.preprocess.scale) for image in raw]))

    first = fed(data.first())
    check_input(model, first[0].numpy())
    give_shapes(model, [first])
    return fed


def first_of(data: Dataset, model: nn.Module, count: int = 1) -> Tensor:
    """The first images that can be read, at most `count` of them, as this model takes them: (n, C, H, W).

    Raises:
        DataError: no image of the data set can be read.
        ShapeError: the model cannot take images of this shape.
    """
    return feeder(data, model)(data.first(count))


def balanced(data: Dataset, count: int, seed: int) -> NDArray[np.int64]:
    """Indices of `count` images, balanced over the classes and drawn by the seed.

    >>> data = Dataset("six", np.zeros((6, 1, 1, 1), np.uint8), np.array([0, 0, 0, 0, 1, 1]), ("a", "b"))
    >>> data.labels[balanced(data, 4, 0)].tolist()
    [0, 0, 1, 1]
    """
    order = np.random.default_rng(seed).permutation(len(data))
    turn = np.zeros(len(data), np.int64)  # the how manieth of its class an image is, in this order
    for label in np.unique(data.labels):
        members = np.flatnonzero(data.labels[order] == label)
        turn[members] = np.arange(len(members))
    return np.sort(order[np.argsort(turn, kind="stable")][:count])


def pictures(data: Dataset, model: nn.Module) -> Callable[[int], NDArray[np.float32]]:
    """A function that gives an image of a data set as this model is shown it, but from 0 to 1: shape (C, H, W)."""
    feed, expected = feeder(data, model), _expected(data, model)
    return lambda index: expected.restore(feed(data.images[index : index + 1])[0].numpy())


def _expected(data: Dataset, model: nn.Module) -> Preprocess:
    """The preprocessing of the model's card, with the data set's value range if the card has none."""
    preprocess = at_size(model, card_of(model), data.shape[1:])
    if replace(preprocess, size=None, channels=None) == Preprocess():
        preprocess = replace(data.preprocess, size=preprocess.size, channels=preprocess.channels)
    return replace(preprocess, background=None) if preprocess.background == data.preprocess.background else preprocess


def kind_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """A model's device and type; the CPU and float32 for a model without parameters."""
    first: Tensor = next(model.parameters(), torch.empty(0))
    return first.device, first.dtype


@dataclass(frozen=True, slots=True)
class Classes:
    """From a model's output to the classes of a data set."""

    count: int
    """The number of classes of the data set."""
    order: tuple[int, ...] | None
    """For each output the class of the data set that it means, -1 for one that it does not have; None: the outputs are
    in the data set's order."""
    notes: tuple[str, ...] = ()
    """Caveats of an answer."""

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
    """The classes of a data set that a model's outputs mean: by name if both name their classes, else by number.

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
            f"{first_few(card.classes, 12)}."
        )
    order = [data.classes.index(name) if name in data.classes else -1 for name in card.classes]
    return Classes(len(data.classes), tuple(order))


def notes_of(classes: Sequence[Classes]) -> tuple[str, ...]:
    """The notes on the classes of several models, without repetitions.

    >>> notes_of([Classes(2, None, ("by number",)), Classes(2, None), Classes(2, None, ("by number",))])
    ('by number',)
    """
    return tuple(dict.fromkeys(note for model_classes in classes for note in model_classes.notes))
