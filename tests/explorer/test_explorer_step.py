"""One training step in a real browser: the panel shows what was recorded, and each number is proved."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from convscope.render.numbers import aligned
from exploring import cells, eventually, numbers, rows, settled, visit

PANEL = "section[aria-label='This step']"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> cs.Run:
    return cs.train("shapes", model="simple-cnn", epochs=1, seed=0, out=folder / "relu")


@pytest.fixture(scope="module")
def explorer(folder: Path, run: cs.Run) -> Iterator[Any]:
    with cs.serve(folder, port=0, browser=False) as started:
        yield started


def shown(page: Any, step: int) -> None:
    """Wait until the panel shows this step."""
    page.wait_for_selector(f"{PANEL}[data-step='{step}'][aria-busy=false] .cells")


def grid(page: Any, title: str) -> list[float]:
    return cells(page, f"{PANEL} [aria-label='{title}'] > *")


def test_one_step_shows_its_batch_its_losses_and_its_updates(page: Any, explorer: Any, folder: Path) -> None:
    visit(page, explorer, "?view=train&model=relu", "form button")
    page.get_by_label("Epochs").fill("1")
    page.get_by_label("Seed").fill("1")
    page.get_by_label("wait before").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_text("takes the first").wait_for()
    for step in (1, 2):
        page.get_by_role("button", name="One step").click()
        shown(page, step)
    # a point of the curves for each step
    page.get_by_role("img", name="Loss over 2 points").wait_for()
    name = page.get_by_role("heading", level=2).first.text_content()
    page.get_by_role("button", name="Previous kept step").click()
    shown(page, 1)
    trace = cs.trace(cs.load_run(folder / name), at_step=1)
    losses = cs.image_losses(trace)
    assert losses is not None
    order = np.argsort(-losses, kind="stable")
    texts = page.eval_on_selector_all(f"{PANEL} .loss[data-number]", "all => all.map(e => e.textContent)")
    assert texts == list(aligned(losses)[order[:12]])  # all with the same decimals, as the kernels
    effect = cs.step_effect(trace)
    assert float(page.get_attribute(f"{PANEL} [data-after]", "data-after")) == effect.after
    gradient = trace["conv1.weight.grad"].output
    assert grid(page, "gradient of kernel 1") == numbers(gradient[1])
    assert grid(page, "kernel 1 before") == numbers(trace.parameters["conv1.weight"][1])
    assert grid(page, "kernel 1 after") == numbers(trace["conv1.weight.updated"].output[1])
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")


def test_a_gradient_and_a_new_weight_open_their_proved_calculations(page: Any, explorer: Any, run: cs.Run) -> None:
    at = run.steps[-1]
    visit(page, explorer, f"?view=train&model=relu&at={at}", "text=Show this step")
    page.get_by_role("button", name="Show this step").click()
    shown(page, at)
    trace = cs.trace(run, at_step=at)
    page.get_by_role("button", name="conv1.weight.grad (2, 0, 1, 1) =").click()
    settled(page)
    why = cs.explain(trace, "conv1.weight.grad", (2, 0, 1, 1))
    heading = page.locator("section[aria-label='This number'] h2")
    eventually(lambda: float(heading.locator("button").get_attribute("data-number")), float(why.recorded))
    assert page.locator("[data-status=proved]").count() == 1
    page.get_by_role("button", name="conv1.weight.updated (2, 0, 1, 1) =").click()
    settled(page)
    eventually(lambda: "conv1.weight.updated (2, 0, 1, 1)" in heading.text_content(), True)
    settled(page)
    assert page.locator("[data-status=proved]").count() == 1
    lines = rows(page)
    (before,) = (number for label, number in lines.items() if label.startswith("before") and "conv1.weight[" in label)
    assert before != lines["calculated"]  # however small the step


def test_the_images_that_a_gradient_sums_have_the_decimals_of_their_sum(page: Any, explorer: Any, run: cs.Run) -> None:
    """What is shown adds up to the last digit: the largest images, the others and the rounding."""
    at = run.steps[-1]
    visit(page, explorer, f"?view=train&model=relu&at={at}", "text=Show this step")
    page.get_by_role("button", name="Show this step").click()
    shown(page, at)
    page.get_by_role("button", name="conv1.weight.grad (2, 0, 1, 1) =").click()
    settled(page)
    lines = rows(page)
    images = page.locator("section[aria-label='This number'] table").first.locator("tbody td:nth-child(2)")
    terms = [
        *images.all_text_contents(),
        *(text for label, text in lines.items() if re.match(r"\d+ others|round", label)),
    ]
    decimals = {len(text.partition(".")[2]) for text in [*terms, lines["calculated"]]}
    assert len(decimals) == 1, terms
    total = sum(Decimal(text.replace("−", "-")) for text in terms)
    assert total == Decimal(lines["calculated"].replace("−", "-"))


def test_the_learning_rate_is_recomputed_on_the_spot(page: Any, explorer: Any, run: cs.Run) -> None:
    at = run.steps[1]
    visit(page, explorer, f"?view=train&model=relu&at={at}", "text=Show this step")
    page.get_by_role("button", name="Show this step").click()
    shown(page, at)
    trace = cs.trace(run, at_step=at)
    as_it_was = grid(page, "kernel 0 after")
    page.get_by_role("button", name="ten times").click()
    wanted = cs.step_effect(trace, 10.0).after
    eventually(lambda: page.get_attribute(f"{PANEL} [data-after]", "data-after") == str(wanted), True)
    page.get_by_text("10 times, recomputed, not applied").wait_for()
    along, rate = cs.update_direction(trace, "conv1.weight")
    calculated = trace.parameters["conv1.weight"][0] - 10 * rate * along[0]
    np.testing.assert_allclose(grid(page, "kernel 0 after"), calculated.ravel(), rtol=1e-5)
    page.get_by_role("button", name="as it was").click()
    eventually(lambda: grid(page, "kernel 0 after"), as_it_was)
    page.get_by_label("parameter").select_option("fc1.weight")
    page.get_by_text("9 largest gradients").first.wait_for()


def test_the_panel_is_accessible_and_fits(chromium: Any, explorer: Any, run: cs.Run, tmp_path: Path) -> None:
    at = run.steps[1]
    for size in (WIDE, NARROW):
        for scheme in ("light", "dark"):
            with tab(chromium, size=size, scheme=scheme) as page:
                visit(page, explorer, f"?view=train&model=relu&at={at}", "text=Show this step")
                page.get_by_role("button", name="Show this step").click()
                shown(page, at)
                page.get_by_role("button", name="conv1.weight.grad (0, 0, 1, 1) =").click()
                settled(page)
                page.wait_for_selector(".scroller [tabindex='0']")  # the strip has its maps
                keep(page, f"step-{size[0]}-{scheme}", tmp_path)
                accessible(page)


def test_running_statistics_are_shown_as_arithmetic(page: Any, folder: Path) -> None:
    """(1 - momentum) x before + momentum x batch = after; a number after the step has its calculation and its badge."""
    made = cs.train("shapes", model="mnist-small", epochs=1, seed=0, out=folder / "norm")
    last = made.history[-1]["step"]
    with cs.serve(folder, port=0, browser=False) as explorer:
        visit(page, explorer, "?view=train&model=norm", "form button")
        page.get_by_role("button", name="Show this step").first.click()
        page.wait_for_selector(f"{PANEL} .cells")
        step = int(page.locator(PANEL).get_attribute("data-step"))
        assert step == last
        wide = page.locator(f"{PANEL} .rows")
        assert wide.evaluate("e => e.scrollWidth <= e.clientWidth")  # 5x5 kernels in four grids
        page.get_by_text("direction of").first.wait_for()
        page.get_by_label("parameter").select_option("bn1.running_var")
        page.wait_for_selector(f"{PANEL} [aria-label='bn1.running_var after'] button")
        before, batch, after = (grid(page, f"bn1.running_var {side}") for side in ("before", "batch variance", "after"))
        trace = cs.trace(cs.load_run(folder / "norm"), at_step=step)
        image = trace["conv1"].output.astype(float)
        np.testing.assert_allclose(batch, image.var((0, 2, 3), ddof=1)[:8], atol=1e-4)
        np.testing.assert_allclose(after, 0.9 * np.array(before) + 0.1 * np.array(batch), atol=2e-4)
        page.locator(f"{PANEL} [aria-label='bn1.running_var after'] button").nth(2).click()
        why = page.locator(f"{PANEL} .why")
        why.get_by_text("✓ proved").wait_for()
        assert "the variance of" in why.inner_text()
        accessible(page)
