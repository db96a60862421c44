"""Writers: write a run folder durably, by one training at a time, and its metrics as lines with checksums."""

import json
import os
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self, TypeGuard

import numpy as np
from filelock import lock_descriptor
from torch import nn

from convscope.errors import RunError
from convscope.files import make_folder, open_own, open_to_read, read_file, refuse_link, write_file
from convscope.json_values import parse_json
from convscope.models.run_config import config_text
from convscope.models.weights_files import sealed
from convscope.training.events import LoggedEvent
from convscope.training.snapshots import (
    Position,
    State,
    keep_replay_points,
    refused,
    weights_of,
    write_durably,
    write_replay_point,
    write_snapshot,
)

METRICS = "metrics.jsonl"
WHOLE = ("step", "epoch")
"""The values of an event that are integers."""
REAL = ("loss", "accuracy", "test_loss", "test_accuracy", "lr", "seconds", "skipped")
"""The values of an event that are numbers, if present."""
_CHECKED = re.compile(rb'\A(.*), "crc32": "([0-9a-f]{8})"\}\Z', re.DOTALL)
_LARGEST = 1 << 63


@dataclass(frozen=True, slots=True)
class StoredMetrics:
    """The content of metrics.jsonl."""

    lines: tuple[tuple[bytes, LoggedEvent], ...]
    """Each intact line, without its line break, and its event."""
    damaged: tuple[int, ...]
    """Line numbers of damaged lines, from 1."""

    @property
    def events(self) -> list[LoggedEvent]:
        """The events in order."""
        return [event for _, event in self.lines]

    @property
    def size(self) -> int:
        """Size of the intact lines in bytes."""
        return sum(len(line) + 1 for line, _ in self.lines)


def metrics_line(event: Mapping[str, object]) -> bytes:
    """An event as a line of metrics.jsonl.

    >>> metrics_line({"event": "train", "step": 1, "epoch": 1})
    b'{"event": "train", "step": 1, "epoch": 1, "crc32": "bbcb045a"}\\n'
    """
    text = json.dumps(event).encode()
    return text[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(text)


def read_metrics(run: Path) -> StoredMetrics:
    """The intact lines of a run's metrics.jsonl; empty if there is no such file.

    An unfinished last line, as a crash or a running training leaves it, counts neither as intact nor as damaged.
    Lines of earlier versions have no checksum; they are accepted if they have the form of an event.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    try:
        content = read_file(run / METRICS)
    except FileNotFoundError:
        return StoredMetrics((), ())
    lines, damaged = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        event = _event(line)
        if event is None:
            damaged.append(number)
        else:
            lines.append((line, event))
    return StoredMetrics(tuple(lines), tuple(damaged))


def _event(line: bytes) -> LoggedEvent | None:
    """The event of a line, None for a damaged one."""
    checked = _CHECKED.match(line)
    if checked is not None:
        line = checked[1] + b"}"
        if zlib.crc32(line) != int(checked[2], 16):
            return None
    try:
        event = parse_json(line)
    except ValueError:
        return None
    if isinstance(event, dict):
        event.pop("crc32", None)  # present if only the checksum of the line is damaged
    return event if _is_event(event) else None


def _is_event(value: object) -> TypeGuard[LoggedEvent]:
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return False
    real = all(type(value.get(name, 0)) is float or _is_whole(value.get(name, 0)) for name in REAL)
    return real and all(_is_whole(value.get(name)) for name in WHOLE)


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < _LARGEST


HISTORY_POINTS = 160
"""Number of history points, spread evenly over the training."""
HISTORY_BYTES = 40_000_000
REPLAY_POINTS = 20
"""Number of history points at which the whole state is kept, so that steps can be repeated from there."""
REPLAY_APART = 100
"""Fewest steps between two of them: fewer are repeated quickly."""
REPLAY_BYTES = 40_000_000
_POINT = re.compile(r"\d{9,18}\.safetensors", re.ASCII)
_PART = re.compile(r"\.\d{9,18}\.safetensors\.part|\d{9,18}\.part", re.ASCII)
"""Name of a half-written history point, left by a kill of this or an earlier version."""
BUSY = "another training is writing to {}; wait for it to end or choose another --out."
STEPPED = 4
"""Extra history points: one for each this many single steps, or steps added by more epochs."""


def is_held(path: Path) -> bool:
    """Whether a training is currently writing to this folder."""
    try:
        with open_to_read(path / "lock") as lock:
            return not lock_descriptor(lock.fileno(), blocking=False)
    except OSError:
        return False


class Writer:
    """Receives a training's results; this base class writes nothing (with several processes only the first writes)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def configure(self, config: Mapping[str, object]) -> None:
        """Set the configuration of the training."""

    def begin(self, position: Position, points: Collection[int], others: int) -> int:  # noqa: ARG002  # the base class writes nothing
        """Continue from `position`; anything written after it is deleted.

        Args:
            position: Position of the training.
            points: The steps of its history.
            others: Maximum number of other steps in the history; any more are thinned out evenly.

        Returns:
            The number of other steps that are left.
        """
        return 0

    def log(self, event: LoggedEvent) -> None:
        """Add a line to the metrics."""

    def keep(self, step: int, model: nn.Module) -> None:
        """Add the weights to the history."""

    def keep_state(self, state: State) -> None:
        """Add the whole state to the history, to repeat steps from."""

    def snapshot(self, state: State) -> None:
        """Make everything up to now durable."""


class RunWriter(Writer):
    """Writes a run folder; entering it takes the folder's lock.

    The folder may come from elsewhere, so no link in it is followed and only files named by a training are removed.

    Raises:
        RunError: the folder cannot be written, or another training is writing to it.
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
                locked = lock_descriptor(self._lock.fileno(), blocking=False)
            except OSError as error:
                raise RunError(
                    f"{error.filename or self.path} cannot be written: {error.strerror or error}; choose another --out."
                ) from None
            if not locked:
                raise RunError(BUSY.format(self.path))
            opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # on a full disk, the failed write has already raised its own error
            self._metrics.close()
        self._lock.close()

    def configure(self, config: Mapping[str, object]) -> None:
        """Write config.json."""
        write_durably(self.path / "config.json", config_text(config).encode())

    def begin(self, position: Position, points: Collection[int], others: int) -> int:
        """Cut metrics and history back to `position`, and drop damaged lines of the metrics."""
        with refused(self.path):
            self._cut_metrics(position)
            keep_replay_points(self.path / "history", position.step, REPLAY_POINTS)
            other_points = []
            for path in sorted((self.path / "history").iterdir()):
                step = history_step(path)
                if (step is not None and step > position.step) or _PART.fullmatch(path.name):
                    path.unlink()
                elif step is not None and step not in points:
                    other_points.append(path)
            remaining = other_points[:: -(-len(other_points) // others)] if others and other_points else []
            for path in set(other_points) - set(remaining):
                path.unlink()
        return len(remaining)

    def _cut_metrics(self, position: Position) -> None:
        """Keep the intact lines up to `position`; a file with several hard links is replaced by a new one."""
        status = os.fstat(self._metrics.fileno())
        lines = [line for line, event in read_metrics(self.path).lines if event["step"] <= position.step]
        content = b"".join(line + b"\n" for line in lines)
        if status.st_nlink == 1 and status.st_size == len(content):
            return
        self._metrics.close()  # first, as Windows replaces no open file
        write_file(self.path / METRICS, content)
        self._metrics = open_own(self.path / METRICS)

    def log(self, event: LoggedEvent) -> None:
        """Append a line to metrics.jsonl."""
        with refused(self.path / METRICS):
            self._metrics.write(metrics_line(event))
            self._metrics.flush()

    def keep(self, step: int, model: nn.Module) -> None:
        """Write history/STEP.safetensors."""
        path = self.path / "history" / f"{step:09d}.safetensors"
        with refused(path):
            write_file(path, sealed(weights_of(model)), durably=False)

    def keep_state(self, state: State) -> None:
        """Write history/STEP, a folder with the files of a snapshot."""
        write_replay_point(self.path / "history", state, sealed(weights_of(state.model)))

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
    """The step of a history file; None for a file with another name.

    >>> history_step(Path("history/000000040.safetensors")), history_step(Path("history/best.safetensors"))
    (40, None)
    """
    return int(path.stem) if _POINT.fullmatch(path.name) else None


def history_steps(model: nn.Module, total: int) -> list[int]:
    """The steps at which weights are kept: evenly from first to last, within 160 files and 40 MB.

    A point takes as long as a step of a small network, so beyond twenty points only every fortieth step is one.

    >>> history_steps(nn.Linear(2, 1), 4)
    [0, 1, 2, 3, 4]
    """
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    points = min(HISTORY_POINTS, HISTORY_BYTES // max(size, 1), total + 1, max(21, total // 40))
    return [int(step) for step in np.unique(np.linspace(0, total, points).round())] if points > 1 else []


def replay_steps(model: nn.Module, points: Sequence[int]) -> list[int]:
    """The history points at which the whole state is kept: some 20, evenly spaced, within 40 MB, 100 steps apart.

    >>> replay_steps(nn.Linear(2, 1), history_steps(nn.Linear(2, 1), 1000))
    [83, 208, 292, 417, 500, 583, 708, 792, 917]
    """
    size = 3 * sum(value.numel() * value.element_size() for value in model.state_dict().values())  # two of an optimizer
    inner = list(points)[1:-1]
    count = min(
        REPLAY_POINTS, REPLAY_BYTES // max(size, 1), points[-1] // REPLAY_APART - 1 if points else 0, len(inner)
    )
    places = np.linspace(0, len(points) - 1, count + 2).round().astype(int)[1:-1] if count > 0 else ()
    return [points[place] for place in places]
