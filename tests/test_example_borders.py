"""Borders: a question that is asked of many trainings, on kernels whose answer one can see."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convscope as cs
from convscope.cli import app

EXAMPLE = Path(__file__).parent.parent / "examples" / "borders.py"


def _module() -> Any:
    """The example as a module."""
    spec = spec_from_file_location("borders_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _module()
EDGE = torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]])


def kernels(red: torch.Tensor, green: torch.Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(3, 1, 3, padding=1)
    conv.weight.data = torch.stack([red, green, torch.zeros(3, 3)])[None]
    return conv


def test_an_edge_kernel_for_green_draws_yellow_squares_only() -> None:
    excess = example.excess_of(kernels(torch.zeros(3, 3), EDGE))
    assert excess["red"].tolist() == [0]
    assert excess["yellow"][0] == pytest.approx(1)  # +5 at the corners inside, 0 within and without


def test_an_edge_kernel_for_both_draws_both_and_a_mean_draws_none() -> None:
    both = example.excess_of(kernels(EDGE, EDGE))
    assert both["red"][0] == pytest.approx(both["yellow"][0] / 2)
    blur = example.excess_of(kernels(torch.ones(3, 3), torch.ones(3, 3)))
    assert max(blur["red"][0], blur["yellow"][0]) == pytest.approx(0, abs=1e-6)


def test_the_share_of_the_red_weights() -> None:
    weight = np.zeros((2, 3, 3, 3))
    weight[:, 0] = weight[:, 1] = 1
    assert example.red_share(weight) == pytest.approx(2**-0.5)
    weight[:, 0] = 0
    assert example.red_share(weight) == 0


def outline(red: float, yellow: float, share: float = 0.5) -> Any:
    excess = {"red": np.array([red, 0.0]), "yellow": np.array([0.0, yellow])}
    return example.Outline("seed", 1.0, 0.5, excess, share, 0.7)


def test_outcomes_are_counted_with_their_interval() -> None:
    result = example.Borders((outline(0.0, 0.5), outline(0.05, 0.5), outline(0.3, 0.5, 0.8), outline(0.0, 0.0)))
    assert [run.outcome for run in result.runs] == ["vanish", "vanish", "stay", "nowhere"]
    assert (result.share("vanish").hits, result.share("vanish").n) == (2, 4)
    assert (result.fainter.hits, result.fainter.n) == (3, 3)
    assert (result.lowered.hits, result.lowered.n) == (3, 4)
    assert "vanish in 50.0 % of 4 (15.0 to 85.0 %)" in str(result)


def test_trainings_are_made_once_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = example.trainings("color-shapes", count=2, folder=tmp_path, recipe="tutorial", epochs=1)
    times = [(run.path / "weights.safetensors").stat().st_mtime_ns for run in runs]
    again = example.trainings("color-shapes", count=2, folder=tmp_path, recipe="tutorial", epochs=1)
    assert [(run.path / "weights.safetensors").stat().st_mtime_ns for run in again] == times
    result = example.borders(again)
    assert [run.run for run in result.runs] == ["seed-0", "seed-1"]
    assert all(run.red_share_at_first is not None for run in result.runs)
    words = [str(EXAMPLE), str(tmp_path), "--trainings", "2", "--epochs", "1", "--json"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "borders.png")])
    example.main()
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(values["runs"]) == values["vanish"]["n"] == 2
    assert (tmp_path / "borders.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_says_where_the_question_went() -> None:
    for words in (["probe", "borders"], ["probe", "borders", "runs/borders", "--trainings", "2", "--out", "x.png"]):
        refused = CliRunner().invoke(app, words)
        assert isinstance(refused.exception, cs.UsageError)
        assert refused.exception.exit_status == 2
        assert "examples/borders.py" in str(refused.exception)
    assert EXAMPLE.is_file()


def test_a_question_without_trainings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cs.UsageError, match="there is no training to ask"):
        example.borders([])
    with pytest.raises(cs.UsageError, match="at least one training"):
        example.trainings("color-shapes", count=0, folder=tmp_path)
    grey = example.trainings("shapes", "shapes-cnn-1", count=1, folder=tmp_path, epochs=1)
    with pytest.raises(cs.ConvscopeError, match="for colour networks"):
        example.borders(grey)
