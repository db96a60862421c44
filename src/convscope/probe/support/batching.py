"""Feeding: a data set's raw images as a model takes them, a batch at a time, never the whole set at once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.cards.card_inference import at_size, card_of
from convscope.data.dataset import Dataset
from convscope.images import Array, Preprocess
from convscope.inputs.pictures import check_input
from convscope.models.lazy_layers import give_shapes

MOST_IMAGES = 256
MOST_BYTES = 16 << 20
"""The most images in a batch, and the most bytes that they take: sizes at which small networks run fastest."""


def batch_size(data: Dataset) -> int:
    """How many images a batch has: a function of the images' shape alone, so that every process cuts the same ones.

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


def pictures(data: Dataset, model: nn.Module) -> Callable[[int], NDArray[np.float32]]:
    """A function that gives an image of a data set as this model is shown it, but from 0 to 1: shape (C, H, W)."""
    feed, expected = feeder(data, model), _expected(data, model)
    return lambda index: expected.restore(feed(data.images[index : index + 1])[0].numpy())


def _expected(data: Dataset, model: nn.Module) -> Preprocess:
    """What the model's card says; where it says nothing of values, the data set's own."""
    said = at_size(model, card_of(model), data.shape[1:])
    if replace(said, size=None, channels=None) == Preprocess():
        said = replace(data.preprocess, size=said.size, channels=said.channels)
    return replace(said, background=None) if said.background == data.preprocess.background else said


def kind_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a model's numbers are, and of which type; the CPU and float32 for one without parameters."""
    first: Any = next(model.parameters(), torch.empty(0))
    return first.device, first.dtype
