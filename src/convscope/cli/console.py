"""Console: how the command line speaks: tables, lines, progress, JSON. Knows Rich; no torch, no data, no models.

Everything that a command prints passes through here, where names of files, classes, layers and runs lose what would
steer the terminal: control characters and newlines are spelled out, and Rich reads no markup in them.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

import convscope as cs


class Output(Console):
    """A console whose failures name the stream, and which leaves it to its caller what a closed one means."""

    def print(self, *objects: Any, **style: Any) -> None:
        """As Rich prints, or an OSError that says where."""
        with _named("standard error" if self.stderr else "standard output"):
            super().print(*objects, **style)

    def on_broken_pipe(self) -> None:
        """Raise what Rich would end the process for."""
        raise  # noqa: PLE0704  # Rich calls this where it has caught a BrokenPipeError


@contextmanager
def _named(stream: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = stream
        raise


def drop_output() -> None:
    """Print nowhere from here on: standard output is closed or full, and what waits in it would fail once more."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # a notebook's, or that of a test
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), number)


out = Output(highlight=False, soft_wrap=True)
err = Output(stderr=True, highlight=False, soft_wrap=True)
_noted: set[str] = set()


def out_is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def hush() -> None:
    """From here on only errors are told: another process does the talking."""
    out.quiet = True


def hushed() -> bool:
    """Whether another process does the talking, and the drawing."""
    return out.quiet


def say(line: str = "") -> None:
    """One line to standard output."""
    out.print(Text(cs.spelled(line)))


def show_text(text: str) -> None:
    """Print the text of a result, whose newlines are convscope's own: those of names are spelled out in it already."""
    out.print(Text("\n".join(map(cs.spelled, text.split("\n")))))


def remark(line: str) -> None:
    """One line to standard error: what is worth knowing and no result; of a command, the same note or warning once."""
    if line.startswith(("note: ", "warning: ")):
        if line in _noted:
            return
        _noted.add(line)
    err.print(Text(cs.spelled(line)))


@contextmanager
def notes_on_data() -> Iterator[None]:
    """Within it, what loaders of data assume is a line of the output: `Dataset.notes`."""
    log, handler = logging.getLogger("convscope.data"), _Notes()
    level = log.level
    _noted.clear()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not hushed():
            remark(f"note: {record.getMessage()}")


def show_json(value: Any) -> None:
    """Print as JSON; NaN and infinities as the strings "nan", "inf", "-inf"."""
    if hushed():
        return
    with _named("standard output"):
        sys.stdout.write(cs.json_text(value) + "\n")
        sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under a quiet header; the columns named in `right` are aligned by their last digit."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(Text(cs.spelled(column)), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cs.spelled(cell)) for cell in row))
    (out if out.is_terminal else Output(width=200, highlight=False, quiet=out.quiet)).print(table)


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> duration(3.21), duration(75), duration(7260)
    ('3.2 s', '1:15', '2:01:00')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def reading_progress() -> Iterator[Any]:
    """A callback for work that tells its progress: bars on a terminal, silence elsewhere."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(30), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=hushed() or not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(cs.spelled(what), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield tell
