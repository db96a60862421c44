"""A study of the page in a real browser: the numbers of random cells of five networks are those of Python."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from browser import tab
from exploring import at, recorded, rows, visit, wander, written
from zoo import ZOO

NUMBERS = 200
"""Numbers on screen that are compared, of each network: 1,000 of all five."""
pytestmark = pytest.mark.study


class UNet(nn.Module):
    """Two levels down and up again, joined by their maps."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 10, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(10, 6, 2, stride=2), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.down(x))
        right = self.up(F.relu(self.middle(F.max_pool2d(left, 2))))
        result: Tensor = self.out(torch.cat([left, right], 1))
        return result


def resnet_50() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.ResNetForImageClassification(transformers.ResNetConfig())


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "mnist-small": (lambda: cs.load_model("mnist-small", seed=1), (1, 28, 28)),
    "simple-cnn": (lambda: cs.load_model("simple-cnn", seed=1), (1, 28, 28)),
    "ResNet-50": (resnet_50, (3, 96, 96)),
    "U-Net": (UNet, (3, 20, 28)),
    "ViT": (ZOO["ViT"].build, ZOO["ViT"].shape),
}


def value(text: str) -> float:
    return float(text.replace("−", "-"))


def titled(page: Any) -> list[list[str]]:
    """The titles of the cells of the grids on screen: names with numbers in full."""
    result: list[list[str]] = page.eval_on_selector_all(
        ".sum figure", "all => all.map(f => [...f.querySelectorAll('[data-cell]')].map(e => e.getAttribute('title')))"
    )
    return result


def expected(title: str, trace: cs.Trace, parameters: dict[str, Any]) -> float:
    """The number in Python that a title names: a cell of a step or of the input, or of a parameter."""
    name, cell, square = re.match(r"(\S+?) ?(?:\(([\d, ]*)\)|\[([\d, ]*)\]) = ", title).groups()  # type: ignore[union-attr]
    index = tuple(int(n) for n in (cell or square or "").split(",") if n.strip())
    if square is not None:
        return float(parameters[name][index])
    array = trace.inputs[name] if name in trace.inputs else trace[name].output
    return float(array[0][index] if array.ndim > len(index) else array[index])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_of_random_cells_are_those_of_python(chromium: Any, name: str) -> None:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model, image = build().eval(), torch.rand(shape)
    trace = cs.trace(model, image)
    parameters = {key: array.detach().numpy() for key, array in model.state_dict().items()}
    rng, compared = np.random.default_rng(0), 0
    with cs.open(model, image, port=0, browser=False) as explorer, tab(chromium) as page:
        visit(page, explorer, at(trace.steps[0].id, *[0] * (trace.steps[0].output.ndim - 1)))
        while compared < NUMBERS:
            step = trace.steps[int(rng.integers(len(trace.steps)))]
            cell = tuple(int(rng.integers(size)) for size in step.output.shape[1:])
            why = cs.explain(trace, step.name, cell)
            wander(page, at(step.id, *cell))
            page.wait_for_selector(f"[data-at='{step.id} {'.'.join(map(str, cell))}']")
            found, text = rows(page), written(why)
            assert recorded(page) == float(step.output[0][cell])
            assert page.get_attribute("[data-status]", "data-status") == why.status
            for label in ("calculated", "recorded by PyTorch", "difference"):
                assert f"{label} {found[label]}" in text, (step.name, cell, label)
            grids = titled(page)
            factors = [[0.0 if t == "padding" else value(t.rsplit(" = ", 1)[1]) for t in grid] for grid in grids]
            for grid, shown in zip(grids[:2], factors, strict=False):
                for title, number in zip(grid, shown, strict=True):
                    assert title == "padding" or np.float32(number) == np.float32(expected(title, trace, parameters))
            if len(factors) == 3:
                assert factors[2] == pytest.approx((np.array(factors[0]) * factors[1]).tolist(), rel=1e-12)
            compared += 4 + sum(map(len, grids))
        page.goto("about:blank")
