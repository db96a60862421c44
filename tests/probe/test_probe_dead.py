"""Dead, saturated and duplicate units: planted ones are found, healthy ones are left in peace."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import convscope as cs
from convscope.plot.figures.health import COLORS
from convscope.probe.dead import Dead, Duplicate, StepUnits
from figures import assert_legible, data


class Planted(nn.Module):
    """Unit 1 dead, unit 2 three times unit 0; of the tanh unit 0 saturated and unit 3 the negative of unit 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 4)
        with torch.no_grad():
            self.conv.bias[1] = -50.0  # type: ignore[index]  # a convolution with a bias
            self.conv.weight[2] = 3 * self.conv.weight[0]
            self.conv.bias[[0, 2]] = torch.tensor([0.2, 0.6])  # type: ignore[index]
            self.fc.bias[0] = 4.5
            self.fc.weight[3], self.fc.bias[3] = -self.fc.weight[1], -self.fc.bias[1]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(F.relu_(self.conv(x)).mean((2, 3))))


def test_planted_units_are_found_and_others_are_not() -> None:
    relu, tanh = cs.probe.dead(Planted(), data(count=40)).steps
    assert (relu.op, tanh.op) == ("relu", "tanh")
    assert relu.dead.tolist() == [1]
    assert [(pair.unit, pair.other) for pair in relu.duplicates] == [(0, 2)]
    assert relu.duplicates[0].factor == pytest.approx(3, rel=1e-3)
    assert tanh.dead.tolist() == []
    assert tanh.saturated.tolist() == [0]
    pair = next(pair for pair in tanh.duplicates if pair.other == 3)
    assert pair.unit == 1
    assert pair.correlation == pytest.approx(-1, abs=1e-6)
    assert pair.factor == pytest.approx(-1, abs=1e-6)


def test_every_finding_says_its_sample_and_its_interval() -> None:
    result = cs.probe.dead(Planted(), data(count=40))
    assert "relu: dead, the same number for all 40 images: 1; at most 8.8 % of such images would change" in str(result)
    assert "tanh: saturated" in str(result)
    assert "100.0 % of 40 (91.2 to 100.0 %)" in str(result)
    assert "relu: 2 is the same as 0, times 3" in str(result)
    assert "Fisher 95 %, n = 40" in str(result)
    assert result.to_json()["steps"][0]["dead"][0]["changed"]["n"] == 40


def test_counts_are_those_of_a_trace() -> None:
    model, images = Planted(), data(count=40)
    relu = cs.probe.dead(model, images).steps[0]
    values = cs.trace(model, images.scaled())["relu"].output
    assert relu.active is not None
    assert relu.active.tolist() == (values != 0).any(axis=(2, 3)).sum(axis=0).tolist()
    np.testing.assert_allclose(relu.high, values.max(axis=(0, 2, 3)), rtol=1e-6)
    assert relu.share_active(1).interval[1] == pytest.approx(0.0876, abs=1e-3)


def test_a_unit_that_one_image_of_many_wakes_is_not_dead() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)  # type: ignore[operator]  # a tensor
        model[0].bias.fill_(-0.99)  # type: ignore[operator]
    images = np.zeros((600, 1, 3, 3), np.uint8)
    dark = cs.Dataset("dark", images, np.zeros(600, np.int64), ("one",))
    assert cs.probe.dead(model, dark).steps[0].dead.tolist() == [0]
    bright = images.copy()
    bright[577, 0, 1, 1] = 255
    result = cs.probe.dead(model, cs.Dataset("one bright", bright, dark.labels, ("one",))).steps[0]
    assert result.dead.tolist() == []
    assert result.active is not None
    assert result.active.tolist() == [1]


def test_relu6_is_saturated_at_its_upper_end_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU6())
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([20.0, -20.0, 1.0]))  # type: ignore[operator]
    result = cs.probe.dead(model, data(count=20)).steps[0]
    assert result.dead.tolist() == [0, 1]
    assert result.flat is not None
    assert result.flat.tolist() == [20, 0, 0]


def test_numbers_that_are_not_finite_are_said() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x / (x.amax((2, 3), keepdim=True) - x))

    result = cs.probe.dead(Broken(), data(count=6))
    assert result.steps[0].bad.tolist() == [6]
    assert "numbers that are not finite, in up to 6 images" in str(result)


def test_one_step_can_be_named_and_networks_without_activations_have_units_too() -> None:
    assert [step.step for step in cs.probe.dead(Planted(), data(), ["conv"]).steps] == ["conv"]
    assert [step.step for step in cs.probe.dead(nn.Conv2d(1, 2, 3), data()).steps] == ["conv2d"]
    with pytest.raises(cs.UsageError, match="no step is called 'con'; did you mean 'conv'"):
        cs.probe.dead(Planted(), data(), ["con"])


def test_the_picture_is_legible() -> None:
    assert_legible(cs.plot.dead(cs.probe.dead(Planted(), data())))
    wide = cs.probe.dead(cs.load_model("shapes-mlp"), cs.load_dataset("shapes", split="test"))
    assert_legible(cs.plot.dead(wide))


def test_the_command(tmp_path: Path) -> None:
    from convscope.cli import app

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["probe", "dead", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    picture = tmp_path / "dead.png"
    message = run("shapes-cnn", "shapes", "--split", "test", "--out", str(picture))
    assert message.startswith("shapes-cnn on shapes:test: 200 images")
    assert picture.exists()
    assert json.loads(run("shapes-cnn", "shapes", "--step", "tanh1", "--json"))["steps"][0]["units"] == 8


def test_models_and_data_can_be_named() -> None:
    by_name = cs.probe.dead("shapes-cnn", "shapes")
    assert (by_name.model, by_name.dataset) == ("shapes-cnn", "shapes:train")
    assert cs.probe.patches("shapes-cnn", "shapes", count=1, channels=1).dataset == "shapes:test"
    compared = cs.probe.compare(["shapes-cnn", "shapes-mlp"], "shapes")
    assert [result.name for result in compared.models] == ["shapes-cnn", "shapes-mlp"]


def test_the_picture_of_a_large_network_stays_small_and_shows_every_unit(tmp_path: Path) -> None:
    rng, many, images = np.random.default_rng(0), 2048, 10
    steps = []
    for number in range(12):
        low, high = np.zeros(many), np.ones(many)
        high[number] = 0.0  # the one that is dead
        duplicates = (Duplicate(100, 200, 1.0, 1.0, 1.0),)
        flat = np.where(np.arange(many) == 300, images, 0)
        counts = rng.integers(1, images, many)
        steps.append(StepUnits(f"relu{number}", "relu", images, low, high, counts, flat, counts * 0, duplicates))
    figure = cs.plot.dead(Dead("large", "noise:all", images, 0, tuple(steps)))
    figure.savefig(tmp_path / "dead.svg")
    assert (tmp_path / "dead.svg").stat().st_size < 200_000
    width, height = figure.get_size_inches()
    assert width < 12
    assert height < 12
    for number, picture in enumerate(figure.axes[0].images):
        assert picture.get_label() == f"relu{number}"
        colors = np.asarray(picture.get_array())
        across = colors.shape[1] // 8
        units = colors[::8, ::8].reshape(-1, 3)
        assert (across, len(units)) == (128, many)
        for unit, name in ((number, "dead"), (200, "duplicate"), (300, "saturated"), (100, "alive")):
            np.testing.assert_allclose(units[unit], to_rgb(COLORS[name]))
    assert any(t.get_text() == "2,045 alive, 1 dead, 1 saturated, 1 duplicate" for t in figure.axes[0].texts)
