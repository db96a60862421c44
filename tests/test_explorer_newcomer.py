"""The page for somebody who sees it for the first time, in a real browser: it hides nothing and says what it needs."""

from collections.abc import Iterator
from typing import Any

import pytest

import convscope as cs
from browser import browser, forgive, tab


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def shapes() -> Iterator[Any]:
    with cs.open(cs.load_model("shapes-cnn", seed=3), "shapes:test/12", port=0, browser=False) as explorer:
        yield explorer


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    with tab(chromium) as found:
        yield found


def visit(page: Any, explorer: Any, query: str = "", ready: str = "main section") -> None:
    page.goto(explorer.url.replace("#", f"{query}#"))
    page.wait_for_selector(ready)


def test_all_that_differs_is_in_sight_and_the_longest_bar_is_the_largest(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?view=change", "section[aria-label=Kernel] .grid input")
    page.get_by_label("Put a named kernel in").select_option("sobel-x")
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
        page.get_by_text("The page needs this server's token").wait_for()
        page.wait_for_timeout(200)
        assert page.locator("main").inner_text().strip() == ""
        assert page.locator("aside").count() == 0
        forgive(page, "401")


def test_hints_wait_for_something_to_look_at(chromium: Any, tmp_path: Any) -> None:
    with cs.serve(tmp_path, port=0, browser=False) as explorer, tab(chromium, first=True) as page:
        visit(page, explorer, ready="text=No model is open")
        assert page.locator("aside").count() == 0
