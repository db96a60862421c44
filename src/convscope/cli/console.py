"""Console: the output of the command line: tables, lines, progress, JSON, and figures in files. No torch.

Everything that a command prints passes through here, where names of files, classes, layers and runs are escaped:
control characters and newlines are spelled out, and Rich interprets no markup in them. A console without UTF-8, such as
a pipe on Windows, gets the nearest ASCII.
"""

import codecs
import io
import itertools
import json
import logging
import os
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

import convscope as cs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TerminalOutput(Console):
    """A console whose errors name the stream, and which leaves a broken pipe to its caller."""

    def print(self, *objects: Any, **style: Any) -> None:
        """Print like Rich; an OSError names the stream."""
        with _named("standard error" if self.stderr else "standard output"):
            super().print(*objects, **style)

    def on_broken_pipe(self) -> None:
        """Re-raise the error for which Rich would end the process."""
        raise  # noqa: PLE0704  # called by Rich while it handles a BrokenPipeError


@contextmanager
def _named(stream: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = stream
        raise


PLAIN = str.maketrans({
    "−": "-", "─": "-", "–": "-", "×": "x", "∗": "*", "÷": "/", "·": ".", "…": "...", "√": "sqrt ", "²": "^2",
    "³": "^3", "±": "+-", "≤": "<=", "≥": ">=", "≠": "!=", "←": "<-", "→": "->", "Σ": "sum", "π": "pi", "₀": "0",
    "₁": "1", "₂": "2", "✓": "ok", "✗": "x", "∞": "inf", "σ": "sigma", "⌊": "floor(", "⌋": ")", "⌈": "ceil(", "⌉": ")",
})  # fmt: skip
"""What is printed for the signs of a calculation where the console cannot show them."""


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """The handler of what cannot be encoded: the nearest ASCII for convscope's own signs, an escape for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def print_in_any_encoding() -> None:
    """Let standard output and standard error take every character, whatever their encoding."""
    codecs.register_error("convscope-nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="convscope-nearest")


def open_missing_streams() -> None:
    """Let streams that were closed when the process began lead nowhere.

    Python then has None in their place; and the next file that is opened would get the number of standard output, where
    a library prints into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def drop_output() -> None:
    """Discard all further output: standard output is closed or full, and flushing its buffer would fail again."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # the stream of a notebook or a test
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), number)


def _ignore_unusable_sizes() -> None:
    """Remove sizes of the terminal from the environment with which Rich prints nothing, or fails."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and 20 <= int(text) <= 1000):
            os.environ.pop(name, None)


_ignore_unusable_sizes()  # Rich reads them when a console is made
out = TerminalOutput(highlight=False, soft_wrap=True)
err = TerminalOutput(stderr=True, highlight=False, soft_wrap=True)
_noted: set[str] = set()


def out_is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def hush() -> None:
    """Print only errors from now on: another process prints the rest."""
    out.quiet = True


def hushed() -> bool:
    """Whether another process prints and draws."""
    return out.quiet


def say(line: str = "") -> None:
    """Print one line to standard output."""
    out.print(Text(cs.spelled(line)))


def show_text(text: str) -> None:
    """Print the text of a result, whose newlines are convscope's own; those in names are already escaped."""
    out.print(Text("\n".join(map(cs.spelled, text.split("\n")))))


def remark(line: str) -> None:
    """Print one line to standard error; a command prints the same note or warning only once."""
    if line.startswith(("note: ", "warning: ")):
        if line in _noted:
            return
        _noted.add(line)
    err.print(Text(cs.brief(line)))


@contextmanager
def notes_on_data() -> Iterator[None]:
    """Within it, assumptions made by data loaders (`Dataset.notes`) are printed as notes."""
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


def show_json(value: object) -> None:
    """Print as JSON; NaN and infinities as the strings "nan", "inf", "-inf"."""
    if hushed():
        return
    text = cs.json_text(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # then every sign is written as JSON's own escape
        text = re.sub(r"[^\x00-\x7f]", lambda sign: json.dumps(sign.group())[1:-1], text)
    with _named("standard output"):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under a dim header; the columns named in `right` are right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(Text(cs.spelled(column)), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cs.spelled(cell)) for cell in row))
    (out if out.is_terminal else TerminalOutput(width=200, highlight=False, quiet=out.quiet)).print(table)


def duration(seconds: float) -> str:
    """Seconds in human-readable form.

    >>> duration(3.21), duration(75), duration(7260)
    ('3.2 s', '1:15', '2:01:00')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{remainder:02d}" if hours else f"{minutes}:{remainder:02d}"


class Bars(Progress):
    """Progress bars on a terminal, and nothing elsewhere, where releases of Rich before 15 write an empty line."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, console=err, transient=True, disable=hushed() or not err.is_terminal)

    def stop(self) -> None:
        """Remove the bars, if there are any."""
        if not self.disable:
            super().stop()


@contextmanager
def reading_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress callback: draws bars on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(30), MofNCompleteColumn())
    with Bars(*columns) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(activity: str, done: int, total: int) -> None:
            if activity not in tasks:
                tasks[activity] = bars.add_task(cs.spelled(activity), total=total or None)
            bars.update(tasks[activity], completed=done, total=total or None)

        yield tell


TIMELESS: Mapping[str, dict[str, str | None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Format -> options of its writer, so that the same figure gives the same file."""

Out = Annotated[
    Path | None, typer.Option(help="Output file: .png, .svg or .pdf. By default a PNG in the current folder.")
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a figure is written: to the file that --out names, else to a free name in the current folder."""

    path: Path
    replaces: bool
    """Whether a file of this name is replaced, as --out asks."""

    def free(self, content: bytes) -> Path:
        """The path, or a numbered one where another picture has it: pictures are not lost by a second command."""
        if self.replaces:
            return self.path
        return next(path for path in _numbered(self.path) if not path.exists() or _holds(path, content))


def free_path(name: str) -> Path:
    """A path in the current folder that no file has: the name, or a numbered one."""
    return next(path for path in _numbered(Path(name)) if not os.path.lexists(path))


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def target(out: Path | None, *words: str | None) -> Target:
    """The figure's target; raises before any work is done if it cannot be written."""
    path = out or Path("-".join(_short(word) for word in words if word) + ".png")
    if path.suffix.lower().lstrip(".") not in TIMELESS:
        raise cs.UsageError(f"unsupported figure format {path.suffix!r} of {path}; use .png, .svg or .pdf.")
    cs.check_destination(path)
    return Target(path, replaces=out is not None)


def _short(word: str) -> str:
    """A model, image or layer as part of a file name."""
    path = Path(word)
    name = (
        path.stem if path.is_file() else word if ":" in word else Path(os.path.realpath(path)).name
    )  # not resolve(), which raises for a link to itself
    return re.sub(r"[^\w.]+", "-", name).strip("-.")


def save(figure: "Figure", to: Target) -> Path:
    """Save the figure reproducibly."""
    return to.path if hushed() else _saved(figure, to)[0]


def _saved(figure: "Figure", to: Target) -> tuple[Path, bytes]:
    """The figure's file and its content; it is drawn in memory first, because the disk may be full."""
    form, buffer = to.path.suffix.lower().lstrip("."), BytesIO()
    figure.savefig(buffer, format=form, metadata=TIMELESS[form])
    path = to.free(buffer.getvalue())
    try:
        cs.write_whole(path, buffer.getvalue())
    except OSError as error:
        raise cs.ConvscopeError(f"{path} cannot be written: {error.strerror or error}.") from None
    return path, buffer.getvalue()


def write(figure: "Figure", to: Target) -> None:
    """Save the figure and print its path and size."""
    if hushed():
        return
    path, content = _saved(figure, to)
    width, height = figure.get_size_inches()
    size = f"{round(width, 1)}x{round(height, 1)} inches"
    if path.suffix.lower() == ".png":
        across, down = struct.unpack(">II", content[16:24])  # as written: releases of matplotlib round differently
        size = f"{across}x{down} pixels"
    say(f"wrote {path} ({size}, {max(1, round(len(content) / 1000)):,} kB)")
