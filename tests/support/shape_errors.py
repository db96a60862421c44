"""Twenty typical shape errors, each with the numbers that repair it, written before the code that proposes them.

They are the errors that forums are full of: a linear layer sized for other images, channels that do not follow from the
layer before, a forgotten flatten, skip connections of odd sizes. A repair is the size of an image, or a new value for
one setting of one layer, function or parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Repair = tuple[str, str, Any]
"""Layer, function or parameter; its setting; the value that fits."""


@dataclass(frozen=True)
class ShapeErrorCase:
    """A network, a size that it fails on, and what would fit."""

    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    """Asked for."""
    sizes: tuple[tuple[int, ...], ...] = ()
    """Sizes of which one must be proposed, where the network takes any."""
    repairs: tuple[Repair, ...] = ()
    """Changes of which one must be proposed, where a single number repairs the network."""


class Lambda(nn.Module):
    """A network whose forward is a function of itself and the input."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def residual(net: Any, x: Tensor) -> Tensor:
    x = net.conv1(x)
    result: Tensor = net.conv2(F.relu(x)) + x
    return result


def lenet(features: int = 16 * 5 * 5) -> nn.Module:
    """The network of PyTorch's first tutorial, for 32x32."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(net.conv1(x)), 2)
        x = F.max_pool2d(F.relu(net.conv2(x)), 2)
        x = torch.flatten(x, 1)
        result: Tensor = net.fc2(F.relu(net.fc1(x)))
        return result

    return Lambda(
        forward,
        conv1=nn.Conv2d(3, 6, 5),
        conv2=nn.Conv2d(6, 16, 5),
        fc1=nn.Linear(features, 120),
        fc2=nn.Linear(120, 10),
    )


def unet() -> nn.Module:
    """Two levels; the size must be a multiple of 4."""

    def forward(net: Any, x: Tensor) -> Tensor:
        a = F.relu(net.down1(x))
        b = F.relu(net.down2(F.max_pool2d(a, 2)))
        c = F.relu(net.bottom(F.max_pool2d(b, 2)))
        d = F.relu(net.merge2(torch.cat([net.up2(c), b], 1)))
        result: Tensor = net.merge1(torch.cat([net.up1(d), a], 1))
        return result

    return Lambda(
        forward,
        down1=nn.Conv2d(1, 8, 3, padding=1),
        down2=nn.Conv2d(8, 16, 3, padding=1),
        bottom=nn.Conv2d(16, 32, 3, padding=1),
        up2=nn.ConvTranspose2d(32, 16, 2, 2),
        merge2=nn.Conv2d(32, 16, 3, padding=1),
        up1=nn.ConvTranspose2d(16, 8, 2, 2),
        merge1=nn.Conv2d(16, 2, 1),
    )


class TinyViT(nn.Module):
    """Patches of 8, position embeddings for 32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.position = nn.Parameter(torch.zeros(1, 16, 24))
        self.layer = nn.TransformerEncoderLayer(24, 2, 32, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        result: Tensor = self.head(self.layer(x).mean(1))
        return result


CASES: dict[str, ShapeErrorCase] = {
    "linear sized for other images": ShapeErrorCase(
        lenet, (3, 64, 64), sizes=((3, 32, 32),), repairs=(("fc1", "in_features", 16 * 13 * 13),)
    ),
    "linear miscounted": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 14 * 14, 10)),
        (1, 28, 28),
        repairs=(("4", "in_features", 8 * 13 * 13),),
    ),
    "grey image, colour network": ShapeErrorCase(
        lenet, (1, 32, 32), sizes=((3, 32, 32),), repairs=(("conv1", "in_channels", 1),)
    ),
    "channels last": ShapeErrorCase(lenet, (32, 32, 3), sizes=((3, 32, 32),)),
    "channels do not follow": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(32, 64, 3)),
        (3, 32, 32),
        repairs=(("2", "in_channels", 16), ("0", "out_channels", 32)),
    ),
    "batch norm of another width": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(32), nn.ReLU()),
        (3, 32, 32),
        repairs=(("1", "num_features", 16), ("0", "out_channels", 32)),
    ),
    "group norm of another width": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(3, 24, 3), nn.GroupNorm(4, 16), nn.ReLU()),
        (3, 20, 20),
        repairs=(("1", "num_channels", 24), ("0", "out_channels", 16)),
    ),
    "layer norm over another size": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 30, 30])),
        (3, 28, 28),
        sizes=((3, 32, 32),),
        repairs=(("1", "normalized_shape", (8, 26, 26)),),
    ),
    "forgotten flatten": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Linear(4 * 13 * 13, 10)),
        (1, 28, 28),
        repairs=(("2", "flatten before", 4 * 13 * 13),),
    ),
    "view of another size": ShapeErrorCase(
        lambda: Lambda(
            lambda net, x: net.fc(F.relu(net.conv(x)).view(-1, 8 * 12 * 12)),
            conv=nn.Conv2d(1, 8, 5),
            fc=nn.Linear(8 * 12 * 12, 10),
        ),
        (1, 28, 30),
        sizes=((1, 16, 16),),
    ),
    "view miscounted": ShapeErrorCase(
        lambda: Lambda(
            lambda net, x: net.fc(F.max_pool2d(F.relu(net.conv(x)), 2).view(x.shape[0], 8 * 14 * 14)),
            conv=nn.Conv2d(1, 8, 5),
            fc=nn.Linear(8 * 12 * 12, 10),
        ),
        (1, 28, 28),
        repairs=(("view", "size", (1, 8 * 12 * 12)),),
    ),
    "second linear does not follow": ShapeErrorCase(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(120, 10)),
        (1, 28, 28),
        repairs=(("3", "in_features", 128), ("1", "out_features", 120)),
    ),
    "residual without padding": ShapeErrorCase(
        lambda: Lambda(
            residual,
            conv1=nn.Conv2d(3, 8, 3, padding=1),
            conv2=nn.Conv2d(8, 8, 3),
        ),
        (3, 32, 32),
        repairs=(("conv2", "padding", 1),),
    ),
    "residual with more channels": ShapeErrorCase(
        lambda: Lambda(
            residual,
            conv1=nn.Conv2d(3, 16, 3, padding=1),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
        ),
        (3, 32, 32),
        repairs=(("conv2", "out_channels", 16),),
    ),
    "U-Net on an odd size": ShapeErrorCase(unet, (1, 50, 50), sizes=((1, 52, 52), (1, 48, 48))),
    "too small for its pooling": ShapeErrorCase(
        lambda: nn.Sequential(*[layer for _ in range(4) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2))]),
        (3, 8, 8),
        sizes=((3, 16, 16),),
    ),
    "position embedding of another size": ShapeErrorCase(
        TinyViT, (3, 64, 64), sizes=((3, 32, 32),), repairs=(("position", "shape", (1, 64, 24)),)
    ),
    "transposed convolution does not follow": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv2d(1, 12, 3, 2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 3, 2)),
        (1, 33, 33),
        repairs=(("2", "in_channels", 12), ("0", "out_channels", 16)),
    ),
    "signal of another length": ShapeErrorCase(
        lambda: nn.Sequential(nn.Conv1d(2, 4, 5), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(4 * 24, 3)),
        (2, 128),
        repairs=(("3", "in_features", 4 * 31),),
    ),
    "functional linear": ShapeErrorCase(
        lambda: Lambda(
            lambda net, x: F.linear(F.adaptive_avg_pool2d(net.conv(x), 2).flatten(1), net.weight),
            conv=nn.Conv2d(3, 10, 3),
            weight=nn.Parameter(torch.zeros(7, 10)),
        ),
        (3, 24, 24),
        repairs=(("weight", "shape", (7, 40)),),
    ),
}
"""What went wrong -> the case."""
