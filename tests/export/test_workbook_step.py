"""Workbooks of a training step: forward, loss, backward and update as formulas that follow a change."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_workbook import assert_follows, values_of
from torch import Tensor, nn

import convscope as cs
from commands import Commands
from convscope.cards.card import Card, attach
from convscope.export.chain_numbers import Key
from convscope.export.workbook import Workbook
from spreadsheet import Spreadsheet, name

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.5, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.5, weight_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.5),
    "centred": lambda p: torch.optim.RMSprop(p, lr=0.5, centered=True, momentum=0.8),
}


def crosses() -> nn.Module:
    return cs.load_model("crosses", seed=0)


def image() -> Any:
    return np.array(cs.load_image("crosses:damaged-plus", like=crosses()))


def optimizer_after(kind: str, model: nn.Module, steps: int = 2) -> torch.optim.Optimizer:
    """An optimizer that has taken some steps, so that its state counts; the model's weights are as before."""
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = OPTIMIZERS[kind](model.parameters())
    for label in range(steps):
        optimizer.zero_grad()
        output = model(torch.tensor(image())[None]).squeeze(1)
        torch.autograd.backward(nn.functional.mse_loss(output, torch.tensor([float(label)])))
        optimizer.step()
    model.load_state_dict(weights)
    return optimizer


def step(kind: str, folder: Path, *, pixel: float | None = None, lr: float | None = None, **overrides: Any) -> Workbook:
    """The workbook of a training step of crosses, perhaps with another pixel, learning rate or parameters."""
    model, picture = crosses(), image()
    optimizer = optimizer_after(kind, model)
    if lr is not None:
        optimizer.param_groups[0]["lr"] = lr
    if pixel is not None:
        picture[0, 1, 2] = pixel
    trace = cs.trace(model, picture, target=1, loss="mse", optimizer=optimizer, overrides=overrides)
    return cs.workbook(trace, out=folder / "step.xlsx")


def change(book: Workbook, sheet: Spreadsheet, key: Key, index: int, value: float) -> None:
    """Change one of the given numbers."""
    number, block = book.layout.blocks[key]
    sheet.set(book.layout.names[number], name(int(block.rows[index]), int(block.columns[index])), value)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_follows_a_pixel_a_weight_and_the_rate(kind: str, tmp_path: Path) -> None:
    book = step(kind, tmp_path)
    sheet = Spreadsheet(tmp_path / "step.xlsx")
    assert_follows(book, sheet)
    weight = crosses().state_dict()["conv1.weight"].numpy().copy()
    weight[0, 0, 2, 0] = 0.75
    change(book, sheet, Key("input", "input"), 5, 0.25)
    change(book, sheet, Key("parameter", "conv1.weight"), 6, 0.75)
    change(book, sheet, Key("number", "lr"), 0, 0.125)
    other = step(kind, tmp_path, pixel=0.25, lr=0.125, **{"conv1.weight": weight})
    moved = 0
    for numbers in other.chain.calculated:
        values = values_of(book, sheet, numbers.key)
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), numbers.key.name
        moved += int((np.abs(book.chain.tensors[numbers.key].recorded - numbers.recorded) > numbers.bound).sum())
    assert moved > len(other.chain.calculated)
    assert {"conv1.weight.grad", "conv1.weight.updated", "optimizer", "loss"} <= {*sheet.names}


def test_the_label_and_the_state_can_be_changed(tmp_path: Path) -> None:
    book = step("adadelta", tmp_path)
    sheet = Spreadsheet(tmp_path / "step.xlsx")
    change(book, sheet, Key("input", "target"), 0, 0.0)
    change(book, sheet, Key("parameter", "conv1.bias.square_avg"), 0, 0.5)
    model = crosses()
    optimizer = optimizer_after("adadelta", model)
    optimizer.state[model.get_parameter("conv1.bias")]["square_avg"].fill_(0.5)
    trace = cs.trace(model, image(), target=0, loss="mse", optimizer=optimizer)
    for numbers in cs.workbook(trace).chain.calculated:
        recorded = trace[numbers.key.name].outputs[numbers.key.output].ravel()
        np.testing.assert_allclose(values_of(book, sheet, numbers.key), recorded, rtol=1e-5, atol=1e-7)


def test_an_update_refers_to_the_new_state_of_the_optimizer(tmp_path: Path) -> None:
    book = step("adam", tmp_path)
    sheet = Spreadsheet(tmp_path / "step.xlsx")
    index, block = book.layout.blocks[Key("step", "conv1.weight.updated")]
    text = sheet.formulas["conv1.weight.updated", name(int(block.rows[4]), int(block.columns[4]))]
    cell = r"[A-Z]+\d+"
    setting = r"'optimizer'!E\d"
    assert re.fullmatch(
        rf"'conv1'!{cell}-{setting}\*\(\({cell}/\(1-{setting}\^{setting}\)\)"
        rf"/\(SQRT\(\({cell}/\(1-{setting}\^{setting}\)\)\)\+{setting}\)\)",
        text,
    ), text
    words = [sheet.stored[book.layout.names[index], f"A{row}"] for row in (2, 3, 4)]
    assert words[0] == "new exp_avg = beta1 × exp_avg + (1 − beta1) × (grad + weight_decay × conv1.weight)"
    assert str(words[2]).startswith("new conv1.weight = conv1.weight − lr × ((new exp_avg ÷ (1 − beta1^step))")


def test_the_first_sheet_lists_the_parameters_before_and_after(tmp_path: Path) -> None:
    step("sgd", tmp_path)
    sheet = Spreadsheet(tmp_path / "step.xlsx")
    texts = {text: cell[1:] for (page, cell), text in sheet.stored.items() if page == "network"}
    row = texts["conv1.bias (0)"]
    before, gradient, after = (sheet.get("network", f"{column}{row}") for column in "BCD")
    assert after == pytest.approx(before - 0.5 * gradient, rel=1e-12)
    assert sheet.stored["network", "A2"] == "one step of SGD (learning rate 0.5) on mse, in training mode"


def test_a_wrong_gradient_is_beyond_its_bound(tmp_path: Path) -> None:
    book = step("adadelta", tmp_path)
    wrong = book.chain.tensors[Key("step", "conv1.weight.grad")]
    wrong.recorded[3] += 1e-5
    assert book.beyond == ["conv1.weight.grad (0, 1, 0)"]


class Activations(nn.Module):
    """A network whose slopes jump."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2)
        self.fc = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 3, 3) to (N, 1)."""
        x = torch.relu(self.conv(x))
        result: Tensor = self.fc(torch.tanh(nn.functional.leaky_relu(x - 0.1, 0.2)).flatten(1))
        return result


def test_slopes_of_activations_follow_a_change(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Activations()
    pictures = np.random.default_rng(0).normal(size=(2, 1, 3, 3)).astype(np.float32)
    book = cs.workbook(model, pictures, target=[0, 1], loss="mse", optimizer="sgd", lr=0.1, out=tmp_path / "net.xlsx")
    sheet = Spreadsheet(tmp_path / "net.xlsx")
    assert_follows(book, sheet)
    change(book, sheet, Key("input", "input"), 4, -2.0)
    pictures[0, 0, 1, 1] = -2.0
    other = cs.workbook(model, pictures, target=[0, 1], loss="mse", optimizer="sgd", lr=0.1)
    other.chain.calculate()
    for numbers in other.chain.calculated:
        values = values_of(book, sheet, numbers.key)
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), numbers.key.name


class Cancels(nn.Module):
    """A ReLU of 1 + 2^-25 - 1, which is 0 in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.terms = nn.Parameter(torch.tensor([1.0, 2.0**-25, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1) to (N, 1)."""
        return x * torch.relu(self.terms[0:1] + self.terms[1:2] - self.terms[2:3])


def test_a_slope_that_only_one_calculation_passes_may_differ_by_the_whole_gradient() -> None:
    book = cs.workbook(Cancels(), np.ones((1, 1), np.float32), target=1, loss="mse")
    assert not book.beyond
    assert not book.unbounded
    slopes = {n.key.name: n for n in book.chain.calculated}["sub.grad"]
    assert (slopes.recorded[0], slopes.live[0]) == (0.0, pytest.approx(-2.0, abs=1e-6))
    assert 2.0 <= slopes.bound[0] < 2.1
    assert "sub.grad (0)" in {tie.name for tie in book.ties}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "mse"}, "target"),
        ({"target": 1, "loss": "mse", "optimizer": "lbfgs"}, "lbfgs"),
    ],
)
def test_a_step_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(cs.UsageError, match=says):
        cs.workbook("crosses", "crosses:plus", **options)


def pooled(**pool: Any) -> nn.Sequential:
    """A network whose windows have ties, above all the zeros of the ReLU."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(**pool), nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize("pool", [{"kernel_size": 2}, {"kernel_size": (3, 2), "stride": 1, "padding": 1}], ids=str)
def test_the_gradients_of_a_maximum_and_of_a_label_follow_another_choice(pool: Any, tmp_path: Path) -> None:
    model = pooled(**pool)
    pictures = np.random.default_rng(1).normal(size=(2, 1, 6, 5)).astype(np.float32)
    model(torch.tensor(pictures))
    step: dict[str, Any] = {"loss": "cross-entropy", "optimizer": "sgd", "lr": 0.5}
    book = cs.workbook(model, pictures, target=[2, 0], out=tmp_path / "net.xlsx", **step)
    sheet = Spreadsheet(tmp_path / "net.xlsx")
    assert_follows(book, sheet)
    change(book, sheet, Key("input", "input"), 12, 3.5)
    change(book, sheet, Key("input", "target"), 1, 1.0)
    pictures[0, 0, 2, 2] = 3.5
    other = cs.workbook(model, pictures, target=[2, 1], **step)
    other.chain.calculate()
    for numbers in other.chain.calculated:
        values = values_of(book, sheet, numbers.key)
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), numbers.key.name
    assert (book.trace["2"].outputs[1] != other.trace["2"].outputs[1]).any()


def test_the_gradient_of_a_label_is_the_probability_minus_the_target(tmp_path: Path) -> None:
    model = pooled(kernel_size=2)
    model(torch.ones(1, 1, 4, 4))
    book = cs.workbook(model, np.ones((2, 1, 4, 4), np.float32), target=[1, 2], out=tmp_path / "net.xlsx")
    sheet = Spreadsheet(tmp_path / "net.xlsx")
    scores = values_of(book, sheet, Key("step", "4")).reshape(2, 3)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = (shares - np.eye(3)[[1, 2]]) / 2
    np.testing.assert_allclose(values_of(book, sheet, Key("step", "4.grad")).reshape(2, 3), expected, atol=1e-12)


def test_the_first_sheet_lists_the_gradients_of_linear_layers_too(tmp_path: Path) -> None:
    model = pooled(kernel_size=2)
    model(torch.ones(1, 1, 4, 4))
    pictures = np.random.default_rng(1).normal(size=(2, 1, 4, 4)).astype(np.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    cs.workbook(model, pictures, target=[1, 2], optimizer=optimizer, out=tmp_path / "net.xlsx")
    sheet = Spreadsheet(tmp_path / "net.xlsx")
    rows = {str(text): cell[1:] for (page, cell), text in sheet.stored.items() if page == "network" and cell[0] == "A"}
    for label in ("4.weight (0, 1)", "4.weight (2, 0)", "4.bias (2)", "0.weight (1, 0, 0, 1)"):
        before, gradient, after = (sheet.get("network", f"{column}{rows[label]}") for column in "BCD")
        assert gradient
        assert after == pytest.approx(before - 0.5 * gradient, rel=1e-12)


def test_a_gradient_that_goes_to_the_second_of_two_equal_cells_is_beyond_its_bound() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2), nn.Flatten())
    book = cs.workbook(model, np.ones((1, 1, 2, 2), np.float32), target=1, loss="mse")
    (numbers,) = (each for each in book.chain.calculated if each.key.name == "0.grad")
    assert numbers.recorded.tolist()[1:] == [0, 0, 0]
    numbers.recorded[:2] = numbers.recorded[1::-1]
    assert {"0.grad (0, 0, 0)", "0.grad (0, 0, 1)"} <= {*book.beyond}


def test_labels_that_are_ignored_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(cs.UsageError, match=r"class weights or ignored labels"):
        cs.workbook(model, np.ones((2, 1, 2, 2), np.float32), target=[1, -100], loss="cross-entropy")


def test_a_step_that_is_too_large_says_what_would_fit() -> None:
    model = cs.load_model("mnist-convnet", seed=0)
    with pytest.raises(cs.UsageError, match=r"holds 125,000; choose a smaller network, fewer images, or one number"):
        cs.workbook(model, np.ones((1, 28, 28), np.float32), target=1)


def test_the_command_writes_a_training_step(convscope: Commands, tmp_path: Path) -> None:
    settings = ["--target", "1", "--loss", "mse", "--optimizer", "adadelta", "--lr", "1"]
    options: list[str | Path] = [*settings, "-o", tmp_path / "step.xlsx"]
    lines = convscope.said("workbook", "crosses", "crosses:plus", *options).splitlines()
    assert lines[0] == "crosses on crosses:plus: 108 numbers on 19 sheets, 65 of them formulas"
    assert lines[1].endswith("65 numbers calculated from the image, all within their bounds")
    one = convscope.said("workbook", "crosses", "crosses:plus", "--at", "conv1.weight.grad:0,0,1,1", *options)
    assert "all within their bounds" in one


def test_the_first_sheet_names_the_classes_of_every_image_and_its_label(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    attach(model, Card("named", classes=("=cat", "dog", "owl")))
    images = np.random.default_rng(2).random((2, 1, 4, 4), np.float32)
    cs.workbook(cs.trace(model, images, target=[2, 0]), out=tmp_path / "step.xlsx")
    sheet = Spreadsheet(tmp_path / "step.xlsx")

    def column(letter: str) -> list[Any]:
        return [sheet.get("network", f"{letter}{row}") for row in range(1, 40)]

    first, second = column("A").index("2, image 0"), column("A").index("2, image 1")
    lines = ["=cat", "dog", "owl", "the largest", "the label"]
    assert column("A")[first + 1 : first + 6] == column("A")[second + 1 : second + 6] == lines
    best = cs.trace(model, images)["2"].output.argmax(axis=1)
    assert [column("B")[row + 4] for row in (first, second)] == [lines[index] for index in best]
    assert [column("B")[row + 5] for row in (first, second)] == ["owl", "=cat"]
    place = sheet.formulas["network", f"B{first + 6}"].rpartition("!")[2].partition("+")[0]
    sheet.set("target", place, 1)
    assert [column("B")[row + 5] for row in (first, second)] == ["dog", "=cat"]
