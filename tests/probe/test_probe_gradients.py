"""Gradients: norms at every layer are autograd's own, deep sigmoid networks lose them, and nothing is changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import convscope as cs
from convscope.errors import ModelError, ShapeError, TrainingError, UnknownName, UsageError
from figures import assert_legible, data, texts


def network(kind: str, depth: int, activation: type[nn.Module]) -> nn.Module:
    """`depth` layers with weights, PyTorch's initial ones."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Flatten()] if kind == "mlp" else []
    for layer in range(depth - 1):
        if kind == "mlp":
            parts += [nn.Linear(81 if layer == 0 else 16, 16), activation()]
        else:
            parts += [nn.Conv2d(1 if layer == 0 else 4, 4, 3, padding=1), activation()]
    end = [nn.Linear(16, 2)] if kind == "mlp" else [nn.MaxPool2d(3), nn.Flatten(), nn.Linear(36, 2)]
    return nn.Sequential(*parts, *end)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_a_deep_sigmoid_network_loses_the_gradient_and_a_shallow_one_does_not(kind: str) -> None:
    images = data(count=40)
    share = {
        (depth, activation): cs.probe.gradients(network(kind, depth, activation), images, batch=20).points[0].share[0]
        for depth in (2, 8)
        for activation in (nn.Sigmoid, nn.ReLU)
    }
    assert share[8, nn.Sigmoid] < 1e-4
    assert share[2, nn.Sigmoid] > 1e-2
    assert share[8, nn.ReLU] > 50 * share[8, nn.Sigmoid]
    assert share[2, nn.ReLU] > share[8, nn.ReLU]
    deep = cs.probe.gradients(network(kind, 8, nn.Sigmoid), images, batch=20)
    assert deep.verdict.startswith("the gradient vanishes: at layer ")
    assert len(deep.points[0].layers) == 8


def test_a_chain_of_known_factors_has_their_product_as_its_share() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(2, 2, bias=False) for _ in range(3))
            with torch.no_grad():
                for layer, factor in ((self.first, 1.0), (self.second, 0.25), (self.third, -0.5)):
                    layer.weight.copy_(factor * torch.eye(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.third(self.second(self.first(x)))  # type: ignore[no-any-return]  # nn.Module is untyped

    result = cs.probe.gradients(nn.Sequential(nn.Flatten(), Chain()), data(count=10, shape=(1, 1, 2)), batch=5)
    assert result.points[0].share == pytest.approx((0.125, 0.125, 0.125))
    assert [layer.layer for layer in result.points[0].layers] == ["1.first", "1.second", "1.third"]


def test_norms_are_those_of_autograd_before_an_activation_in_place() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(147, 2))
    images = data(count=12)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    conv, linear = cs.probe.gradients(model, images, batch=12).points[0].layers
    x, labels = torch.tensor(images.scaled()), torch.tensor(images.labels)
    for number in range(12):
        maps = model[0](x[number : number + 1]).detach().requires_grad_()
        scores = model[3](F.relu(maps).flatten(1))
        (wanted,) = torch.autograd.grad(F.cross_entropy(scores, labels[number : number + 1]), maps)
        assert np.isclose(conv.outputs, float(wanted.norm()), rtol=1e-4).any()
    F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]  # in torch
    weight = dict(model.named_parameters())["3.weight"]
    assert weight.grad is not None
    assert linear.batches.tolist() == pytest.approx([weight.grad.norm().item()], rel=1e-5)
    assert linear.relative == pytest.approx(linear.batches[0] / weight.norm().item())
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_the_model_is_left_as_found_and_batch_norm_uses_the_batch() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(147, 2)).eval()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    first, again = (cs.probe.gradients(model, data(count=12), batch=6) for _ in range(2))
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.get_rng_state().equal(random)
    assert str(first) == str(again)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gradients") / "run"
    cs.train("shapes", model="shapes-cnn", epochs=1, out=path)
    return path


def test_a_run_is_measured_at_its_kept_steps(run: Path) -> None:
    trained = cs.load_run(run)
    result = cs.probe.gradients(trained, images=100, points=4)
    steps = [point.step for point in result.points]
    assert (steps[0], steps[-1], len(steps)) == (0, trained.steps[-1], 4)
    assert result.points[0].loss > result.points[-1].loss
    now = cs.probe.gradients(trained.model, "shapes", images=100)
    np.testing.assert_array_equal(now.points[0].layers[0].outputs, result.points[-1].layers[0].outputs)
    (alone,) = cs.probe.gradients(run, points=1).points
    assert alone.step == trained.steps[-1]
    with torch.no_grad():
        trained.model.fc.bias.add_(1.0)  # type: ignore[operator, union-attr]
    assert cs.probe.gradients(trained, points=2).points[-1].step is None
    table = str(result).splitlines()
    assert any(line.split()[:1] == ["0"] for line in table)
    assert_legible(cs.plot.gradients(result))


def test_layers_without_any_gradient_are_said() -> None:
    model = network("cnn", 3, nn.ReLU)
    second = list(model.children())[2]
    assert isinstance(second, nn.Conv2d)
    assert second.bias is not None
    with torch.no_grad():
        second.bias.fill_(-99.0)
    result = cs.probe.gradients(model, data(count=12))
    assert "0: no gradient at all in 12 of 12 images" in str(result)
    figure = cs.plot.gradients(result)
    assert_legible(figure)
    assert "Gradients of Sequential" in texts(figure)


def test_bad_requests_get_a_sentence() -> None:
    with pytest.raises(TrainingError, match="no trainable layer"):
        cs.probe.gradients(nn.Flatten(), data())
    with pytest.raises(UsageError, match="batch must be at least 1, not 0"):
        cs.probe.gradients(network("mlp", 2, nn.ReLU), data(), batch=0)
    with pytest.raises(UsageError, match="pass a data set"):
        cs.probe.gradients(network("mlp", 2, nn.ReLU))
    with pytest.raises(UnknownName, match="loss"):
        cs.probe.gradients(network("mlp", 2, nn.ReLU), data(), loss="hinge")
    with pytest.raises(ShapeError, match="2 outputs for an image"):
        cs.probe.gradients(network("mlp", 2, nn.ReLU), data(classes=3))
    with pytest.raises(ModelError, match="more than 1 value per channel"):
        cs.probe.gradients(nn.Sequential(nn.Flatten(), nn.Linear(81, 2), nn.BatchNorm1d(2)), data(), batch=1)


def test_the_command(run: Path, tmp_path: Path) -> None:
    from convscope.cli import app

    picture = tmp_path / "gradients.png"
    result = CliRunner().invoke(app, ["probe", "gradients", str(run), "--points", "2", "--out", str(picture)])
    assert result.exception is None
    assert result.stdout.startswith("shapes-cnn on shapes:train: 256 images, cross-entropy, batches of 64")
    assert picture.exists()
    result = CliRunner().invoke(app, ["probe", "gradients", "shapes-mlp", "shapes", "--images", "70", "--json"])
    found = json.loads(result.stdout)
    assert (found["images"], found["batch"], len(found["points"])) == (64, 64, 1)
    assert [layer["layer"] for layer in found["points"][0]["layers"]] == ["fc1", "fc2"]
