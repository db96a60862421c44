"""NPZ: a data set in one NumPy archive, its headers checked before its numbers are read.

A header is read and checked before any number is, so that a file of a few megabytes cannot ask for gigabytes unseen,
and nothing in a file is unpickled or evaluated.
"""

import ast
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.data.options import DatasetOptions, check_bytes, split_indices
from convscope.data.value_range import layout_of, white_of
from convscope.errors import DataError, UsageError
from convscope.files import unsuitable
from convscope.images import WHITE
from convscope.preprocess import Preprocess
from convscope.typing import Array

MAGIC = b"\x93NUMPY"
LENGTHS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
"""Version of the format -> how the length of its header is written."""
LONGEST_HEADER = 10_000  # as NumPy's own limit
OBJECTS = "it holds Python objects, which are never loaded"

DAMAGE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    RecursionError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Exceptions of damaged archives; an unknown compression is a NotImplementedError, so a RuntimeError."""


@dataclass(frozen=True, slots=True)
class Member:
    """The header of an array."""

    file: str
    """Its name in the archive."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int
    """The offset of its numbers in bytes."""

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def headers(path: Path, names: Collection[str]) -> dict[str, Member]:
    """The headers of the arrays that are wanted and there, by name.

    Raises:
        DataError: not a regular file, no archive, or a header that is damaged, holds objects or does not fit its array.
    """
    if problem := unsuitable(path):
        raise DataError(f"{path} {problem}.")
    with _archive(path) as archive:
        results: dict[str, Member] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in names:
                continue
            if name in results:
                raise ValueError(f"it has the array {name} twice")
            if info.flag_bits & 1:
                raise ValueError(f"its array {name} is encrypted")
            with archive.open(info) as file:
                results[name] = _header(file, info.filename, name)
            claimed = info.file_size - results[name].start
            if results[name].size != claimed:
                raise ValueError(
                    f"the header of {name} says {results[name].size:,} bytes and the archive has {claimed:,}"
                )
        return results


def numbers(path: Path, member: Member) -> Array:
    """The numbers of an array.

    Raises:
        DataError: they are damaged or fewer than the header says.
    """
    with _archive(path) as archive, archive.open(member.file) as file:
        file.read(member.start)
        content = memoryview(bytearray(member.size))
        position = 0
        while position < len(content):
            count = file.readinto(content[position : position + (1 << 24)])  # type: ignore[attr-defined]  # as every BufferedIOBase
            if not count:
                raise EOFError(f"{member.file} is cut off")
            position += count
        if file.read(1):  # reads to the end, where zip compares its checksum
            raise ValueError(f"{member.file} is longer than its header says")
    array = np.frombuffer(content, member.dtype)
    return array.reshape(member.shape, order="F" if member.fortran else "C")


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The opened archive; whatever a damaged one raises becomes a sentence."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                raise DataError(f"{path} holds one array where images and labels are needed; write both with np.savez.")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except DataError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{path} cannot be read as an .npz file of arrays: {reason}. Write it with np.savez.") from None


def _header(file: IO[bytes], name: str, array: str) -> Member:
    """The header at the start of an array.

    Source: the NPY format, numpy.lib.format.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError(f"{array} is not an array")
    version = tuple(file.read(2))
    if version not in LENGTHS:
        raise ValueError(f"{array} is of an unknown version of the format")
    form = LENGTHS[version]
    (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if length > LONGEST_HEADER:
        raise ValueError(f"the header of {array} has {length:,} bytes")
    text = file.read(length).decode("utf-8" if version == (3, 0) else "latin-1")
    start = len(MAGIC) + 2 + struct.calcsize(form) + length
    return _parsed(_literal(text, array), name, array, start)


def _literal(text: str, array: str) -> Mapping[str, Any]:
    try:
        header = ast.literal_eval(text)
    except (*DAMAGE, AttributeError):
        header = None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"the header of {array} is damaged")
    return header


def _parsed(header: Mapping[str, Any], name: str, array: str, start: int) -> Member:
    shape, descr = header["shape"], header["descr"]
    try:
        dtype = np.lib.format.descr_to_dtype(descr)
    except (*DAMAGE, AttributeError, IndexError):
        raise ValueError(f"the type of {array} is damaged") from None
    if dtype.hasobject:
        raise ValueError(OBJECTS)
    if dtype.itemsize == 0 and dtype.kind not in "SU":
        raise ValueError(f"the type of {array} is damaged")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**63 for n in shape) or len(shape) > 32:
        raise ValueError(f"the shape of {array} is damaged")
    return Member(name, dtype, shape, bool(header["fortran_order"]), start)


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
OPTIONS = ("layout", "white")
MOST_CLASSES = 100_000
LONGEST_NAME = 1_000
"""Characters of a class name."""
COPIES = 2  # of the images: those of all splits, and of the wanted ones
FLOAT32_MAX = float(np.finfo(np.float32).max)
LARGEST_LABEL = 2**53  # beyond it floating-point numbers are not exact; no class has such a number


def load_npz(request: DatasetOptions) -> Dataset:
    """Load `npz:PATH?options`: `images` and `labels`, `x` and `y`, or such a pair for each of train and test.

    Where the file has one pair, a fifth of each class, chosen by the seed, is test. `all` is everything, a validation
    part included. An array of strings `classes` names the classes; without it their numbers do.

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C), distinguished by their usual numbers of channels and by square
    pictures. The pixel value that counts as 1.0 is 1, 255 or 65535, by the type and range of all values; it is 1 where
    values are negative, as after a normalization. Where this is not clear, the options say it: `layout=nchw` or
    `layout=nhwc`, `white=VALUE`.

    What an array needs is read from its header, and compared with the memory that is free, before it is loaded.

    Returns:
        uint8 images where all values are integers from 0 to 255, else float32; `notes` say what was assumed.

    Raises:
        UsageError: there is no such file or option.
        DataError: no NumPy archive; arrays that are missing, pickled, of another shape or type, larger than the memory,
            or that can be read in two ways.
    """
    path, options = request.path, request.options(OPTIONS)
    if not path.exists():
        raise UsageError(f"there is no file {path}; check the path.")
    result = headers(path, KNOWN)
    names = _names(path, result)
    _check_headers(path, names, result)
    order, notes = _order(path, [result[pair[0]] for pair in names.values()], options.get("layout"))
    raw = {split: numbers(path, result[pair[0]]).transpose(order) for split, pair in names.items()}
    images, scale, note = _images(path, raw, options.get("white"))
    del raw
    labels = {split: _labels(path, numbers(path, result[pair[1]])) for split, pair in names.items()}
    parts = list(names) if request.split == "all" or "all" in names else [request.split]
    if parts[0] not in names:
        raise DataError(f"{path} has no images of the split {request.split}; it has {', '.join(names)}.")
    classes = _classes(path, numbers(path, result[CLASSES]) if CLASSES in result else None, labels.values())
    for part in parts:
        _check_range(path, names[part][1], labels[part], len(classes))
    chosen, labels_chosen = (np.concatenate([arrays[part] for part in parts]) for arrays in (images, labels))
    if "all" in names:
        selected = split_indices(labels_chosen, request.split, request.seed)
        chosen, labels_chosen = chosen[selected], labels_chosen[selected]
    return Dataset(
        name=request.name,
        images=chosen,
        labels=labels_chosen,
        classes=classes,
        preprocess=Preprocess(size=(chosen.shape[2], chosen.shape[3]), channels=chosen.shape[1], scale=scale),
        split=request.split,
        source=str(path),
        notes=tuple(filter(None, (notes, note))),
    )


def _names(path: Path, arrays: Mapping[str, Member]) -> Names:
    """The convention that the file follows, with the splits that it has."""
    for row in SPELLINGS:
        there = {split: pair for split, pair in row.items() if set(pair) <= arrays.keys()}
        if there:
            return there
    pairs = "; ".join(" and ".join(next(iter(row.values()))) for row in SPELLINGS)
    raise DataError(f"{path} has no pair of images and labels under the names that are known: {pairs}.")


def _check_headers(path: Path, names: Names, members: Mapping[str, Member]) -> None:
    """Refuse by their headers arrays that do not fit together, or that this machine has no memory for."""
    needed = 0
    for pair in names.values():
        images, labels = members[pair[0]], members[pair[1]]
        _check_images(path, images)
        count = images.shape[0]
        if labels.shape not in {(count,), (count, 1)}:
            raise DataError(
                f"the labels of {path} have the shape {labels.shape} for {count} images; it needs one class number for "
                "each (of one-hot labels, labels.argmax(axis=1))."
            )
        if labels.dtype.kind not in "buif":
            raise DataError(f"the labels of {path} are {labels.dtype} values; they must be whole class numbers from 0.")
        wide = 1 if images.dtype.itemsize == 1 else 4
        needed += images.size + COPIES * wide * (images.size // max(1, images.dtype.itemsize)) + labels.size
    shapes = {members[pair[0]].shape[1:] for pair in names.values()}
    if len(shapes) > 1:
        raise DataError(f"the images of {path} differ in shape from split to split: {sorted(shapes)}.")
    check_bytes(f"the arrays of {path}", needed, "Write fewer or smaller images, or of type uint8.")
    classes = members.get(CLASSES)
    if classes is not None:
        _check_names(path, classes)


def _check_images(path: Path, images: Member) -> None:
    if len(images.shape) not in {3, 4} or images.dtype.kind not in "buif":
        raise DataError(
            f"the images of {path} must be numbers of shape (N, H, W), (N, C, H, W) or (N, H, W, C), "
            f"not {images.dtype} of {images.shape}."
        )
    if 0 in images.shape[1:]:
        raise DataError(f"the images of {path} have the shape {images.shape}, without a single pixel.")


def _check_names(path: Path, classes: Member) -> None:
    """Refuse what are not names of classes, before there are a million of them."""
    if len(classes.shape) != 1 or classes.dtype.kind not in "US":
        raise DataError(f"the array {CLASSES} of {path} must be a list of strings, not {classes.dtype}.")
    longest = classes.dtype.itemsize // (4 if classes.dtype.kind == "U" else 1)
    if classes.shape[0] > MOST_CLASSES or longest > LONGEST_NAME:
        raise DataError(
            f"{path} names {classes.shape[0]:,} classes in up to {longest:,} characters; at most {MOST_CLASSES:,} "
            f"classes and {LONGEST_NAME:,} characters are taken."
        )


def _order(path: Path, images: list[Member], stated: str | None) -> tuple[tuple[int, ...] | None, str]:
    """The permutation of the axes to (N, C, H, W), and what was assumed; None adds the channel."""
    shape = images[0].shape
    if len(shape) == 3:
        if stated is not None:
            raise UsageError(
                f"the images of {path} have the shape {shape}, without channels; layout= is for four axes."
            )
        return (0, 1, 2), ""
    layout, note = layout_of(f"npz:{path}", shape, stated)
    return ((0, 1, 2, 3) if layout == "nchw" else (0, 3, 1, 2)), note


def _images(path: Path, arrays: Mapping[str, Array], stated: str | None) -> tuple[dict[str, Array], float, str]:
    """The images of each split as (N, C, H, W), uint8 or float32, the value that is white, and what was assumed."""
    images = {split: array[:, None] if array.ndim == 3 else array for split, array in arrays.items()}
    lowest = float(np.min([array.min(initial=0) for array in images.values()]))
    highest = float(np.max([array.max(initial=0) for array in images.values()]))
    if not max(-lowest, highest) <= FLOAT32_MAX:  # also where one is not a number
        raise DataError(f"the images of {path} have values that are not finite numbers; replace them.")
    kinds = {array.dtype.kind for array in images.values()}
    kind = "f" if "f" in kinds else kinds.pop() if len(kinds) == 1 else "i"
    scale, note = white_of(f"npz:{path}", lowest, highest, kind, stated)
    fits_uint8 = lowest >= 0 and highest <= WHITE and kind != "f"
    return {split: array.astype(np.uint8 if fits_uint8 else np.float32) for split, array in images.items()}, scale, note


def _labels(path: Path, labels: Array) -> NDArray[np.int64]:
    """One class number per image, shape (N,)."""
    kind = labels.dtype.kind
    if kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise DataError(f"the labels of {path} are {labels.dtype} values; they must be whole class numbers from 0.")
    if labels.size and not -LARGEST_LABEL < labels.min() <= labels.max() < LARGEST_LABEL:
        raise DataError(f"{path} has the label {labels.max()}; class numbers below {MOST_CLASSES:,} are expected.")
    return labels.reshape(len(labels)).astype(np.int64)


def _check_range(path: Path, name: str, labels: NDArray[np.int64], count: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= count))
    if len(outside):
        raise DataError(
            f"label {labels[outside[0]]} of image {outside[0]} of {path} ({name}) is outside its {count} "
            f"class{'es' * (count != 1)} (0 to {count - 1}); name more classes or correct the labels."
        )


def _classes(path: Path, names: Array | None, labels: Iterable[NDArray[np.int64]]) -> tuple[str, ...]:
    """The names of the classes: those of the file, else their numbers."""
    if names is not None:
        return _class_names(path, names)
    highest = max(int(values.max(initial=0)) for values in labels)
    if highest >= MOST_CLASSES:
        raise DataError(f"{path} has the label {highest}; class numbers below {MOST_CLASSES:,} are expected.")
    return tuple(map(str, range(highest + 1)))


def _class_names(path: Path, names: Array) -> tuple[str, ...]:
    """Strings from an array of characters or bytes, whose codes are checked first: NumPy takes them as they are."""
    if names.dtype.kind == "S":
        try:
            return tuple(name.decode("utf-8") for name in names.tolist())
        except UnicodeDecodeError as error:
            raise DataError(f"the class names of {path} are bytes that are not UTF-8 ({error.object!r}).") from None
    codes = np.frombuffer(names.tobytes(), np.dtype(np.uint32).newbyteorder(names.dtype.byteorder))
    if codes.max(initial=0) > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any():
        raise DataError(f"the class names of {path} hold numbers that are not characters; write them as strings.")
    return tuple(map(str, names.tolist()))
