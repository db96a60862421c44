"""Opened: one model of the explorer: given by a session, or read from a run folder whose weights may change meanwhile.

Knows models and runs through `cs`; no traces, no requests.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import schema

WEIGHTS = "weights.safetensors"


@dataclass(eq=False)
class ModelHandle:
    """A model that is open."""

    id: str
    name: str
    given: Any = field(default=None, repr=False)
    """The model itself; None for one that is read from its run, and read anew when that has new weights."""
    run: cs.Run | None = None
    source: str | None = None
    start: schema.InputRef | None = None
    used: frozenset[str] = frozenset()
    """The parameters that its steps read, once a trace has shown them."""
    light: int = 0
    """The numbers of an input whose pass takes so little memory that all of it is kept without counting."""
    _read: Any = field(default=None, repr=False)
    _stamp: int = 0
    _lock: Any = field(default_factory=Lock, repr=False)
    _config: int = field(init=False, repr=False)
    """When the run's settings were written."""

    def __post_init__(self) -> None:
        self._config = self._config_written()

    def _config_written(self) -> int:
        return 0 if self.run is None else _written(self.run.path / "config.json")

    @property
    def replaced(self) -> bool:
        """Whether another training, or this one with other settings, has written the folder since."""
        return self.given is None and self._config_written() not in {0, self._config}

    def read(self) -> tuple[Any, str]:
        """The model, with the newest weights that its run has saved, and what tells these weights from all others.

        Raises:
            HTTPException: 410, its folder is gone and was never read.
            ConvscopeError: it cannot be read.
        """
        if self.given is not None or self.run is None:
            return self.given, _written_into(self.given)
        with self._lock:
            written = _written(self.run.path / WEIGHTS)
            if not written and self._read is None:
                raise self._unread()
            if written and written != self._stamp:
                self._read, self._stamp = cs.load_run(self.run.path).model, written
                self.used = frozenset()
            return self._read, str(self._stamp)

    def stamp(self) -> str:
        """What tells its weights, and those of its past, from all others; "0" where it has saved none yet."""
        if self.given is not None or self.run is None:
            return _written_into(self.given)
        return str(_written(self.run.path / WEIGHTS) or self._stamp)

    def as_saved(self) -> bool:
        """Whether it is what its run has saved: one of this session may have been changed since."""
        if self.given is None or self.run is None:
            return self.run is not None
        try:
            saved = cs.load_run(self.run.path).model.state_dict()
        except cs.ConvscopeError:
            return False
        own = self.given.state_dict()
        return saved.keys() == own.keys() and all(own[name].cpu().equal(saved[name].cpu()) for name in own)

    @property
    def trained_on(self) -> str | None:
        """The name of the data that its run was trained on."""
        return None if self.run is None else self.run.config["dataset"]["source"]

    def own(self, at: int | None) -> Any:
        """A copy of the model for work that sets hooks and modes of its own, with its newest weights or those of `at`.

        No pass through the model may be under way meanwhile: it would be copied with the model.

        Raises:
            HTTPException: as `read` and `weights_at` raise.
            ConvscopeError: it cannot be read, or its own code cannot copy it.
        """
        model, _ = self.read()
        try:
            copied = copy.deepcopy(model)
        except Exception as error:
            raise cs.UsageError(
                f"{self.name} cannot be copied ({error}), and a question needs a copy to ask."
            ) from None
        put(copied, {} if at is None else self.weights_at(at))
        return copied

    def _unread(self) -> HTTPException:
        return HTTPException(410, self.gone or f"{self.name} has saved no weights yet; wait for its first ones.")

    @property
    def gone(self) -> str:
        """A sentence where the run's folder is no longer there, else nothing."""
        if self.run is None or (self.run.path / "config.json").exists():
            return ""
        left = "" if self._read is None else "; its weights in memory are still shown, its history is not"
        return f"the run folder of {self.name} is gone{left}."

    @property
    def history(self) -> list[int]:
        """The training steps whose weights are kept."""
        return [] if self.run is None else self.run.steps

    def newest(self) -> int | None:
        """The last point of the history, where that is newer than the saved weights: a training goes on."""
        if self.given is not None or self.run is None:
            return None
        steps = self.history
        last = self.run.path / "history" / f"{steps[-1]:09d}.safetensors" if steps else None
        newer = last is not None and _written(last) > _written(self.run.path / WEIGHTS)
        return steps[-1] if newer else None

    def weights_at(self, step: int) -> dict[str, NDArray[Any]]:
        """The weights after so many training steps.

        Raises:
            HTTPException: 404, none were kept there; 410, the run's folder is gone.
        """
        if self.run is None:
            raise HTTPException(404, f"{self.name} has no history: it does not come from a run.")
        if self.gone:
            raise HTTPException(410, self.gone)
        steps = self.history
        if step not in steps:
            kept = f"they were kept at {len(steps)} steps from {steps[0]} to {steps[-1]}" if steps else "none were kept"
            raise HTTPException(404, f"{self.name} kept no weights at step {step}; {kept}.")
        try:
            return self.run.weights_at(step)
        except (FileNotFoundError, cs.UsageError):  # deleted since
            raise HTTPException(410, self.gone or f"{self.name} no longer has its weights at step {step}.") from None

    def info(self) -> schema.ModelInfo:
        """What the page is told of it, without loading a run's model; where it cannot be read, why."""
        try:
            card, parameters = self._described()
        except (cs.ConvscopeError, HTTPException) as error:
            said = error.detail if isinstance(error, HTTPException) else str(error)
            nothing = schema.Expected(channels=None, height=None, width=None, fixed=False)
            return self._info(0, [], nothing, [said])
        size = card.preprocess.size or (None, None)
        expects = schema.Expected(
            channels=card.preprocess.channels, height=size[0], width=size[1], fixed=card.fixed_size
        )
        return self._info(parameters, list(card.classes), expects, [*card.notes, *([self.gone] if self.gone else [])])

    def _described(self) -> tuple[Any, int]:
        """The model's card, and how many parameters it has."""
        if self.given is not None or self.run is None:
            return cs.card_of(self.given), sum(p.numel() for p in self.given.parameters())
        if self._read is None and not _written(self.run.path / WEIGHTS):
            raise self._unread()
        if self.run.config["model"]["source"] is None:
            self.read()  # says that only the person who made the network can build it
        return self.run.card, self.run.parameters

    def _info(
        self, parameters: int, classes: list[str], expects: schema.Expected, notes: list[str]
    ) -> schema.ModelInfo:
        return schema.ModelInfo(
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


def lacks_shapes(model: Any) -> bool:
    """Whether some parameters get their shapes from the first input."""
    return any("Uninitialized" in type(tensor).__name__ for tensor in (*model.parameters(), *model.buffers()))


def put(model: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Give parameters and buffers, by name, these numbers."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, array in arrays.items():
        if name in tensors:
            tensors[name].data.copy_(tensors[name].data.new_tensor(array))


def _written(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _written_into(model: Any) -> str:
    """What changes when a model's weights do: their place in memory and how often they were written into."""
    tensors = [*model.parameters(), *model.buffers()]
    return str(hash(tuple((tensor.data_ptr(), _version(tensor)) for tensor in tensors)))


def _version(tensor: Any) -> int:
    try:
        return int(tensor._version)
    except RuntimeError:  # tensors of inference mode do not count
        return 0
