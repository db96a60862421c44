"""Data sources: the data sets whose images the page shows, loaded on first use.

Loads data sets with `cs.load_dataset`; knows nothing of models and requests.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.session.inputs import Picture
from convscope.server.session.schema import SampleRef, SourceInfo

SHOWN = ("shapes", "color-shapes", "crosses", "mnist", "fashion-mnist", "kmnist")
"""The built-in data sets that are offered; those of the MNIST family only if their files are on this machine."""
LOADED = 4
"""Maximum number of splits kept in memory."""


@dataclass(frozen=True, eq=False)
class DataSource:
    """A data set, described by the arguments of `cs.load_dataset`."""

    id: str
    data: str
    """The data set's name for `cs.load_dataset`: `shapes`, `folder:PATH`."""
    name: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    loading: Lock = field(default_factory=Lock, repr=False)
    """Lock held while images are loaded, so that they are loaded only once."""

    def load(self, split: str) -> cs.Dataset:
        """All images of a split."""
        options = dict(self.options)
        if split != "train":
            options.pop("size", None)
        return cs.load_dataset(self.data, split=split, seed=self.seed, **options)


class DataSources:
    """The data sets by id, with a cache of their splits."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self.data_dir = data_dir
        self._lock = Lock()
        self._known: dict[str, DataSource] = {}
        self._infos: dict[str, SourceInfo] = {}
        self._loaded: OrderedDict[tuple[str, str], cs.Dataset] = OrderedDict()
        for name in SHOWN:
            if cs.at_hand(name, data_dir=data_dir):
                options = (
                    {} if data_dir is None or name in {"shapes", "color-shapes", "crosses"} else {"data_dir": data_dir}
                )
                self.add(DataSource(name, name, name, options=options))

    def add(self, source: DataSource) -> None:
        """Register a data set, and compute its description for the page once.

        Raises:
            ConvscopeError: it cannot be loaded.
        """
        with self._lock:
            for key in [
                key for key in self._loaded if key[0] == source.id
            ]:  # cached data of a former source of this id
                del self._loaded[key]
        self._infos[source.id] = self._info(source)
        self._known[source.id] = source

    def find(self, id: str) -> DataSource:  # noqa: A002 - the name in the API
        """A source by its id.

        Raises:
            HTTPException: 404, unknown id.
        """
        if id not in self._known:
            raise HTTPException(404, f"unknown data source {id!r}; available: {', '.join(self._known)}.")
        return self._known[id]

    def count(self, id: str | None, split: str | None) -> int:  # noqa: A002
        """Number of images of a split; 0 if there is no such split."""
        return 0 if id is None or split is None else self._infos[id].splits.get(split, 0)

    def of_run(self, id: str, run: cs.Run) -> str | None:  # noqa: A002
        """The id of the data set a run was trained on; None if it was an object in memory or cannot be read."""
        data = run.config["dataset"]
        if data["source"] is None:
            return None
        options, seed = dict(data["options"]), data["seed"]
        key = (data["source"], seed, _image_options(options))
        for source in list(self._known.values()):
            if (source.data, source.seed, _image_options(source.options)) == key:
                return source.id
        try:
            if not cs.at_hand(data["source"], data_dir=data["options"].get("data_dir")):
                return None
            source = DataSource(f"{id}.data", data["source"], self._menu_name(data["name"], seed, id), seed, options)
            self.add(source)
        except (cs.ConvscopeError, OSError, TypeError):
            return None
        return source.id

    def _menu_name(self, name: str, seed: int, run: str) -> str:
        """The name of a run's data in menus, made distinct from other data of the same name."""
        same = [s for s in list(self._known.values()) if name in {s.name, s.name.rpartition(" (")[0]}]
        if not same:
            return name
        return f"{name} ({'' if all(s.seed == seed for s in same) else f'seed {seed}, '}of {run})"

    def split(self, id: str, split: str) -> cs.Dataset:  # noqa: A002
        """All images of a split, cached if they were used recently."""
        return self._split(self.find(id), split)

    def _split(self, source: DataSource, split: str) -> cs.Dataset:
        key = (source.id, split)
        with source.loading:
            data = self._loaded.get(key) or source.load(split)
            with self._lock:
                self._loaded[key] = data
                self._loaded.move_to_end(key)
                while len(self._loaded) > LOADED:
                    self._loaded.popitem(last=False)
        return data

    def picture(self, ref: SampleRef) -> Picture:
        """An image of a data set.

        Raises:
            HTTPException: 404, the data set has no such image.
        """
        data = self.split(ref.source, ref.split)
        if ref.index >= len(data):
            raise HTTPException(
                404, f"{data.name}:{ref.split} has images 0 to {len(data) - 1}; there is no image {ref.index}."
            )
        name = f"{data.name}:{data.names[ref.index]}" if data.names else f"{data.name}:{ref.split}/{ref.index}"
        return Picture(
            name,
            data.images[ref.index],
            data.preprocess.scale,
            label=int(data.labels[ref.index]),
            classes=data.classes,
            background=data.preprocess.background,
        )

    def infos(self) -> list[SourceInfo]:
        """The descriptions of all data sources."""
        return list(self._infos.values())

    def _info(self, source: DataSource) -> SourceInfo:
        """The description of a data source; built-in data sets are described without loading them."""
        entry = cs.DATASETS.get(source.data)
        if entry is not None and not source.options.get("size"):
            splits, classes, shape = dict(entry.sizes), entry.classes, entry.shape
            if entry.options:  # generated: "all" would be every possible image
                splits = {split: n for split, n in splits.items() if split != "all"}
        else:
            parts = {split: self._split(source, split) for split in ("train", "test")}
            splits = {split: len(data) for split, data in parts.items()}
            classes, shape = parts["train"].classes, parts["train"].shape
        channels, height, width = shape
        return SourceInfo(
            id=source.id,
            name=source.name,
            splits=splits,
            classes=list(classes),
            channels=channels,
            height=height,
            width=width,
            trainable=len(classes) > 1,
        )


def _image_options(options: Mapping[str, object]) -> dict[str, object]:
    """The options that determine the images."""
    return {name: value for name, value in options.items() if name != "data_dir"}
