"""The explorer in use, in a real browser: keyboard, pointer, samples, looks, and a server that is gone."""

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from browser import NARROW, WIDE, accessible, forgive, keep, tab
from exploring import at, eventually, recorded, rows, settled, visit, wander


def test_everything_is_reached_by_keyboard_alone(page: Any, shapes: Any) -> None:
    visit(page, shapes, at(0, 0, 12, 12))
    settled(page)
    page.locator(".card .map").nth(20).wait_for()
    focused = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"

    def tab_to(wanted: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if re.search(wanted, page.evaluate(focused) or ""):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"the focus on {wanted} cannot be seen"
                return
        raise AssertionError(f"no Tab leads to {wanted}")

    tab_to("^conv1, channel 0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**channel=1**")
    tab_to("^conv1, channel 1, 28 rows")
    page.keyboard.press("Enter")
    page.wait_for_url("**cell=1.13.13**")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.wait_for_url("**cell=1.12.14**")
    page.keyboard.press("PageDown")
    page.wait_for_url("**cell=2.12.14**")
    settled(page)
    page.wait_for_selector("[data-status=proved]")
    page.locator(".number [aria-live]").filter(has_text="conv1").wait_for(state="attached")
    tab_to("^input .*explain$")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**step=image**")
    page.go_back()
    page.wait_for_url("**cell=2.12.14**")


@pytest.mark.parametrize("width", [1024, 1100])
def test_what_does_not_fit_the_line_of_the_header_stays_at_the_right(chromium: Any, shapes: Any, width: int) -> None:
    with tab(chromium, size=(width, 768)) as page:
        visit(page, shapes, "?edits=conv1.weight:3.0.1.1:0.9&change=r15,d2")
        page.get_by_role("button", name="number edited").wait_for()
        button, name = (page.locator(f"header {part}").bounding_box() for part in (".theme", ".brand"))
        assert name["x"] < 40
        assert width - 40 < button["x"] + button["width"] <= width


def test_the_map_zooms_until_its_cells_hold_numbers(page: Any, shapes: Any) -> None:
    visit(page, shapes)
    page.locator(".zoom").get_by_role("button", name="numbers").click()
    assert page.get_by_role("button", name="Zoom in").is_disabled()
    page.get_by_role("button", name="whole").click()
    assert page.get_by_role("button", name="Zoom out").is_disabled()


def test_the_chosen_cell_is_in_the_middle_of_what_is_magnified(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv1"].id, 3, 10, 12))
    settled(page)
    page.locator(".zoom").get_by_role("button", name="numbers").click()
    page.locator(".viewer canvas").hover()  # in its middle
    page.locator(".readout").filter(has_text="(3, 10, 12)").wait_for()


def test_the_value_under_the_cursor_is_exact(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, f"?step={traced['conv1'].id}&channel=2")
    canvas = page.locator(".viewer canvas")

    def under() -> list[str]:
        side = canvas.bounding_box()["width"] / 28
        canvas.hover(position={"x": side * 20.5, "y": side * 7.5})
        said: list[str] = page.locator(".readout").inner_text().replace("−", "-").rsplit(maxsplit=1)
        return said

    eventually(lambda: under()[0], "(2, 7, 20)")
    assert np.float32(under()[1]) == traced["conv1"].output[0, 2, 7, 20]


def test_hints_come_once(chromium: Any, shapes: Any) -> None:
    with tab(chromium, first=True) as page:
        visit(page, shapes)
        hint = page.get_by_role("complementary", name="Hint")
        for _ in range(2):
            hint.get_by_role("button", name="Next").click()
        hint.get_by_text("3 of 3").wait_for()
        hint.get_by_role("button", name="Close").click()
        page.reload()
        page.wait_for_selector(".viewer canvas")
        assert hint.count() == 0


def test_another_image_is_chosen_from_the_samples(page: Any, shapes: Any) -> None:
    model = cs.load_model("shapes-cnn", seed=3)
    maps = cs.trace(model, cs.load_image("shapes:test/3", like=model))["conv1"].output[0]
    visit(page, shapes, "?step=conv1&cell=0.14.9")
    page.locator("button.now").click()
    page.locator("dialog button.sample").nth(3).click()
    page.wait_for_url("**input=s~shapes~test~3**")
    eventually(lambda: recorded(page), float(maps[0, 14, 9]))


def test_the_switch_shares_one_scale_over_all_steps(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=conv1")
    page.locator(".card .map").nth(20).wait_for()
    page.get_by_label("one colour scale for all steps").check()
    page.wait_for_url("**shared=1**")
    eventually(lambda: len(set(page.locator(".card .ends").all_inner_texts())), 1)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pictures_of_the_view_are_accessible_and_fit(
    chromium: Any, shapes: Any, traced: cs.Trace, tmp_path: Path, size: tuple[int, int]
) -> None:
    cells = {"conv": ("conv2", (5, 4, 4)), "linear": ("fc", (1,)), "max": ("pool1", (3, 2, 2))}
    with tab(chromium, size=size) as page:
        for kind, (name, cell) in cells.items():
            visit(page, shapes, at(traced[name].id, *cell) + "&pixels=1")
            rows(page)
            page.wait_for_selector("section[aria-label='Down to pixels'] :is(dl, p)")
            for scheme in ["light", "dark"]:
                page.emulate_media(color_scheme=scheme)
                accessible(page)
                keep(page, f"look-{kind}-{'wide' if size == WIDE else 'narrow'}-{scheme}", tmp_path)


def test_the_page_waits_for_a_server_that_is_gone(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(traced["conv1"].id, 3, 12, 12))
    former = rows(page)
    page.context.set_offline(True)
    wander(page, at(traced["conv2"].id, 5, 4, 4))
    page.get_by_text("The server does not respond").wait_for()
    page.context.set_offline(False)
    page.get_by_text("The server does not respond").wait_for(state="hidden")
    page.locator(".crumbs", has_text="conv2").wait_for()
    page.wait_for_selector("#window-channel")
    eventually(lambda: rows(page) != former, True)
    forgive(page, "ERR_INTERNET_DISCONNECTED")


def test_an_answer_from_before_does_not_say_that_the_server_is_back(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(0, 3, 12, 12))
    rows(page)
    late: list[Any] = []

    def hold(route: Any) -> None:
        late.append(route)  # is answered when the server is gone already

    page.route("**/output?**", hold)
    page.route(re.compile("/explain|/api/session"), lambda route: route.abort("connectionrefused"))
    wander(page, at(traced["conv2"].id, 5, 4, 4))
    banner = page.get_by_text("The server does not respond")
    banner.wait_for()
    eventually(lambda: len(late) > 0, True)
    with page.expect_response("**/output?**"):
        late[0].continue_()
    page.wait_for_timeout(500)
    assert banner.is_visible()
    for route in late[1:]:
        route.continue_()
    page.unroute_all()
    banner.wait_for(state="hidden")
    page.wait_for_selector("#window-channel")
    forgive(page, "ERR_CONNECTION_REFUSED")


def test_a_forgotten_trace_is_asked_for_again(page: Any, shapes: Any, traced: cs.Trace) -> None:
    visit(page, shapes, at(0, 3, 12, 12))
    rows(page)
    forgot: list[str] = []

    def forget(route: Any) -> None:
        if forgot:
            route.continue_()
            return
        forgot.append(route.request.url)
        route.fulfill(status=404, content_type="application/json", body='{"message": "no such trace."}')

    page.route("**/explain?**", forget)
    wander(page, at(traced["conv2"].id, 5, 4, 4))
    page.wait_for_selector("#window-channel")
    assert len(forgot) == 1
    assert recorded(page) == float(traced["conv2"].output[0, 5, 4, 4])
    forgive(page, "404")


def test_without_the_token_the_page_says_where_it_is(page: Any, shapes: Any) -> None:
    page.goto(shapes.address)
    page.get_by_text("The page needs the server's token").wait_for()
    forgive(page, "401")


def test_an_image_of_another_size_can_be_made_to_fit(page: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    painted = base64.urlsafe_b64encode(bytes(range(81))).decode()
    with cs.open(model, torch.rand(1, 8, 8), port=0, browser=False) as explorer:
        visit(page, explorer, f"?input=p~1x9x9~{painted}")
        page.locator("[role=alert]").filter(has_text="9").first.wait_for()
        page.get_by_role("button", name="Resize the image").click()
        page.wait_for_selector("[aria-label='The network']")
        page.goto("about:blank")
        forgive(page, "409")
