"""Writers: how a training's folder is written, by one training at a time, nothing lost. runs.py lists its files."""

import fcntl
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
from safetensors.torch import save as save_tensors
from torch import nn

from convscope.errors import RunError
from convscope.training.snapshots import Position, State, refused, weights_of, write_durably, write_snapshot

HISTORY_POINTS = 160
"""Points of the history that lie evenly over the training."""
HISTORY_BYTES = 40_000_000
BUSY = "another training is writing to {}; wait for its end or choose another --out."
STEPPED = 4
"""One more for each so many: of steps that somebody watched one by one, or of a training that got more epochs."""


def is_held(path: Path) -> bool:
    """Whether a training is writing to this folder now."""
    try:
        with (path / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


class Writer:
    """What a training tells whoever keeps it; this one keeps nothing (of several processes only the first writes)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def configure(self, config: Mapping[str, Any]) -> None:
        """Say what is trained, and how."""

    def begin(self, position: Position, points: Collection[int], others: int) -> int:  # noqa: ARG002  # this one keeps nothing
        """Go on from `position`; whatever was written after it goes.

        Args:
            position: Where the training is.
            points: The steps of its history.
            others: How many other steps the history may hold; of more it keeps some, evenly.

        Returns:
            How many others it holds.
        """
        return 0

    def log(self, event: Mapping[str, Any]) -> None:
        """Add a line to the metrics."""

    def keep(self, step: int, model: nn.Module) -> None:
        """Add the weights to the history."""

    def snapshot(self, state: State) -> None:
        """Make everything up to now durable."""


class RunWriter(Writer):
    """Writes a run folder; entering it takes the folder's lock.

    Raises:
        RunError: the folder cannot be written, or another training holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: TextIO
        self._metrics: TextIO

    def __enter__(self) -> Self:
        try:
            for folder in (self.path / "snapshots", self.path / "history"):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("w")
            self._metrics = (self.path / "metrics.jsonl").open("a")
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error.strerror}; choose another --out.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.__exit__()
            raise RunError(BUSY.format(self.path)) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._lock.close()

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write config.json."""
        write_durably(self.path / "config.json", json.dumps(config, indent=1).encode())

    def begin(self, position: Position, points: Collection[int], others: int) -> int:
        """Cut metrics and history back to `position`."""
        with refused(self.path):
            if os.fstat(self._metrics.fileno()).st_size > position.metrics_bytes:
                os.truncate(self._metrics.fileno(), position.metrics_bytes)
            left = []
            for path in sorted((self.path / "history").iterdir()):
                if path.suffix != ".safetensors" or int(path.stem) > position.step:
                    path.unlink()
                elif int(path.stem) not in points:
                    left.append(path)
            kept = left[:: -(-len(left) // others)] if others and left else []
            for path in set(left) - set(kept):
                path.unlink()
        return len(kept)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with refused(self.path / "metrics.jsonl"):
            self._metrics.write(json.dumps(event) + "\n")
            self._metrics.flush()

    def keep(self, step: int, model: nn.Module) -> None:
        """Write history/STEP.safetensors."""
        path = self.path / "history" / f"{step:09d}.safetensors"
        part = path.with_suffix(".part")
        with refused(path):
            part.write_bytes(save_tensors(weights_of(model)))
            part.replace(path)

    def snapshot(self, state: State) -> None:
        """Write snapshots/STEP and weights.safetensors, durably."""
        with refused(self.path):
            os.fsync(self._metrics.fileno())
        length = os.fstat(self._metrics.fileno()).st_size
        write_durably(self.path / "weights.safetensors", save_tensors(weights_of(state.model)))
        position = replace(state.position, metrics_bytes=length)
        write_snapshot(self.path / "snapshots", replace(state, position=position))


def history_steps(model: nn.Module, total: int) -> list[int]:
    """At which steps the weights are kept: evenly from first to last, within 160 files and 40 MB.

    A point costs as much as a step of a small network, so beyond twenty points only every fortieth step is one.

    >>> history_steps(nn.Linear(2, 1), 4)
    [0, 1, 2, 3, 4]
    """
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    points = min(HISTORY_POINTS, HISTORY_BYTES // max(size, 1), total + 1, max(21, total // 40))
    return [int(step) for step in np.unique(np.linspace(0, total, points).round())] if points > 1 else []
