"""What is changed in the explorer: edited weights, other models, painted pixels, uploads, kernels on the input."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convscope as cs
from asking import Page, opened, page_of, painted, traced
from convscope.server.session.inputs import changes
from convscope.server.session.schema import Change
from convscope.server.session.workspace import Workspace


@pytest.fixture(scope="module")
def net() -> Any:
    return cs.load_model("shapes-cnn", seed=3)


@pytest.fixture(scope="module")
def page(net: Any) -> Iterator[Page]:
    with page_of(net) as page:
        yield page


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
    moved = changes(picture, Change(down=down, right=right))
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
