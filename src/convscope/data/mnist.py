"""The MNIST family, found on this machine or downloaded once, each file checked against its published checksum.

Knows where files may lie; their names and checksums are in `families`, the format in `idx`, the network in `download`.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convscope.data.dataset import Dataset
from convscope.data.download import cache_folder, download
from convscope.data.idx import GZIP, parse_idx, uncompressed
from convscope.data.mnist_files import FAMILIES, Family, File
from convscope.data.options import DatasetOptions
from convscope.errors import DataError, DataWarning, DownloadError, UsageError
from convscope.images import Array, Preprocess

VARIABLE = "CONVSCOPE_DATA"
PREPROCESS = Preprocess(size=(28, 28), channels=1, background="dark")


def load_mnist(request: DatasetOptions) -> Dataset:
    """Load a data set of the MNIST family: uint8 images of shape (N, 1, 28, 28).

    The files, plain or gzip, are taken from `data_dir` or its sub-folder of the data set's name, else from the folder
    that CONVSCOPE_DATA names likewise, else from the user's cache, else they are downloaded into that.

    Warns:
        DataWarning: a file of `data_dir` or CONVSCOPE_DATA is not the published one; it is used anyway.

    Raises:
        UsageError: `data_dir` is not a folder.
        DataError: a file is damaged, or belongs to another data set of the family.
        DownloadError: the files are neither here nor reachable; the message says where to put them.
    """
    family = FAMILIES[request.name]
    splits = ("train", "test") if request.split == "all" else (request.split,)
    pairs = [_pair(request, family, split) for split in splits]
    images = pairs[0][0] if len(pairs) == 1 else np.concatenate([images for images, _ in pairs])
    return Dataset(
        name=request.name,
        images=images[:, None],
        labels=np.concatenate([labels for _, labels in pairs]).astype(np.int64),
        classes=family.classes,
        preprocess=PREPROCESS,
        split=request.split,
        source=family.source,
    )


def at_hand(request: DatasetOptions) -> bool:
    """Whether the files are on this machine, in the user's folders or in the cache; they are not read."""
    family = FAMILIES[request.name]
    splits = ("train", "test") if request.split == "all" else (request.split,)
    folder = cache_folder() / request.name
    return all(
        _given(request, family.files[split]) or all((folder / f"{f.name}.gz").is_file() for f in family.files[split])
        for split in splits
    )


def _pair(request: DatasetOptions, family: Family, split: str) -> tuple[Array, Array]:
    """The images (N, 28, 28) and the labels (N,) of one split."""
    files = family.files[split]
    given = _given(request, files)
    if given:
        contents = [_checked(request.name, path, file) for path, file in zip(given, files, strict=True)]
    else:
        contents = [_cached(request, family, file) for file in files]
    where = [str(path) for path in given] or [file.name for file in files]
    return parse_idx(contents[0], 3, where[0]), parse_idx(contents[1], 1, where[1])


def _given(request: DatasetOptions, files: tuple[File, File]) -> list[Path]:
    """The paths of both files in the first of the user's folders that has them; empty where none has."""
    for folder in _folders(request):
        paths = [path for file in files if (path := _spelled(folder, file))]
        if len(paths) == len(files):
            return paths
    return []


def _folders(request: DatasetOptions) -> Iterator[Path]:
    if request.data_dir is not None and not request.data_dir.is_dir():
        raise UsageError(f"there is no folder {request.data_dir} to take {request.name} from; check --data-dir.")
    for base in (request.data_dir, os.environ.get(VARIABLE)):
        if base:
            yield Path(base) / request.name
            yield Path(base)


def _spelled(folder: Path, file: File) -> Path | None:
    """The file in this folder under one of its known names."""
    names = (file.name, file.name.replace("-idx", ".idx"))
    return next((path for name in names for end in ("", ".gz") if (path := folder / f"{name}{end}").is_file()), None)


def _checked(name: str, path: Path, file: File) -> bytes:
    """The uncompressed content of a file the user has put there, with a warning where it is not the published one."""
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    content = uncompressed(stored, str(path))
    published = is_published(file, stored, content)
    if not published and (owner := _owner(content)) not in {None, name}:
        raise DataError(f"{path} belongs to {owner}, not to {name}; name the folder of {name}.")
    if published is False:
        message = f"{path} is not the published file of {name} (its checksum differs); it is used anyway."
        warnings.warn(message, DataWarning, stacklevel=2)
    return content


def _owner(content: bytes) -> str | None:
    """The data set that has a file of this content."""
    digest = sha256(content)
    for name, family in FAMILIES.items():
        if any(file.sha256 == digest for files in family.files.values() for file in files):
            return name
    return None


def _cached(request: DatasetOptions, family: Family, file: File) -> bytes:
    """The uncompressed content of a file in the user's cache, downloaded again where it is missing or damaged."""
    path = cache_folder() / request.name / f"{file.name}.gz"
    if path.is_file() and _is_good(file, stored := path.read_bytes()):
        return uncompressed(stored, str(path))
    try:
        urls = [mirror + path.name for mirror in family.mirrors]
        return uncompressed(download(urls, path, lambda stored: _is_good(file, stored), request.progress), str(path))
    except DownloadError as error:
        names = ", ".join(f"{file.name}.gz" for files in family.files.values() for file in files)
        raise DownloadError(
            f"{request.name} is not on this machine: {error} Put {names} into {path.parent}, "
            f"or name the folder that has them with --data-dir or {VARIABLE}."
        ) from None


def _is_good(file: File, stored: bytes) -> bool:
    try:
        return is_published(file, stored, uncompressed(stored, file.name)) is True
    except DataError:
        return False


def is_published(file: File, stored: bytes, content: bytes) -> bool | None:
    """Whether a file is the published one; None where only the digest of its packed form is known, and it is plain.

    Args:
        file: The published file to compare with.
        stored: The bytes on disk.
        content: The same, uncompressed.
    """
    if file.packed and not stored.startswith(GZIP):
        return None
    return sha256(stored if file.packed else content) == file.sha256


def sha256(content: bytes) -> str:
    """The SHA-256 digest in hexadecimal.

    >>> sha256(b"seven")[:8]
    '3ba8d02b'
    """
    return hashlib.sha256(content).hexdigest()
