"""The command `convscope check`: functions that never return, end their process or start others; odd files."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convscope as cs
from commands import Commands


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "convscope", "check", *words], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learner") / "mine.py"
    path.write_text(
        "import numpy as np\nprint('loading')\n\n"
        "def relu(x):\n    print('called')\n    return np.maximum(x, 0)\n\n"
        "def conv2d(image, kernel):\n    return np.zeros((1, 1))\n\n"
        "def endless(x):\n    return sum(iter(int, 1))\n\n"
        "def ends(x):\n    import os\n    os._exit(3)\n"
    )
    return path


def test_the_command_passes_a_right_function(mine: Path) -> None:
    done = command(f"{mine}:relu")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("relu is a correct relu: it agrees with the reference on all 8 calls.\n")


def test_the_command_answers_in_json_with_status_1(convscope: Commands, mine: Path) -> None:
    done = convscope("check", f"{mine}:conv2d", "--json")
    assert done.status == 1
    answer = json.loads(done.out)
    assert (answer["right"], answer["operation"], answer["result"]) == (False, "conv2d", "out")


def test_the_command_ends_a_function_that_never_returns_to_python(mine: Path) -> None:
    done = command(f"{mine}:endless", "--as", "relu", "--seconds", "0.5")
    assert done.returncode == 1
    assert "mine.py did not finish within 0.5 s and was stopped, at line 12 in endless." in done.stderr


def test_the_command_survives_a_function_that_ends_its_process(convscope: Commands, mine: Path) -> None:
    done = convscope("check", f"{mine}:ends", "--as", "relu")
    assert done.status == 1
    assert "the process that checked mine.py ended with status 3 without an answer" in done.err


@pytest.mark.parametrize(
    ("text", "name", "status", "message"),
    [
        ("def f(:", "f", 1, "line 1 is not valid Python"),
        ("import nothing_of_this_name", "f", 1, "fails when it is imported: ModuleNotFoundError"),
        ("while True:\n    pass", "f", 1, "importing broken.py took more than 0.5 s and was stopped (broken.py, line"),
        ("def relu(x): return x", "rely", 2, "no function in broken.py is called 'rely'; did you mean 'relu'?"),
        ("\0", "f", 1, "broken.py is not valid Python: source code string cannot contain null bytes"),
        ("relu = 3", "relu", 2, "relu in broken.py is not a function but an int"),
    ],
)
def test_files_that_cannot_be_checked(
    convscope: Commands, tmp_path: Path, *, text: str, name: str, status: int, message: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    done = convscope("check", f"{path}:{name}", "--seconds", "0.5")
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("spec", ["mine.py", "mine:relu", "nothing.py:relu", f"{'a' * 5000}.py:relu"])
def test_names_that_are_no_file(spec: str) -> None:
    with pytest.raises(cs.UsageError):
        cs.check_file(spec)


def test_a_missing_file_is_named_in_a_sentence() -> None:
    with pytest.raises(cs.UsageError, match=r"^there is no file nothing\.py; check the path\.$"):
        cs.check_file("nothing.py:relu")


def test_processes_that_a_function_starts_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "forks.py"
    path.write_text(
        "import os, time\n"
        "def relu(x, started=[]):\n"
        "    if not started:\n"
        "        started.append(os.fork())\n"
        "        if started == [0]:\n"
        "            open(__file__ + '.pid', 'w').write(str(os.getpid()))\n"
        "            time.sleep(600)\n"
        "        while not os.path.exists(__file__ + '.pid'):\n"
        "            time.sleep(0.01)\n"
        "    return x * (x > 0)\n"
    )
    begin = time.monotonic()
    assert cs.check_file(f"{path}:relu").right
    assert time.monotonic() - begin < 60
    status = Path(f"/proc/{Path(f'{path}.pid').read_text()}/stat")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended, or ends now
        while status.read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}:
            assert time.monotonic() - begin < 60
            time.sleep(0.01)
