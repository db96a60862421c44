"""Several tabs, several people and a server that was started anew, in a real browser."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

import convscope as cs
from browser import forgive, tab
from convscope.server.session import workspace
from convscope.server.traces.passes import TraceStore
from exploring import at, recorded, rows, settled, state, visit, wander
from launching import free_port


@pytest.fixture(scope="module")
def narrow() -> Iterator[Any]:
    """A server that has room only for the traces that are being looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "TraceStore", partial(TraceStore, max_bytes=1))
        explorer = cs.open(cs.load_model("shapes-cnn", seed=3), "shapes:test/12", port=0, browser=False)
    with explorer:
        yield explorer


def asked(page: Any) -> list[Any]:
    """The requests that a page sends from now on."""
    found: list[Any] = []
    page.on("request", lambda request: found.append(request) if "/api/" in request.url else None)
    return found


def sample(index: int) -> str:
    return f"?input=s~shapes~test~{index}&step=1&cell=2.16.9"


def test_tabs_have_names_and_keep_each_others_traces(page: Any, narrow: Any) -> None:
    other = page.context.new_page()
    first, second = asked(page), asked(other)
    visit(page, narrow, sample(12))
    number = recorded(page)
    for index in range(3):
        visit(other, narrow, sample(index))
        settled(other)
    names = [{request.headers["x-client"] for request in requests} for requests in (first, second)]
    assert [len(each) for each in names] == [1, 1]
    assert names[0] != names[1]

    first.clear()
    wander(page, sample(12).replace("2.16.9", "2.16.10"))
    page.wait_for_url("**2.16.10")
    settled(page)
    assert recorded(page) != number
    assert [request.url for request in first if request.method == "POST"] == []
    page.reload()
    settled(page)
    assert {request.headers["x-client"] for request in first} == names[0]
    other.close()


def test_two_tabs_and_a_second_person_have_their_own_state(chromium: Any, page: Any, narrow: Any) -> None:
    other = page.context.new_page()
    visit(page, narrow, sample(12))
    visit(other, narrow, sample(3) + "&edits=conv1.bias:2:5")
    with tab(chromium) as stranger:
        visit(stranger, narrow, "?step=1&cell=2.16.9")
        found = [recorded(each) for each in (page, other, stranger)]
    assert found[0] == found[2] != found[1]  # an edit is one tab's own
    assert "edits" in state(other)
    assert "edits" not in state(page)
    other.close()


def test_another_fragment_than_a_key_does_not_load_the_page_anew(page: Any, narrow: Any) -> None:
    visit(page, narrow, sample(12))
    settled(page)
    page.evaluate("window.same = true")
    page.keyboard.press("Tab")
    link = page.get_by_role("link", name="Skip to the view")
    assert link.evaluate("e => e === document.activeElement")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.evaluate("location.hash = 'main'")
    page.wait_for_timeout(300)
    assert page.evaluate("window.same") is True
    assert rows(page)


def test_after_a_new_start_the_page_says_what_to_do_and_takes_the_new_key(page: Any) -> None:
    model = cs.load_model("shapes-cnn", seed=3)
    with cs.open(model, "shapes:test/12", port=free_port(), browser=False) as explorer:
        visit(page, explorer, at(1, 2, 16, 9))
        number = recorded(page)
        other = page.context.new_page()
        visit(other, explorer, at(1, 2, 16, 9))
    wander(page, at(1, 2, 16, 10))
    page.get_by_text("open the address that it prints").wait_for()
    with cs.open(model, "shapes:test/12", port=urlsplit(explorer.url).port, browser=False) as again:
        assert urlsplit(again.url).netloc == urlsplit(explorer.url).netloc
        page.get_by_text("It is at the end of the address that convscope printed in its terminal").wait_for()
        visit(page, again, at(1, 2, 16, 9))
        assert recorded(page) == number
        wander(other, at(1, 2, 16, 10))  # the key has come to the other tab too
        other.wait_for_url("**2.16.10")
        assert recorded(other) != number
        other.close()
        page.goto("about:blank")
    forgive(page, "ERR_", "401")
