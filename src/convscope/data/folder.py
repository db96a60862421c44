"""Folder: a data set in files, a sub-folder per class, every format that Pillow reads.

Knows the layout of folders and decodes in parallel; one picture is read by `images.read_image`.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from convscope.data.dataset import Dataset
from convscope.data.holdout import split_indices
from convscope.data.memory import check_memory
from convscope.data.request import Request
from convscope.errors import DataError, DataWarning, ImageError, UsageError
from convscope.images import WHITE, Array, Preprocess, read_image

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")  # the first that exists is the test split
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # what Pillow recognizes and cannot decode by itself
COPIES = 2  # of the images: one by one, and stacked
TOO_MANY = "Bring them to a smaller --size, or name the folder hub:PATH, which reads them where they are used."
NAMED = 5  # how many skipped files a warning names


@dataclass(frozen=True, slots=True)
class Found:
    """An image file and its class."""

    path: Path
    label: int


def load_folder(request: Request) -> Dataset:
    """Load a folder of images: a sub-folder per class, or train/ and test/ (or val/) with these.

    Without train/, a fifth of each class, chosen by the seed, is test. Where some pictures are grey and some in
    colour, all become RGB. Hidden files, and files that are no images by their name, are passed over.

    Returns:
        uint8 images, or float32 from 0 to 255 where a file is deeper; `names` are paths relative to the folder.

    Warns:
        DataWarning: some files cannot be read; they are skipped.

    Raises:
        UsageError: there is no such folder.
        DataError: no classes, a class without images, no test/, images of different sizes and no `image_size`, more
            of them than fit into memory; with `strict`, a file that cannot be read.
    """
    root = request.path
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; check the path.")
    found, classes = _find(root, request)
    kept, images = _decode(root, found, request)
    stacked = _stacked(images)
    expected = Preprocess((stacked.shape[2], stacked.shape[3]), fit=request.fit, crop_ratio=request.crop_ratio)
    return Dataset(
        name=request.name,
        images=stacked,
        labels=np.array([file.label for file in kept], np.int64),
        classes=classes,
        preprocess=replace(expected, channels=stacked.shape[1]),
        split=request.split,
        source=str(root),
        names=tuple(file.path.relative_to(root).as_posix() for file in kept),
        skipped=len(found) - len(kept),
    )


def _find(root: Path, request: Request) -> tuple[list[Found], tuple[str, ...]]:
    """The image files of the wanted split, and the names of all classes."""
    layout = _layout(root)
    classes = tuple(sorted({folder.name for part in layout["all"] for folder in _subfolders(part)}))
    if not classes:
        raise DataError(
            f"{root} has no sub-folders; it needs one with images for each class, such as {root / 'cats'} and "
            f"{root / 'dogs'}."
        )
    parts = layout.get(request.split, ()) if "train" in layout else layout["all"]
    if not parts:
        raise DataError(f"{root} has train/ and no test/ or val/; add one, or ask for the split train or all.")
    found = [
        Found(path, label)
        for part in parts
        for label, name in enumerate(classes)
        if (part / name).is_dir()
        for path in _images(part / name)
    ]
    if "train" not in layout:
        chosen = split_indices([file.label for file in found], request.split, request.seed)
        found = [found[index] for index in chosen]
    return found, classes


def _layout(root: Path) -> Mapping[str, Sequence[Path]]:
    """Split -> the folders that hold its classes; only `all` where the sub-folders are the classes themselves."""
    named = {folder.name.lower(): folder for folder in _subfolders(root)}
    train, test = ([named[name] for name in names if name in named][:1] for names in (TRAIN, TEST))
    if train and named.keys() <= {*TRAIN, *TEST}:
        return {"train": train, "test": test, "all": list(named.values())}
    return {"all": [root]}


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}.") from None


def _images(folder: Path) -> list[Path]:
    """The image files of a class, at any depth, by name."""
    images = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _extensions()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not images:
        raise DataError(f"the class {folder.name!r} has no images in {folder}; add some, or remove the folder.")
    return images


@cache
def _extensions() -> frozenset[str]:
    known = Image.registered_extensions()
    return frozenset(end for end, kind in known.items() if kind in Image.OPEN and kind not in NO_PICTURES)


def _decode(root: Path, files: Sequence[Found], request: Request) -> tuple[list[Found], list[Array]]:
    """The files that can be read, and their pixels; all of one height and width."""
    channels = 1 if request.grey else None
    expected = Preprocess(request.image_size, channels, fit=request.fit, crop_ratio=request.crop_ratio)
    if request.image_size is not None:
        check_memory(request.name, len(files), (1, *request.image_size), TOO_MANY, copies=COPIES)
    kept: list[Found] = []
    images: list[Array] = []
    errors: list[ImageError] = []
    what = f"reading {root.name}"
    request.progress(what, 0, len(files))
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        results = pool.map(lambda file: _picture(file.path, expected), files)
        for done, (file, image) in enumerate(zip(files, results, strict=True), start=1):
            if not isinstance(image, ImageError):
                kept.append(file)
                images.append(image)
                if len(images) == 1:
                    check_memory(request.name, len(files), image.shape, TOO_MANY, copies=COPIES)
                _same_size(root, kept, images)
            elif request.strict:
                raise image
            else:
                errors.append(image)
            request.progress(what, done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    _tell(root, files, kept, errors)
    return kept, images


def _picture(path: Path, expected: Preprocess) -> Array | ImageError:
    """The pixels of one file, 0 to 255, or why there are none."""
    try:
        image = read_image(path)
    except ImageError as error:
        return error
    if not expected.changes(image):
        return image
    changed = expected.apply(image) * np.float32(WHITE)
    return np.rint(changed).astype(np.uint8) if image.dtype == np.uint8 else changed


def _same_size(root: Path, kept: Sequence[Found], images: Sequence[Array]) -> None:
    """Refuse the last image where it differs in size from the first."""
    first, last = images[0].shape[1:], images[-1].shape[1:]
    if first != last:
        raise DataError(
            f"the images of {root} differ in size (height x width): {kept[0].path.relative_to(root)} has "
            f"{first[0]}x{first[1]} pixels and {kept[-1].path.relative_to(root)} {last[0]}x{last[1]}; bring them to "
            "one size, for example with --size 64, or image_size=(64, 64)."
        )


def _tell(root: Path, files: Sequence[Found], kept: Sequence[Found], errors: Sequence[ImageError]) -> None:
    """Warn of the skipped files, or refuse where nothing of a class is left."""
    if not errors:
        return
    more = f" And {len(errors) - NAMED} more." if len(errors) > NAMED else ""
    reasons = " ".join(map(str, errors[:NAMED])) + more
    lost = {file.label for file in files} - {file.label for file in kept}
    if lost:
        raise DataError(f"none of the images of a class in {root} can be read: {reasons}")
    message = f"{len(errors)} of {len(files)} images of {root} cannot be read and are skipped: {reasons}"
    warnings.warn(message, DataWarning, stacklevel=2)


def _stacked(images: Sequence[Array]) -> Array:
    """One array (N, C, H, W): RGB where any picture is, float32 where any is deeper than 8 bits."""
    channels = max((image.shape[0] for image in images), default=1)
    kind = np.result_type(*{image.dtype for image in images}) if images else np.uint8
    stacked = np.empty((len(images), channels, *(images[0].shape[1:] if images else (1, 1))), kind)
    for at, image in enumerate(images):
        stacked[at] = image  # a grey picture is repeated over the channels
    return stacked
