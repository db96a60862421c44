"""Contributions of pixels: autograd's slopes, a constant that is calculated, and what is left over."""

import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import UsageError
from convscope.ops import OPS, Op
from convscope.ops.op import VJPRule
from convscope.ops.vjp import VJP
from convscope.proof.explanation import explain
from convscope.traces.trace import Trace
from explained_networks import Crosses, Small
from rule_cases import CASES, recorded


@pytest.fixture(scope="module")
def crosses() -> Trace:
    return cs.trace(Crosses(), cs.load_dataset("crosses", split="test").image("damaged-plus"))


@pytest.fixture(scope="module")
def small() -> tuple[Small, Tensor, Trace]:
    torch.manual_seed(5)
    model, image = Small().eval(), torch.randn(1, 3, 12, 12)
    return model, image, cs.trace(model, image)


# Contributions of pixels


SLOPED = [name for name, case in CASES.items() if case.slopes and not case.training]


@pytest.mark.parametrize("name", SLOPED)
def test_contributions_are_autograds(name: str) -> None:
    """In float64: the weights are autograd's slopes, and with the constant they give the number again."""
    trace, model, inputs = recorded(name, torch.float64)
    step = trace.steps[-1]
    if "float64" not in step.dtype or 0 in step.shape or OPS[step.op].vjp is None:
        return
    cell = tuple(n // 2 for n in step.shape)
    try:
        results = explain(trace, step, cell).to_input()
    except UsageError as error:
        assert "cannot be followed" in str(error)  # noqa: PT017 - what is refused says why
        return
    assert results.checks
    assert_slopes(model, inputs, step.name, cell, results.weights)


def assert_slopes(model: nn.Module, inputs: tuple[Tensor, ...], name: str, cell: tuple[int, ...], weights: Any) -> None:
    """Autograd's slopes of the model's last result, where that is one tensor."""
    arguments = [x.clone().requires_grad_() for x in inputs]
    torch.manual_seed(0)
    made = model(*arguments)
    if not isinstance(made, Tensor) or not made.requires_grad or made.ndim != len(cell):
        return
    try:
        slopes = torch.autograd.grad(made[cell], arguments, allow_unused=True)
    except RuntimeError as error:
        assert "not implemented" in str(error)  # noqa: PT017 - PyTorch has no slope, ours is 0
        return
    for (key, ours), theirs in zip(weights.items(), slopes, strict=True):
        expected = np.zeros(ours.shape) if theirs is None else theirs.numpy(force=True)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-7, err_msg=f"{name} {key}")


def test_a_piecewise_linear_network_is_exact(small: tuple[Small, Tensor, Trace]) -> None:
    model, image, trace = small
    for unit in range(5):
        results = explain(trace, "fc", (unit,)).to_input()
        assert results.linear
        assert results.checks
        assert results.bound < 1e-3
        exact_image = image.double().requires_grad_()
        slope = torch.autograd.grad(Small.forward(model.double(), exact_image)[0, unit], exact_image)[0]
        model.float()
        np.testing.assert_allclose(results.weights["input"], slope.numpy(), rtol=1e-9, atol=1e-12)


def vjp_of(name: str) -> VJPRule:
    vjp = OPS[name].vjp
    assert vjp is not None
    return vjp


def test_the_constant_is_no_subtraction(small: tuple[Small, Tensor, Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong slope on the way makes the check fail: the constant does not make up for it."""
    relu = vjp_of("relu")

    def broken(call: Any, weights: Any, varies: Any) -> VJP:
        results = relu(call, weights, varies)
        return VJP({name: 1.01 * g for name, g in results.gradients.items()}, results.constant)

    monkeypatch.setitem(cast("dict[str, Op]", OPS), "relu", replace(OPS["relu"], vjp=broken))
    results = explain(small[2], "fc", (0,)).to_input()
    assert not results.checks


def test_what_is_left_over_is_nothing_but_pytorchs_rounding(small: tuple[Small, Tensor, Trace]) -> None:
    results = explain(small[2], "fc", (1,)).to_input()
    assert abs(results.residual) > 1e-12 * abs(results.value)
    assert abs(results.left) < 1e-4 * abs(results.residual)
    assert results.slack < 1e-6 * results.bound


def test_an_error_far_below_the_bound_is_seen(
    small: tuple[Small, Tensor, Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> VJP:
        results = convolution(*given)
        return VJP(results.gradients, results.constant * (1 + 1e-7))

    convolution = vjp_of("convolution")
    monkeypatch.setitem(cast("dict[str, Op]", OPS), "convolution", replace(OPS["convolution"], vjp=broken))
    results = explain(small[2], "fc", (0,)).to_input()
    assert abs(results.residual) <= results.bound
    assert not results.checks


def test_a_dropped_bias_is_seen(small: tuple[Small, Tensor, Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = vjp_of("convolution")
    without = replace(OPS["convolution"], vjp=lambda *given: VJP(convolution(*given).gradients))
    monkeypatch.setitem(cast("dict[str, Op]", OPS), "convolution", without)
    assert not explain(small[2], "fc", (0,)).to_input().checks


def test_other_networks_get_their_tangent_and_it_is_called_so() -> None:
    trace = cs.trace(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(1, 4))
    results = explain(trace, "2", (1,)).to_input()
    assert not results.linear
    assert results.bent == ("1",)
    assert "the tangent at this input, because these are not piecewise linear: 1" in str(results)
    assert results.checks


def test_contributions_of_the_crosses(crosses: Trace) -> None:
    text = str(explain(crosses, "pool", (0, 0)).to_input())
    assert "4 cells that take away          −1.8675" in text
    assert "constant: biases and shifts      2.2435" in text
    assert "exact, because every step on the way is piecewise linear" in text


def test_contributions_as_json(crosses: Trace) -> None:
    results = json.loads(json.dumps(explain(crosses, "pool", (0, 0)).to_input().to_json(), allow_nan=False))
    added = sum(results["inputs"]["input"]["contributions"]) + results["constant"]
    assert added == pytest.approx(results["value"], abs=results["bound"])
    assert results["inputs"]["input"]["shape"] == [1, 1, 3, 3]
