"""Nothing lost: real kills, Ctrl-C, damaged files, a full disk; and the resumed weights are the same, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

import convscope as cs
from commands import Commands
from convscope.errors import RunError, UsageError, WeightsError
from convscope.training.reproducibility import random_state, restore_random_state
from damage import OPTIMIZER_STATES, edit_config, edit_optimizer

PATIENCE = 600
"""Seconds for a process; on a machine with much else to do it takes long to start."""
SMALL: Mapping[str, Any] = {"dataset": "shapes", "model": "shapes-mlp", "epochs": 6, "seed": 1}
TRAIN = """
import sys, time, convscope as cs
from pathlib import Path
pause = 0.01 if "slowly" in sys.argv else 0
cs.train("shapes", "mlp-512", epochs=12, seed=1, out=Path(sys.argv[1]), resume="resume" in sys.argv,
         snapshot_seconds=0.05, watch=lambda event: time.sleep(pause))
assert "torch._dynamo" not in sys.modules, "a training imports torch.compile, which takes longer than the training"
"""
SLOW_COMMAND = """
import time
from convscope.cli import main
from convscope.training.loop import Loop
report = Loop._report
Loop._report = lambda self: [report(self), time.sleep(0.05)][0]
main()
"""
FULL_DISK = """
import resource, sys, convscope as cs
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.dont_write_bytecode = True  # it would be cut off
cs.train(resume=True, out=sys.argv[1])
"""


def start(code: str, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(out), *more], stderr=subprocess.PIPE, text=True)


def weights(run: Path) -> Mapping[str, NDArray[Any]]:
    result: Mapping[str, NDArray[Any]] = load_file(run / "weights.safetensors")
    return result


def assert_same_bits(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name].view(np.uint32), right[name].view(np.uint32), err_msg=name)


def wait_for_steps(run: Path, process: subprocess.Popen[str]) -> None:
    """Until the training has written its first snapshot."""
    until = time.monotonic() + PATIENCE
    while not list(run.glob("snapshots/[0-9]*")):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return cs.train("shapes", "mlp-512", epochs=12, seed=1, out=out, snapshot_seconds=0.05).path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a network of few weights."""
    return cs.train(**SMALL, out=tmp_path_factory.mktemp("small") / "run").path


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of these that stopped half way, with two snapshots."""
    run, asked = tmp_path_factory.mktemp("half") / "run", list[int]()

    def stop(event: Mapping[str, Any]) -> None:
        if event["step"] >= 25 and not asked:
            asked.append(event["step"])
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="everything is saved"):
        cs.train(**SMALL, out=run, watch=stop, snapshot_seconds=0)
    assert len(list(run.glob("snapshots/[0-9]*"))) == 2
    return run


@pytest.fixture
def interrupted(half: Path, tmp_path: Path) -> Path:
    """A copy of it, to do with what one likes."""
    return Path(shutil.copytree(half, tmp_path / "run"))


def assert_kills_cost_nothing(whole: Path, run: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    for turn in range(kills):
        process = start(TRAIN, run, "slowly", *(["resume"] if turn else []))
        wait_for_steps(run, process)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(TRAIN, run, "resume")
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, errors
    assert_same_bits(run, whole)
    steps = [event["step"] for event in cs.load_run(run).history if event["event"] == "train"]
    assert steps == sorted(set(steps))
    assert {path.name for path in (run / "history").iterdir()} == {path.name for path in (whole / "history").iterdir()}


def test_a_killed_training_resumes_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    assert_kills_cost_nothing(whole, tmp_path / "run", seed=0, kills=2)


@pytest.mark.study
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_many_random_moments(whole: Path, tmp_path: Path, seed: int) -> None:
    assert_kills_cost_nothing(whole, tmp_path / "run", seed=seed + 1, kills=3)


def test_a_kill_before_the_first_snapshot_resumes_from_the_beginning(small: Path, interrupted: Path) -> None:
    for path in interrupted.glob("snapshots/[0-9]*"):
        shutil.rmtree(path)
    (interrupted / "metrics.jsonl").unlink()
    cs.train(resume=True, out=interrupted)
    assert_same_bits(interrupted, small)
    assert cs.load_run(interrupted).finished


def test_an_epoch_told_but_not_saved_is_not_the_end(interrupted: Path) -> None:
    with (interrupted / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"event": "epoch", "epoch": 6, "step": 48, "loss": 0.0}) + "\n")
    assert not cs.load_run(interrupted).finished


def test_resuming_runs_no_code_that_a_folder_names(interrupted: Path, tmp_path: Path) -> None:
    harm = {"source": "os:system", "args": {"command": f"touch {tmp_path / 'harm'}"}}
    edit_config(interrupted, lambda config: config["model"].update(harm))
    with pytest.raises(RunError, match="os:system"):
        cs.train(resume=True, out=interrupted)
    assert not (tmp_path / "harm").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(convscope: Commands, whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW_COMMAND, "train", "shapes", "--model", "mlp-512", "--epochs", "12"]
    command += ["--seed", "1"]
    run = tmp_path / "my run"
    process = subprocess.Popen([*command, "--out", str(run)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for_steps(run, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "everything is saved; continue with" in errors
    assert f"convscope train --resume --out '{run}'" in errors
    assert "continuing after step" in convscope.said("train", "--resume", "--out", run)
    assert_same_bits(run, whole)


def test_what_is_not_as_it_was_is_said_when_a_training_goes_on(small: Path, interrupted: Path) -> None:
    edit_config(interrupted, lambda config: config["environment"].update(processes=3, device="cuda:2"))
    events: list[Mapping[str, Any]] = []
    cs.train(resume=True, out=interrupted, watch=events.append)
    for sentence in ("resumed with processes 1, started with 3", "resumed with device cpu, started with cuda:2"):
        assert f"{sentence}: the last bits of the weights may differ." in events[0]["notes"]
    assert_same_bits(interrupted, small)


@pytest.mark.parametrize(("saved", "here"), [(3, 2), (2, 3), (2, 0)])
def test_the_random_state_of_more_gpus_or_fewer_is_taken_as_far_as_they_are_there(
    saved: int, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: arguments.update({device: int(state)}))
    state = {**random_state(), "cuda": [torch.tensor(number) for number in range(saved)]}
    restore_random_state(state)
    assert arguments == {number: number for number in range(min(saved, here))}


def test_a_live_run_is_held(tmp_path: Path) -> None:
    process = start(TRAIN, tmp_path / "run", "slowly")
    try:
        wait_for_steps(tmp_path / "run", process)
        for resume in (True, False):
            with pytest.raises(RunError, match="another training is writing to"):
                cs.train(None if resume else "shapes", resume=resume, out=tmp_path / "run")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "position.json", "sha256.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_snapshot_is_named_and_the_one_before_used(
    small: Path, interrupted: Path, name: str, damage: str
) -> None:
    older, newest = sorted(interrupted.glob("snapshots/[0-9]*"))
    file = newest / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes(content[:middle] if damage == "cut" else flipped)
    events: list[Mapping[str, Any]] = []
    cs.train(resume=True, out=interrupted, watch=events.append)
    assert events[0]["step"] == int(older.name)
    assert any(str(newest) in note and "damaged and skipped" in note for note in events[0]["notes"])
    assert_same_bits(interrupted, small)


@pytest.mark.parametrize("damage", OPTIMIZER_STATES)
def test_an_optimizers_state_that_does_not_fit_is_not_resumed(
    interrupted: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    edit_optimizer(interrupted, damage)
    with pytest.raises(RunError, match=r"an optimizer's state that does not fit its model and recipe"):
        cs.train(resume=True, out=interrupted)


def test_damaged_weights_are_named_and_those_of_the_last_good_snapshot_used(tmp_path: Path) -> None:
    run = cs.train("crosses", epochs=1, out=tmp_path / "run")
    weights = run.path / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:40])
    with pytest.warns(UserWarning, match=r"weights\.safetensors is damaged .* Those of .*snapshots.\d+ are used"):
        result = cs.load_run(run.path).model
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in result.state_dict().items())
    for copy in run.path.glob("snapshots/*/weights.safetensors"):
        copy.write_bytes(content[:40])
    with pytest.raises(WeightsError, match=r"run/weights\.safetensors is damaged"):
        cs.load_model(run.path)


def test_no_good_snapshot_and_a_damaged_config(interrupted: Path) -> None:
    for path in interrupted.glob("snapshots/*/position.json"):
        path.write_text("{")
    with pytest.raises(RunError, match="has no snapshot to resume from"):
        cs.train(resume=True, out=interrupted)
    (interrupted / "config.json").write_text('{"recipe": {')
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        cs.train(resume=True, out=interrupted)


def test_a_full_disk_stops_with_a_sentence_and_loses_nothing(small: Path, interrupted: Path) -> None:
    before = sorted(path.name for path in interrupted.glob("snapshots/[0-9]*"))
    process = start(FULL_DISK, interrupted)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1
    assert "cannot be written: File too large" in errors
    assert "What was saved before is intact" in errors
    assert sorted(path.name for path in interrupted.glob("snapshots/[0-9]*")) == before
    cs.train(resume=True, out=interrupted)
    assert_same_bits(interrupted, small)


def test_resuming_with_other_settings_or_data_is_refused(interrupted: Path) -> None:
    with pytest.raises(UsageError, match="was started with seed 1, not 2"):
        cs.train(resume=True, out=interrupted, seed=2)
    with pytest.raises(UsageError, match="was started with dataset shapes, not mnist"):
        cs.train("mnist", resume=True, out=interrupted)
    with pytest.raises(UsageError, match="was started with epochs 6, not 20"):
        cs.train(resume=True, out=interrupted, epochs=20)
    with pytest.raises(RunError, match="was started with other data"):
        cs.train(resume=True, out=interrupted, data_options={"size": 500})


def test_more_epochs_at_a_constant_rate_are_an_uninterrupted_training(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"schedule": "constant", "seed": 4}
    cs.train("shapes", epochs=2, out=tmp_path / "a", **settings)
    cs.train(epochs=5, resume=True, out=tmp_path / "a")
    cs.train("shapes", epochs=5, out=tmp_path / "b", **settings)
    assert_same_bits(tmp_path / "a", tmp_path / "b")


def test_nothing_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="runs/ has no unfinished run"):
        cs.train(resume=True)
    with pytest.raises(UsageError, match="name a data set to train on"):
        cs.train()


class Drawing(torch.nn.Module):
    """Draws from NumPy's and Python's random state, and counts in a buffer that no state dict has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(784, 2)
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
            x = x * (random.random() + np.random.rand()) + 1e-3 * self.seen  # noqa: NPY002
        result: torch.Tensor = self.fc(x.flatten(1))
        return result


def test_a_model_that_draws_from_numpy_and_python_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data = cs.load_dataset("shapes", seed=0)

    def stop_after(step: int) -> Any:
        def watch(event: Mapping[str, Any]) -> None:
            if event["step"] >= step:
                raise RuntimeError("stopped")

        return watch

    def train(out: Path, **more: Any) -> None:
        torch.manual_seed(0)
        cs.train(data, Drawing(), epochs=3, seed=4, out=out, snapshot_seconds=0, **more)

    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    train(tmp_path / "whole")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]  # noqa: NPY002
    with pytest.raises(RuntimeError, match="stopped"):
        train(tmp_path / "cut", watch=stop_after(40))
    random.seed(99)
    train(tmp_path / "cut", resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")
