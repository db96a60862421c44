"""Training: what it prints, keeps and ends in, for built-in networks and for those of one's own."""

import copy
import pickle
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.errors import DataError, UsageError
from convscope.training.batches import epoch_order, trained_channels_last
from convscope.training.objectives import OPTIMIZERS
from convscope.training.recipes import FAST, TUTORIAL, Recipe, recipe_for
from convscope.training.writer import history_steps
from training_data import digits


@pytest.fixture(scope="module")
def crosses(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("crosses", recipe="tutorial", out=tmp_path_factory.mktemp("runs") / "crosses")


def test_a_terminal_sees_a_line_for_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cs.train("shapes", "shapes-cnn-1", epochs=2, out=tmp_path / "silent")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    cs.train("shapes", "shapes-cnn-1", epochs=2, out=tmp_path / "shown")
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("epoch 1/2  loss 0.")
    assert re.fullmatch(r"epoch 2/2  loss [\d.]+  accuracy [\d.]+ %  test accuracy [\d.]+ %", last)


def test_crosses_end_near_their_class_numbers_and_the_damaged_ones_on_the_right_side(crosses: cs.Run) -> None:
    plus, x, damaged_plus, damaged_x = (
        float(p.output[0])
        for p in cs.predict(crosses, *(f"crosses:{n}" for n in ("plus", "x", "damaged-plus", "damaged-x")))
    )
    assert abs(plus) < 0.05
    assert abs(x - 1) < 0.05
    assert damaged_plus < 0.5 < damaged_x


def test_the_tutorial_prints_a_loss_at_every_draw(crosses: cs.Run) -> None:
    steps = [event["step"] for event in crosses.history if event["event"] == "train"]
    assert steps == list(range(1, 5001))


def test_two_hundred_equal_batches_give_the_weights_of_a_plain_loop(tmp_path: Path) -> None:
    data = digits(200 * 16)
    plain = cs.load_model("simple-cnn", seed=3).train()
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for batch in torch.split(epoch_order(len(data), None, 7, 0), 16):
        loss = F.cross_entropy(plain(torch.from_numpy(data.scaled(batch.numpy()))), torch.tensor(data.labels[batch]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    model = cs.load_model("simple-cnn", seed=3)
    run = cs.train(data, model, epochs=1, batch_size=16, recipe="fast", optimizer="adam", lr=1e-3, seed=7,
                   schedule="constant", out=tmp_path / "run")  # fmt: skip

    assert run.metrics["step"] == 200
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-5)
        torch.testing.assert_close(run.model.state_dict()[name], value, rtol=0, atol=1e-5)


def test_metrics_say_what_happened(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    run = cs.train(digits(), cs.load_model("simple-cnn"), epochs=2, batch_size=64, test=digits(100, seed=1),
                   out=tmp_path / "run", watch=lambda event: events.append(dict(event)))  # fmt: skip
    assert events[0]["event"] == "start"
    assert [e for e in events if e["event"] in {"train", "epoch"}] == run.history
    assert [e["epoch"] for e in run.history if e["event"] == "epoch"] == [1, 2]
    assert run.metrics["accuracy"] > 0.9
    evaluation = cs.evaluate(run, digits(100, seed=1))
    assert evaluation.accuracy == run.metrics["test_accuracy"]
    assert evaluation.loss == pytest.approx(run.metrics["test_loss"])
    assert evaluation.confusion.sum() == 100


def test_a_watcher_sets_the_pace_and_the_weights_stay_the_same_bits(tmp_path: Path) -> None:
    paces = [0.0, 0.0, None, 0.0, 0.0, 0.0, 1e-9]
    warned: list[Mapping[str, Any]] = []

    def pace(event: Mapping[str, Any]) -> float | None:
        if event["event"] != "progress":
            return 7.0  # only an answer to "progress" counts
        warned.append(event)
        return paces[len(warned) % len(paces)]

    watched = cs.train("shapes", epochs=2, out=tmp_path / "watched", watch=pace)
    plain = cs.train("shapes", epochs=2, out=tmp_path / "plain")

    assert warned[0]["step"] == 0
    assert "loss" not in warned[0]
    after_zero = [b["step"] - a["step"] for k, (a, b) in enumerate(pairwise(warned), 1) if paces[k % len(paces)] == 0]
    assert len(after_zero) > 20
    assert set(after_zero) == {1}
    assert warned[-1]["step"] == plain.metrics["step"]
    assert_same_run(watched, plain)


def test_a_single_step_reports_the_loss_of_its_own_batch(tmp_path: Path) -> None:
    """The batches of an epoch, each by its size, make the epoch's mean."""
    events: list[Mapping[str, Any]] = []

    def step_by_step(event: Mapping[str, Any]) -> float:
        events.append(dict(event))
        return 0.0

    cs.train("shapes", epochs=2, batch_size=300, out=tmp_path / "run", watch=step_by_step)
    single = [event for event in events if "step_loss" in event]
    assert [event["step"] for event in single] == [1, 2, 3, 4, 5, 6, 7, 8]
    sizes = [300, 300, 300, 100]
    for epoch, mean in enumerate(event for event in events if event["event"] == "epoch"):
        mine = single[4 * epoch : 4 * epoch + 4]
        for name in ("loss", "accuracy"):
            total = sum(size * event[f"step_{name}"] for size, event in zip(sizes, mine, strict=True))
            assert total / 1000 == pytest.approx(mean[name])


def assert_same_run(a: cs.Run, b: cs.Run) -> None:
    """The same metrics but for the time, and the same weights, bit for bit, wherever both kept them."""
    without_time = [[{**event, "seconds": 0} for event in run.history] for run in (a, b)]
    assert without_time[0] == without_time[1]
    assert set(b.steps) <= set(a.steps)
    for step in b.steps:
        for name, value in b.weights_at(step).items():
            assert value.tobytes() == a.weights_at(step)[name].tobytes(), (step, name)


def test_each_step_of_a_watcher_that_goes_step_by_step_is_kept_within_limits(tmp_path: Path) -> None:
    run = cs.train("crosses", epochs=300, out=tmp_path / "run", watch=lambda _: 0.0)
    usual = history_steps(run.model, 300)
    assert len(usual) == 21
    between = [step for step in range(300) if step not in usual]
    assert run.steps == sorted([*usual, *between[:40]])


def test_the_last_metrics_of_an_epoch_are_the_means_over_it(tmp_path: Path) -> None:
    run = cs.train(digits(100), cs.load_model("simple-cnn"), epochs=1, batch_size=30, out=tmp_path / "run")
    steps = [event for event in run.history if event["event"] == "train"]
    sizes = [30, 30, 30, 10]
    assert run.metrics["loss"] == pytest.approx(sum(e["loss"] * n for e, n in zip(steps, sizes, strict=True)) / 100)


def test_training_leaves_random_state_and_threads_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    cs.train("crosses", epochs=1, out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    runs = [cs.train("shapes", epochs=1, seed=seed, out=tmp_path / str(k)) for k, seed in enumerate((1, 1, 2))]
    first, again, other = ([p.detach() for p in run.model.parameters()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_history_goes_from_the_first_weights_to_the_last(tmp_path: Path) -> None:
    run = cs.train("shapes", epochs=3, out=tmp_path / "run")
    assert run.steps[0] == 0
    assert run.steps[-1] == run.metrics["step"]
    assert 20 <= len(run.steps) <= 200
    for name, value in run.model.state_dict().items():
        np.testing.assert_array_equal(run.weights_at(run.steps[-1])[name], value.numpy())
    with pytest.raises(UsageError, match="has no weights for step 1000000"):
        run.weights_at(1_000_000)


def test_a_model_with_a_view_in_its_forward_trains(tmp_path: Path) -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.fc = nn.Linear(4 * 26 * 26, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            logits: torch.Tensor = self.fc(x.view(x.size(0), -1))
            return logits

    run = cs.train(digits(), Viewing(), epochs=1, out=tmp_path / "run")
    assert run.metrics["accuracy"] > 0.3


def test_arrays_and_a_module_of_ones_own(tmp_path: Path) -> None:
    data = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    run = cs.train((data.images[:, 0], data.labels.tolist()), model, epochs=3, out=tmp_path / "run")
    assert run.model is model
    assert not model.training
    assert run.metrics["accuracy"] > 0.5
    assert cs.predict(model, data.images[0])[0].best == data.labels[0]


def test_a_network_ending_in_softmax_predicts_its_own_output(tmp_path: Path) -> None:
    run = cs.train("shapes", recipe="tutorial", epochs=1, out=tmp_path / "run")
    assert run.config["model"]["args"]["softmax"] is True
    prediction = cs.predict(run, "shapes:test/0")[0]
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities, prediction.output)
    assert run.metrics["loss"] > 0.3132


def test_the_tutorials_sampling_reports_its_overlap(tmp_path: Path) -> None:
    run = cs.train("shapes", recipe="tutorial", epochs=1, out=tmp_path / "run")
    (note,) = run.config["notes"]
    train, test = (cs.load_dataset("shapes", split=s, seed=0, sampling="published") for s in ("train", "test"))
    seen = {image.tobytes() for image in train.images}
    shared = sum(image.tobytes() in seen for image in test.images)
    assert shared > 0
    assert f"{shared} of the 200 test images also occur in training" in note
    assert "3,889" in note


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_each_precision_learns_and_keeps_its_weights(tmp_path: Path, precision: str) -> None:
    run = cs.train(digits(), cs.load_model("simple-cnn"), epochs=2, precision=precision, out=tmp_path / "run")
    kept = torch.float64 if precision == "float64" else torch.float32
    assert {p.dtype for p in run.model.parameters()} == {kept}
    assert run.metrics["accuracy"] > 0.5


def test_every_default_model_has_a_fast_recipe_and_every_recipe_a_model() -> None:
    from convscope.models.catalog import DEFAULT_MODELS, MODELS

    assert set(DEFAULT_MODELS.values()) <= set(FAST)
    assert set(FAST) | set(TUTORIAL) <= set(MODELS)
    assert recipe_for("unheard-of", "fast").epochs > 0


def test_the_one_cycle_rises_and_falls() -> None:
    rates = [Recipe(lr=2.0, schedule="one-cycle").lr_at(step / 100) for step in range(100)]
    assert max(rates) == 2.0
    assert rates.index(2.0) == 20
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_asking_a_model_leaves_it_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 26 * 26, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cs.predict(model, digits(1).image(0))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_more_outputs_than_classes_are_never_an_answer(tmp_path: Path) -> None:
    run = cs.train(digits(), nn.Sequential(nn.Flatten(), nn.Linear(784, 40)), epochs=1, out=tmp_path / "run")
    assert cs.evaluate(run, digits(50)).confusion.shape == (10, 10)


def test_test_arrays_are_scaled_as_the_training_data_are(tmp_path: Path) -> None:
    data = digits()
    shifted = cs.Dataset("shifted", data.images, data.labels, data.classes, cs.Preprocess(mean=(0.5,), std=(0.2,)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    run = cs.train(shifted, model, epochs=3, test=(data.images, data.labels), out=tmp_path / "run")
    assert run.metrics["test_accuracy"] == cs.evaluate(run, shifted).accuracy


@pytest.mark.study
@pytest.mark.parametrize(
    ("model", "dataset", "good"),
    [
        ("shapes-mlp", "shapes", lambda a: all(0.65 <= x <= 0.80 for x in a)),
        ("shapes-cnn-1", "shapes", lambda a: sum(x > 0.95 for x in a) >= 3),
        ("shapes-cnn", "shapes", lambda a: all(x > 0.99 for x in a)),
        ("color-cnn", "color-shapes", lambda a: sum(x > 0.99 for x in a) >= 4),
    ],
)
def test_the_tutorials_accuracies_over_five_seeds(tmp_path: Path, model: str, dataset: str, good: Any) -> None:
    runs = [cs.train(dataset, model, recipe="tutorial", seed=s, out=tmp_path / str(s)) for s in range(5)]
    accuracies = [run.metrics["test_accuracy"] for run in runs]
    assert good(accuracies), accuracies


def test_pooling_trained_channels_last_gives_the_same_bits_and_leaves_no_trace() -> None:
    data = cs.load_dataset("shapes", seed=0)
    images, labels = torch.tensor(data.scaled(slice(0, 8))), torch.tensor(data.labels[:8])

    def gradients(*, hooked: bool) -> list[torch.Tensor]:
        model = cs.load_model("shapes-cnn", seed=0).train()
        with trained_channels_last(model, data, requested=True) as runs:
            assert runs
            if not hooked:
                for module in model.modules():
                    module._forward_hooks.clear()
            output = model(images.contiguous(memory_format=torch.channels_last))
            torch.autograd.backward(F.cross_entropy(output, labels))
        assert not any(module._forward_hooks for module in model.modules())
        assert all(p.is_contiguous() for p in model.parameters())
        return [p.grad for p in model.parameters() if p.grad is not None]

    with_hooks, without = gradients(hooked=True), gradients(hooked=False)
    assert len(with_hooks) == 6
    assert all(torch.equal(a, b) for a, b in zip(with_hooks, without, strict=True))


def test_other_data_are_numbered_and_normalized_as_the_model_has_it(tmp_path: Path) -> None:
    run = cs.train("shapes", epochs=2, out=tmp_path / "run")
    data = cs.load_dataset("shapes", split="test", seed=0)
    turned = cs.Dataset("turned", data.images, 1 - data.labels, data.classes[::-1], data.preprocess)
    assert (cs.evaluate(run, turned).confusion == cs.evaluate(run, data).confusion).all()
    named = cs.Dataset("pets", data.images, data.labels, ("square", "hexagon"), data.preprocess)
    with pytest.raises(
        DataError, match="pets has the class 'hexagon', which shapes-cnn does not know; it knows square"
    ):
        cs.evaluate(run, named)


class Writing(nn.Module):
    """Writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(784, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(x.sub_(0.5).mul_(2).flatten(1))
        return result


def test_a_model_that_writes_into_its_input_harms_no_data(tmp_path: Path) -> None:
    run = cs.train("shapes", Writing(), epochs=3, out=tmp_path / "run")
    scores = [event["test_loss"] for event in run.history if event["event"] == "epoch"]
    assert cs.evaluate(run, "shapes").loss == pytest.approx(scores[-1], rel=1e-5)


class Volumes(nn.Module):
    """A convolution of images beside one of volumes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.deep = nn.Conv3d(1, 2, 1)
        self.fc = nn.Linear(4 * 26 * 26, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(self.deep(self.conv(x)[:, None]).flatten(1))
        return result


def test_weights_of_five_axes_keep_their_layout(tmp_path: Path) -> None:
    assert cs.train("shapes", Volumes(), epochs=1, out=tmp_path / "run").metrics["loss"] > 0


def test_a_training_that_gets_more_epochs_keeps_its_history_within_limits(tmp_path: Path) -> None:
    data = cs.load_dataset("shapes", size=600)
    for epochs in (4, 6, 11):
        settings: dict[str, Any] = {"batch_size": 1, "schedule": "constant", "lr": 1e-3} if epochs == 4 else {}
        model = cs.load_model("shapes-cnn-1")
        run = cs.train(data, model, epochs=epochs, out=tmp_path / "run", resume=epochs > 4, **settings)
    assert 100 < len(run.steps) <= 200
    assert run.steps[-1] == 6600


@pytest.mark.parametrize("name", [*OPTIMIZERS])
def test_an_optimizer_is_pickled_and_copied_as_pytorchs_own(name: str) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = OPTIMIZERS[name](layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert type(other) is getattr(torch.optim, type(optimizer).__name__)
        assert str(other.state_dict()) == str(optimizer.state_dict())
        other.zero_grad()
        other.step()
