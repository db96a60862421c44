"""Figures as tests see them: networks to draw, what is written and drawn where, and whether it can be read."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.cards.card import Card, attach
from convscope.data.dataset import Dataset


class Small(nn.Module):
    """A tutorial-sized network with named classes."""

    def __init__(self, kernels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, kernels, 3, padding=1)
        self.pool = nn.MaxPool2d(3)
        self.fc = nn.Linear(kernels * 9, 2)
        attach(self, Card("small", classes=("square", "circle")))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]  # nn.Module is called without a type


class Residual(nn.Module):
    """Two blocks that go round themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 2, 3, padding=1)
        self.b = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        return torch.relu(self.b(torch.relu(first)) + first)


def image(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, np.float32)


def data(classes: int = 2, count: int = 12, shape: tuple[int, int, int] = (1, 9, 9)) -> Dataset:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Dataset("toy", images, np.arange(count) % classes, tuple(f"class {k}" for k in range(classes)), split="test")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def drawn(figure: Figure, name: str) -> Any:
    """The one picture of that name."""
    (result,) = [picture for picture in figure.axes[0].images if picture.get_label() == name]
    return result


def named(figure: Figure, start: str) -> list[Any]:
    return [picture for picture in figure.axes[0].images if str(picture.get_label()).startswith(start)]


def cells(figure: Figure) -> set[str]:
    return set(texts(figure))


def events(epochs: int = 3, **more: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        at = {"epoch": epoch, "step": epoch * 10, "seconds": epoch * 1.5}
        result.append({"event": "train", **at, "step": epoch * 10 - 5, "loss": 2 / epoch, "accuracy": 0.5, "lr": 0.1})
        test = {"test_loss": 1.5 / epoch, "test_accuracy": 1 - 0.5 / epoch}
        result.append({"event": "epoch", **at, "loss": 1 / epoch, "accuracy": 1 - 0.4 / epoch, **test} | more)
    return result


def assert_legible(figure: Figure) -> None:
    """Every text that is drawn lies on the page, and no two touch."""
    shown: list[Text] = []
    draw = Text.draw

    def seen(self: Text, renderer: Any) -> None:
        if self.get_text().strip() and self.get_visible():
            shown.append(self)
        draw(self, renderer)

    canvas: Any = FigureCanvasAgg(figure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", seen)
        canvas.draw()
    renderer = canvas.get_renderer()
    boxes = np.array([t.get_window_extent(renderer).extents for t in shown])  # (N, 4): left, bottom, right, top
    page = figure.bbox.extents
    for text, box in zip(shown, boxes, strict=True):
        assert (box[:2] >= page[:2]).all(), text.get_text()
        assert (box[2:] <= page[2:]).all(), text.get_text()
    wide = np.minimum(boxes[:, None, 2], boxes[None, :, 2]) - np.maximum(boxes[:, None, 0], boxes[None, :, 0])
    high = np.minimum(boxes[:, None, 3], boxes[None, :, 3]) - np.maximum(boxes[:, None, 1], boxes[None, :, 1])
    small = np.minimum(boxes[:, 3] - boxes[:, 1], 1e9)
    both = (wide > 1) & (high > 0.35 * np.minimum(small[:, None], small[None, :]))  # boxes hold empty rows above x
    np.fill_diagonal(both, val=False)
    touching = [(shown[i].get_text(), shown[j].get_text()) for i, j in np.argwhere(both) if i < j]
    assert not touching, touching
