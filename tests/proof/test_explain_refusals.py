"""Explanations of what is not as it should be: unknown steps and cells, no rule, NaN, overflow, given numbers."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from convscope.errors import UnknownName, UsageError
from convscope.ops import OPS
from convscope.proof.explanation import explain
from convscope.traces.trace import Trace
from explained_networks import Crosses


@pytest.fixture(scope="module")
def crosses() -> Trace:
    return cs.trace(Crosses(), cs.load_dataset("crosses", split="test").image("damaged-plus"))


# What is not as it should be


def test_an_unknown_step_names_the_nearest(crosses: Trace) -> None:
    with pytest.raises(UnknownName, match="no step is called 'cnv'; did you mean 'conv'"):
        explain(crosses, "cnv", (0, 0))


def test_a_cell_outside_says_the_valid_range(crosses: Trace) -> None:
    with pytest.raises(UsageError, match=r"conv has no cell \(0, 3, 0\); its shape is \(1, 3, 3\)"):
        explain(crosses, "conv", (0, 3, 0))


def test_an_incomplete_cell_names_the_choices() -> None:
    trace = cs.trace(nn.Conv2d(1, 4, 3), np.ones((2, 1, 8, 8), np.float32))
    with pytest.raises(
        UsageError, match=r"a cell of conv2d has 3 indices \(0 to 3, 0 to 5, 0 to 5\), so \(2, 5\) is inc"
    ):
        explain(trace, "conv2d", (2, 5))
    assert explain(trace, "conv2d", (3, 2, 5)).cell == explain(trace, "conv2d", (0, 3, 2, 5)).cell, "the first image"


def test_a_result_that_does_not_exist(crosses: Trace) -> None:
    with pytest.raises(UsageError, match="conv has 1 results, counted from 0; there is no result 1"):
        explain(crosses, "conv", (0, 0, 0), output=1)


def test_changed_weights_are_said() -> None:
    model = nn.Linear(3, 2)
    trace = cs.trace(model, torch.ones(1, 3))
    with torch.no_grad():
        model.weight.add_(1)
    why = explain(trace, "linear", (0,))
    assert why.status == "weights changed"
    assert not why.proved
    assert "weight changed since the trace." in why.notes
    assert "weights changed since the trace" in str(why)


class Bessel(nn.Module):
    """An operation that has no rule, between two that have."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.special.i0(x + 1))


def test_an_operation_without_a_rule_is_named_and_the_others_still_work() -> None:
    trace = cs.trace(Bessel(), torch.randn(1, 1, 4, 4))
    unknown = next(step for step in trace.steps if step.op not in OPS)
    why = explain(trace, unknown, (0, 1, 1))
    assert why.expr is None
    assert why.status == "unsupported"
    assert f"no rule explains {unknown.op!r}, which reads add" in str(why)
    assert why.to_json()["expr"] is None
    assert explain(trace, trace.steps[-1], (0, 1, 1)).proved
    with pytest.raises(
        UsageError, match="which has no vector-Jacobian product, so the number cannot be followed through it"
    ):
        why.to_input()


def test_without_a_rule_the_reference_still_speaks(crosses: Trace) -> None:
    why = explain(crosses, "conv", (0, 0), ops={})
    assert why.status == "recomputed"
    assert math.isnan(why.value)


def test_nan_says_where_it_came_in() -> None:
    image = torch.ones(1, 1, 4, 4)
    image[0, 0, 2, 2] = float("nan")
    trace = cs.trace(nn.Conv2d(1, 2, 3), image)
    why = explain(trace, "conv2d", (0, 1, 1))
    assert why.proved
    assert why.notes == ("nan comes from input (0, 2, 2).",)
    born = explain(cs.trace(Logarithm(), torch.tensor([[-1.0]])), "log", (0,))
    assert born.notes == ("nan arises here: the numbers that go in are finite.",)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_overflow_is_explained_as_such() -> None:
    trace = cs.trace(nn.Linear(1, 1), torch.tensor([[3e38]]), overrides={"weight": [[10.0]]})
    why = explain(trace, "linear", (0,))
    assert math.isinf(why.recorded)
    assert why.agrees


def test_where_kernels_mix_planes_the_badge_says_normwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of zeros beside a bright cell: a Winograd or Fourier kernel leaves a trace there, a sum does not."""
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 7, 7] = 100.0
    trace = cs.trace(nn.Conv2d(1, 1, 3, bias=False), image)
    leaky = np.array(trace["conv2d"].output)
    leaky[0, 0, 0, 0] = 1e-5
    step = replace(trace["conv2d"], values=Lying(leaky))
    assert explain(trace, step, (0, 0, 0)).status == "mismatch"
    monkeypatch.setattr("convscope.proof.tolerance.MIXES", True)
    mixed = explain(trace, step, (0, 0, 0))
    assert (mixed.status, mixed.proved) == ("proved normwise", True)
    leaky[0, 0, 0, 0] = 1.0
    assert explain(trace, step, (0, 0, 0)).status == "mismatch"


class Lying:
    """Where a step's numbers are, with another output than was recorded."""

    def __init__(self, output: Any) -> None:
        self.changed = output

    def output(self, step: int, index: int) -> Any:  # noqa: ARG002 - the names are the protocol's
        return self.changed

    def operand(self, step: int, name: str, item: int) -> Any:  # noqa: ARG002 - as above
        raise AssertionError("operands are read from the trace")


def test_numbers_that_were_given_are_not_proved() -> None:
    trace = cs.trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2), overrides={"0": [[1.0, 2.0]]})
    why = explain(trace, "0", (1,))
    assert (why.value, why.status) == (2.0, "given")
    assert explain(trace, "1", (1,)).proved
