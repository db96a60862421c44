"""The explorer's session and traces: every number compared with what `cs` gives directly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import convscope as cs
from asking import SAMPLE, Page, opened, page_of, traced
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
