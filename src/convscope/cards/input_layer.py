"""Layers: what a model's layers say about the images it takes, asked by attributes; no torch."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from convscope.cards.card import Card


@dataclass(frozen=True, slots=True)
class InputLayer:
    """A layer that an image may enter first."""

    name: str
    """As in `model.named_modules()`; empty for a bare layer."""
    kind: Literal["channels", "numbers"]
    """What it counts: the channels of a convolution, or the numbers that a linear layer takes."""
    count: int

    def __str__(self) -> str:
        unit = self.kind if self.count != 1 else self.kind[:-1]
        return f"{self.name or 'the layer'} takes {self.count:,} {unit}"


def input_layers(model: Any) -> list[InputLayer]:
    """All convolutions of a model in the order of its definition, or its linear layers where it has none.

    Which of them really comes first only a forward pass can say; mostly it is the first.
    """
    convolutions, linear = [], []
    for name, module in model.named_modules() if hasattr(model, "named_modules") else ():
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
    """What images a model takes, in words, for an error message.

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
