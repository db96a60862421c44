"""Networks: those of the tutorials, a small modern one, each short enough to read at a glance, and any list of blocks.

Uses torch; no data, no training. All take a batch (N, C, H, W) and return logits (N, classes), unless their
docstring says otherwise. Layers are attributes, one per step, so that a trace reads like the definition.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convscope.blocks.layers import Placed
from convscope.blocks.plan import plan
from convscope.blocks.reading import GivenValues
from convscope.blocks.templates import TEMPLATES


class Crosses(nn.Module):
    """One kernel and a mean: the number of the class, 0 for `+` and 1 for `x`. Shape (N, 1).

    With `published` it has the weights that the tutorial printed, rounded to four decimals.
    """

    def __init__(self, published: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, 3, padding=1)
        self.pool = nn.AvgPool2d(3)
        if published:
            rows = [[-1.5447, -0.6216, -1.7912], [-0.8678, 1.9076, -0.7804], [-1.2586, -0.4520, -1.7062]]
            self.conv1.weight.data = torch.tensor([[rows]])
            self.conv1.bias = nn.Parameter(torch.tensor([2.2435]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 3, 3) to (N, 1)."""
        x = self.conv1(x)  # (N, 1, 3, 3)
        x = self.pool(x)  # (N, 1, 1, 1)
        return torch.flatten(x, 1)


class Stripes(nn.Module):
    """Four fixed 4x4 stripe filters, ReLU and pooling: feature maps (N, 4, P, Q) of a grey image of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 4, bias=False)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        rising = torch.tensor([-1.0, -1.0, 1.0, 1.0]).expand(4, 4)
        self.conv1.weight = nn.Parameter(
            torch.stack([rising, -rising, rising.T, -rising.T])[:, None], requires_grad=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 4, (H - 3) // 2, (W - 3) // 2)."""
        maps: Tensor = self.pool(self.relu1(self.conv1(x)))
        return maps


class MLP512(nn.Module):
    """Two hidden layers with dropout, to compare a CNN with."""

    def __init__(
        self, hidden: int = 512, dropout: float = 0.2, channels: int = 1, size: int = 28, classes: int = 10
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * size * size, hidden)
        self.relu1 = nn.ReLU()
        self.dropout1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, hidden)
        self.relu2 = nn.ReLU()
        self.dropout2 = nn.Dropout(dropout)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) to (N, classes)."""
        x = torch.flatten(x, 1)
        x = self.dropout1(self.relu1(self.fc1(x)))  # (N, hidden)
        x = self.dropout2(self.relu2(self.fc2(x)))  # (N, hidden)
        logits: Tensor = self.fc3(x)
        return logits


class MNISTConvNet(nn.Module):
    """Two convolutions without pooling, three linear layers."""

    def __init__(
        self, kernels: tuple[int, int] = (10, 5), channels: int = 1, size: int = 28, classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, kernels[0], 3)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(kernels[0], kernels[1], 3)
        self.relu2 = nn.ReLU()
        self.fc1 = nn.Linear(kernels[1] * (size - 4) ** 2, 64)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(64, 32)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) to (N, classes)."""
        x = self.relu1(self.conv1(x))  # (N, 10, 26, 26)
        x = self.relu2(self.conv2(x))  # (N, 5, 24, 24)
        x = torch.flatten(x, 1)  # (N, 2880)
        x = self.relu3(self.fc1(x))
        x = self.relu4(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


class SimpleCNN(nn.Module):
    """One convolution, ReLU, pooling, one linear layer."""

    def __init__(self, kernels: int = 8, channels: int = 1, size: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, kernels, 3)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(kernels * ((size - 2) // 2) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) to (N, classes)."""
        x = self.pool(self.relu1(self.conv1(x)))  # (N, 8, 13, 13)
        x = torch.flatten(x, 1)  # (N, 1352)
        logits: Tensor = self.fc1(x)
        return logits


class ShapesMLP(nn.Module):
    """One hidden layer with tanh; with `softmax` it ends as the tutorial published it, in probabilities."""

    def __init__(
        self, hidden: int = 20, channels: int = 1, size: int = 28, classes: int = 2, softmax: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * size * size, hidden)
        self.tanh1 = nn.Tanh()
        self.fc2 = nn.Linear(hidden, classes)
        self.softmax = nn.Softmax(dim=1) if softmax else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) to (N, classes)."""
        x = torch.flatten(x, 1)
        x = self.tanh1(self.fc1(x))  # (N, 20)
        x = self.fc2(x)
        return x if self.softmax is None else self.softmax(x)


class ShapesCNN(nn.Module):
    """Twice convolution, tanh and pooling, then one linear layer; with `softmax` as published, in probabilities."""

    def __init__(
        self,
        kernels: tuple[int, int] = (8, 16),
        channels: int = 1,
        size: int = 28,
        classes: int = 2,
        softmax: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, kernels[0], 3, padding=1)
        self.tanh1 = nn.Tanh()
        self.pool1 = nn.MaxPool2d(3)
        self.conv2 = nn.Conv2d(kernels[0], kernels[1], 3, padding=1)
        self.tanh2 = nn.Tanh()
        self.pool2 = nn.MaxPool2d(3)
        self.fc = nn.Linear(kernels[1] * (size // 3 // 3) ** 2, classes)
        self.softmax = nn.Softmax(dim=1) if softmax else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) to (N, classes)."""
        x = self.pool1(self.tanh1(self.conv1(x)))  # (N, 8, 9, 9)
        x = self.pool2(self.tanh2(self.conv2(x)))  # (N, 16, 3, 3)
        x = torch.flatten(x, 1)  # (N, 144)
        x = self.fc(x)
        return x if self.softmax is None else self.softmax(x)


class MNISTSmall(nn.Module):
    """Three strided convolutions with batch norm: cheap per image, because they halve the maps at once.

    The first does not pad: what it loses is the border, which is empty around a digit. Tiny images keep theirs.
    """

    def __init__(
        self, kernels: tuple[int, int, int] = (16, 48, 64), channels: int = 1, size: int = 28, classes: int = 10
    ) -> None:
        super().__init__()
        padding = 0 if size > 8 else 2
        self.conv1 = nn.Conv2d(channels, kernels[0], 5, stride=2, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(kernels[0])
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(kernels[0], kernels[1], 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(kernels[1])
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(kernels[1], kernels[2], 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(kernels[2])
        self.relu3 = nn.ReLU()
        side = ((size + 2 * padding - 5) // 2 + 4) // 4  # an eighth of the size, about
        self.fc = nn.Linear(kernels[2] * side**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, size, size) to (N, classes)."""
        x = self.relu1(self.bn1(self.conv1(x)))  # (N, 16, 12, 12)
        x = self.relu2(self.bn2(self.conv2(x)))  # (N, 48, 6, 6)
        x = self.relu3(self.bn3(self.conv3(x)))  # (N, 64, 3, 3)
        x = torch.flatten(x, 1)  # (N, 576)
        logits: Tensor = self.fc(x)
        return logits


DEFAULT = "simple-cnn"
"""The template that is used without a list of blocks."""


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
    expected = {name: args[name] for name in ("shape", "classes") if name in args}
    blocks = args.get("blocks")
    result = plan(TEMPLATES[DEFAULT] if blocks is None else blocks, **expected)
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


def _fill(parameter: nn.Parameter, values: GivenValues) -> None:
    """Write typed-in numbers into a parameter."""
    if parameter.is_meta:
        return
    with torch.no_grad():
        parameter.copy_(torch.tensor(values.numbers).reshape(parameter.shape))
