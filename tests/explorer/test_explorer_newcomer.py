"""The page for a first visit, in a real browser: it hides nothing and says what it needs."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from PIL import Image

import convscope as cs
from browser import forgive, tab
from exploring import eventually, visit


def test_all_that_differs_is_in_sight_and_the_longest_bar_is_the_largest(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?view=change", "section[aria-label=Kernel] .grid input")
    page.get_by_label("Use a named kernel").select_option("sobel-x")
    page.wait_for_selector(".differs tbody tr")
    assert page.evaluate("(e => [e, e.parentElement])(document.querySelector('.differs table'))"
                         ".every(e => e.scrollHeight <= e.clientHeight + 1)")  # fmt: skip
    bars = page.eval_on_selector_all(".differs .bar span", "all => all.map(e => parseFloat(e.style.width))")
    largest = page.eval_on_selector_all(
        ".differs tbody tr", "all => all.map(tr => parseFloat(tr.lastElementChild.textContent))"
    )
    assert max(bars) == 100
    assert bars == pytest.approx([100 * each / max(largest) for each in largest], abs=0.1)


def test_without_the_token_there_is_one_sentence_and_no_hint(chromium: Any, shapes: Any) -> None:
    with tab(chromium, first=True) as page:
        page.goto(shapes.address)
        page.get_by_text("The page needs the server's token").wait_for()
        eventually(lambda: page.locator("main").inner_text().strip(), "")
        assert page.locator("aside").count() == 0
        forgive(page, "401")


def test_hints_wait_for_something_to_look_at(chromium: Any, tmp_path: Path) -> None:
    with cs.serve(tmp_path, port=0, browser=False) as explorer, tab(chromium, first=True) as page:
        visit(page, explorer, ready="text=No model is open")
        assert page.locator("aside").count() == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """A server over two runs of networks with other classes."""
    folder = tmp_path_factory.mktemp("runs")
    for index in range(10):
        place = folder / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), 20 * index).save(place / f"{index}.png")
    cs.train(f"folder:{folder / 'data'}", "mnist-small", epochs=1, batch_size=8, out=folder / "letters")
    cs.train("shapes", model="shapes-cnn", epochs=1, out=folder / "shapes")
    with cs.serve(folder, port=0, browser=False) as explorer:
        yield explorer, folder


def test_answers_of_other_classes_are_listed_apart(page: Any, runs: tuple[Any, Path]) -> None:
    visit(page, runs[0], "?view=compare&model=shapes&other=letters", "section[aria-label=Answers] table >> nth=1")
    lists = page.eval_on_selector_all(
        "section[aria-label=Answers] table",
        "all => all.map(t => [...t.querySelectorAll('tbody th')].map(e => e.title))",
    )
    classes = [list(cs.load_run(runs[1] / name).card.classes) for name in ("shapes", "letters")]
    assert [sorted(each) for each in lists] == [sorted(each) for each in classes]


def test_the_image_is_resized_for_a_second_network_that_takes_another_size(page: Any, runs: tuple[Any, Path]) -> None:
    """Without a refusal by the server, which the console would show."""
    explorer, folder = runs
    cs.train("crosses", epochs=1, out=folder / "small")
    visit(page, explorer, "?view=compare&model=shapes&other=small", "section[aria-label=Second] canvas")
    page.locator("section[aria-label=Second]").get_by_text("3×3").first.wait_for()
    rmtree(folder / "small")


def test_a_deleted_run_says_so(page: Any, runs: tuple[Any, Path]) -> None:
    explorer, folder = runs
    cs.train("crosses", epochs=1, out=folder / "deleted")
    visit(page, explorer, "?view=train&model=deleted", ".history")
    rmtree(folder / "deleted")
    page.reload()
    page.get_by_role("alert").filter(has_text="the run folder of deleted no longer exists").wait_for()
    assert "deleted (nothing kept)" in page.get_by_label("Model", exact=True).first.inner_text()
    forgive(page, "404", "410")  # what the page asked for while the folder went


def test_a_step_that_is_not_there_is_left_for_the_first_one(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=99&channel=77", ".reasons .sum")
    eventually(lambda: page.evaluate("location.search"), "")
    said = page.get_by_text("The network has no step “99”; another one is shown.")
    said.wait_for()
    page.get_by_role("button", name="Close").click()
    said.wait_for(state="detached")


def test_a_model_that_is_not_there_is_said_and_another_one_shown(page: Any, runs: tuple[Any, Path]) -> None:
    explorer = runs[0]
    visit(page, explorer, "?model=<b>gone&step=2&cell=0.1.1&edits=fc.bias:0:1", ".reasons .sum")
    said = page.get_by_text("There is no model “<b>gone” here; this is letters.")
    said.wait_for()
    eventually(lambda: page.evaluate("location.search"), "")
    page.get_by_label("Model", exact=True).select_option("shapes")
    said.wait_for(state="detached")

    visit(page, explorer, "?view=compare&model=shapes&other=gone", "section[aria-label=Answers]")
    page.get_by_text("There is no model “gone” here to compare with; another one is shown.").wait_for()
    eventually(lambda: "other" in page.evaluate("location.search"), False)
    assert "model=shapes" in page.url


def test_a_run_that_was_made_after_the_page_was_opened_is_no_missing_model(page: Any, runs: tuple[Any, Path]) -> None:
    explorer, folder = runs
    visit(page, explorer, "?model=shapes", ".reasons .sum")
    cs.train("crosses", epochs=1, out=folder / "later")
    page.evaluate(
        "() => { history.pushState(null, '', '?model=later'); dispatchEvent(new PopStateEvent('popstate')); }"
    )
    page.get_by_label("Model", exact=True).locator("option:checked").filter(has_text="later").wait_for(state="attached")
    page.wait_for_selector("section.strip")
    assert page.get_by_text("There is no model").count() == 0


def test_what_is_asked_for_comes_into_view(page: Any, shapes: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 560})
    visit(page, shapes, "?step=0&cell=0.5.5", "[data-number]")
    page.get_by_label("down to pixels").check()
    section = page.locator("section[aria-label='Down to pixels']")
    section.locator("dl, p").first.wait_for()
    eventually(lambda: page.evaluate("scrollY > 0"), True)
    eventually(lambda: section.bounding_box()["y"] < 400, True)


@pytest.mark.parametrize(("cell", "place"), [("0.5.7", (4, 6, 3, 3)), ("0.0.0", (0, 0, 2, 2))])
def test_a_window_is_framed_on_its_source(page: Any, shapes: Any, cell: str, place: tuple[int, ...]) -> None:
    visit(page, shapes, f"?step=0&cell={cell}", "[data-frame=window]")
    framed = """() => {
        const [frame, photo] = ["[data-frame=window]", "button.photo"]
            .map(e => document.querySelector(e).getBoundingClientRect());
        return [frame.y - photo.y, frame.x - photo.x, frame.height, frame.width];
    }"""
    eventually(lambda: page.evaluate(framed), pytest.approx([number / 28 * 80 for number in place], abs=0.6))
