"""The registry of trainings: which models fit which data, and the trainings that this server has started.

Uses the workspace's data sources and the arguments of `cs.train`; processes are handled in `training`. The
user's own networks are those that were named when the server was started: the page chooses among them by name; it
cannot name code.
"""

import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

import convscope as cs
from convscope.server.blocks import MODEL as BLOCKS
from convscope.server.blocks import plain, planned, source_of
from convscope.server.session.schema import SourceInfo
from convscope.server.trainings.events import NetworkSettings, TrainingOrder
from convscope.server.trainings.schema import TrainCommand, TrainingInfo, TrainOptions, TrainRequest
from convscope.server.trainings.training import Training

Networks = Mapping[str, Mapping[str, Any]]
"""`file.py:Class` or `package.module:factory` -> its keyword arguments."""


def names_code(source: str) -> bool:
    """Whether a model's source is code, rather than a built-in network, a file of blocks or a run folder.

    >>> names_code("net.py:Net"), names_code("shapes-cnn"), names_code("runs/shapes-cnn")
    (True, False, False)
    """
    return ":" in os.path.splitdrive(source)[1] and not Path(source).exists()


class OwnNetworks:
    """Networks named by the user, by the name that the page shows.

    >>> list(OwnNetworks({"/home/ada/net.py:Net": {}}).networks)
    ['net.py:Net']
    """

    def __init__(self, networks: Networks) -> None:
        self.networks: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for source, args in networks.items():
            location, _, name = source.rpartition(":")
            short = f"{Path(location).name}:{name}"
            self.networks[source if short in self.networks else short] = (source, args)
        self._known: dict[tuple[str, tuple[int, ...], int], tuple[Versions, str]] = {}
        self._lock = threading.Lock()
        """Lock held while a network is tried, so that two requests do not try it twice."""

    def problem(self, name: str, source: SourceInfo) -> str:
        """Why a network cannot be trained on a data source, as a sentence; empty if it can.

        The network is built and run once on zeros; the answer is remembered until one of its files changes.
        """
        shape, classes = (source.channels, source.height, source.width), len(source.classes)
        key = name, shape, classes
        with self._lock:
            versions = _versions(self.networks[name][0])
            if key not in self._known or self._known[key][0] != versions:
                self._known[key] = versions, self._tried(name, shape, classes)
            return self._known[key][1]

    def _tried(self, name: str, shape: tuple[int, int, int], classes: int) -> str:
        location, args = self.networks[name]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about layers with zero elements; such networks then fail
                (prediction,) = cs.predict(cs.load_model(location, args=args), np.zeros(shape, np.float32))
        except cs.ConvscopeError as error:
            return str(error)
        count = len(prediction.output)
        if count != classes:
            return f"it returns {count} number{'s' * (count != 1)} for an image, but there are {classes} classes."
        return ""


Versions = tuple[tuple[str, int, int], ...]


def _versions(source: str) -> Versions:
    """The files that a network comes from, each with its modification time and size."""
    with suppress(cs.ConvscopeError):
        status = {file: Path(file).stat() for file in cs.files_of(source) if Path(file).exists()}
        return tuple((file, file_status.st_mtime_ns, file_status.st_size) for file, file_status in status.items())
    return ()


AT_ONCE = 2
"""Maximum number of trainings that run concurrently."""
IN_ALL = 100
"""Maximum number of trainings that a server starts."""
RECIPES = ("fast", "tutorial")
ANY_DATA = "mnist-small"
"""The model of data that have no default model, as in `cs.train`."""
PIXELS = 3 * 128 * 128
"""Image size (in numbers) up to which every network is offered; with larger ones a linear layer could fill memory."""
PATIENCE = 10.0
"""Seconds that all trainings together have to save when the server shuts down."""


class Busy(cs.UsageError):
    """The limit of trainings is reached, or the training has ended and accepts no commands."""


class Missing(cs.UsageError, LookupError):
    """Unknown training, data source or model."""


class TrainableModels(Protocol):
    """The part of the workspace that trainings use."""

    def sources(self) -> Sequence[SourceInfo]:
        """The open data sources."""

    def training_data(self, source: str, /) -> tuple[str, Mapping[str, object]]:
        """The arguments of `cs.train` for a source in another process: its name and `data_options`."""

    def has_model(self, model: str, /) -> bool:
        """Whether a model has this id."""

    def add_run(self, name: str, path: Path, /) -> None:
        """Open a run under the given id."""


class Trainings:
    """All trainings of a server.

    Args:
        workspace: The source of data; runs are added to it once they have weights.
        folder: The folder to write runs to, each in a subfolder named after the training's id.
        networks: The user's own networks, which are offered beside the built-in ones.
    """

    def __init__(self, workspace: TrainableModels, folder: Path, networks: Networks = MappingProxyType({})) -> None:
        self.workspace, self.folder = workspace, Path(os.path.realpath(folder))
        self.user_networks = OwnNetworks(networks)
        self._all: dict[str, Training] = {}
        self._lock = threading.Lock()
        self._closed = False

    def options(self) -> TrainOptions:
        """The models that fit each data source; sources that no built-in model fits are left out."""
        sources = [source for source in self.workspace.sources() if source.trainable]
        fitting = {source.id: [*self._fitting(source)] for source in sources}
        problems_by_source = {
            source.id: {name: self.user_networks.problem(name, source) for name in self.user_networks.networks}
            for source in sources
        }
        return TrainOptions(
            models={name: models for name, models in fitting.items() if models},
            recipes=[*RECIPES],
            unfit={
                source: {name: problem for name, problem in problems.items() if problem}
                for source, problems in problems_by_source.items()
            },
        )

    def infos(self) -> list[TrainingInfo]:
        """All trainings, in the order in which they were started."""
        return [training.info() for training in list(self._all.values())]

    def get(self, name: str) -> Training:
        """A training by its id.

        Raises:
            Missing: unknown id.
        """
        if name not in self._all:
            available = f"available: {', '.join(self._all)}" if self._all else "none has been started yet"
            raise Missing(f"unknown training {name!r}; {available}.")
        return self._all[name]

    def start(self, request: TrainRequest) -> TrainingInfo:
        """Start a training in its own process. The same request with the same seed starts from the same weights.

        Raises:
            Missing: unknown data source, or a model that does not fit it.
            UsageError: a network of blocks that cannot be built, or that does not fit the classes.
            Busy: the limit of trainings is reached.
        """
        self._check(request)
        arguments = self._arguments(request)
        dataset, options = self.workspace.training_data(request.source)
        with self._lock:
            self._check_room()
            name = self._free_name(request.model)
            model, _ = self.user_networks.networks.get(request.model, (request.model, {}))
            order: TrainingOrder = {
                "dataset": dataset,
                "model": model,
                "options": dict(options),
                "out": str(self.folder / name),
                "paused": request.paused,
                "settings": {
                    "recipe": request.recipe,
                    "epochs": request.epochs,
                    "batch_size": request.batch_size,
                    "lr": request.lr,
                    "seed": request.seed,
                    **arguments,
                },
            }
            self._all[name] = Training(name, request, order, self.workspace.add_run)
        return self._all[name].info()

    def command(self, name: str, word: TrainCommand) -> TrainingInfo:
        """Pause, resume, step or stop a training; stopping one that has ended is allowed.

        Raises:
            Missing: unknown id.
            Busy: the training has ended.
        """
        training = self.get(name)
        if not training.over:
            training.command(word)
        elif word.command != "stop":
            raise Busy(f"the training {name} is {training.state} and cannot {word.command}; start a new one.")
        return training.info()

    def close(self) -> None:
        """Let all trainings save and end; those that take too long are killed."""
        with self._lock:
            self._closed = True
        until = time.monotonic() + PATIENCE
        for training in self._all.values():
            training.leave()
        for training in self._all.values():
            training.end(max(0.0, until - time.monotonic()))

    def _fitting(self, source: SourceInfo) -> tuple[str, ...]:
        dataset, _ = self.workspace.training_data(source.id)
        fits = models_for((source.channels, source.height, source.width), len(source.classes))
        best = cs.DEFAULT_MODELS.get(dataset, ANY_DATA)
        built_in = sorted(fits, key=lambda name: (name != best, dataset not in cs.MODELS[name].data))
        return (
            *built_in,
            *(name for name in self.user_networks.networks if not self.user_networks.problem(name, source)),
        )

    def _check(self, request: TrainRequest) -> None:
        sources = {source.id: source for source in self.workspace.sources() if source.trainable}
        if request.source not in sources:
            raise Missing(f"unknown training data {request.source!r}; available: {', '.join(sources) or 'none'}.")
        fitting = self._fitting(sources[request.source])
        if request.model not in {*fitting, BLOCKS}:
            raise Missing(
                f"the model {request.model!r} does not fit {request.source}; models that do: {', '.join(fitting)}."
            )

    def _arguments(self, request: TrainRequest) -> NetworkSettings:
        """The arguments of `cs.train` for a network of the user's: for blocks also the loss that its outputs call for.

        Raises:
            UsageError: the blocks cannot be built, or do not fit the classes.
        """
        if request.model in self.user_networks.networks:
            return {"model_args": dict(self.user_networks.networks[request.model][1])}
        if request.model != BLOCKS:
            return {}
        result = planned(source_of(self.workspace, request.source), request.blocks or [])
        if result.problem or result.ending is not None:
            raise cs.UsageError(result.problem or str(result.ending and result.ending.sentence))
        single = result.blocks[-1].shape == (1,) and result.classes > 1
        settings: NetworkSettings = {"model_args": {"blocks": plain(request.blocks or [])}}
        return {**settings, "loss": "mse"} if single else settings

    def _check_room(self) -> None:
        if self._closed:
            raise Busy("the server is shutting down; start it again to train.")
        running = [name for name, training in self._all.items() if not training.over]
        if len(running) >= AT_ONCE:
            raise Busy(f"{' and '.join(running)} are running, and the limit is {AT_ONCE} at a time; stop one first.")
        if len(self._all) >= IN_ALL:
            raise Busy(f"this server has started {IN_ALL} trainings, which is its limit; restart it to train more.")

    def _free_name(self, model: str) -> str:
        """The name that `cs.train` would choose for the run, made distinct from open trainings and models."""

        def is_taken(path: Path) -> bool:
            return path.name in self._all or path.exists() or self.workspace.has_model(path.name)

        return cs.free_path(model, self.folder, is_taken).name


@lru_cache(maxsize=64)
def models_for(shape: tuple[int, int, int], classes: int) -> tuple[str, ...]:
    """The built-in models that can be trained on such images, found by tracing each on one image.

    >>> models_for((1, 3, 3), 2)[0]
    'crosses'

    Args:
        shape: Image shape (C, H, W).
        classes: Number of classes.
    """
    small = np.prod(shape) <= PIXELS
    offered = (name for name in cs.MODELS if name != BLOCKS and (small or name == ANY_DATA))
    return tuple(name for name in offered if _fits(name, shape, classes))


def _fits(name: str, shape: tuple[int, int, int], classes: int) -> bool:
    entry = cs.MODELS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about layers with zero elements; such models then fail below
            trace = cs.trace(cs.load_model(name, args=entry.fits(shape, classes)), np.zeros(shape, np.float32))
    except cs.ConvscopeError:
        return False
    made_for = [(cs.DATASETS[data].shape, len(cs.DATASETS[data].classes)) for data in entry.data]
    return trace.output.shape == (1, classes) or (shape, classes) in made_for
