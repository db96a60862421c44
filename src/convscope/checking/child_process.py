"""Checks a function of a file in a child process, so that the parent survives whatever it does.

The child imports the file as `python FILE` would find it, checks the function and writes the answer as JSON. A watchdog
inside it ends it after a time, also in the middle of a NumPy call, and writes the line it was at.
"""

import faulthandler
import importlib.util
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from convscope.checking import calling
from convscope.checking.calling import TimeExceeded, check_limit, own_lines_of, quiet, sentence, time_limit
from convscope.checking.checker import check
from convscope.errors import ConvscopeError, UnknownName, UsageError
from convscope.type_checks import kind_of

GRACE = 5.0
"""Seconds that a call may take beyond the limit, so that the interruption between two instructions comes first."""
START = 60.0
"""Seconds that Python, NumPy and what the file imports may take to start, and the check between two calls."""


class CheckFailed(ConvscopeError):
    """A file or function that could not be checked: it fails on import, or does not finish."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The answer for a function of a file."""

    right: bool
    text: str
    json: dict[str, Any]


def check_file(
    spec: str,
    as_: str | None = None,
    *,
    layout: str | None = None,
    seconds: float = 10.0,
    strict: bool = False,
) -> FileCheck:
    """Check `file.py:function` in a child process.

    Args:
        spec: The file and the function in it.
        as_, layout, seconds, strict: As for `check`; importing the file has the same time limit.

    Raises:
        UsageError: no such file, function, operation or layout.
        CheckFailed: the file cannot be imported, or the child had to be ended.
    """
    path, name = _split(spec)
    check_limit(seconds)
    settings = {"layout": layout, "seconds": seconds, "strict": strict}
    request = json.dumps({"path": str(path), "name": name, "as": as_, **settings})
    command = [sys.executable, "-P", "-m", "convscope.checking.child_process", request]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MPLBACKEND": "Agg"}
    # A file, not a pipe: a pipe is open until the last process that the function started has ended.
    with (
        tempfile.TemporaryFile() as answers,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=answers,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=None if sys.platform == "win32" else 0,
        ) as child,
    ):
        with suppress(subprocess.TimeoutExpired):
            try:
                child.wait(2 * (seconds + GRACE) + START)
            finally:  # Ctrl-C ends it too, with the processes that it started
                _end(child)
        child.wait()
        answers.seek(0)
        output = answers.read().decode("utf-8", "replace")
    return _read(output, child.returncode, path, seconds)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child; where processes have groups, with those that it started."""
    if sys.platform == "win32":
        child.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _split(spec: str) -> tuple[Path, str]:
    file_name, _, name = spec.rpartition(":")
    if not file_name or not name or not file_name.endswith(".py"):
        raise UsageError(f"{spec!r} names no function of a file; write file.py:function.")
    path = Path(file_name).expanduser()
    try:
        exists = path.is_file()
    except (OSError, ValueError) as error:
        raise UsageError(f"{file_name!r} cannot be the path of a file: {error}.") from None
    if not exists:
        raise UsageError(f"there is no file {file_name}; check the path.")
    return path.absolute(), name


def _read(output: str, status: int, path: Path, seconds: float) -> FileCheck:
    """The child's answer; an error if it gave none."""
    *_, last = output.splitlines() or [""]
    try:
        answer = json.loads(last)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and "text" in answer:
        return FileCheck(answer["right"], answer["text"], answer["json"])
    if isinstance(answer, dict) and "error" in answer:
        raise (UsageError if answer["usage"] else CheckFailed)(answer["error"])
    if "Timeout" in output:
        lines = re.findall(r'File "(.*)", line (\d+) in (\w+)', output)
        location = next((f", at line {line} in {name}" for file, line, name in lines if file == str(path)), "")
        raise CheckFailed(f"{path.name} did not finish within {seconds:g} s and was stopped{location}.")
    ended = f"with signal {-status}" if status < 0 else f"with status {status}"
    raise CheckFailed(f"the process that checked {path.name} ended {ended} without an answer.")


def load(path: Path, name: str) -> Callable[..., object]:
    """The function that a file defines.

    Raises:
        UnknownName: the file has no function of this name.
        CheckFailed: it cannot be imported.
    """
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "the name ends in .py"
    assert spec.loader is not None, "a file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        with quiet():
            spec.loader.exec_module(module)
    except SyntaxError as error:
        location = path.name if error.filename in {str(path), None} else str(error.filename)
        location += f", line {error.lineno}" if error.lineno else ""
        raise CheckFailed(f"{location} is not valid Python: {error.msg}.") from None
    except (Exception, SystemExit) as error:
        lines = own_lines_of(error.__traceback__, str(path))
        failing_line = f" ({lines[-1]})" if lines else ""
        raise CheckFailed(f"{path.name} fails when it is imported: {sentence(error)}{failing_line}.") from None
    try:
        function = reduce(getattr, name.split("."), module)
    except AttributeError:
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise UnknownName(f"function in {path.name}", name, functions) from None
    if not callable(function):
        raise UsageError(f"{name} in {path.name} is not a function but {kind_of(function)}.")
    return function


def answer(request: dict[str, Any], watch: Callable[[float | None], None]) -> dict[str, Any]:
    """The child's output: the check, or an error.

    Args:
        watch: Sets the watchdog to the seconds that the file's code may take, or with None to those of the check.
    """
    path, seconds = Path(request["path"]), request["seconds"]
    if b"torch" in path.read_bytes():
        importlib.import_module("torch")  # outside the limit: on a busy machine its import alone takes seconds
    try:
        watch(seconds)
        with time_limit(seconds):
            function = load(path, request["name"])
        watch(None)
        calling.watchdog = watch
        result = check(function, request["as"], layout=request["layout"], seconds=seconds, strict=request["strict"])
    except TimeExceeded as error:
        lines = own_lines_of(error.__traceback__, str(path))
        failing_line = f" ({lines[-1]})" if lines else ""
        return {
            "error": f"importing {path.name} took more than {seconds:g} s and was stopped{failing_line}.",
            "usage": False,
        }
    except ConvscopeError as error:
        return {"error": str(error), "usage": isinstance(error, UsageError)}
    return {"right": result.right, "text": result.to_text(), "json": result.to_json()}


def main() -> None:
    """Answer the request of the command line on the original standard output; the function's prints are discarded."""
    pipe = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)

    def watch(seconds: float | None) -> None:
        faulthandler.dump_traceback_later(START if seconds is None else seconds + GRACE, exit=True, file=pipe)

    request = json.loads(sys.argv[1])
    sys.argv = [request["path"]]
    text = json.dumps(answer(request, watch))
    faulthandler.cancel_dump_traceback_later()
    with os.fdopen(pipe, "w", encoding="utf-8") as out:
        out.write(f"\n{text}\n")
    os._exit(0)  # threads and exit handlers of the file are not waited for


if __name__ == "__main__":
    main()
