"""Folder: a data set in files, a sub-folder per class.

Decodes in parallel; one picture is read by `images.read_image`, and which folders are splits and classes says `layout`.
"""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convscope.data.dataset import Dataset
from convscope.data.folder_layout import OPTIONS, FolderLayout, layout_of, pictures_in
from convscope.data.options import DatasetOptions, check_memory, split_indices
from convscope.errors import DataError, DataWarning, ImageError, UsageError
from convscope.images import WHITE, read_image
from convscope.preprocess import Preprocess
from convscope.typing import Array

COPIES = 2  # of the images: one by one, and stacked
TOO_MANY = "Bring them to a smaller --size, or name the folder hub:PATH, which reads them where they are used."
NAMED = 5  # how many skipped files a warning names


@dataclass(frozen=True, slots=True)
class FolderListing:
    """An image file and its class."""

    path: Path
    label: int


def load_folder(request: DatasetOptions) -> Dataset:
    """Load `folder:PATH?options`: a sub-folder per class, or train/ and test/ (or val/) with these.

    Folders named like splits (train_set, seg_train) are read as splits if they hold the same classes. Without a
    training split, or without class folders in the test split, a fifth of each class, chosen by the seed, is test.
    Options, joined by `&`: `train=FOLDER` and `test=FOLDER` name the splits, `splits=none` makes every sub-folder a
    class.

    If some pictures are grey and some in colour, all become RGB. Hidden files, and files without an image's extension,
    are ignored.

    Returns:
        uint8 images, or float32 from 0 to 255 where a file is deeper; `names` are paths relative to the folder.

    Warns:
        DataWarning: some files cannot be read, or are in neither split; they are skipped.

    Raises:
        UsageError: there is no such folder or option.
        DataError: no classes, a class without images, a layout that can be read in two ways, images of
            different sizes and no `image_size`, more of them than fit into memory; with `strict`, a file that cannot
            be read.
    """
    root = request.path
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; check the path.")
    layout = layout_of(root, request.options(OPTIONS))
    result = _find(root, layout, request)
    for warning in layout.warnings:
        warnings.warn(f"{warning}.", DataWarning, stacklevel=2)
    files, images = _decode(root, result, layout.classes(), request)
    stacked = _stacked(images)
    expected = Preprocess((stacked.shape[2], stacked.shape[3]), fit=request.fit, crop_ratio=request.crop_ratio)
    return Dataset(
        name=request.name,
        images=stacked,
        labels=np.array([file.label for file in files], np.int64),
        classes=layout.classes(),
        preprocess=replace(expected, channels=stacked.shape[1]),
        split=request.split,
        source=str(root),
        names=tuple(file.path.relative_to(root).as_posix() for file in files),
        skipped=len(result) - len(files),
        notes=tuple(f"{note}." for note in layout.notes),
    )


def _find(root: Path, layout: FolderLayout, request: DatasetOptions) -> list[FolderListing]:
    """The image files of the wanted split."""
    classes = layout.classes()
    if not classes:
        raise DataError(
            f"{root} has no sub-folders; it needs one with images for each class, such as {root / 'cats'} and "
            f"{root / 'dogs'}."
        )
    if layout.test and not layout.train and request.split == "train":
        raise DataError(f"{root} has a test split and no train/; add one, or ask for the split test or all.")
    has_test_folders = layout.test or not layout.train  # the test split has folders, or all are one
    parts = {"train": layout.train, "test": layout.test if has_test_folders else layout.train}.get(
        request.split
    ) or layout.whole
    results = [
        FolderListing(path, label)
        for part in parts
        for label, name in enumerate(classes)
        if (part / name).is_dir()
        for path in _images(part / name)
    ]
    if not layout.test:
        chosen = split_indices([file.label for file in results], request.split, request.seed)
        results = [results[index] for index in chosen]
    return results


def _images(folder: Path) -> list[Path]:
    """The image files of a class, at any depth, by name."""
    images = sorted(pictures_in(folder))
    if not images:
        raise DataError(f"the class {folder.name!r} has no images in {folder}; add some, or remove the folder.")
    return images


def _decode(
    root: Path, files: Sequence[FolderListing], classes: Sequence[str], request: DatasetOptions
) -> tuple[list[FolderListing], list[Array]]:
    """The files that can be read, and their pixels; all of one height and width."""
    channels = 1 if request.grey else None
    expected = Preprocess(request.image_size, channels, fit=request.fit, crop_ratio=request.crop_ratio)
    if request.image_size is not None:
        check_memory(request.name, len(files), (1, *request.image_size), TOO_MANY, copies=COPIES)
    readable: list[FolderListing] = []
    images: list[Array] = []
    errors: list[tuple[FolderListing, ImageError]] = []
    activity = f"reading {root.name}"
    request.progress(activity, 0, len(files))
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        results = pool.map(lambda file: _picture(file.path, expected), files)
        for done, (file, image) in enumerate(zip(files, results, strict=True), start=1):
            if not isinstance(image, ImageError):
                readable.append(file)
                images.append(image)
                if len(images) == 1:
                    check_memory(request.name, len(files), image.shape, TOO_MANY, copies=COPIES)
                _same_size(root, readable, images)
            elif request.strict:
                raise image
            else:
                errors.append((file, image))
            request.progress(activity, done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    if errors:
        lost = min({file.label for file in files} - {file.label for file in readable}, default=None)
        if lost is not None:
            raise DataError(_nothing_of(root, classes[lost], request.split, [e for f, e in errors if f.label == lost]))
        message = f"{len(errors)} of {len(files)} images of {root} cannot be read and are skipped: "
        warnings.warn(message + _reasons([error for _, error in errors]), DataWarning, stacklevel=3)
    return readable, images


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


def _same_size(root: Path, files: Sequence[FolderListing], images: Sequence[Array]) -> None:
    """Refuse the last image where it differs in size from the first."""
    first, last = images[0].shape[1:], images[-1].shape[1:]
    if first != last:
        raise DataError(
            f"the images of {root} differ in size (height x width): {files[0].path.relative_to(root)} has "
            f"{first[0]}x{first[1]} pixels and {files[-1].path.relative_to(root)} {last[0]}x{last[1]}; bring them to "
            "one size, for example with --size 64, or image_size=(64, 64)."
        )


def _nothing_of(root: Path, name: str, split: str, errors: Sequence[ImageError]) -> str:
    """The message for a class of which no file of the split can be read."""
    of_split = "" if split == "all" else f"{split} "
    which = f"the only {of_split}image" if len(errors) == 1 else f"none of the {len(errors)} {of_split}images"
    cannot, mend = ("cannot", "remove or replace it") if len(errors) == 1 else ("can", "remove or replace them")
    reasons = _reasons(errors)
    return f"{which} of the class {name!r} in {root} {cannot} be read; {mend}: {reasons}"


def _reasons(errors: Sequence[ImageError]) -> str:
    """Why files cannot be read, of the first few."""
    more = f" And {len(errors) - NAMED} more." if len(errors) > NAMED else ""
    return " ".join(map(str, errors[:NAMED])) + more


def _stacked(images: Sequence[Array]) -> Array:
    """One array (N, C, H, W): RGB where any picture is, float32 where any is deeper than 8 bits."""
    channels = max((image.shape[0] for image in images), default=1)
    kind = np.result_type(*{image.dtype for image in images}) if images else np.uint8
    stacked = np.empty((len(images), channels, *(images[0].shape[1:] if images else (1, 1))), kind)
    for index, image in enumerate(images):
        stacked[index] = image  # a grey picture is repeated over the channels
    return stacked
