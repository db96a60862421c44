"""Options: the validated arguments of `load_dataset`, the hold-out split, and whether the images fit into memory."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convscope.errors import DataError, UnknownName, UsageError
from convscope.memory import available
from convscope.preprocess import Fit
from convscope.progress import Progress, silent

SPLITS = ("train", "test", "all")
SAMPLINGS = ("split", "published")
MOST_SEED = 2**64 - 1  # as PyTorch's generators take


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """The arguments of `load_dataset`, in the form passed to loaders.

    >>> DatasetOptions("shapes", split="test").seed
    0

    Raises:
        UnknownName: unknown split, sampling or fit.
        UsageError: an invalid seed, number of images or image size.
    """

    name: str
    """The name as requested: `mnist`, `folder:PATH`."""
    split: str = "train"
    seed: int = 0
    size: int | None = None
    """Number of images to generate; None takes the data set's default."""
    sampling: str = "split"
    data_dir: Path | None = None
    image_size: tuple[int, int] | None = None
    """(height, width) to which the images of a folder are resized."""
    fit: Fit = "stretch"
    """How to fit images of another aspect ratio, as in `Preprocess`."""
    crop_ratio: float = 1.0
    grey: bool = False
    strict: bool = False
    progress: Progress = silent

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UnknownName("split", self.split, SPLITS)
        if self.sampling not in SAMPLINGS:
            raise UnknownName("sampling", self.sampling, SAMPLINGS)
        if self.fit not in get_args(Fit):
            raise UnknownName("fit", self.fit, get_args(Fit))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.size is not None:
            object.__setattr__(self, "size", _checked_integer("size (a number of images)", self.size, 2))
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _size(self.image_size))

    @property
    def path(self) -> Path:
        """The PATH of `folder:PATH` and `npz:PATH`, without the options behind it."""
        return Path(self._place()[0]).expanduser()

    def options(self, allowed: Sequence[str]) -> dict[str, str]:
        """The options of `folder:PATH?NAME=VALUE&NAME=VALUE`.

        >>> DatasetOptions("npz:a.npz?layout=nhwc").options(("layout", "white"))
        {'layout': 'nhwc'}

        Raises:
            UnknownName: an option that is not known.
        """
        location, text = self._place()
        options = dict(parse_qsl(text, keep_blank_values=True))
        for option in options:
            if option not in allowed:
                raise UnknownName(f"option of {location}", option, allowed)
        return options

    def _place(self) -> tuple[str, str]:
        """The path and the options behind it; a name that exists with its question mark has none."""
        location_text = self.name.partition(":")[2]
        location, _, options = location_text.partition("?")
        return (location_text, "") if options and Path(location_text).expanduser().exists() else (location, options)


def check_seed(seed: object) -> int:
    """A seed, as a plain integer.

    >>> check_seed(7)
    7

    Raises:
        UsageError: it is not an integer, or outside the range of PyTorch's generators.
    """
    number = _checked_integer("seed", seed, 0)
    if number > MOST_SEED:
        raise UsageError(f"seed must be at most {MOST_SEED}, not {number}.")
    return number


def _checked_integer(name: str, value: object, minimum: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # raises TypeError unless it is an integer
    except TypeError:
        number = minimum - 1
    if number < minimum:
        raise UsageError(f"{name} must be an integer from {minimum}, not {value!r}.")
    return number


def _size(value: object) -> tuple[int, int]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UsageError(f"image_size must be (height, width), not {value!r}.")
    return _checked_integer("the height of image_size", value[0], 1), _checked_integer(
        "the width of image_size", value[1], 1
    )


TEST_SHARE = 0.2


def split_indices(labels: ArrayLike, split: str, seed: int) -> NDArray[np.intp]:
    """The indices of one split, in order: a fifth of each class, chosen by the seed, is test; the rest is train.

    >>> split_indices([0, 0, 0, 0, 0, 1, 1], "test", seed=0).shape
    (2,)

    Args:
        labels: The class of each image, shape (N,).
        split: "train", "test" or "all". A class of two images or more has at least one in each.
        seed: The same seed gives the same split.
    """
    classes = np.asarray(labels)
    if split == "all":
        return np.arange(len(classes))
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(classes), bool)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        if len(members) > 1:
            held_out[members[: max(1, round(TEST_SHARE * len(members)))]] = True
    return np.flatnonzero(held_out == (split == "test"))


def check_memory(name: str, count: int, shape: Sequence[int], remedy: str, *, copies: int) -> None:
    """Raise an error if the images do not fit into memory.

    >>> check_memory("x", 10**12, (1, 28, 28), "Ask for fewer.", copies=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convscope.errors.DataError: 1,000,000,000,000 images of x need about 2,352,000 GB of memory, and ... Ask for fewer.

    Args:
        name: Name of the images in messages.
        count: Number of images.
        shape: (C, H, W) of each image.
        remedy: Advice for the user.
        copies: Number of copies in memory while they are made, one byte per value.

    Raises:
        DataError: they need more memory than is free.
    """
    check_bytes(f"{count:,} images of {name}", copies * count * math.prod(shape), remedy)


def check_bytes(subject: str, needed: int, remedy: str) -> None:
    """Raise an error if something needs more memory than is free.

    Args:
        subject: Its name in messages, a plural.
        needed: Number of bytes.
        remedy: Advice for the user.

    Raises:
        DataError: it needs more memory than is free.
    """
    free = available()
    if needed > free:
        raise DataError(
            f"{subject} need about {needed / 1e9:,.0f} GB of memory, and {free / 1e9:,.0f} GB are free here. {remedy}"
        )
