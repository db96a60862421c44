"""A model that is open in the explorer: an object of this Python session, or a run folder whose weights may change.

Uses models and runs through `cs`; no traces, no requests.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.session.schema import Expected, InputRef, ModelInfo
from convscope.typing import Array

WEIGHTS = "weights.safetensors"


@dataclass(eq=False)
class ModelHandle:
    """An open model."""

    id: str
    name: str
    session_model: cs.Module | None = field(default=None, repr=False)
    """The model object of this session; None for a run, whose model is read again when its weights change."""
    run: cs.Run | None = None
    source: str | None = None
    """The id of the data source whose samples suit the model."""
    start: InputRef | None = None
    """The input to show first."""
    used: frozenset[str] = frozenset()
    """Names of the parameters that its steps read; known after the first trace."""
    light: int = 0
    """Input size (in numbers) up to which a trace is known to be small enough to keep without counting memory."""
    _read: cs.Module | None = field(default=None, repr=False)
    _stamp: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)
    _config: int = field(init=False, repr=False)
    """Modification time of the run's config.json when the handle was made."""

    def __post_init__(self) -> None:
        self._config = self._config_written()

    def _config_written(self) -> int:
        return 0 if self.run is None else _written(self.run.path / "config.json")

    @property
    def replaced(self) -> bool:
        """Whether the folder has been overwritten by another training, or by this one with other settings."""
        return self.session_model is None and self._config_written() not in {0, self._config}

    def read(self) -> tuple[cs.Module, str]:
        """The model with its run's newest saved weights, and a stamp that identifies these weights.

        Raises:
            HTTPException: 410, the folder has no weights or is gone, and the model was not read before.
            ConvscopeError: the model cannot be read.
        """
        if self.session_model is not None:
            return self.session_model, _written_into(self.session_model)
        assert self.run is not None  # a handle has either a model or a run
        with self._lock:
            written = _written(self.run.path / WEIGHTS)
            if written and written != self._stamp:
                self._read, self._stamp = cs.load_run(self.run.path).model, written
                self.used = frozenset()
            if self._read is None:
                raise self._unread()
            return self._read, str(self._stamp)

    def stamp(self) -> str:
        """A stamp that changes with the weights; "0" if the run has not saved any yet."""
        if self.session_model is not None:
            return _written_into(self.session_model)
        assert self.run is not None
        return str(_written(self.run.path / WEIGHTS) or self._stamp)

    def as_saved(self) -> bool:
        """Whether the weights equal those saved by the run; a model of this session may have changed since."""
        if self.session_model is None or self.run is None:
            return self.run is not None
        try:
            saved = cs.load_run(self.run.path).model.state_dict()
        except cs.ConvscopeError:
            return False
        weights = self.session_model.state_dict()
        return saved.keys() == weights.keys() and all(weights[name].cpu().equal(saved[name].cpu()) for name in weights)

    @property
    def trained_on(self) -> str | None:
        """The name of the data set that the run was trained on."""
        return None if self.run is None else self.run.config["dataset"]["source"]

    def working_copy(self, step: int | None) -> cs.Module:
        """A copy of the model for work that sets hooks and modes, with the newest weights or those of step `step`.

        No pass through the model may be running meanwhile, as its hooks would be copied with the model.

        Raises:
            HTTPException: as raised by `read` and `weights_at`.
            ConvscopeError: the model cannot be read or copied.
        """
        model, _ = self.read()
        try:
            copied = copy.deepcopy(model)
        except Exception as error:
            raise cs.UsageError(f"{self.name} cannot be copied ({error}), and a probe works on a copy.") from None
        put(copied, {} if step is None else self.weights_at(step))
        return copied

    def _unread(self) -> HTTPException:
        return HTTPException(
            410, self.gone or f"{self.name} has not saved any weights yet; try again after its first training steps."
        )

    @property
    def gone(self) -> str:
        """A message if the run's folder no longer exists, else an empty string."""
        if self.run is None or (self.run.path / "config.json").exists():
            return ""
        remaining = "" if self._read is None else "; its weights are still in memory, its history is lost"
        return f"the run folder of {self.name} no longer exists{remaining}."

    @property
    def history(self) -> list[int]:
        """The training steps whose weights were kept."""
        return [] if self.run is None else self.run.steps

    def newest(self) -> int | None:
        """The last step of the history if it is newer than the saved weights, as during a training; else None."""
        if self.session_model is not None or self.run is None:
            return None
        steps = self.history
        last = self.run.path / "history" / f"{steps[-1]:09d}.safetensors" if steps else None
        newer = last is not None and _written(last) > _written(self.run.path / WEIGHTS)
        return steps[-1] if newer else None

    def weights_at(self, step: int) -> dict[str, Array]:
        """The weights after training step `step`.

        Raises:
            HTTPException: 404, no weights were kept at this step; 410, the run's folder no longer exists.
        """
        if self.run is None:
            raise HTTPException(404, f"{self.name} has no history, as it was not loaded from a run.")
        if self.gone:
            raise HTTPException(410, self.gone)
        steps = self.history
        if step not in steps:
            available = (
                f"they were kept at {len(steps)} steps from {steps[0]} to {steps[-1]}" if steps else "none were kept"
            )
            raise HTTPException(404, f"{self.name} kept no weights at step {step}; {available}.")
        try:
            return self.run.weights_at(step)
        except (FileNotFoundError, cs.UsageError):  # deleted since
            raise HTTPException(410, self.gone or f"{self.name} no longer has its weights at step {step}.") from None

    def info(self) -> ModelInfo:
        """The model's description for the page, without loading a run's model; notes say why one cannot be read."""
        try:
            card, parameters = self._described()
        except (cs.ConvscopeError, HTTPException) as error:
            message = error.detail if isinstance(error, HTTPException) else str(error)
            unknown = Expected(channels=None, height=None, width=None, fixed=False)
            return self._info(0, [], unknown, [message])
        size = card.preprocess.size or (None, None)
        expects = Expected(channels=card.preprocess.channels, height=size[0], width=size[1], fixed=card.fixed_size)
        return self._info(parameters, list(card.classes), expects, [*card.notes, *([self.gone] if self.gone else [])])

    def _described(self) -> tuple[cs.Card, int]:
        """The model's card and its number of parameters."""
        if self.session_model is not None:
            return cs.card_of(self.session_model), sum(p.numel() for p in self.session_model.parameters())
        assert self.run is not None
        if self._read is None and not _written(self.run.path / WEIGHTS):
            raise self._unread()
        if self.run.config["model"]["source"] is None:
            self.read()  # raises the error that explains why only the network's author can build it
        return self.run.card, self.run.parameters

    def _info(self, parameters: int, classes: list[str], expects: Expected, notes: list[str]) -> ModelInfo:
        return ModelInfo(
            id=self.id,
            name=self.name,
            parameters=parameters,
            classes=classes,
            expects=expects,
            source=self.source,
            run=self.run is not None,
            history=self.history,
            start=self.start,
            notes=notes,
        )


def lacks_shapes(model: cs.Module) -> bool:
    """Whether the model has lazy parameters, which get their shapes from the first input."""
    return any("Uninitialized" in type(tensor).__name__ for tensor in (*model.parameters(), *model.buffers()))


def put(model: cs.Module, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters and buffers of the same names."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, array in arrays.items():
        if name in tensors:
            tensors[name].data.copy_(tensors[name].data.new_tensor(array))


def _written(path: Path) -> int:
    """A file's modification time in nanoseconds; 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _written_into(model: cs.Module) -> str:
    """A stamp of the weights in memory: the tensors' addresses and version counters."""
    stamps = []
    for tensor in (*model.parameters(), *model.buffers()):
        version = 0
        with suppress(RuntimeError):  # inference tensors have no version counter
            version = tensor._version
        stamps.append((tensor.data_ptr(), version))
    return str(hash(tuple(stamps)))
