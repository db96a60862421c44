"""The page on desks, tablets and telephones, in a real browser: everything fits, is at hand, and fingers are enough."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope as cs
from browser import NARROW, forgive, keep, tab
from exploring import answers, at, eventually, now, settled, state, visit

TABLET = (768, 1024)
VIEWS = {
    "look": "?step=3&cell=5.4.4&pixels=1",
    "change": "?view=change&change=r25,n0.2",
    "compare": "?view=compare",
    "probe": "?view=probe&question=shift",
    "kernels": "?view=kernels",
}
READY = {
    "look": "section[aria-label='Down to pixels'] dl",
    "change": ".differs tbody tr",
    "compare": "section[aria-label=Answers] table",
    "probe": "form .go",
    "kernels": "section[aria-label=Kernels] .grid",
}


@pytest.fixture(scope="module")
def named() -> Iterator[Any]:
    """The explorer on a network with many steps of long names."""
    torch.manual_seed(1)
    model = nn.Sequential()
    for n in range(17):
        part = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh())
        model.add_module(f"part_{n}_of_the_network_and_what_it_is_there_for_{n}", part)
    with cs.open(model, torch.rand(1, 8, 8), port=0, browser=False) as explorer:
        yield explorer


def box(page: Any, selector: str) -> dict[str, float]:
    found: dict[str, float] = page.locator(selector).first.bounding_box()
    return found


def beside(page: Any, left: str, right: str) -> bool:
    """Whether one stands to the right of the other."""
    first, second = box(page, left), box(page, right)
    return first["x"] + first["width"] <= second["x"] and second["y"] < first["y"] + first["height"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_from_the_smallest_telephone_on(chromium: Any, shapes: Any, view: str, tmp_path: Path) -> None:
    with tab(chromium, size=TABLET) as page:
        visit(page, shapes, VIEWS[view], READY[view])
        for width in (320, 640, 768, 961):
            page.set_viewport_size({"width": width, "height": 900})
            keep(page, f"{view}-{width}", tmp_path)


def test_a_tablet_shows_cause_and_effect_beside_each_other(chromium: Any, shapes: Any) -> None:
    with tab(chromium, size=TABLET) as page:
        visit(page, shapes, at(3, 5, 4, 4), "[data-number]")
        assert beside(page, ".viewer canvas", "[data-number]")
        visit(page, shapes, VIEWS["change"], READY["change"])
        assert beside(page, ".paper", "section[aria-label=Answers]")


def test_the_head_of_the_page_stays_where_it_is(chromium: Any, shapes: Any) -> None:
    with tab(chromium, size=TABLET) as page:
        places = []
        for view, query in {**VIEWS, "change": "?view=change"}.items():
            visit(page, shapes, query, ".paper" if view == "change" else READY[view])
            assert page.title() == f"shapes-cnn, {view.capitalize()} · convscope"
            places.append([(box(page, e)["x"], box(page, e)["y"]) for e in (".theme", "nav[aria-label=Views]", "main")])
        assert places == places[:1] * len(VIEWS)
        assert box(page, ".theme")["y"] < box(page, "nav[aria-label=Views]")["y"]


def test_of_long_names_the_end_is_shown_and_the_numbers_stay_in_sight(chromium: Any, named: Any) -> None:
    for size in (NARROW, TABLET, (1280, 830)):
        with tab(chromium, size=size) as page:
            visit(page, named, "?view=change&change=r30", ".differs tbody tr >> nth=30")
            hidden = page.evaluate(
                "() => { const e = document.querySelector('.differs .many'); return e.scrollWidth - e.clientWidth; }"
            )
            assert hidden <= 0
            names = page.locator(".differs tbody th button")
            assert names.first.get_attribute("title") == names.first.inner_text()
            widths = names.evaluate_all("all => all.map(e => e.clientWidth)")
            assert min(widths) > 60
            assert names.first.evaluate("e => getComputedStyle(e).direction") == "rtl"


def test_a_vector_is_as_large_as_on_its_card(page: Any) -> None:
    with cs.open(cs.load_model("shapes-mlp", seed=3), "shapes:test/12", port=0, browser=False) as explorer:
        visit(page, explorer, "?step=fc1&cell=0")
        page.locator(".crumbs", has_text="fc1").wait_for()  # the first step that calculates, not the one that reshapes
        settled(page)
        card = page.locator(".card", has_text="fc1").locator(".map")
        shapes = [found["width"] / found["height"] for found in (card.bounding_box(), box(page, ".viewer canvas"))]
        assert shapes == pytest.approx([5 / 4] * 2, rel=0.05)
        page.goto("about:blank")


def test_nothing_moves_when_the_maps_of_the_steps_arrive(chromium: Any, shapes: Any) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    with tab(chromium) as page:
        page.route("**/thumbnails?*", hold)
        with page.expect_request("**/thumbnails?*"):
            visit(page, shapes, "?view=change", ".paper canvas")
        before = box(page, ".paper canvas")
        for route in held:
            route.continue_()
        page.locator(".card .map canvas").nth(20).wait_for()
        assert box(page, ".paper canvas") == before


def test_the_wheel_scrolls_the_page_and_magnifies_with_control(page: Any, shapes: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 500})
    visit(page, shapes, at(0, 3, 12, 12))
    settled(page)
    page.locator(".viewer canvas").click(position={"x": 40, "y": 40})
    settled(page)
    whole = page.get_by_role("button", name="whole")
    page.mouse.wheel(0, 120)
    eventually(lambda: page.evaluate("scrollY"), 120)
    page.mouse.wheel(0, -60)
    eventually(lambda: page.evaluate("scrollY"), 60)
    assert whole.is_disabled()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    eventually(whole.is_enabled, True)
    assert page.evaluate("scrollY") == 60


# With fingers


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """A page on a telephone."""
    with tab(chromium, size=NARROW, touch=True) as page:
        yield page


def swipe(page: Any, start: tuple[float, float], end: tuple[float, float], *, apart: float = 0) -> None:
    """Move one finger, or a second one beside it, which comes later."""
    session = page.context.new_cdp_session(page)

    def touch(kind: str, at: tuple[float, float] | None, fingers: int) -> None:
        points = [] if at is None else [{"x": at[0] + apart * n, "y": at[1], "id": n} for n in range(fingers)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers = 1 if apart == 0 else 2
    for count in range(1, fingers + 1):
        touch("touchStart", start, count)
    for k in range(1, 21):
        touch("touchMove", (start[0] + (end[0] - start[0]) * k / 20, start[1] + (end[1] - start[1]) * k / 20), fingers)
    touch("touchEnd", None, 0)
    session.detach()


def test_a_finger_draws_and_two_move_the_page(phone: Any, shapes: Any) -> None:
    visit(phone, shapes, "?view=change", ".paper canvas")
    phone.get_by_role("button", name="Clear").tap()
    pixels = "[...document.querySelector('.paper canvas').getContext('2d').getImageData(0, 0, 28, 28).data]"
    eventually(lambda: max(phone.evaluate(f"{pixels}.filter((_, i) => i % 4 < 3)")), 0)

    paper, top = box(phone, ".paper"), phone.evaluate("scrollY")

    def vertical(x: float) -> tuple[tuple[float, float], tuple[float, float]]:
        return (paper["x"] + x, paper["y"] + 300), (paper["x"] + x, paper["y"] + 60)

    swipe(phone, *vertical(60))
    eventually(lambda: phone.locator("section[aria-label=Answers] thead").inner_text().split(), ["original", "now"])
    assert phone.evaluate("scrollY") == top
    picture = "document.querySelector('.paper canvas').toDataURL()"
    drawn = phone.evaluate(picture)
    swipe(phone, *vertical(150), apart=100)
    eventually(lambda: phone.evaluate("scrollY") > top, True)
    eventually(lambda: phone.evaluate(picture), drawn)


def test_a_finger_picks_a_cell_and_moves_page_and_strip(phone: Any, shapes: Any) -> None:
    visit(phone, shapes, at(0, 3, 12, 12), "[data-number]")
    settled(phone)
    canvas = box(phone, ".viewer canvas")
    phone.touchscreen.tap(canvas["x"] + canvas["width"] * 4.5 / 28, canvas["y"] + canvas["height"] * 7.5 / 28)
    phone.wait_for_url("**cell=3.7.4**")
    swipe(phone, (200, canvas["y"] + 200), (200, canvas["y"] + 20))
    eventually(lambda: phone.evaluate("scrollY > 100"), True)
    phone.evaluate("scrollTo(0, 0)")
    strip = box(phone, ".scroller")
    swipe(phone, (300, strip["y"] + 100), (60, strip["y"] + 100))
    eventually(lambda: phone.evaluate("document.querySelector('.scroller').scrollLeft > 100"), True)
    assert state(phone)["cell"] == "3.7.4"


def test_what_is_tapped_is_large_enough(phone: Any, shapes: Any) -> None:
    visit(phone, shapes, at(0, 3, 12, 12), ".answers button")
    settled(phone)
    small = phone.eval_on_selector_all(
        "main button:not(.map), main select, main label:has(input)",
        "all => all.map(e => [e.textContent.trim(), e.getBoundingClientRect().height]).filter(([, h]) => h && h < 24)",
    )
    assert small == []


def test_the_way_out_of_the_images_stays_in_sight(chromium: Any, shapes: Any) -> None:
    with tab(chromium, size=NARROW) as page:
        visit(page, shapes)
        page.locator("button.now").click()
        page.locator("dialog button.sample").nth(47).scroll_into_view_if_needed()
        assert page.evaluate("document.querySelector('dialog').scrollTop > 100")
        close = page.get_by_role("dialog").get_by_role("button", name="Close")
        assert close.bounding_box()["y"] > box(page, "dialog")["y"]
        close.click()
        page.get_by_role("dialog").wait_for(state="hidden")


def test_questions_are_listed_until_one_is_chosen(chromium: Any, shapes: Any) -> None:
    with tab(chromium, size=NARROW) as page:
        visit(page, shapes, "?view=probe", "p.start")
        menu, listed = page.locator(".other select"), page.get_by_role("navigation", name="Q")
        assert not menu.is_visible()
        listed.get_by_text("Which units do nothing").click()
        page.get_by_role("heading", name="Which units do nothing").wait_for()
        eventually(menu.is_visible, True)
        assert not listed.is_visible()


# With nothing to show


def test_where_there_is_no_model_the_page_leads_to_a_training(page: Any, tmp_path: Path) -> None:
    with cs.serve(tmp_path, port=0, browser=False) as explorer:
        visit(page, explorer, ready="text=No model is open")
        page.get_by_role("link", name="Train a network").click()
        page.get_by_role("button", name="Train", exact=True).wait_for()
        assert state(page)["view"] == "train"


def test_a_model_whose_data_are_gone_begins_with_a_drawing(page: Any, tmp_path: Path) -> None:
    for index in range(4):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), 60 * index).save(place / f"{index}.png")
    run = cs.train(f"folder:{tmp_path / 'data'}", "mnist-small", epochs=1, batch_size=2, out=tmp_path / "letters")
    rmtree(tmp_path / "data")
    with cs.serve(tmp_path, port=0, browser=False) as explorer:
        visit(page, explorer, "?view=change", "text=There is no image yet")
        assert page.get_by_role("slider").count() == 0  # there is nothing to move
        page.get_by_role("button", name="Draw an image").click()
        page.locator(".paper").wait_for()
        eventually(lambda: now(page), answers(cs.trace(run.model, np.zeros((1, 28, 28), np.float32))))
        page.goto("about:blank")


def test_without_the_token_no_view_is_offered(page: Any, shapes: Any) -> None:
    page.goto(shapes.address)
    page.get_by_text("The page needs the server's token").wait_for()
    assert page.get_by_role("navigation").count() == 0
    forgive(page, "401")


def test_in_forced_colours_data_keep_theirs_and_the_view_is_told_apart(
    page: Any, shapes: Any, traced: cs.Trace
) -> None:
    visit(page, shapes, at(traced["conv1"].id, 3, 12, 12))
    settled(page)

    def painted() -> list[str]:
        grounds = "all => all.map(cell => getComputedStyle(cell).backgroundColor)"
        found: list[str] = page.eval_on_selector_all(".number [style*=background]", grounds)
        return found

    former = painted()
    page.emulate_media(forced_colors="active")
    assert painted() == former
    assert len(set(former)) > 9
    lines = "all => all.map(link => getComputedStyle(link).borderBottomColor)"
    current, *others = page.eval_on_selector_all("header nav a", lines)
    assert current not in others
    assert len(set(others)) == 1
