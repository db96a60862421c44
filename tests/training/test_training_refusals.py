"""Training that cannot go well: bad settings, losses that are no numbers, models that fail, folders that are taken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import convscope as cs
from convscope.errors import DataError, ModelError, RunError, ShapeError, TrainingError, UnknownName, UsageError
from training_data import digits


@pytest.fixture(scope="module")
def crosses(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("crosses", recipe="tutorial", out=tmp_path_factory.mktemp("runs") / "crosses")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dataset": "shappes"}, UnknownName, "no data set is called 'shappes'; did you mean 'shapes'"),
        ({"model": "shapes-cn"}, UnknownName, "did you mean 'shapes-cnn'"),
        ({"recipe": "fst"}, UnknownName, "no recipe is called 'fst'"),
        ({"optimizer": "adm"}, UnknownName, "did you mean 'adam'"),
        ({"loss": "cross-entrpy"}, UnknownName, "did you mean 'cross-entropy'"),
        ({"precision": "float16"}, UnknownName, "no precision is called 'float16'"),
        ({"device": "cuda:7"}, UsageError, "device 'cuda:7' is not available"),
        ({"epochs": 0}, UsageError, "epochs must be an integer greater than 0, not 0"),
        ({"lr": -1.0}, UsageError, "lr must be a number greater than 0"),
        (
            {"model": "simple-cnn", "recipe": "tutorial"},
            UsageError,
            "the tutorial trains simple-cnn on mnist, not on shapes",
        ),
        ({"model": "mlp-512", "recipe": "tutorial"}, UsageError, "no tutorial recipe exists for 'mlp-512'"),
        ({"model": "crosses"}, ShapeError, "the image is 1x28x28, but crosses takes 1x3x3"),
    ],
)
def test_bad_settings_get_a_sentence_and_no_folder(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cs.train(**{"dataset": "shapes", **settings}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_outputs_and_one_class(tmp_path: Path) -> None:
    data = digits()
    with pytest.raises(ShapeError, match="the model has 2 outputs and columns has 10 classes"):
        cs.train(data, nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), out=tmp_path / "run")
    alone = cs.Dataset("alone", data.images[:4], np.zeros(4, np.int64), ("only",))
    with pytest.raises(DataError, match="one class"):
        cs.train(alone, nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), out=tmp_path / "run")
    with pytest.raises(TrainingError, match="no trainable parameters"):
        cs.train(data, nn.Flatten(), out=tmp_path / "run")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no longer finite at step \d+ .*weights of step 0 are kept.*--lr"):
        cs.train(digits(), cs.load_model("simple-cnn"), optimizer="sgd", lr=1e30, out=tmp_path / "run")
    kept = cs.load_run(tmp_path / "run").weights_at(0)
    assert all(np.isfinite(value).all() for value in kept.values())


class Diverging(nn.Module):
    """A linear layer whose answers are no numbers from a certain training batch on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.fc, self.left = nn.Linear(784, 10), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        out: torch.Tensor = self.fc(x.flatten(1)) * (1.0 if self.left >= 0 else float("nan"))
        return out


def test_a_loss_that_is_no_number_later_leaves_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot at the end of an epoch, where it is cheap: here always."""
    monkeypatch.setattr("convscope.training.loop.CHEAP", 0)
    data = digits()
    steps = len(data) // 16
    with pytest.raises(TrainingError, match=rf"at step {steps + 3} \(epoch 2\); the weights of step {steps} are kept"):
        cs.train(data, Diverging(steps + 2), epochs=3, batch_size=16, out=tmp_path / "run")
    assert not np.array_equal(
        cs.load_run(tmp_path / "run").weights_at(0)["fc.weight"],
        load_file(tmp_path / "run" / "weights.safetensors")["fc.weight"],
    )


def test_a_loss_that_is_no_number_at_the_first_step_says_that_nothing_was_learnt(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite at the very first step, before anything was learned"):
        cs.train(digits(), Diverging(0), epochs=1, batch_size=16, out=tmp_path / "run")


class Moody(nn.Module):
    """A network that cannot take some batches: of another size, or of one image while it trains."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(inputs, 10), nn.BatchNorm1d(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.fc(x.flatten(1)))
        return out


def test_a_model_that_fails_on_the_data_gets_a_sentence_with_its_line(tmp_path: Path) -> None:
    data = digits()
    with pytest.raises(
        ModelError,
        match=r"Moody on an image of 1x28x28 fails: fc \(Linear\) expects 112 .*test_training_refusals\.py, line \d",
    ):
        cs.train(data, Moody(112), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ModelError, match="Moody on an image of 1x28x28 fails: ValueError: Expected more than 1 value"):
        cs.train(data.part(slice(0, 17)), Moody(784), batch_size=1, out=tmp_path / "run")
    with pytest.raises(ModelError, match="Moody on an image of 1x56x28 fails: "):
        cs.predict(Moody(784), np.zeros((1, 56, 28), np.float32))


def test_a_folder_that_is_taken_or_no_run(tmp_path: Path) -> None:
    cs.train("crosses", epochs=1, out=tmp_path / "run")
    with pytest.raises(RunError, match="exists and is not empty; continue it with --resume"):
        cs.train("crosses", out=tmp_path / "run")
    with pytest.raises(RunError, match="is not a run folder"):
        cs.load_run(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        cs.load_run(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file; a run needs a folder"):
        cs.train("crosses", out=tmp_path / "file")
    with pytest.raises(RunError, match="cannot be written"):
        cs.train("crosses", out="/proc/run")


def test_the_name_of_a_run_alone_is_told_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = cs.train("crosses", epochs=1)
    assert run.path == Path("runs/crosses")
    with pytest.raises(RunError, match=r"^crosses does not exist; did you mean runs/crosses\? `convscope train"):
        cs.evaluate("crosses")
    with pytest.raises(RunError, match=r"^shapes does not exist; `convscope train"):
        cs.evaluate("shapes")


class Remembering(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"seen": 3}


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), Remembering(784, 2))
    with pytest.raises(ModelError, match=r"the model's state has 1\._extra_state, which is not a tensor"):
        cs.train("shapes", model, out=tmp_path / "run")


def test_weights_that_are_no_numbers_are_refused_before_the_first_step(tmp_path: Path) -> None:
    model = cs.load_model("shapes-cnn")
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    with pytest.raises(TrainingError, match="not finite before the first step; initialize it differently"):
        cs.train("shapes", model, out=tmp_path / "run")


def test_a_linear_layer_of_the_wrong_size_is_named_with_the_one_that_fits(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 2))
    with pytest.raises(ModelError, match=r"3 \(Linear\) expects 100 numbers in the last axis, but received \(1, 576\)"):
        cs.train("shapes", model=model, epochs=1, out=tmp_path / "run")
    with pytest.raises(ModelError, match=r"nn\.Linear\(576, 2\) would fit"):
        cs.train("shapes", model=model, epochs=1, out=tmp_path / "run")
