"""Model inputs: what a model is called with, be it one picture, a volume, a signal, or several inputs by name.

Uses pictures and cards, and how each input is prepared; no torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from convscope.cards.card import SHAPES, Card, is_module
from convscope.cards.card_inference import vector_length
from convscope.errors import UsageError
from convscope.inputs.arrays import side_by_side
from convscope.inputs.pictures import Prepared, card_for, prepare, random_image
from convscope.type_checks import takes
from convscope.typing import Array

ModelInput: TypeAlias = ArrayLike | Sequence[object] | Mapping[str, object]
"""What a model is called with: an array, or a tuple, list or mapping of them."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelInputs:
    """What `cs.trace` takes, and how a person sees it."""

    name: str
    """Where it comes from: a file's name, or `left=a.png, right=b.npy`."""
    value: ModelInput = field(repr=False)
    """Arrays of pictures are prepared."""
    picture: NDArray[np.float32] = field(repr=False)
    """Shape (C, H, W), from 0 to 1: the picture, or else all planes side by side, each from its least to its most."""
    notes: tuple[str, ...] = ()
    """What was done to it, in words."""
    prepared: Prepared | None = None
    """The picture, where it is a single one."""

    def described(self, card: Card) -> str:
        """What a page says of an input that is not one picture."""
        kind = f"a {card.form} {SHAPES[card.form]}" if card.form in {"signal", "volume"} else "not one picture"
        return (
            f"the input is {kind}, of {shapes_of(self.value)}; its planes are shown side by side, and it cannot be "
            "painted or changed here"
        )


@takes()
def prepare_inputs(source: object, like: object = None, *, data_dir: str | Path | None = None) -> ModelInputs:
    """Load everything that a model is called with, each input as `load_image` does.

    >>> prepare_inputs({"left": np.zeros((3, 4, 5), "f"), "right": np.ones((3, 4, 5), "f")}).picture.shape
    (1, 9, 17)

    Args:
        source: One input as `load_image` takes it; a tuple of inputs by position, a mapping of inputs by name, or a
            list for one input that is a list. Numbers and None in them are passed on.
        like: What the input is for: a model, a run or a card, as `load_image` takes it.
        data_dir: The folder searched first for data files, as `load_image` takes it.

    Raises:
        ImageError: no such file, or no image.
        UsageError: one input for a model that takes several, or no such data set, split or image.
        ShapeError: an array of a shape or type that is not expected.
    """
    card = None if like is None else card_for(like)
    if not isinstance(source, Mapping | tuple | list):
        if card is not None and card.inputs:
            expected_names = ", ".join(card.inputs)
            raise UsageError(
                f"{card.name} takes several inputs, {expected_names}; give each by its name: "
                f"--input {card.inputs[0]}=FILE on the command line, {{{card.inputs[0]!r}: ...}} in Python."
            )
        prepared = prepare(source, like, data_dir=data_dir)
        if prepared.array.ndim == 3 and (card is None or card.form == "picture"):
            return ModelInputs(prepared.name, prepared.array, prepared.picture, prepared.notes, prepared)
        return ModelInputs(prepared.name, prepared.array, prepared.picture, prepared.notes)
    names: list[str] = []
    notes: list[str] = []
    value = _prepared(source, "", like, data_dir, (names, notes))
    assert isinstance(value, dict | tuple | list)  # as is what it was made from
    return ModelInputs(", ".join(names), value, side_by_side(list(_arrays(value))), tuple(notes))


@takes()
def random_inputs(like: object, *, seed: int = 0) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
    """Noise in the shape that a model expects, for each of its inputs: the default input of a trace.

    A model that begins with a linear layer and cannot take a picture gets a vector of as many numbers.

    >>> random_inputs(Card("net", form="signal")).shape
    (3, 64)

    Args:
        like: A model, Card, Dataset or Preprocess.
        seed: Of the noise.

    Returns:
        An array, or a mapping of arrays by the names of the inputs.

    Raises:
        UsageError: nothing says what the model takes.
    """
    card = None if like is None else card_for(like)
    length = vector_length(like) if is_module(like) else None
    if length is not None:
        return np.random.default_rng(int(seed)).random(length, np.float32)
    if card is None or not card.inputs:
        return random_image(like, seed=seed)
    return {name: random_image(like, seed=seed + i) for i, name in enumerate(card.inputs)}


def shapes_of(value: object) -> str:
    """The shapes of all arrays, in words.

    >>> shapes_of((np.zeros((1, 4, 8, 8)), np.zeros(5)))
    '1x4x8x8 and 5'
    """
    return " and ".join("x".join(map(str, array.shape)) or "one number" for array in _arrays(value))


def _prepared(
    source: object, key: str, like: object, data_dir: str | Path | None, report: tuple[list[str], list[str]]
) -> object:
    """The same structure, each input in it prepared; names and notes are added to `report`."""
    if isinstance(source, Mapping):
        return {k: _prepared(v, f"{key}[{k}]" if key else str(k), like, data_dir, report) for k, v in source.items()}
    if isinstance(source, tuple | list):
        items = [_prepared(v, f"{key}[{i}]", like, data_dir, report) for i, v in enumerate(source)]
        return tuple(items) if isinstance(source, tuple) else items
    if not isinstance(source, str | Path | Image.Image | np.ndarray) and not hasattr(source, "detach"):
        return source
    prepared = prepare(source, like, data_dir=data_dir, loose=True)
    report[0].append(f"{key.strip('[]')}={prepared.name}")
    report[1].extend(f"{key.strip('[]')}: {note}" for note in prepared.notes)
    return prepared.array


def _arrays(value: object) -> Iterator[Array]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _arrays(item)
