"""Many channels, kernels and terms in a real browser: lists add up, each is reached, windows stay side by side."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import convscope as cs
from browser import tab
from exploring import eventually, recorded, rows, settled, state, visit


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 40, 5), nn.ReLU(), nn.Flatten(), nn.Linear(1440, 3))


@pytest.fixture(scope="module")
def many() -> Iterator[Any]:
    """Forty kernels of five rows, and sums of 1,440 terms."""
    torch.manual_seed(1)
    with cs.open(network(), torch.rand(1, 10, 10), port=0, browser=False) as explorer:
        yield explorer


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def test_the_others_of_a_long_sum_are_counted_once_and_add_up(page: Any, many: Any) -> None:
    visit(page, many, "?step=:3&cell=1")
    settled(page)
    line = next(label for label in rows(page) if label.endswith("others"))
    button = page.get_by_role("button", name=re.compile("^show the largest"))
    assert number(line.split()[0]) == number(re.search(r"of the (\S+) others", button.inner_text()).group(1)) > 1000  # type: ignore[union-attr]
    button.click()
    body = page.locator("table", has=page.locator("caption", has_text="largest terms")).first
    listed = [number(text) for text in body.locator("td:nth-of-type(5)").all_inner_texts()]
    left = page.get_by_text("smaller ones are not listed")
    count, total = re.search(r"(\S+) smaller .* add up to\s*(\S+)", left.inner_text()).groups()  # type: ignore[union-attr]
    bias = network().state_dict()["3.bias"][1].item()
    assert len(listed) + number(count) == 1440
    assert sum(listed) + number(total) + bias == pytest.approx(recorded(page), abs=0.02)
    height = page.locator(".open").bounding_box()["height"]
    assert height < 700


def test_a_channel_and_a_kernel_are_reached_by_their_number(page: Any, many: Any) -> None:
    visit(page, many, "?step=:0&cell=2.3.3")
    settled(page)
    field = page.get_by_label("channel number")
    field.fill("37")
    field.press("Enter")
    eventually(lambda: state(page).get("cell"), "37.3.3")
    field.fill("4000")
    field.press("Enter")
    eventually(lambda: state(page).get("cell"), "39.3.3")
    visit(page, many, "?view=kernels", "section[aria-label=Kernels] canvas")
    field = page.get_by_label("kernel number")
    field.fill("37")
    field.press("Enter")
    page.get_by_role("button", name="kernel 39", exact=True).wait_for()
    eventually(field.input_value, "32")


def test_five_columns_fit_side_by_side(chromium: Any, many: Any) -> None:
    with tab(chromium, size=(1440, 900)) as page:
        visit(page, many, "?step=:0&cell=2.3.3")
        settled(page)
        tops = page.locator(".sum figure").evaluate_all(
            "all => all.map(e => Math.round(e.getBoundingClientRect().top))"
        )
        assert len(tops) == 3
        assert len(set(tops)) == 1
