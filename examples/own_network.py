"""Your own network on your own arrays: train it, ask it, prove every number it computes.

python examples/own_network.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import convscope as cs


class Net(nn.Module):
    """Bright on the left, or bright on the right?"""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.fc = nn.Linear(2 * 8 * 8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) to (N, 2)."""
        maps = torch.relu(self.conv(x)) + x  # a skip connection
        logits: torch.Tensor = self.fc(torch.flatten(maps, 1))
        return logits


random = np.random.default_rng(0)
images = random.random((200, 1, 8, 8), np.float32)
labels = random.integers(0, 2, 200)
images[labels == 0, ..., :4] += 0.5
images[labels == 1, ..., 4:] += 0.5

torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    run = cs.train((images, labels), Net(), out=Path(folder) / "run", epochs=20)
    print(f"accuracy {run.metrics['accuracy']:.1%}")

trace = cs.trace(run.model, images[0])
for step in trace.steps:
    print(f"{step.name:10} {step.op:12} {step.shape}")
print()
print(cs.explain(trace, "fc", (0,)))
print()
print(cs.verify(trace).summary())
