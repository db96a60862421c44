"""Networks whose numbers the tests of explanations know: the crosses of the tutorial, and a small one with windows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = [[-1.5447, -0.6216, -1.7912], [-0.8678, 1.9076, -0.7804], [-1.2586, -0.4520, -1.7062]]


class Crosses(nn.Module):
    """The first tutorial's network, with its published numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(3)
        self.conv.load_state_dict({"weight": torch.tensor([[KERNEL]]), "bias": torch.tensor([2.2435])})

    def forward(self, image: Tensor) -> Any:
        return self.pool(self.conv(image))


class Small(nn.Module):
    """Convolution, normalization, pooling, a branch, in-place and joined parts: piecewise linear throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2, padding_mode="circular")
        self.scale = nn.Parameter(torch.randn(1, 8, 1, 1))
        self.fc = nn.Linear(8 * 16, 5)
        self.bn1.load_state_dict(
            {
                "running_mean": torch.randn(8),
                "running_var": torch.rand(8) + 0.5,
                "num_batches_tracked": torch.tensor(1),
            },
            strict=False,
        )

    def forward(self, x: Tensor) -> Any:
        y = F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), 2)
        z = self.conv2(y) + y * self.scale
        z = torch.cat([z[:, :4].clamp(-1, 1), F.hardtanh(z[:, 4:]) + 0.3], 1)
        z = F.interpolate(F.avg_pool2d(F.pad(z, (1, 1, 1, 1), value=0.7), 2, 1), size=(4, 4), mode="bilinear")
        z[:, :, 0] = z[:, :, 1] * 2
        return self.fc(z.flatten(1))
