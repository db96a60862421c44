"""What print says of a trace, a run and an evaluation."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import convscope as cs
from commands import Commands
from convscope.training.evaluation import Evaluation


def test_a_trace_prints_its_steps_with_the_shapes_of_their_weights() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 3))
    lines = str(cs.trace(net, torch.zeros(1, 6, 6))).splitlines()
    assert lines[0] == "<Trace of Sequential: 4 steps>"
    assert lines[2].split("  ") == [["0", "", " convolution 3x3"][0], *lines[2].split("  ")[1:]]
    assert lines[2].endswith("1x8x4x4  0.weight 8x1x3x3, 0.bias 8")
    assert "linear 128 to 3" in lines[5]
    assert lines[5].endswith("3.weight 3x128, 3.bias 3") or "3.weight 3x128" in lines[5]


def test_a_long_trace_prints_its_beginning_and_end(tmp_path: Path) -> None:
    trace = cs.trace(nn.Sequential(*[nn.Tanh() for _ in range(200)]), torch.zeros(1, 2, 2))
    trace.save(tmp_path / "long.trace")
    for known in (trace, cs.Trace.load(tmp_path / "long.trace")):
        lines = str(known).splitlines()
        assert len(lines) == 62
        assert any(line == "... 141 more steps: trace.steps" for line in lines)
        assert (lines[2].split()[0], lines[-1].split()[0]) == ("0", "199")


def test_a_run_prints_what_was_trained_and_how_well(tmp_path: Path) -> None:
    run = cs.train("crosses", epochs=1, out=tmp_path / "run")
    first, second, third = str(run).splitlines()
    assert first == f"{run.path}: crosses trained on crosses, 10 parameters"
    assert second.startswith("adam, learning rate 0.2, mse loss, batches of 2")
    assert third.startswith("epoch 1 of 1: loss ")
    assert f"accuracy {run.metrics['accuracy']:.4f}" in third
    assert str(cs.Run(tmp_path)) == f"{tmp_path}: no finished epoch, or damaged"


def test_an_evaluation_prints_scores_and_confusion() -> None:
    confusion = np.array([[3, 1], [0, 4]])
    text = str(Evaluation("shapes:test", ("square", "ci\x1brcle"), 0.25, confusion, notes=("one note",)))
    lines = text.splitlines()
    assert lines[0] == "shapes:test: 87.50 % of 8 images right, loss 0.2500"
    assert lines[3].split() == ["square", "4", "75.00", "%", "100.00", "%"]
    assert lines[-3].split() == ["square", "3", "1"]
    assert lines[-1] == "note: one note"
    assert "\x1b" not in text


def test_the_command_trace_shows_the_shapes_of_weights(convscope: Commands) -> None:
    assert "conv1.weight 1x1x3x3, conv1.bias 1" in convscope.said("trace", "crosses", "crosses:plus")
    assert '"parameter_shapes":' in convscope.said("trace", "crosses", "crosses:plus", "--json")
