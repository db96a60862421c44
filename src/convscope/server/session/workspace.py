"""Gallery: everything that is open in the explorer: models, data sources, images that people gave.

Knows where they come from; what is made of them is in `traces`.
"""

import hashlib
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock, RLock, Thread
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import schema
from convscope.server.jobs.workers import Workers
from convscope.server.session import inputs, uploads
from convscope.server.session.data_sources import DataSources
from convscope.server.session.inputs import Picture
from convscope.server.session.model_handle import ModelHandle, lacks_shapes
from convscope.server.traces.passes import TERMS, TraceStore

KEPT_BYTES = 100_000_000
"""Of images that people gave; the oldest go first."""


class Workspace:
    """What is open. Routes find it as `app.state.gallery`.

    >>> Workspace().session().models
    []
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self.sources_known = DataSources(data_dir)
        self.traces = TraceStore()
        self.workers = Workers()
        self._models: dict[str, ModelHandle] = {}
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._folder: Path | None = None
        self._lock = Lock()
        self._adding = RLock()
        """Held while runs are added, so that none is found twice."""
        self._imports = Thread(target=_get_ready, name="convscope imports", daemon=True)
        self._imports.start()

    @classmethod
    def of_model(cls, model: Any, image: Any = None, *, data_dir: Path | None = None) -> Self:
        """One model, and the image to begin with.

        Args:
            model: What `cs.load_model` gave, or any other model.
            image: As `cs.load_image` takes it; None begins with a sample or with noise.
            data_dir: Where the files of the MNIST family are looked for first.

        Raises:
            ConvscopeError: the image cannot be read or does not fit.
        """
        gallery = cls(data_dir)
        gallery.open(model, image)
        return gallery

    @classmethod
    def of_folder(cls, folder: str | Path, *, data_dir: Path | None = None) -> Self:
        """All runs of a folder, those that come into it later too; or the one run that it is.

        Args:
            folder: It need not exist yet.
            data_dir: Where the files of the MNIST family are looked for first.

        Raises:
            UsageError: it is a file.
        """
        gallery = cls(data_dir)
        gallery._folder = Path(os.path.realpath(Path(folder).expanduser()))
        if gallery._folder.is_file():
            raise cs.UsageError(f"{folder} is a file; name the folder that has the runs.")
        gallery._look_for_runs()
        return gallery

    def open(self, model: Any, image: Any = None) -> str:
        """Add a model of this session; its id."""
        card = cs.card_of(model)
        run = _run_of(card.source)
        with self._lock:
            opened = ModelHandle(self._new_id(run.path.name if run else card.name), card.name, given=model, run=run)
            self._models[opened.id] = opened
        opened.source = self._source_of(opened)
        if image is None:
            opened.start = self._start(opened)
        else:
            given = cs.prepare_inputs(image, like=model, data_dir=self.sources_known.data_dir)
            opened.start = self._keep_inputs(given, card)
        if lacks_shapes(model):
            cs.trace(model, self.picture(opened.start).given)
        return opened.id

    def add_run(self, id: str, path: Path) -> None:  # noqa: A002 - what the page calls it
        """Add a run folder; its newest weights are read whenever they are asked for.

        Raises:
            RunError: it is none.
        """
        with self._adding:
            run = cs.load_run(os.path.realpath(path))
            opened = ModelHandle(id, run.path.name, run=run)
            opened.source = self.sources_known.of_run(id, run.config)
            opened.start = self._sample(opened.source)
            with self._lock:
                self._models[id] = opened

    def opened(self) -> list[ModelHandle]:
        """Every model that is open."""
        self._look_for_runs()
        return list(self._models.values())

    def has_model(self, id: str) -> bool:  # noqa: A002
        """Whether a model has this id."""
        return id in self._models

    def model(self, id: str) -> ModelHandle:  # noqa: A002
        """A model by its id.

        Raises:
            HTTPException: 404, none has it.
        """
        if id not in self._models:
            self._look_for_runs()
        if id not in self._models:
            there = ", ".join(list(self._models)[:20]) or "none"
            raise HTTPException(404, f"no model that is open is called {id!r}; there are: {there}.")
        return self._models[id]

    def given(self) -> list[ModelHandle]:
        """The models of this session; those of runs are not loaded before they are looked at."""
        return [opened for opened in list(self._models.values()) if opened.given is not None]

    def sources(self) -> list[schema.SourceInfo]:
        """The data sources."""
        return self.sources_known.infos()

    def training_data(self, id: str) -> tuple[str, Mapping[str, Any]]:  # noqa: A002
        """What `cs.train` is called with for a source: the data set's name and its `data_options`.

        Raises:
            HTTPException: 404, no source has this id.
        """
        source = self.sources_known.find(id)
        return source.data, {name: str(v) if isinstance(v, Path) else v for name, v in source.options.items()}

    def keep(self, name: str, pixels: NDArray[Any], notes: tuple[str, ...] = ()) -> schema.Stored:
        """Keep an image that somebody gave.

        Args:
            name: What it is called.
            pixels: From 0 to 255, shape (C, H, W), as `cs.read_image` gives them.
            notes: What a person should know about it.
        """
        picture = Picture(_clean(name), pixels, notes=notes)
        channels, height, width = pixels.shape
        return schema.Stored(
            id=self._remember(picture),
            name=picture.name,
            height=height,
            width=width,
            channels=channels,
            notes=list(notes),
        )

    def picture(self, ref: schema.InputRef) -> Picture:
        """The image that a page names or paints.

        Raises:
            HTTPException: 404, there is no such sample, or the server forgot the upload; 422, no pixels.
        """
        match ref:
            case schema.SampleRef():
                return self.sources_known.picture(ref)
            case schema.PixelsRef():
                return inputs.painted(ref)
            case schema.StoredRef():
                with self._lock:
                    if ref.id not in self._kept:
                        raise HTTPException(404, "this server does not have that image any more; upload it again.")
                    self._kept.move_to_end(ref.id)
                    return self._kept[ref.id]

    def session(self, *, can_train: bool = False) -> schema.Session:
        """Everything that is open, as the page is told; whether the server can train, it knows itself."""
        self._look_for_runs()
        models = [opened.info() for opened in list(self._models.values())]
        kernels = [
            schema.KernelInfo(name=f.name, what=f.finds, values=f.kernel.tolist()) for f in cs.filters.FILTERS.values()
        ]
        return schema.Session(
            version=cs.__version__,
            models=models,
            sources=self.sources(),
            kernels=kernels,
            limits=schema.Limits(upload_bytes=uploads.MAX_BYTES, upload_pixels=uploads.MAX_PIXELS, terms=TERMS),
            can_train=can_train,
        )

    def close(self) -> None:
        """Begin no more work, and leave no import half done."""
        self.workers.close()
        self._imports.join()

    def _look_for_runs(self) -> None:
        """Add the runs that are new in the folder, and anew those that were replaced."""
        if self._folder is None:
            return
        with self._adding:
            known = {opened.run.path: opened for opened in list(self._models.values()) if opened.run is not None}
            for config in sorted([*self._folder.glob("config.json"), *self._folder.glob("*/config.json")]):
                path = config.parent.resolve()  # a link to a run is that run
                there = known.get(path)
                if there is None or there.replaced:
                    name = self._new_id(path.name) if there is None else there.id
                    with suppress(cs.ConvscopeError):  # a folder with another config.json, or a run just being made
                        self.add_run(name, path)
                        known[path] = self._models[name]

    def _source_of(self, opened: ModelHandle) -> str | None:
        """The data source whose samples suit a model."""
        if opened.run is not None:
            return self.sources_known.of_run(opened.id, opened.run.config)
        card = cs.card_of(opened.given)
        entry = cs.MODELS.get(card.source)
        names = entry.data if entry else ()
        expected = card.preprocess
        known = self.sources()
        fits = [
            s.id
            for s in known
            if (s.channels, (s.height, s.width)) == (expected.channels, expected.size)
            and len(s.classes) == len(card.classes or s.classes)
        ]
        return next((name for name in (*names, *fits) if name in {s.id for s in known}), None)

    def _start(self, opened: ModelHandle) -> schema.InputRef:
        sample = self._sample(opened.source)
        if sample is not None:
            return sample
        noise = cs.prepare_inputs(cs.random_inputs(opened.given), like=opened.given)
        return self._keep_inputs(noise, cs.card_of(opened.given), "noise")

    def _sample(self, source: str | None) -> schema.SampleRef | None:
        return None if source is None else schema.SampleRef(source=source, split="test", index=0)

    def _keep_inputs(self, given: Any, card: Any, name: str = "") -> schema.StoredRef:
        """Keep what a model of this session is given."""
        if given.prepared is not None:
            return self._keep_prepared(given.prepared, card.preprocess, name)
        notes = (*given.notes, given.described(card))
        shown = _clean(name or given.name)
        picture = Picture(shown, given.picture, 1.0, exact=True, notes=notes, inputs=given.value)
        return schema.StoredRef(id=self._remember(picture))

    def _keep_prepared(self, prepared: Any, expected: cs.Preprocess, name: str = "") -> schema.StoredRef:
        fits = expected.size is not None or max(prepared.array.shape[1:]) <= inputs.LARGEST
        picture = Picture(
            _clean(name or prepared.name),
            prepared.picture,
            1.0,
            label=prepared.label,
            exact=True,
            notes=prepared.notes,
            ready=prepared.array if fits else None,
            ready_for=expected,
        )
        return schema.StoredRef(id=self._remember(picture))

    def _remember(self, picture: Picture) -> str:
        """Keep an image under a digest of its pixels, as long as there is room."""
        digest = hashlib.sha256(f"{picture.name} {picture.pixels.shape} {picture.white}".encode())
        digest.update(np.ascontiguousarray(picture.pixels).data)
        if picture.inputs is not None:  # different ones may look the same
            digest.update(pickle.dumps(picture.inputs))
        name = f"i{digest.hexdigest()[:24]}"
        with self._lock:
            self._kept[name] = picture
            self._kept.move_to_end(name)
            pinned = {o.start.id for o in self._models.values() if isinstance(o.start, schema.StoredRef)} | {name}
            for old in [key for key in self._kept if key not in pinned]:
                if sum(p.pixels.nbytes for p in self._kept.values()) > KEPT_BYTES:
                    del self._kept[old]
        return name

    def _new_id(self, name: str) -> str:
        """An id for a model of this name; the lock is held or nobody else adds."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:60] or "model"
        number, found = 1, plain
        while found in self._models:
            number += 1
            found = f"{plain}.{number}"
        return found


def _get_ready() -> None:
    """Import what the first click needs, while nobody waits for it."""
    _ = cs.interpret, cs.trace, cs.explain


def _run_of(source: str) -> cs.Run | None:
    """The run that a model was loaded from, if it was."""
    if not source or source in cs.MODELS or not (Path(source) / "config.json").is_file():
        return None
    try:
        return cs.load_run(os.path.realpath(source))
    except cs.ConvscopeError:
        return None


def _clean(name: str) -> str:
    """A name without what cannot be shown, and not too long."""
    return "".join(c for c in name if c.isprintable())[:120].strip() or "picture"
