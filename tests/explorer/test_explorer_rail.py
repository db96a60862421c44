"""Image and answers beside the steps, notations and the projector mode, in a real browser."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope as cs
from browser import accessible, keep, tab
from exploring import at, eventually, recorded, settled, state, visit

SMALL_ENOUGH = 20
"""Pixels: the least height of type that a room can read at 1280x720."""


@pytest.fixture(scope="module")
def digits() -> Iterator[Any]:
    """A network of eleven steps."""
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 6:22, 12:16] = 1.0
    with cs.open(cs.load_model("mnist-small", seed=1), image, port=0, browser=False) as explorer:
        yield explorer


def inside(page: Any, selector: str) -> bool:
    """Whether an element is within the window from left to right, and not covered."""
    box = page.locator(selector).first.bounding_box()
    within: bool = box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"]
    return within


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (390, 844)])
def test_the_answer_and_the_image_are_in_view_in_every_view(chromium: Any, digits: Any, size: tuple[int, int]) -> None:
    with tab(chromium, size=size) as page:
        for query in ("?step=conv1&cell=0.4.4", "", "?view=change"):
            visit(page, digits, query)
            page.locator(".card .map").nth(20).wait_for()
            for selector in (".strip .answers td.mono >> nth=1", ".strip button.photo"):
                assert inside(page, selector)
            page.locator(".scroller").evaluate("e => (e.scrollLeft = 1e6)")
            for selector in (".strip .answers td.mono >> nth=1", ".strip button.photo"):
                assert inside(page, selector)


def test_a_small_network_fits_and_a_narrow_window_says_how_much_more_there_is(chromium: Any, digits: Any) -> None:
    with tab(chromium, size=(1280, 800)) as page:
        visit(page, digits, "?step=conv1&cell=0.4.4")
        page.locator(".card").nth(4).wait_for()
        assert page.locator(".card .name").all_inner_texts()[:3] == ["▸conv1", "▸conv2", "▸conv3"]
        assert page.locator(".more").count() == 0
        page.get_by_role("button", name="conv1", exact=True).click()  # unfolds it into three cards
        page.locator(".module .card").nth(2).wait_for()
        page.set_viewport_size({"width": 700, "height": 800})
        more = page.locator(".more.right")
        more.wait_for()
        page.wait_for_timeout(500)  # the cards are laid out for the new width, and counted again
        hidden = int(more.inner_text().split()[0])
        more.click()
        eventually(lambda: page.locator(".more.left").count(), 1)
        left = page.locator(".more.right")
        eventually(lambda: left.count() == 0 or int(left.inner_text().split()[0]) < hidden, True)


def test_a_row_that_is_a_little_too_wide_gets_smaller_maps(chromium: Any, shapes: Any) -> None:
    """At 1280 pixels the eight steps of shapes-cnn are in view; in a much narrower window they scroll."""
    with tab(chromium, size=(1280, 830)) as page:
        visit(page, shapes, "?step=conv1&cell=0.4.4")
        page.locator(".card").nth(7).locator(".map").wait_for()
        eventually(lambda: page.locator(".more").count(), 0)
        last, answers = (page.locator(s).bounding_box() for s in (".card >> nth=7", ".strip .answers"))
        assert last["x"] + last["width"] <= answers["x"]
        small = page.locator(".card .map").first.bounding_box()["width"]
        page.set_viewport_size({"width": 900, "height": 830})
        page.locator(".more.right").wait_for()
        eventually(lambda: page.locator(".card .map").first.bounding_box()["width"] > small, True)


def test_at_four_times_the_size_nothing_is_wider_than_the_page(chromium: Any, digits: Any) -> None:
    """1280 pixels at 400 % are 320; the sum, which scrolls by itself there, is reached by keys."""
    with tab(chromium, size=(320, 256)) as page:
        visit(page, digits, "?step=conv1&cell=0.4.4")
        settled(page)
        page.locator(".card .map").first.wait_for()
        accessible(page)
        visit(page, digits, "?view=kernels", "section[aria-label=Kernels] li")
        page.get_by_label("numbers in every kernel").check()
        page.locator("section[aria-label=Kernels] .grid").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        accessible(page)


def test_in_forced_colours_the_chosen_class_has_another_ground(page: Any, shapes: Any) -> None:
    """As painted: what the browser reports is what the page asked for."""
    page.emulate_media(forced_colors="active")
    visit(page, shapes, "", ".reasons .sum")
    grounds: dict[str, set[object]] = {"true": set(), "false": set()}
    for button in page.get_by_role("group", name="Class").get_by_role("button").all():
        painted = Image.open(BytesIO(button.screenshot())).convert("RGB")
        grounds[button.get_attribute("aria-pressed")].add(painted.getpixel((5, painted.height // 2)))
    assert len(grounds["true"]) == len(grounds["false"]) == 1
    assert grounds["true"] != grounds["false"]


@pytest.mark.parametrize("which", ["probability", "explain"])
def test_the_steps_stay_where_they_are_when_an_answer_is_chosen(chromium: Any, digits: Any, which: str) -> None:
    with tab(chromium, size=(700, 800)) as page:
        visit(page, digits, "?step=conv1&cell=0.4.4")
        settled(page)
        scroller = page.locator(".scroller")
        scroller.evaluate("e => (e.scrollLeft = 160)")
        page.locator(f".answers button[aria-label*={which}]").first.click()
        settled(page)
        assert scroller.evaluate("e => e.scrollLeft") >= 160


def test_pointing_at_a_term_marks_its_cell(page: Any, shapes: Any) -> None:
    visit(page, shapes, at(3, 5, 4, 4))
    settled(page)
    frame = page.locator("[data-frame=window]").first
    whole = frame.bounding_box()
    page.locator(".sum figure").first.locator("[data-cell]").nth(4).hover()
    eventually(lambda: frame.bounding_box()["width"] < whole["width"], True)


def test_a_probability_names_its_classes(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=softmax&cell=0")
    settled(page)
    classes = page.locator(".strip .answers .word").all_inner_texts()
    lines = " ".join(page.locator(".lines th").all_inner_texts())
    assert len(classes) == 2
    assert all(f") {name}" in lines for name in classes)


@pytest.mark.parametrize("side", [5, 7])
def test_a_large_window_its_kernel_and_their_products_are_side_by_side(chromium: Any, side: int) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(1, 3, side, padding=side // 2)
    with (
        cs.open(model, torch.rand(1, 16, 18), port=0, browser=False) as explorer,
        tab(chromium, size=(1440, 900)) as page,
    ):
        visit(page, explorer, "?step=conv2d&cell=1.8.9", "[data-number]")
        settled(page)
        boxes = [grid.bounding_box() for grid in page.locator(".sum .grid").all()]
        assert len(boxes) == 3
        assert len({round(box["y"]) for box in boxes}) == 1
        cut = "all => all.filter(e => e.scrollWidth > e.clientWidth).length"
        assert page.locator(".sum .grid > span").evaluate_all(cut) == 0
        page.goto("about:blank")


def test_a_kernel_of_one_cell_lists_each_term_once(page: Any) -> None:
    torch.manual_seed(0)
    with cs.open(nn.Conv2d(3, 4, 1), torch.rand(3, 5, 6), port=0, browser=False) as explorer:
        visit(page, explorer, "?step=conv2d&cell=1.2.3", "[data-number]")
        settled(page)
        text = page.locator(".number").inner_text()
        assert [text.count(f"({channel}, 2, 3)") for channel in range(3)] == [
            1 + (channel == 1) for channel in range(3)
        ]
        page.goto("about:blank")


def test_a_calculation_is_a_formula_and_code_too(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(3, 5, 4, 4))
    settled(page)
    switch = page.get_by_role("group", name="Notation")
    switch.get_by_role("button", name="formula").click()
    text = "out[5, 4, 4] = Σ over c, r, s of in[c, 3 + r, 3 + s] · weight[5, c, r, s] + bias[5]"
    assert page.locator("pre").inner_text() == text
    switch.get_by_role("button", name="code").click()
    *lines, call = page.locator("pre").inner_text().splitlines()
    scope: dict[str, Any] = {"trace": traced}
    exec("\n".join(lines), scope)
    assert eval(call, scope).item() == pytest.approx(recorded(page), rel=1e-6)
    page.locator(".card .map").first.click()
    page.locator(".viewer canvas").click()
    page.locator("pre").filter(has_text='trace["conv1"]').wait_for()  # the notation stays
    switch.get_by_role("button", name="numbers").click()
    page.locator(".sum figure").first.wait_for()


def test_p_is_for_the_projector(chromium: Any, shapes: Any, tmp_path: Path) -> None:
    smallest = """() => Math.min(...[...document.querySelectorAll('header *, main *')]
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility()
                     && !e.closest('.spoken'))
        .map(e => parseFloat(getComputedStyle(e).fontSize) * (e.currentCSSZoom ?? 1)))"""
    with tab(chromium, size=(1280, 720)) as page:
        visit(page, shapes, "?change=r20", ".reasons ul li")
        page.keyboard.press("p")
        panels = page.locator("[data-panel]:visible")
        for number, name in enumerate(("The network", "What the pixels add", "Why this answer"), 1):
            eventually(lambda: panels.evaluate_all("all => all.map(e => e.ariaLabel)"), [name])
            assert page.evaluate(smallest) >= SMALL_ENOUGH
            keep(page, f"projector-{number}", tmp_path)
            page.keyboard.press("PageDown")
        assert not page.locator("header nav").is_visible()
        assert page.locator("header li", has_text="turned 20°").is_visible()  # what differs stays marked
        accessible(page)
        page.mouse.move(300, 300)
        page.locator(".ring").wait_for()

        page.keyboard.press("PageUp")
        canvas = page.locator(".picture canvas").first
        side = canvas.bounding_box()["width"] / 28
        canvas.click(position={"x": side * 20.5, "y": side * 7.5})
        page.locator(".pixel", has_text="row 7, column 20").wait_for()

        page.keyboard.press("p")
        page.locator("header nav").wait_for()
        eventually(lambda: page.locator("[data-panel]:visible").count(), 3)
        page.locator(".card .map").first.click()
        assert "step" in state(page)
