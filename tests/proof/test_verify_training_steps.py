"""One training step of every built-in network with every optimizer, and of other libraries' architectures: proved.

Run the study with `pytest -m study tests/proof/test_verify_training_steps.py -rP`: it prints a line for each step.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer, RMSprop

import convscope as cs
from convscope.capture.recording import tensors_of
from convscope.models.catalog import MODELS
from convscope.proof.verification_report import Verification
from zoo import ZOO, born

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, 0.05),
    "sgd with momentum": lambda p: SGD(p, 0.05, momentum=0.9, dampening=0.1, weight_decay=1e-3),
    "nesterov": lambda p: SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, 1e-3),
    "adamw": lambda p: AdamW(p, 1e-3),
    "adadelta": lambda p: Adadelta(p, weight_decay=1e-3),
    "rmsprop": lambda p: RMSprop(p, 1e-3, momentum=0.5, centered=True),
}
UNRESOLVED = 0.05
"""The largest share of a step's numbers that may be unresolved."""
EIGHT = torch.arange(8) % 2


def weighted(output: Any, _target: torch.Tensor) -> torch.Tensor:
    """A weighted mean of what a network returned: a loss for any shape, and for outputs of a normalization too."""
    first = next(tensors_of(output))
    return (first * torch.linspace(-1, 2, first.numel()).reshape(first.shape)).mean()


def stepped(name: str, kind: str) -> cs.Trace:
    """The second step of a built-in network on eight images: its optimizer has a state."""
    torch.manual_seed(0)
    model = cs.load_model(name)
    optimizer = OPTIMIZERS[kind](model.parameters())
    x = np.stack([cs.random_image(model, seed=seed) for seed in range(8)])
    loss = "mse" if name == "crosses" else "cross-entropy"
    settings: dict[str, Any] = {"target": EIGHT, "loss": loss, "optimizer": optimizer}
    first = cs.trace(model, x, **settings)
    for parameter, tensor in model.named_parameters():
        tensor.grad = torch.from_numpy(first[f"{parameter}.grad"].output.reshape(tensor.shape).copy())
    optimizer.step()
    return cs.trace(model, x, **settings)


def assert_confirmed(report: Verification, name: str) -> None:
    """No mismatch, nothing unsupported, few numbers unresolved, and both comparisons of the gradients agree."""
    unresolved = sum(step.numbers for step in report.unresolved) / (report.numbers - report.given)
    line = f"{name}: {unresolved:.4%} unresolved; {report.summary()}; {'; '.join(report.lines[1:])}"
    print(line)  # noqa: T201 - the study's result
    findings = {step.finding for step in report.steps}
    assert findings <= {"proved", "proved normwise", "given", "unresolved"}, report.summary()
    assert not report.reasons, report.summary()
    assert unresolved <= UNRESOLVED


@pytest.mark.study
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "stripes"])  # its filters are fixed
def test_every_parameter_of_a_built_in_network_is_proved(name: str, kind: str) -> None:
    trace = stepped(name, kind)
    assert trace.training_step is not None
    names = {parameter for parameter, _ in cs.load_model(name).named_parameters()}
    assert {*trace.training_step.updated} == names
    assert {*trace.training_step.gradients} == {*names, "input"}
    assert_confirmed(cs.verify(trace, cells=30), f"{name}, {kind}")


def step_of(name: str) -> cs.Trace:
    """One step of an architecture of another library on eight images."""
    model, _ = born(name)
    shape = ZOO[name].shape
    images = torch.randn(8, *(shape[1:] if name == "TransformerEncoder" else shape))
    return cs.trace(
        model,
        images,
        target=EIGHT,
        loss=weighted,
        optimizer=SGD(model.parameters(), 0.05),
    )


NOISE = ("EfficientNet", "MobileNetV2")
"""Untrained ones whose batch norms divide what is almost constant by its small spread: too much of it is rounding."""


@pytest.mark.study
@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOISE])
def test_a_step_of_an_architecture_of_another_library_is_proved(name: str) -> None:
    assert_confirmed(cs.verify(step_of(name), cells=30), name)


KINKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu6": torch.nn.ReLU6(),
    "hardtanh": torch.nn.Hardtanh(),
    "hardswish": torch.nn.Hardswish(),
    "hardsigmoid": torch.nn.Hardsigmoid(),
    "softshrink": torch.nn.Softshrink(0.5),
    "hardshrink": torch.nn.Hardshrink(0.5),
    "threshold": torch.nn.Threshold(0.5, 0.1),
    "leaky relu": torch.nn.LeakyReLU(),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp min": lambda x: x.clamp(min=0.5),
    "clamp max": lambda x: x.clamp(max=0.5),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "abs": torch.abs,
    "median of equal numbers": lambda x: x.round().clamp(-1, 1).median(1, keepdim=True)[0] + x,
    "k-th of equal numbers": lambda x: x.clamp(-1, 1).kthvalue(8, 1, keepdim=True)[0] + x,
    "a root of 0 that gets no gradient": lambda x: (x * x).sqrt() * 0 + x,
    "a deviation much smaller than the numbers": lambda x: x + (1000 + 0.01 * x).std(1, keepdim=True),
    "largest of equal numbers": lambda x: x.clamp(-1, 1).max(1, keepdim=True)[0] + x,
}


@pytest.mark.parametrize("name", KINKS)
def test_a_gradient_at_a_kink_is_the_one_that_pytorch_defines(name: str) -> None:
    class At(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return KINKS[name](x * self.scale)

    numbers = torch.tensor([[-6.0, -3, -1, -0.5, -0.0, 0, 0.5, 1, 3, 6, 7]])
    trace = cs.trace(At(), numbers, target=torch.tensor([3]))
    assert not cs.verify(trace).mismatches


@pytest.mark.parametrize(("spread", "underived"), [(0.01, False), (0.001, True)])
def test_a_slope_that_roundings_alone_may_make_is_no_proof(spread: float, underived: bool) -> None:
    """Of numbers about 1000, those that differ by a thousandth have roundings as large as a tenth of their slope."""

    class Deviation(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * self.scale
            return x + (1000 + spread * x).std(1, keepdim=True)

    numbers = torch.tensor([[-6.0, -3, -1, -0.5, -0.0, 0, 0.5, 1, 3, 6, 7]])
    report = cs.verify(cs.trace(Deviation(), numbers, target=torch.tensor([3])))
    assert ("underived" in {step.finding for step in report.steps}) == underived
    assert not report.mismatches
