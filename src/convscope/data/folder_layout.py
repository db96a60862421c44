"""Folder layout: which folders of a downloaded data set are its splits and which its classes. Uses names and folders.

What is clear is read and, where it is not the plain form, said; what could be read in two ways is refused with the
option that decides.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from convscope.errors import DataError, UnknownName, UsageError

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")  # the first that exists is the test split
TRAIN_WORDS = {*TRAIN, "trainset", "trainval"}
TEST_WORDS = {*TEST, "testset", "valset", "eval", "evaluation", "dev"}
OPTIONS = ("splits", "train", "test")
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # what Pillow recognizes and cannot decode by itself


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """The class folders of each split."""

    train: tuple[Path, ...] = ()
    """Folders that hold a sub-folder for each class; empty where the data set has no splits of its own."""
    test: tuple[Path, ...] = ()
    whole: tuple[Path, ...] = ()
    """Those of all images."""
    notes: tuple[str, ...] = ()
    """The assumptions that were made."""
    warnings: tuple[str, ...] = ()
    """The unused images of the folder, and why."""

    def classes(self) -> tuple[str, ...]:
        """The names of all classes, sorted."""
        return tuple(sorted({folder.name for part in self.whole for folder in subfolders(part)}))


def layout_of(root: Path, options: Mapping[str, str]) -> FolderLayout:
    """The layout of a folder of images.

    Args:
        root: The folder.
        options: `train` and `test` name its splits; `splits=none` makes its sub-folders the classes.

    Raises:
        UsageError: an option names a folder that does not exist.
        DataError: two readings are possible, or none.
    """
    if options.get("splits", "none") != "none":
        raise UnknownName("value of splits", options["splits"], ("none",), "Or name them: train=FOLDER&test=FOLDER.")
    if "splits" in options:
        return FolderLayout(whole=(root,))
    if "train" in options or "test" in options:
        return _named(root, options)
    inner = _unwrapped(root)
    for base in dict.fromkeys((root, inner)):
        result = _by_names(base)
        if result is not None:
            return result if base == root else _inside(result, base, root)
    _check_levels(inner)
    return FolderLayout(whole=(root,)) if inner == root else _inside(FolderLayout(whole=(inner,)), inner, root)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and those of programs are passed over."""
    return sorted(folder / entry.name for entry in _entries(folder) if _is_folder(entry))


def pictures_in(folder: Path) -> Iterator[Path]:
    """The image files of a folder, at any depth, by name and in no order; hidden ones are passed over."""
    return (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in extensions()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder from one listing, so that a million files need no call each."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}.") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith((".", "__"))
    except OSError:  # a link to itself
        return False


@cache
def extensions() -> frozenset[str]:
    """The extensions of image files, including formats that are not read: those are reported as skipped."""
    registered = Image.registered_extensions()
    return frozenset(end for end, kind in registered.items() if kind in Image.OPEN and kind not in NO_PICTURES)


def _named(root: Path, options: Mapping[str, str]) -> FolderLayout:
    parts: dict[str, tuple[Path, ...]] = {}
    for split in ("train", "test"):
        folder = root / options[split] if split in options else None
        if folder is not None and not folder.is_dir():
            raise UsageError(f"there is no folder {folder} for {split}={options[split]}; check its name.")
        parts[split] = () if folder is None else (folder,)
    all_folders = (*parts["train"], *parts["test"])
    notes = () if parts["test"] else (_held_out(parts["train"][0], "no test= is given"),)
    return FolderLayout(parts["train"], parts["test"], all_folders, notes)


def _unwrapped(root: Path) -> Path:
    """The folder that others merely wrap: `pets/pets/cat`, `pets/pets/dog`; the folder itself where none does."""
    folder = root
    while len(inner := subfolders(folder)) == 1 and not _has_loose_pictures(folder):
        folder = inner[0]
    return folder if len(inner) > 1 else root


def _has_loose_pictures(folder: Path) -> bool:
    return any(Path(entry.name).suffix.lower() in extensions() for entry in _entries(folder) if not _is_folder(entry))


def _inside(layout: FolderLayout, base: Path, root: Path) -> FolderLayout:
    note = f"the data set is read from {base.relative_to(root)}/, the only folder in {root}"
    return FolderLayout(layout.train, layout.test, layout.whole, (note, *layout.notes), layout.warnings)


def _by_names(root: Path) -> FolderLayout | None:
    """The layout if sub-folders are named like splits and contain class folders; else None.

    Raises:
        DataError: it is not clear which is the training split, or whether the others are classes.
    """
    folders = subfolders(root)
    split_named = [folder for folder in folders if _is(folder, TRAIN_WORDS | TEST_WORDS)]
    labelled = {folder: base for folder in split_named if subfolders(base := _unwrapped(folder))}
    train = [folder for folder in labelled if _is(folder, TRAIN_WORDS)]
    test = [folder for folder in folders if folder not in train and _is(folder, TEST_WORDS)]
    other_folders = [folder for folder in folders if folder not in (*train, *test)]
    if not train:
        only_test = test and not other_folders and all(folder in labelled for folder in test)
        return _test_alone(root, [labelled[folder] for folder in _ranked(test)]) if only_test else None
    plain = [folder for folder in _ranked(train, TRAIN) if folder.name.lower() in TRAIN]
    if len(train) > 1 and len(plain) != len(train):
        folder_names = " and ".join(f"{folder.name}/" for folder in train)
        raise _two_readings(root, f"{folder_names} could each be the training split", train[0])
    first = plain[0] if plain else train[0]
    classes = {folder.name for folder in subfolders(labelled[first])}
    matching = [f for f in test if f in labelled and classes & {inner.name for inner in subfolders(labelled[f])}]
    used = [folder for folder in other_folders if any(pictures_in(folder))]
    if used and not matching:
        if len(classes) == 1:
            return None
        reason = f"{first.name}/ is called like a training split, and {used[0].name}/ beside it has pictures too"
        raise _two_readings(root, reason, first)
    return _split(root, labelled, (first, plain[1:]), (test, _ranked(matching)), (other_folders, used))


def _split(
    root: Path,
    labelled: Mapping[Path, Path],
    train: tuple[Path, Sequence[Path]],
    test: tuple[Sequence[Path], Sequence[Path]],
    others: tuple[Sequence[Path], Sequence[Path]],
) -> FolderLayout:
    """The layout of a training split and what is beside it.

    Args:
        root: The folder.
        labelled: Folders called like splits -> where their class folders are.
        train: The training split, and others that belong to all images.
        test: The folders called like test splits, and those of them with the classes of the training split.
        others: The folders beside them, and those of them with pictures.
    """
    chosen = [train[0], *test[1][:1]]
    unused = [folder for folder in test[0] if folder not in test[1] and any(pictures_in(folder))]
    plain = all(folder.name.lower() in {*TRAIN, *TEST} and labelled[folder] == folder for folder in chosen)
    notes, warnings = [], []
    if not plain or others[0] or (unused and test[1]):
        split_folders = [f"{labelled[folder].relative_to(root)}/" for folder in chosen]
        ignored = f"; passed over: {', '.join(f'{folder.name}/' for folder in others[0])}" if others[0] else ""
        tested = f", the test split from {split_folders[1]}" if len(split_folders) > 1 else ""
        notes.append(f"the training split is read from {split_folders[0]}{tested}{ignored}")
    if others[1]:
        names = ", ".join(f"{folder.name}/" for folder in others[1])
        warnings.append(f"{root} has pictures in {names}, which are not used: they are in neither split")
    like = f"class folders such as those of {train[0].name}/"
    warnings += [f"the pictures of {folder} are not used: they are not in {like}" for folder in unused]
    if not test[1]:
        reason = f"{unused[0].name}/ has no class folders like it" if unused else "no test/ or val/ is beside it"
        notes.append(_held_out(train[0], reason))
    all_folders = [labelled[folder] for folder in (train[0], *train[1], *test[1])]
    tests = tuple(labelled[folder] for folder in test[1][:1])
    return FolderLayout((labelled[train[0]],), tests, tuple(sorted(all_folders)), tuple(notes), tuple(warnings))


def _held_out(train: Path, reason: str) -> str:
    return f"a fifth of each class of {train.name}/, chosen by the seed, is held out as the test split: {reason}"


def _test_alone(root: Path, parts: Sequence[Path]) -> FolderLayout:
    return FolderLayout((), tuple(parts[:1]), tuple(sorted(parts)), (f"{root} has a test split and no training split",))


def _is(folder: Path, words: set[str]) -> bool:
    return bool(words & set(re.findall(r"[^\W\d_]+", folder.name.lower())))


def _ranked(folders: Sequence[Path], names: Sequence[str] = TEST) -> list[Path]:
    """In the order in which splits are preferred: test before val."""

    def rank(folder: Path) -> int:
        return next((rank_index for rank_index, name in enumerate(names) if name in folder.name.lower()), len(names))

    return sorted(folders, key=rank)


def _check_levels(root: Path) -> None:
    """Refuse folders that all hold the same folders: either could be the classes."""
    folders = subfolders(root)
    if any(_has_loose_pictures(folder) for folder in folders):
        return
    counts = Counter(inner.name for folder in folders for inner in subfolders(_unwrapped(folder)))
    same = sorted(name for name, count in counts.items() if count > 1)
    if len(same) > 1:
        raise DataError(
            f"{root} has the folders {_few([folder.name for folder in folders])}, which hold folders of the same names "
            f"({_few(same)}): either could be the classes. Name one of the former as folder:PATH, or two as splits, "
            f"folder:{root}?train=FOLDER&test=FOLDER, or take them as the classes by folder:{root}?splits=none."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def _two_readings(root: Path, reason: str, train: Path) -> DataError:
    return DataError(
        f"the layout of {root} can be read in two ways: {reason}. Name the splits, folder:{root}?train={train.name} or "
        f"with &test=FOLDER, or make all folders the classes by folder:{root}?splits=none."
    )
