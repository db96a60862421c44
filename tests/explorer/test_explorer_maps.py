"""Maps one can see, in a real browser: the contrast of their colours, and kernels over a whole training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from browser import accessible, keep, tab
from exploring import eventually, settled, state, visit


@pytest.fixture(scope="module")
def faint() -> Iterator[tuple[Any, cs.Trace]]:
    """Two maps of very different size, with one number that is far larger than all others."""
    model = nn.Conv2d(1, 2, 1, bias=False)
    model.weight.data[:] = torch.tensor([1.0, 0.01]).reshape(2, 1, 1, 1)
    torch.manual_seed(0)
    image = torch.rand(1, 20, 20)
    image[0, 3, 4] = 90.0
    with cs.open(model, image, port=0, browser=False) as explorer:
        yield explorer, cs.trace(model, image)


def legend(page: Any) -> float:
    """The upper end of the large map's scale."""
    return float(page.locator(".large .legend [role=img] span").last.inner_text().removeprefix("+"))


def test_the_contrast_is_chosen_and_said(page: Any, faint: tuple[Any, cs.Trace]) -> None:
    explorer, trace = faint
    output = trace.steps[0].output[0]
    visit(page, explorer, "?step=conv2d&channel=1&cell=1.2.2")
    settled(page)
    assert legend(page) == pytest.approx(90, rel=1e-3)
    ends = page.locator(".card .ends").first
    whole = page.locator(".card .map canvas").nth(1).evaluate("e => e.toDataURL()")

    choice = page.get_by_label("contrast")
    choice.select_option("typical")
    eventually(lambda: legend(page), pytest.approx(float(np.quantile(np.abs(output), 0.99, method="lower")), rel=1e-3))
    eventually(lambda: float(ends.inner_text().split()[-1]), pytest.approx(legend(page), abs=0.01))
    assert page.get_by_text("scaled to 99 % of the step's numbers; the others, up to ±90").is_visible()

    choice.select_option("each")
    eventually(lambda: legend(page), pytest.approx(float(np.abs(output[1]).max()), rel=1e-3))
    assert page.get_by_text("scaled to this map alone; the step reaches ±90").is_visible()
    eventually(ends.inner_text, "each its own")
    assert state(page)["contrast"] == "each"
    assert page.locator(".card .map canvas").nth(1).evaluate("e => e.toDataURL()") != whole
    page.reload()
    page.wait_for_selector("text=scaled to this map alone")
    page.get_by_label("contrast").select_option("full")
    eventually(lambda: "contrast" in state(page), False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, cs.Run]]:
    folder = tmp_path_factory.mktemp("runs")
    run = cs.train("shapes", model="shapes-cnn", epochs=1, seed=0, out=folder / "short")
    with cs.serve(folder, port=0, browser=False) as explorer:
        yield explorer, run


def test_a_kernel_is_seen_over_its_training_in_one_scale(page: Any, trained: tuple[Any, cs.Run]) -> None:
    explorer, run = trained
    visit(page, explorer, "?view=train&model=short&step=conv2&channel=3", "[aria-label='Over the training'] canvas")
    moments = page.locator("[aria-label='Over the training'] button")
    assert moments.count() == min(12, len(run.steps))
    whole = [run.weights_at(step)["conv2.weight"] for step in run.steps]
    largest = max(float(np.abs(weight).max()) for weight in whole)
    scale = page.locator("section[aria-label=Kernels] .legend [role=img]")
    eventually(lambda: scale.get_attribute("aria-label"), f"colours from −{largest:.4g} to {largest:.4g}")
    moments.first.click()
    eventually(lambda: state(page).get("at"), "0")
    moments.first.and_(page.locator("[aria-current=step]")).wait_for()
    assert scale.get_attribute("aria-label").endswith(f"to {largest:.4g}")  # the scale stays
    moments.last.click()
    eventually(lambda: state(page).get("at"), str(run.steps[-1]))
    accessible(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_right_and_is_accessible(
    chromium: Any, faint: tuple[Any, cs.Trace], scheme: str, tmp_path: Path
) -> None:
    with tab(chromium, size=(1024, 768), scheme=scheme) as page:
        visit(page, faint[0], "?step=conv2d&channel=1&cell=1.2.2&contrast=each")
        settled(page)
        accessible(page)
        keep(page, f"contrast-{scheme}", tmp_path)


# Channels by contribution


class Shifted(nn.Module):
    """A network with a second input, which shifts its scores, so that *Why* is not the first view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 14, 3), nn.Linear(14, 3)

    def scores(self, maps: Tensor, shift: Tensor) -> Tensor:
        result: Tensor = self.head(maps.relu().mean((2, 3))) + shift
        return result

    def forward(self, image: Tensor, shift: Tensor) -> Tensor:
        return self.scores(self.conv(image), shift)


def contributions(model: Shifted, image: Tensor, shift: Tensor) -> np.ndarray:
    """What each channel of the first layer contributes to the model's answer, by autograd."""
    maps = model.conv(image[None]).detach().requires_grad_()
    scores = model.scores(maps, shift[None])[0]
    (slopes,) = torch.autograd.grad(scores[scores.argmax()], maps)
    added: np.ndarray = (maps * slopes).sum((0, 2, 3)).detach().numpy()
    return added


@pytest.fixture(scope="module")
def shifted() -> Iterator[tuple[Any, np.ndarray]]:
    """The explorer on it, and what its channels contribute to the answer."""
    torch.manual_seed(3)
    model, image, shift = Shifted(), torch.rand(1, 30, 40), torch.zeros(3)
    with cs.open(model, {"image": image, "shift": shift}, port=0, browser=False) as explorer:
        yield explorer, contributions(model, image, shift)


def test_look_begins_with_the_channel_that_contributes_most(page: Any, shifted: tuple[Any, np.ndarray]) -> None:
    explorer, added = shifted
    best = int(np.abs(added).argmax())
    assert best != 0
    visit(page, explorer, "", ".viewer canvas")
    sentence = page.get_by_text(f"Of 14 channels, channel {best} contributes most to")
    sentence.wait_for()
    settled(page)
    assert page.locator(".crumbs strong").inner_text().startswith(f"channel {best}, ")
    assert page.locator(".card [aria-pressed=true]").get_attribute("data-channel") == str(best)
    page.get_by_role("button", name="All in this order").click()
    page.get_by_role("heading", name="Channels by contribution to").wait_for()
    assert state(page)["channel"] == str(best)


def test_channels_are_sorted_by_contribution(page: Any, shifted: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    explorer, added = shifted
    visit(page, explorer, "?step=0&cell=2.7.9")
    page.get_by_label("channels by contribution to").check()
    buttons = page.locator("section[aria-label^='Channels by'] li button")
    page.wait_for_selector("section[aria-label^='Channels by'] li canvas")
    page.get_by_role("button", name="more", exact=True).click()
    eventually(buttons.count, len(added))
    order = sorted(range(len(added)), key=lambda channel: -abs(added[channel]))
    names = buttons.evaluate_all("all => all.map(e => Number(e.dataset.ranked))")
    assert names == order
    shown = buttons.evaluate_all("all => all.map(e => Number(e.dataset.added))")
    assert shown == pytest.approx(added[order].tolist(), rel=1e-3, abs=1e-6)
    buttons.nth(1).click()
    eventually(lambda: state(page)["cell"], f"{order[1]}.7.9")  # the same place in another map
    eventually(lambda: buttons.nth(1).get_attribute("aria-pressed"), "true")
    page.reload()
    buttons.first.wait_for()
    accessible(page)
    keep(page, "channels-sorted", tmp_path)
