"""Writers: how a training's folder is written, by one training at a time, nothing lost. runs.py lists its files."""

import fcntl
import os
import re
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from torch import nn

from convscope.errors import RunError
from convscope.files import make_folder, open_own, open_to_read, refuse_link, write_file
from convscope.models.run_config import config_text
from convscope.models.sealed_weights import sealed
from convscope.training.metrics import METRICS, metrics_line, read_metrics
from convscope.training.snapshots import Position, State, refused, weights_of, write_durably, write_snapshot

HISTORY_POINTS = 160
"""Points of the history that lie evenly over the training."""
HISTORY_BYTES = 40_000_000
_POINT = re.compile(r"\d{9,18}\.safetensors", re.ASCII)
_PART = re.compile(r"\.\d{9,18}\.safetensors\.part|\d{9,18}\.part", re.ASCII)
"""A point of the history that a kill left half written, by this version or one before."""
BUSY = "another training is writing to {}; wait for its end or choose another --out."
STEPPED = 4
"""One more for each so many: of steps that somebody watched one by one, or of a training that got more epochs."""


def is_held(path: Path) -> bool:
    """Whether a training is writing to this folder now."""
    try:
        with open_to_read(path / "lock") as lock:
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

    The folder may come from elsewhere: no link in it is followed, and nothing is removed but what a training has named.

    Raises:
        RunError: the folder cannot be written, or another training holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO
        self._metrics: BinaryIO

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            try:
                for folder in (self.path / "snapshots", self.path / "history"):
                    make_folder(folder)
                for name in ("config.json", "weights.safetensors"):
                    refuse_link(self.path / name)
                self._lock = opened.enter_context(open_own(self.path / "lock"))
                self._metrics = opened.enter_context(open_own(self.path / METRICS))
            except OSError as error:
                raise RunError(
                    f"{error.filename or self.path} cannot be written: {error.strerror or error}; choose another --out."
                ) from None
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(BUSY.format(self.path)) from None
            opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # where the disk is full, what could not be written was refused before
            self._metrics.close()
        self._lock.close()

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write config.json."""
        write_durably(self.path / "config.json", config_text(config).encode())

    def begin(self, position: Position, points: Collection[int], others: int) -> int:
        """Cut metrics and history back to `position`, and leave out the damaged lines of the metrics."""
        with refused(self.path):
            self._cut_metrics(position)
            left = []
            for path in sorted((self.path / "history").iterdir()):
                step = history_step(path)
                if (step is not None and step > position.step) or _PART.fullmatch(path.name):
                    path.unlink()
                elif step is not None and step not in points:
                    left.append(path)
            kept = left[:: -(-len(left) // others)] if others and left else []
            for path in set(left) - set(kept):
                path.unlink()
        return len(kept)

    def _cut_metrics(self, position: Position) -> None:
        """Keep the intact lines up to `position`; a file that shares its content by a hard link is written anew."""
        there = os.fstat(self._metrics.fileno())
        kept = [line for line, event in read_metrics(self.path).lines if event["step"] <= position.step]
        content = b"".join(line + b"\n" for line in kept)
        if there.st_nlink == 1 and there.st_size == len(content):
            return
        write_file(self.path / METRICS, content)
        self._metrics.close()
        self._metrics = open_own(self.path / METRICS)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with refused(self.path / METRICS):
            self._metrics.write(metrics_line(event))
            self._metrics.flush()

    def keep(self, step: int, model: nn.Module) -> None:
        """Write history/STEP.safetensors."""
        path = self.path / "history" / f"{step:09d}.safetensors"
        with refused(path):
            write_file(path, sealed(weights_of(model)), durably=False)

    def snapshot(self, state: State) -> None:
        """Write snapshots/STEP and weights.safetensors, durably."""
        with refused(self.path):
            os.fsync(self._metrics.fileno())
        length = os.fstat(self._metrics.fileno()).st_size
        weights = sealed(weights_of(state.model))
        write_durably(self.path / "weights.safetensors", weights)
        position = replace(state.position, metrics_bytes=length)
        write_snapshot(self.path / "snapshots", replace(state, position=position), weights)


def history_step(path: Path) -> int | None:
    """The step whose weights a file of the history holds; None for a file that no training has named.

    >>> history_step(Path("history/000000040.safetensors")), history_step(Path("history/best.safetensors"))
    (40, None)
    """
    return int(path.stem) if _POINT.fullmatch(path.name) else None


def history_steps(model: nn.Module, total: int) -> list[int]:
    """At which steps the weights are kept: evenly from first to last, within 160 files and 40 MB.

    A point costs as much as a step of a small network, so beyond twenty points only every fortieth step is one.

    >>> history_steps(nn.Linear(2, 1), 4)
    [0, 1, 2, 3, 4]
    """
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    points = min(HISTORY_POINTS, HISTORY_BYTES // max(size, 1), total + 1, max(21, total // 40))
    return [int(step) for step in np.unique(np.linspace(0, total, points).round())] if points > 1 else []
