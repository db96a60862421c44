"""Inputs: files, data sets' images and arrays become what a model takes, and it is said what was done."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import convscope as cs
from convscope.cards.card import Card
from convscope.cards.card_inference import card_of
from convscope.data.catalog import DATASETS, load_dataset
from convscope.data.dataset import Dataset
from convscope.errors import ImageError, ShapeError, UnknownName, UsageError
from convscope.inputs.pictures import check_input, load_image, prepare
from convscope.models.catalog import MODELS
from convscope.models.loading import load_model
from convscope.preprocess import Fit, Preprocess

DIGIT = Preprocess(size=(28, 28), channels=1, background="dark")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A dark digit-like stroke on white, in colour, three times as wide as high."""
    pixels = np.full((20, 60, 3), 250, np.uint8)
    pixels[5:15, 28:32] = (10, 20, 30)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_photo_becomes_what_the_model_expects_and_it_says_so(photo: Path) -> None:
    model = load_model("simple-cnn")
    prepared = prepare(photo, like=model)
    assert prepared.name == "photo.png"
    assert prepared.label is None
    assert prepared.array.shape == (1, 28, 28)
    assert prepared.array.dtype == np.float32
    assert prepared.notes == (
        "centred like MNIST's digits (cropped to the drawing, 20 of 28 pixels, centre of mass in the centre) "
        "from 20x60 to 28x28",
        "turned to grey",
        "inverted (the data has a dark background)",
    )
    assert prepared.array[0, 0, 0] == 0
    assert prepared.array[0, 14, 14] > 0.7
    check_input(model, prepared.array)
    np.testing.assert_array_equal(load_image(str(photo), like=card_of(model)), prepared.array)


def test_the_picture_is_the_array_before_mean_and_deviation(photo: Path) -> None:
    expected = Preprocess(size=(10, 12), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), fit="crop")
    prepared = prepare(photo, like=expected)
    assert prepared.picture.min() >= 0
    assert prepared.picture.max() <= 1
    np.testing.assert_allclose(expected.restore(prepared.array), prepared.picture, atol=1e-6)
    with Image.open(photo) as opened:
        pixels = np.asarray(opened).transpose(2, 0, 1)
        np.testing.assert_array_equal(prepared.array, expected.apply(pixels))
        np.testing.assert_array_equal(prepare(opened, like=expected).array, prepared.array)
    np.testing.assert_array_equal(prepare(pixels, like=expected).array, prepared.array)


def test_without_a_model_pixels_are_only_scaled(photo: Path) -> None:
    image = load_image(photo)
    assert image.shape == (3, 20, 60)
    assert image[0, 0, 0] == np.float32(250 / 255)
    assert cs.load_image is load_image


@pytest.mark.parametrize("model", ["shapes-cnn", "shapes-mlp", "simple-cnn"])
def test_a_data_sets_image_is_bit_for_bit_the_data_sets(model: str) -> None:
    data = load_dataset("shapes", split="test")
    prepared = prepare("shapes:test/7", like=load_model(model))
    np.testing.assert_array_equal(prepared.array, data.image(7))
    np.testing.assert_array_equal(prepared.picture, data.picture(7))
    assert (prepared.name, prepared.label, prepared.notes) == ("shapes:test/7", data.labels[7], ())
    np.testing.assert_array_equal(load_image("shapes:test/7"), data.image(7))
    np.testing.assert_array_equal(load_image("shapes:test/7", like=data), data.image(7))


@pytest.mark.parametrize(
    ("source", "name", "label"),
    [
        ("crosses:damaged-plus", "crosses:damaged-plus", 0),
        ("crosses:test/damaged-x", "crosses:damaged-x", 1),
        ("crosses:test/1", "crosses:damaged-x", 1),
        ("crosses:1", "crosses:x", 1),
        ("crosses:-2", "crosses:plus", 0),
        ("crosses:all/3", "crosses:damaged-x", 1),
        ("square:square", "square:square", 0),
    ],
)
def test_ways_to_name_an_image(source: str, name: str, label: int) -> None:
    prepared = prepare(source)
    assert (prepared.name, prepared.label) == (name, label)
    np.testing.assert_array_equal(load_image(prepared.name), prepared.array)


@pytest.mark.parametrize(
    ("model", "source", "label"),
    [
        ("shapes-cnn", "shapes:test/3", 0),
        ("crosses", "crosses:x", 1),
        ("color-cnn", "shapes:test/3", 0),  # as many classes, other names altogether: they go by number
        ("simple-cnn", "shapes:test/3", None),
    ],
)
def test_the_class_of_another_data_sets_image_is_one_the_model_knows_or_none(
    model: str, source: str, label: int | None
) -> None:
    trained = replace(card_of(load_model(model)), classes=DATASETS[MODELS[model].data[0]].classes)
    assert prepare(source, trained).label == label


def test_crosses_are_never_inverted() -> None:
    """The corners of an x are white, and its background is not."""
    prepared = prepare("crosses:x", like=load_model("crosses"))
    assert prepared.array.tolist() == [[[1, 0, 1], [0, 1, 0], [1, 0, 1]]]
    assert prepared.notes == ()


def test_another_models_data_is_brought_to_this_model() -> None:
    prepared = prepare("square:0", like=load_model("color-cnn"))
    assert prepared.array.shape == (3, 28, 28)
    assert prepared.notes == ("resized from 10x10 to 28x28", "turned to RGB")
    assert prepared.array.max() == 1
    crosses = prepare("crosses:plus", like=Preprocess(size=(3, 3), channels=1))
    assert crosses.array.max() == 1, "white is 1 in crosses and 255 elsewhere"
    normalized = Preprocess(size=(10, 10), channels=1, mean=(0.5,), std=(0.25,))
    assert set(np.unique(load_image("square:0", like=normalized))) == {-2.0, 2.0}


def test_an_image_that_fills_its_frame_is_not_inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pullover of fashion-mnist has a light border; its data set's background is dark all the same."""
    filled = Dataset("mnist", np.full((1, 1, 28, 28), 200, np.uint8), np.array([0]), ("pullover",), DIGIT)
    monkeypatch.setattr("convscope.inputs.pictures.load_dataset", lambda *_, **__: filled)
    other = Preprocess(size=(32, 32), channels=1, background="dark")
    assert prepare("mnist:test/0", like=other).picture.min() == np.float32(200 / 255)


def test_a_folder_of_images_is_a_data_set_too(tmp_path: Path, photo: Path) -> None:
    for split in ("train", "test"):
        for number, kind in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / kind).mkdir(parents=True)
            Image.new("RGB", (6, 5), (number * 100, 7, 9)).save(tmp_path / "pets" / split / kind / "1.png")
    where = f"folder:{tmp_path / 'pets'}"
    by_number = prepare(f"{where}:test/1")
    assert by_number.label == 1
    assert by_number.picture[0, 0, 0] == np.float32(100 / 255)
    np.testing.assert_array_equal(load_image(by_number.name), by_number.array)
    with pytest.raises(UsageError, match=r"is a whole data set; name one of its images: folder:.*:test/0"):
        load_image(where)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_an_image_of_a_folder_or_archive_is_prepared_like_its_file_and_says_the_same(tmp_path: Path, fit: Fit) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), np.uint8)
    for number, pixels in enumerate(noise):
        (tmp_path / "pets" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pets" / "ab"[number % 2] / f"{number}.png")
    np.savez(tmp_path / "pets.npz", images=noise, labels=[0, 1, 0, 1])
    expected = Preprocess(size=(28, 28), channels=1, background="dark", fit=fit)
    file = prepare(tmp_path / "pets" / "a" / "2.png", like=expected)
    assert len(file.notes) >= 2
    for name in (f"folder:{tmp_path}/pets:all/1", f"npz:{tmp_path}/pets.npz:all/2"):
        prepared = prepare(name, like=expected)
        assert prepared.notes == file.notes, name
        np.testing.assert_allclose(prepared.array, file.array, atol=1e-6)
    data = load_dataset(f"folder:{tmp_path}/pets", split="all", image_size=(28, 28))
    trained_on = prepare(f"folder:{tmp_path}/pets:all/1", like=data)
    assert trained_on.notes == ("resized from 40x60 to 28x28",)
    np.testing.assert_array_equal(trained_on.array, data.image(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_floating_point_array_is_taken_as_it_is(dtype: type) -> None:
    values: np.ndarray[Any, Any] = np.linspace(-3, 3, 784).reshape(1, 28, 28).astype(dtype)
    prepared = prepare(values, like=load_model("simple-cnn"))
    np.testing.assert_array_equal(prepared.array, values.astype(np.float32))
    np.testing.assert_array_equal(load_image(values[0]), prepared.array)
    assert values.flags.writeable
    assert not prepared.array.flags.writeable
    shown = prepare(values, like=Preprocess(mean=(0.5,), std=(0.25,))).picture
    np.testing.assert_array_equal(shown, values.astype(np.float32) * np.float32(0.25) + np.float32(0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_tensor_is_an_array(dtype: torch.dtype) -> None:
    values = torch.linspace(0, 1, 9, dtype=dtype, requires_grad=True).reshape(1, 3, 3)
    np.testing.assert_array_equal(load_image(values), values.detach().float().numpy())
    bytes_ = torch.full((3, 2, 2), 51, dtype=torch.uint8)
    assert load_image(bytes_)[0, 0, 0] == np.float32(0.2)


@given(st.integers(0, 255))
def test_bytes_are_pixels_from_0_to_255(pixel: int) -> None:
    array = np.full((4, 5), pixel, np.uint8)
    prepared = prepare(array)
    np.testing.assert_array_equal(prepared.array, np.full((1, 4, 5), np.float32(pixel) / np.float32(255)))
    assert ("brightest pixel is 1 of 255" in " ".join(prepared.notes)) == (pixel == 1)


REFUSED: Mapping[str, tuple[Any, type[Exception], str]] = {
    "no file": ("gone.png", ImageError, "there is no file gone.png; .* a data set's image, such as mnist:test/7"),
    "a data set alone": ("shapes", UsageError, "shapes is a whole data set; name one of its images: shapes:test/0"),
    "a misspelt data set": ("shape:test/0", UnknownName, "no data set is called 'shape'; did you mean 'shapes'"),
    "a misspelt name": ("crosses:damaged-pluss", UnknownName, "did you mean 'damaged-plus'"),
    "too large a number": ("crosses:test/2", UsageError, "has images 0 to 1, not 2"),
    "a misspelt split": ("shapes:tset/3", UnknownName, "no split is called 'tset'; did you mean 'test'.*shapes:test/0"),
    "no number": ("shapes:test/seven", UnknownName, "no image of shapes is called 'seven'"),
    "channels last": (np.zeros((9, 9, 3), np.float32), ShapeError, r"looks like \(H, W, C\); give array.transpose"),
    "pixels, channels last": (np.zeros((9, 9, 3), np.uint8), ShapeError, r"looks like \(H, W, C\)"),
    "a batch": (np.zeros((2, 1, 9, 9)), ShapeError, r"not \(2, 1, 9, 9\); give one image of the batch, such as array"),
    "a batch of bytes": (np.zeros((2, 1, 9, 9), np.uint8), ShapeError, r"a picture has the shape \(C, H, W\)"),
    "integers": (np.zeros((1, 9, 9), np.int64), ShapeError, "int64, .*give uint8 to load_image.*astype"),
    "nothing": (np.zeros((1, 0, 9)), ShapeError, "an image has the shape"),
    "a list of words": ([["a"]], ShapeError, "the image holds <U1"),
}


@pytest.mark.parametrize(("source", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_gets_a_sentence(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_image(source)


def user_net(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 5, 3), nn.Conv2d(5, 2, 3))


MISFITS: Mapping[str, tuple[Any, tuple[int, ...], str]] = {
    "channels of a built-in": (
        lambda: load_model("simple-cnn"),
        (3, 28, 28),
        r"the image is 3x28x28, but simple-cnn takes 1x28x28 \(conv1 takes 1 channel\); load_image",
    ),
    "size of a built-in": (lambda: load_model("shapes-mlp"), (1, 30, 28), r"takes 1x28x28 \(fc1 takes 784 numbers\)"),
    "channels of any network": (
        lambda: user_net(3),
        (1, 9, 9),
        r"Sequential takes images of 3 channels \(0 takes 3 channels\)",
    ),
    "numbers of a linear layer": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 2)),
        (1, 30, 30),
        r"Sequential takes 1x28x28 \(1 takes 784 numbers\)",
    ),
    "a card": (lambda: Card("net", DIGIT, fixed_size=True), (1, 27, 28), "net takes 1x28x28; load_image"),
    "a preprocess": (lambda: DIGIT, (3, 28, 28), "this preprocess takes 1x28x28"),
    "a data set": (lambda: load_dataset("crosses"), (3, 3, 3), "crosses takes 1x3x3"),
}


@pytest.mark.parametrize(("like", "shape", "message"), MISFITS.values(), ids=MISFITS)
def test_an_array_that_does_not_fit_is_told_what_the_first_layer_takes(
    like: Any, shape: tuple[int, ...], message: str
) -> None:
    for check in (check_input, lambda like, array: prepare(array, like)):
        with pytest.raises(ShapeError, match=message):
            check(like(), np.zeros(shape, np.float32))


FITS: Mapping[str, tuple[Any, tuple[int, int, int]]] = {
    "any size if none is known": (lambda: user_net(3), (3, 50, 40)),
    "a linear layer on patches": (lambda: nn.Linear(3 * 4 * 4, 7), (3, 16, 16)),
    "a bare linear layer on rows": (lambda: nn.Linear(5, 7), (1, 4, 5)),
    "a pixel unshuffle first": (lambda: nn.Sequential(nn.PixelUnshuffle(2), user_net(12)), (3, 8, 8)),
    "layers defined in another order": (
        lambda: nn.ModuleDict({"b": nn.Conv2d(8, 2, 3), "a": nn.Conv2d(3, 8, 3)}),
        (3, 9, 9),
    ),
    "what a card says rather than the layers": (
        lambda: load_model(user_net(3), preprocess={"channels": 1}),
        (1, 9, 9),
    ),
    "stripes of any size": (lambda: load_model("stripes"), (1, 300, 17)),
    "no layers at all": (nn.ReLU, (7, 3, 2)),
}


@pytest.mark.parametrize(("like", "shape"), FITS.values(), ids=FITS)
def test_nothing_is_refused_that_might_work(like: Any, shape: tuple[int, int, int]) -> None:
    check_input(like(), np.zeros(shape, np.float32))


def test_a_real_digit_and_the_real_photo(shared_data: Path) -> None:
    model = load_model("simple-cnn")
    digit = prepare("mnist:test/7", like=model, data_dir=shared_data / "mnist")
    assert (digit.label, digit.notes, digit.array.shape) == (9, (), (1, 28, 28))
    dog = prepare(shared_data / "images" / "dog.jpg", like=model)
    assert dog.array.shape == (1, 28, 28)
    assert dog.notes[0].endswith("from 300x300 to 28x28")
    assert set(DATASETS) >= {"mnist"}
