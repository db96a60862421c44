"""The first view, in a real browser: why this class, by pixels and by paths, as Python has them."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch import nn

import convscope as cs
from browser import WIDE, forgive, tab
from convscope.proof.paths import paths_to
from exploring import eventually, recorded, state, visit

READY = ".reasons ul li"


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", ""))


def hold(page: Any, pattern: str, waiting: list[Any]) -> None:
    """Requests of this kind wait until the test continues them."""

    def keep(route: Any) -> None:
        waiting.append(route)

    page.route(pattern, keep)


def numbers(page: Any, selector: str) -> list[float]:
    return [number(text) for text in page.locator(selector).all_inner_texts()]


def test_the_first_view_says_why(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, "", READY)
    best = int(traced["fc"].output[0].argmax())
    found = cs.explain(traced, "fc", (best,)).to_input()
    pixels = next(iter(found.pixels.values()))[0].sum(0)
    sides = [float(pixels[pixels > 0].sum()), float(pixels[pixels < 0].sum())]
    assert numbers(page, ".sum .mono") == pytest.approx([*sides, found.constant, found.value], abs=5e-5)
    decimals = {len(text.partition(".")[2]) for text in page.locator(".sum .mono").all_inner_texts()}
    assert decimals == {4}  # equal in one sum
    assert sum(sides) + found.constant == pytest.approx(found.value, abs=found.bound)
    named = page.locator(".answers .top .word").inner_text()
    assert page.get_by_role("heading", level=2).first.inner_text() == f"Why {named}?"
    assert "tanh1 and tanh2 are nonlinear" in page.locator(".why").inner_text()


def test_the_cards_are_the_strongest_paths_and_lead_to_their_number(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, "", READY)
    best = int(traced["fc"].output[0].argmax())
    paths = paths_to(traced, traced["fc"], (0, best)).paths
    texts = page.locator(".card strong:first-child").all_inner_texts()
    for text, path in zip(texts[-3:], paths, strict=False):
        kernel, channel = path.channels
        assert text.startswith(f"conv1 kernel {kernel} → conv2 channel {channel} → ")
    assert numbers(page, ".reasons .card .value") == pytest.approx([path.value for path in paths[:3]], abs=5e-5)
    page.locator(".reasons .card").first.click()
    page.wait_for_url("**step=conv2**")
    assert recorded(page) == float(traced["conv2"].output[paths[0].cell])
    page.get_by_role("button", name=re.compile("^Why ")).click()
    page.wait_for_selector(READY)


def test_a_pixel_says_its_product(page: Any, shapes: Any, traced: cs.Trace) -> None:
    """Pointing is enough; a click keeps it."""
    visit(page, shapes, "", READY)
    best = int(traced["fc"].output[0].argmax())
    found = cs.explain(traced, "fc", (best,)).to_input()
    pixels, slopes = (next(iter(each.values()))[0, 0] for each in (found.pixels, found.weights))
    row, column = np.unravel_index(np.abs(pixels).argmax(), pixels.shape)
    canvas = page.locator(".picture .viewer canvas").first
    side = canvas.bounding_box()["width"] / 28
    canvas.click(position={"x": side * (column + 0.5), "y": side * (row + 0.5)})
    page.mouse.move(0, 0)
    said = page.locator(".pixel").inner_text()
    assert f"row {row}, column {column}" in said
    value, slope, product = re.search(r"pixel (\S+) × slope (\S+) = (\S+)", said).groups()  # type: ignore[union-attr]
    expected = (traced.inputs["input"][0, 0, row, column], slopes[row, column], pixels[row, column])
    assert [number(each) for each in (value, slope, product)] == pytest.approx(list(map(float, expected)), rel=2e-3)


@pytest.mark.parametrize("size", [(1440, 900), WIDE, (1024, 768)], ids=lambda size: str(size[0]))
def test_a_contribution_takes_no_click_and_the_product_of_a_pixel_one(
    chromium: Any, shapes: Any, size: tuple[int, int]
) -> None:
    """Both in the window as it opens, without scrolling."""
    with tab(chromium, size=size) as page:
        visit(page, shapes, "", READY)
        expect(page.locator(".reasons .card .value").first).to_be_in_viewport(ratio=1)
        for side in (".sum .value", ".sum .minus", ".picture .viewer canvas"):
            expect(page.locator(side).first).to_be_in_viewport(ratio=0.99)
        before = page.locator(".picture .viewer canvas").bounding_box()
        page.locator(".picture .viewer canvas").click()  # the only click
        page.mouse.move(0, 0)
        product = page.locator(".pixel", has_text=re.compile(r"pixel \S+ × slope \S+ = \S+"))
        expect(product).to_be_in_viewport(ratio=1)
        assert page.evaluate("scrollY") == 0
        assert page.locator(".picture .viewer canvas").bounding_box() == before


def test_classes_are_switched_by_word_and_by_their_difference(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, "", READY)
    group = page.get_by_role("group", name="Class")
    labels = group.get_by_role("button").all_inner_texts()
    assert len(labels) == 3
    group.get_by_role("button", name=labels[2]).click()
    order = np.argsort(-traced["fc"].output[0])
    page.wait_for_url(f"**why={order[0]}-{order[1]}**")
    apart = float(traced["fc"].output[0][order[0]] - traced["fc"].output[0][order[1]])
    eventually(lambda: numbers(page, ".sum button.mono"), [pytest.approx(apart, rel=1e-3)])
    page.reload()
    page.wait_for_selector(READY)
    assert page.get_by_role("heading", level=2).first.inner_text() == f"Why {labels[2]}?"

    page.locator(".answers .word", has_text=labels[1]).click()
    page.wait_for_url(f"**why={order[1]}")
    eventually(page.get_by_role("heading", level=2).first.inner_text, f"Why {labels[1]}?")
    page.locator(".card .map").first.click()
    eventually(lambda: "why" in state(page), False)


def test_reasons_of_another_image_are_marked_until_they_come(page: Any, shapes: Any) -> None:
    visit(page, shapes, "", READY)
    former = page.locator(".sum").inner_text()
    waiting: list[Any] = []
    hold(page, "**/contributions?**", waiting)
    page.locator("button.now").click()
    page.locator("dialog button.sample").nth(3).click()
    page.locator(".reasons[inert].stale").wait_for()
    assert page.locator(".sum").inner_text() == former
    for route in waiting:
        route.continue_()
    page.unroute_all()
    page.locator(".reasons:not(.stale)").wait_for()
    assert page.locator(".sum").inner_text() != former


def test_what_cannot_be_followed_says_so_and_the_calculation_is_one_click_away(page: Any, shapes: Any) -> None:
    page.route(
        "**/contributions?**",
        lambda route: route.fulfill(status=422, content_type="application/json", body='{"message": "cannot follow."}'),
    )
    visit(page, shapes, "", ".reasons [role=alert]")
    page.locator(".answers").get_by_role("button", name=re.compile("explain")).first.click()
    page.wait_for_selector("[data-number]")
    forgive(page, "422")


def test_a_network_without_convolutions_has_no_paths_and_says_so(page: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with cs.open(model, torch.rand(1, 8, 8), port=0, browser=False) as explorer:
        visit(page, explorer)
        page.get_by_text("no convolution comes before 1").wait_for()
        page.goto("about:blank")


def test_a_large_network_begins_with_why_and_says_what_is_being_calculated(page: Any) -> None:
    """Until the contributions are there, the image is shown as it is, and classes can be chosen."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 24, 3, 2), nn.Tanh(), nn.Conv2d(24, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3))
    deep = nn.Sequential(net, nn.Tanh(), nn.Conv2d(24, 8, 3), nn.GELU(), nn.Tanh(), nn.Tanh(), nn.AdaptiveAvgPool2d(1))
    model, image = nn.Sequential(deep, nn.Flatten(), nn.Linear(8, 3)), torch.rand(3, 260, 240)
    waiting: list[Any] = []
    hold(page, "**/contributions?**", waiting)
    with cs.open(model, image, port=0, browser=False) as explorer:
        visit(page, explorer, "", ".reasons [role=status]")
        assert "through 13 steps to the 260×240 pixels" in page.locator(".reasons [role=status]").inner_text()
        page.wait_for_timeout(400)
        assert page.locator(".reasons[inert]").count() == 0
        for route in waiting:
            route.continue_()
        page.unroute_all()
        page.wait_for_selector(".reasons .sum")
        trace = cs.trace(model, image)
        assert sum(step.output.size for step in trace.steps) > 2e6
        found = cs.explain(trace, trace.steps[-1], (int(trace.output[0].argmax()),)).to_input()
        assert numbers(page, ".sum .mono")[2:] == pytest.approx([found.constant, found.value], abs=5e-4)
        why = page.locator(".why").inner_text()
        assert "0.0.1, 0.1 and 3 other steps are nonlinear" in why.replace("deep.", "")
        # a few pixels do not leave the others without colour, and the legend says so
        pixels = np.abs(next(iter(found.pixels.values()))[0].sum(0)).astype(np.float32)
        assert "scaled to 99 % of the pixels" in page.locator(".picture").inner_text()
        legend = number(page.locator(".picture .legend .mono span").last.inner_text())
        assert legend == pytest.approx(float(np.sort(pixels.ravel())[int(0.99 * pixels.size)]), rel=1e-3)
        page.goto("about:blank")
