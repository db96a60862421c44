"""The path that is drawn through the strip, and the product at its end, in a real browser."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from exploring import eventually, settled, visit

WALK = [("fc", (1,)), ("pool2", (3, 1, 1))]
"""The start of the walk; the rest goes on through the numbers that were chosen, to a pixel."""


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("+", ""))


@pytest.fixture(scope="module")
def walk(traced: cs.Trace) -> list[tuple[str, tuple[int, ...]]]:
    """From an answer to a pixel, through the winners of the windows."""

    def winner(step: str, cell: tuple[int, ...]) -> tuple[int, ...]:
        channel, row, column = cell
        window = traced[step].output[0, channel, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        down, right = np.unravel_index(int(window.argmax()), window.shape)
        return channel, 3 * row + int(down), 3 * column + int(right)

    second = winner("tanh2", (3, 1, 1))
    _, row, column = second
    first = winner("tanh1", (2, row, column))
    return [
        *WALK,
        ("tanh2", second),
        ("conv2", second),
        ("pool1", (2, row, column)),
        ("tanh1", first),
        ("conv1", first),
    ]


def trail(walk: list[tuple[str, tuple[int, ...]]]) -> str:
    return "_".join(f"{name}~{'.'.join(map(str, cell))}" for name, cell in walk)


def test_the_walk_is_a_line_and_what_is_pointed_at_is_joined_to_it(
    page: Any, shapes: Any, traced: cs.Trace, walk: Any
) -> None:
    _, cell = walk[3]
    query = f"?step=conv2&channel=3&cell={'.'.join(map(str, cell))}&trail=softmax~1_{trail(walk[:3])}"
    visit(page, shapes, query)
    settled(page)
    eventually(page.locator("[data-line=walk]").count, 4)
    assert page.locator("[data-line=term]").count() == 0
    cells = page.locator(".sum figure").first.locator("[data-cell]:not(.out)")
    products = page.locator(".sum figure").nth(2).locator("[data-cell]")
    order = [abs(number(text)) for text in products.all_inner_texts()]
    width = "e => parseFloat(getComputedStyle(e).strokeWidth)"
    wide = {}
    for index in [int(np.argmax(order)), int(np.argmin(order))]:
        page.locator(".sum figure").first.locator("[data-cell]").nth(index).hover()
        eventually(page.locator("[data-line=term]").count, 1)
        wide[index] = page.locator("[data-line=term]").evaluate(width)
    assert max(wide.values()) == 6.0
    assert min(wide.values()) < 3.0
    assert cells.count() > 0
    page.locator(".lines th").first.hover()  # the sum of a channel
    eventually(lambda: page.locator("[data-line=term]").evaluate(width), 6.0)
    page.mouse.move(5, 5)
    eventually(page.locator("[data-line=term]").count, 0)


def test_the_line_of_the_largest_term_is_the_widest(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=fc&cell=1")
    settled(page)
    rows = page.locator("tbody tr", has=page.locator("th button", has_text="pool2 ("))
    rows.first.hover()
    line = page.locator("[data-line=term]")
    eventually(lambda: line.evaluate("e => parseFloat(e.style.strokeWidth)"), 6)
    assert line.get_attribute("class").split()[0] in {"for", "against"}


def test_the_receptive_field_is_framed_on_the_image(page: Any, shapes: Any, traced: cs.Trace) -> None:
    for name, cell in [("conv2", (3, 4, 4)), ("pool2", (1, 0, 2)), ("conv1", (0, 0, 0))]:
        visit(page, shapes, f"?step={name}&channel={cell[0]}&cell={'.'.join(map(str, cell))}")
        _, (top, bottom), (left, right) = cs.probe.receptive_field(traced, name, cell).box
        frame = page.locator("[data-frame=field]")
        frame.wait_for()
        ends = [top, left, bottom - top + 1, right - left + 1]
        sides = ("top", "left", "height", "width")
        found = frame.evaluate(f"e => {list(sides)}.map(side => parseFloat(e.style[side]))")
        assert found == pytest.approx([100 * end / 28 for end in ends], rel=1e-4)


def test_at_the_pixel_the_whole_product_is_said(page: Any, shapes: Any, traced: cs.Trace, walk: Any) -> None:
    _, (_, row, column) = walk[-1]
    pixel = (0, row, column)
    query = f"?step=image&cell={'.'.join(map(str, pixel))}&trail=softmax~1_{trail(walk)}"
    visit(page, shapes, query, "[aria-label='The whole walk'] .all")
    found = cs.explain(traced, "fc", (1,)).to_walk([*walk[1:], (None, pixel)])
    numbers = [number(text) for text in page.locator("[aria-label='The whole walk'] td.mono").all_inner_texts()]
    assert numbers == pytest.approx([*found.slopes, found.value, found.product], rel=1e-3, abs=1e-6)
    pixels = next(iter(cs.explain(traced, "fc", (1,)).to_input().pixels.values()))
    every = number(page.locator("[aria-label='The whole walk'] .all").inner_text())
    assert every == pytest.approx(float(pixels[0, 0, row, column]), rel=1e-3, abs=1e-6)
    eventually(page.locator("[data-line=walk]").count, 8)
    assert "probability" not in page.locator("[aria-label='The whole walk'] em").inner_text()


def test_a_walk_that_left_out_numbers_is_multiplied_from_where_it_is_whole(
    page: Any, shapes: Any, traced: cs.Trace
) -> None:
    """A card of a path leads from the answer to a convolution at once."""
    visit(page, shapes, "?step=image&cell=0.0.0&trail=fc~1_conv1~2.1.1", "[aria-label='The whole walk'] table")
    assert page.locator("[aria-label='The whole walk'] em").inner_text() == "conv1 (2, 1, 1)"
    slope = number(page.locator("[aria-label='The whole walk'] td.mono").first.inner_text())
    assert slope == pytest.approx(float(traced.parameters["conv1.weight"][2, 0, 0, 0]), rel=1e-3)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_looks_right_and_is_accessible(
    chromium: Any, shapes: Any, walk: Any, size: tuple[int, int], tmp_path: Path
) -> None:
    with tab(chromium, size=size) as page:
        _, (_, row, column) = walk[-1]
        query = f"?step=image&cell=0.{row}.{column}&trail=softmax~1_{trail(walk)}"
        visit(page, shapes, query, "[aria-label='The whole walk'] .all")
        for scheme in ["light", "dark"]:
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            keep(page, f"walk-{'wide' if size == WIDE else 'narrow'}-{scheme}", tmp_path)
