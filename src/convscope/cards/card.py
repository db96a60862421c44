"""Card: what travels with a model besides its weights: its name, its Preprocess, its class names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeGuard
from weakref import WeakKeyDictionary

from convscope.errors import UsageError
from convscope.preprocess import Preprocess
from convscope.type_checks import takes

if TYPE_CHECKING:
    from torch import nn

ATTRIBUTE = "convscope_card"
Form = Literal["picture", "signal", "volume", "tokens", "any"]
AXES: Mapping[str, int] = {"picture": 3, "signal": 2, "volume": 4, "tokens": 0, "any": 0}
"""Axes of one input of each form, without its batch axis; 0: an input is given to the model as it is."""
SHAPES: Mapping[str, str] = {"picture": "(C, H, W)", "signal": "(C, L)", "volume": "(C, D, H, W)"}
_BESIDE: "WeakKeyDictionary[object, Card]" = WeakKeyDictionary()
"""The cards of models that refuse attributes."""


@dataclass(frozen=True, slots=True)
class Card:
    """A model's expected input and the meaning of its outputs.

    >>> Card("net", classes=("square", "circle")).classes[1]
    'circle'
    """

    name: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: tuple[str, ...] = ()
    """Class names of the outputs, in order; empty if unknown."""
    source: str = ""
    """How to load it again: a name, `file.py:Class`, a run folder."""
    notes: tuple[str, ...] = ()
    """Notes on assumptions and repairs made while loading, reported to the user once."""
    fixed_size: bool = False
    """Whether the model is known to take no other size and channels than `preprocess` has."""
    size_found: bool = False
    """Whether the size was determined by trial runs, so that a picture of another accepted size keeps its own."""
    form: Form = "picture"
    """The form of one input: a picture (C, H, W), a signal (C, L), a volume (C, D, H, W), integers, or any array."""
    inputs: tuple[str, ...] = ()
    """The names of the inputs, where forward wants several."""

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON; `from_json` reads them back. Notes are not kept."""
        return {
            "name": self.name,
            "preprocess": self.preprocess.to_json(),
            "classes": list(self.classes),
            "source": self.source,
            "fixed_size": self.fixed_size,
            "size_found": self.size_found,
            "form": self.form,
            "inputs": list(self.inputs),
        }

    @classmethod
    @takes()
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        missing = [name for name in ("name", "preprocess", "classes") if name not in values]
        if missing:
            raise UsageError(f"a card has a name, a preprocess and classes; this one lacks {missing[0]}.")
        return cls(
            name=values["name"],
            preprocess=Preprocess.from_json(values["preprocess"]),
            classes=tuple(values["classes"]),
            source=values.get("source", ""),
            fixed_size=values.get("fixed_size", False),
            size_found=values.get("size_found", False),
            form=values.get("form", "picture"),
            inputs=tuple(values.get("inputs", ())),
        )


def is_module(model: object) -> "TypeGuard[nn.Module]":
    """Whether a model has layers; asked without loading torch."""
    return hasattr(model, "named_modules")


def attach(model: object, card: Card) -> None:
    """Let `card` travel with `model`: as a plain attribute that a copy keeps, or beside it where it refuses one."""
    try:
        object.__setattr__(model, ATTRIBUTE, card)
    except (AttributeError, TypeError):
        _BESIDE[model] = card


def attached(model: object) -> Card | None:
    """The card that `attach` gave a model, or None."""
    card = getattr(model, ATTRIBUTE, None)
    if isinstance(card, Card):
        return card
    try:
        return _BESIDE.get(model)
    except TypeError:  # what cannot be hashed or weakly referenced was given none
        return None


@dataclass(frozen=True, slots=True)
class InputLayer:
    """A layer that an image may enter first."""

    name: str
    """The name in `model.named_modules()`; empty for a bare layer."""
    kind: Literal["channels", "numbers"]
    """The quantity it fixes: the channels of a convolution, or the inputs of a linear layer."""
    count: int

    def __str__(self) -> str:
        unit = self.kind if self.count != 1 else self.kind[:-1]
        return f"{self.name or 'the layer'} takes {self.count:,} {unit}"


def input_layers(model: object) -> list[InputLayer]:
    """All convolutions of a model in the order of its definition, or its linear layers where it has none.

    Which of them really comes first only a forward pass can say; mostly it is the first.
    """
    convolutions, linear = [], []
    for name, module in model.named_modules() if is_module(model) else ():
        channels, numbers = getattr(module, "in_channels", None), getattr(module, "in_features", None)
        if isinstance(channels, int) and channels > 0 and hasattr(module, "kernel_size"):
            convolutions.append(InputLayer(name, "channels", channels))
        elif isinstance(numbers, int) and numbers > 0:
            linear.append(InputLayer(name, "numbers", numbers))
    return convolutions or linear


def square(layer: InputLayer, channels: int) -> int:
    """The edge of the square picture with `channels` channels that has the linear layer's number of inputs, or 0.

    >>> square(InputLayer("fc", "numbers", 784), 1), square(InputLayer("fc", "numbers", 784), 3)
    (28, 0)
    """
    edge = math.isqrt(layer.count // channels)
    return edge if channels * edge * edge == layer.count else 0


def expected_input(card: Card, layers: list[InputLayer]) -> str:
    """A description of the images that a model takes, for an error message.

    >>> expected_input(Card("net"), [InputLayer("conv1", "channels", 3)])
    'net takes images of 3 channels (conv1 takes 3 channels)'
    """
    size, channels = (
        card.preprocess.size,
        card.preprocess.channels or (layers[0].count if layers and layers[0].kind == "channels" else None),
    )
    first = f" ({layers[0]})" if layers else ""
    if size and channels:
        return f"{card.name} takes {channels}x{size[0]}x{size[1]}{first}"
    if channels:
        return f"{card.name} takes images of {channels} channel{'s' * (channels != 1)}{first}"
    return f"{card.name} takes images (C, H, W){first}"
