"""Preprocess: what it makes of a picture, and what it undoes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import convscope as cs
from convscope import images
from convscope.errors import ShapeError, UsageError
from convscope.preprocess import Fit, Preprocess, resize
from convscope.typing import Array

PICTURES = hnp.arrays(np.uint8, st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)))


@given(
    image=PICTURES,
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    fit=st.sampled_from(["stretch", "crop", "pad", "mnist"]),
)
def test_apply_gives_the_size_and_channels_that_were_asked_for(image: Array, size: tuple[int, int], fit: Fit) -> None:
    for channels in (1, 3):
        made = Preprocess(size=size, channels=channels, fit=fit).apply(image)
        assert made.shape == (channels, *size)
        assert made.dtype == np.float32
        assert 0 <= made.min() <= made.max() <= 1 + 1e-6


@given(
    top=st.integers(0, 120), left=st.integers(0, 120), height=st.integers(20, 150), width=st.integers(20, 150),
    dark=st.booleans(),
)  # fmt: skip
def test_a_drawing_is_centred_as_mnist_centres_digits(top: int, left: int, height: int, width: int, dark: bool) -> None:
    """A heavy bar with a light foot: its longer edge has 20 pixels, its centre of mass is in the centre."""
    drawing = np.zeros((300, 280), np.uint8)
    drawing[top : top + height, left : left + width // 4 + 1] = 255
    drawing[top + height - 5 : top + height, left : left + width] = 255
    expected = Preprocess(size=(28, 28), channels=1, background="dark", fit="mnist")
    made = expected.apply(drawing if dark else 255 - drawing)[0]
    rows, columns = np.nonzero(made > 0.2)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
    for axis in (0, 1):
        centre = made.sum(axis=1 - axis) @ (np.arange(28) + 0.5) / made.sum()
        drawn = np.nonzero(made.sum(axis=1 - axis))[0]
        assert centre == pytest.approx(14.5, abs=0.51) or drawn[0] == 0 or drawn[-1] == 27
    assert "centred like MNIST's digits" in expected.changes(drawing)[0]


def test_real_digits_that_are_enlarged_moved_and_inverted_come_back(shared_data: Path) -> None:
    """MNIST's digits were made this way, so a large drawing of one becomes nearly the same 28x28 pixels again."""
    expected = Preprocess(size=(28, 28), channels=1, background="dark", fit="mnist")
    digits = cs.load_dataset("mnist", split="test", data_dir=shared_data).images[:20, 0]
    centred, stretched = [], []
    for k, digit in enumerate(digits):
        page = np.full((400, 350), 255, np.uint8)
        page[30 + k : 254 + k, 90 - k : 314 - k] = 255 - np.kron(digit, np.ones((8, 8), np.uint8))
        centred.append(np.abs(expected.apply(page)[0] - digit / 255).mean())
        stretched.append(np.abs(replace(expected, fit="stretch").apply(page)[0] - digit / 255).mean())
    assert np.mean(centred) < 0.03
    assert np.mean(stretched) > 0.1


@given(image=PICTURES, mean=st.floats(-1, 1), std=st.floats(0.1, 3))
def test_restore_undoes_normalize(image: Array, mean: float, std: float) -> None:
    preprocess = Preprocess(mean=(mean,), std=(std,))
    np.testing.assert_allclose(preprocess.restore(preprocess.normalize(image)), image / np.float32(255), atol=1e-6)


@given(image=PICTURES)
def test_a_picture_that_fits_is_only_scaled(image: Array) -> None:
    preprocess = Preprocess(size=(image.shape[1], image.shape[2]), channels=image.shape[0])
    assert preprocess.changes(image) == ()
    np.testing.assert_array_equal(preprocess.apply(image), preprocess.normalize(image))


def test_json_keeps_every_field() -> None:
    for preprocess in (
        Preprocess(),
        Preprocess((28, 20), 3, 1, (0.1, 0.2, 0.3), (1, 2, 3), "crop", 0.875, "dark"),
    ):
        written = {k: list(v) if isinstance(v, tuple) else v for k, v in preprocess.to_json().items()}
        assert Preprocess.from_json(written) == preprocess


def test_mean_and_std_are_per_channel_and_must_be_for_these_channels() -> None:
    preprocess = Preprocess(mean=(0, 1, 2), std=(1, 2, 4))
    values = preprocess.normalize(np.full((3, 1, 1), 255, np.uint8)).ravel()
    np.testing.assert_allclose(values, [1, 0, -0.25])
    with pytest.raises(ShapeError, match="mean and std are for 3 channels; the picture has 1"):
        preprocess.apply(np.zeros((1, 4, 4), np.uint8))


def test_grey_is_the_luma_of_colour_and_colour_repeats_grey() -> None:
    red = np.zeros((3, 2, 2), np.uint8)
    red[0] = 255
    np.testing.assert_allclose(Preprocess(channels=1).apply(red), np.full((1, 2, 2), 0.299), rtol=1e-6)
    grey = np.full((2, 2), 51, np.uint8)
    np.testing.assert_allclose(Preprocess(channels=3).apply(grey), np.full((3, 2, 2), 0.2))
    with pytest.raises(ShapeError, match="a picture with 2 channels cannot be turned into 1"):
        Preprocess(channels=1).apply(np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ShapeError, match=r"\(C, H, W\) or \(H, W\), not \(4,\)"):
        Preprocess().apply(np.zeros(4, np.uint8))


def frame(height: int, width: int) -> Array:
    """White, with a black border two pixels wide."""
    picture = np.full((1, height, width), 255, np.uint8)
    picture[:, :2] = picture[:, -2:] = picture[:, :, :2] = picture[:, :, -2:] = 0
    return picture


def test_crop_cuts_the_centre_and_pad_surrounds_with_zeros() -> None:
    wide = np.zeros((1, 4, 8), np.float32)
    wide[:, :, 2:6] = 1
    np.testing.assert_array_equal(resize(wide, (4, 4), "crop"), np.ones((1, 4, 4)))
    padded = resize(np.ones((1, 4, 8), np.float32), (8, 8), "pad")
    np.testing.assert_array_equal(padded[0].mean(axis=1), [0, 0, 1, 1, 1, 1, 0, 0])


def test_a_crop_ratio_enlarges_first_even_where_the_size_is_right() -> None:
    preprocess = Preprocess(size=(14, 14), fit="crop", crop_ratio=0.875)
    image = frame(14, 14)
    assert preprocess.changes(image) == ("resized and cropped from 14x14 to 14x14",)
    made = preprocess.apply(image)
    assert made.shape == (1, 14, 14)
    assert made.mean() > Preprocess().apply(image).mean()  # less of the border is left


@pytest.mark.parametrize("background", ["dark", "light"])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_picture_on_the_other_background_is_inverted(background: str, inverted: bool) -> None:
    fits = frame(8, 8) if background == "dark" else 255 - frame(8, 8)
    image = 255 - fits if inverted else fits
    preprocess = Preprocess(background="dark" if background == "dark" else "light")
    assert preprocess.inverts(image) == inverted
    np.testing.assert_allclose(preprocess.apply(image), fits / np.float32(255))
    parts = preprocess.changes(image)
    assert parts == ((f"inverted (the data has a {background} background)",) if inverted else ())


def test_what_is_padded_to_an_inverted_picture_is_background() -> None:
    made = Preprocess(size=(8, 8), fit="pad", background="dark").apply(255 - frame(4, 8)[:, :4])
    assert made[0, 0].max() == 0
    assert made[0, -1].max() == 0


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for parts, settings in {
        "scale and std must be positive": {"scale": 0},
        "scale and std": {"std": (1.0, 0.0)},
        r"at least \(1, 1\), not \(0, 5\)": {"size": (0, 5)},
        "crop_ratio is the crop's share": {"crop_ratio": 1.5},
    }.items():
        with pytest.raises(UsageError, match=parts):
            Preprocess(**settings)  # type: ignore[arg-type]  # a table of different fields


def test_data_without_greys_get_pictures_without_greys() -> None:
    expected = Preprocess(size=(4, 4), channels=1, binary=True)
    ramp = np.tile(np.linspace(0, 255, 16, dtype=np.uint8), (16, 1))
    assert set(np.unique(expected.apply(ramp))) == {0.0, 1.0}
    assert expected.apply(ramp).mean() == 0.5
    assert expected.changes(ramp)[-1] == "made black and white (the data has no greys)"
    assert "made black and white" not in " ".join(expected.changes(np.zeros((4, 4), np.uint8)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "PA"])
def test_pixels_are_the_same_in_strips(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(5).integers(0, 256, (7, 5, 4), np.uint8)
    drawn = Image.fromarray(levels, "RGBA")
    if mode == "La":
        drawn = drawn.convert("LA")
    picture = drawn.convert("RGB").quantize(16).convert(mode) if mode in {"P", "PA"} else drawn.convert(mode)
    whole = images.pixels(picture)
    assert whole.shape == (1 if mode in {"1", "L", "LA", "La"} else 3, 7, 5)
    monkeypatch.setattr(images, "STRIP", 13)
    assert np.array_equal(images.pixels(picture), whole)
