"""Catalog: every built-in network by its name, with the facts known without building it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from convscope.cards.card import Card
from convscope.data.catalog import DATASETS
from convscope.errors import ShapeError, UsageError
from convscope.models.network_arguments import check_arguments
from convscope.models.networks import (
    MLP512,
    Blocks,
    Crosses,
    MNISTConvNet,
    MNISTSmall,
    ShapesCNN,
    ShapesMLP,
    SimpleCNN,
    Stripes,
    check_blocks,
)
from convscope.preprocess import Preprocess

MNIST_FAMILY = ("mnist", "fashion-mnist", "kmnist")


PUBLISHED = (
    "these weights are rounded to four decimals, as the tutorial printed them: the damaged crosses give 0.3760 and "
    "1.1387, where the tutorial's unrounded weights gave 0.3761 and 1.1388."
)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A built-in network.

    >>> MODELS["simple-cnn"].input, MODELS["simple-cnn"].parameters
    ('1x28x28', 13610)
    """

    name: str
    build: Callable[..., nn.Module] = field(repr=False)
    """The class, possibly with non-default arguments."""
    tutorial: int
    """Number of its tutorial, 1 to 5 in the order of docs/lessons/tutorials.md; 0 for none."""
    shape: tuple[int, int, int]
    """(C, H, W) of its input with default arguments; H and W are 0 if any size works."""
    parameters: int
    """Number of parameters, including fixed ones."""
    summary: str
    data: tuple[str, ...] = ()
    """The data sets it is made for; `DEFAULT_MODELS` says which model each data set takes by itself."""
    checked: Callable[[Mapping[str, Any]], None] | None = field(default=None, repr=False)
    """Rejects arguments that no network can be built with, if their types and signs do not say enough."""

    @property
    def input(self) -> str:
        """The input's shape as text: 1x28x28, or 1xHxW if any size works."""
        channels, height, width = self.shape
        return f"{channels}x{height or 'H'}x{width or 'W'}"

    def card(self, args: Mapping[str, Any]) -> Card:
        """The network's input when it is built with `args`."""
        channels, height, width = args.get("shape", self.shape)
        size = (args.get("size", height), args.get("size", width)) if height else None
        shown = DATASETS[self.data[0]].preprocess if self.data else Preprocess()
        preprocess = replace(shown, size=size, channels=args.get("channels", channels))
        notes = (PUBLISHED,) if args.get("published") else ()
        classes = DATASETS[self.data[0]].classes if notes else ()  # the outputs of random weights mean nothing
        return Card(self.name, preprocess, classes=classes, source=self.name, fixed_size=height > 0, notes=notes)

    def fits(self, shape: tuple[int, int, int], classes: int) -> dict[str, object]:
        """The arguments that adapt the network to another image shape or number of classes.

        >>> MODELS["simple-cnn"].fits((3, 32, 32), 10)
        {'channels': 3, 'size': 32}

        Args:
            shape: (C, H, W) of the images.
            classes: How many classes there are.

        Raises:
            ShapeError: it takes square images only, and these are not.
        """
        parameters = inspect.signature(self.build).parameters
        channels, height, width = shape
        if "size" in parameters and height != width:
            raise ShapeError(
                f"{self.name} takes square images, not {height}x{width}; resize them, say to 28x28 (--size 28)."
            )
        arguments = {"channels": channels, "size": height, "classes": classes, "shape": shape}
        return {
            name: value for name, value in arguments.items() if name in parameters and parameters[name].default != value
        }

    def check(self, args: Mapping[str, object]) -> None:
        """Reject counts below 1, as all integer arguments of these networks are counts, and blocks that do not fit.

        Raises:
            UsageError: one is less than 1, or no network can be built of these blocks.
        """
        if self.checked is not None:
            check_arguments(self.name, self.build, args)
            self.checked(args)
        for name, value in args.items():
            for number in value if isinstance(value, tuple | list) else (value,):
                if isinstance(number, int) and not isinstance(number, bool) and number < 1 and name != "dropout":
                    raise UsageError(f"{name} of {self.name} must be at least 1, not {number}.")

    def to_json(self) -> dict[str, Any]:
        """As plain values, without its constructor."""
        return {
            "name": self.name,
            "tutorial": self.tutorial,
            "shape": list(self.shape),
            "parameters": self.parameters,
            "summary": self.summary,
            "data": list(self.data),
        }


_ENTRIES = (
    ModelEntry("crosses", Crosses, 1, (1, 3, 3), 10, "one 3x3 kernel and a mean: 0 for +, 1 for x", ("crosses",)),
    ModelEntry("stripes", Stripes, 2, (1, 0, 0), 64, "four fixed 4x4 stripe filters, ReLU and pooling"),
    ModelEntry("mlp-512", MLP512, 2, (1, 28, 28), 669_706, "two hidden layers of 512, with dropout", MNIST_FAMILY),
    ModelEntry(
        "mnist-convnet", MNISTConvNet, 3, (1, 28, 28), 187_349, "two convolutions, three linear layers", MNIST_FAMILY
    ),
    ModelEntry("simple-cnn", SimpleCNN, 4, (1, 28, 28), 13_610, "8 kernels, pooling, one linear layer", MNIST_FAMILY),
    ModelEntry("shapes-mlp", ShapesMLP, 5, (1, 28, 28), 15_742, "one hidden layer of 20, tanh", ("shapes",)),
    ModelEntry(
        "shapes-cnn-1",
        partial(ShapesCNN, kernels=(1, 1)),
        5,
        (1, 28, 28),
        40,
        "two convolutions of one kernel each, tanh, pooling",
        ("shapes",),
    ),
    ModelEntry(
        "shapes-cnn", ShapesCNN, 5, (1, 28, 28), 1_538, "two convolutions, 8 and 16 kernels, tanh, pooling", ("shapes",)
    ),
    ModelEntry(
        "color-cnn",
        partial(ShapesCNN, kernels=(2, 2), channels=3),
        5,
        (3, 28, 28),
        132,
        "two convolutions of two kernels each, for colour",
        ("color-shapes",),
    ),
    ModelEntry(
        "mnist-small",
        MNISTSmall,
        0,
        (1, 28, 28),
        40_986,
        "three strided convolutions with batch norm: 99 % on MNIST, fast",
        MNIST_FAMILY,
    ),
    ModelEntry(
        "blocks", Blocks, 0, (1, 28, 28), 13_610, "your own list of blocks, see cs.blocks", checked=check_blocks
    ),
)

MODELS: Mapping[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}

DEFAULT_MODELS: Mapping[str, str] = {
    "crosses": "crosses",
    "shapes": "shapes-cnn",
    "color-shapes": "color-cnn",
    "mnist": "simple-cnn",
    "fashion-mnist": "simple-cnn",
    "kmnist": "simple-cnn",
}
"""Data set -> the model that is trained on it by default."""
