"""Lazy images: images that stay on disk, or in a stream, and are read and decoded on access.

Uses Pillow and threads; not where the bytes come from.
"""

import copy
import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from convscope.errors import DataError, DataWarning, ImageError, UsageError
from convscope.images import WHITE, read_image
from convscope.preprocess import Preprocess
from convscope.type_checks import kind_of
from convscope.typing import Array

Indices = NDArray[np.intp]
Selection = slice | list[int] | Array
"""A slice, indices or booleans."""
Record = TypeVar("Record")
Encoded = bytes | Path | None
"""An encoded image or its file; None if both are missing."""
Read = Callable[[Indices], Sequence[Encoded]]
"""The encoded images at some indices, in their order."""

THREADS = min(8, os.cpu_count() or 1)
MARKS = 256
NAMED = 5
"""Maximum number of unreadable images to name; the others are only counted."""
WINDOWS = 3
"""Number of stream windows kept: a batch may begin in one and end in the next."""


class LazyImages:
    """Like an array (N, C, H, W) of uint8: indexing by the first axis reads the images; nothing else is in memory.

    >>> from PIL import Image
    >>> def dot(value):
    ...     Image.new("L", (4, 3), value).save(file := BytesIO(), "PNG")
    ...     return file.getvalue()
    >>> stored = LazyImages("dots", lambda which: [dot(int(i)) for i in which], 10, Preprocess(size=(3, 4), channels=1))
    >>> stored.shape, stored[7].max(), stored[2:5].shape, stored[[9, 1]][:, 0, 0, 0].tolist()
    ((10, 1, 3, 4), np.uint8(7), (3, 1, 3, 4), [9, 1])
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        name: str,
        read: Read,
        count: int,
        expected: Preprocess,
        *,
        window: int | None = None,
        indices: Indices | None = None,
        resize: bool = False,
        grey: bool = False,
        strict: bool = False,
    ) -> None:
        """Set the source of the images.

        Args:
            name: Name of the data set in messages.
            read: Returns the encoded images at given indices.
            count: Number of images that `read` can return.
            expected: Their size and channels, both set.
            window: Images that are read together, in order, because random access is slow; None if it is fast.
            indices: Indices of the images to use, in order; None: all.
            resize: Resize images of another size instead of raising an error.
            grey: Convert colour images to grey if one channel is expected, instead of raising an error.
            strict: Whether `readable` raises for unreadable images instead of leaving them out.
        """
        assert expected.size is not None, "the size is known"
        assert expected.channels is not None, "the channels are known"
        self.name, self.window = name, window
        self._read, self._expected, self._count, self._indices = read, expected, count, indices
        self._resize, self._grey, self._strict = resize, grey, strict
        self._unreadable: set[int] = set()
        self.shape = (count if indices is None else len(indices), expected.channels, *expected.size)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Total number of values in all images."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, which: Any) -> Array:
        """One image (C, H, W) for a number; else those of a slice, indices or booleans: (n, C, H, W).

        Raises:
            DataError: an image cannot be read, or has another size or more channels than the others.
        """
        if isinstance(which, slice | list | np.ndarray):
            return self._decoded(places(which, len(self)))
        image: Array = self._decoded(np.array([range(len(self))[operator.index(which)]]))[0]
        return image

    def original(self, index: int) -> Array:
        """One image as stored, without conversion to the expected size and channels: (C, H, W), 0 to 255.

        Raises:
            DataError: it cannot be read.
        """
        number = index if self._indices is None else int(self._indices[index])
        (encoded,) = self._read(np.array([number]))
        return decoded(encoded, f"image {index} of {self.name}")

    def readable(self, which: Selection) -> tuple[Array, Indices]:
        """The images at some indices that can be read, (n, C, H, W), and their indices, (n,).

        Warns:
            DataWarning: the first images that cannot be read, by number and reason.

        Raises:
            DataError: `strict`, and one cannot be read; or one has another size or more channels than the others.
        """
        indices = places(which, len(self))
        images, errors = self._tried(indices)
        if not errors:
            return images, indices
        if self._strict:
            raise next(iter(errors.values()))
        self._tell({int(indices[position]): error for position, error in errors.items()})
        positions = np.setdiff1d(np.arange(len(indices)), list(errors))
        return images[positions], indices[positions]

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise UsageError(f"{self.name} is never loaded completely; index some of its images: data.images[:100].")

    def as_array(self) -> Array:
        """This object, typed as an array; `isinstance(data.images, LazyImages)` distinguishes the two."""
        return cast("Array", self)

    def subset(self, which: Selection) -> "LazyImages":
        """A subset of the images, still unread."""
        chosen = (np.arange(self._count) if self._indices is None else self._indices)[which]
        result = copy.copy(self)
        result._indices, result.shape = chosen, (len(chosen), *self.shape[1:])
        return result

    def marks(self) -> range:
        """Indices of sample images for a digest: spread over the data, or the first ones if random access is slow."""
        if self.window is not None:
            return range(min(len(self), MARKS // 4))
        return range(0, len(self), max(1, len(self) // MARKS))

    def _decoded(self, indices: Indices) -> Array:
        images, errors = self._tried(indices)
        if errors:
            raise next(iter(errors.values()))
        return images

    def _tried(self, indices: Indices) -> tuple[Array, dict[int, DataError]]:
        """The images, and the errors of unreadable ones by position."""
        encoded = self._read(indices if self._indices is None else self._indices[indices])
        images = np.empty((len(indices), *self.shape[1:]), self.dtype)
        if len(indices) == 1 or THREADS == 1:
            return images, self._fill(images, encoded, indices, range(len(indices)))
        shares = [range(start, len(indices), THREADS) for start in range(min(THREADS, len(indices)))]
        result = _pool().map(lambda share: self._fill(images, encoded, indices, share), shares)
        return images, dict(sorted(pair for errors in result for pair in errors.items()))

    def _fill(self, images: Array, encoded: Sequence[Encoded], indices: Indices, share: range) -> dict[int, DataError]:
        errors: dict[int, DataError] = {}
        for position in share:
            try:
                image = decoded(encoded[position], f"image {indices[position]} of {self.name}")
            except DataError as error:
                errors[position] = error
            else:
                images[position] = self._picture(image, int(indices[position]))
        return errors

    def _tell(self, errors: Mapping[int, DataError]) -> None:
        """Warn of unreadable images once each, and name only the first few."""
        for index, error in errors.items():
            number = index if self._indices is None else int(self._indices[index])
            if number in self._unreadable:
                continue
            self._unreadable.add(number)
            if len(self._unreadable) <= NAMED:
                warnings.warn(f"{error} Until then it is skipped.", DataWarning, stacklevel=4)
            elif len(self._unreadable) == NAMED + 1:
                more = f"more images of {self.name} cannot be read; they are skipped and counted."
                warnings.warn(more, DataWarning, stacklevel=4)

    def _picture(self, image: Array, index: int) -> Array:
        height, width = self.shape[2:]
        if image.shape[1:] != (height, width) and not self._resize:
            raise DataError(
                f"the images of {self.name} differ in size (height x width): the first has {height}x{width} pixels, "
                f"image {index} {image.shape[1]}x{image.shape[2]}; bring them to one size with --size "
                f"{height}x{width}, or image_size=({height}, {width})."
            )
        if image.shape[0] > self.shape[1] and not self._grey:
            raise DataError(
                f"image {index} of {self.name} is coloured and the first images are grey; turn all to grey with --grey."
            )
        if self._expected.changes(image):
            return np.rint(self._expected.apply(image) * np.float32(WHITE)).astype(np.uint8)
        return np.rint(image).astype(np.uint8) if image.dtype != np.uint8 else image


def places(which: Selection, count: int) -> Indices:
    """The indices, among `count` images, that a slice, indices or booleans select.

    >>> places(slice(2, None), 5)
    array([2, 3, 4])
    """
    try:
        return np.arange(*which.indices(count)) if isinstance(which, slice) else np.atleast_1d(np.arange(count)[which])
    except Exception as error:  # whatever the conversion of some object raises
        reason = str(error)[:200].rstrip(".")
        raise UsageError(
            f"images are chosen by a slice, indices from 0 to {count - 1} or booleans, not {kind_of(which)} ({reason})."
        ) from None


def decoded(encoded: Encoded, name: str) -> Array:
    """The pixels of an image (C, H, W), 0 to 255.

    Raises:
        DataError: it cannot be read.
    """
    if encoded is None:
        raise DataError(f"{name} is missing: its row holds neither bytes nor a file. Remove it from the data set.")
    try:
        return read_image(BytesIO(encoded) if isinstance(encoded, bytes) else encoded, name=name)
    except ImageError as error:
        raise DataError(f"{error} Remove it from the data set.") from None
    except UsageError as error:  # a path that no file can have
        raise DataError(f"{name} cannot be read: {error} Remove it from the data set.") from None


class BlockShuffle(Generic[Record]):
    """Records of a stream, kept a few windows at a time; going back restarts the stream.

    >>> windows = BlockShuffle(lambda start: iter(range(start, 10)), window=4)
    >>> windows(np.array([5, 4, 1]))
    [5, 4, 1]
    """

    def __init__(self, begin: Callable[[int], Iterator[Record]], window: int) -> None:
        """Set the function that starts the stream at a record."""
        self._begin, self._window = begin, window
        self._kept: dict[int, list[Record]] = {}
        self._next, self._records = 0, begin(0)
        self._lock = threading.Lock()

    def __call__(self, indices: Indices) -> list[Record]:
        """The records at some indices, in their order."""
        with self._lock:
            results: dict[int, Record] = {}
            for number in np.unique(indices // self._window).tolist():
                window = self._read(number)
                chosen = indices[indices // self._window == number].tolist()
                if max(chosen) - number * self._window >= len(window):
                    raise DataError(f"the stream of images ends before image {max(chosen)}; it has changed meanwhile.")
                results |= {index: window[index - number * self._window] for index in chosen}
        return [results[index] for index in indices.tolist()]

    def _read(self, number: int) -> list[Record]:
        if number in self._kept:
            return self._kept[number]
        if number < self._next:
            self._next, self._records = number, self._begin(number * self._window)
        while self._next <= number:
            self._kept.pop(self._next, None)
            self._kept[self._next] = list(islice(self._records, self._window))
            self._next += 1
            for old in list(self._kept)[:-WINDOWS]:
                del self._kept[old]
        return self._kept[number]


_POOLS = threading.local()


def _pool() -> ThreadPoolExecutor:
    """This thread's threads for decoding."""
    if not hasattr(_POOLS, "own"):
        _POOLS.own = ThreadPoolExecutor(THREADS, thread_name_prefix="decoding")
    pool: ThreadPoolExecutor = _POOLS.own
    return pool
