"""The NumPy engine: the weights of PyTorch, calculated without it; and what it refuses, it refuses in one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn

import convscope as cs
from convscope.errors import UnknownName, UsageError
from convscope.reference import training as reference
from convscope.training.engines import layers_of


def weights(run: cs.Run) -> dict[str, NDArray[Any]]:
    result: dict[str, NDArray[Any]] = load_file(run.path / "weights.safetensors")
    return result


def digits(count: int) -> cs.Dataset:
    """Noise with a bright column whose place is the class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, count)
    images = random.integers(0, 60, (count, 1, 28, 28), dtype=np.uint8)
    images[np.arange(count), 0, :, 2 * labels + 3] = 255
    return cs.Dataset("columns", images, labels, tuple("0123456789"))


def shapes(name: str = "shapes") -> cs.Dataset:
    return cs.load_dataset(name, size=1000)


CASES: dict[str, dict[str, Any]] = {
    "crosses": {"dataset": cs.load_dataset("crosses"), "epochs": 200, "optimizer": "adadelta", "loss": "mse"},
    "shapes-mlp": {"dataset": shapes(), "batch_size": 5},
    "shapes-cnn-1": {"dataset": shapes(), "batch_size": 5},
    "shapes-cnn": {"dataset": shapes(), "batch_size": 5},
    "color-cnn": {"dataset": shapes("color-shapes"), "batch_size": 5},
    "simple-cnn": {"dataset": digits(1600), "lr": 1e-3, "batch_size": 8},
    # two ReLUs in a row fall on different sides of 0 in PyTorch's float32 and its float64
    "mnist-convnet": {"dataset": digits(200), "lr": 1e-4, "batch_size": 1, "precision": "float64"},
}
STEPS = 200


@pytest.mark.parametrize("name", CASES)
def test_two_hundred_steps_give_the_weights_that_pytorch_gives(name: str, tmp_path: Path) -> None:
    case = {"epochs": 1, **CASES[name]}
    data = case.pop("dataset")
    theirs = cs.train(data, name, seed=1, out=tmp_path / "torch", **case)
    case.pop("precision", None)
    ours = cs.train(data, name, seed=1, out=tmp_path / "numpy", engine="numpy", **case)
    assert ours.metrics["step"] == STEPS
    begun, expected, result = theirs.weights_at(0), weights(theirs), weights(ours)
    for key, value in expected.items():
        assert np.abs(value - begun[key]).max() > 1e-4, f"{key} has not been trained"
        np.testing.assert_allclose(result[key], value, rtol=0, atol=1e-5, err_msg=key)
    assert abs(theirs.metrics["loss"] - ours.metrics["loss"]) < 1e-5


def test_no_number_of_a_step_comes_from_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong sign in NumPy's gradient alone, and the network unlearns."""
    right = cs.train("crosses", engine="numpy", epochs=20, seed=0, out=tmp_path / "right")
    loss, slope = reference.LOSSES["mse"]
    monkeypatch.setattr(reference, "LOSSES", {"mse": (loss, lambda x, y: -slope(x, y))})
    wrong = cs.train("crosses", engine="numpy", epochs=20, seed=0, out=tmp_path / "wrong")
    assert wrong.metrics["loss"] > 1.5 * right.metrics["loss"]


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = cs.train("crosses", engine="numpy", epochs=30, schedule="constant", seed=0, out=tmp_path / "whole")
    cs.train("crosses", engine="numpy", epochs=10, schedule="constant", seed=0, out=tmp_path / "parts")
    parts = cs.train(resume=True, epochs=30, out=tmp_path / "parts")
    assert parts.config["engine"] == "numpy"
    for key, value in weights(whole).items():
        np.testing.assert_array_equal(weights(parts)[key], value)
    with pytest.raises(UsageError, match="started with engine numpy, not torch"):
        cs.train(resume=True, engine="torch", out=tmp_path / "parts")


def test_what_numpy_trained_can_be_scored_loaded_and_traced(tmp_path: Path) -> None:
    run = cs.train("crosses", engine="numpy", out=tmp_path / "run")
    assert cs.evaluate(run).accuracy == 1
    image = cs.load_image("crosses:plus", like=run.model)
    for model in (run.model, cs.load_model(str(run.path))):
        assert cs.explain(cs.trace(model, image), "conv1", (0, 1, 1)).proved


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(x, 1)
        return torch.relu(self.fc(x)) + x


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc(torch.flatten(x, 1)))  # type: ignore[no-any-return]  # nn.Module is called without a type


def test_models_that_are_no_row_of_its_layers_are_refused() -> None:
    cases: dict[str, nn.Module] = {
        r"does not support BatchNorm2d \(0\); its layers are Conv2d, Linear, ReLU": nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten()
        ),
        r"MaxPool2d with ceil_mode=True \(0\)": nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)),
        r"Conv2d with padding_mode='reflect'": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")),
        r"Softmax before the last layer": nn.Sequential(nn.Softmax(1), nn.Flatten()),
        r"trains sequential networks, and Residual is not sequential": Residual(),
        r"and Twice is not sequential": Twice(),
    }
    for message, model in cases.items():
        with pytest.raises(UsageError, match=message):
            layers_of(model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "mlp-512"}, "does not support Dropout .dropout1.; its layers are Conv2d, Linear"),
        ({"optimizer": "sgd"}, "does not support optimizer sgd; its optimizers are adam, adadelta. Train with PyTorch"),
        ({"loss": "nll"}, "does not support loss nll; its losses are cross-entropy, mse"),
        ({"precision": "bfloat16"}, "on the CPU in float64, not with precision bfloat16; leave it out"),
        ({"device": "cuda"}, "on the CPU in float64, not with device cuda"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_the_engine_lacks_is_said_before_anything_is_written(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        cs.train("shapes", engine="numpy", out=tmp_path / "run", data_options={"size": 20}, **options)
    assert not (tmp_path / "run").exists()


def test_an_unknown_engine_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"no engine is called 'jax'\. There are: torch, numpy"):
        cs.train("crosses", engine="jax", out=tmp_path / "run")
