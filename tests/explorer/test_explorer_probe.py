"""Probe in a real browser: questions are asked, followed and answered with the numbers of `cs.probe`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import convscope as cs
from browser import NARROW, WIDE, accessible, forgive, keep, tab
from convscope.server.probes.service import RunningProbe
from exploring import eventually, state, visit

FORM = "main form .go"
ANSWER = ".answer .misleads"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    cs.train("shapes", model="shapes-cnn", epochs=1, out=made / "cnn")
    cs.train("shapes", model="shapes-mlp", epochs=1, out=made / "mlp")
    return made


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Iterator[Any]:
    with cs.serve(folder, port=0, browser=False) as found:
        yield found


def model(folder: Path, name: str = "cnn") -> Any:
    return cs.load_run(folder / name).model


def table(page: Any) -> list[list[str]]:
    """The first table on screen."""
    found: list[list[str]] = page.locator(".answer table").first.evaluate(
        "t => [...t.rows].map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    return found


def lines(page: Any) -> str:
    """The sentences on screen."""
    return "\n".join(page.locator(".answer .text p").all_text_contents())


def columns(text: str) -> list[list[str]]:
    """A printed table."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]


def test_a_question_is_asked_by_keyboard_and_its_numbers_are_those_of_python(
    page: Any, explorer: Any, folder: Path
) -> None:
    visit(page, explorer, "?view=probe&model=cnn", "nav[aria-label=Questions] a")
    page.get_by_role("link", name="Which units do nothing").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(FORM)
    page.get_by_label("Images, the first").fill("60")
    page.get_by_label("Images, the first").press("Enter")
    page.wait_for_selector(ANSWER)
    wanted = cs.probe.dead(model(folder), cs.load_dataset("shapes").part(slice(60)))
    head, printed, *rest = str(wanted).split("\n\n")
    assert table(page) == columns(printed)
    assert lines(page) == "\n".join([head, *rest])
    assert page.get_attribute("figure img", "alt") == head
    assert page.locator("[role=status]", has_text="Answered.").count() == 1
    address = page.url

    page.reload()
    page.wait_for_selector(ANSWER)
    assert table(page) == columns(printed)
    assert page.get_by_label("Images, the first").input_value() == "60"
    page.go_back()
    page.wait_for_selector(ANSWER, state="detached")
    page.go_forward()
    page.wait_for_selector(ANSWER)
    assert page.url == address

    page.get_by_role("link", name="tanh2").click()
    page.wait_for_selector("nav a[aria-current=page]:has-text('Look')")
    assert state(page)["step"] == "tanh2"


def test_an_image_of_another_size_is_made_to_fit_on_demand(page: Any, explorer: Any) -> None:
    forgive(page, "409")
    visit(page, explorer, "?view=probe&model=cnn&question=receptive-field&input=s~crosses~test~0", FORM)
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").filter(has_text="resize it or to pad it").wait_for()
    page.get_by_role("button", name="Pad the image").click()
    page.wait_for_selector(ANSWER)
    assert state(page)["fit"] == "pad"
    assert page.get_by_role("button", name="Resize the image").count() == 0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Questions that stop after a few images, until they are cancelled or the event is set."""
    released, tell = Event(), RunningProbe.progress

    def progress(probe: RunningProbe, what: str, done: int, total: int) -> None:
        tell(probe, what, done, total)
        while 0 < done < total and not (released.is_set() or probe.left):
            released.wait(0.05)

    monkeypatch.setattr(RunningProbe, "progress", progress)
    yield released
    released.set()


def test_progress_is_shown_and_a_question_is_cancelled(page: Any, explorer: Any, unhurried: Event) -> None:
    visit(page, explorer, "?view=probe&model=mlp&question=shift", FORM)
    page.get_by_label("Pixels, at most").fill("16")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("text=/translation: [1-9]\\d* of 200/")
    assert page.locator("progress").get_attribute("value") != "0"

    page.get_by_role("link", name="How far does one trivial").click()
    page.wait_for_selector("text=Also being answered: shift of mlp")
    page.go_back()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("p[role=status]:has-text('Cancelled.')")
    eventually(lambda: page.evaluate("document.activeElement.textContent"), "Ask")
    assert page.locator(".answer").count() == 0
    eventually(lambda: state(page).get("asked"), None)

    unhurried.set()
    page.get_by_label("Pixels, at most").fill("1")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("text=translation at 9 levels")


def test_what_cannot_be_asked_is_said(page: Any, explorer: Any) -> None:
    visit(page, explorer, "?view=probe&model=cnn&question=dead&asked=1&of=conv9", "[role=alert]")
    assert "no step is called 'conv9'" in page.inner_text("[role=alert]")
    visit(page, explorer, "?view=probe&model=cnn&question=receptive-field", FORM)
    page.locator("form").get_by_label("Step").select_option("conv1")
    page.get_by_label("Cell").fill("here")
    page.get_by_role("button", name="Ask").click()
    assert "numbers with commas" in page.inner_text("[role=alert]")
    page.get_by_label("Cell").fill("0, 3, 99")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("[role=alert]:has-text('99')")
    page.get_by_label("Cell").fill("0, 3, 4")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("text=can depend on 9 of the image's 784 cells")


def test_the_number_that_is_looked_at_is_the_one_that_is_asked_about(page: Any, explorer: Any, folder: Path) -> None:
    image = cs.load_image("shapes:test/5")
    trace = cs.trace(model(folder), image)
    query = f"?view=probe&model=cnn&input=s~shapes~test~5&step={trace['conv2'].id}&cell=0.4.4"
    visit(page, explorer, query, "nav[aria-label=Questions] a")
    page.get_by_role("link", name="Which pixels can this number").click()
    eventually(lambda: page.locator("form").get_by_label("Step").input_value(), "conv2")
    assert page.get_by_label("Cell").input_value() == "0, 4, 4"
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector(ANSWER)
    assert lines(page) == str(cs.probe.receptive_field(trace, "conv2", (0, 4, 4)))


def test_an_image_of_an_answer_leads_to_it_and_the_picture_is_shown_large(
    page: Any, explorer: Any, folder: Path, tmp_path: Path
) -> None:
    visit(page, explorer, "?view=probe&model=cnn&question=compare", FORM)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector(ANSWER)
    wanted = cs.probe.compare([model(folder), model(folder, "mlp")], cs.load_dataset("shapes", split="test"))
    assert [row[-1] for row in table(page)[1:]] == [str(one.accuracy) for one in wanted.models]
    page.locator("figure button").click()
    page.wait_for_selector("dialog[open] img")
    assert page.evaluate("document.querySelector('dialog[open] img').naturalWidth") > 200
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download as JSON").click()
    assert json.loads(Path(saved.value.path()).read_text())["disagreeing"] == wanted.disagreeing

    first = wanted.disagreements[0].image
    page.locator(".samples a").first.click()
    page.wait_for_selector(".reasons .sum")
    assert state(page)["input"] == f"s~shapes~test~{first}"


def test_an_answer_that_the_server_has_forgotten_is_asked_for_again(page: Any, explorer: Any) -> None:
    query = "?view=probe&model=cnn&question=shortcut&data=shapes&asked=1"
    visit(page, explorer, query, ANSWER)
    told = lines(page)
    explorer._probes._all.clear()
    page.reload()
    page.wait_for_selector(ANSWER)
    assert lines(page) == told
    assert "circle where area is 81 or 113, else square" in table(page)[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_looks_right_and_is_accessible(
    chromium: Any, explorer: Any, size: tuple[int, int], scheme: str, tmp_path: Path
) -> None:
    name = f"{'wide' if size == WIDE else 'narrow'}-{scheme}"
    with tab(chromium, size=size, scheme=scheme) as page:
        visit(page, explorer, "?view=probe&model=cnn", ".start")
        accessible(page)
        for question in ("patches", "compare&other=mlp", "receptive-field&of=conv2&place=0.4.4"):
            visit(page, explorer, f"?view=probe&model=cnn&question={question}&asked=1", ANSWER)
            accessible(page)
            keep(page, f"probe-{question.partition('&')[0]}-{name}", tmp_path)
