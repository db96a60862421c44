"""Addresses with anything in them, in a real browser: each gives a page, no error, and no script of theirs."""

import random
from typing import Any
from urllib.parse import quote

import pytest

from browser import forgive

VIEWS = ("look", "change", "train", "compare", "probe", "kernels")
PARTS = (
    *("view", "model", "input", "origin", "change", "edits", "at", "fit", "step", "channel", "cell", "window", "trail"),
    *("why", "back", "slide", "pixels", "shared", "sort", "contrast", "hide", "open", "other", "otherat", "training"),
    *("blocks", "layer", "kernel", "question", "asked", "data", "split", "images", "of", "place", "class", "method"),
    *("__proto__", "constructor", "token", "unknown"),
)
VALUES = (
    *("", "0", "-1", "99999999999999999999", "1e309", "NaN", "-0", "1.5", " ", "null", "undefined", "[]", "{}", "%"),
    *("\u202e", "\U0001f600", "\0", "\n", "a" * 3000, "é" * 500, "%00", "%zz", "&", "#", "../../etc/passwd"),
    *("__proto__", "constructor", "toString", "hasOwnProperty", "javascript:alert(1)", "<script>alert(1)</script>"),
    *(
        '"><img src=x onerror=alert(1)>',
        "{{7*7}}",
        "0.0.0.0.0.0.0.0.0.0",
        "9999999.9999999",
        "loss-99",
        "class-9999999",
    ),
    *("p~1x28x28~AAAA", "p~0x0x0~", "p~99999x99999x99999~AAAA", "s~shapes~test~999999999", "s~__proto__~test~1"),
    *("u~constructor", "r180,d512,x512,n2,s2147483647", "conv~constructor1", "conv~kernels8~constructor5_relu"),
    *("conv1.weight:0.0.0.0:1e38", "__proto__:0:1", "image", "softmax", ":image", "constructor~1", "__proto__~0.0"),
)
SHORT, LONG = 60, 1200


def address(seed: int) -> str:
    """A query of up to six parts."""
    draw = random.Random(seed)
    parts = {name: draw.choice(VALUES) for name in draw.sample(PARTS, draw.randint(1, 6))}
    if draw.random() < 0.6:
        parts["view"] = draw.choice(VIEWS)
    return "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())


def wrong(page: Any, explorer: Any, query: str, *, anew: bool) -> str:
    """What is wrong with the page at an address; the console is watched besides."""
    if anew:
        page.goto(explorer.url.replace("#", f"{query}#"))
    else:
        page.evaluate("to => { history.pushState(null, '', to); dispatchEvent(new PopStateEvent('popstate')); }", query)
    page.locator("main, .viewer, form, [role=alert]").first.wait_for()
    page.wait_for_timeout(50)
    if page.locator("img[src=x], script:not([src])").count():
        return f"{query}: something of the address became an element"
    return "" if page.locator("header, nav").count() else f"{query}: the page is empty"


def assert_all_are_taken(page: Any, explorer: Any, seeds: range) -> None:
    forgive(page, "Failed to load resource")  # the server refuses what does not exist, and the browser notes that
    faults = [wrong(page, explorer, address(seed), anew=seed % 5 == 0) for seed in seeds]
    assert not [fault for fault in faults if fault]


def test_any_address_gives_a_page(page: Any, shapes: Any) -> None:
    assert_all_are_taken(page, shapes, range(SHORT))


@pytest.mark.study
@pytest.mark.parametrize("part", range(6))
def test_many_addresses_give_a_page(page: Any, shapes: Any, part: int) -> None:
    count = LONG // 6
    assert_all_are_taken(page, shapes, range(SHORT + part * count, SHORT + (part + 1) * count))
