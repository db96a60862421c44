"""Named kernels find what their names say; typed ones are what was typed; sliding them is PyTorch's convolution."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional as F

from convscope.errors import DataError, ShapeError, UnknownName, UsageError
from convscope.filters import FILTERS, Filter, Mode, apply_filter, edge_response, parse_kernel
from convscope.images import read_image

VERTICAL = {"sobel-x", "vertical", "stripe-1", "stripe-2"}
HORIZONTAL = {"sobel-y", "horizontal", "stripe-3", "stripe-4", "tutorial-horizontal"}
KEEPS_BRIGHTNESS = {"blur", "sharpen"}


def edge(direction: str) -> np.ndarray[Any, Any]:
    """Half dark, half bright: a vertical edge has its bright half on the right, a horizontal one below."""
    picture = np.zeros((1, 12, 12))
    picture[0, :, 6:] = 1
    return picture if direction == "vertical" else picture.transpose(0, 2, 1)


def square() -> np.ndarray[Any, Any]:
    picture = np.zeros((1, 10, 10))
    picture[0, 3:7, 3:7] = 1
    return picture


def test_every_kernel_is_in_one_class_of_claims() -> None:
    assert set(FILTERS) == VERTICAL | HORIZONTAL | KEEPS_BRIGHTNESS | {"edge", "corner", "tutorial-corner"}
    for name, known in FILTERS.items():
        assert known.name == name
        assert known.finds
        assert known.source


@pytest.mark.parametrize("name", sorted(VERTICAL | HORIZONTAL))
def test_a_kernel_finds_the_direction_it_is_named_for_and_not_the_other(name: str) -> None:
    mine, other = ("vertical", "horizontal") if name in VERTICAL else ("horizontal", "vertical")
    assert mine in FILTERS[name].finds
    assert other not in FILTERS[name].finds
    assert np.abs(apply_filter(edge(mine), name)).max() > 1
    assert not apply_filter(edge(other), name).any()


@pytest.mark.parametrize("name", sorted(VERTICAL | HORIZONTAL))
def test_the_sign_says_which_side_is_bright(name: str) -> None:
    output = apply_filter(edge("vertical" if name in VERTICAL else "horizontal"), name)  # bright right, or below
    assert (output.min() == 0) != (output.max() == 0)
    assert (output.max() > 0) == (name not in {"stripe-2", "stripe-4", "tutorial-horizontal"})


def test_the_tutorial_s_kernels_differ_from_ours_as_they_say() -> None:
    np.testing.assert_array_equal(FILTERS["tutorial-horizontal"].kernel, -FILTERS["horizontal"].kernel)
    output = apply_filter(square(), "tutorial-corner", mode="same")[0]
    assert output[3, 3] == 2 * output[3, 4] > 0
    assert edge_response("tutorial-corner").direction == "both"


def test_edge_finds_both_directions_and_corner_none_but_corners() -> None:
    for direction in ("vertical", "horizontal"):
        assert apply_filter(edge(direction), "edge").any()
        assert not apply_filter(edge(direction), "corner").any()
    result = apply_filter(square(), "corner")[0] != 0
    assert {(int(r), int(c)) for r, c in np.argwhere(result)} == {(r, c) for r in (1, 2, 5, 6) for c in (1, 2, 5, 6)}


@pytest.mark.parametrize("name", FILTERS)
def test_a_plain_area_keeps_its_brightness_or_gives_nothing(name: str) -> None:
    output = apply_filter(np.full((1, 9, 9), 0.5), name)
    expected = 0.5 if name in KEEPS_BRIGHTNESS else 0.0
    np.testing.assert_allclose(output, expected, atol=1e-15)
    assert FILTERS[name].total == pytest.approx(2 * expected, abs=1e-15)


def test_the_stripes_are_the_tutorials() -> None:
    first = np.array([[-1, -1, 1, 1]] * 4)
    for name, expected in {"stripe-1": first, "stripe-2": -first, "stripe-3": first.T, "stripe-4": -first.T}.items():
        np.testing.assert_array_equal(FILTERS[name].kernel, expected)


def test_the_published_convolution_by_hand() -> None:
    image = np.array([[1, 2, 0, 1], [0, 1, 3, 1], [2, 2, 1, 0], [1, 0, 1, 3]])
    np.testing.assert_array_equal(apply_filter(image, "1 0; 0 1"), [[[2, 5, 1], [2, 2, 3], [2, 3, 4]]])


FINITE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: v + 0.0)


@given(
    kernel=arrays.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=FINITE),
    row=st.sampled_from((";", "; ", "\n")),
    between=st.sampled_from((" ", ",", ", ")),
)
def test_what_is_typed_is_what_is_meant(kernel: np.ndarray[Any, Any], row: str, between: str) -> None:
    text = row.join(between.join(repr(float(v)) for v in line) for line in kernel)
    np.testing.assert_array_equal(parse_kernel(text).kernel, kernel)
    np.testing.assert_array_equal(parse_kernel(text.replace("-", "−")).kernel, kernel)


def test_names_and_fractions_are_read_too() -> None:
    assert parse_kernel(" Sobel-X ") is FILTERS["sobel-x"]
    np.testing.assert_array_equal(parse_kernel("1/9 -1/2").kernel, [[1 / 9, -0.5]])
    assert parse_kernel("1 0; 0 1").name == "custom 2x2"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "sobelx",
            UnknownName,
            r"no kernel is called 'sobelx'; did you mean 'sobel-x' or 'sobel-y'\? There are:",
        ),
        ("stripe-5", UnknownName, "no kernel is called 'stripe-5'"),
        ("", UnknownName, "Or type numbers, rows separated by semicolons: '1 0; 0 1'"),
        ("1 0; 1", UsageError, "rows of 2 and 1 numbers; every row needs the same number"),
        ("1 2; 3 4; 5", UsageError, "rows of 2, 2 and 1 numbers"),
        ("1 x; 3 4", UsageError, "'x' in the kernel '1 x; 3 4' is not a number"),
        ("1 nan", UsageError, "'nan' in the kernel"),
        ("1e999 0", UsageError, "'1e999' in the kernel"),
        ("1/0 0", UsageError, "'1/0' in the kernel"),
    ],
)
def test_a_kernel_that_is_none_gets_a_sentence(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_kernel(text)


def test_a_kernel_cannot_be_changed_afterwards() -> None:
    numbers = np.eye(2)
    known = Filter("mine", numbers, "")
    numbers[0, 0] = 7
    assert known.kernel[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        known.kernel[0, 0] = 7
    for wrong in (np.zeros((2, 2, 2)), np.zeros((0, 3)), np.array([[np.nan]])):
        with pytest.raises(ShapeError, match=r"a kernel is a table of finite numbers of shape \(R, S\)"):
            Filter("mine", wrong, "")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # PyTorch's remark on its memory
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (4, 4), (2, 5), (5, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_modes_are_pytorchs(shape: tuple[int, int], channels: int) -> None:
    random = np.random.default_rng(0)
    picture, kernel = random.random((channels, 9, 11)), random.normal(size=shape)
    weight = torch.as_tensor(kernel).repeat(channels, 1, 1, 1)
    modes: tuple[Mode, ...] = ("valid", "same")
    for mode in modes:
        expected = F.conv2d(torch.as_tensor(picture)[None], weight, padding=mode, groups=channels)[0]
        result = apply_filter(picture, kernel, mode=mode, per_channel=True)
        np.testing.assert_allclose(result, expected.numpy(), atol=1e-12)


def test_a_tensor_is_filtered_as_an_array_is() -> None:
    picture = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    np.testing.assert_array_equal(
        apply_filter(picture, "vertical"),  # type: ignore[arg-type]
        apply_filter(picture.numpy(), "vertical"),
    )


def test_colours_turn_to_grey_unless_each_is_filtered_by_itself() -> None:
    picture = np.zeros((3, 5, 5))
    picture[1] = 1
    grey = apply_filter(picture, "blur")
    assert grey.shape == (1, 3, 3)
    np.testing.assert_allclose(grey, 0.587, atol=1e-6)  # the luma weight of green
    each = apply_filter(picture, "blur", per_channel=True)
    np.testing.assert_allclose(each.mean(axis=(1, 2)), [0, 1, 0], atol=1e-12)


def test_what_cannot_be_filtered_gets_a_sentence() -> None:
    with pytest.raises(ShapeError, match=r"the kernel stripe-1 \(4x4\) is larger than the picture \(3x3\)"):
        apply_filter(np.zeros((1, 3, 3)), "stripe-1")
    assert apply_filter(np.zeros((1, 3, 3)), "stripe-1", mode="same").shape == (1, 3, 3)
    with pytest.raises(ShapeError, match=r"a picture has finite numbers of shape"):
        apply_filter(np.zeros(7), "blur")
    with pytest.raises(ShapeError, match=r"a picture has finite numbers of shape"):
        apply_filter(np.full((1, 5, 5), np.nan), "blur")
    with pytest.raises(UnknownName, match="no mode is called 'sam'; did you mean 'same'"):
        apply_filter(np.zeros((1, 5, 5)), "blur", mode="sam")  # type: ignore[arg-type]  # what a user may pass


def test_a_photo_keeps_its_edges(shared_data: Path) -> None:
    photo = read_image(shared_data / "images" / "dog.jpg") / np.float32(255)
    output = apply_filter(photo, "sobel-x")
    assert output.shape == (1, 298, 298)
    luma = np.tensordot([0.299, 0.587, 0.114], photo.astype(np.float64), 1)
    steps = luma[:, 2:] - luma[:, :-2]  # Sobel along x is this, smoothed along y
    np.testing.assert_allclose(output[0], steps[:-2] + 2 * steps[1:-1] + steps[2:], atol=1e-5)


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_a_kernel_turned_over_its_diagonal_answers_the_other_edges(size: int, seed: int) -> None:
    kernel = np.random.default_rng(seed).normal(size=(size, size))
    one, two = edge_response(kernel), edge_response(kernel.T)
    assert (one.vertical, one.horizontal) == pytest.approx((two.horizontal, two.vertical))


def test_the_answer_to_edges_is_the_largest_sum_of_a_side() -> None:
    answers = edge_response(np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]))
    assert (answers.vertical, answers.horizontal, answers.direction) == (3, 0, "vertical")
    assert str(answers) == "3 to a vertical edge, 0 to a horizontal one"
    assert edge_response("blur").direction == "none"
    assert edge_response("edge").direction == "both"


def test_a_picture_that_memory_cannot_hold_is_refused_before_it_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.data.options.available", lambda: 1000)
    with pytest.raises(DataError, match=r"a filtered 1x30x30 picture need about .* Scale the picture down"):
        apply_filter(np.zeros((1, 30, 30)), "blur")
    monkeypatch.setattr("convscope.data.options.available", lambda: 100_000)
    assert apply_filter(np.zeros((1, 30, 30)), "blur").shape == (1, 28, 28)
