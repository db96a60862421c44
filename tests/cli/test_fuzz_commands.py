"""The command line under generated invocations: every one ends, by a result or a sentence, and never in a traceback.

Seeded by the command and a number, so that a new command leaves the lines of the others as they are. A short run is
part of every test run, the long one of `make fuzz`. The commands are those of the command line: none can be forgotten.
"""

import io
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from convscope.cli import main
from convscope.escaping import STEERING
from generated_commands import COMMANDS, invocation
from generated_files import make_files

SHORT, LONG = 2, 24
"""Lines of each command."""
SECONDS = 120
"""Until a command counts as hanging: the slowest takes about five on an idle machine."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root, before = tmp_path_factory.mktemp("fuzz"), Path.cwd()
    os.chdir(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        patch.setenv("CONVSCOPE_DATA", str(root))
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing is downloaded
        make_files(root)
        yield root
    os.chdir(before)


class HangError(BaseException):
    """A command that does not end; no OSError as TimeoutError is, which commands answer with a sentence."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"not done within {seconds} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def run(command: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how a command ended; nothing where it is as it should be."""
    words = invocation(command, number)
    monkeypatch.setattr(sys, "argv", ["convscope", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO("2\nx\n" * 3))  # answers to questions of lessons
    monkeypatch.setattr("convscope.server.launch.Explorer.wait", lambda explorer: explorer.close())  # Ctrl-C at once
    message, status = "", 0
    try:
        with within(SECONDS):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException as error:  # whatever it is, a person would see a traceback
        message = f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error)[-3:])}"
    out, err = capsys.readouterr()
    if not message and status not in {0, 1, 2}:
        message = f"status {status}"
    if not message and status and not (out + err).strip():
        message = "no word of why"
    if not message and STEERING.search((out + err).replace("\n", "")):
        message = f"steers the terminal: {STEERING.search((out + err).replace(chr(10), ''))}"
    return message and f"{number}: {words!r}\n  {message}"


@pytest.mark.filterwarnings("ignore")
def test_generated_commands_end_in_results_and_sentences(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = itertools.product(COMMANDS, range(SHORT))
    wrong = [message for name, number in lines if (message := run(name, number, monkeypatch, capsys))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_thousand_generated_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    numbers = range(SHORT, SHORT + LONG)
    wrong = [message for number in numbers if (message := run(command, number, monkeypatch, capsys))]
    assert not wrong, "\n".join(wrong)


def test_a_planted_error_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("planted")

    number = next(number for number in range(1000) if invocation("models", number) == ["models"])
    assert not run("models", number, monkeypatch, capsys)
    monkeypatch.setattr("convscope.cli.catalog.show_table", broken)
    assert "IndexError: planted" in run("models", number, monkeypatch, capsys)


def test_a_command_that_hangs_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = next(number for number in range(1000) if invocation("models", number) == ["models"])
    monkeypatch.setattr(f"{__name__}.SECONDS", 1)
    monkeypatch.setattr("convscope.cli.catalog.show_table", lambda *_, **__: time.sleep(30))
    assert "HangError" in run("models", number, monkeypatch, capsys)
