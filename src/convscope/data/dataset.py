"""Dataset: images, labels and what they mean. Uses NumPy, Preprocess and stored images; no files, no torch."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from convscope.data.lazy_images import LazyImages, Selection, places
from convscope.errors import DataError, UnknownName, UsageError
from convscope.preprocess import Preprocess
from convscope.rich_display import RichDisplay
from convscope.type_checks import check_kind, takes
from convscope.typing import Array

AT_ONCE = 256
MOST_CLASSES = 10
"""Classes whose names are printed."""
NUMBER = re.compile("-?[0-9]{1,18}")
"""A text that names an image by its index; a longer one is a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset(RichDisplay):
    """Labelled images, in memory or as `LazyImages` if they do not fit.

    >>> data = Dataset("two", np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1]), ("plus", "cross"))
    >>> len(data), data.shape, data.image(0).dtype
    (2, (1, 3, 3), dtype('float32'))

    Raises:
        DataError: the images are not (N, C, H, W) of uint8 or float32, a label is outside the classes, or the numbers
            of images and labels differ.
    """

    name: str
    images: Array = field(repr=False)
    """uint8 or float32, shape (N, C, H, W); read-only. `LazyImages` are read from disk when they are indexed."""
    labels: NDArray[np.int64] = field(repr=False)
    """int64, shape (N,), an index into `classes`; read-only."""
    classes: tuple[str, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    """Conversion of raw values to a model's input, and back."""
    split: str = "all"
    source: str = ""
    """The source of the images: a paper, a generator with its seed, a folder."""
    names: tuple[str, ...] = field(default=(), repr=False)
    """A name for each image (`damaged-plus`, a file's path), or empty."""
    skipped: int = 0
    """Number of images left out on loading because they cannot be read."""
    notes: tuple[str, ...] = ()
    """Assumptions made on loading where the files do not specify something: the folders of the splits, or the layout
    and range of the values. The command line prints them; Python logs them at level INFO as `convscope.data`."""

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels, np.int64))
        for name in ("labels",) if isinstance(self.images, LazyImages) else ("images", "labels"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        """What it contains.

        >>> Dataset("two", np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1]), ("plus", "cross"), split="test")
        <Dataset two:test: 2 images of 1x3x3, 2 classes: plus, cross>
        """
        size = "x".join(map(str, self.shape))
        classes = ", ".join(self.classes[:MOST_CLASSES]) + ", …" * (len(self.classes) > MOST_CLASSES)
        return (
            f"<Dataset {self.name}:{self.split}: {len(self):,} image{'s' * (len(self) != 1)} of {size}, "
            f"{len(self.classes):,} class{'es' * (len(self.classes) != 1)}: {classes}>"
        )

    @property
    def listed(self) -> int:
        """Number of images, including unreadable ones."""
        return len(self) + self.skipped

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        return self.images.shape[1], self.images.shape[2], self.images.shape[3]

    @takes()
    def index(self, key: int | str) -> int:
        """The index of an image by number (negative from the end) or by name."""
        if isinstance(key, str) and not NUMBER.fullmatch(key):
            if key not in self.names:
                raise UnknownName(f"image of {self.name}", key, self.names[:20], f"Or a number, 0 to {len(self) - 1}.")
            return self.names.index(key)
        number = int(key)
        if not -len(self) <= number < len(self):
            raise UsageError(f"{self.name}:{self.split} has images 0 to {len(self) - 1}, not {number}.")
        return number % len(self)

    @takes()
    def image(self, key: int | str) -> NDArray[np.float32]:
        """One image as a model's input: float32, shape (C, H, W), scaled and normalized.

        Args:
            key: Index, or the image's name.
        """
        return self.preprocess.normalize(self.images[self.index(key)])

    @takes()
    def picture(self, key: int | str) -> NDArray[np.float32]:
        """One image for display: float32 from 0 to 1, shape (C, H, W)."""
        return np.asarray(self.images[self.index(key)] / np.float32(self.preprocess.scale), np.float32)

    def scaled(self, which: Selection = slice(None)) -> NDArray[np.float32]:
        """Several images as a model's input: float32, shape (n, C, H, W).

        Args:
            which: Anything that indexes the first axis: a slice, an array of indices or of booleans.
        """
        places(which, len(self))  # an error of its own for what chooses no images
        return self.preprocess.normalize(self.images[which])

    def readable(self, which: Selection = slice(None)) -> tuple[Array, NDArray[np.intp]]:
        """Raw readable images, (n, C, H, W), and their indices, (n,): some images on disk may be corrupt.

        Args:
            which: A slice, an array of indices or of booleans, as in `scaled`.

        Warns:
            DataWarning: some cannot be read; they are left out.

        Raises:
            DataError: some cannot be read, and the data set was loaded with `strict`.
        """
        if isinstance(self.images, LazyImages):
            return self.images.readable(which)
        chosen = places(which, len(self))
        return self.images[which], chosen

    @takes()
    def first(self, count: int = 1) -> Array:
        """The first raw images that can be read, at most `count` of them: (n, C, H, W).

        Raises:
            DataError: none can be read.
        """
        if count < 1:
            raise UsageError(f"count must be 1 or more, not {count}.")
        for start in range(0, len(self), count):
            result, _ = self.readable(slice(start, start + count))
            if len(result):
                return result
        raise DataError(f"no image of {self.name}:{self.split} can be read.")

    def part(self, which: Selection) -> Self:
        """A subset of the data set: the images at a slice, indices or booleans."""
        places(which, len(self))
        images = self.images.subset(which).as_array() if isinstance(self.images, LazyImages) else self.images[which]
        names = tuple(self.names[index] for index in places(which, len(self))) if self.names else ()
        result = replace(self, images=images, labels=self.labels[which], names=names)
        return result if len(result) == len(self) else replace(result, skipped=0)

    def counts(self) -> dict[str, int]:
        """Number of images in each class."""
        result = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, map(int, result), strict=True))


def matched_by_number(data: Dataset, model_classes: Sequence[str], model: str) -> tuple[str, ...]:
    """A note if a data set and a model share no class name, so that classes are matched by number.

    >>> data = Dataset("two", np.zeros((1, 1, 3, 3), np.uint8), np.array([0]), ("plus", "cross"))
    >>> matched_by_number(data, ("a", "b"), "net")[0][:59]
    'two and net share no class name, so classes are matched by '
    >>> matched_by_number(data, ("0", "1"), "net")  # plain numbers need no note
    ()
    """
    if all(name.isdigit() for name in data.classes) or all(name.isdigit() for name in model_classes):
        return ()
    pairs = [f"{name} is {class_name}" for name, class_name in zip(data.classes, model_classes, strict=True)]
    more = f" and so on, {len(pairs)} in all" if len(pairs) > 3 else ""
    return (
        f"{data.name} and {model} share no class name, so classes are matched by number: {', '.join(pairs[:3])}{more}. "
        "Rename the classes if that is not intended.",
    )


def overlap(train: Dataset, test: Dataset) -> int:
    """The number of images of `test` that also occur in `train`, byte for byte.

    >>> data = Dataset("two", np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1]), ("plus", "cross"))
    >>> overlap(data, data)
    2
    """
    return len(shared(train, test))


def shared(train: Dataset, test: Dataset) -> NDArray[np.intp]:
    """The indices of the images of `test` that also occur in `train`, byte for byte."""
    if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
        return np.zeros(0, np.intp)
    prints, indices = _prints(test)
    result: NDArray[np.intp] = indices[np.isin(prints, _prints(train)[0])]
    return result


def _prints(data: Dataset) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """A fingerprint of each image that can be read, and its index.

    Fingerprints have 64 bits: two of a million images collide by chance in one of 10^7 sets.
    """
    prints, indices = np.empty(len(data), np.uint64), np.empty(len(data), np.intp)
    count = 0
    for start in range(0, len(data), AT_ONCE):
        images, image_indices = data.readable(slice(start, start + AT_ONCE))
        for image, index in zip(images, image_indices, strict=True):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()
            prints[count], indices[count] = int.from_bytes(digest), index
            count += 1
    return prints[:count], indices[:count]


def check_trainable(data: Dataset) -> None:
    """Reject a data set from which nothing can be learned.

    Raises:
        DataError: all its images are of one class.
    """
    present = [name for name, count in data.counts().items() if count]
    if len(present) < 2:
        raise DataError(
            f"all images of {data.name}:{data.split} are of one class, {present[0]!r}; training needs at least two."
        )


def _check(data: Dataset) -> None:
    if not isinstance(data.images, LazyImages):
        check_kind("Dataset", "images", data.images, "ndarray")
    check_kind("Dataset", "labels", data.labels, "array")
    check_kind("Dataset", "classes", data.classes, "names")
    images, labels = data.images, np.asarray(data.labels)
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"images of {data.name} must be uint8 or float32 of shape (N, C, H, W), "
            f"not {images.dtype} of {images.shape}."
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{data.name} has {len(images)} images and labels of shape {labels.shape}, {labels.dtype}: "
            "it needs one integer per image."
        )
    if len(labels) == 0:
        raise DataError(f"{data.name} has no images; a data set needs at least one.")
    outside = np.flatnonzero((labels < 0) | (labels >= len(data.classes)))
    if len(outside):
        raise DataError(
            f"label {labels[outside[0]]} of image {outside[0]} of {data.name} is outside its "
            f"{len(data.classes)} class{'es' * (len(data.classes) != 1)} (0 to {len(data.classes) - 1}); "
            "name more classes or correct the labels."
        )
