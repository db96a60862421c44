"""Gradients against finite differences and the chain; and what a wrong number in a training step does to the report."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.proof.chain import chain
from convscope.proof.gradient_check import check_gradients
from convscope.proof.verification_report import GradientCheck

Array = NDArray[Any]


def images(count: int = 8) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def network() -> nn.Module:
    """Convolution, batch norm, ReLU, max pooling, linear: each with a gradient of its own kind."""
    torch.manual_seed(6)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4)
    )


LABELS = [0, 1, 2, 3, 0, 1, 2, 3]


def traced(optimizer: Callable[[Any], torch.optim.Optimizer] | None = None, steps: int = 0) -> cs.Trace:
    model = network()
    made = None if optimizer is None else optimizer(model.parameters())
    for _ in range(steps if made is not None else 0):
        assert made is not None
        made.zero_grad()
        F.cross_entropy(model(images()), torch.tensor(LABELS)).backward()  # type: ignore[no-untyped-call]
        made.step()
    return cs.trace(model, images(), target=LABELS, optimizer=made, training=True)


def overwrite(trace: cs.Trace, name: str, change: Callable[[Array], Array]) -> None:
    """Change a recorded number in the tape's own memory, as a wrong kernel would have."""
    step = trace[name]
    source: Any = step.values
    if name in {f"{each}.updated" for each in trace.training_step.statistics}:  # type: ignore[union-attr]
        made = source._statistics[step.id - len(trace.all_steps)].after
        made.copy_(torch.from_numpy(change(step.output.copy())))
        return
    _, call = source.fetch(source.entries[step.id].time)
    made = call[3] if isinstance(call[3], torch.Tensor) else call[3][source.entries[step.id].position]
    wrong = change(step.output.copy())
    assert not np.array_equal(step.output, wrong), "the mutation changes nothing"
    made.detach().copy_(torch.from_numpy(wrong))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_gradient_without_a_number_agrees_with_nothing(number: float) -> None:
    """Whatever the steps' own findings: the two comparisons alone."""
    trace = traced()

    def planted(gradient: Array) -> Array:
        gradient[..., 2] = number
        return gradient

    assert not check_gradients(trace).wrong
    overwrite(trace, "5.bias.grad", planted)
    check = check_gradients(trace)
    assert check.furthest == check.chain_furthest == np.inf
    assert check.wrong


def test_differences_that_were_all_skipped_are_not_called_small() -> None:
    skipped = GradientCheck(moved=5, flipped=2, lost=3, chained=1)
    assert skipped.lines[0].startswith("finite difference: no weight could be compared; 2 skipped, a ReLU")


def test_both_comparisons_agree_on_a_right_step() -> None:
    check = check_gradients(traced())
    assert check.agrees
    assert check.moved >= 12
    assert check.chained == 6
    assert "finite difference" in check.lines[0]
    assert "product of the chain" in check.lines[1]


def test_a_view_written_in_place_behind_a_batch_norm_is_followed() -> None:
    """Autograd replaces the whole tensor behind the view; the running statistics written before have no gradient."""
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.5, inplace=True), nn.Linear(4, 4),
    )  # fmt: skip
    report = cs.verify(cs.trace(model, images(), target=LABELS, optimizer="sgd", lr=0.1))
    assert report.gradients is not None
    assert (report.gradients.unable, report.gradients.chained) == ("", 6)
    assert report.proved, report.summary()


def test_the_chain_is_the_gradient_of_the_same_network_in_float64() -> None:
    trace = traced()
    model = network().double()
    pixels = images().double().requires_grad_()
    F.cross_entropy(model(pixels), torch.tensor(LABELS)).backward()  # type: ignore[no-untyped-call]
    pulled = chain(trace)
    for name, tensor in [("input", pixels), *model.named_parameters()]:
        assert tensor.grad is not None
        np.testing.assert_allclose(pulled[name], tensor.grad, rtol=1e-4, atol=1e-6)


def photo() -> cs.Trace:
    """A step whose bias has a gradient of 25,088 equal terms, which float32 rounds by 5e-4 of their sum."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 2, 7, stride=2, padding=3)
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    return cs.trace(model, torch.rand(2, 1, 224, 224), target=[0, 1])


@pytest.mark.parametrize("wrong", [False, True])
def test_the_rounding_of_a_large_sum_is_not_taken_for_a_wrong_gradient(wrong: bool) -> None:
    trace = photo()
    if wrong:
        overwrite(trace, "0.bias.grad", lambda gradient: gradient * np.float32(1.01))
    check = check_gradients(trace)
    assert check.agrees != wrong
    assert (check.chain_worst == "0.bias") == wrong


def test_a_gradient_that_lacks_a_term_is_not_confirmed() -> None:
    trace = traced()
    overwrite(trace, "0.weight.grad", lambda gradient: gradient * 1.01)
    check = check_gradients(trace)
    assert check.wrong
    assert not check.agrees
    assert "0.weight" in check.lines[0] + check.lines[1]


def wrong_winner(gradient: Array) -> Array:
    """Every gradient of a pooling window one cell further."""
    return np.roll(gradient, 1, axis=-1)


def missing_paths(trace: cs.Trace) -> Callable[[Array], Array]:
    """The gradient through batch norm without the paths by its mean and variance."""
    step = trace["0.grad"]
    scale = trace.operand(step, "weight")
    save = trace.operand(step, "save_invstd")
    arrived = trace.operand(step, "grad_out")
    straight = arrived * (scale * save)[None, :, None, None]
    return lambda _: straight.astype(np.float32)


def uncorrected(trace: cs.Trace) -> Callable[[Array], Array]:
    """Adam without its bias corrections."""
    step = trace["5.weight.updated"]
    before = trace.operand(step, "param")
    mean, square = (trace[f"5.weight.{name}.updated"].output for name in ("exp_avg", "exp_avg_sq"))
    return lambda _: (before - 0.01 * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)


def momentum_twice(trace: cs.Trace) -> Callable[[Array], Array]:
    """SGD that applies its momentum twice."""
    step = trace["5.weight.updated"]
    before, buffer = trace.operand(step, "param"), trace.operand(step, "momentum_buffer")
    gradient = trace.operand(step, "grad")
    return lambda _: (before - 0.01 * (gradient + 2 * 0.9 * buffer)).astype(np.float32)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 0.01)


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.01, momentum=0.9)


def biased(trace: cs.Trace) -> Callable[[Array], Array]:
    """A running variance by the batch's variance divided by n instead of n - 1."""
    step = trace["1.running_var.updated"]
    before, batch = trace.operand(step, "running_var"), trace.operand(step, "input")
    return lambda _: (0.9 * before + 0.1 * batch.var(axis=(0, 2, 3))).astype(np.float32)


MUTATIONS: dict[str, tuple[Any, str, Callable[[cs.Trace], Callable[[Array], Array]]]] = {
    "a wrong winner": (None, "2.grad", lambda _: wrong_winner),
    "no path by mean and variance": (None, "0.grad", missing_paths),
    "no bias corrections": (adam, "5.weight.updated", uncorrected),
    "momentum twice": (momentum, "5.weight.updated", momentum_twice),
    "a biased running variance": (None, "1.running_var.updated", biased),
}


@pytest.mark.parametrize(("optimizer", "name", "mutation"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_wrong_step_turns_the_badge_red(
    optimizer: Any, name: str, mutation: Callable[[cs.Trace], Callable[[Array], Array]]
) -> None:
    trace = traced(optimizer, steps=2)
    assert cs.verify(trace, cells=20).proved
    overwrite(trace, name, mutation(trace))
    report = cs.verify(trace, cells=20)
    assert not report.proved
    assert name in [step.name for step in report.mismatches]


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "strided": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 3), padding=(1, 0), dilation=(1, 2)), (3, 2, 9, 11)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (3, 4, 7, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5, 4)),
    "in one dimension": (lambda: nn.Conv1d(2, 3, 4, stride=2), (3, 2, 11)),
    "batch norm in training": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 2)),
    "layer norm": (lambda: nn.LayerNorm((5, 2)), (4, 3, 5, 2)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5, 2)),
    "linear": (lambda: nn.Linear(5, 3), (4, 5)),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_the_chain_of_one_layer_is_its_gradient(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    """By the kernels, scales and shifts too, which a forward trace never asks for."""
    torch.manual_seed(7)
    layer = make()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    x = torch.randn(shape)
    weights = torch.randn(layer(x).shape)

    def loss(output: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
        return (output * weights).sum()

    trace = cs.trace(layer, x, target=np.zeros(shape[0], int), loss=loss, training=True)
    twin, pixels = make().double(), x.double().requires_grad_()
    twin.load_state_dict(layer.state_dict())
    (twin(pixels) * weights.double()).sum().backward()
    pulled = chain(trace)
    for name, tensor in [("input", pixels), *twin.named_parameters()]:
        assert tensor.grad is not None
        np.testing.assert_allclose(pulled[name], tensor.grad, rtol=1e-5, atol=1e-5)


STEPS = {
    "crosses": "adadelta", "shapes-cnn-1": "adam", "shapes-cnn": "adamw", "color-cnn": "rmsprop", "simple-cnn": "sgd",
    "mnist-convnet": "adam", "shapes-mlp": "adadelta",
}  # fmt: skip


@pytest.mark.parametrize(("name", "optimizer"), STEPS.items(), ids=STEPS)
def test_every_parameter_of_a_built_in_network_is_proved_over_one_step(name: str, optimizer: str) -> None:
    model = cs.load_model(name)
    x = np.stack([cs.random_image(model, seed=i) for i in range(8)])
    loss = "mse" if name == "crosses" else "cross-entropy"
    trace = cs.trace(model, x, target=np.arange(8) % 2, loss=loss, optimizer=optimizer)
    report = cs.verify(trace, cells=30)
    assert report.proved, report.summary()
    assert trace.training_step is not None
    names = {parameter for parameter, _ in model.named_parameters()}
    assert {*trace.training_step.updated} == names
    assert {*trace.training_step.gradients} == {*names, "input"}


class Weighed(nn.Module):
    """A function of the image times one weight."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x * self.weight)


def step_of(function: Callable[[torch.Tensor], torch.Tensor], *numbers: float) -> GradientCheck:
    """The check of a step whose loss is the sum of the function's results."""
    image = torch.tensor([numbers])
    return check_gradients(cs.trace(Weighed(function), image, target=[0], loss=lambda y, _: y.sum()))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: torch.round(x, decimals=3), id="rounded"),
        pytest.param(lambda x: x.floor() + x, id="cut off"),
        pytest.param(lambda x: torch.div(x, 0.001, rounding_mode="floor"), id="whole parts"),
        pytest.param(lambda x: torch.fmod(x, 0.00005), id="a remainder"),
        pytest.param(lambda x: x.frac(), id="what is behind the point"),
    ],
)
def test_a_jump_is_not_a_slope(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    check = step_of(function, 8.0005, 7.00002, 5.0)
    assert not check.wrong
    assert check.moved > 0


def test_a_slope_that_the_loss_does_not_show_is_not_a_wrong_gradient() -> None:
    check = step_of(torch.erfc, -8.2, -7.9)
    assert (check.wrong, check.lost, check.moved) == (False, 1, 1)
