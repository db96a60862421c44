"""The explorer in a real browser: what is on screen is what Python says."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from exploring import at, eventually, recorded, rows, visit, written


@pytest.fixture(scope="module")
def crosses() -> Iterator[Any]:
    """The published crosses network on the cross without its right arm."""
    model = cs.load_model("crosses", args={"published": True})
    with cs.open(model, "crosses:damaged-plus", port=0, browser=False) as explorer:
        yield explorer


def numbers(page: Any, figure: int) -> list[float]:
    """The numbers of one of the grids in full, padding left out."""
    titles = page.eval_on_selector_all(
        f".sum figure >> nth={figure} >> [data-cell]", "all => all.map(e => e.getAttribute('title'))"
    )
    return [float(t.rsplit(" = ", 1)[1].replace("−", "-")) for t in titles if t != "padding"]


def test_a_clicked_cell_shows_the_numbers_that_python_has(page: Any, crosses: Any) -> None:
    model = cs.load_model("crosses", args={"published": True})
    why = cs.explain(cs.trace(model, cs.load_image("crosses:damaged-plus", like=model)), 0, (0, 1, 1))
    visit(page, crosses)
    canvas = page.locator(".viewer canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_url("**cell=0.1.1**")
    found = rows(page)
    expr: Any = why.expr
    assert recorded(page) == why.recorded
    assert numbers(page, 0) == expr.left.values.tolist()
    assert numbers(page, 1) == expr.right.values.tolist()
    assert numbers(page, 2) == expr.products.tolist()
    for label, number in found.items():
        assert f"{label} {number}" in written(why)
    assert {"calculated", "recorded by PyTorch", "difference"} <= set(found)
    assert page.get_attribute("[data-status]", "data-status") == why.status == "proved"


def test_the_published_result_is_on_screen(page: Any, crosses: Any) -> None:
    visit(page, crosses)
    page.get_by_role("button", name=re.compile("explain")).first.click()
    page.wait_for_selector("[data-number]")
    assert rows(page)["calculated"].startswith("0.376")


def test_a_network_of_one_number_is_read_backward(page: Any, crosses: Any) -> None:
    visit(page, crosses, "?back=loss", "[data-value]")
    value = float(cs.trace(cs.load_model("crosses", args={"published": True}), "crosses:damaged-plus").output.squeeze())
    assert float(page.get_attribute("[data-value]", "data-value")) == pytest.approx(value**2, rel=1e-5)  # a plus is 0


def test_an_image_is_filtered_with_the_kernels_that_it_has_room_for(page: Any, crosses: Any) -> None:
    """The named kernels of 4 rows are left out of an image of 3."""
    visit(page, crosses, "?view=kernels", ".filter canvas")
    names = page.locator(".filter span.small").all_inner_texts()
    wanted = [name for name, kernel in cs.filters.FILTERS.items() if max(np.shape(kernel.kernel)) <= 3]
    assert names == wanted
    assert page.locator(".filter canvas").count() == len(names)


CELLS = {
    "many channels": ("conv2", (5, 4, 4)),
    "padding": ("conv1", (3, 0, 27)),
    "a function": ("tanh1", (2, 9, 9)),
    "a maximum": ("pool1", (3, 2, 2)),
    "a move": ("flatten", (17,)),
    "a long sum": ("fc", (1,)),
}


@pytest.mark.parametrize("case", CELLS.values(), ids=CELLS)
def test_every_kind_of_step_says_what_python_says(
    case: tuple[str, tuple[int, ...]], page: Any, shapes: Any, traced: cs.Trace
) -> None:
    name, cell = case
    why = cs.explain(traced, name, cell)
    visit(page, shapes, at(traced[name].id, *cell))
    found = rows(page)
    assert recorded(page) == why.recorded
    text = written(why)
    for label in ("calculated", "recorded by PyTorch", "difference"):
        assert f"{label} {found[label]}" in text
    assert page.get_attribute("[data-status]", "data-status") == why.status


def test_a_probability_is_explained(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, "?step=softmax&cell=0")
    logits = traced["fc"].output[0].astype(np.float64)
    expected = np.exp(logits[0]) / np.exp(logits).sum()
    found = rows(page)
    assert abs(float(found["in full"]) - expected) < 1e-6
    assert page.get_attribute("[data-status]", "data-status") == "proved"


def test_a_term_leads_a_step_back_and_the_trail_and_the_back_button_return(
    page: Any, shapes: Any, traced: cs.Trace
) -> None:
    visit(page, shapes, at(traced["conv2"].id, 5, 4, 4))
    page.locator(".sum figure").first.locator("button").nth(4).click()
    page.wait_for_url("**step=pool1**")
    cell = tuple(map(int, re.search(r"[?&]cell=([\d.]+)", page.url)[1].split(".")))  # type: ignore[index]
    assert cell[1:] == (4, 4)
    assert recorded(page) == float(traced["pool1"].output[0][cell])
    page.locator(".crumbs button", has_text="conv2").click()
    page.wait_for_url("**step=conv2**")
    page.go_back()
    page.wait_for_url("**step=pool1**")


def test_terms_lead_from_the_answer_to_a_pixel(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["fc"].id, 1))
    for _ in range(12):
        if "step=image" in page.url:
            break
        rows(page)
        before = page.url
        page.locator(".number figure button[data-cell], .number th button").first.click()
        page.wait_for_url(lambda url, was=before: url != was)
    assert "step=image" in page.url
    assert "pixel of the image" in page.locator(".number").inner_text()


def test_reload_and_a_link_without_the_key_restore_the_view(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv2"].id, 5, 4, 4) + "&pixels=1&window=3")
    former, number = rows(page), page.text_content("[data-number]")
    assert "token" not in page.url
    page.reload()
    assert rows(page) == former
    assert page.text_content("[data-number]") == number
    assert page.input_value("#window-channel") == "3"
    page.wait_for_selector("section[aria-label='Down to pixels'] dl")


def test_contributions_add_up_to_the_number(page: Any, shapes: Any, traced: cs.Trace) -> None:
    found = cs.explain(traced, "conv1", (3, 12, 12)).to_input()
    visit(page, shapes, at(traced["conv1"].id, 3, 12, 12))
    page.get_by_label("down to pixels").check()
    page.wait_for_selector("section[aria-label='Down to pixels'] dl")
    shown = page.eval_on_selector_all("section[aria-label='Down to pixels'] dd", "all => all.map(e => e.textContent)")
    total, constant, value = (float(text.replace("−", "-")) for text in shown[:3])
    assert (total, constant, value) == pytest.approx((found.total, found.constant, found.value), rel=1e-6, abs=1e-9)


def test_the_products_are_shown_one_by_one_on_request(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv1"].id, 3, 12, 12))
    rows(page)
    products = page.locator(".sum figure").nth(2).locator("[data-cell]")
    whole = products.all_inner_texts()
    own_clock(page)
    page.get_by_role("button", name="Show the products one by one").click()
    eventually(products.all_inner_texts, [*whole[:1], *[""] * 8])
    page.clock.run_for(1300)  # 600 each
    eventually(products.all_inner_texts, [*whole[:3], *[""] * 6])
    page.get_by_role("button", name="Stop").click()
    eventually(products.all_inner_texts, whole)
    assert page.locator(".so-far").count() == 0


def own_clock(page: Any) -> None:
    """From now on the page's time passes only when the test says so."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def test_a_sum_grows_product_by_product_to_its_line(page: Any, shapes: Any, traced: cs.Trace) -> None:
    page.emulate_media(reduced_motion="reduce")  # nothing moves by itself: the button goes on
    visit(page, shapes, at(traced["conv2"].id, 3, 4, 4))
    lines = rows(page)
    products = [Decimal(text.replace("−", "-")) for text in page.locator(".sum figure").nth(2).inner_text().split()[1:]]
    own_clock(page)
    page.get_by_role("button", name="Show the products one by one").click()
    page.clock.run_for(10_000)
    button, so_far, found = page.get_by_role("button", name="Next product"), page.locator(".sum-so-far dd"), []
    for k in range(9):
        found.append(Decimal(so_far.inner_text().replace("−", "-")))
        assert page.locator(".so-far").get_attribute("aria-live") == "polite"
        if k < 8:
            assert f"product {k + 1} of 9" in page.locator(".so-far").inner_text()
            button.click()
    assert found == [sum(products[: k + 1]) for k in range(9)]
    channel = page.get_by_label("input channel").input_value()
    assert so_far.inner_text() == lines[f"pool1 channel {channel}, sum of 9"]
    assert "sum of these 9" in page.locator(".so-far").inner_text()

    page.emulate_media(reduced_motion="no-preference")
    page.get_by_role("button", name="Show again").click()
    page.get_by_text("product 1 of 9").wait_for()
    page.clock.run_for(10_000)
    page.get_by_text("sum of these 9").wait_for()
    assert so_far.inner_text() == lines[f"pool1 channel {channel}, sum of 9"]


class Hostile(nn.Module):
    """Names that are markup, and an unsupported operation."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("<img src=x onerror=alert(1)>", nn.Conv2d(1, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (layer,) = self.children()
        found: torch.Tensor = torch.special.bessel_j0(layer(x))
        return found


def test_names_are_text_and_what_has_no_rule_is_unsupported(page: Any) -> None:
    with cs.open(Hostile(), torch.rand(1, 6, 6), port=0, browser=False) as explorer:
        visit(page, explorer)
        rows(page)
        assert page.locator("img").count() == 0
        assert "<img src=x" in page.locator(".crumbs").inner_text()
        page.locator(".card").nth(1).locator(".map").first.click()
        page.locator(".viewer canvas").click()
        page.wait_for_selector("[data-status=unsupported]")
        page.goto("about:blank")
