"""Mistakes that lint finds, each with its correction."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs

Arguments = Mapping[str, Any]


def shapes(count: int = 200, split: str = "train") -> cs.Dataset:
    return cs.load_dataset("shapes", split=split, size=count)


def net(*last: nn.Module, first: nn.Module | None = None, outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 12), nn.ReLU(), nn.Linear(12, outputs), *last]
    return nn.Sequential(*([first] if first else []), *layers).eval()


def stretched(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output, labels.float())


def fitting(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output[:, 0], labels.float())


def reds(order: tuple[int, ...] = (0, 1, 2), scale: float = 255.0) -> cs.Dataset:
    """Red and blue pictures; the channels in some order."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    images = rng.integers(0, 60, (100, 3, 5, 5)).astype(np.uint8)
    images[labels == 0, 0] += 150
    images[labels == 1, 2] += 150
    return cs.Dataset("reds", images[:, list(order)], labels, ("red", "blue"), cs.Preprocess(scale=scale))


class Reds(nn.Module):
    """Tells red from blue by their means, on images from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 0, -1], [-1, 0, 1]])[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = torch.tanh(3 * self.conv(x) - 0.0).mean((2, 3))
        return means


class Bright(nn.Module):
    """Tells bright from dark at a threshold, so that scale matters."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        level = self.gain * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-level, level], 1)


def brights(scale: float) -> cs.Dataset:
    labels = np.arange(80) % 2
    images = (np.random.default_rng(0).integers(0, 40, (80, 1, 6, 6)) + 30 + 150 * labels[:, None, None, None]).astype(
        np.uint8
    )
    return cs.Dataset("brights", images, labels, ("dark", "bright"), cs.Preprocess(scale=scale))


def trained_step(mode: bool, whole: bool = True) -> Callable[[nn.Module, Tensor, Tensor], None]:
    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        model.train(mode)
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters if whole else parameters[:2], lr=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        optimizer.step()

    return step


def cleared_step(how: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
    """A step with one optimizer for all calls, that clears its gradients in one of the ways that people write."""
    made: dict[nn.Module, torch.optim.Optimizer] = {}

    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        optimizer = made.setdefault(model, torch.optim.SGD(model.parameters(), lr=0.01))
        if how == "before":
            optimizer.zero_grad()
        elif how == "zeros":
            optimizer.zero_grad(set_to_none=False)
        parts = 3 if how == "small batches" else 1
        if parts > 1:
            model.zero_grad()
        for some, few in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            torch.autograd.backward(F.cross_entropy(model(some), few) / parts)
        optimizer.step()
        if how == "after":
            for parameter in model.parameters():
                parameter.grad = None

    return step


def killed() -> nn.Sequential:
    model = net()
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    linear.bias.data.fill_(-1e3)
    return model


class Idle(nn.Module):
    """Has a layer that forward does not use."""

    def __init__(self, use: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.spare, self.use = nn.Linear(784, 2), nn.Linear(2, 2), use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.flatten(1))
        return out + self.spare(out) if self.use else out


class Listed(nn.Module):
    """Has its layers in a list, or in a module list."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(784, 12), nn.Linear(12, 12)]
        self.layers = nn.ModuleList(layers) if registered else layers
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        out: Tensor = self.last(x)
        return out


def saturated(scale: float) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(784, 12)
    first.weight.data *= scale
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(12, 2)).eval()


def numbered(first: int) -> cs.Dataset:
    data = shapes()
    return cs.Dataset("numbered", data.images, data.labels, (f"class {first}", f"class {first + 1}"), data.preprocess)


def swapped(wrong: bool) -> nn.Sequential:
    """Area beyond a threshold, with the two outputs in the right or in the wrong order."""
    sign = -1.0 if wrong else 1.0
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    linear.weight.data = sign * torch.stack([-torch.ones(36), torch.ones(36)])
    linear.bias.data = sign * torch.tensor([18.0, -18.0])
    return model


def picture(shared: bool) -> Figure:
    figure = Figure()
    for k, limit in enumerate((1.0, 40.0)):
        values = np.linspace(0, limit, 16).reshape(4, 4)
        top = 40 if shared else limit
        figure.add_subplot(1, 2, k + 1).imshow(values, cmap="gray", vmin=0, vmax=top)
    return figure


PREWITT = np.array([[-1, 0, 1]] * 3)

MISTAKES: Mapping[str, tuple[Callable[[], Arguments], Callable[[], Arguments]]] = {
    "softmax-before-cross-entropy": (
        lambda: {"model": net(nn.Softmax(dim=1)), "data": shapes()},
        lambda: {"model": net(), "data": shapes()},
    ),
    "nll-without-log": (
        lambda: {"model": net(nn.Softmax(dim=1)), "data": shapes(), "loss": "nll"},
        lambda: {"model": net(nn.LogSoftmax(dim=1)), "data": shapes(), "loss": "nll"},
    ),
    "loss-and-target-shapes": (
        lambda: {"model": net(outputs=1), "data": shapes(), "loss": stretched},
        lambda: {"model": net(outputs=1), "data": shapes(), "loss": fitting},
    ),
    "outputs-and-classes": (
        lambda: {"model": net(outputs=5), "data": shapes()},
        lambda: {"model": net(outputs=2), "data": shapes()},
    ),
    "step-fails": (
        lambda: {"model": net(), "data": shapes(), "loss": lambda o, t: F.cross_entropy(o, t[:-1])},
        lambda: {"model": net(), "data": shapes(), "loss": lambda o, t: F.cross_entropy(o[:-1], t[:-1])},
    ),
    "missing-train": (
        lambda: {"model": net(first=nn.Dropout(0.5)), "data": shapes(), "step": trained_step(False)},
        lambda: {"model": net(first=nn.Dropout(0.5)), "data": shapes(), "step": trained_step(True)},
    ),
    "missing-eval": (
        lambda: {"model": net(first=nn.Dropout(0.5)).train(), "data": shapes()},
        lambda: {"model": net(first=nn.Dropout(0.5)).eval(), "data": shapes()},
    ),
    "batch-norm-in-training-mode": (
        lambda: {"model": net(first=nn.BatchNorm2d(1)).train(), "data": shapes()},
        lambda: {"model": net(first=nn.BatchNorm2d(1)).eval(), "data": shapes()},
    ),
    "missing-normalization": (
        lambda: {"model": Bright(), "data": brights(1.0)},
        lambda: {"model": Bright(), "data": brights(255.0)},
    ),
    "channel-order": (
        lambda: {"model": Reds(), "data": reds((2, 1, 0))},
        lambda: {"model": Reds(), "data": reds()},
    ),
    "channels-last": (
        lambda: {"model": Reds(), "data": (reds().scaled().transpose(0, 2, 3, 1), reds().labels)},
        lambda: {"model": Reds(), "data": (reds().scaled(), reds().labels)},
    ),
    "dead-layer": (lambda: {"model": killed(), "data": shapes()}, lambda: {"model": net(), "data": shapes()}),
    "saturated-layer": (
        lambda: {"model": saturated(1e3), "data": shapes()},
        lambda: {"model": saturated(1), "data": shapes()},
    ),
    "unused-parameters": (
        lambda: {"model": Idle(False), "data": shapes()},
        lambda: {"model": Idle(True), "data": shapes()},
    ),
    "unregistered-layers": (
        lambda: {"model": Listed(False), "data": shapes()},
        lambda: {"model": Listed(True), "data": shapes()},
    ),
    "nothing-changes": (
        lambda: {"model": net(), "data": shapes(), "step": trained_step(True, whole=False)},
        lambda: {"model": net(), "data": shapes(), "step": trained_step(True)},
    ),
    "missing-zero-grad": (
        lambda: {"model": net(), "data": shapes(), "step": cleared_step("never")},
        lambda: {"model": net(), "data": shapes(), "step": cleared_step("before")},
    ),
    "test-in-training": (
        lambda: {"model": net(), "data": shapes(), "test": shapes(40)},
        lambda: {"model": net(), "data": shapes(), "test": shapes(40, "test")},
    ),
    "class-titles": (
        lambda: {"model": net(), "data": numbered(1)},
        lambda: {"model": net(), "data": numbered(0)},
    ),
    "class-order": (
        lambda: {"model": swapped(True), "data": brights(255.0)},
        lambda: {"model": swapped(False), "data": brights(255.0)},
    ),
    "kernel-title": (
        lambda: {"kernels": {"Horizontal edges": PREWITT}},
        lambda: {"kernels": {"Horizontal edges": PREWITT.T, "vertical": PREWITT, "mine": PREWITT}},
    ),
    "own-scales": (lambda: {"figure": picture(False)}, lambda: {"figure": picture(True)}),
}
"""Check -> with the mistake, without it."""
