"""What tests do with the explorer's page: visit it, wait until it has answered, read what is on screen."""

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

import convscope as cs

SHOWN = ".viewer canvas, .answers table, [role=alert]"
"""One of these is on screen when a view has something to show."""
PATIENCE = 90
"""Seconds within which a page must have said what it will say; also on a machine with much else to do."""


def visit(page: Any, explorer: Any, query: str = "", ready: str = SHOWN) -> None:
    """Open the explorer's page in a state, and wait until this is on screen."""
    page.goto(explorer.url.replace("#", f"{query}#"))
    page.wait_for_selector(ready)


def wander(page: Any, query: str) -> None:
    """Change the state without loading the page again."""
    page.evaluate("to => { history.pushState(null, '', to); dispatchEvent(new PopStateEvent('popstate')); }", query)


def drag(page: Any, on: Any, *places: tuple[float, float]) -> None:
    """Press the mouse button on an element, move it, and let go; places in parts of the element's width and height.

    Waits until the element rests and receives the press: a box that is read while the page is still being laid out
    would lead to its neighbour.
    """
    on.hover()
    box = on.bounding_box()
    spots = [{"x": x * box["width"], "y": y * box["height"]} for x, y in places]
    on.hover(position=spots[0])
    page.mouse.down()
    box = on.bounding_box()
    for spot in spots[1:]:
        page.mouse.move(box["x"] + spot["x"], box["y"] + spot["y"], steps=6)
    page.mouse.up()


def at(step: int, *cell: int) -> str:
    """The query of a cell."""
    return f"?step={step}&cell={'.'.join(map(str, cell))}"


def eventually(said: Callable[[], Any], wanted: Any) -> None:
    """Assert that the page comes to say this."""
    until = time.monotonic() + PATIENCE
    result = said()
    while result != wanted and time.monotonic() < until:
        time.sleep(0.05)
        result = said()
    assert result == wanted


def state(page: Any) -> dict[str, str]:
    """What the address says."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.evaluate("location.href")).query).items()}


# The calculation of a number


def settled(page: Any) -> None:
    """Wait until the calculation on screen is that of the chosen cell, and checked."""
    page.wait_for_selector(
        "section[aria-label='This number'][aria-busy=false] [data-status]:not([data-status=checking])"
    )


def recorded(page: Any) -> float:
    """The number that is explained, in full."""
    settled(page)
    return float(page.get_attribute("[data-number]", "data-number"))


def rows(page: Any) -> dict[str, str]:
    """The lines of the calculation on screen: label -> number."""
    settled(page)
    result = page.eval_on_selector_all(
        ".lines tr", "all => all.map(tr => [tr.querySelector('th'), ...tr.querySelectorAll('td.mono')]"
        ".map(e => e === null ? '' : e.textContent.trim()))"
    )  # fmt: skip
    return {label: "".join(numbers) for label, *numbers in result if label}


def written(why: Any) -> str:
    """The calculation in text, as Python prints it."""
    return re.sub(r"\s+", " ", why.to_text(all=True).replace("recorded", "recorded by PyTorch"))


# Weights on screen


def cells(page: Any, selector: str) -> list[float]:
    """The numbers in the titles of these cells, in full: name = number."""
    titles = page.eval_on_selector_all(selector, "all => all.map(e => e.title)")
    return [float(np.float32(title.rsplit(" = ", 1)[1].split(":")[0].replace("−", "-"))) for title in titles]


def numbers(array: Any) -> list[float]:
    """The numbers of an array as the page writes them in full."""
    return [float(np.float32(f"{number:.9g}")) for number in np.asarray(array, np.float64).ravel()]


# The answers of the network


def percent(part: float) -> str:
    """A probability as the page writes it."""
    text = f"{part * 100:.2f}"
    if text == "100.00" and part < 1:
        return "> 99.99 %"
    return "< 0.01 %" if text == "0.00" and part > 0 else f"{text} %"


def answers(trace: cs.Trace) -> list[str]:
    """The probabilities as they should be written, class by class."""
    logits = np.asarray(trace.output, np.float64).reshape(-1)
    parts = np.exp(logits - logits.max())
    return [percent(float(part)) for part in parts / parts.sum()]


def said(page: Any) -> list[list[str]]:
    """The answers on screen: for each class its probabilities, the last of them now."""
    result: list[list[str]] = page.eval_on_selector_all(
        "section[aria-label=Answers] tbody tr",
        "all => all.map(tr => [...tr.querySelectorAll('td.mono')].map(td => td.textContent.trim()))",
    )
    return result


def now(page: Any) -> list[str]:
    """The probabilities on screen, as they are now."""
    return [row[-1] for row in said(page)]
