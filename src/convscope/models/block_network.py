"""Block network: the network that a list of blocks describes. The list is data, checked before any layer is made."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from convscope.blocks.layers import Placed
from convscope.blocks.plan import plan
from convscope.blocks.reading import Values
from convscope.blocks.templates import TEMPLATES

DEFAULT = "simple-cnn"
"""The template of a network without a list."""


class Blocks(nn.Sequential):
    """A network made of blocks, one layer each, by default those of simple-cnn.

    >>> Blocks([{"block": "flatten"}, {"block": "linear"}], shape=(1, 3, 3), classes=2).fc1
    Linear(in_features=9, out_features=2, bias=True)

    Args:
        blocks: Plain values as `cs.blocks.template` returns them.
        shape: (C, H, W) of its images.
        classes: The units of a linear layer without a number.

    Raises:
        UsageError: a block cannot be built.
    """

    def __init__(
        self,
        blocks: Sequence[Mapping[str, Any]] | None = None,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
    ) -> None:
        layers = plan(TEMPLATES[DEFAULT] if blocks is None else blocks, shape, classes).layers
        super().__init__(OrderedDict((name, LAYERS[placed.block.kind.name](placed)) for name, placed in layers))
        for name, placed in layers:
            for parameter, values in placed.block.values.items():
                _fill(self.get_parameter(f"{name}.{parameter}"), values)


def check_blocks(args: Mapping[str, Any]) -> None:
    """Reject arguments of `Blocks` that describe no network, before anything is built.

    Raises:
        UsageError: a block cannot be built, or an argument is of another type.
    """
    wanted = {name: args[name] for name in ("shape", "classes") if name in args}
    blocks = args.get("blocks")
    result = plan(TEMPLATES[DEFAULT] if blocks is None else blocks, **wanted)
    _ = result.layers


def _convolution(placed: Placed) -> nn.Module:
    return nn.Conv2d(
        placed.shape[0],
        placed["kernels"],
        placed["size"],
        stride=placed["stride"],
        padding=placed["padding"],
        bias=placed["bias"],
    )


def _batch_norm(placed: Placed) -> nn.Module:
    return (nn.BatchNorm2d if len(placed.shape) == 3 else nn.BatchNorm1d)(placed.shape[0])


def _plain(layer: type[nn.Module]) -> Callable[[Placed], nn.Module]:
    """A layer without settings."""

    def build(_: Placed) -> nn.Module:
        return layer()

    return build


LAYERS: Mapping[str, Callable[[Placed], nn.Module]] = {
    "conv": _convolution,
    "max-pool": lambda placed: nn.MaxPool2d(placed["size"], placed["stride"], placed["padding"]),
    "avg-pool": lambda placed: nn.AvgPool2d(placed["size"], placed["stride"], placed["padding"]),
    "relu": _plain(nn.ReLU),
    "leaky-relu": lambda placed: nn.LeakyReLU(placed["slope"]),
    "tanh": _plain(nn.Tanh),
    "sigmoid": _plain(nn.Sigmoid),
    "batch-norm": _batch_norm,
    "dropout": lambda placed: nn.Dropout(placed["p"]),
    "flatten": _plain(nn.Flatten),
    "linear": lambda placed: nn.Linear(placed.shape[0], placed.units, bias=placed["bias"]),
}
"""Kind of block -> its layer."""


def _fill(parameter: nn.Parameter, values: Values) -> None:
    """Write numbers given by hand into a parameter."""
    if parameter.is_meta:
        return
    with torch.no_grad():
        parameter.copy_(torch.tensor(values.numbers).reshape(parameter.shape))
