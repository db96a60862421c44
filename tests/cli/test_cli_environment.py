"""The command line in unusual environments: closed streams, odd terminals, Ctrl-C, variables that make no sense."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WAITS = """
import importlib.abc, signal, sys

module, sys.argv[1:] = sys.argv[1], ["models"]


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == module:
            signal.raise_signal(signal.SIGINT)


signal.signal(signal.SIGINT, signal.default_int_handler)
from convscope.__main__ import main

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("module", ["typer", "convscope.cli.console", "convscope.cli.catalog"])
def test_ctrl_c_while_the_command_line_is_loaded_shows_no_traceback(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", WAITS, module], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in {130, -signal.SIGINT}


@pytest.mark.parametrize("columns", ["0", "1", "99999999999999999999", "-1", "wide"])
def test_a_terminal_of_no_usable_size_gets_the_whole_message(columns: str) -> None:
    command = [sys.executable, "-m", "convscope", "trace", "--nope"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": columns})
    assert (done.returncode, "No such option: --nope" in done.stderr) == (2, True)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes the streams")
@pytest.mark.parametrize(
    ("command", "closed", "status"),
    [
        ("models --json", ">&-", 0),
        ("models", "<&- >&- 2>&-", 0),
        ("trace --no", "2>&-", 2),
        ("filter '1 2; 3 4' --kernel 1 --out o.png", "<&- >&- 2>&-", 0),
    ],
)
def test_a_closed_stream_is_no_obstacle(command: str, closed: str, status: int, tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m convscope {command} {closed}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ("Traceback" in done.stderr, done.returncode) == (False, status)
    if "o.png" in command:
        assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("backend", ["module://no_such_backend", "nonsense"])
def test_figures_are_written_whatever_backend_the_environment_names(tmp_path: Path, backend: str) -> None:
    command = [sys.executable, "-m", "convscope", "filter", "1 2; 3 4", "--kernel", "1", "--out", "o.png"]
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr, (tmp_path / "o.png").exists()) == (0, "", True)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
@pytest.mark.parametrize("variable", ["MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME"])
def test_a_loop_of_links_in_the_environment_is_one_sentence_at_most(tmp_path: Path, variable: str) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"} | {variable: str(loop)}
    command = [sys.executable, "-m", "convscope", "filter", "1 2; 3 4", "--kernel", "1", "--out", "o.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    path, message = done.stderr.removeprefix(f"error: {loop}").split(": ")
    assert path in {"", "/matplotlib", "/.config/matplotlib"}
    assert message == f"too many levels of symbolic links; the variable {variable} names it.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_model_loads_although_the_home_folder_is_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    environment = {**os.environ, "HOME": str(tmp_path / "loop")}
    command = [sys.executable, "-m", "convscope", "explain", "crosses", "crosses:plus", "--at", "conv1:0,0,0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, "✓ proved" in done.stdout) == (0, True), done.stderr
