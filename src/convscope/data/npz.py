"""NPZ: a data set in one NumPy archive, under the array names and in the layouts that are in use.

Knows NumPy's files, read without executing pickled code.
"""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.data.holdout import split_indices
from convscope.data.request import Request
from convscope.errors import DataError, UsageError
from convscope.images import Array, Preprocess

Names = Mapping[str, tuple[str, str]]
"""Split -> the names of its images and labels."""

SPELLINGS: tuple[Names, ...] = (
    {"all": ("images", "labels")},
    {"all": ("x", "y")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},  # as Keras' data sets
    {
        "train": ("train_images", "train_labels"),  # as MedMNIST
        "val": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
CLASSES = "classes"
KNOWN = {name for row in SPELLINGS for pair in row.values() for name in pair} | {CLASSES}
SCALES = (1, 255, 65535)
MOST_CLASSES = 100_000
FLOAT32_MAX = float(np.finfo(np.float32).max)


def load_npz(request: Request) -> Dataset:
    """Load `images` and `labels`, `x` and `y`, or such a pair for each of train and test, from one .npz file.

    Where the file has one pair, a fifth of each class, chosen by the seed, is test. `all` is everything, a validation
    part included. An array of strings `classes` names the classes; without it their numbers do.

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C). The pixel value that counts as 1.0 is the smallest of 1, 255
    and 65535 that no value of the file exceeds; it is 1 where values are negative, as after a normalization.

    Returns:
        uint8 images where all values are whole numbers from 0 to 255, else float32.

    Raises:
        UsageError: there is no such file.
        DataError: no NumPy archive; arrays that are missing, pickled, or of another shape or type.
    """
    path = request.path
    if not path.is_file():
        raise UsageError(f"there is no file {path}; check the path.")
    arrays = _read(path)
    names = _names(path, arrays)
    images, scale = _images(path, {split: arrays[pair[0]] for split, pair in names.items()})
    labels = {split: _labels(path, arrays[pair[1]], len(images[split])) for split, pair in names.items()}
    parts = list(names) if request.split == "all" or "all" in names else [request.split]
    if parts[0] not in names:
        raise DataError(f"{path} has no images of the split {request.split}; it has {', '.join(names)}.")
    classes = _classes(path, arrays.get(CLASSES), labels.values())
    for part in parts:
        _check_range(path, names[part][1], labels[part], len(classes))
    chosen, numbers = (np.concatenate([of[part] for part in parts]) for of in (images, labels))
    if "all" in names:
        own = split_indices(numbers, request.split, request.seed)
        chosen, numbers = chosen[own], numbers[own]
    return Dataset(
        name=request.name,
        images=chosen,
        labels=numbers,
        classes=classes,
        preprocess=Preprocess(size=(chosen.shape[2], chosen.shape[3]), channels=chosen.shape[1], scale=scale),
        split=request.split,
        source=str(path),
    )


def _read(path: Path) -> dict[str, Array]:
    """The arrays of the file that have one of the known names."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, NpzFile):
                with archive:
                    return {name: np.asarray(archive[name]) for name in archive.files if name in KNOWN}
    except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        pickled = "pickled" in str(error) or "allow_pickle" in str(error)
        why = "it holds Python objects, which are never loaded" if pickled else str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read as an .npz file of arrays: {why}. Write it with np.savez.") from None
    raise DataError(f"{path} holds one array where images and labels are needed; write both with np.savez.")


def _names(path: Path, arrays: Mapping[str, Array]) -> Names:
    """The convention that the file follows, with the splits that it has."""
    for row in SPELLINGS:
        there = {split: pair for split, pair in row.items() if set(pair) <= arrays.keys()}
        if there:
            return there
    pairs = "; ".join(" and ".join(next(iter(row.values()))) for row in SPELLINGS)
    raise DataError(f"{path} has no pair of images and labels under the names that are known: {pairs}.")


def _images(path: Path, given: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
    """The images of each split as (N, C, H, W), uint8 or float32, and the value that counts as 1.0."""
    images = {split: _channels_first(path, some) for split, some in given.items()}
    shapes = {some.shape[1:] for some in images.values()}
    if len(shapes) > 1:
        raise DataError(f"the images of {path} differ in shape from split to split: {sorted(shapes)}.")
    lowest = float(np.min([some.min(initial=0) for some in images.values()]))
    highest = float(np.max([some.max(initial=0) for some in images.values()]))
    if not max(-lowest, highest) <= FLOAT32_MAX:  # also where one is not a number
        raise DataError(f"the images of {path} have values that are not finite numbers; replace them.")
    scale = 1 if lowest < 0 else next((scale for scale in SCALES if highest <= scale), None)
    if scale is None:
        raise DataError(f"the images of {path} have values up to {highest:g}; at most {SCALES[-1]} can be pixels.")
    whole = lowest >= 0 and scale <= 255 and all(some.dtype.kind in "bui" for some in images.values())
    return {split: some.astype(np.uint8 if whole else np.float32) for split, some in images.items()}, scale


def _channels_first(path: Path, images: Array) -> Array:
    """(N, C, H, W) from any of the three layouts; where both orders are possible, the one with squarer pictures."""
    if images.ndim not in {3, 4} or images.dtype.kind not in "buif":
        raise DataError(
            f"the images of {path} must be numbers of shape (N, H, W), (N, C, H, W) or (N, H, W, C), "
            f"not {images.dtype} of {images.shape}."
        )
    if images.ndim == 3:
        return images[:, None]
    possible = [order for order in (images, images.transpose(0, 3, 1, 2)) if order.shape[1] in {1, 3, 4}]
    return max(possible, key=_squareness, default=images)


def _squareness(images: Array) -> float:
    height, width = int(images.shape[2]), int(images.shape[3])
    return min(height, width) / max(height, width, 1)


def _labels(path: Path, labels: Array, count: int) -> NDArray[np.int64]:
    """One class number per image from (N,) or (N, 1)."""
    if labels.shape not in {(count,), (count, 1)}:
        raise DataError(
            f"the labels of {path} have the shape {labels.shape} for {count} images; it needs one class number for "
            "each (of one-hot labels, labels.argmax(axis=1))."
        )
    if labels.dtype.kind not in "buif" or not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
        raise DataError(f"the labels of {path} are {labels.dtype} values; they must be whole class numbers from 0.")
    return labels.reshape(count).astype(np.int64)


def _check_range(path: Path, name: str, labels: NDArray[np.int64], count: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= count))
    if len(outside):
        raise DataError(
            f"label {labels[outside[0]]} of image {outside[0]} of {path} ({name}) is outside its {count} "
            f"class{'es' * (count != 1)} (0 to {count - 1}); name more classes or correct the labels."
        )


def _classes(path: Path, given: Array | None, labels: Iterable[NDArray[np.int64]]) -> tuple[str, ...]:
    """The names of the classes: those of the file, else their numbers."""
    if given is not None:
        if given.ndim != 1 or given.dtype.kind not in "US":
            raise DataError(f"the array {CLASSES} of {path} must be a list of strings, not {given.dtype}.")
        return tuple(map(str, given.astype(str)))
    highest = max(int(some.max(initial=0)) for some in labels)
    if highest >= MOST_CLASSES:
        raise DataError(f"{path} has the label {highest}; class numbers below {MOST_CLASSES:,} are expected.")
    return tuple(map(str, range(highest + 1)))
