"""Sources: the data sets whose images are shown, loaded when they are first asked for.

Knows data sets by `cs.load_dataset`; no models, no requests.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import schema
from convscope.server.session.inputs import Picture

SHOWN = ("shapes", "color-shapes", "crosses", "mnist", "fashion-mnist", "kmnist")
"""Of the data sets that come with convscope; those of the MNIST family where their files are here already."""
LOADED = 4
"""Splits that are held in memory at once."""


@dataclass(frozen=True, eq=False)
class DataSource:
    """A data set by what `cs.load_dataset` is called with."""

    id: str
    data: str
    """Its name for `cs.load_dataset`: `shapes`, `folder:PATH`."""
    name: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    loading: Any = field(default_factory=Lock, repr=False)
    """Held while images are loaded, so that this is done once."""

    def load(self, split: str) -> cs.Dataset:
        """All images of a split."""
        given = dict(self.options)
        if split != "train":
            given.pop("size", None)
        return cs.load_dataset(self.data, split=split, seed=self.seed, **given)


class DataSources:
    """The data sets by id, and what of them is in memory."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self.data_dir = data_dir
        self._lock = Lock()
        self._known: dict[str, DataSource] = {}
        self._infos: dict[str, schema.SourceInfo] = {}
        self._loaded: OrderedDict[tuple[str, str], cs.Dataset] = OrderedDict()
        for name in SHOWN:
            if cs.at_hand(name, data_dir=data_dir):
                options = (
                    {} if data_dir is None or name in {"shapes", "color-shapes", "crosses"} else {"data_dir": data_dir}
                )
                self.add(DataSource(name, name, name, options=options))

    def add(self, source: DataSource) -> None:
        """Let a data set be known; what the page is told of it is found out here, once.

        Raises:
            ConvscopeError: it cannot be loaded.
        """
        with self._lock:
            for key in [key for key in self._loaded if key[0] == source.id]:  # of other data that were called so
                del self._loaded[key]
        self._infos[source.id] = self._info(source)
        self._known[source.id] = source

    def find(self, id: str) -> DataSource:  # noqa: A002 - what the page calls it
        """A source by its id.

        Raises:
            HTTPException: 404, there is none.
        """
        if id not in self._known:
            raise HTTPException(404, f"no data source is called {id!r}; there are {', '.join(self._known)}.")
        return self._known[id]

    def count(self, id: str | None, split: str | None) -> int:  # noqa: A002
        """How many images a split has; 0 where there is none."""
        return 0 if id is None or split is None else self._infos[id].splits.get(split, 0)

    def of_run(self, id: str, config: Mapping[str, Any]) -> str | None:  # noqa: A002
        """The id of the data set that a run was trained on; None where it was given by hand or cannot be read."""
        data = config["dataset"]
        if data["source"] is None:
            return None
        options, seed = dict(data["options"]), data["seed"]
        asked = (data["source"], seed, _drawn(options))
        for known in list(self._known.values()):
            if (known.data, known.seed, _drawn(known.options)) == asked:
                return known.id
        try:
            if not cs.at_hand(data["source"], data_dir=options.get("data_dir")):
                return None
            source = DataSource(f"{id}.data", data["source"], self._called(data["name"], seed, id), seed, options)
            self.add(source)
        except (cs.ConvscopeError, OSError, TypeError):
            return None
        return source.id

    def _called(self, name: str, seed: int, run: str) -> str:
        """A run's data as a menu lists them: with what tells them from others of the same name."""
        same = [s for s in list(self._known.values()) if name in {s.name, s.name.rpartition(" (")[0]}]
        if not same:
            return name
        return f"{name} ({'' if all(s.seed == seed for s in same) else f'seed {seed}, '}of {run})"

    def split(self, id: str, split: str) -> cs.Dataset:  # noqa: A002
        """All images of a split, from memory where they were used lately."""
        return self._split(self.find(id), split)

    def _split(self, source: DataSource, split: str) -> cs.Dataset:
        key = (source.id, split)
        with source.loading:
            found = self._loaded.get(key) or source.load(split)
            with self._lock:
                self._loaded[key] = found
                self._loaded.move_to_end(key)
                while len(self._loaded) > LOADED:
                    self._loaded.popitem(last=False)
        return found

    def picture(self, ref: schema.SampleRef) -> Picture:
        """An image of a data set.

        Raises:
            HTTPException: 404, the data set has no such image.
        """
        data = self.split(ref.source, ref.split)
        if ref.index >= len(data):
            raise HTTPException(
                404, f"{data.name}:{ref.split} has images 0 to {len(data) - 1}, and image {ref.index} was asked for."
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

    def infos(self) -> list[schema.SourceInfo]:
        """All of them, as the page is told."""
        return list(self._infos.values())

    def _info(self, source: DataSource) -> schema.SourceInfo:
        """One of them: what comes with convscope is known without loading it."""
        entry = cs.DATASETS.get(source.data)
        if entry is not None and not source.options.get("size"):
            splits, classes, shape = dict(entry.sizes), entry.classes, entry.shape
            if entry.options:  # drawn: "all" is every image that is possible
                splits = {split: n for split, n in splits.items() if split != "all"}
        else:
            parts = {split: self._split(source, split) for split in ("train", "test")}
            splits = {split: len(data) for split, data in parts.items()}
            classes, shape = parts["train"].classes, parts["train"].shape
        channels, height, width = shape
        return schema.SourceInfo(
            id=source.id,
            name=source.name,
            splits=splits,
            classes=list(classes),
            channels=channels,
            height=height,
            width=width,
            trainable=len(classes) > 1,
        )


def _drawn(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide which images there are."""
    return {name: value for name, value in options.items() if name != "data_dir"}
