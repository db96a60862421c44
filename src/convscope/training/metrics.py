"""Metrics: the lines of metrics.jsonl, each with a checksum, so that damaged ones are detected and left out."""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscope.files import read_file
from convscope.json_values import parse_json

METRICS = "metrics.jsonl"
WHOLE = ("step", "epoch")
"""The values of an event that are integers."""
REAL = ("loss", "accuracy", "test_loss", "test_accuracy", "lr", "seconds", "skipped")
"""The values of an event that are numbers, if present."""
_CHECKED = re.compile(rb'\A(.*), "crc32": "([0-9a-f]{8})"\}\Z', re.DOTALL)
_LARGEST = 1 << 63


@dataclass(frozen=True, slots=True)
class Metrics:
    """The content of metrics.jsonl."""

    lines: tuple[tuple[bytes, dict[str, Any]], ...]
    """Each intact line, without its line break, and its event."""
    damaged: tuple[int, ...]
    """Line numbers of damaged lines, from 1."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in order."""
        return [event for _, event in self.lines]

    @property
    def size(self) -> int:
        """Size of the intact lines in bytes."""
        return sum(len(line) + 1 for line, _ in self.lines)


def metrics_line(event: Mapping[str, Any]) -> bytes:
    """An event as a line of metrics.jsonl.

    >>> metrics_line({"event": "train", "step": 1, "epoch": 1})
    b'{"event": "train", "step": 1, "epoch": 1, "crc32": "bbcb045a"}\\n'
    """
    text = json.dumps(event).encode()
    return text[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(text)


def read_metrics(run: Path) -> Metrics:
    """The intact lines of a run's metrics.jsonl; empty if there is no such file.

    An unfinished last line, as a crash or a running training leaves it, counts neither as intact nor as damaged.
    Lines of earlier versions have no checksum; they are accepted if they have the form of an event.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    try:
        content = read_file(run / METRICS)
    except FileNotFoundError:
        return Metrics((), ())
    lines, damaged = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        event = _event(line)
        if event is None:
            damaged.append(number)
        else:
            lines.append((line, event))
    return Metrics(tuple(lines), tuple(damaged))


def _event(line: bytes) -> dict[str, Any] | None:
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
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    whole = all(type(event.get(name)) is int and abs(event[name]) < _LARGEST for name in WHOLE)
    real = all(type(event.get(name, 0)) is float or _is_whole(event.get(name, 0)) for name in REAL)
    return event if whole and real else None


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < _LARGEST
