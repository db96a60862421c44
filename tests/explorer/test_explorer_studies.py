"""Studies of the page in a real browser: the numbers of random cells, and random actions."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from browser import forgive, tab
from exploring import at, recorded, rows, settled, visit, wander, written
from zoo import ZOO

NUMBERS = 300
"""Numbers on screen that are compared for each network."""
ACTIONS, REST = 800, 40
"""Random actions, and after how many of them the page is left to rest and looked at."""

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


def monai_u_net() -> Any:
    nets = pytest.importorskip("monai.networks.nets")
    return nets.UNet(
        spatial_dims=2, in_channels=3, out_channels=2, channels=(8, 16, 32), strides=(2, 2), num_res_units=2
    )


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "mnist-small": (lambda: cs.load_model("mnist-small", seed=1), (1, 28, 28)),
    "simple-cnn": (lambda: cs.load_model("simple-cnn", seed=1), (1, 28, 28)),
    "ResNet-50": (resnet_50, (3, 96, 96)),
    "U-Net": (UNet, (3, 20, 28)),
    "U-Net of MONAI": (monai_u_net, (3, 32, 48)),
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
            sizes = step.output.shape[1:] if len(step.output) == 1 else step.output.shape  # tokens without a batch axis
            cell = tuple(int(rng.integers(size)) for size in sizes)
            why = cs.explain(trace, step.name, cell)
            wander(page, at(step.id, *cell))
            page.wait_for_selector(f"[data-at='{step.id} {'.'.join(map(str, cell))}']")
            found, text = rows(page), written(why)
            assert recorded(page) == float(step.output.reshape(sizes)[cell])
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


# Random actions

LISTED = """() => [...document.querySelectorAll(
  'button, a[href], select, input, canvas, summary, [data-cell], [tabindex="0"]')]
  .filter(e => !e.disabled && e.type !== 'file' && e.closest('[inert]') === null && e.checkVisibility()
    && !/^(Train|Save|Download|Upload|Copy)/.test(e.innerText?.trim() ?? ''))"""
KEYS = ("ArrowRight", "ArrowDown", "ArrowLeft", "Enter", "Space", "Escape", "Tab", "/", "p", "PageDown", "Home")


def act(page: Any, rng: np.random.Generator) -> str:
    """One random action; what it was."""
    kind = rng.choice(["element"] * 12 + ["key"] * 5 + ["back", "forward", "reload", "size", "scheme"])
    if kind == "key":
        page.keyboard.press(key := str(rng.choice(KEYS)))
        return f"key {key}"
    if kind == "back":
        page.go_back()
    elif kind == "forward":
        page.go_forward()
    elif kind == "reload":
        page.reload()
    elif kind == "size":
        page.set_viewport_size({"width": int(rng.choice([390, 800, 1280])), "height": 800})
    elif kind == "scheme":
        page.emulate_media(color_scheme=str(rng.choice(["light", "dark"])))
    else:
        share, x, y = map(float, rng.random(3))
        return str(page.evaluate(ACT.replace("LISTED", LISTED), [share, x, y]))
    return str(kind)


ACT = """([share, x, y]) => {
  const all = (LISTED)();
  const e = all[Math.floor(share * all.length)];
  if (e === undefined) return 'nothing';
  const box = e.getBoundingClientRect();
  const to = {bubbles: true, cancelable: true, isPrimary: true, pointerId: 1, button: 0,
    clientX: box.left + x * box.width, clientY: box.top + y * box.height};
  if (e.tagName === 'SELECT') {
    e.selectedIndex = Math.floor(x * e.options.length);
    e.dispatchEvent(new Event('change', {bubbles: true}));
  } else if (e.tagName === 'INPUT' && ['range', 'number', 'text'].includes(e.type)) {
    e.focus();
    e.value = e.type === 'text' ? ['1e39', 'abc', '-0.5', ''][Math.floor(x * 4)]
      : String(Math.round(Number(e.min || 0) + x * (Number(e.max || 9) - Number(e.min || 0))));
    e.dispatchEvent(new Event('input', {bubbles: true}));
    e.dispatchEvent(new Event('change', {bubbles: true}));
  } else {
    e.dispatchEvent(new PointerEvent('pointermove', to));
    e.dispatchEvent(new PointerEvent('pointerup', to));
    e.dispatchEvent(new MouseEvent('click', to));
  }
  return `${e.tagName} ${(e.innerText ?? '').trim().slice(0, 30) || e.ariaLabel || e.className}`;
}"""


@pytest.mark.parametrize("seed", [11, 12])
def test_random_actions_leave_a_page_that_is_whole(chromium: Any, shapes: Any, seed: int) -> None:
    """Nothing is written to the console, no number is NaN, nothing is wider than the window."""
    rng, done = np.random.default_rng(seed), list[str]()
    with tab(chromium) as page:
        forgive(page, "status of 4")  # a trace that was dropped from the cache, an image of another size
        visit(page, shapes)
        for number in range(ACTIONS // 2):
            if page.url == "about:blank":
                page.go_forward()
            done.append(act(page, rng))
            if number % REST == REST - 1:
                page.wait_for_load_state("networkidle")
                where = (seed, number, page.url, done[-REST:])
                page.locator("main").filter(has_text=re.compile(r"\S")).wait_for()  # the page's policy refuses `eval`
                assert not re.search(r"\bNaN\b|undefined", page.locator("body").inner_text()), where
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where
                if page.locator("section[aria-label='This number'] [data-status]").count():
                    settled(page)
        page.goto("about:blank")
