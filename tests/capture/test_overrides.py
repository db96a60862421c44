"""Overrides: a trace with other parameters or other results of a step, and the difference of two traces."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.errors import ShapeError, UnknownName, UsageError
from replay import same
from small_networks import Runs, Small, image


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


def test_an_override_of_a_parameter_is_the_model_with_that_parameter(small: Small) -> None:
    kernel = image(4, 2, 3, 3)
    trace = cs.trace(small, image(2, 6, 5), overrides={"conv1.weight": kernel})
    assert same(trace.parameters["conv1.weight"], kernel)
    assert same(trace.operand("conv1", "weight"), kernel)
    assert trace.changed() == ()
    kept = small.conv1.weight
    with torch.no_grad():
        kept.copy_(torch.from_numpy(kernel))
    assert small.conv1.weight is kept
    assert same(cs.trace(small, image(2, 6, 5)).output, trace.output)


@pytest.mark.parametrize("keep", [0, 400, "relu"])
def test_an_override_of_a_parameter_where_less_is_kept(small: Small, keep: Any) -> None:
    parameters = cs.trace(small, image(2, 6, 5)).parameters
    given = {name: value * 1.5 for name, value in parameters.items() if value.dtype.kind == "f"}
    whole = cs.trace(small, image(2, 6, 5), overrides=given)
    sparse = cs.trace(small, image(2, 6, 5), overrides=given, keep=keep)
    for step in whole.steps:
        assert same(sparse[step.name].output, step.output)
    assert sparse["conv1"].parameters == whole["conv1"].parameters


def test_an_override_of_a_step_changes_what_follows(small: Small) -> None:
    zeros = np.zeros((1, 4, 6, 5), np.float32)
    for name, follows in (("conv1", "bn"), ("relu", "conv2"), ("bn", "relu")):  # relu writes in place, bn makes three
        trace = cs.trace(small, image(2, 6, 5), overrides={name: zeros})
        assert not trace[name].output.any()
        assert trace[name].overridden
        assert not trace[follows].overridden
        first = next(n for n, _, ref in trace[follows].refs() if ref.kind == "step")
        assert not trace.operand(follows, first).any()
    assert cs.trace(small, image(2, 6, 5))["conv1"].output.any()
    some = cs.trace(small, image(2, 6, 5), overrides={"conv1": zeros}, keep=0)
    assert not some["conv1"].output.any()


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ({"conv1.weigth": 0}, UnknownName, "no step or parameter is called 'conv1.weigth'; did you mean"),
        (
            {"conv1.weight": np.zeros(3)},
            ShapeError,
            r"conv1.weight has shape \(4, 2, 3, 3\), but its override has \(3,\)",
        ),
        ({"conv1": np.zeros(3)}, ShapeError, r"conv1 has shape \(1, 4, 6, 5\), but its override has \(3,\)"),
        ({"bn.num_batches_tracked": np.array(3)}, UsageError, "no step read the override of bn.num_batches_tracked"),
    ],
)
def test_an_override_that_cannot_be_meant(small: Small, overrides: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        cs.trace(small, image(2, 6, 5), overrides=overrides)


def test_a_difference_says_where_a_change_arrived(small: Small) -> None:
    given = image(2, 6, 5)
    before = cs.trace(small, given)
    given[0, 0, 0] += 1
    found = cs.difference(before, cs.trace(small, given))
    assert found.start == "conv1"
    assert (found["conv1"].changed, found["conv1"].count) == (4 * 4, 4 * 30)  # a 3x3 kernel at a corner, 4 channels
    cells = found.cells("conv1")
    assert np.flatnonzero(cells.any((0, 1))).tolist() == [0, 1, 5, 6]
    assert found["conv1"].largest == pytest.approx(np.abs(cells).max())
    assert found["conv1"].rms == pytest.approx(np.sqrt((cells**2).mean()))
    assert str(found).startswith("conv1: 16 of 120 cells")
    same_again = cs.difference(before, before)
    assert same_again.start is None
    assert "conv1: the same" in str(same_again)
    with pytest.raises(UnknownName, match="no step of both traces is called 'conv3'; did you mean"):
        _ = found["conv3"]


def test_a_difference_of_other_shapes_and_other_steps(small: Small) -> None:
    wider = cs.trace(small, image(2, 6, 6))
    found = cs.difference(cs.trace(small, image(2, 6, 5)), wider)
    assert not found["conv1"].comparable
    with pytest.raises(UsageError, match="one trace and"):
        found.cells("conv1")
    other = cs.difference(wider, cs.trace(nn.Sequential(nn.Conv2d(2, 4, 3)), image(2, 6, 6)))
    assert other.missing[0] == "conv1"
    assert other.added == ("0",)


def test_nan_and_infinity_count_as_changed_only_where_they_are_new() -> None:
    trace = cs.trace(Runs(lambda x: x / x), np.zeros((1, 1, 1, 2), np.float32))
    assert np.isnan(trace.output).all()
    assert cs.difference(trace, trace)["div"].changed == 0
    one = cs.trace(Runs(lambda x: x / x), np.array([[[[1, 0]]]], np.float32))
    found = cs.difference(trace, one)["div"]
    assert found.changed == 1
    assert np.isnan(found.largest)
