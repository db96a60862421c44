"""The network read backward in a real browser: gradients in the place of numbers, black where a ReLU did not pass."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from exploring import eventually, recorded, settled, state, visit

BLACK = "rgb(0 0 0)"
NUMBER = "section[aria-label='This number'] h2"
STRIP = "section[aria-label='The network, backward']"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("shapes", model="simple-cnn", epochs=2, seed=0, out=tmp_path_factory.mktemp("runs") / "relu")


@pytest.fixture(scope="module")
def explorer(run: cs.Run) -> Iterator[Any]:
    with cs.open(run.path, port=0, browser=False) as started:
        yield started


@pytest.fixture(scope="module")
def trace(run: cs.Run) -> cs.Trace:
    model = run.model
    data = cs.load_dataset("shapes", split="test")
    image = cs.load_image("shapes:test/0", like=model)
    return cs.trace(model, image, target=[int(data.labels[0])])


def blocked(page: Any, name: str) -> float:
    """The share of the black cells of the first map of a card."""
    script = """button => {
      const canvas = button.querySelector("canvas");
      if (canvas === null) return NaN; // not drawn yet
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let black = 0;
      for (let i = 0; i < pixels.length; i += 4) black += pixels[i] + pixels[i + 1] + pixels[i + 2] === 0;
      return black / (pixels.length / 4);
    }"""
    return float(page.locator(f"{STRIP} button[aria-label='{name}, channel 0']").evaluate(script))


def test_backward_shows_the_gradients_and_black_where_the_relu_did_not_pass(
    page: Any, explorer: Any, trace: cs.Trace
) -> None:
    visit(page, explorer)
    page.get_by_role("button", name="← backward").click()
    page.wait_for_selector(f"{STRIP} canvas")
    loss = float(trace["loss"].output)
    eventually(lambda: float(page.get_attribute("[data-value]", "data-value")), loss)
    closed = float((trace["conv1"].output[0, 0] <= 0).mean())
    assert 0 < closed < 1
    eventually(lambda: abs(blocked(page, "conv1.grad") - closed) < 1e-6, True)
    eventually(lambda: blocked(page, "relu1.grad"), 0)  # a maximum that lost is 0 too, and not black
    row, column = np.argwhere(trace["conv1"].output[0, 0] <= 0)[0].tolist()
    visit(page, explorer, f"?back=loss&step=conv1&cell=0.{row}.{column}", NUMBER)
    assert recorded(page) == 0
    assert page.locator("[data-status=proved]").count() == 1


def test_a_cell_opens_the_chain_rule_and_its_terms_lead_on(page: Any, explorer: Any, trace: cs.Trace) -> None:
    gradient = trace["pool.grad"].output
    cell = [int(i) for i in np.unravel_index(np.abs(gradient[0]).argmax(), gradient.shape[1:])]
    visit(page, explorer, f"?back=loss&step=pool&cell={'.'.join(map(str, cell))}", NUMBER)
    assert recorded(page) == pytest.approx(float(gradient[0][tuple(cell)]), rel=1e-6)
    page.locator("section[aria-label='This number']").get_by_role("button", name="flatten.grad").first.click()
    eventually(lambda: state(page).get("step"), "flatten")
    settled(page)
    assert state(page)["back"] == "loss"
    page.get_by_role("button", name="forward →").click()
    page.wait_for_selector("section[aria-label='The network']")
    eventually(lambda: state(page).get("step"), "flatten")  # the same cell, read forward
    eventually(lambda: "back" in state(page), False)


def test_the_score_of_a_class_is_differentiated(page: Any, explorer: Any, run: cs.Run) -> None:
    model = run.model
    image = cs.load_image("shapes:test/0", like=model)
    visit(page, explorer, "?back=loss&step=fc1&cell=1", NUMBER)
    page.get_by_label("gradient of").select_option(label="the score of circle")
    eventually(lambda: state(page).get("back"), "class-1")
    score = float(cs.trace(model, image)["fc1"].output[0, 1])
    eventually(lambda: float(page.get_attribute("[data-value]", "data-value")), score)
    eventually(lambda: recorded(page), 1.0)


def test_a_network_of_maps_has_no_loss_to_read_backward_from(chromium: Any, explorer: Any) -> None:
    maps = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 1))
    with cs.open(maps, np.zeros((1, 8, 8), np.float32), port=0, browser=False) as opened, tab(chromium) as page:
        visit(page, opened)
        page.wait_for_selector("section[aria-label='The network'] canvas")
        assert page.get_by_role("button", name="backward").count() == 0
        visit(page, explorer)
        page.get_by_role("button", name="backward").wait_for()


def test_backward_is_accessible_and_fits(chromium: Any, explorer: Any, tmp_path: Path) -> None:
    for size in (WIDE, NARROW):
        for scheme in ("light", "dark"):
            with tab(chromium, size=size, scheme=scheme) as page:
                visit(page, explorer, "?back=loss&step=conv1&cell=1.12.12", NUMBER)
                settled(page)
                page.wait_for_selector(f"{STRIP}:not([data-stale]) canvas")
                keep(page, f"backward-{size[0]}-{scheme}", tmp_path)
                accessible(page)
