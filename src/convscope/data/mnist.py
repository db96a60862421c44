"""The MNIST family: found on this machine or downloaded once, each file checked against its published checksum."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from convscope.data.dataset import Dataset
from convscope.data.idx import GZIP, parse_idx, uncompressed
from convscope.data.options import DatasetOptions
from convscope.errors import DataError, DataWarning, DownloadError, UsageError
from convscope.files import read_file
from convscope.preprocess import Preprocess
from convscope.progress import Progress
from convscope.typing import Array

HTTP = {
    "timeout": (10, 30),  # seconds to connect, and between two pieces
    "headers": {"Accept-Encoding": "identity"},  # or a server may unpack a .gz file on its way
    "chunk_size": 1 << 16,
}


def cache_folder() -> Path:
    """The folder of downloads: `~/.cache/convscope` on Linux, the user's cache folder elsewhere."""
    import pooch  # noqa: PLC0415  # it takes a fifth of a second, which most data sets need not wait for

    return Path(pooch.os_cache("convscope"))


def download(urls: Sequence[str], target: Path, is_good: Callable[[bytes], bool], progress: Progress) -> bytes:
    """Bring the first good file of `urls` to `target`, as a whole or not at all.

    Args:
        urls: The same file on several servers, tried in this order.
        target: Where to put it; its folder is made.
        is_good: Whether a downloaded file's content is the right one.
        progress: Receives the bytes of each attempt.

    Returns:
        The file's content.

    Raises:
        DownloadError: no server gave it, or it cannot be written; the message names each server's reason.
    """
    reasons = []
    for url in urls:
        content, reason = _attempt(url, target, is_good, progress)
        if content is not None:
            return content
        reasons.append(f"{urlsplit(url).netloc}: {reason}")
    raise DownloadError(f"{target.name} cannot be downloaded ({'; '.join(reasons)}).")


def _attempt(url: str, target: Path, is_good: Callable[[bytes], bool], progress: Progress) -> tuple[bytes | None, str]:
    """The content where it is good, and now at `target`; else the reason."""
    import pooch  # noqa: PLC0415  # as above

    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".download-", delete=False) as file:
            temporary = Path(file.name)
            bar = _Bar(f"downloading {target.name}", progress)
            pooch.HTTPDownloader(progressbar=bar, **HTTP)(url, file, None)
        content = temporary.read_bytes()
        good = is_good(content)
        if good:
            temporary.replace(target)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk: the network's errors have no number of their own
            raise DownloadError(f"{target.parent} cannot be written: {getattr(error, 'strerror', error)}.") from None
        return None, _reason(error)
    else:
        return (content, "") if good else (None, "it sent a different file: the checksum is wrong")
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Why the network gave nothing, in a word; its own messages are paragraphs."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    reasons = {"Timeout": "no answer in time", "Encoding": "the connection broke off"}
    return next((reason for name, reason in reasons.items() if name in type(error).__name__), "no connection")


class _Bar:
    """A progress bar for pooch, which sets `total` and then calls the methods."""

    def __init__(self, activity: str, progress: Progress) -> None:
        self.what, self.progress = activity, progress
        self.total, self.done = 0, 0

    def update(self, count: int) -> None:
        if self.done == 0:
            self.progress(self.what, 0, self.total)
        self.done = min(self.done + count, self.total) if self.total else self.done + count
        self.progress(self.what, self.done, self.total)

    def reset(self) -> None:
        """Called at the end, before the last `update(total)`."""

    def close(self) -> None:
        """Called last."""


@dataclass(frozen=True, slots=True)
class File:
    """One IDX file, as it was published."""

    name: str
    sha256: str
    """SHA-256 of the uncompressed bytes."""
    packed: bool = False
    """The digest is of the published .gz file instead, since only that one is known."""


@dataclass(frozen=True, slots=True)
class Family:
    """The four files of one data set, its classes and its servers."""

    title: str
    classes: tuple[str, ...]
    source: str
    mirrors: tuple[str, ...]
    files: Mapping[str, tuple[File, File]]
    """Split -> images and labels."""


# The checksums of MNIST were computed from its original files, those of Fashion-MNIST's labels, and of all files of
# Kuzushiji-MNIST but one, from files whose published checksums (torchvision's) agree. Those of Fashion-MNIST's images
# are published by several projects independently, and so is that of Kuzushiji-MNIST's packed training images.
FAMILIES: Mapping[str, Family] = {
    "mnist": Family(
        title="handwritten digits",
        classes=tuple("0123456789"),
        source="LeCun, Cortes, Burges: the MNIST database, http://yann.lecun.com/exdb/mnist/",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files={
            "train": (
                File("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
                File("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
                File("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
            ),
        },
    ),
    "fashion-mnist": Family(
        title="articles of clothing",
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        source="Xiao, Rasul, Vollgraf 2017, https://github.com/zalandoresearch/fashion-mnist",
        mirrors=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        files={
            "train": (
                File("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
                File("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
                File("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
            ),
        },
    ),
    "kmnist": Family(
        title="cursive Japanese characters",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        source="Clanuwat et al. 2018, https://github.com/rois-codh/kmnist (CC BY-SA 4.0)",
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "https://huggingface.co/datasets/tanganke/kmnist/resolve/756d43e894032ce8838db8b32e7500c9c3b5d050/raw/",
        ),
        files={
            "train": (
                File(
                    "train-images-idx3-ubyte",
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                    packed=True,
                ),
                File("train-labels-idx1-ubyte", "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b"),
            ),
            "test": (
                File("t10k-images-idx3-ubyte", "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e"),
                File("t10k-labels-idx1-ubyte", "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6"),
            ),
        },
    ),
}  # fmt: skip


VARIABLE = "CONVSCOPE_DATA"
PREPROCESS = Preprocess(size=(28, 28), channels=1, background="dark")
DIGITS = replace(PREPROCESS, fit="mnist")
"""MNIST's own: a drawing is centred as its digits were."""


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
        preprocess=DIGITS if request.name == "mnist" else PREPROCESS,
        split=request.split,
        source=family.source,
    )


def at_hand(request: DatasetOptions) -> bool:
    """Whether the files are on this machine, in the user's folders or in the cache; they are not read."""
    family = FAMILIES[request.name]
    splits = ("train", "test") if request.split == "all" else (request.split,)
    folder = cache_folder() / request.name
    return all(
        _user_files(request, family.files[split])
        or all((folder / f"{f.name}.gz").is_file() for f in family.files[split])
        for split in splits
    )


def _pair(request: DatasetOptions, family: Family, split: str) -> tuple[Array, Array]:
    """The images (N, 28, 28) and the labels (N,) of one split."""
    files = family.files[split]
    paths = _user_files(request, files)
    if paths:
        contents = [_checked(request.name, path, file) for path, file in zip(paths, files, strict=True)]
    else:
        contents = [_cached(request, family, file) for file in files]
    file_names = [str(path) for path in paths] or [file.name for file in files]
    return parse_idx(contents[0], 3, file_names[0]), parse_idx(contents[1], 1, file_names[1])


def _user_files(request: DatasetOptions, files: tuple[File, File]) -> list[Path]:
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
        stored = read_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
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
    with suppress(OSError):  # missing, or another file of that name
        if _is_good(file, stored := read_file(path)):
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
