"""Find anything in a deep network, in a real browser: by words, and on the overview."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from exploring import drag, eventually, state, visit


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.relu = nn.Conv2d(channels, channels, 1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.relu(self.conv2(self.bn1(self.conv1(x))) + x)
        return result


@pytest.fixture(scope="module")
def deep() -> Iterator[Any]:
    """Fourteen blocks, folded in the strip."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3), *(Block(6) for _ in range(14)), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(6, 3)).eval()
    with cs.open(network, torch.rand(1, 10, 10), port=0, browser=False) as explorer:
        yield explorer


CARD = ".card .map"


def test_slash_finds_a_step_unfolds_and_shows_it(page: Any, deep: Any) -> None:
    visit(page, deep, "?step=:0&cell=0.1.1", CARD)
    page.locator(CARD).first.wait_for()
    assert page.locator(".card .name", has_text="conv2").count() == 0
    page.keyboard.press("/")
    page.get_by_label("Names, operations").fill("11.conv2 1x1")
    options = page.locator("#found li")
    eventually(options.count, 1)
    assert "convolution 1x1" in options.inner_text()
    page.keyboard.press("Enter")
    eventually(lambda: state(page).get("step"), "11.conv2")
    chosen = page.locator(".card .map[aria-pressed=true]")
    chosen.wait_for()
    box, frame = chosen.bounding_box(), page.locator(".scroller").bounding_box()
    assert frame["x"] <= box["x"] <= frame["x"] + frame["width"]
    page.keyboard.press("/")
    page.get_by_label("Names, operations").fill("conv2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    eventually(lambda: state(page).get("step"), "2.conv2")
    page.keyboard.press("/")
    page.get_by_label("Names, operations").fill("banana")
    page.get_by_text("No step or class has all of these words.").wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Names, operations").wait_for(state="hidden")


def test_a_class_is_found_by_its_name(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=conv1&cell=0.3.3", CARD)
    page.get_by_role("button", name="find").click()
    name = page.locator(".strip .answers .word").last.inner_text()
    page.get_by_label("Names, operations").fill(name)
    page.locator("#found li", has_text="class").first.click()
    eventually(page.get_by_role("heading", level=2).first.inner_text, f"Why {name}?")


def test_the_overview_has_every_step_and_leads_to_it(page: Any, deep: Any) -> None:
    page.set_viewport_size({"width": 800, "height": 700})
    visit(page, deep, "?step=:0&cell=0.1.1", CARD)
    bars = page.locator(".overview i")
    eventually(bars.count, 4 + 14 * 5)
    overview = page.locator(".overview")
    box = overview.bounding_box()
    assert box["height"] == 12
    scroller = page.locator(".scroller")
    overview.click(position={"x": box["width"] - 4, "y": 6})
    eventually(lambda: scroller.evaluate("e => e.scrollLeft + e.clientWidth >= e.scrollWidth - 2"), True)
    right = page.locator(".overview span")
    eventually(lambda: right.bounding_box()["x"] + right.bounding_box()["width"] > box["x"] + box["width"] - 3, True)
    drag(page, overview, (0.99, 0.5), (0.01, 0.5))
    eventually(lambda: scroller.evaluate("e => e.scrollLeft"), 0)


def test_tall_maps_stay_small(page: Any) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, (1, 3)), nn.ReLU())
    with cs.open(model, torch.rand(1, 120, 12), port=0, browser=False) as explorer:
        visit(page, explorer, "?step=:0&cell=0.1.1", CARD)
        page.locator(CARD).nth(7).wait_for()
        heights = page.locator(CARD).evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
        assert max(heights) <= 96
        page.goto("about:blank")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_looks_right_and_is_accessible(chromium: Any, deep: Any, size: tuple[int, int], tmp_path: Path) -> None:
    with tab(chromium, size=size) as page:
        visit(page, deep, "?step=:0&cell=0.1.1", CARD)
        page.get_by_role("button", name="find").click()
        page.get_by_label("Names, operations").fill("conv")
        page.locator("#found li").first.wait_for()
        for scheme in ["light", "dark"]:
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            keep(page, f"find-{'wide' if size == WIDE else 'narrow'}-{scheme}", tmp_path)
