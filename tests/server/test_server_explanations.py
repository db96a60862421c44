"""The explorer's sums, probabilities and contributions are those of `cs`, and what is cut has an honest rest."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import convscope as cs
from asking import Page, page_of, traced
from convscope.server.explanations.explanations import cut


@pytest.fixture(scope="module")
def net() -> Any:
    return cs.load_model("shapes-cnn", seed=3)


@pytest.fixture(scope="module")
def page(net: Any) -> Iterator[Page]:
    with page_of(net) as page:
        yield page


# Why


def test_an_explanation_is_that_of_cs(page: Page, net: Any) -> None:
    info, trace = page.trace(), traced(net)
    for name, cell in (("conv1", (2, 9, 9)), ("pool1", (1, 4, 4)), ("conv2", (3, 4, 4)), ("fc", (1,))):
        step = trace[name]
        result = page.get(f"traces/{info['id']}/steps/{step.id}/explain", cell=",".join(map(str, cell)))
        why = cs.explain(trace, step, cell)
        assert result["explanation"] == json.loads(json.dumps(why.to_json()))
        address = {"trace": info["id"], "step": step.id, "cell": [0, *cell]}
        assert result["of"] == address
        known = {"status": "proved", "proved": True, **asdict(cs.STATUSES["proved"])}
        assert result["proof"] == {"of": address, **known}
        assert result["rest"] is None
        assert page.get(f"traces/{info['id']}/steps/{step.id}/proof", cell=",".join(map(str, cell))) == result["proof"]
    assert result["sentence"].startswith("fc, unit 1, is ")
    assert "144 products of pool2 and fc.weight" in result["sentence"]


def test_the_paper_is_the_calculation_that_is_printed(page: Page, net: Any) -> None:
    info, trace = page.trace(), traced(net)
    for name, cell in (("conv1", (2, 9, 9)), ("conv2", (3, 4, 4)), ("fc", (1,)), ("tanh1", (0, 9, 9))):
        why = cs.explain(trace, name, cell)
        result = page.get(f"traces/{info['id']}/steps/{trace[name].id}/explain", cell=",".join(map(str, cell)))
        paper, printed = result["paper"], why.to_text()
        assert f"{why.name} = {paper['result']}" in printed
        for line in paper["lines"]:
            if line["kind"] == "row" and line["channel"] is None and not line["label"].startswith("sum of the"):
                assert line["label"] in printed
                assert line["number"] in printed
        expr = result["explanation"]["expr"]
        assert len(paper["products"]) == (len(expr["left"]["values"]) if expr["type"] == "dot" else 0)
        for line in paper["lines"]:
            if line["term"] is not None:
                assert line["number"] == paper["products"][line["term"]]


def test_the_lines_of_a_window_add_up(page: Page) -> None:
    info = page.trace()
    for cell in ("3,4,4", "0,0,0", "15,8,8"):
        lines = page.get(f"traces/{info['id']}/steps/3/explain", cell=cell)["paper"]["lines"]
        numbers = [(line, Decimal(line["number"].replace("−", "-"))) for line in lines if line["number"]]
        channels = [number for line, number in numbers if line["channel"] is not None]
        assert len(channels) == 8
        assert channels == sorted(channels, key=lambda number: -abs(number))
        at = [line["label"] for line, _ in numbers].index("calculated")
        assert numbers[8][0]["label"] == "sum of the 72 products"
        assert sum(channels) == numbers[8][1]
        assert sum(number for _, number in numbers[8:at]) == numbers[at][1]


def test_the_sums_so_far_end_in_the_line_of_their_channel(page: Page) -> None:
    info = page.trace()
    for step, cell in ((0, "3,12,12"), (0, "0,0,0"), (3, "3,4,4"), (3, "15,8,8")):
        result = page.get(f"traces/{info['id']}/steps/{step}/explain", cell=cell)
        paper, cells = result["paper"], result["explanation"]["expr"]["left"]["cells"]
        products, sums = ([_decimal(text) for text in paper[name]] for name in ("products", "sums"))
        assert len(sums) == len(products) == len(cells)
        for k, so_far in enumerate(sums):
            assert so_far == products[k] + (0 if k % 9 == 0 else sums[k - 1])
        lines = {line["channel"]: _decimal(line["number"]) for line in paper["lines"] if line["channel"] is not None}
        whole = next(line["number"] for line in paper["lines"] if line["label"].startswith("sum of the"))
        assert sum(sums[8::9]) == _decimal(whole)
        assert not lines or [lines[cells[k][-3]] for k in range(8, len(sums), 9)] == sums[8::9]


def test_sums_so_far_of_what_is_no_number_and_of_a_list() -> None:
    convolution, linear = nn.Conv2d(1, 1, (1, 3), bias=False), nn.Linear(2, 1, bias=False)
    model = nn.Sequential(convolution, nn.Flatten(), linear)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[[[1.0, 2.0, 4.0]]]]))
        linear.weight.copy_(torch.tensor([[0.5, 0.25]]))
    for image, sums in (([[[1, 2, 3, 4]]], ["1", "5", "17"]), ([[[1, np.inf, -np.inf, 4]]], ["1", "inf", "nan"])):
        with page_of(model, np.array(image, np.float32)) as page:
            info = page.trace(page.get("session")["models"][0]["start"])
            assert page.get(f"traces/{info['id']}/steps/0/explain", cell="0,0,0")["paper"]["sums"] == sums
            listed = page.get(f"traces/{info['id']}/steps/{info['output']}/explain", cell="0")["paper"]
            assert len(listed["sums"]) == 2
            if "nan" not in sums:
                assert listed["sums"] == ["8.5", "14.5"], "17 / 2 and 24 / 4 more"


def _decimal(shown: str) -> Decimal:
    return Decimal(shown.replace("−", "-"))


def test_long_sums_are_cut_with_an_honest_rest() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(40, 3, 3), nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    image = np.random.default_rng(1).normal(size=(40, 18, 18)).astype(np.float32)
    with page_of(model, image) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        for step, cell, kept in ((0, "1,5,5", 252), (info["output"], "2", 256)):
            path = f"traces/{info['id']}/steps/{step}/explain"
            some, whole = page.get(path, cell=cell), page.get(path, cell=cell, all=True)
            left, right = (some["explanation"]["expr"][side] for side in ("left", "right"))
            assert len(left["values"]) == len(right["values"]) == len(left["cells"]) == kept
            assert np.prod(left["grid"]) == kept
            assert whole["rest"] is None
            every = whole["explanation"]["expr"]
            total = np.dot(every["left"]["values"], every["right"]["values"])
            assert some["rest"]["terms"] == len(every["left"]["values"]) - kept
            assert np.dot(left["values"], right["values"]) + some["rest"]["total"] == pytest.approx(total, abs=1e-9)
            assert len(some["paper"]["products"]) == kept
            shown = [line for line in some["paper"]["lines"] if line["term"] is not None]
            assert all(line["number"] == some["paper"]["products"][line["term"]] for line in shown)
        one = page.get(f"traces/{info['id']}/steps/0/explain", cell="1,5,5", channel=7)
        assert one["explanation"]["expr"]["left"]["grid"] == [1, 3, 3]
        assert {cell[1] for cell in one["explanation"]["expr"]["left"]["cells"]} == {7}
        assert one["rest"]["terms"] == 39 * 9
        message = page.get(f"traces/{info['id']}/steps/0/explain", 400, cell="1,5,5", channel=40)
        assert message == "the window has channels 0 to 39, not 40."


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 5))
def test_cutting_keeps_the_largest_and_what_is_left_adds_up(values: list[float], most: int, padding: int) -> None:
    cells = {"type": "cells", "grid": [len(values)], "cells": [[i] for i in range(len(values))], "values": list(values)}
    cells["padding"] = list(range(min(padding, len(values))))
    expr: Any = {"type": "dot", "left": cells, "right": None, "bias": None, "scale": 1.0, "divisor": 1.0}
    products = np.array([0.0 if i < padding else v for i, v in enumerate(values)])
    kept, rest = cut(expr, most)
    if kept is None:
        assert len(values) <= most
        assert rest is None
        return
    assert rest is not None
    assert cells["values"] == [values[k] for k in kept]
    assert cells["padding"] == [path for path, k in enumerate(kept) if k < padding]
    out = [k for k in range(len(values)) if k not in set(kept.tolist())]
    assert rest["terms"] == len(out)
    assert rest["total"] == pytest.approx(products[out].sum(), abs=1e-9)
    assert np.abs(products[kept]).min() >= np.abs(products[out]).max()


def test_a_probability_is_a_softmax_over_the_answer(page: Page) -> None:
    info = page.trace()
    answer = info["answers"][1]
    result = page.get(f"traces/{info['id']}/probability/explain", cell=answer["index"])
    assert result["explanation"]["value"] == pytest.approx(answer["probability"], rel=1e-12)
    assert result["proof"]["proved"]
    cells = result["explanation"]["expr"]["arguments"]["cells"]
    assert (cells["name"], cells["kind"], len(cells["values"])) == ("fc", "step", 2)
    assert any("fc (" in line["label"] for line in result["paper"]["lines"])
    assert "no cell" in page.get(f"traces/{info['id']}/probability/explain", 400, cell=2)


@pytest.mark.parametrize("own_layer", [True, False])
def test_probabilities_that_are_the_answer_itself_are_not_turned_into_others(own_layer: bool) -> None:
    net = cs.load_model("shapes-cnn", args={"softmax": own_layer}, seed=3)
    model = net if own_layer else Softened(net)
    with page_of(model, "shapes:test/3") as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        output = page.raw(f"traces/{info['id']}/steps/{info['output']}/output")
        for answer in info["answers"]:
            assert answer["value"] == output[answer["index"]]
            assert answer["probability"] is None
            why = page.get(f"traces/{info['id']}/steps/{info['output']}/explain", cell=answer["index"])
            assert (why["explanation"]["recorded"], why["proof"]["proved"]) == (answer["value"], True)
        assert "no probabilities besides" in page.get(f"traces/{info['id']}/probability/explain", 404, cell=0)


class Softened(nn.Module):
    """A network that ends in a softmax without a layer for it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.softmax(self.net(x), 1).view(-1)


def test_contributions_are_those_of_cs(page: Page, net: Any) -> None:
    info, trace = page.trace(), traced(net)
    header, body = page.pack(f"traces/{info['id']}/steps/{trace['conv2'].id}/contributions", cell="3,4,4")
    result = cs.explain(trace, "conv2", (3, 4, 4)).to_input()
    assert header["info"]["shape"] == [1, 28, 28]
    assert header["info"]["value"] == result.value
    assert header["info"]["bent"] == list(result.bent)
    numbers = np.frombuffer(body, "<f4").reshape(2, 1, 28, 28)
    assert np.array_equal(numbers[0], result.pixels["input"][0].astype(np.float32))
    assert np.array_equal(numbers[1], result.weights["input"][0].astype(np.float32))
