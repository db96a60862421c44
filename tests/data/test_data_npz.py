"""NumPy archives: names, layouts, types, ranges, and settings that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archives import IMAGES, LABELS, hostile, load, raw, write
from convscope.data.catalog import load_dataset
from convscope.errors import DataError, UsageError
from convscope.typing import Array


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y")])
def test_one_pair_is_split_by_the_seed(tmp_path: Path, images: str, labels: str) -> None:
    path = write(tmp_path, **{images: IMAGES, labels: LABELS}, other=np.zeros(3))
    data = load(path)
    np.testing.assert_array_equal(data.images[:, 0], IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.classes == ("0", "1")
    train, test = load(path, "train"), load(path, "test")
    assert train.counts() == {"0": 4, "1": 4}
    assert test.counts() == {"0": 1, "1": 1}
    rows = np.concatenate([train.images, test.images]).reshape(10, -1)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, IMAGES.reshape(10, -1)))
    assert any((load(path, "test", seed).images != test.images).any() for seed in range(1, 4))


def test_keras_names_are_the_splits(tmp_path: Path) -> None:
    path = write(tmp_path, x_train=IMAGES[:7], y_train=LABELS[:7], x_test=IMAGES[7:], y_test=LABELS[7:])
    assert [len(load(path, split)) for split in ("train", "test", "all")] == [7, 3, 10]
    np.testing.assert_array_equal(load(path, "test").images[:, 0], IMAGES[7:])
    np.testing.assert_array_equal(load(path).labels, LABELS)


def test_medmnist_names_and_labels_of_one_column(tmp_path: Path) -> None:
    column = LABELS[:, None].astype(np.uint8)
    cuts = {"train": slice(0, 5), "val": slice(5, 7), "test": slice(7, 10)}
    arrays = {f"{k}_images": IMAGES[cut] for k, cut in cuts.items()} | {
        f"{k}_labels": column[cut] for k, cut in cuts.items()
    }
    path = write(tmp_path, **arrays)
    assert [len(load(path, split)) for split in ("train", "test", "all")] == [5, 3, 10]
    np.testing.assert_array_equal(load(path).images[:, 0], IMAGES)
    np.testing.assert_array_equal(load(path).labels, LABELS)


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, x_train=IMAGES, y_train=LABELS)
    assert len(load(path)) == len(load(path, "train")) == 10
    with pytest.raises(DataError, match=r"own\.npz has no images of the split test; it has train"):
        load(path, "test")


@given(
    channels=st.sampled_from([1, 3]),
    size=st.tuples(*[st.sampled_from([2, 5, 6, 7, 9])] * 2),  # where it is 1, 3 or 4, see below
    last=st.booleans(),
)
def test_channels_may_come_first_or_last(
    tmp_path_factory: pytest.TempPathFactory, channels: int, size: tuple[int, int], last: bool
) -> None:
    expected = np.arange(4 * channels * size[0] * size[1]).reshape(4, channels, *size).astype(np.uint8)
    stored = expected.transpose(0, 2, 3, 1) if last else expected
    data = load(write(tmp_path_factory.getbasetemp(), images=stored, labels=[0, 1, 0, 1]))
    np.testing.assert_array_equal(data.images, expected)


LAYOUTS = {
    (3, 3, 1): (1, 3, 3),
    (1, 3, 3): (1, 3, 3),
    (3, 28, 28): (3, 28, 28),
    (28, 28, 3): (3, 28, 28),
    (4, 9, 8): (4, 9, 8),
    (9, 8, 4): (4, 9, 8),
    (4, 5, 5): (4, 5, 5),
}


@pytest.mark.parametrize(("stored", "read"), LAYOUTS.items(), ids=str)
def test_usual_channels_and_square_pictures_tell_the_layout(
    tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]
) -> None:
    data = load(write(tmp_path, images=np.full((2, *stored), 9, np.uint8), labels=[0, 1]))
    assert (data.shape, data.notes) == (read, ())


BANDS = {
    (64, 64, 13): (13, 64, 64),
    (64, 64, 2): (2, 64, 64),
    (13, 64, 64): (13, 64, 64),
    (8, 8, 512): (512, 8, 8),
    (13, 60, 64): (13, 60, 64),
    (60, 64, 13): (13, 60, 64),
}


@pytest.mark.parametrize(("stored", "read"), BANDS.items(), ids=str)
def test_bands_are_told_by_square_pictures_or_their_small_number_and_said(
    tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]
) -> None:
    data = load(write(tmp_path, images=np.full((2, *stored), 9, np.uint8), labels=[0, 1]))
    assert data.shape == read
    (note,) = data.notes
    other = "nhwc" if stored == read else "nchw"
    assert f"are read as {read[0]} channels of {read[1]}x{read[2]}; if they are not, add layout={other}." in note


@pytest.mark.parametrize(
    "stored", [(3, 28, 3), (7, 9, 8), (64, 64, 64), (3, 3, 3), (5, 6, 7), (64, 3, 3), (4, 4, 13), (1, 28, 1)], ids=str
)
def test_a_layout_that_can_be_read_in_two_ways_is_refused_with_the_option_that_decides(
    tmp_path: Path, stored: tuple[int, ...]
) -> None:
    path = write(
        tmp_path, images=np.arange(2 * np.prod(stored), dtype=np.uint32).reshape(2, *stored) % 200, labels=[0, 1]
    )
    with pytest.raises(DataError, match=r"say which: npz:.*own\.npz\?layout=nchw or npz:.*own\.npz\?layout=nhwc\."):
        load(path)
    first = load_dataset(f"npz:{path}?layout=nchw", split="all")
    last = load_dataset(f"npz:{path}?layout=nhwc", split="all")
    assert (first.shape, first.notes) == (stored, ())
    np.testing.assert_array_equal(last.images.transpose(0, 2, 3, 1), first.images)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, images=IMAGES, labels=LABELS)
    for options, message in {
        "layout=nhwc": "without channels; layout= is for four axes",
        "layuot=nhwc": "no option of .* is called 'layuot'; did you mean 'layout'",
        "white=0": "white is the value of a white pixel, a number above 0",
        "white=much": "not 'much'",
        "white=nan": "not 'nan'",
    }.items():
        with pytest.raises(UsageError, match=message):
            load_dataset(f"npz:{path}?{options}")
    color = write(tmp_path, images=np.zeros((10, 5, 5, 3), np.uint8), labels=LABELS)
    with pytest.raises(UsageError, match="no layout is called 'hwc'; did you mean 'nhwc'"):
        load_dataset(f"npz:{color}?layout=hwc")


RANGES: dict[str, tuple[Array, float | None, str]] = {
    "sums of weights": (
        np.array([0, 0.5, 1.0001]),
        1,
        "values from 0 to 1.0001 are read as 0 to 1; if another value is",
    ),
    "ringing": (np.array([-0.06, 0.5, 1.07]), 1, "values from -0.06 to 1.07 are read as 0 to 1"),
    "ringing at 255": (np.array([-9.0, 3, 261.5]), 255, "values from -9 to 261.5 are read as 0 to 255"),
    "floats to 255": (np.array([0, 3.5, 254]), 255, "values from 0 to 254 are read as 0 to 255"),
    "floats of 16 bits": (np.array([0, 3.5, 40_000]), 65535, "values from 0 to 40000 are read as 0 to 65535"),
    "12 bits": (np.array([0, 3, 4095], np.uint16), 65535, "values from 0 to 4095 are read as 0 to 65535"),
    "black and white": (np.array([0, 1, 1], np.uint8), 1, "values from 0 to 1 are read as 0 to 1"),
    "normalized": (np.array([-2.1, 0, 2.6]), 1, "values from -2.1 to 2.6 are taken as they are, for some are negative"),
    "temperatures": (np.array([-400, 0, 3000], np.int16), 1, "are taken as they are, for some are negative"),
    "bytes": (np.array([0, 3, 200], np.uint8), 255, ""),
    "shares": (np.array([0, 0.2, 0.9]), 1, ""),
    "booleans": (np.array([False, True, True]), 1, ""),
    "from 0 to 3": (np.array([0, 0.5, 3]), None, "from 0 to 3, where white can be 1 or 255; say which"),
    "dark or bright": (np.array([0, 0.5, 12]), None, "from 0 to 12, where white can be 1 or 255"),
    "negative and large": (np.array([-3.0, 0.5, 60]), None, "from -3 to 60, where white can be 1 or 255"),
}


@pytest.mark.parametrize(("values", "white", "said"), RANGES.values(), ids=RANGES)
def test_ranges_are_clear_said_or_refused(tmp_path: Path, values: Array, white: float | None, said: str) -> None:
    path = write(tmp_path, images=values.reshape(3, 1, 1), labels=[0, 1, 0])
    if white is None:
        with pytest.raises(DataError, match=rf"{said}.*\?white=1 or npz:.*\?white=255\."):
            load(path)
        assert load_dataset(f"npz:{path}?white=255", split="all").preprocess.scale == 255
        return
    data = load(path)
    assert data.preprocess.scale == white
    assert said in " ".join(data.notes)
    assert bool(said) == bool(data.notes)


def test_white_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, images=np.array([0, 3, 4095], np.uint16).reshape(3, 1, 1), labels=[0, 1, 0])
    data = load_dataset(f"npz:{path}?white=4095", split="all")
    assert (data.image(2).item(), data.images.dtype, data.notes) == (1.0, np.dtype(np.float32), ())
    assert load_dataset(f"npz:{path}?white=70000", split="all").preprocess.scale == 70_000


VALUES: dict[str, tuple[Array, type, float]] = {
    "bytes": (np.array([0, 200, 255], np.uint8), np.uint8, 255),
    "bytes of 0 and 1": (np.array([0, 1, 1], np.uint8), np.uint8, 1),
    "booleans": (np.array([False, True, True]), np.uint8, 1),
    "integers in 64 bits": (np.array([0, 3, 255]), np.uint8, 255),
    "16 bits": (np.array([0, 300, 65535], np.uint16), np.float32, 65535),
    "floats from 0 to 1": (np.array([0, 0.5, 1]), np.float32, 1),
    "floats from 0 to 255": (np.array([0, 0.5, 254.0]), np.float32, 255),
    "normalized floats": (np.array([-1.5, 0, 2.0]), np.float32, 1),
    "half precision": (np.array([0, 0.25, 1], np.float16), np.float32, 1),
}


@pytest.mark.parametrize(("values", "kind", "scale"), VALUES.values(), ids=VALUES)
def test_values_keep_their_units(tmp_path: Path, values: Array, kind: type, scale: float) -> None:
    data = load(write(tmp_path, images=values.reshape(3, 1, 1), labels=[0, 1, 0]))
    assert data.images.dtype == kind
    np.testing.assert_array_equal(data.images.ravel(), values.astype(kind))
    assert data.preprocess.scale == scale
    np.testing.assert_allclose([data.image(i).item() for i in range(3)], values.astype(float) / scale, rtol=1e-6)


def test_every_split_has_the_same_units_and_classes(tmp_path: Path) -> None:
    dark, light = np.zeros((2, 2, 2), np.uint8), np.full((2, 2, 2), 255, np.uint8)
    path = write(tmp_path, x_train=light, y_train=[0, 2], x_test=dark, y_test=[0, 0])
    assert load(path, "train").preprocess == load(path, "test").preprocess
    assert load(path, "train").classes == load(path, "test").classes == ("0", "1", "2")


def test_classes_can_be_named(tmp_path: Path) -> None:
    for names in (["cat", "dog", "owl"], [b"cat", b"dog", b"owl"]):
        assert load(write(tmp_path, x=IMAGES, y=LABELS, classes=names)).classes == ("cat", "dog", "owl")


def test_a_label_outside_the_classes_is_refused_where_its_split_is_asked_for(tmp_path: Path) -> None:
    wrong = {"x_test": IMAGES, "y_test": LABELS + 2, "classes": ["cat", "dog", "owl"]}
    path = write(tmp_path, x_train=IMAGES, y_train=LABELS, **wrong)
    assert load(path, "train").classes == ("cat", "dog", "owl")
    with pytest.raises(DataError, match=r"label 3 of image \d+ of .*\(y_test\) is outside its 3 classes \(0 to 2\)"):
        load(path, "test")
    with pytest.raises(DataError, match=r"\(y_test\) is outside its 3 classes"):
        load(path, "all")


def test_whole_labels_may_be_floats(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load(write(tmp_path, x=IMAGES, y=LABELS.astype(float))).labels, LABELS)


REFUSED: dict[str, dict[str, Any]] = {
    "has no pair of images and labels under the names that are known: images and labels; x and y; x_train": {"a": [1]},
    "has no pair of images": {"images": IMAGES, "targets": LABELS},
    r"must be numbers of shape \(N, H, W\), .*, not uint8 of \(10, 20\)": {"x": IMAGES.reshape(10, 20), "y": LABELS},
    "not complex128 of": {"x": IMAGES.astype(complex), "y": LABELS},
    "values that are not finite numbers": {"x": np.full((10, 2, 2), np.nan), "y": LABELS},
    "are not finite": {"x": np.full((10, 2, 2), -1e300), "y": LABELS},
    r"have values up to 70000; at most 65535 can be pixels": {"x": np.full((10, 2, 2), 70_000), "y": LABELS},
    r"labels of .* have the shape \(10, 2\) for 10 images; .*argmax": {"x": IMAGES, "y": np.eye(2)[LABELS]},
    r"have the shape \(9,\) for 10 images": {"x": IMAGES, "y": LABELS[:9]},
    "are <U21 values; they must be whole class numbers": {"x": IMAGES, "y": LABELS.astype(str)},
    "are float64 values": {"x": IMAGES, "y": LABELS + 0.5},
    r"label -1 of image 0 of .*\(y\) is outside": {"x": IMAGES, "y": LABELS - 1},
    r"label 1 of image \d+ of .*\(y\) is outside its 1 class": {"x": IMAGES, "y": LABELS, "classes": ["only"]},
    "array classes of .* must be a list of strings, not int64": {"x": IMAGES, "y": LABELS, "classes": [1, 2]},
    "has the label 5000000; class numbers below 100,000 are expected": {"x": IMAGES, "y": LABELS * 5_000_000},
    "differ in shape from split to split": {
        "x_train": IMAGES,
        "y_train": LABELS,
        "x_test": IMAGES[:, 1:],
        "y_test": LABELS,
    },
    "holds Python objects, which are never loaded": {"x": np.array([{}] * 10, object), "y": LABELS},
    "has no images": {"x": IMAGES[:0], "y": LABELS[:0]},
}


@pytest.mark.parametrize(("said", "arrays"), REFUSED.items(), ids=REFUSED)
def test_an_archive_that_cannot_be_used_is_refused(tmp_path: Path, said: str, arrays: dict[str, Any]) -> None:
    path = write(tmp_path, **arrays)
    with pytest.raises(DataError, match=said) as caught:
        load(path)
    assert "own.npz" in str(caught.value)


def test_names_of_classes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class names of .* are bytes that are not UTF-8"):
        load(write(tmp_path, x=IMAGES, y=LABELS, classes=np.array([b"\xff\xfe", b"a"])))
    assert load(write(tmp_path, x=IMAGES, y=LABELS, classes=["Käse".encode(), b"a"])).classes == ("Käse", "a")
    for order in "<>":
        beyond = np.array([0x110000, 97], np.uint32).astype(f"{order}u4").view(f"{order}U1")
        with pytest.raises(DataError, match=r"class names of .* hold numbers that are not characters"):
            load(hostile(tmp_path, raw(), classes=beyond))
        assert load(hostile(tmp_path, raw(), classes=np.array(["ä", "b"], f"{order}U1"))).classes == ("ä", "b")


def test_labels_beyond_all_classes_are_refused(tmp_path: Path) -> None:
    for label in (2**63 + 5, 1e300):
        with pytest.raises(DataError, match="class numbers below 100,000 are expected"):
            load(write(tmp_path, x=IMAGES, y=np.array([0, label] * 5, np.uint64 if label < 1e20 else float)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [">u2", "<i8", "<f2", ">f8", "|b1"])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_type_and_order_is_read(tmp_path: Path, kind: str, order: Any, compressed: bool) -> None:
    images = np.asarray(np.arange(40).reshape(2, 4, 5) % 2, kind, order=order)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", images=images, labels=[0, 1])
    np.testing.assert_array_equal(load(tmp_path / "a.npz").images[:, 0], images)
