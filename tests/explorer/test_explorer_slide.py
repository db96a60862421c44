"""The kernel that slides, and the curves of activations, in a real browser: each number is that of Python."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from exploring import drag, eventually, settled, state, visit

READY = ".slide .middle[aria-busy=false] .number"
MAPS = ".slide canvas"


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def cell(page: Any) -> tuple[int, ...]:
    """The cell that the address has."""
    return tuple(map(int, state(page)["cell"].split(".")))


def shown(page: Any) -> tuple[tuple[int, ...], float]:
    """The cell on screen, and its number."""
    page.wait_for_selector(READY)
    result, name = page.locator(".slide .number").inner_text().split(maxsplit=1)
    return tuple(map(int, re.findall(r"\d+", name.split("(")[1]))), number(result)


def filled(page: Any) -> int:
    return int(page.locator(".slide .controls span.muted").inner_text().split()[0])


def press(page: Any, which: int, row: float, column: float, cells: int) -> None:
    """Press on a map, at the middle of a cell, and let go."""
    drag(page, page.locator(MAPS).nth(which), ((column + 0.5) / cells, (row + 0.5) / cells))


def test_played_it_fills_the_output_with_the_numbers_of_the_pass(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, "?step=conv2&channel=5&cell=5.0.0")
    page.get_by_role("button", name="▶ Slide the kernel").click()
    page.get_by_label("Speed").fill("-60")
    page.get_by_role("button", name="▶ Play").click()
    page.get_by_text(re.compile(r"^(1[2-9]|[2-9]\d) of 81 cells")).wait_for()
    page.locator(".slide h2").click()
    page.keyboard.press("Space")
    page.get_by_role("button", name="▶ Play").wait_for()
    eventually(lambda: shown(page)[0] == cell(page), True)
    place, value = shown(page)
    assert value == pytest.approx(float(traced["conv2"].output[0][place]), abs=6e-5)
    last = page.locator(".slide .lines tr", has_text="calculated").locator("td.mono").all_inner_texts()
    assert number("".join(last)) == value
    page.keyboard.press("Escape")
    settled(page)
    assert cell(page) == place


def test_the_products_grow_and_their_sum_with_them(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=conv2&channel=5&cell=5.3.3&slide=1", READY)
    page.get_by_label("Speed").fill("-1000")
    page.get_by_role("button", name="▶ Play").click()
    page.get_by_text("sum so far").wait_for()
    assert (
        page.locator(".slide .middle figure")
        .nth(2)
        .locator("[data-cell]")
        .evaluate_all("all => all.some(e => e.textContent === '')")
    )
    page.get_by_role("button", name="❚❚ Pause").click()
    page.locator(".so-far").wait_for(state="detached")  # the calculation says the sum, and says it once
    assert page.locator(".slide .middle").get_by_text(re.compile(r"sum of")).count() == 2  # of the channel and of all


COLOURS = """canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const result = new Set();
  for (let i = 0; i < data.length; i += 4) result.add(`rgb(${data[i]}, ${data[i + 1]}, ${data[i + 2]})`);
  return [...result];
}"""


@pytest.mark.parametrize("query", ["?step=conv2&channel=5&cell=5.3.3", "?step=pool1&channel=3&cell=3.4.4"])
def test_a_number_has_one_colour_on_the_map_and_in_its_window(page: Any, shapes: Any, query: str) -> None:
    visit(page, shapes, f"{query}&slide=1", READY)
    page.locator(".slide .in canvas").wait_for()
    on_map = page.locator(".slide .in canvas").evaluate(COLOURS)
    window = page.locator(".slide .middle figure").first.locator("[data-cell]:not(.out)")
    assert {*window.evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")} <= {*on_map}


def test_nothing_jumps_as_the_names_of_a_window_grow(page: Any, shapes: Any) -> None:
    """From rows 2-4 to rows 10-12: the caption needs a second line."""
    tops = []
    for cell in ("2.3.3", "2.15.13"):
        visit(page, shapes, f"?step=conv1&channel=2&cell={cell}&slide=1", READY)
        tops.append(page.locator(".slide .middle [data-cell]").first.bounding_box()["y"])
    assert tops[0] == tops[1]


def test_it_is_dragged_from_either_side(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, "?step=pool1&channel=3&cell=3.0.0&slide=1", READY)
    press(page, 1, 4, 6, 9)
    eventually(lambda: shown(page)[0], (3, 4, 6))
    press(page, 0, 22, 10, 28)  # of windows of three cells, side by side, this is in the one at (7, 3)
    eventually(lambda: shown(page)[0], (3, 7, 3))
    window = traced["tanh1"].output[0, 3, 21:24, 9:12].ravel()
    marked = page.locator(".slide .middle [data-cell]").evaluate_all("all => all.findIndex(e => e.matches('.marked'))")
    assert marked == int(window.argmax())
    assert shown(page)[1] == pytest.approx(float(window.max()), rel=1e-4)
    page.locator(".slide .map").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    eventually(lambda: shown(page)[0], (3, 7, 2))
    assert filled(page) == 4


def test_with_reduced_motion_it_goes_cell_by_cell(chromium: Any, shapes: Any) -> None:
    with tab(chromium) as page:
        page.emulate_media(reduced_motion="reduce")
        visit(page, shapes, "?step=conv1&channel=1&cell=1.0.26&slide=1", READY)
        for place in [(1, 0, 27), (1, 1, 0)]:
            page.get_by_role("button", name="Next cell").click()
            eventually(lambda: shown(page)[0], place)


class Clamp(nn.Module):
    """A clamp at constants."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(self.low, self.high)


ACTIVATIONS = {
    "tanh": nn.Tanh(), "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2), "elu": nn.ELU(0.7), "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"), "silu": nn.SiLU(), "hardswish": nn.Hardswish(), "hardtanh": nn.ReLU6(),
    "clamp": Clamp(-1, 1), "clamp_min": Clamp(0, None), "clamp_max": Clamp(None, 1),
    "sigmoid": nn.Sigmoid(), "hardsigmoid": nn.Hardsigmoid(), "softplus": nn.Softplus(2.0), "mish": nn.Mish(),
    "celu": nn.CELU(0.5),
}  # fmt: skip


def test_every_activation_has_its_curve_with_the_slope_of_autograd(page: Any) -> None:
    """One network holds them all, side by side; each is asked for two of its numbers."""

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.ModuleDict(ACTIVATIONS)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([each(x) for each in self.all.values()], 1)

    image = torch.tensor([[-2.3, -0.4, 0.0], [0.3, 1.7, 6.5]]).reshape(1, 2, 3)
    with cs.open(All(), image, port=0, browser=False) as explorer:
        trace = cs.trace(All(), image)
        for name, module in ACTIVATIONS.items():
            step = next(step for step in trace.steps if step.module == f"all.{name}")
            for row, column in [(0, 1), (1, 1)]:
                visit(page, explorer, f"?step=:{step.name}&cell=0.{row}.{column}", "svg[role=img]")
                x = image[:, row, column].clone().requires_grad_()
                y = module(x)
                (slope,) = torch.autograd.grad(y.sum(), x)
                said = page.locator("svg[role=img]").get_attribute("aria-label")
                assert said.startswith(f"{name}: ")
                found = [number(each) for each in re.findall(r"[−\d.]+(?:e[−\d]+)?", said.split(": ", 1)[1])]
                assert found == pytest.approx([x.item(), y.item(), slope.item()], rel=2e-3, abs=1e-5)
        page.goto("about:blank")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("query", ["step=conv2&channel=5&cell=5.3.3&slide=1", "step=tanh1&channel=5&cell=5.3.3"])
def test_it_looks_right_and_is_accessible(
    chromium: Any, shapes: Any, query: str, size: tuple[int, int], tmp_path: Path
) -> None:
    with tab(chromium, size=size) as page:
        visit(page, shapes, f"?{query}", READY if "slide" in query else "svg[role=img]")
        if "slide" not in query:
            settled(page)
        for scheme in ["light", "dark"]:
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            kind = "slide" if "slide" in query else "curve"
            keep(page, f"{kind}-{'wide' if size == WIDE else 'narrow'}-{scheme}", tmp_path)


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_a_projector_of_any_width_shows_the_slide_whole(chromium: Any, shapes: Any, width: int) -> None:
    with tab(chromium, size=(width, 720)) as page:
        visit(page, shapes, "?step=tanh2&channel=5&cell=5.0.3&slide=1", READY)
        page.keyboard.press("p")
        page.keyboard.press("PageDown")
        page.locator(".strip[data-away]").wait_for(state="hidden")
        page.locator(".slide .out canvas").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.goto("about:blank")


def test_a_step_without_maps_does_not_slide(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=fc&cell=1&slide=1")
    settled(page)
    assert page.locator(".slide").count() == 0
    assert page.get_by_role("button", name=re.compile("^▶")).count() == 0
    assert np.isfinite(float(page.get_attribute("[data-number]", "data-number")))


@pytest.mark.parametrize("own", [0, 1])
def test_a_probability_is_the_fraction_of_its_classes(page: Any, shapes: Any, traced: cs.Trace, own: int) -> None:
    visit(page, shapes, f"?step=softmax&cell={own}")
    settled(page)
    names = {int(row.get_attribute("data-answer")): row.locator(".word").inner_text() for row in
             page.locator(".strip .answers tr").all()}  # fmt: skip
    assert set(page.locator(".fraction em").all_inner_texts()) == set(names.values())
    assert page.locator(".fraction .above em").inner_text() == names[own]
    logits = traced["fc"].output[0].astype(np.float64)

    def shares(temperature: float) -> list[float]:
        parts = np.exp((logits - logits.max()) / temperature)
        result: list[float] = (100 * parts / parts.sum()).tolist()
        return result

    def on_screen() -> list[float]:
        texts = [page.locator(f"[data-share='{index}']").inner_text() for index in range(len(logits))]
        return [number(text.removesuffix(" %").removeprefix("< ").removeprefix("> ")) for text in texts]

    assert on_screen() == pytest.approx(shares(1), abs=0.011)
    page.get_by_label("Temperature").fill("4")
    eventually(on_screen, pytest.approx(shares(4), abs=0.011))
    page.get_by_role("button", name="back to 1").click()
    eventually(on_screen, pytest.approx(shares(1), abs=0.011))
    page.locator(".number table button", has_text=names[1 - own]).first.click()
    eventually(lambda: state(page).get("step"), "fc")
    assert cell(page) == (1 - own,)
