"""A step of a run's history, repeated exactly."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convscope as cs
from convscope.errors import RunError, UsageError
from convscope.training.snapshots import keep_replay_points
from damage import OPTIMIZER_STATES, edit_optimizer, flipped


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    """Dropout, a schedule, and batches of which each epoch has its own order."""
    out = tmp_path_factory.mktemp("runs") / "net"
    (out.parent / "net.py").write_text(NET)
    return cs.train("shapes", f"{out.parent / 'net.py'}:Net", epochs=2, batch_size=100, seed=3, out=out)


NET = """from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(0.4), nn.Linear(108, 2)
        )
"""


def test_the_update_of_each_step_is_the_runs_own(run: cs.Run) -> None:
    kept = [step for step in run.steps if step]
    assert len(kept) > 5
    for step in (kept[0], kept[3], kept[-1]):
        state = torch.get_rng_state()
        trace = cs.trace(run, at_step=step)
        assert torch.equal(torch.get_rng_state(), state)
        for name, weights in run.weights_at(step).items():
            np.testing.assert_array_equal(trace[f"{name}.updated"].output.reshape(weights.shape), weights)
    assert trace.training_step is not None
    assert f"step {kept[-1]} of {run.path.name}, after repeating" in trace.training_step.says
    assert cs.verify(trace, cells=20).proved


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    """A run of 400 steps."""
    out = tmp_path_factory.mktemp("runs") / "long"
    return cs.train("shapes", "shapes-cnn-1", epochs=4, batch_size=10, seed=3, out=out)


def repeated(run: cs.Run, step: int) -> int:
    """The number of steps that were repeated to reach this one, whose update is the run's own."""
    trace = cs.trace(run, at_step=step)
    for name, weights in run.weights_at(step).items():
        np.testing.assert_array_equal(trace[f"{name}.updated"].output.reshape(weights.shape), weights)
    assert trace.training_step is not None
    answer = re.search(r"after repeating (\d+) step", trace.training_step.says)
    assert answer is not None
    return int(answer[1])


def test_a_step_in_the_middle_is_repeated_from_the_nearest_kept_state(long: cs.Run) -> None:
    points = [int(path.name) for path in sorted((long.path / "history").iterdir()) if path.is_dir()]
    assert points == [100, 200, 300]  # each the end of an epoch: the next step is the first of another
    assert repeated(long, 300) == 99
    assert repeated(long, 320) == 19


def test_a_damaged_state_of_the_history_is_passed_over(long: cs.Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(long.path, copy)
    state = copy / "history" / "000000300" / "optimizer.pt"
    state.write_bytes(flipped(state.read_bytes(), 500))
    (copy / "history" / "000000200" / "sha256.json").unlink()
    assert repeated(cs.load_run(copy), 320) == 219


def test_states_of_the_history_after_the_step_to_continue_from_are_removed(long: cs.Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(long.path, copy)
    keep_replay_points(copy / "history", 250, 20)
    assert sorted(path.name for path in (copy / "history").iterdir() if path.is_dir()) == ["000000100", "000000200"]
    keep_replay_points(copy / "history", 250, 1)
    assert [path.name for path in (copy / "history").iterdir() if path.is_dir()] == ["000000200"]


def test_a_run_that_cannot_be_repeated_is_refused(run: cs.Run) -> None:
    with pytest.raises(UsageError, match=r"has steps 1 to 20, not 21"):
        cs.trace(run, at_step=21)
    with pytest.raises(UsageError, match="leave them out"):
        cs.trace(run, at_step=1, optimizer="adam")
    with pytest.raises(UsageError, match="a step of a run"):
        cs.trace(run.model, at_step=1)


def test_other_weights_than_the_run_had_are_noticed(run: cs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    step = [step for step in run.steps if step][2]
    weights = run.weights_at(step)
    other = {name: array + np.float32(1e-6) for name, array in weights.items()}
    monkeypatch.setattr(cs.Run, "weights_at", lambda *_: other)
    with pytest.raises(RunError, match="cannot be repeated exactly"):
        cs.trace(run, at_step=step + 1)


@pytest.mark.parametrize("damage", OPTIMIZER_STATES)
def test_an_optimizers_state_that_does_not_fit_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    """The digests agree, as in a folder from elsewhere; nothing is written where this state says."""
    cs.train("shapes", "shapes-cnn-1", epochs=1, batch_size=500, out=tmp_path / "run")
    edit_optimizer(tmp_path / "run", damage)
    damaged = cs.load_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"an optimizer's state that does not fit its model and recipe"):
        cs.trace(damaged, np.zeros((2, 1, 28, 28), np.float32), target=[0, 1])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adadelta", "rmsprop"])
def test_a_run_brings_the_state_of_its_optimizer(tmp_path: Path, optimizer: str) -> None:
    run = cs.train("shapes", "shapes-cnn-1", epochs=1, batch_size=500, optimizer=optimizer, out=tmp_path / "run")
    trace = cs.trace(run, np.ones((2, 1, 28, 28), np.float32), target=[0, 1])
    assert trace.training_step is not None
    assert trace.training_step.updated
