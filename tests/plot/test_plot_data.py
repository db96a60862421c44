"""Figures of data: samples, pixels and colour planes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import convscope as cs
from convscope.data.dataset import Dataset
from convscope.errors import UsageError
from convscope.plot.canvas.style import width
from convscope.plot.figures.confusion import confusion
from convscope.plot.figures.kernels import kernels
from convscope.plot.figures.pixels import pixels
from convscope.plot.figures.samples import samples, spread
from figures import cells, data, drawn, image, named, texts


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_samples_show_the_images_of_their_class_with_their_index() -> None:
    toy = data(3, 30)
    figure = samples(toy, per_class=4)
    shown = [str(picture.get_label()) for picture in figure.axes[0].images]
    assert len(shown) == 12
    for path, label in enumerate(shown):
        index = int(label.removeprefix("test/"))
        assert toy.labels[index] == path // 4
        assert str(index) in cells(figure)
        np.testing.assert_array_equal(drawn(figure, label).get_array(), toy.picture(index)[0])
    assert f"4 of each class, evenly spaced · each with its index, as in {toy.name}:{shown[-1]}" in cells(figure)
    assert all(picture.get_clim() == (0, 1) for picture in figure.axes[0].images)


def test_samples_name_the_classes_of_the_tutorials_in_full() -> None:
    for name in ("shapes", "color-shapes", "fashion-mnist"):
        classes = cs.DATASETS[name].classes
        toy = Dataset(name, np.zeros((len(classes), 1, 28, 28), np.uint8), np.arange(len(classes)), classes)
        assert set(classes) <= set(texts(samples(toy)))


def test_samples_of_very_many_classes_say_that_they_are_some() -> None:
    assert any(text.startswith("20 of 25 classes, the first") for text in texts(samples(data(25, 50))))


def test_samples_use_names_where_images_have_them() -> None:
    crosses = cs.load_dataset("crosses", split="all")
    assert set(crosses.names) <= cells(samples(crosses))
    long = replace(crosses, names=("a/1.png", "a/2.png", "b/3.png", "b/IMG_20240519_101112_edited.png"))
    assert {"0", "1", "2", "3"} <= cells(samples(long))  # all or none: else the same word would be under many
    assert not any("png" in text for text in texts(samples(long)))
    assert "each with its index, as in crosses:all/3" in cells(samples(long))


def test_a_long_class_name_keeps_both_of_its_ends() -> None:
    crosses = replace(
        cs.load_dataset("crosses", split="all"), classes=("retriever " * 9 + "one", "retriever " * 9 + "x")
    )
    for figure in (samples(crosses), confusion(np.eye(2, dtype=np.int64), crosses.classes)):
        message = [text for text in texts(figure) if text.startswith("retr")]
        assert {text[-2:].strip(" e") for text in message} == {"n", "x"}
        assert all("…" in text and width(text, 8, bold=True) < 2.3 for text in message)


def test_no_kernels_are_refused() -> None:
    with pytest.raises(UsageError, match="most must be 1 or more kernels, not 0"):
        kernels(np.ones((1, 1, 3, 3)), most=0)


def test_samples_are_a_hundred_of_a_class_at_most() -> None:
    toy = data(2, 300)
    assert len(spread(toy, 10**9)) == 200
    assert "100 of each class, evenly spaced" in " ".join(cells(samples(toy, per_class=10**9)))


@pytest.mark.parametrize("per_class", [0, -1])
def test_no_samples_are_refused(per_class: int) -> None:
    with pytest.raises(UsageError, match=f"per_class must be 1 or more, not {per_class}"):
        samples(data(), per_class=per_class)


def test_spread_takes_first_and_last_of_each_class() -> None:
    toy = data(2, 21)
    result = spread(toy, 3)
    assert result == [0, 10, 20, 1, 9, 19]
    assert spread(toy, 100) == [*range(0, 21, 2), *range(1, 21, 2)]


def test_pixels_writes_every_number_of_a_digit() -> None:
    digit = np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
    figure = pixels(digit)
    written = [t.get_text() for t in figure.axes[0].texts][2 : 2 + 784]
    assert list(map(int, written)) == digit.ravel().tolist()
    np.testing.assert_allclose(drawn(figure, "pixels").get_array() * 255, digit[0])
    assert pixels(digit.astype(np.float32) / 255).axes[0].texts[2 + 5].get_text() == str(digit[0, 0, 5])
    assert {"0", "27"} <= cells(figure)


def test_a_cropped_photo_shows_where_and_the_numbers_there() -> None:
    photo = image(1, 80, 100)
    figure = pixels(photo, crop=(70, 20, 3, 4), units=1)
    assert any("rows 70 to 72, columns 20 to 23" in text for text in texts(figure))
    np.testing.assert_allclose(drawn(figure, "pixels").get_array(), photo[0, 70:73, 20:24])
    assert {f"{v:.3f}" for v in photo[0, 70:73, 20:24].ravel()} <= cells(figure)
    np.testing.assert_allclose(drawn(figure, "picture").get_array(), photo[0])


def test_without_a_crop_the_busiest_part_is_written_out() -> None:
    photo = np.full((1, 96, 96), 0.5)
    photo[0, 48:72, 24:48] = np.random.default_rng(0).random((24, 24))
    assert any("rows 48 to 71, columns 24 to 47" in text for text in texts(pixels(photo)))


def test_planes_add_up_to_the_picture_and_are_written_in_both_units() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 20, 20), dtype=np.uint8)
    figure = pixels(picture, crop=(2, 3, 2, 2))  # a colour picture becomes its planes
    whole, *tinted = [p.get_array() for p in named(figure, "picture")]
    np.testing.assert_allclose(np.sum(tinted, axis=0), whole)
    np.testing.assert_allclose(np.moveaxis(whole, -1, 0) * 255, picture)
    part = picture[:, 2:4, 3:5]
    assert {str(v) for v in part.ravel()} <= cells(figure)
    assert {f"{v / 255:.3f}" for v in part.ravel() if 0 < v < 255} <= cells(figure)
    assert {"red", "green", "blue", "255", "1", "0 to 255", "0 to 1"} <= cells(figure)
