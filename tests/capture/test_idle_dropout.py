"""Dropout in evaluation mode: a step that returns what it was given, wherever steps are used."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import convscope as cs
from convscope.capture.activations import ActivationWatch


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Dropout(0.1), nn.Flatten(), nn.Linear(16, 6), nn.Dropout(0.4), nn.ReLU(True), nn.Dropout(0.5, True)]
    return nn.Sequential(*layers, nn.Linear(6, 2), nn.Dropout(0.2)).eval()


IMAGES = np.random.default_rng(0).random((3, 1, 4, 4), np.float32)


@pytest.mark.parametrize("keep", ["all", 0])
def test_it_is_a_step_with_the_numbers_before_it(keep: str | int) -> None:
    trace = cs.trace(network(), IMAGES, keep=keep)
    assert [step.name for step in trace.steps] == [*"01234567"]
    assert trace["5"].says == "dropout 0.5, inactive in evaluation mode"
    np.testing.assert_array_equal(trace["5"].output, trace["4"].output)
    np.testing.assert_array_equal(trace["0"].output, IMAGES)
    assert (trace["3"].output < 0).any()  # before the activation, which is in place
    assert "the same number as layer 4 (0, 1)" in str(cs.explain(trace, "5", (0, 1)))
    assert cs.verify(trace).proved


class Functional(nn.Module):
    """Dropout as a function, as many models call it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.dropout2d(self.conv(x), 0.25, self.training)
        x = functional.dropout(x, p=0.0, training=self.training)
        x = functional.dropout(torch.relu(x).flatten(1), training=self.training)
        result: torch.Tensor = self.fc(x)
        return result


def test_a_function_without_effect_is_a_step_too() -> None:
    before = functional.dropout
    trace = cs.trace(Functional(), IMAGES)
    assert functional.dropout is before
    assert [step.name for step in trace.steps] == ["conv", "dropout", "relu", "flatten", "dropout#2", "fc"]
    assert trace["dropout#2"].says == "dropout 0.5, inactive in evaluation mode"
    np.testing.assert_array_equal(trace["dropout#2"].output, trace["flatten"].output)
    assert cs.verify(trace).proved


def test_a_function_that_was_replaced_runs_and_stays_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    own, calls = functional.dropout, list[float]()

    def counting(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        calls.append(p)
        return own(x, p, training, inplace)

    monkeypatch.setattr(functional, "dropout", counting)
    trace = cs.trace(Functional(), IMAGES)
    assert calls[:2] == [0.0, 0.5]
    assert functional.dropout is counting
    assert "dropout" in [step.name for step in trace.steps]


@pytest.mark.parametrize("model", [Functional, lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.Flatten())])
def test_a_mask_has_the_name_of_its_dropout(model: Callable[[], nn.Module]) -> None:
    trace = cs.trace(model(), IMAGES, target=[0, 1, 0], loss="cross-entropy", optimizer="sgd", lr=0.1)
    products = [step for step in trace.steps if step.says == "dropout, input × mask"]
    assert products
    for step in products:
        mask = trace[f"{step.name}.mask"]
        assert mask.hidden
        assert mask.says == "dropout mask: 0 or 1 ÷ (1 − p)"
        assert f"{step.name}.mask" in str(cs.explain(trace, step, (0,) * len(step.shape)))
    assert cs.verify(trace).proved


class Halved(nn.Module):
    """Divides by 2: a number, or random draws."""

    def __init__(self, *, draws: bool) -> None:
        super().__init__()
        self.draws = draws

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.bernoulli(torch.full_like(x, 0.3)) / 2) if self.draws else x / 2


def test_other_quotients_are_not_dropout_masks() -> None:
    block = nn.Sequential(OrderedDict(mask=Halved(draws=False), random=Halved(draws=True)))
    trace = cs.trace(nn.Sequential(nn.Flatten(), block), IMAGES)
    assert trace["1.mask"].says == "div"
    assert {step.says for step in trace.all_steps if step.op in {"div", "mul"}} == {"div", "product"}


def test_its_result_can_be_overridden() -> None:
    model = network()
    bias = model.get_parameter("6.bias").detach().numpy()
    trace = cs.trace(model, IMAGES, overrides={"5": np.zeros((3, 6), np.float32)})
    np.testing.assert_array_equal(trace.output, np.stack([bias] * 3))


def test_what_pixels_add_passes_through() -> None:
    added = cs.explain(cs.trace(network(), IMAGES), "7", (1, 1)).to_input()
    assert added.pixels["input"][1].any()
    assert not added.pixels["input"][0].any()


def test_a_step_of_training_in_evaluation_mode_is_proved() -> None:
    trace = cs.trace(network(), IMAGES, target=[0, 1, 0], loss="cross-entropy", training=False)
    assert trace.training_step is not None
    assert trace.training_step.mode == "evaluation"
    assert cs.verify(trace).proved


def test_activations_of_batches_include_it() -> None:
    with torch.no_grad():
        sums = ActivationWatch(network(), ["0", "4", "5", "7"])(torch.tensor(IMAGES), lambda _, x: float(x.sum()))
    trace = cs.trace(network(), IMAGES)
    assert sums == pytest.approx({name: float(trace[name].output.sum()) for name in sums}, rel=1e-5)
    assert list(sums) == ["0", "4", "5", "7"]


def test_the_active_layer_names_its_mask() -> None:
    trace = cs.trace(nn.Dropout(0.5), np.ones((4, 8), np.float32), training=True)
    assert trace.steps[-1].says == "dropout, input × mask"


class AlwaysActive(nn.Dropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, self.p, True, inplace=True)


@pytest.mark.parametrize(("layer", "training"), [(nn.Dropout(0.5, True), True), (AlwaysActive(0.5), False)])
def test_an_active_layer_in_place_returns_its_input_too_and_is_not_called_inactive(
    layer: nn.Module, training: bool
) -> None:
    trace = cs.trace(nn.Sequential(nn.Linear(4, 8), layer), np.ones((4, 4), np.float32), training=training)
    assert not [step.says for step in trace.all_steps if "inactive" in step.says]
    assert trace.steps[-1].op == "mul"


def test_the_model_itself_still_returns_its_input() -> None:
    layer = nn.Dropout().eval()
    cs.trace(layer, IMAGES)
    given = torch.tensor(IMAGES)
    assert layer(given) is given


def test_a_mask_takes_no_name_of_a_module_nor_a_step_that_of_another() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask = nn.Conv2d(1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.mask(x)
            return result

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = Inner()
            self.add_module("relu#2", nn.Conv2d(1, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.dropout(self.dropout(x), 0.5, training=True).relu().relu()
            result: torch.Tensor = self.get_submodule("relu#2")(x)
            return result

    trace = cs.trace(Net(), torch.randn(1, 1, 4, 4))
    names = [step.name for step in trace.all_steps]
    assert len(set(names)) == len(names)
    assert {"dropout.mask", "dropout.mask#2", "relu#2", "relu#2#2"} <= set(names)
    for step in trace.all_steps:
        assert trace[step.name] is step
