"""NumPy archives: names, layouts, types, and what is refused."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.data import load_dataset
from convscope.data.dataset import Dataset
from convscope.errors import DataError
from convscope.images import Array

IMAGES = np.arange(10 * 4 * 5, dtype=np.uint8).reshape(10, 4, 5)
LABELS = np.array([0, 1] * 5)


def write(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def load(path: Path, split: str = "all", seed: int = 0) -> Dataset:
    return load_dataset(f"npz:{path}", split=split, seed=seed)


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


AMBIGUOUS = {
    (3, 3, 1): (1, 3, 3),
    (1, 3, 3): (1, 3, 3),
    (3, 28, 3): (3, 28, 3),
    (3, 28, 28): (3, 28, 28),
    (28, 28, 3): (3, 28, 28),
    (4, 9, 8): (4, 9, 8),
    (9, 8, 4): (4, 9, 8),
    (7, 9, 8): (7, 9, 8),
}


@pytest.mark.parametrize(("stored", "read"), AMBIGUOUS.items(), ids=str)
def test_where_both_orders_are_possible_the_squarer_picture_is_meant(
    tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]
) -> None:
    assert load(write(tmp_path, images=np.zeros((2, *stored), np.uint8), labels=[0, 1])).shape == read


VALUES: dict[str, tuple[Array, type, float]] = {
    "bytes": (np.array([0, 200, 255], np.uint8), np.uint8, 255),
    "bytes of 0 and 1": (np.array([0, 1, 1], np.uint8), np.uint8, 1),
    "booleans": (np.array([False, True, True]), np.uint8, 1),
    "whole numbers in 64 bits": (np.array([0, 3, 255]), np.uint8, 255),
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


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path, x=IMAGES, y=LABELS).read_bytes()
    np.save(tmp_path / "one.npy", IMAGES)
    contents = {
        "text": b"no archive",
        "empty": b"",
        "pickle": pickle.dumps([IMAGES, LABELS]),
        "cut off": whole[: len(whole) // 2],
        "one byte changed": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
        "one array": (tmp_path / "one.npy").read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(DataError, match=re.escape(f"{name}.npz")):
            load(tmp_path / f"{name}.npz")


def test_an_object_array_beside_the_data_is_never_loaded(tmp_path: Path) -> None:
    assert len(load(write(tmp_path, x=IMAGES, y=LABELS, meta=np.array([{}], object)))) == 10
