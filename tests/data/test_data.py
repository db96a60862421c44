"""Data sets by name: the catalog, the crosses, the shapes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import convscope as cs
from convscope.data.catalog import DATASETS, PLACES, load_dataset
from convscope.data.dataset import Dataset, check_trainable, overlap
from convscope.data.generated import every, is_test
from convscope.data.options import split_indices
from convscope.errors import ConvscopeError, DataError, UnknownName, UsageError
from convscope.typing import Array

LOCAL = [name for name in DATASETS if "mnist" not in name]
SHAPES = ["shapes", "color-shapes"]
SEEDS = st.integers(0, 2**64 - 1)
DRAWN_SIZES = st.integers(2, 1500)
few = settings(max_examples=25)


# --- the catalog -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize("name", LOCAL)
def test_an_entry_tells_what_loading_gives(name: str, split: str) -> None:
    entry, data = DATASETS[name], load_dataset(name, split=split)
    assert len(data) == entry.sizes[split]
    assert data.shape == entry.shape
    assert data.classes == entry.classes
    assert data.preprocess == entry.preprocess
    assert (data.name, data.split) == (entry.name, split) == (name, split)
    assert data.images.dtype == np.uint8


@pytest.mark.parametrize("entry", DATASETS.values(), ids=DATASETS)
def test_entries_are_named_by_their_key_and_are_json(entry: Any) -> None:
    assert DATASETS[entry.name] is entry
    written = json.loads(json.dumps(entry.to_json()))
    assert written["name"] == entry.name
    assert written["sizes"]["all"] >= written["sizes"]["train"]
    assert tuple(written["shape"][1:]) == entry.preprocess.size
    assert all((entry.summary, entry.source, entry.classes))


REFUSED: Mapping[str, tuple[str, dict[str, Any], type[ConvscopeError]]] = {
    "no data set is called 'shaeps'; did you mean 'shapes'": ("shaeps", {}, UnknownName),
    "There are: crosses, square, shapes, color-shapes, mnist": ("imagenet", {}, UnknownName),
    "no split is called 'tset'; did you mean 'test'": ("shapes", {"split": "tset"}, UnknownName),
    "no sampling is called 'any'": ("shapes", {"sampling": "any"}, UnknownName),
    "seed must be an integer from 0, not -1": ("shapes", {"seed": -1}, UsageError),
    "load_dataset takes an integer as its seed, not 0.5": ("shapes", {"seed": 0.5}, UsageError),
    r"size \(a number of images\) must be an integer from 2, not 1": ("shapes", {"size": 1}, UsageError),
    "the split 'all' of shapes is each possible image once": ("shapes", {"split": "all", "size": 9}, UsageError),
    "size and sampling are for train and test": ("shapes", {"split": "all", "sampling": "published"}, UsageError),
    r"crosses takes no size \(--images\); it is for shapes and color-shapes": ("crosses", {"size": 10}, UsageError),
    "mnist takes no sampling": ("mnist", {"sampling": "published"}, UsageError),
    r"shapes takes no image_size \(--size\); it is for folder:PATH": ("shapes", {"image_size": (9, 9)}, UsageError),
    r"npz:PATH takes no grey \(--grey\)": ("npz:x.npz", {"grey": True}, UsageError),
    r"image_size must be \(height, width\), not 64": ("folder:.", {"image_size": 64}, UsageError),
    "the height of image_size must be an integer from 1, not 0": ("folder:.", {"image_size": (0, 9)}, UsageError),
    "folder: names no path; write folder:PATH": ("folder:", {}, UsageError),
    "there is no folder nowhere": ("folder:nowhere", {}, UsageError),
    "there is no file nowhere": ("npz:nowhere", {}, UsageError),
}


@pytest.mark.parametrize(("said", "asked"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(said: str, asked: tuple[str, dict[str, Any], type[ConvscopeError]]) -> None:
    name, arguments, error = asked
    with pytest.raises(error, match=said) as caught:
        load_dataset(name, **arguments)
    assert caught.value.exit_status == 2


def test_a_path_without_its_prefix_is_recognized(tmp_path: Any) -> None:
    with pytest.raises(UnknownName, match=f"Your own is folder:{tmp_path}"):
        load_dataset(str(tmp_path))
    (tmp_path / "own.npz").touch()
    with pytest.raises(UnknownName, match=f"Your own is npz:{tmp_path / 'own.npz'}"):
        load_dataset(str(tmp_path / "own.npz"))
    assert {path.name for path in PLACES.values()} == {"folder:PATH", "npz:PATH", "hub:PLACE"}


def test_loading_a_data_set_needs_neither_torch_nor_pooch() -> None:
    import subprocess
    import sys

    code = "import sys, convscope as cs; cs.load_dataset('shapes'); print({'torch', 'pooch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the crosses and the square --------------------------------------------------------------------------------------


def test_crosses_are_two_images_and_two_damaged_ones_by_name() -> None:
    whole, damaged = load_dataset("crosses"), load_dataset("crosses", split="test")
    assert whole.names == ("plus", "x")
    assert damaged.names == ("damaged-plus", "damaged-x")
    assert list(whole.labels) == list(damaged.labels) == [0, 1]
    gone = whole.images.astype(int) - damaged.images
    assert list(map(tuple, np.argwhere(gone))) == [(0, 0, 1, 2), (1, 0, 0, 2)]  # the right arm, the upper right corner
    assert overlap(whole, damaged) == 0
    every_one = load_dataset("crosses", split="all")
    assert every_one.names == whole.names + damaged.names
    assert every_one.index("damaged-x") == 3


def test_the_published_kernel_gives_the_published_window_sums_and_answers() -> None:
    kernel = [[-1.5447, -0.6216, -1.7912], [-0.8678, 1.9076, -0.7804], [-1.2586, -0.4520, -1.7062]]
    published = [[-0.6951, 2.4405, 0.1171], [-0.1267, 2.2097, -1.4276], [-0.9497, 1.9848, -0.1690]]
    answers = []
    for name in ("damaged-plus", "damaged-x"):
        padded = np.pad(load_dataset("crosses", split="all").image(name)[0], 1).astype(float)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        sums = (windows * np.array(kernel)).sum(axis=(2, 3)) + 2.2435
        if name == "damaged-plus":
            np.testing.assert_allclose(sums, published, atol=1.01e-4)  # printed with four places
        answers.append(sums.mean())
    np.testing.assert_allclose(answers, [0.3760, 1.1387], atol=5e-5)


def test_the_square_is_one_image() -> None:
    data = load_dataset("square")
    assert data.image(0).shape == (1, 10, 10)
    assert list(np.argwhere(data.images[0, 0] == 255).min(axis=0)) == [3, 3]
    assert list(np.argwhere(data.images[0, 0] == 255).max(axis=0)) == [6, 6]
    assert int((data.images > 0).sum()) == 16


# --- the shapes ------------------------------------------------------------------------------------------------------


def square_of(plane: Array) -> bool:
    """Whether the lit cells are a full square of side 5 to 13."""
    cells = np.argwhere(plane)
    height, width = cells.max(axis=0) - cells.min(axis=0) + 1
    return bool(height == width and 5 <= height <= 13 and len(cells) == height * width)


def circle_of(plane: Array) -> bool:
    """Whether the lit cells are those within 5 or 6 of a centre that is as far from the border."""
    cells = np.argwhere(plane)
    centre, radius = cells.mean(axis=0), (cells.max(axis=0)[0] - cells.min(axis=0)[0]) // 2
    inside = {(i, j) for i in range(28) for j in range(28) if (i - centre[0]) ** 2 + (j - centre[1]) ** 2 <= radius**2}
    fits = bool((centre >= radius).all() and (centre <= 27 - radius).all())
    return radius in (5, 6) and fits and inside == set(map(tuple, cells.tolist()))


def kind_of(image: Array) -> str:
    """What a generated image shows, found from its pixels alone."""
    assert set(np.unique(image)) <= {0, 255}
    shown = image.max(axis=0)
    color = "".join("rgb"[channel] for channel in range(len(image)) if len(image) == 3 and image[channel].any())
    assert all((plane == shown).all() or not plane.any() for plane in image)
    assert square_of(shown) != circle_of(shown)
    return f"{color} {'square' if square_of(shown) else 'circle'}".strip()


KINDS = {
    "shapes": ({"square"}, {"circle"}),
    "color-shapes": ({"rg square"}, {"r square", "rg circle"}),  # yellow is red and green
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_possible_image_is_there_once(name: str) -> None:
    data = load_dataset(name, split="all")
    assert len({image.tobytes() for image in data.images}) == len(data)
    counts: dict[tuple[int, str], int] = {}
    for image, label in zip(data.images, data.labels, strict=True):
        what = (int(label), kind_of(image))
        counts[what] = counts.get(what, 0) + 1
    assert (
        counts
        == {
            "shapes": {(0, "square"): 3309, (1, "circle"): 580},
            "color-shapes": {(0, "rg square"): 3309, (1, "r square"): 3309, (1, "rg circle"): 580},
        }[name]
    )


@few
@given(
    name=st.sampled_from(SHAPES), seed=SEEDS, size=st.integers(2, 60), sampling=st.sampled_from(["split", "published"])
)
def test_every_image_is_what_its_label_says(name: str, seed: int, size: int, sampling: str) -> None:
    data = load_dataset(name, seed=seed, size=size, sampling=sampling)
    assert len(data) == size
    for image, label in zip(data.images, data.labels, strict=True):
        assert kind_of(image) in KINDS[name][label]


@few
@given(name=st.sampled_from(SHAPES), seeds=st.tuples(SEEDS, SEEDS), sizes=st.tuples(DRAWN_SIZES, DRAWN_SIZES))
def test_train_and_test_share_no_image(name: str, seeds: tuple[int, int], sizes: tuple[int, int]) -> None:
    train, test = (
        load_dataset(name, split=s, seed=seed, size=n)
        for s, seed, n in zip(("train", "test"), seeds, sizes, strict=True)
    )
    assert overlap(train, test) == overlap(test, train) == 0


@few
@given(name=st.sampled_from(SHAPES), seed=SEEDS, size=DRAWN_SIZES, sampling=st.sampled_from(["split", "published"]))
def test_classes_and_their_parts_are_of_equal_size(name: str, seed: int, size: int, sampling: str) -> None:
    data = load_dataset(name, seed=seed, size=size, sampling=sampling)
    first, second = data.counts().values()
    assert first + second == size
    assert first - second in (0, 1)
    if name == "color-shapes":
        red_squares = int((data.images[:, 1].max(axis=(1, 2)) == 0).sum())
        assert red_squares - (second - red_squares) in (0, 1)


@few
@given(name=st.sampled_from(SHAPES), seed=SEEDS, size=DRAWN_SIZES, split=st.sampled_from(["train", "test"]))
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(
    name: str, seed: int, size: int, split: str
) -> None:
    assume(size > 20)
    first, again, other = (load_dataset(name, seed=s, size=size, split=split) for s in (seed, seed, (seed + 1) % 2**64))
    assert first.images.tobytes() == again.images.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.images.tobytes() != other.images.tobytes()


def test_images_repeat_only_where_there_are_not_enough() -> None:
    train = load_dataset("shapes", size=1000)
    squares, circles = (train.images[train.labels == label] for label in (0, 1))
    assert len({image.tobytes() for image in squares}) == 500
    assert len({image.tobytes() for image in circles}) == 464  # all there are outside the test part
    test = load_dataset("shapes", split="test")
    assert len({image.tobytes() for image in test.images}) == len(test) == 200


def test_the_order_is_shuffled() -> None:
    labels = load_dataset("shapes").labels
    assert 400 < (labels[1:] != labels[:-1]).sum() < 600  # of 999 neighbours


def test_the_published_sampling_overlaps_and_draws_every_size() -> None:
    train = load_dataset("shapes", sampling="published")
    test = load_dataset("shapes", split="test", sampling="published")
    shared = overlap(train, test)
    assert 30 < shared < 120
    assert "independently" in train.source
    areas = {int(image.sum()) // 255 for image in train.images[train.labels == 0]}
    assert areas == {side**2 for side in range(5, 14)}
    as_many = load_dataset("shapes", size=len(test), sampling="published")
    assert not np.array_equal(as_many.images, test.images)  # each split has its own random numbers


@pytest.mark.parametrize("kind", ["square", "circle"])
def test_the_test_part_is_a_fifth_of_every_size(kind: Any) -> None:
    places = every(kind)
    held_out = is_test(len(places))
    for size in np.unique(places[:, 0]):
        assert abs(held_out[places[:, 0] == size].mean() - 0.2) < 0.01


def test_the_test_part_is_the_same_in_every_release() -> None:
    test = [tuple(map(int, path)) for path in every("circle")[is_test(580)]]
    assert test[:4] == [(5, 5, 5), (5, 5, 10), (5, 5, 15), (5, 5, 18)]
    assert (len(test), test[-1]) == (116, (6, 21, 15))


def test_area_alone_decides_as_many_shapes_as_published() -> None:
    data = load_dataset("shapes", size=10_000, sampling="published", seed=3)
    areas = (data.images > 0).sum(axis=(1, 2, 3))
    circle = np.isin(areas, np.unique(areas[data.labels == 1]))
    assert 0.93 < (circle == data.labels).mean() < 0.96


# --- Dataset and what is asked of it ---------------------------------------------------------------------------------


def small(images: Array, labels: Any, classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    return Dataset("small", images, np.asarray(labels), classes)


def test_a_data_set_that_contradicts_itself_is_refused() -> None:
    images = np.zeros((3, 1, 2, 2), np.uint8)
    refused: dict[str, Callable[[], Dataset]] = {
        "label 2 of image 1 of small is outside its 2 classes": lambda: small(images, [0, 2, 1]),
        "label -1 of image 0": lambda: small(images, [-1, 0, 1]),
        r"3 images and labels of shape \(2,\)": lambda: small(images, [0, 1]),
        r"it needs one integer per image": lambda: small(images, [0.0, 1.0, 0.0]),
        r"not float64 of \(3, 1, 2, 2\)": lambda: small(images.astype(float), [0, 1, 0]),
        r"must be uint8 or float32 of shape \(N, C, H, W\), not uint8 of \(3, 2, 2\)": lambda: small(
            images[:, 0], [0, 1, 0]
        ),
        "small has no images": lambda: small(images[:0], np.zeros(0, int)),
    }
    for message, build in refused.items():
        with pytest.raises(DataError, match=message):
            build()


def test_the_arrays_of_a_data_set_are_read_only() -> None:
    data = load_dataset("crosses")
    for array in (data.images, data.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_an_image_is_found_by_number_or_name_or_refused() -> None:
    data = load_dataset("crosses", split="all")
    assert data.index("x") == data.index(1) == data.index("1") == data.index(-3) == 1
    np.testing.assert_array_equal(data.image("x"), data.images[1].astype(np.float32))
    with pytest.raises(UnknownName, match="no image of crosses is called 'plus-x'; did you mean 'plus'"):
        data.index("plus-x")
    with pytest.raises(UsageError, match="crosses:all has images 0 to 3, not 4"):
        data.index(4)


def test_overlap_counts_test_images_byte_for_byte() -> None:
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    train, test = small(images[:3], [0, 1, 0]), small(images[[2, 2, 3]], [0, 1, 0])
    assert overlap(train, test) == 2
    assert overlap(test, train) == 1
    assert overlap(train, small(images[:3].astype(np.float32), [0, 1, 0])) == 0


def test_one_class_cannot_be_trained_on() -> None:
    for name in ("crosses", *SHAPES):
        check_trainable(load_dataset(name))
    for data in (load_dataset("square"), small(np.zeros((2, 1, 2, 2), np.uint8), [1, 1])):
        with pytest.raises(DataError, match=r"are of one class, '(square|b)'; training needs at least two"):
            check_trainable(data)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), seed=SEEDS)
def test_a_hold_out_is_a_fifth_of_each_class_and_leaves_none_empty(labels: list[int], seed: int) -> None:
    train, test, both = (split_indices(labels, split, seed) for split in ("train", "test", "all"))
    assert sorted([*train, *test]) == list(both) == list(range(len(labels)))
    np.testing.assert_array_equal(train, split_indices(labels, "train", seed))
    for label in set(labels):
        held_out, count = sum(labels[i] == label for i in test), labels.count(label)
        assert held_out == (0 if count == 1 else max(1, round(count / 5)))


def test_the_public_names_are_these() -> None:
    assert cs.load_dataset is load_dataset
    assert cs.Dataset is Dataset
