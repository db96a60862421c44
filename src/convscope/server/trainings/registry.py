"""Trainings: what can be trained, and the few trainings that this server has started.

Knows the gallery's data sources and `cs.train`'s arguments; processes are training.py's matter, addresses the routes'.
"""

import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import convscope as cs
from convscope.server.session.schema import SourceInfo
from convscope.server.trainings.schema import TrainCommand, TrainingInfo, TrainOptions, TrainRequest
from convscope.server.trainings.training import Training

AT_ONCE = 2
"""Trainings that may run at a time."""
IN_ALL = 100
"""Trainings that a server starts."""
RECIPES = ("fast", "tutorial")
ANY_DATA = "mnist-small"
"""The model that data without one of their own are trained with, as `cs.train` does."""
PIXELS = 3 * 128 * 128
"""Numbers of an image up to which every network is offered; on larger ones a linear layer could fill the memory."""
PATIENCE = 10.0
"""Seconds that all trainings together get to save themselves when the server ends."""


class Busy(cs.UsageError):
    """As many trainings as there may be, or one that takes no commands any more."""


class Missing(cs.UsageError, LookupError):
    """No training, data or model of this name."""


class TrainableModels(Protocol):
    """What trainings need of the gallery."""

    def sources(self) -> Sequence[SourceInfo]:
        """The data sources that are open."""

    def training_data(self, source: str, /) -> tuple[str, Mapping[str, Any]]:
        """A source as `cs.train` in another process can load it: its name and `data_options`."""

    def has_model(self, model: str, /) -> bool:
        """Whether a model has this id."""

    def add_run(self, name: str, path: Path, /) -> None:
        """Open a run, under this id."""


class Trainings:
    """All trainings of a server.

    Args:
        gallery: Where data come from, and where a run is shown once it has weights.
        folder: Where runs are written, each in a folder named by the training's id.
    """

    def __init__(self, gallery: TrainableModels, folder: Path) -> None:
        self.gallery, self.folder = gallery, Path(os.path.realpath(folder))
        self._all: dict[str, Training] = {}
        self._lock = threading.Lock()
        self._closed = False

    def options(self) -> TrainOptions:
        """What can be trained on what; data that no built-in model fits are left out."""
        fitting = {source.id: [*self._fitting(source)] for source in self.gallery.sources() if source.trainable}
        return TrainOptions(models={name: models for name, models in fitting.items() if models}, recipes=[*RECIPES])

    def infos(self) -> list[TrainingInfo]:
        """Every training, in the order of their start."""
        return [training.info() for training in list(self._all.values())]

    def get(self, name: str) -> Training:
        """One training.

        Raises:
            Missing: there is none of this id.
        """
        if name not in self._all:
            there = f"there are {', '.join(self._all)}" if self._all else "none was started yet"
            raise Missing(f"this server runs no training called {name!r}; {there}.")
        return self._all[name]

    def start(self, request: TrainRequest) -> TrainingInfo:
        """Start a training in a process of its own. The same request with the same seed starts from the same weights.

        Raises:
            Missing: no such data, or a model that does not fit them.
            Busy: enough trainings are running.
        """
        self._check(request)
        dataset, options = self.gallery.training_data(request.source)
        with self._lock:
            self._check_room()
            name = self._free_name(request.model)
            order = {
                "dataset": dataset,
                "model": request.model,
                "options": dict(options),
                "out": str(self.folder / name),
                "paused": request.paused,
                "settings": request.model_dump(include={"recipe", "epochs", "batch_size", "lr", "seed"}),
            }
            self._all[name] = Training(name, request, order, self.gallery.add_run)
        return self._all[name].info()

    def command(self, name: str, word: TrainCommand) -> TrainingInfo:
        """Pause, resume, step or stop a training; to stop one that is over is no mistake.

        Raises:
            Missing: there is none of this id.
            Busy: it is over.
        """
        training = self.get(name)
        if not training.over:
            training.command(word)
        elif word.command != "stop":
            raise Busy(f"the training {name} is {training.state} and cannot {word.command}; start it anew.")
        return training.info()

    def close(self) -> None:
        """End all trainings, after they saved themselves; those that take too long are ended as they are."""
        with self._lock:
            self._closed = True
        until = time.monotonic() + PATIENCE
        for training in self._all.values():
            training.leave()
        for training in self._all.values():
            training.end(max(0.0, until - time.monotonic()))

    def _fitting(self, source: SourceInfo) -> tuple[str, ...]:
        dataset, _ = self.gallery.training_data(source.id)
        fits = models_for((source.channels, source.height, source.width), len(source.classes))
        best = cs.DEFAULT_MODELS.get(dataset, ANY_DATA)
        return tuple(sorted(fits, key=lambda name: (name != best, dataset not in cs.MODELS[name].data)))

    def _check(self, request: TrainRequest) -> None:
        known = {source.id: source for source in self.gallery.sources() if source.trainable}
        if request.source not in known:
            raise Missing(f"no data to train on are called {request.source!r}; there are {', '.join(known) or 'none'}.")
        fitting = self._fitting(known[request.source])
        if request.model not in fitting:
            raise Missing(
                f"no built-in model {request.model!r} fits {request.source}; those that do: {', '.join(fitting)}."
            )

    def _check_room(self) -> None:
        if self._closed:
            raise Busy("the server is ending; start it again to train.")
        running = [name for name, training in self._all.items() if not training.over]
        if len(running) >= AT_ONCE:
            raise Busy(f"{' and '.join(running)} are in training, and {AT_ONCE} at a time is the most; stop one first.")
        if len(self._all) >= IN_ALL:
            raise Busy(f"this server has started {IN_ALL} trainings, which is the most; start it again to train more.")

    def _free_name(self, model: str) -> str:
        """What `cs.train` would call the run, unless that is the name of a training or a model here."""

        def is_taken(path: Path) -> bool:
            return path.name in self._all or path.exists() or self.gallery.has_model(path.name)

        return cs.free_path(model, self.folder, is_taken).name


@lru_cache(maxsize=64)
def models_for(shape: tuple[int, int, int], classes: int) -> tuple[str, ...]:
    """The built-in models that can be trained on such images, tried out with one.

    >>> models_for((1, 3, 3), 2)[0]
    'crosses'

    Args:
        shape: (C, H, W) of an image.
        classes: How many classes there are.
    """
    small = np.prod(shape) <= PIXELS
    return tuple(name for name in cs.MODELS if (small or name == ANY_DATA) and _fits(name, shape, classes))


def _fits(name: str, shape: tuple[int, int, int], classes: int) -> bool:
    entry = cs.MODELS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without weights, which then do not run
            trace = cs.trace(cs.load_model(name, args=entry.fits(shape, classes)), np.zeros(shape, np.float32))
    except cs.ConvscopeError:
        return False
    made_for = [(cs.DATASETS[data].shape, len(cs.DATASETS[data].classes)) for data in entry.data]
    return trace.steps[-1].shape == (1, classes) or (shape, classes) in made_for
