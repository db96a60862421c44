"""Hub: image data sets in the formats of Hugging Face `datasets`, on disk or by name, memory-mapped or streamed.

Uses that library, which is imported only here; lazy_images.py reads and decodes the images. No code of a data set is
run, and only its labels are loaded completely.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.data.folder_layout import TEST, TRAIN
from convscope.data.lazy_images import BlockShuffle, Encoded, LazyImages, decoded
from convscope.data.npz import LONGEST_NAME, MOST_CLASSES
from convscope.data.options import DatasetOptions, split_indices
from convscope.errors import ConvscopeError, DataError, DownloadError, UnknownName, UsageError
from convscope.escaping import brief, first_few
from convscope.preprocess import Preprocess
from convscope.typing import Array

OPTIONS = ("config", "image", "label", "stream")
LOOKED_AT = 16
"""Number of images that decide whether the data set is grey."""
WINDOW = 1024
"""Size of the shuffle buffer of a stream: encoded images kept in memory."""
LABELS = 10_000
LONGEST_REASON = 300
"""Characters of a library's reason that a message repeats."""
COLUMNS = 20
"""Column names that a message lists."""
FILES = {".parquet": "parquet", ".arrow": "arrow"}
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class HubSplit:
    """One split in the library's form."""

    rows: Any
    labels: NDArray[np.int64]
    """Class numbers; -1 if missing."""


def load_hub(request: DatasetOptions) -> Dataset:
    """Open `hub:PLACE?options`: a folder or file (imagefolder, parquet, arrow, `save_to_disk`), or a name on the Hub.

    Options, joined by `&`: `config=NAME` (a data set's configuration), `image=COLUMN`, `label=COLUMN`, and `stream`,
    which reads parquet files and the Hub as they are used, in order, rather than into a memory-mapped cache.

    Where there is no test split with labels, a fifth of each class, chosen by the seed, is test.

    Returns:
        Images as `Stored`: uint8, read where they are used.

    Raises:
        UsageError: no such option, column or configuration; a place that can be neither a path nor a name.
        DataError: no images, no labels, or some missing; the library is not installed.
        DownloadError: a name that cannot be reached.
    """
    location, options = _parsed(request.name)
    with _understood(request.name, "opened as a data set"):
        result = _open(request.name, location, options)
    with _understood(request.name, "read as a data set"):
        return _loaded(request, location, options, result)


def _loaded(request: DatasetOptions, location: str, options: Mapping[str, str], result: Mapping[str, Any]) -> Dataset:
    """The data set of opened splits."""
    image, label = _columns(request.name, next(iter(result.values())).features, options)
    parts, classes = _labelled(request.name, result, label)
    chosen, indices, notes = _chosen(parts, request)
    labels = np.concatenate([part.labels for part in chosen])
    _check_labels(request, labels if indices is None else labels[indices])
    stored = _stored(request, [part.rows for part in chosen], image, len(labels), stream="stream" in options)
    return Dataset(
        name=request.name,
        images=stored.as_array() if indices is None else stored.subset(indices).as_array(),
        labels=labels if indices is None else labels[indices],
        classes=classes,
        preprocess=Preprocess(stored.shape[2:], stored.shape[1], fit=request.fit, crop_ratio=request.crop_ratio),
        split=request.split,
        source=location,
        notes=notes,
    )


def is_here(name: str) -> bool:
    """Whether `hub:PLACE` is a folder or file of this machine rather than a name on the Hub.

    >>> is_here("hub:owner/name")
    False
    """
    location, _ = _parsed(name)
    return Path(location).expanduser().exists()


def _parsed(name: str) -> tuple[str, dict[str, str]]:
    location, _, query = name.partition(":")[2].partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in OPTIONS:
            raise UnknownName(f"option of {location}", option, OPTIONS)
    return location, options


def _open(name: str, location: str, options: Mapping[str, str]) -> dict[str, Any]:
    """The splits by name."""
    try:
        import datasets  # noqa: PLC0415  # slow, and only needed here
    except ImportError:
        raise DataError("hub: data need Hugging Face datasets: pip install 'convscope[hub]'.") from None
    path = Path(location).expanduser()
    if not path.exists() and (not NAME.fullmatch(location) or path.suffix in FILES):
        raise UsageError(f"there is no folder or file {path}, and {location!r} is not a name on the Hub (OWNER/NAME).")
    more: dict[str, Any] = {"name": options.get("config"), "streaming": "stream" in options}
    try:
        with _quietly(datasets, quiet=path.exists()):
            if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
                result: Any = datasets.load_from_disk(str(path))
            elif path.is_file():
                if path.suffix not in FILES:
                    raise UsageError(f"{path} is a file; hub: takes {' and '.join(FILES)} files, and folders.")
                result = datasets.load_dataset(FILES[path.suffix], data_files=str(path), **more)
            else:
                result = datasets.load_dataset(str(path) if path.exists() else location, **more)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        raise DownloadError(
            f"{name} is not a folder or file here, and cannot be reached by name: {_line(error)}. Check the name and "
            "the connection, or pass the folder of its files."
        ) from None
    return dict(result) if isinstance(result, dict) else {"all": result}


@contextmanager
def _understood(name: str, done: str) -> Iterator[None]:
    """Within it, whatever the library raises for damaged files, a script, or columns of odd types is one sentence.

    Raises:
        DataError: for every exception but ours.
    """
    try:
        yield
    except ConvscopeError:
        raise
    except Exception as error:  # Arrow's, the library's, and those of Python for values of other kinds
        raise DataError(f"{name} cannot be {done}: {_line(error)}.") from error


@contextmanager
def _quietly(datasets: Any, *, quiet: bool) -> Iterator[None]:
    """Within it the library draws no bars, as what is on disk is quickly read, and logs no error that it raises."""
    before, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    if quiet:
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not before:
            datasets.enable_progress_bars()


def _line(error: BaseException) -> str:
    """The first line of the error behind an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return brief(next(iter(str(error).splitlines()), ""), LONGEST_REASON).rstrip(".") or type(error).__name__


def _columns(name: str, features: Mapping[str, Any] | None, options: Mapping[str, str]) -> tuple[str, str]:
    """Names of the columns with the images and their classes."""
    kinds = {column: type(kind).__name__ for column, kind in (features or {}).items()}
    for option in ("image", "label"):
        if option in options and options[option] not in kinds:
            raise UnknownName(f"column of {name}", options[option], kinds)
    images = [column for column, kind in kinds.items() if kind == "Image"]
    images = images or [column for column in ("image", "img") if column in kinds]
    label_columns = [column for column in kinds if column in {"label", "labels", "class"}]
    labels = label_columns or [column for column, kind in kinds.items() if kind == "ClassLabel"]
    for option, result in (("image", images), ("label", labels)):
        if option not in options and len(result) != 1:
            problem = f"several columns that can be the {option}" if result else f"no column that is the {option}"
            joint, listed = "&" if "?" in name else "?", first_few(kinds, COLUMNS)
            raise DataError(f"{name} has {problem}; of {listed}, name it: {name}{joint}{option}=COLUMN.")
    return options.get("image", images[0] if images else ""), options.get("label", labels[0] if labels else "")


def _labelled(name: str, splits: Mapping[str, Any], label: str) -> tuple[dict[str, HubSplit], tuple[str, ...]]:
    """The splits with their class numbers, and the class names."""
    kind = next(iter(splits.values())).features[label]
    columns = {split: list(_values(rows, label)) for split, rows in splits.items()}
    if hasattr(kind, "names"):
        classes, numbers = tuple(kind.names), None
        if not all(isinstance(word, str) for word in classes):
            raise DataError(f"the classes of {name} have names that are not words; correct its features.")
    else:
        present = _present(name, label, kind, columns.values())
        words = any(isinstance(value, str) for value in present)
        highest = 0 if words else int(max(present, default=0))
        if highest >= MOST_CLASSES:
            raise DataError(f"{name} has the label {highest}; class numbers below {MOST_CLASSES:,} are expected.")
        classes = tuple(sorted(present)) if words else tuple(str(k) for k in range(highest + 1))
        numbers = {word: k for k, word in enumerate(classes)} if words else None
    if len(classes) > MOST_CLASSES or max(map(len, classes), default=0) > LONGEST_NAME:
        raise DataError(
            f"{name} has {len(classes):,} classes in up to {max(map(len, classes)):,} characters; at most "
            f"{MOST_CLASSES:,} classes and {LONGEST_NAME:,} characters are taken."
        )
    parts = {}
    for split, rows in splits.items():
        parts[split] = HubSplit(rows, _numbers(columns[split], numbers))
    return parts, classes


def _present(name: str, label: str, kind: Any, columns: Iterable[Sequence[Any]]) -> set[str] | set[int]:
    """The words or integers that a column of classes holds."""
    try:
        present = {value for column in columns for part in column for value in part.unique().to_pylist()} - {None}
        fit = {str} >= set(map(type, present)) or {int, bool} >= set(map(type, present))
    except Exception:  # Arrow has no such function for lists, and lists cannot be in a set
        fit = False
    if not fit:
        held = getattr(kind, "dtype", None) or type(kind).__name__.lower()
        raise DataError(f"the column {label!r} of {name} holds {held}; classes are integers or words.")
    return present


def _values(rows: Any, label: str) -> Iterator[Any]:
    """The column of classes, as Arrow arrays; no image is read."""
    for table in rows.select_columns([label]).with_format("arrow").iter(batch_size=LABELS):
        yield table.column(label).combine_chunks()


def _numbers(column: Sequence[Any], numbers: Mapping[str, int] | None) -> NDArray[np.int64]:
    """Class numbers; -1 for what is missing."""
    if numbers is not None:
        results = [[numbers.get(value, -1) for value in part.to_pylist()] for part in column]
        return np.array([number for part in results for number in part], np.int64)
    arrays = [np.asarray(part.cast("int64").fill_null(-1), np.int64) for part in column]
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _chosen(
    parts: Mapping[str, HubSplit], request: DatasetOptions
) -> tuple[list[HubSplit], NDArray[np.intp] | None, tuple[str, ...]]:
    """The parts of the requested split, the indices of its images (None: all), and notes on assumptions."""
    labelled = {split: part for split, part in parts.items() if (part.labels >= 0).any()} or dict(parts)
    train = next((labelled[split] for split in TRAIN if split in labelled), None)
    if request.split == "all":
        return list(labelled.values()), None, ()
    tests = [labelled[split] for split in TEST if split in labelled]
    test = next((part for part in tests if train is None or np.isin(part.labels, train.labels).any()), None)
    if train is not None and test is not None:
        return [train if request.split == "train" else test], None, ()
    selected = [train] if train is not None else list(labelled.values())
    reason = (
        "its test split has none of the classes of train" if tests and train is not None else "it has no test split"
    )
    note = f"a fifth of each class of {request.name}, chosen by the seed, is held out as the test split: {reason}."
    indices = split_indices(np.concatenate([part.labels for part in selected]), request.split, request.seed)
    return selected, indices, (note,)


def _check_labels(request: DatasetOptions, labels: NDArray[np.int64]) -> None:
    missing = np.flatnonzero(labels < 0)
    if len(missing):
        raise DataError(
            f"{len(missing):,} of {len(labels):,} images of {request.name}:{request.split} have no class, the first is "
            f"image {missing[0]}; remove them, or take another split."
        )


def _stored(request: DatasetOptions, rows: Sequence[Any], image: str, count: int, *, stream: bool) -> LazyImages:
    """The images where they are, of the size and channels that the first ones have."""
    import datasets  # noqa: PLC0415  # it was imported before

    if not count:
        raise DataError(f"{request.name} has no images; a data set needs at least one.")
    table = rows[0] if len(rows) == 1 else datasets.concatenate_datasets(list(rows))
    encoded = table.select_columns([image]).with_format("arrow")

    def read(indices: NDArray[np.intp]) -> list[Encoded]:
        with _understood(request.name, "read"):
            return [_encoded(request.name, row) for row in encoded[indices.tolist()].column(image).to_pylist()]

    def begin(start: int) -> Iterator[Encoded]:
        with _understood(request.name, "read"):
            for rows_read in (encoded.skip(start) if start else encoded).iter(batch_size=64):
                for row in rows_read.column(image).to_pylist():
                    yield _encoded(request.name, row)

    source, window = (BlockShuffle(begin, WINDOW), WINDOW) if stream else (read, None)
    size, channels = _first_images(request, source, count)
    expected = Preprocess(size, channels, fit=request.fit, crop_ratio=request.crop_ratio)
    resize = request.image_size is not None
    return LazyImages(
        request.name, source, count, expected, window=window, resize=resize, grey=request.grey, strict=request.strict
    )


def _first_images(request: DatasetOptions, source: Any, count: int) -> tuple[tuple[int, int], int]:
    """The height, width and channels that a data set's images have, judged by the first that can be read."""
    first: list[Array] = []
    error: DataError | None = None
    for start in range(0, count, LOOKED_AT):
        indices = np.arange(start, min(start + LOOKED_AT, count))
        for index, item in zip(indices, source(indices), strict=True):
            try:
                first.append(decoded(item, f"image {index} of {request.name}"))
            except DataError as this:
                error = error or this
        if first or (error and request.strict):
            break
    if error and (request.strict or not first):
        raise error if request.strict else DataError(f"no image of {request.name} can be read. {error}")
    height, width = first[0].shape[1:]
    return request.image_size or (height, width), 1 if request.grey else max(image.shape[0] for image in first)


def _encoded(name: str, row: Any) -> Encoded:
    """An image's bytes, or its file, from what its row holds; None where that is neither."""
    if isinstance(row, bytes):
        return row
    if isinstance(row, dict) and isinstance(row.get("bytes"), bytes):
        return row["bytes"]  # type: ignore[no-any-return]  # just checked
    path = row.get("path") if isinstance(row, dict) else row
    if not path or not isinstance(path, str):
        return None
    if "://" not in path:
        return Path(path)
    if not path.startswith("hf://") or "::" in path:  # which chains other protocols
        raise DataError(f"an image of {name} is stored at {path}; convscope reads only files here and on the Hub.")
    import fsspec  # noqa: PLC0415  # comes with datasets

    with fsspec.open(path) as file:
        return file.read()  # type: ignore[no-any-return]  # opened for bytes
