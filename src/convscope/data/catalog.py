"""Catalog: every data set by its name, and `load_dataset`, which loads one. Imports the other files of this folder."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from convscope.data import generated as crosses
from convscope.data import generated as shapes
from convscope.data import mnist
from convscope.data.dataset import Dataset
from convscope.data.folder import load_folder
from convscope.data.hub import is_here, load_hub
from convscope.data.mnist import FAMILIES
from convscope.data.npz import load_npz
from convscope.data.options import DatasetOptions
from convscope.errors import UnknownName, UsageError
from convscope.preprocess import Fit, Preprocess
from convscope.progress import Progress, silent
from convscope.type_checks import takes

Loader = Callable[[DatasetOptions], Dataset]
log = logging.getLogger("convscope.data")


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """Information on a data set that is known without loading it."""

    name: str
    summary: str
    shape: tuple[int, int, int]
    """(C, H, W) of each image."""
    sizes: Mapping[str, int]
    """Split -> number of images; for the shapes sets the default number to generate."""
    classes: tuple[str, ...]
    preprocess: Preprocess
    source: str
    load: Loader = field(repr=False)
    options: frozenset[str] = frozenset()
    """Arguments of `load_dataset` that only some data sets take, this one included."""

    def to_json(self) -> dict[str, object]:
        """As plain values, without its loader."""
        return {
            "name": self.name,
            "summary": self.summary,
            "shape": list(self.shape),
            "sizes": dict(self.sizes),
            "classes": list(self.classes),
            "preprocess": self.preprocess.to_json(),
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A kind of user data set, named by its location."""

    name: str
    """The syntax: `folder:PATH`."""
    summary: str
    load: Loader = field(repr=False)
    options: frozenset[str] = frozenset()


DRAWN = frozenset({"size", "sampling"})
PICTURES = frozenset({"image_size", "fit", "crop_ratio", "grey"})


def _shapes(name: str, summary: str, possible: int) -> DatasetEntry:
    expected = shapes.preprocess(name)
    return DatasetEntry(
        name=name,
        summary=summary,
        shape=shapes.shape(name),
        sizes={**shapes.SIZES, "all": possible},
        classes=shapes.CLASSES[name],
        preprocess=expected,
        source="generated from a seed; train and test share no image; `all` contains every possible image once",
        load=shapes.load_shapes,
        options=DRAWN,
    )


def _family(name: str) -> DatasetEntry:
    family = FAMILIES[name]
    return DatasetEntry(
        name=name,
        summary=family.title,
        shape=(1, 28, 28),
        sizes={"train": 60_000, "test": 10_000, "all": 70_000},
        classes=family.classes,
        preprocess=mnist.DIGITS if name == "mnist" else mnist.PREPROCESS,
        source=family.source,
        load=mnist.load_mnist,
    )


DATASETS: Mapping[str, DatasetEntry] = {
    "crosses": DatasetEntry(
        name="crosses",
        summary="two images, + and x; the test split is two damaged ones",
        shape=(1, 3, 3),
        sizes={split: len(names) for split, names in crosses.SHOWN.items()},
        classes=crosses.CROSS_CLASSES,
        preprocess=crosses.CROSS_PREPROCESS,
        source="fixed, part of the program",
        load=crosses.load_crosses,
    ),
    "square": DatasetEntry(
        name="square",
        summary="one image, a white 4x4 square on 10x10, the same in every split",
        shape=(1, 10, 10),
        sizes={"train": 1, "test": 1, "all": 1},
        classes=crosses.SQUARE_CLASSES,
        preprocess=crosses.SQUARE_PREPROCESS,
        source="fixed, part of the program",
        load=crosses.load_square,
    ),
    "shapes": _shapes("shapes", "white squares and circles on black", possible=3_889),
    "color-shapes": _shapes("color-shapes", "yellow squares, against red squares and yellow circles", possible=7_198),
    "mnist": _family("mnist"),
    "fashion-mnist": _family("fashion-mnist"),
    "kmnist": _family("kmnist"),
}

PLACES: Mapping[str, DatasetSource] = {
    "folder": DatasetSource("folder:PATH", "a folder of images, a sub-folder per class", load_folder, PICTURES),
    "hub": DatasetSource(
        "hub:PLACE", "parquet, arrow or image files too many for memory, or a name on the Hub", load_hub, PICTURES
    ),
    "npz": DatasetSource("npz:PATH", "a NumPy archive with images and labels", load_npz),
}


@takes(image_size="Any")
def load_dataset(
    name: str,
    *,
    split: str = "train",
    seed: int = 0,
    size: int | None = None,
    sampling: str = "split",
    data_dir: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    crop_ratio: float = 1.0,
    grey: bool = False,
    strict: bool = False,
    progress: Progress = silent,
) -> Dataset:
    """Load a data set by name, from a folder of images, from a NumPy archive, or open one too large for memory.

    >>> load_dataset("shapes", split="test", seed=1).counts()
    {'square': 100, 'circle': 100}

    Args:
        name: One of `DATASETS`, `folder:PATH`, `npz:PATH` or `hub:PLACE` (see `convscope/data/hub.py`).
        split: "train", "test" or "all".
        seed: Seed for generating the shapes sets, and for splitting a folder or archive without splits of its own; use
            the same for train and test.
        size: Number of images of a shapes set to generate, half of each class.
        sampling: "split" draws the shapes of train and test from parts that share no image; "published" draws each
            image independently, as the tutorial does, so that they overlap (see `overlap`).
        data_dir: Folder in which to look first for the files of the MNIST family.
        image_size: (height, width) in pixels to which the images of a folder, or of `hub:`, are resized.
        fit: How to fit images of another aspect ratio: "stretch", "crop", "pad" or "mnist", as in `Preprocess`.
        crop_ratio: The crop ratio, as in `Preprocess`.
        grey: Whether to convert them to grey.
        strict: Whether an unreadable image of a folder, or of `hub:`, is an error rather than skipped with a warning.
        progress: Called with the progress of reading or downloading.

    Returns:
        A `Dataset`: uint8 or float32 images of shape (N, C, H, W), labels, class names, `Preprocess`.

    Raises:
        UsageError: unknown data set, split or sampling, or an argument that this data set does not take.
        DataError: files that exist but cannot be used.
        DownloadError: files that are neither on this machine nor reachable.
    """
    entry = entry_of(name)
    request = DatasetOptions(
        name=name,
        split=split,
        seed=seed,
        size=size,
        sampling=sampling,
        data_dir=None if data_dir is None else Path(data_dir).expanduser(),
        image_size=image_size,
        fit=fit,
        crop_ratio=crop_ratio,
        grey=grey,
        strict=strict,
        progress=progress,
    )
    _check_options(entry, request)
    data = entry.load(request)
    for note in data.notes:
        log.info(note)
    return data


def _check_options(entry: DatasetEntry | DatasetSource, request: DatasetOptions) -> None:
    """Refuse options that this data set does not take.

    Raises:
        UsageError: with the data sets that take it.
    """
    for option, flag, is_set in (
        ("size", " (--images)", request.size is not None),
        ("sampling", "", request.sampling != "split"),
        ("image_size", " (--size)", request.image_size is not None),
        ("fit", "", request.fit != "stretch"),
        ("crop_ratio", "", request.crop_ratio != 1),
        ("grey", " (--grey)", request.grey),
    ):
        if is_set and option not in entry.options:
            entries: list[DatasetEntry | DatasetSource] = [*DATASETS.values(), *PLACES.values()]
            takers = [candidate.name for candidate in entries if option in candidate.options]
            raise UsageError(f"{entry.name} takes no {option}{flag}; it is for {' and '.join(takers)}.")
    if request.image_size is None and (request.fit != "stretch" or request.crop_ratio != 1):
        raise UsageError("fit and crop_ratio say how images are brought to image_size; give image_size too.")


def entry_of(name: str) -> DatasetEntry | DatasetSource:
    """Information on a data set by its name, without loading it.

    >>> entry_of("folder:pets").name
    'folder:PATH'

    Raises:
        UnknownName: unknown data set.
        UsageError: `folder:` or `npz:` without a path.
    """
    prefix, colon, path = name.partition(":")
    if colon and prefix in PLACES:
        if not path:
            raise UsageError(f"{name} names no path; write {PLACES[prefix].name}.")
        return PLACES[prefix]
    if name not in DATASETS:
        scheme = "npz:" if name.endswith(".npz") else "folder:"
        hint = (
            f"Your own is {scheme}{name}." if Path(name).exists() else "Your own is folder:PATH, npz:PATH or hub:PLACE."
        )
        raise UnknownName("data set", name, DATASETS, hint)
    return DATASETS[name]


def at_hand(name: str, *, data_dir: str | Path | None = None) -> bool:
    """Whether a data set can be loaded without a download.

    >>> at_hand("shapes")
    True

    Args:
        name: A data set's name, as in `load_dataset`.
        data_dir: Folder in which to look first for the files of the MNIST family.

    Raises:
        UsageError: unknown data set, or `data_dir` is not a folder.
    """
    entry = entry_of(name)
    if name.startswith("hub:"):
        return is_here(name)
    request = DatasetOptions(name, split="all", data_dir=None if data_dir is None else Path(data_dir).expanduser())
    return name not in FAMILIES or (isinstance(entry, DatasetEntry) and mnist.at_hand(request))
