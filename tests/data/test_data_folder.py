"""Folders of images: layouts, formats, sizes, depths, damaged files."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset, check_trainable, overlap
from convscope.errors import DataError, DataWarning, ImageError, UnknownName, UsageError
from convscope.training.evaluation import data_of
from convscope.typing import Array


def save(path: Path, value: int, size: tuple[int, int] = (4, 6), color: bool = False) -> None:
    """A picture of (height, width) that shows one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3) if color else size, value, np.uint8)).save(path)


def fill(root: Path, classes: dict[str, int]) -> Path:
    """A sub-folder per class with so many pictures, each of another value."""
    value = 0
    for name, count in classes.items():
        for number in range(count):
            save(root / name / f"{number:03}.png", value)
            value += 1
    return root


def load(
    root: Path,
    split: str = "all",
    *,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
    grey: bool = False,
    strict: bool = False,
) -> Dataset:
    return load_dataset(f"folder:{root}", split=split, seed=seed, image_size=image_size, grey=grey, strict=strict)


def values(data: Dataset) -> list[int]:
    return [int(value) for value in data.images[:, 0, 0, 0]]


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_a_sub_folder_is_a_class(tmp_path: Path) -> None:
    data = load(fill(tmp_path, {"dogs": 2, "cats": 3}))
    assert data.classes == ("cats", "dogs")
    assert data.names == ("cats/000.png", "cats/001.png", "cats/002.png", "dogs/000.png", "dogs/001.png")
    assert list(data.labels) == [0, 0, 0, 1, 1]
    assert values(data) == [2, 3, 4, 0, 1]
    assert data.images.dtype == np.uint8
    assert data.shape == (1, 4, 6)
    assert (data.preprocess.size, data.preprocess.channels, data.preprocess.scale) == ((4, 6), 1, 255)
    assert (data.name, data.source) == (f"folder:{tmp_path}", str(tmp_path))
    assert data.index("dogs/001.png") == 4


def test_without_train_and_test_a_fifth_of_each_class_is_test(tmp_path: Path) -> None:
    root = fill(tmp_path, {"cats": 10, "dogs": 5, "owls": 1})
    train, test = load(root, "train"), load(root, "test")
    assert train.counts() == {"cats": 8, "dogs": 4, "owls": 1}
    assert test.counts() == {"cats": 2, "dogs": 1, "owls": 0}
    assert overlap(train, test) == 0
    assert sorted([*train.names, *test.names]) == sorted(load(root).names)
    assert load(root, "test").names == test.names
    assert any(load(root, "test", seed=seed).names != test.names for seed in range(1, 4))


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "Testing"), ("train", "val"), ("train", "validation")]
)
def test_train_and_test_folders_are_the_splits(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / train, {"cats": 2, "dogs": 3})
    fill(tmp_path / test, {"dogs": 1, "owls": 1})
    parts = {split: load(tmp_path, split) for split in ("train", "test", "all")}
    assert {part.classes for part in parts.values()} == {("cats", "dogs", "owls")}
    assert [len(part) for part in parts.values()] == [5, 2, 7]
    assert parts["test"].names == (f"{test}/dogs/000.png", f"{test}/owls/000.png")
    assert list(parts["test"].labels) == [1, 2]
    check_trainable(parts["train"])


def test_a_validation_folder_beside_test_is_in_all_only(tmp_path: Path) -> None:
    for at, split in enumerate(("train", "val", "test")):
        fill(tmp_path / split, {"cats": 1 + at, "dogs": 1 + at})
    assert [len(load(tmp_path, split)) for split in ("train", "test", "all")] == [2, 6, 12]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(fill(tmp_path, {"car": 1, "train": 2, "tram": 1})).classes == ("car", "train", "tram")


def test_hidden_files_and_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, {"cats": 2, "dogs": 2})
    for name in ("cats/notes.txt", "cats/.hidden.png", "cats/Thumbs.db", ".git/x.png", "__MACOSX/y.png", "readme.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    save(tmp_path / "cats" / "deeper" / "MORE.PNG", 77)
    data = load(tmp_path)
    assert data.counts() == {"cats": 3, "dogs": 2}
    assert "cats/deeper/MORE.PNG" in data.names


LAYOUTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "empty": (lambda _: None, "all", "has no sub-folders; it needs one with images for each class, such as"),
    "loose images": (lambda root: save(root / "a.png", 1), "all", "has no sub-folders"),
    "a class without images": (
        lambda root: (fill(root, {"cats": 1}) / "dogs").mkdir(),
        "train",
        "the class 'dogs' has no images in .*; add some, or remove the folder",
    ),
    "no train": (
        lambda root: fill(root / "test", {"cats": 1, "dogs": 1}),
        "train",
        "has a test split and no train/; add one, or ask for the split test or all",
    ),
    "empty train": (lambda root: (root / "train").mkdir(), "train", "the class 'train' has no images in"),
    "classes on two levels": (
        lambda root: [fill(root / site, {"cat": 1, "dog": 1}) for site in ("amazon", "dslr")],
        "train",
        r"has the folders amazon, dslr, which hold folders of the same names \(cat, dog\): either .*\?splits=none",
    ),
    "domains, one folder down": (
        lambda root: [fill(root / site / "images", {"cat": 1, "dog": 1}) for site in ("amazon", "dslr")],
        "train",
        r"hold folders of the same names \(cat, dog\)",
    ),
    "splits within classes": (
        lambda root: [fill(root / name, {"train": 2, "val": 1}) for name in ("cat", "dog")],
        "train",
        r"hold folders of the same names \(train, val\)",
    ),
    "train and a folder of pictures": (
        lambda root: (fill(root / "train", {"cat": 2, "dog": 2}), fill(root, {"masks": 2})),
        "train",
        r"read in two ways: train/ is called like a training split, and masks/ beside it has pictures too\. Name the "
        r"splits, folder:.*\?train=train or with &test=FOLDER, or make all folders the classes by .*\?splits=none",
    ),
    "two training splits": (
        lambda root: [fill(root / name, {"cat": 2, "dog": 2}) for name in ("train2014", "train2017", "val2017")],
        "train",
        "train2014/ and train2017/ could each be the training split",
    ),
    "nothing held out": (lambda root: fill(root, {"cats": 1}), "test", "has no images; a data set needs at least one"),
}


@pytest.mark.parametrize(("build", "split", "said"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_that_cannot_be_used_is_refused(
    tmp_path: Path, build: Callable[[Path], object], split: str, said: str
) -> None:
    build(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        load(tmp_path, split)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_status == 1


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match=re.escape(f"there is no folder {tmp_path / 'a.txt'}; check the path.")):
        load(tmp_path / "a.txt")


def test_one_class_can_be_loaded_and_not_trained_on(tmp_path: Path) -> None:
    data = load(fill(tmp_path, {"cats": 3}))
    assert data.classes == ("cats",)
    with pytest.raises(DataError, match="are of one class, 'cats'"):
        check_trainable(data)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"cats": 1}).chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        load(tmp_path)
    tmp_path.chmod(0o700)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_every_kind_of_picture_is_brought_together(tmp_path: Path) -> None:
    """Grey, colour, palette, alpha, black and white, and one that a camera turned: all become RGB of one size."""
    upright = np.zeros((4, 6), np.uint8)
    upright[0] = 200  # the upper row is light
    grey = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    assert turned.size == (4, 6)
    alpha = grey.copy()
    alpha.putalpha(Image.fromarray(np.where(upright == 200, 255, 0).astype(np.uint8)))
    kinds: dict[str, tuple[Image.Image, Array]] = {
        "alpha.png": (alpha, np.where(upright == 200, 200, 255)),  # what is transparent is white
        "bits.png": (grey.convert("1", dither=Image.Dither.NONE), np.where(upright == 200, 255, 0)),
        "colour.png": (grey.convert("RGB"), upright),
        "grey.bmp": (grey, upright),
        "palette.gif": (grey.convert("RGB").quantize(4), upright),
        "turned.png": (turned, upright),
    }
    for name, (picture, _) in kinds.items():
        (tmp_path / "a").mkdir(exist_ok=True)
        path = tmp_path / "a" / name
        picture.save(path, exif=exif) if name == "turned.png" else picture.save(path)
    data = load(tmp_path)
    assert data.shape == (3, 4, 6)
    assert data.names == tuple(f"a/{name}" for name in kinds)
    for at, (name, (_, expected)) in enumerate(kinds.items()):
        np.testing.assert_array_equal(data.images[at], np.broadcast_to(expected, (3, 4, 6)), err_msg=name)


def test_one_deeper_file_makes_all_float_in_the_same_units(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2})
    (tmp_path / "b").mkdir()
    Image.fromarray(np.full((4, 6), 1000, np.uint16)).save(tmp_path / "b" / "deep.png")
    data = load(tmp_path)
    assert data.images.dtype == np.float32
    np.testing.assert_allclose(data.images[:, 0, 0, 0], [0, 1, 1000 / 257], rtol=1e-6)
    assert data.preprocess.scale == 255
    assert data.image(1).max() == np.float32(1 / 255)


def test_grey_makes_one_channel_by_luma(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "a" / "red.png")
    save(tmp_path / "a" / "grey.png", 9)
    data = load(tmp_path, grey=True)
    assert (data.shape, data.images.dtype) == ((1, 4, 6), np.dtype(np.uint8))
    assert values(data) == [9, round(0.299 * 255)]
    assert data.preprocess.channels == 1


def test_different_sizes_are_refused_with_two_files_and_the_remedy(tmp_path: Path) -> None:
    save(tmp_path / "a" / "one.png", 1, (4, 6))
    save(tmp_path / "b" / "two.png", 2, (8, 5))
    message = (
        f"the images of {tmp_path} differ in size (height x width): a/one.png has 4x6 pixels and b/two.png 8x5; "
        "bring them to one size, for example with --size 64, or image_size=(64, 64)."
    )
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert str(caught.value) == message
    data = load(tmp_path, image_size=(7, 3))
    assert (data.shape, data.images.dtype) == ((1, 7, 3), np.dtype(np.uint8))
    assert values(data) == [1, 2]
    assert data.preprocess.size == (7, 3)


@pytest.mark.parametrize("how", [{}, {"fit": "crop", "crop_ratio": 0.75}, {"fit": "pad"}, {"channels": 1}], ids=str)
def test_images_are_brought_to_a_size_as_one_image_is(tmp_path: Path, how: dict[str, Any]) -> None:
    values = np.arange(3 * 9 * 14).reshape(9, 14, 3) % 250
    for name in ["a", "b"]:
        (tmp_path / name).mkdir()
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / "0.png")
    expected = cs.Preprocess(size=(6, 6), **{"channels": 3, **how})
    data = load_dataset(f"folder:{tmp_path}", split="all", **expected.as_loaded())
    assert np.abs(data.image(0) - cs.load_image(tmp_path / "a" / "0.png", like=expected)).max() <= 0.5 / 255 + 1e-6
    assert (data.preprocess.fit, data.preprocess.crop_ratio) == (expected.fit, expected.crop_ratio)


def test_a_model_is_evaluated_on_images_prepared_as_it_predicts_them(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 4, "b": 4})
    options = {"image_size": (4, 4), "fit": "crop", "crop_ratio": 0.5}
    run = cs.train(f"folder:{tmp_path / 'train'}", epochs=1, data_options=options, out=tmp_path / "run")
    values = np.arange(12 * 20).reshape(12, 20).astype(np.uint8)
    for name in ["a", "b"]:
        (tmp_path / "other" / name).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / "other" / name / "0.png")
    shown = data_of(run, f"folder:{tmp_path / 'other'}", "all", None).image(0)
    assert np.abs(shown - cs.load_image(tmp_path / "other" / "a" / "0.png", like=run.model)).max() <= 0.5 / 255 + 1e-6


def test_a_fit_without_a_size_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(UsageError, match="give image_size too"):
        load_dataset(f"folder:{tmp_path}", fit="crop")
    with pytest.raises(UnknownName, match="There are: stretch, crop, pad"):
        load_dataset(f"folder:{tmp_path}", image_size=(4, 4), fit="squeeze")  # type: ignore[arg-type]  # the point
    with pytest.raises(UsageError, match="takes no fit"):
        load_dataset("shapes", fit="crop")


def test_images_of_the_right_size_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "noise.png")
    np.testing.assert_array_equal(load(tmp_path, image_size=(5, 7)).images[0], noise.transpose(2, 0, 1))


# --- damaged files ---------------------------------------------------------------------------------------------------


def damage(root: Path, *names: str) -> None:
    for name in names:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])


def test_a_damaged_file_is_named_and_skipped(tmp_path: Path) -> None:
    damage(fill(tmp_path, {"a": 3, "b": 2}), "a/001.png")
    with pytest.warns(DataWarning, match=r"1 of 5 images of .* cannot be read and are skipped: .*a/001\.png"):
        data = load(tmp_path)
    assert data.names == ("a/000.png", "a/002.png", "b/000.png", "b/001.png")
    assert values(data) == [0, 2, 3, 4]
    assert list(data.labels) == [0, 0, 1, 1]
    assert (data.skipped, data.listed, data.part(slice(None)).skipped, data.part([0, 3]).skipped) == (1, 5, 1, 0)


def test_a_probe_and_an_evaluation_count_the_files_that_were_skipped(tmp_path: Path) -> None:
    damage(fill(tmp_path / "data", {"square": 5, "circle": 5}), "square/001.png", "circle/000.png")
    with pytest.warns(DataWarning):
        data = load(tmp_path / "data", image_size=(28, 28))
    for result in (
        cs.probe.dead("shapes-cnn", data),
        cs.probe.patches("shapes-cnn", data),
        cs.probe.shift("shapes-cnn", data, reach=1),
        cs.probe.compare(["shapes-cnn", "shapes-mlp"], data),
    ):
        assert (result.images, result.skipped) == (8, 2)
        assert "8 images (2 more cannot be read)" in str(result)
    assert cs.probe.shortcut(data, data).skipped == 4  # of both parts
    run = cs.train("shapes", epochs=1, out=tmp_path / "run")
    with pytest.warns(DataWarning):
        scored = cs.evaluate(run, f"folder:{tmp_path / 'data'}", split="all")
    assert (scored.skipped, scored.to_json()["skipped"], scored.notes) == (2, 2, ())


def test_an_evaluation_says_that_classes_go_by_number(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"box": 2, "disc": 2})
    run = cs.train("shapes", epochs=1, out=tmp_path / "run")
    scored = cs.evaluate(run, f"folder:{tmp_path / 'data'}", split="all")
    note = scored.notes[0]
    assert "share no class name, so classes are matched by number: box is square, disc is circle" in note


def test_of_many_damaged_files_five_are_named(tmp_path: Path) -> None:
    damage(fill(tmp_path, {"a": 9}), *(f"a/{number:03}.png" for number in range(7)))
    with pytest.warns(DataWarning, match=r"7 of 9 images of .*a/004\.png.* And 2 more\.") as caught:
        assert len(load(tmp_path)) == 2
    assert "a/005.png" not in str(caught[0].message)


def test_strict_makes_it_an_error(tmp_path: Path) -> None:
    damage(fill(tmp_path, {"a": 3, "b": 2}), "a/001.png")
    with pytest.raises(ImageError, match=r"a/001\.png is not an image"):
        load(tmp_path, strict=True)


def test_a_class_of_damaged_files_is_an_error(tmp_path: Path) -> None:
    damage(fill(tmp_path, {"a": 2, "b": 1}), "b/000.png")
    with pytest.raises(DataError, match=r"the only image of the class 'b' in .* cannot be read; .*b/000\.png"):
        load(tmp_path)


def test_a_split_without_a_readable_image_of_a_class_is_named_with_the_class(tmp_path: Path) -> None:
    damage(fill(tmp_path, {"a": 5, "b": 5, "c": 12}), *(f"b/{number:03}.png" for number in range(4)), "a/001.png")
    damage(tmp_path, *(f"c/{number:03}.png" for number in range(12)))
    with pytest.raises(DataError, match=r"none of the 12 images of the class 'c' in .*c/004\.png.* And 7 more\."):
        load(tmp_path)
    with pytest.raises(
        DataError, match=r"the only test image of the class 'b' in .* cannot be read; .*b/00\d\.png"
    ) as e:
        load(tmp_path, split="test", seed=1)
    assert "a/001.png" not in str(e.value)


def test_more_than_memory_holds_is_refused_at_the_first_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"a": 5, "b": 4})
    monkeypatch.setattr("convscope.data.options.available", lambda: 2 * 9 * 24)
    assert len(load(tmp_path)) == 9
    monkeypatch.setattr("convscope.data.options.available", lambda: 2 * 9 * 24 - 1)
    warned: list[int] = []
    with pytest.raises(
        DataError, match=r"9 images of folder:.* need about .* GB of memory, .* or name the folder hub:"
    ):
        load_dataset(f"folder:{tmp_path}", split="all", progress=lambda _what, done, _total: warned.append(done))
    assert warned == [0]
    monkeypatch.setattr("convscope.data.folder._picture", None)  # with a size nothing is read to know
    with pytest.raises(DataError, match=r"9 images of folder:.* need about 1 GB of memory"):
        load(tmp_path, image_size=(9_000, 9_000))
    with pytest.raises(UsageError, match="a picture of 9,999,999x9,999,999 pixels is too large; at most 100,000,000"):
        load(tmp_path, image_size=(9_999_999, 9_999_999))


def test_progress_is_told_file_by_file(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 4})
    warned: list[tuple[str, int, int]] = []
    load_dataset(f"folder:{tmp_path}", split="all", progress=lambda *state: warned.append(state))
    assert warned == [(f"reading {tmp_path.name}", done, 4) for done in range(5)]
