"""What the page shows belongs together, also where its server is slow, gone, started anew or wrong, in a browser."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

import convscope as cs
from browser import forgive
from exploring import at, eventually, recorded, settled, state, visit, wander
from launching import free_port

MOMENT = 600
"""Milliseconds after which whatever is outdated must be marked."""


@contextmanager
def held(page: Any, pattern: str) -> Iterator[None]:
    """Requests of this kind are answered only afterwards."""
    waiting: list[Any] = []

    def keep(route: Any) -> None:
        waiting.append(route)

    page.route(re.compile(pattern), keep)
    yield
    for route in waiting:
        route.continue_()
    page.unroute_all()


def shown(page: Any) -> tuple[str, int]:
    """The step and cell under which the number stands, and how many badges there are."""
    return page.get_attribute("[data-number] >> xpath=..", "data-at"), page.locator("[data-status]").count()


def test_a_badge_never_stands_beside_another_cell(page: Any, shapes: Any, traced: cs.Trace) -> None:
    first, second = traced["conv1"].id, traced["conv2"].id
    visit(page, shapes, at(first, 3, 12, 12))
    number = recorded(page)
    with held(page, "/explain"):
        for query in (at(first, 3, 12, 13), at(second, 5, 4, 4), "?step=softmax&cell=1"):
            wander(page, query)
            page.wait_for_timeout(MOMENT)
            assert shown(page) == (f"{first} 3.12.12", 0)
            assert float(page.get_attribute("[data-number]", "data-number")) == number
            assert "has not been calculated yet" in page.locator(".pending").inner_text()
            assert page.locator("section[aria-label='This number']").get_attribute("inert") is not None
        wander(page, at(second, 5, 4, 4))
    assert recorded(page) == float(traced["conv2"].output[0, 5, 4, 4])
    assert shown(page) == (f"{second} 5.4.4", 1)
    assert page.locator(".pending").count() == 0


def test_an_answer_for_another_number_is_not_shown(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv1"].id, 3, 12, 12))
    settled(page)
    other = "cell=3,12,12"
    page.route("**/explain?**", lambda route: route.continue_(url=re.sub(r"cell=[\d,]+", other, route.request.url)))
    wander(page, at(traced["conv1"].id, 3, 12, 13))
    page.get_by_role("alert").filter(has_text="answered for another number").wait_for()
    assert page.locator("[data-status], [data-number]").count() == 0


def test_a_late_proof_is_not_that_of_the_next_cell(page: Any, shapes: Any, traced: cs.Trace) -> None:
    """A badge that arrives after its number must not go to the number chosen meanwhile."""
    step = traced["conv1"].id

    def unproved(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "proof": None})

    page.route("**/explain?**", unproved)
    late: list[Any] = []

    def keep(route: Any) -> None:
        late.append(route)

    page.route("**/proof?**", keep)
    visit(page, shapes, at(step, 3, 12, 12))
    page.wait_for_selector("[data-status=checking]")
    wander(page, at(step, 3, 12, 13))
    page.wait_for_selector(f"[data-at='{step} 3.12.13']")
    while len(late) < 2:
        page.wait_for_timeout(50)
    late[0].continue_()
    page.wait_for_timeout(MOMENT)
    assert page.get_attribute("[data-status]", "data-status") == "checking"
    late[1].continue_()
    page.wait_for_selector("[data-status=proved]")


def test_a_number_under_the_cursor_is_that_of_its_channel(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv1"].id, 3, 12, 12))
    settled(page)
    with held(page, "/output"):
        page.get_by_role("button", name="Next channel").click()
        page.wait_for_url("**cell=4.12.12**")
        page.locator(".readout", has_text="(4, 12, 12) not calculated yet").wait_for()
    page.locator(".readout", has_text=f"{float(traced['conv1'].output[0, 4, 12, 12]):.3f}"[:5]).wait_for()


def test_another_image_takes_its_badge_along(page: Any, shapes: Any, traced: cs.Trace) -> None:
    where = at(traced["conv1"].id, 3, 12, 12)
    visit(page, shapes, where)
    settled(page)
    with held(page, "/api/traces$"):
        wander(page, where + "&change=r40")
        page.locator("[data-stale] .answers, .answers[data-stale]").first.wait_for()
        assert page.locator("[data-status]").count() == 0
    eventually(lambda: page.locator("[data-stale]").count(), 0)
    settled(page)


def test_a_server_that_stops_leaves_no_proof_behind_and_one_started_anew_is_gone_on_with(page: Any) -> None:
    model = cs.load_model("shapes-cnn", seed=3)
    here = at(0, 2, 16, 9)
    with cs.open(model, "shapes:test/12", port=free_port(), browser=False) as explorer:
        visit(page, explorer, here + "&edits=conv1.bias:2:0.5")
        number = recorded(page)
    page.get_by_text("The server does not respond").wait_for()  # without a click
    canvas = page.locator(".viewer canvas")
    canvas.click(position={"x": 20, "y": 20})
    page.wait_for_timeout(MOMENT)
    assert shown(page) == ("0 2.16.9", 0)
    page.go_back()
    with cs.open(model, "shapes:test/12", port=urlsplit(explorer.url).port, browser=False) as again:
        field = page.get_by_label("Address with the token")
        field.wait_for()
        assert "printed in its terminal" in page.get_by_role("status").first.inner_text()
        field.fill("http://127.0.0.1/#token=" + "x" * 43)
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("not the token of the server").wait_for()
        field.fill(again.url)
        page.get_by_role("button", name="Continue").click()
        field.wait_for(state="detached")
        assert recorded(page) == number
        assert state(page)["cell"] == "2.16.9"
        assert "token" not in page.url
        page.goto("about:blank")
    forgive(page, "ERR_", "401")


def test_a_port_with_nobody_behind_it_is_noticed(page: Any, shapes: Any) -> None:
    """A server that accepts connections and never answers, as a process that hangs."""
    visit(page, shapes, at(0, 3, 12, 12))
    settled(page)
    hung = threading.Event()
    page.route("**/api/**", lambda _: hung.set())
    page.get_by_text("The server does not respond").wait_for()
    assert hung.is_set()
    page.unroute_all()


# Another network under the same name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A run with its history."""
    folder = tmp_path_factory.mktemp("runs")
    cs.train("shapes", model="shapes-cnn", epochs=1, out=folder / "shapes")
    with cs.serve(folder, port=0, browser=False) as explorer:
        yield explorer


DEPARTURES = {
    "weights": ("&at=0", "step 0 of", "Use the current weights"),
    "a number": ("&edits=conv1.bias:2:5", "1 number edited", "Undo the edit"),
    "a kernel": ("&edits=conv1.weight:0.0:0,0,0,0,1,0,0,0,0", "1 kernel edited", "Undo the edit"),
    "a turn": ("&change=r45", "turned 45°", "Turn back"),
    "a move": ("&change=d-3", "moved 3 up", "Move back"),
    "noise": ("&change=n0.2", "noise 0.20", "Remove the noise"),
    "a painting": ("&input=p~1x28x28~" + "A" * 1046, "painted image", "Use the original image"),
}


@pytest.mark.parametrize("case", DEPARTURES.values(), ids=DEPARTURES)
def test_what_is_not_the_plain_network_is_marked_in_every_view(case: tuple[str, str, str], page: Any, run: Any) -> None:
    query, label, undo = case
    for view in ("look", "change", "compare", "probe", "kernels"):
        visit(page, run, f"?view={view}{query}", f"header li:has-text('{label}')")
        assert label in page.title()
    page.locator("header").get_by_role("button", name=re.compile(f"^{re.escape(undo)}")).click()
    page.locator("header li").first.wait_for(state="detached")
    assert query.split("=")[0].strip("&") not in state(page)
    assert label not in page.title()


def test_training_marks_the_step_and_not_what_it_does_not_use(page: Any, run: Any) -> None:
    visit(page, run, "?view=train&model=shapes&at=0&change=r45&edits=conv1.bias:2:5", "header li")
    assert page.locator("header li").count() == 1
    page.get_by_role("link", name="Look").click()
    eventually(lambda: page.locator("header li").count(), 3)


# Dead ends


def test_a_number_that_float32_cannot_hold_is_refused_in_its_cell(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?view=change", "section[aria-label=Kernel] .grid input")
    cell = page.locator("section[aria-label=Kernel] .grid input").first
    former = cell.input_value()
    for text in ("1e39", "-4e38", "abc"):
        cell.fill(text)
        cell.press("Enter")
        page.get_by_role("alert").filter(has_text=text).wait_for()
        assert cell.input_value() == former
        assert "edits" not in state(page)
    cell.fill("0.25")
    cell.press("Enter")
    page.get_by_role("alert").wait_for(state="detached")
    eventually(lambda: "edits" in state(page), True)


@pytest.mark.parametrize(
    ("query", "undo"), [("edits=conv9.bias:2:1", "Undo the edit"), ("at=77", "Use the current weights")]
)
def test_every_refusal_has_a_way_back(query: str, undo: str, page: Any, shapes: Any) -> None:
    visit(page, shapes, f"?view=change&{query}", ".refusal [role=alert]")
    page.locator(".refusal").get_by_role("button", name=undo).click()
    page.locator("section[aria-label=Kernel] .grid input").first.wait_for()
    forgive(page, "422", "404", "409")


# Addresses


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?input=q", "This address has “input=q”, which cannot be read and is left out: input is s~shapes~test~3 for"),
        ("?input=p~1x1x1~A", "“input=p~1x1x1~A”, which cannot be read"),
        ("?step=conv1&cell=2.4.x", "“cell=2.4.x”, which cannot be read and is left out: cell is whole numbers such as"),
        ("?view=lok&chanel=3", "“view=lok” and “chanel=3”, which cannot be read and are left out"),
        ("?change=r999", "“change=r999”, which cannot be read"),
        ("?step=conv1&cell=99.4.4", "conv1 has the shape 8×28×28, so it has no cell (99, 4, 4); all of it is shown."),
        ("?step=softmax&cell=5", "softmax has the shape 2, so it has no cell (5); all of it is shown."),
        ("?step=conv1&channel=77", "conv1 has 8 channels, from 0; instead of channel 77, 7 is shown."),
        ("?open=conv9", "The network has no module “conv9” to unfold; it is left out."),
        ("?open=conv9,%2Bfc", "The network has no modules “conv9”, “+fc” to unfold; they are left out."),
        ("?step=conv1&cell=2.4.4&trail=fc9~1", "The network has no step “fc9”; it is left out of the way here."),
        (
            "?view=kernels&layer=conv9.weight",
            "No layer has the kernels “conv9.weight”; those of conv1.weight are shown.",
        ),
        ("?view=kernels&kernel=sobel", "No kernel is called “sobel”; sobel-x is shown. There are sobel-x, sobel-y"),
        ("?view=probe&question=shifts", "There is no question “shifts”; choose one of those beside."),
        ("?view=probe&question=shift&kind=noises", "“kind=noises”, which cannot be read and is left out: kind is"),
        ("?view=probe&question=dead&data=shape", "There are no data “shape” here; available: shapes"),
    ],
)
def test_what_a_link_has_that_means_nothing_is_said_in_one_sentence(
    page: Any, shapes: Any, query: str, sentence: str
) -> None:
    visit(page, shapes, query, "header nav")
    said = page.locator("[role=status] p", has_text=sentence)
    said.wait_for()
    said.get_by_role("button", name="Close").click()
    said.wait_for(state="detached")


def test_such_a_sentence_goes_once_something_is_chosen(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?input=q&step=conv1&cell=2.4.4")
    said = page.get_by_text("This address has “input=q”")
    said.wait_for()
    settled(page)
    page.get_by_role("link", name="Kernels").click()
    said.wait_for(state="detached")
    page.go_back()
    page.wait_for_selector(".viewer canvas")
    said.wait_for()


def test_links_name_steps_by_name_and_an_unknown_one_is_said(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv2"].id, 5, 4, 4))
    settled(page)
    page.locator(".sum figure").first.locator("button").nth(4).click()
    page.wait_for_url("**step=pool1**")
    assert state(page)["trail"] == "conv2~5.4.4"
    number = recorded(page)
    page.reload()
    assert recorded(page) == number
    page.locator(".crumbs button", has_text="conv2").click()
    page.wait_for_url("**step=conv2**")

    visit(page, shapes, "?step=conv9&cell=1.2.3", ".reasons .sum")
    page.get_by_text("The network has no step “conv9”; another one is shown.").wait_for()
    eventually(lambda: page.evaluate("location.search"), "")
