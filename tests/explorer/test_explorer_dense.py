"""A dense layer as edges, and what an address leaves out of the page, in a real browser."""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from exploring import eventually, recorded, settled, state, visit

EDGES = "section[aria-label=Edges]"


@pytest.fixture(scope="module")
def dense() -> Iterator[tuple[Any, cs.Trace]]:
    """Thirty inputs, of which not all are drawn, and three units."""
    torch.manual_seed(5)
    model = nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(30, 3)))
    image = torch.rand(1, 5, 6) - 0.5
    with cs.open(model, image, port=0, browser=False) as explorer:
        yield explorer, cs.trace(model, image)


def drawn(page: Any) -> dict[tuple[int, int], tuple[float, float]]:
    """Each edge on screen: (input, unit) -> its number and its width."""
    page.wait_for_selector(f"{EDGES} path")
    edges = page.eval_on_selector_all(
        f"{EDGES} path",
        "all => all.map(e => [...e.dataset.edge.split(' '), e.dataset.value, getComputedStyle(e).strokeWidth])",
    )
    return {(int(i), int(unit)): (float(value), float(width[:-2])) for i, unit, value, width in edges}


def test_an_edge_is_as_wide_as_its_contribution_or_its_weight(page: Any, dense: tuple[Any, cs.Trace]) -> None:
    explorer, trace = dense
    weights, values = trace.parameters["fc.weight"], trace["flatten"].output[0]
    visit(page, explorer, f"?step={trace.steps[-1].name}&cell=1", f"{EDGES} path")
    for measure, numbers in {"contribution": weights * values, "weight": weights}.items():
        page.locator(EDGES).get_by_role("button", name=measure).click()
        largest = sorted(range(30), key=lambda i: -np.abs(numbers[:, i]).max())[:24]
        eventually(lambda: sorted({i for i, _ in drawn(page)}), sorted(largest))
        edges = drawn(page)
        assert len(edges) == 24 * 3
        wanted = {(i, unit): float(numbers[unit, i]) for i in largest for unit in range(3)}
        assert {edge: value for edge, (value, _) in edges.items()} == pytest.approx(wanted, rel=1e-5)
        width = {edge: 0.3 + 6 * abs(value) / np.abs(numbers).max() for edge, value in wanted.items()}
        assert {edge: wide for edge, (_, wide) in edges.items()} == pytest.approx(width, abs=0.01)


def test_an_edge_says_its_product_and_its_ends_are_numbers_to_go_to(page: Any, dense: tuple[Any, cs.Trace]) -> None:
    explorer, trace = dense
    name = trace.steps[-1].name
    visit(page, explorer, f"?step={name}&cell=1", f"{EDGES} path")
    (at, unit), (value, _) = max(drawn(page).items(), key=lambda edge: abs(edge[1][0]))
    page.locator(f"{EDGES} path[data-edge='{at} {unit}']").dispatch_event("pointerenter")
    says = page.locator(f"{EDGES} .says")
    eventually(lambda: says.inner_text().startswith(f"flatten {at}: "), True)
    shown = float(says.inner_text().rsplit(" = ", 1)[1].split(" to ")[0].replace("−", "-"))
    assert shown == pytest.approx(value, rel=1e-3)
    page.locator(f"{EDGES} .unit").nth(2).click()
    eventually(lambda: state(page)["cell"], "2")
    assert recorded(page) == float(trace.steps[-1].output[0, 2])
    page.locator(EDGES).get_by_role("button", name=f"input {at}", exact=True).click()
    eventually(lambda: state(page)["step"], "flatten")
    settled(page)
    assert recorded(page) == float(trace["flatten"].output[0, at])
    assert state(page)["trail"] == f"{name}~2"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_edges_look_right_and_are_accessible(chromium: Any, shapes: Any, size: tuple[int, int], tmp_path: Path) -> None:
    with tab(chromium, size=size) as page:
        visit(page, shapes, "?step=fc&cell=1", f"{EDGES} path")
        settled(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            keep(page, f"edges-{size[0]}-{scheme}", tmp_path)


def test_an_address_leaves_out_views_and_controls(page: Any, shapes: Any) -> None:
    visit(page, shapes, "?step=conv1&cell=0.3.3&hide=probe,image,find,tools,unknown")
    settled(page)
    assert page.locator("nav a").all_inner_texts() == ["Look", "Change", "Train", "Compare", "Kernels"]
    assert page.get_by_label("contrast").count() == 0
    assert page.locator("button.find").count() == 0
    page.get_by_role("link", name="Kernels").click()  # and it stays so
    page.get_by_role("heading", name="Filter").or_(page.locator("section[aria-label=Kernels]")).first.wait_for()
    eventually(lambda: state(page)["hide"], "probe,image,find,tools")
    assert page.locator("nav a").count() == 5
    visit(page, shapes, "?step=conv1&cell=0.3.3")
    assert page.get_by_label("contrast").count() == 1
    assert "Probe" in page.locator("nav a").all_inner_texts()
