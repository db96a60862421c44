"""Train, Compare and Kernels in a real browser: what is drawn is what the run wrote."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from browser import NARROW, WIDE, accessible, forgive, keep, tab
from exploring import answers, cells, eventually, numbers, said, state, visit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> cs.Run:
    return cs.train("shapes", model="shapes-cnn", epochs=1, seed=0, out=folder / "short")


@pytest.fixture(scope="module")
def explorer(folder: Path, run: cs.Run) -> Iterator[Any]:
    with cs.serve(folder, port=0, browser=False) as found:
        yield found


def traced(run: cs.Run, at: int | None = None, image: str = "shapes:test/0") -> cs.Trace:
    weights = None if at is None else run.weights_at(at)
    return cs.trace(run.model, cs.load_image(image, like=run.model), overrides=weights)


def kernels(page: Any) -> list[float]:
    return cells(page, "section[aria-label=Kernels] .grid > span")


def test_a_training_is_followed_to_its_end_and_scrubbed(page: Any, explorer: Any, folder: Path, run: cs.Run) -> None:
    visit(page, explorer, "?view=train&model=short", "form button")
    page.get_by_label("Epochs").fill("1")
    page.get_by_label("Seed").fill("0")
    page.get_by_label("wait before").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector("text=paused at step 0")
    page.get_by_role("button", name="One step").click()
    page.wait_for_selector("text=paused at step 1")
    page.get_by_role("img", name=re.compile(r"^Loss over 1 points: train \d")).wait_for()
    page.reload()
    page.wait_for_selector("text=paused at step 1")
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector("text=done: step")

    name = state(page)["training"]
    made = cs.load_run(folder / name)
    last = made.steps[-1]
    assert numbers(made.weights_at(last)["conv1.weight"]) == numbers(run.weights_at(run.steps[-1])["conv1.weight"])
    epoch = next(point for point in reversed(made.history) if point["event"] == "epoch")
    loss = float(f"{epoch['test_loss']:.3g}")
    curve = page.get_by_role("img", name=re.compile(f"^Loss over.*test {re.escape(str(loss))}$"))
    curve.wait_for()
    visit(page, explorer, f"?view=train&model={name}", "form button")  # a user returns to it
    curve.wait_for()

    slider = page.get_by_role("slider", name="history")
    slider.focus()
    for key, step in [("Home", 0), ("End", last)]:
        page.keyboard.press(key)
        eventually(lambda: kernels(page), numbers(made.weights_at(step)["conv1.weight"]))
        eventually(lambda: state(page).get("at"), str(step))
    page.get_by_role("button", name="Restart").click()
    page.wait_for_selector("text=paused at step 0")
    eventually(lambda: state(page).get("training") not in {name, None}, True)
    page.get_by_role("button", name="One step").click()
    page.wait_for_selector("text=paused at step 1")
    name = state(page)["training"]
    page.get_by_role("button", name="Restart").click()  # something would be lost
    again = page.get_by_role("button", name="Stop at step 1 and restart")
    again.wait_for()
    assert state(page)["training"] == name
    again.click()
    page.wait_for_selector("text=paused at step 0")
    eventually(lambda: state(page).get("training") not in {name, None}, True)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")


def test_a_training_starts_anew_when_it_has_ended_and_one_too_many_gets_a_sentence(page: Any, explorer: Any) -> None:
    def train() -> str:
        former = state(page).get("training")
        page.get_by_role("button", name="Train", exact=True).click()
        eventually(lambda: state(page).get("training") not in {former, None}, True)
        page.wait_for_selector("text=paused at step 0")
        return state(page)["training"]

    visit(page, explorer, "?view=train&model=short", "form button")
    page.get_by_label("wait before").check()
    first, second = train(), train()
    page.get_by_role("button", name="Train", exact=True).click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    busy = f"{first} and {second} are running, and the limit is 2 at a time; stop one first."
    eventually(alert.text_content, busy)
    forgive(page, "409")

    page.get_by_role("button", name="Restart").click()
    page.wait_for_url(lambda url: f"training={second}" not in url)
    page.wait_for_selector("text=paused at step 0")
    eventually(alert.count, 0)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")
    visit(page, explorer, "?view=train&model=short&at=0", f"button:text-is('{first}')")
    page.wait_for_selector("section[aria-label=Kernels] .grid")
    assert state(page) == {"view": "train", "model": "short", "at": "0"}  # though another training is under way
    page.get_by_role("button", name=first, exact=True).click()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")


def test_a_run_that_was_trained_before_has_its_curves(page: Any, explorer: Any, run: cs.Run) -> None:
    visit(page, explorer, "?view=train&model=short", "section[aria-label=Training] canvas")
    points = {event["step"] for event in run.history}
    loss, accuracy = f"{run.metrics['test_loss']:.3g}", f"{run.metrics['test_accuracy']:.2%}".replace("%", " %")
    page.get_by_role("img", name=re.compile(f"^Loss over {len(points)} points.*test {re.escape(loss)}$")).wait_for()
    page.get_by_role("img", name=re.compile(f"^Accuracy over.*test {re.escape(accuracy)}$")).wait_for()
    plot = page.locator(".u-over").first
    plot.click(position={"x": 3, "y": 40})  # the first step
    eventually(lambda: state(page).get("at"), "0")


def test_the_chosen_image_stays_when_a_training_starts(page: Any, explorer: Any) -> None:
    visit(page, explorer, "?view=train&model=short&input=s~shapes~test~3", "form button")
    page.get_by_label("wait before").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector("text=paused at step 0")
    assert state(page)["input"] == "s~shapes~test~3"
    page.locator(".strip .photo").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")


def test_a_training_that_cannot_start_says_why(page: Any, explorer: Any) -> None:
    visit(page, explorer, "?view=train&training=unknown", "form button")
    page.get_by_role("alert").filter(has_text="unknown").wait_for()
    forgive(page, "404")


def test_whoever_left_the_view_stays_where_they_are(page: Any, explorer: Any) -> None:
    """The list of trainings that arrives late belongs to a view that is gone."""
    visit(page, explorer, "?view=train&model=short", "form button")
    page.get_by_label("wait before").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector("text=paused at step 0")
    late: list[Any] = []

    def keep(route: Any) -> None:
        late.append(route)

    page.route(re.compile("/api/trainings$"), keep)
    visit(page, explorer, "?view=train", "form")
    while not late:
        page.wait_for_timeout(50)
    page.get_by_role("link", name="Look").click()
    page.wait_for_selector(".reasons .sum")
    for route in late:
        with page.expect_response(re.compile("/api/trainings$")):
            route.continue_()
    page.unroute_all()
    page.get_by_role("link", name="Kernels").click()
    page.wait_for_url("**view=kernels**")
    assert "training" not in state(page)

    page.get_by_role("link", name="Train").click()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=stopped")


def test_eight_kernels_are_in_one_row(chromium: Any, explorer: Any, run: cs.Run) -> None:
    with tab(chromium, size=(1440, 900)) as page:
        visit(page, explorer, "?view=train&model=short", "section[aria-label=Kernels] .grid")
        tops = page.eval_on_selector_all(
            "section[aria-label=Kernels] .grid", "all => all.map(e => Math.round(e.getBoundingClientRect().top))"
        )
        assert len(tops) == 8
        assert len(set(tops)) == 1
        page.goto("about:blank")


def test_two_steps_of_a_training_side_by_side(page: Any, explorer: Any, run: cs.Run) -> None:
    last = run.steps[-1]
    visit(page, explorer, f"?view=compare&model=short&at={last}&other=short&otherat=0", "text=What differs")
    a, b = traced(run, last), traced(run, 0)
    eventually(lambda: said(page), [list(pair) for pair in zip(answers(a), answers(b), strict=True)])
    shares = [[step.name, f"{100 * step.changed / step.count:.2f} %"] for step in cs.difference(b, a).steps]
    eventually(lambda: differences(page), shares)
    page.set_viewport_size({"width": 320, "height": 700})
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth"), 320)
    page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    slider = page.get_by_role("slider", name="Training step of short").last
    slider.focus()
    page.keyboard.press("End")
    page.get_by_text(f"All numbers of these {len(a.steps)} steps are the same.").wait_for()
    page.get_by_text("all numbers are the same in this channel").wait_for()
    page.get_by_role("button", name="swap A and B").click()
    eventually(lambda: state(page).get("otherat"), str(last))


def differences(page: Any) -> list[list[str]]:
    found: list[list[str]] = page.eval_on_selector_all(
        "section[aria-label='What differs'] tbody tr",
        "all => all.map(tr => [tr.querySelector('th'), tr.querySelector('.mono')].map(e => e.textContent.trim()))",
    )
    return found


def test_every_kernel_with_its_numbers_and_sums(page: Any, explorer: Any, run: cs.Run) -> None:
    visit(page, explorer, "?view=kernels&model=short", "section[aria-label=Kernels] .grid")
    weights = {name: value.detach().numpy() for name, value in run.model.named_parameters()}
    eventually(lambda: kernels(page), numbers(weights["conv1.weight"]))
    page.get_by_role("tab", name=re.compile("conv2")).click()
    page.wait_for_selector("th:has-text('input 0')")
    page.get_by_label("numbers in every kernel").check()
    eventually(lambda: kernels(page), numbers(weights["conv2.weight"]))
    sums = page.eval_on_selector_all("section[aria-label=Kernels] .sum", "all => all.map(e => e.title)")
    found = [float(text.removeprefix("sum ").replace("−", "-")) for text in sums]
    assert found == pytest.approx(weights["conv2.weight"].sum((2, 3)).ravel().tolist(), abs=1e-6)
    page.get_by_role("tab", name=re.compile("^fc")).click()
    page.get_by_role("button", name="unit 1").wait_for()
    titles = page.eval_on_selector_all("section[aria-label=Kernels] dd", "all => all.map(e => e.title)")
    found = [float(text.replace("−", "-")) for text in titles]
    units = zip(weights["fc.weight"].sum(1), weights["fc.bias"], strict=True)
    assert found == pytest.approx([float(number) for unit in units for number in unit], abs=1e-5)


def test_the_image_that_the_page_was_opened_with_is_the_pinned_one(page: Any, run: cs.Run) -> None:
    with cs.open(run.path, "shapes:test/5", port=0, browser=False) as opened:
        visit(page, opened, "", ".reasons .card")
        page.get_by_role("link", name="Train", exact=True).click()
        page.locator("section[aria-label='Pinned image']").wait_for()
        shown = page.locator(".strip .answers tbody td:nth-of-type(1)")
        eventually(lambda: sorted(shown.all_inner_texts()), sorted(answers(traced(run, image="shapes:test/5"))))


def test_named_filters_on_the_image(page: Any, explorer: Any, run: cs.Run) -> None:
    visit(page, explorer, "?view=kernels&model=short&kernel=blur", ".result")
    result = cs.filters.apply_filter(cs.load_image("shapes:test/0", like=run.model), cs.filters.FILTERS["blur"])
    picture = page.locator(".result [role=img]")
    words = f"blur on the image, from {result.min():g} to {result.max():g}"
    eventually(lambda: picture.get_attribute("aria-label"), words)


VIEWS = {
    "train": ("?view=train&model=short&at=0", "body:has(.scroller button) section[aria-label=Kernels] .grid"),
    "compare": ("?view=compare&model=short&other=short&otherat=0", ".three canvas"),
    "kernels": ("?view=kernels&model=short&layer=conv2.weight", ".result canvas"),
}


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("view", VIEWS)
def test_it_looks_right_and_is_accessible(
    chromium: Any, explorer: Any, view: str, size: tuple[int, int], tmp_path: Path
) -> None:
    query, ready = VIEWS[view]
    with tab(chromium, size=size) as page:
        visit(page, explorer, query, ready)
        for scheme in ["light", "dark"]:
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            keep(page, f"{view}-{'wide' if size == WIDE else 'narrow'}-{scheme}", tmp_path)
