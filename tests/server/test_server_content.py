"""The explorer's answers: every number compared with what `cs` gives directly, and a sentence for each bad input."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import convscope as cs
from asking import SAMPLE, Page, opened, page_of, painted
from convscope.server import schema
from convscope.server.explanations.explanations import cut
from convscope.server.session.inputs import changes
from convscope.server.session.workspace import Workspace
from convscope.server.traces.array_pictures import planes_of, shades, shrunk


@pytest.fixture(scope="module")
def net() -> Any:
    return cs.load_model("shapes-cnn", seed=3)


@pytest.fixture(scope="module")
def page(net: Any) -> Iterator[Page]:
    with page_of(net) as page:
        yield page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("shapes", epochs=1, out=tmp_path_factory.mktemp("runs") / "a run", seed=1)


@pytest.fixture
def served(run: cs.Run, tmp_path: Path) -> Iterator[Page]:
    shutil.copytree(run.path, tmp_path / "a run")
    with opened(Workspace.of_folder(tmp_path)) as page:
        yield page


def traced(net: Any, index: int = 3, **more: Any) -> cs.Trace:
    return cs.trace(net, cs.load_image(f"shapes:test/{index}", like=net), **more)


# What is open


def test_the_session_says_what_is_open(page: Page, net: Any) -> None:
    session = page.get("session")
    (model,) = session["models"]
    assert model["name"] == "shapes-cnn"
    assert model["parameters"] == sum(p.numel() for p in net.parameters())
    assert model["expects"] == {"channels": 1, "height": 28, "width": 28, "fixed": True}
    assert (model["source"], model["run"], model["history"]) == ("shapes", False, [])
    assert model["start"] == {**SAMPLE, "index": 0}
    assert {"shapes", "color-shapes", "crosses"} <= {source["id"] for source in session["sources"]}
    assert session["kernels"][0]["values"] == cs.filters.FILTERS["sobel-x"].kernel.tolist()
    assert session["can_train"] is False


def test_samples_are_the_images_of_the_data_set(page: Page) -> None:
    header, body = page.pack("samples", source="color-shapes", split="train", offset=7, limit=3)
    data = cs.load_dataset("color-shapes")
    assert [item["id"] for item in header["items"]] == [7, 8, 9]
    for item in header["items"]:
        n, h, w = item["shape"]
        picture = np.frombuffer(body, np.uint8, n * h * w, item["offset"]).reshape(n, h, w)
        assert np.array_equal(picture, data.images[item["id"]])
        assert item["label"] == data.labels[item["id"]]


def test_data_whose_files_are_here_are_shown(shared_data: Path) -> None:
    with opened(Workspace.of_model(cs.load_model("simple-cnn"), data_dir=shared_data)) as page:
        shown = page.get("session")["models"][0]["start"]
        assert shown == {"kind": "sample", "source": "mnist", "split": "test", "index": 0}
        info = page.trace(shown)
        digit = cs.load_dataset("mnist", split="test", data_dir=shared_data)
        assert np.array_equal(page.raw(f"traces/{info['id']}/input"), digit.image(0))
        assert info["input"]["label"] == digit.labels[0]


# A trace


def test_a_trace_is_that_of_cs(page: Page, net: Any) -> None:
    info, trace = page.trace(), traced(net)
    assert [step["name"] for step in info["steps"]] == [step.name for step in trace.steps]
    assert [step["shape"] for step in info["steps"]] == [list(step.shape) for step in trace.steps]
    assert info["steps"][0]["says"] == "convolution 3x3, padding 1"
    assert not any(step["transposed"] for step in info["steps"])
    assert info["modules"] == dict(trace.modules)
    assert info["output"] == trace["fc"].id
    assert info["error"] is None
    for step in trace.steps:
        assert np.array_equal(page.raw(f"traces/{info['id']}/steps/{step.id}/output"), step.output[0])
    assert np.array_equal(page.raw(f"traces/{info['id']}/steps/0/output", channel=5), trace["conv1"].output[0, 5])
    assert np.array_equal(page.raw(f"traces/{info['id']}/input"), trace.input[0])
    assert np.array_equal(page.raw(f"traces/{info['id']}/parameters/conv2.weight"), trace.parameters["conv2.weight"])


def test_a_transposed_convolution_says_so() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 5, 3))
    with page_of(net, np.zeros((1, 9, 9), np.uint8)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
    assert [step["transposed"] for step in info["steps"]] == [False, True]


def test_answers_are_those_of_predict(page: Page, net: Any) -> None:
    message = cs.predict(net, "shapes:test/3")[0]
    assert message.probabilities is not None
    answers = page.trace()["answers"]
    assert answers[0]["index"] == message.best
    for answer in answers:
        assert answer["value"] == float(message.output[answer["index"]])
        assert answer["probability"] == pytest.approx(message.probabilities[answer["index"]], rel=1e-12)


def test_one_number_is_an_answer_too() -> None:
    model = cs.load_model("crosses", args={"published": True})
    with page_of(model, "crosses:damaged-plus") as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        (answer,) = info["answers"]
        assert answer["value"] == pytest.approx(0.3760, abs=5e-5)
        assert (answer["index"], answer["probability"]) == (0, None)
        assert "nearest" in info["notes"][0]


def test_a_request_has_one_id_and_is_made_once(page: Page) -> None:
    first = page.trace()
    assert page.trace()["id"] == first["id"]
    assert page.get(f"traces/{first['id']}") == first
    assert page.trace(change={"right": 1})["id"] != first["id"]


def test_thumbnails_are_linear_between_low_and_high(page: Page, net: Any) -> None:
    info, trace = page.trace(), traced(net)
    header, body = page.pack(f"traces/{info['id']}/thumbnails", channels=4, first=2, side=14)
    assert [item["id"] for item in header["items"]] == [step.id for step in trace.steps]
    item, output = header["items"][0], trace["conv1"].output
    assert (item["channels"], item["total"]) == ([2, 3, 4, 5], 8)
    assert (item["low"], item["high"]) == (float(output.min()), float(output.max()))
    picture = np.frombuffer(body, np.uint8, 4 * 14 * 14, item["offset"]).reshape(4, 14, 14)
    means = output[0, 2:6].astype(np.float64).reshape(4, 14, 2, 14, 2).mean((2, 4))
    assert np.abs(picture - (means - item["low"]) / (item["high"] - item["low"]) * 255).max() <= 0.5 + 1e-6
    assert header["items"][6]["shape"] == [1, 1, 144]  # flatten: one row


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_shrinking_puts_every_number_into_one_mean(height: int, width: int, side: int) -> None:
    ones = np.eye(height * width).reshape(-1, height, width)  # a plane for each pixel
    small = shrunk(ones, side)
    if height == 1:
        assert small.shape[1:] == (1, min(width, side * side))
    else:
        assert max(small.shape[1:]) == min(max(height, width), side)
        factor = max(small.shape[1:]) / max(height, width)
        assert np.abs(np.array(small.shape[1:]) - np.maximum((height * factor, width * factor), 1)).max() <= 0.5
    assert np.array_equal((small > 0).sum((1, 2)), np.ones(len(ones)))
    assert np.allclose(small.sum(0), 1)


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_shades_take_any_number(values: list[float]) -> None:
    array = np.array(values, np.float32)[None, None]
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (float("nan"), float("nan"))
    picture = shades(array, low, high)
    assert picture.shape == array.shape
    if finite.size and high > low:
        assert picture[array == np.float32(high)].min() == 255
        assert picture[array == np.float32(low)].max() == 0


def test_a_picture_keeps_its_proportions() -> None:
    with page_of(nn.Conv2d(1, 2, 3, padding=1), np.zeros((1, 199, 512), np.uint8)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        assert info["input"]["shape"] == [1, 199, 512]
        assert info["input"]["picture_shape"] == [1, 100, 256]
        header, _ = page.pack(f"traces/{info['id']}/thumbnails", side=32)
        assert header["items"][0]["shape"] == [2, 12, 32]


def test_planes_of_any_result() -> None:
    for shape, planes in (((4, 7, 6), (4, 7, 6)), ((1, 0, 5), (0, 1, 1)), ((1, 2, 3, 4, 5), (6, 4, 5))):
        assert planes_of(np.zeros(shape)).shape == planes


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


# Change it and see


def test_edits_are_overrides_and_the_model_stays(page: Page, net: Any) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    base, edits = page.trace(), [
        {"parameter": "conv1.weight", "cell": [2, 0, 1, 1], "values": [5.0]},
        {"parameter": "conv1.bias", "cell": [], "values": [0.5] * 8},
        {"parameter": "conv1.weight", "cell": [3], "values": cs.filters.FILTERS["sobel-x"].kernel.ravel().tolist()},
    ]  # fmt: skip
    info = page.trace(edits=edits)
    weight = before["conv1.weight"].numpy().copy()
    weight[2, 0, 1, 1] = 5
    weight[3, 0] = cs.filters.FILTERS["sobel-x"].kernel
    trace = traced(net, overrides={"conv1.weight": weight, "conv1.bias": np.full(8, 0.5, np.float32)})
    assert np.array_equal(page.raw(f"traces/{info['id']}/steps/{info['output']}/output"), trace.output[0])
    assert np.array_equal(page.raw(f"traces/{info['id']}/parameters/conv1.weight"), weight)
    assert {p["name"] for p in info["parameters"] if p["changed"]} == {"conv1.weight", "conv1.bias"}
    result = cs.difference(traced(net), trace)
    message = page.get(f"traces/{info['id']}/difference", base=base["id"])
    assert [(s["name"], s["changed"], s["largest"]) for s in message["steps"]] == [
        (s.name, s.changed, s.largest) for s in result.steps
    ]
    apart = page.raw(f"traces/{info['id']}/steps/0/difference", base=base["id"], channel=3)
    assert np.array_equal(apart, result.cells("conv1")[0, 3].astype(np.float32))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    why = page.get(f"traces/{info['id']}/steps/0/explain", cell="2,9,9")
    assert why["proof"]["proved"]
    assert page.trace()["id"] == base["id"]


def test_two_models_are_compared_by_the_names_of_their_steps(net: Any) -> None:
    gallery = Workspace.of_model(net)
    other = cs.load_model("shapes-mlp")
    name = gallery.open(other)
    with opened(gallery) as page:
        base, info = page.trace(), page.trace(model=name)
        message = page.get(f"traces/{info['id']}/difference", base=base["id"])
        result = cs.difference(traced(net), traced(other))
        assert (message["missing"], message["added"]) == (list(result.missing), list(result.added))
        assert "conv1" in message["missing"]
        assert "no step is called 'conv1'" in page.get(f"traces/{base['id']}/steps/0/difference", 404, base=info["id"])


def test_painted_pixels_are_taken_as_they_are(page: Page, net: Any) -> None:
    picture = np.random.default_rng(0).random((1, 28, 28)).astype(np.float32)
    info = page.trace(painted(picture))
    assert info["input"]["name"] == "drawing"
    assert np.array_equal(page.raw(f"traces/{info['id']}/input"), picture)
    white = page.trace(painted(np.ones((1, 28, 28))))
    assert (white["input"]["low"], white["input"]["high"]) == (1, 1)  # not inverted


def test_an_upload_is_prepared_as_by_cs(page: Page, net: Any) -> None:
    pixels = np.random.default_rng(0).integers(150, 256, (3, 40, 28), np.uint8)
    kept = page.gallery.keep("a photo.png", pixels)
    shown = {"kind": "stored", "id": kept.id}
    message = page.trace(shown, 409)
    answer = page.client.post("/api/traces", json={"model": page.models[0], "input": shown}).json()
    assert answer == {"message": message, "fit": ["resize", "pad"]}
    assert "fit" not in page.client.get("/api/traces/none").json()
    assert (
        message == "the image is 40x28 (height x width) and shapes-cnn takes 28x28; choose to resize it or to pad it."
    )
    info = page.trace(shown, fit="resize")
    prepared = cs.prepare(pixels, like=net)
    assert np.array_equal(page.raw(f"traces/{info['id']}/input"), prepared.array)
    assert tuple(info["input"]["notes"]) == prepared.notes
    assert info["input"]["notes"][0] == "resized from 40x28 to 28x28"
    assert page.trace(shown, fit="pad")["input"]["notes"][0] == "resized and padded from 40x28 to 28x28"


def test_changes_rotate_shift_and_add_noise(page: Page) -> None:
    picture = np.zeros((1, 28, 28), np.float32)
    picture[0, 3:9, 5:20] = 0.5
    turned = page.trace(painted(picture), change={"rotate": 90})
    assert np.array_equal(page.raw(f"traces/{turned['id']}/input"), np.rot90(picture, axes=(1, 2)))
    noisy = [page.trace(painted(picture), change={"noise": 0.1, "seed": seed}) for seed in (1, 2, 1)]
    assert noisy[0]["id"] == noisy[2]["id"] != noisy[1]["id"]
    spread = page.raw(f"traces/{noisy[0]['id']}/input") - picture
    assert spread.std() == pytest.approx(0.1, rel=0.1)


@given(st.integers(-40, 40), st.integers(-40, 40))
def test_a_shift_moves_every_pixel(down: int, right: int) -> None:
    picture = np.pad(np.random.default_rng(0).random((2, 6, 9)).astype(np.float32), ((0, 0), (4, 4), (3, 3)))
    moved = changes(picture, schema.Change(down=down, right=right))
    assert moved.shape == picture.shape
    for row in range(14):
        for column in range(15):
            inside = 0 <= row - down < 14 and 0 <= column - right < 15
            assert moved[0, row, column] == (picture[0, row - down, column - right] if inside else 0)


def test_a_named_kernel_on_the_input(page: Page, net: Any) -> None:
    info = page.trace()
    result = page.raw("filtered", trace=info["id"], kernel="sobel-x")
    assert np.array_equal(result, cs.filters.apply_filter(traced(net).input[0], "sobel-x").astype(np.float32))
    assert "sobel-x" in page.get("filtered", 404, trace=info["id"], kernel="1 2; 3 4")


# Runs


def test_the_history_of_a_run_can_be_traced(served: Page, run: cs.Run) -> None:
    (model,) = served.get("session")["models"]
    assert (model["id"], model["run"], model["history"]) == ("a-run", True, run.steps)
    now = served.trace()
    for step in (run.steps[0], run.steps[4]):
        past = cs.load_model(run.path)
        past.load_state_dict({name: torch.tensor(value) for name, value in run.weights_at(step).items()})
        info = served.trace(at=step)
        output = served.raw(f"traces/{info['id']}/steps/{info['output']}/output")
        assert np.array_equal(output, traced(past).output[0])
    assert served.trace()["id"] == now["id"]
    assert served.trace(at=run.steps[-1])["answers"] == now["answers"]
    assert f"kept no weights at step {run.steps[-1] + 1}" in served.trace(status=404, at=run.steps[-1] + 1)


def test_new_weights_of_a_run_are_seen(served: Page, run: cs.Run) -> None:
    folder = served.gallery.model("a-run").run
    assert folder is not None
    before = served.trace()
    history = folder.path / "history"
    shutil.copy(history / f"{run.steps[0]:09d}.safetensors", folder.path / "weights.safetensors")
    for path in history.glob("*.safetensors"):
        path.unlink()
    after = served.trace()
    assert after["id"] != before["id"]
    assert after["answers"] != before["answers"]
    assert served.get("session")["models"][0]["history"] == []


def test_a_training_that_goes_on_shows_its_newest_weights(served: Page, run: cs.Run) -> None:
    folder = served.gallery.model("a-run").run
    assert folder is not None
    past = served.trace(at=run.steps[0])
    newest = folder.path / "history" / f"{run.steps[-1] + 1:09d}.safetensors"
    shutil.copyfile(folder.path / "history" / f"{run.steps[0]:09d}.safetensors", newest)
    assert served.trace()["answers"] == past["answers"]


def test_a_deleted_run_folder_gets_a_sentence(served: Page, run: cs.Run, tmp_path: Path) -> None:
    before = served.trace()
    shutil.rmtree(tmp_path / "a run")
    assert "no longer exists" in served.trace(status=410, at=run.steps[0])
    after = served.trace()
    assert after["answers"] == before["answers"]
    (model,) = served.get("session")["models"]
    assert model["history"] == []
    assert "no longer exists" in model["notes"][-1]


def test_a_run_that_was_never_read_and_is_gone(run: cs.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "b")
    gallery = Workspace.of_folder(tmp_path)
    shutil.rmtree(tmp_path / "b")
    with opened(gallery) as page:
        (model,) = page.get("session")["models"]
        assert "no longer exists" in model["notes"][0]
        assert "no longer exists" in page.trace(status=410)


def test_runs_that_come_later_are_found_and_other_folders_are_not(run: cs.Run, tmp_path: Path) -> None:
    with opened(Workspace.of_folder(tmp_path / "later")) as page:
        assert page.models == []
        shutil.copytree(run.path, tmp_path / "later" / "c")
        (tmp_path / "later" / "other").mkdir()
        (tmp_path / "later" / "other" / "config.json").write_text("{}")
        assert [model["id"] for model in page.get("session")["models"]] == ["c"]


def test_a_model_changed_in_the_session_is_traced_anew() -> None:
    model = cs.load_model("shapes-cnn")
    with page_of(model) as page:
        before = page.trace()
        with torch.no_grad():
            model.get_parameter("fc.bias").add_(1)
        after = page.trace()
        assert after["id"] != before["id"]
        value = {answer["index"]: answer["value"] for answer in before["answers"]}
        assert all(a["value"] == pytest.approx(value[a["index"]] + 1, abs=1e-5) for a in after["answers"])
        why = page.get(f"traces/{before['id']}/steps/{before['output']}/explain", cell="0")
        assert why["proof"]["status"] == "weights changed"
