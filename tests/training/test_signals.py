"""Signals, and a standard output that is gone: everything is saved, and said."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from run_folders import SMALL

PATIENCE = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train(**SMALL, out=tmp_path_factory.mktemp("whole") / "run").path


# Signals, and a standard output that is gone


SLOW = """
import time
from convscope.cli import main
from convscope.training.loop import Loop
report = Loop._report
Loop._report = lambda self: [report(self), time.sleep(0.02)][0]
main()
"""


def start(out: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, "train", "shapes", "--model", "shapes-mlp", "--epochs", "4", "--seed", "1"]
    return subprocess.Popen([*command, "--out", str(out), *more], stderr=subprocess.PIPE, text=True, **options)


def wait_for_snapshot(run: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not list(run.glob("snapshots/[0-9]*")):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.study)])
def test_a_closed_terminal_saves_as_a_polite_kill_does(tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    # Tests may themselves run under nohup, whose children ignore the signal.
    process = start(
        run, "--epochs", "40", stdout=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)
    )
    wait_for_snapshot(run, process)
    time.sleep(0.3)
    process.send_signal(number)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130
    assert "everything is saved; continue with" in errors
    assert max(int(path.name) for path in run.glob("snapshots/[0-9]*")) > 0


def test_nohup_stays_in_force_and_a_training_continues_if_its_output_is_not_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    wait_for_snapshot(run, process)
    process.send_signal(signal.SIGHUP)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, errors
    assert "note: standard output: Broken pipe; the training continues without it." in errors
    assert "Exception ignored" not in errors
    assert cs.load_run(run).finished


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_named(tmp_path: Path, whole: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(tmp_path / "run", stdout=full)
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0
        assert "note: standard output: No space left on device; the training continues without it." in errors
        for more in ([], ["--json"]):
            command = [sys.executable, "-m", "convscope", "predict", str(whole), "crosses:plus", *more]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device.\n")
