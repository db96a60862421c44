"""The workspace: everything that is open in the explorer: models, data sources, uploaded images.

The forward passes made from them are in `traces`.
"""

import hashlib
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock, RLock
from typing import Self

import numpy as np
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.jobs import Workers
from convscope.server.session import inputs, uploads
from convscope.server.session.data_sources import DataSources
from convscope.server.session.inputs import Picture
from convscope.server.session.model_handle import ModelHandle, lacks_shapes
from convscope.server.session.schema import (
    InputRef,
    KernelInfo,
    Limits,
    PixelsRef,
    SampleRef,
    Session,
    SourceInfo,
    Stored,
    StoredRef,
)
from convscope.server.traces.passes import TERMS, TraceStore
from convscope.typing import Array

KEPT_BYTES = 100_000_000
"""Memory limit of uploaded images; the least recently used are dropped first."""
DESIGNS = 20
"""Maximum number of open networks that were designed on the page."""


class Workspace:
    """Everything that is open. Routes access it as `app.state.gallery`.

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
        self._designs: OrderedDict[str, str] = OrderedDict()
        """Name -> id of the networks that were designed on the page, the least recently opened first."""
        self._designing = Lock()
        """Lock held while one of them is built, so that none is built twice."""
        self._lock = Lock()
        self._adding = RLock()
        """Lock held while runs are added, so that none is added twice."""
        _import_all()

    @classmethod
    def of_model(cls, model: cs.Module, image: object = None, *, data_dir: Path | None = None) -> Self:
        """A workspace with one model and its first input.

        Args:
            model: A model from `cs.load_model`, or any other module.
            image: As `cs.load_image` accepts it; None starts with a sample of the model's data, or with noise.
            data_dir: Folder searched first for the files of the MNIST family.

        Raises:
            ConvscopeError: the image cannot be read or does not fit.
        """
        workspace = cls(data_dir)
        workspace.open(model, image)
        return workspace

    @classmethod
    def of_folder(cls, folder: str | Path, *, data_dir: Path | None = None) -> Self:
        """A workspace with all runs of a folder, including those added later, or with the folder as a single run.

        Args:
            folder: The folder; it need not exist yet.
            data_dir: Folder searched first for the files of the MNIST family.

        Raises:
            UsageError: `folder` is a file.
        """
        workspace = cls(data_dir)
        workspace._folder = Path(os.path.realpath(Path(folder).expanduser()))
        if workspace._folder.is_file():
            raise cs.UsageError(f"{folder} is a file; give the folder that contains the runs.")
        workspace._look_for_runs()
        return workspace

    def open(self, model: cs.Module, image: object = None) -> str:
        """Add a model of this session; returns its id."""
        card = cs.card_of(model)
        run = _run_of(card.source)
        with self._lock:
            opened = ModelHandle(
                self._new_id(run.path.name if run else card.name), card.name, session_model=model, run=run
            )
            self._models[opened.id] = opened
        opened.source = self._source_of(opened)
        if image is None:
            opened.start = self._start(opened)
        else:
            prepared = cs.prepare_inputs(image, like=model, data_dir=self.sources_known.data_dir)
            opened.start = self._keep_inputs(prepared, card)
        if lacks_shapes(model):
            cs.trace(model, self.picture(opened.start).model_input)
        return opened.id

    def add_run(self, id: str, path: Path) -> None:  # noqa: A002 - the name in the API
        """Add a run folder; its newest weights are read on each use.

        Raises:
            RunError: `path` is not a run folder.
        """
        with self._adding:
            run = cs.load_run(os.path.realpath(path))
            opened = ModelHandle(id, run.path.name, run=run)
            opened.source = self.sources_known.of_run(id, run)
            opened.start = self._sample(opened.source)
            with self._lock:
                self._models[id] = opened

    def open_design(self, name: str, build: Callable[[], cs.Module], source: str) -> str:
        """Open a network that was designed on the page, and return its id.

        Of more than `DESIGNS`, the least recently opened is closed.

        Args:
            name: The network's name; it is built once, however often it is opened.
            build: Builds it.
            source: The data source whose samples it is shown.
        """
        with self._designing:
            if name not in self._designs:
                model = build()
                with self._lock:
                    opened = ModelHandle(self._new_id(name), cs.card_of(model).name, session_model=model, source=source)
                    opened.start = self._sample(source)
                    self._models[opened.id] = opened
                    self._designs[name] = opened.id
                    if len(self._designs) > DESIGNS:
                        _, oldest = self._designs.popitem(last=False)
                        self._models.pop(oldest, None)
            self._designs.move_to_end(name)
            return self._designs[name]

    def opened(self) -> list[ModelHandle]:
        """All open models."""
        self._look_for_runs()
        return list(self._models.values())

    def has_model(self, id: str) -> bool:  # noqa: A002
        """Whether a model has this id."""
        return id in self._models

    def model(self, id: str) -> ModelHandle:  # noqa: A002
        """A model by its id.

        Raises:
            HTTPException: 404, unknown id.
        """
        opened = self._models.get(id)  # read once: another request may close it
        if opened is None:
            self._look_for_runs()
            opened = self._models.get(id)
        if opened is None:
            open_models = ", ".join(list(self._models)[:20]) or "none"
            raise HTTPException(404, f"unknown model {id!r}; open models: {open_models}.")
        return opened

    def session_models(self) -> list[ModelHandle]:
        """The models that are objects of this Python session; those of runs are loaded on first use."""
        return [opened for opened in list(self._models.values()) if opened.session_model is not None]

    def sources(self) -> list[SourceInfo]:
        """The data sources."""
        return self.sources_known.infos()

    def training_data(self, id: str) -> tuple[str, Mapping[str, object]]:  # noqa: A002
        """The arguments of `cs.train` for a data source: the data set's name and its `data_options`.

        Raises:
            HTTPException: 404, unknown id.
        """
        source = self.sources_known.find(id)
        return source.data, {name: str(v) if isinstance(v, Path) else v for name, v in source.options.items()}

    def keep(
        self, name: str, pixels: Array, notes: tuple[str, ...] = (), *, transparent: Array | None = None
    ) -> Stored:
        """Store an uploaded image.

        Args:
            name: The name to show.
            pixels: Pixels from 0 to 255, shape (C, H, W), as `cs.read_image` returns them.
            notes: Notes to show with it.
            transparent: The same with its opacity as a fourth channel, if it has any.
        """
        picture = Picture(_clean(name), pixels, notes=notes, transparent=transparent)
        channels, height, width = pixels.shape
        return Stored(
            id=self._remember(picture),
            name=picture.name,
            height=height,
            width=width,
            channels=channels,
            notes=list(notes),
        )

    def picture(self, ref: InputRef) -> Picture:
        """The image that a request names or contains.

        Raises:
            HTTPException: 404, unknown sample or upload; 422, invalid pixels.
        """
        match ref:
            case SampleRef():
                return self.sources_known.picture(ref)
            case PixelsRef():
                return inputs.painted(ref)
            case StoredRef():
                with self._lock:
                    if ref.id not in self._kept:
                        raise HTTPException(404, "the server no longer has this image; upload it again.")
                    self._kept.move_to_end(ref.id)
                    return self._kept[ref.id]

    def session(self, *, can_train: bool = False) -> Session:
        """The description of everything that is open, for the page."""
        self._look_for_runs()
        models = [opened.info() for opened in list(self._models.values())]
        kernels = [KernelInfo(name=f.name, what=f.finds, values=f.kernel.tolist()) for f in cs.filters.FILTERS.values()]
        return Session(
            version=cs.__version__,
            models=models,
            sources=self.sources(),
            kernels=kernels,
            limits=Limits(upload_bytes=uploads.MAX_BYTES, upload_pixels=uploads.MAX_PIXELS, terms=TERMS),
            can_train=can_train,
        )

    def close(self) -> None:
        """Start no more jobs."""
        self.workers.close()

    def _look_for_runs(self) -> None:
        """Add new runs of the folder, and reopen those that were replaced."""
        if self._folder is None:
            return
        with self._adding:
            handles = {opened.run.path: opened for opened in list(self._models.values()) if opened.run is not None}
            for config in sorted([*self._folder.glob("config.json"), *self._folder.glob("*/config.json")]):
                path = config.parent.resolve()  # a symlink to a run counts as that run
                handle = handles.get(path)
                if handle is None or handle.replaced:
                    name = self._new_id(path.name) if handle is None else handle.id
                    with suppress(cs.ConvscopeError):  # an unrelated config.json, or a run that is being created
                        self.add_run(name, path)
                        handles[path] = self._models[name]

    def _source_of(self, opened: ModelHandle) -> str | None:
        """The data source whose samples suit a model, by its card or by shape and number of classes."""
        if opened.run is not None:
            return self.sources_known.of_run(opened.id, opened.run)
        card = cs.card_of(opened.session_model)
        entry = cs.MODELS.get(card.source)
        names = entry.data if entry else ()
        expected = card.preprocess
        sources = self.sources()
        fits = [
            s.id
            for s in sources
            if (s.channels, (s.height, s.width)) == (expected.channels, expected.size)
            and len(s.classes) == len(card.classes or s.classes)
        ]
        return next((name for name in (*names, *fits) if name in {s.id for s in sources}), None)

    def _start(self, opened: ModelHandle) -> InputRef:
        sample = self._sample(opened.source)
        if sample is not None:
            return sample
        noise = cs.prepare_inputs(cs.random_inputs(opened.session_model), like=opened.session_model)
        return self._keep_inputs(noise, cs.card_of(opened.session_model), "noise")

    def _sample(self, source: str | None) -> SampleRef | None:
        return None if source is None else SampleRef(source=source, split="test", index=0)

    def keep_inputs(self, prepared_inputs: cs.ModelInputs, opened: ModelHandle) -> StoredRef:
        """Store inputs for a model of this session, as `cs.prepare_inputs` gives them."""
        return self._keep_inputs(prepared_inputs, cs.card_of(opened.session_model))

    def _keep_inputs(self, prepared_inputs: cs.ModelInputs, card: cs.Card, name: str = "") -> StoredRef:
        """Store the inputs of a model of this session."""
        if prepared_inputs.prepared is not None:
            return self._keep_prepared(prepared_inputs.prepared, card.preprocess, name)
        notes = (*prepared_inputs.notes, prepared_inputs.described(card))
        shown = _clean(name or prepared_inputs.name)
        picture = Picture(shown, prepared_inputs.picture, 1.0, exact=True, notes=notes, inputs=prepared_inputs.value)
        return StoredRef(id=self._remember(picture))

    def _keep_prepared(self, prepared: cs.Prepared, expected: cs.Preprocess, name: str = "") -> StoredRef:
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
        return StoredRef(id=self._remember(picture))

    def keep_image(self, id: str, image: object) -> StoredRef:  # noqa: A002
        """Store an image, as `cs.load_image` accepts it, for a model of this session.

        Raises:
            ConvscopeError: the image cannot be read or does not fit.
        """
        model = self.model(id).session_model
        prepared = cs.prepare_inputs(image, like=model, data_dir=self.sources_known.data_dir)
        return self._keep_inputs(prepared, cs.card_of(model))

    def _remember(self, picture: Picture) -> str:
        """Store an image under a digest of its pixels, and drop old ones beyond the memory limit."""
        digest = hashlib.sha256(f"{picture.name} {picture.pixels.shape} {picture.white}".encode())
        digest.update(np.ascontiguousarray(picture.pixels).data)
        if picture.transparent is not None:
            digest.update(np.ascontiguousarray(picture.transparent).data)
        if picture.inputs is not None:  # different inputs may have the same display
            digest.update(pickle.dumps(picture.inputs))
        name = f"i{digest.hexdigest()[:24]}"
        with self._lock:
            self._kept[name] = picture
            self._kept.move_to_end(name)
            pinned = {o.start.id for o in self._models.values() if isinstance(o.start, StoredRef)} | {name}
            for old in [key for key in self._kept if key not in pinned]:
                if sum(p.pixels.nbytes for p in self._kept.values()) > KEPT_BYTES:
                    del self._kept[old]
        return name

    def _new_id(self, name: str) -> str:
        """A new id for a model of this name; the caller holds a lock that prevents concurrent additions."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:60] or "model"
        number, candidate = 1, plain
        while candidate in self._models:
            number += 1
            candidate = f"{plain}.{number}"
        return candidate


def _import_all() -> None:
    """Import the modules that a pass and the first click need (attributes of `cs` are imported lazily).

    Not in a thread: packages that import each other fail when two threads import them at once.
    """
    _ = cs.interpret, cs.trace, cs.explain


def _run_of(source: str) -> cs.Run | None:
    """The run that a model was loaded from, or None."""
    if not source or source in cs.MODELS or not (Path(source) / "config.json").is_file():
        return None
    try:
        return cs.load_run(os.path.realpath(source))
    except cs.ConvscopeError:
        return None


def _clean(name: str) -> str:
    """A name without unprintable characters, of limited length."""
    return "".join(c for c in name if c.isprintable())[:120].strip() or "picture"
