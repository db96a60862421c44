"""Verify: honest traces are proved, each witness catches the other, and what has no witness is named."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.expr.call import Call
from convscope.expr.expr import Dot, Expr
from convscope.ops import OPS
from convscope.proof.verification_report import StepReport, Verification
from convscope.reference.operation import Operation as ReferenceOperation
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Cell
from convscope.traces.trace import Trace
from tampering import Net, assert_only, found, shift, tampered


@pytest.fixture(scope="module")
def trace() -> Trace:
    torch.manual_seed(0)
    return cs.trace(Net(), torch.rand(1, 2, 12, 13))


def test_everything_honest_is_proved(trace: Trace) -> None:
    report = cs.verify(trace)
    assert report.proved
    assert report.share == report.recomputed == 1
    assert report.numbers == sum(step.output.size for step in trace.all_steps) + trace["pool"].outputs[1].size
    assert not report.mismatches
    assert not report.notes
    assert {step.finding for step in report.steps} == {"proved"}
    assert "100 % recomputed, 100 % proved" in report.summary()


def test_at_least_200_cells_of_each_step_are_explained_where_it_has_as_many(trace: Trace) -> None:
    for step in cs.verify(trace).steps:
        have = trace.all_steps[step.id].output.size
        assert step.explained >= min(have, 200), step.name


def test_the_resolution_is_the_median_bound_over_the_root_mean_square(trace: Trace) -> None:
    report = cs.verify(trace)
    assert found(report, "relu").resolution == found(report, "pool").resolution == 0.0  # exact
    assert 1e-8 < found(report, "conv1").resolution < 1e-5
    assert found(report, "fc").resolution > found(report, "add").resolution > 0


def test_progress_is_told(trace: Trace) -> None:
    warned: list[tuple[str, int, int]] = []
    cs.verify(trace, progress=lambda *what: warned.append(what))
    count = len(trace.all_steps)
    assert warned == [("verifying", done, count) for done in range(count + 1)]


# Each witness catches the other.


def test_a_broken_rule_is_caught(trace: Trace) -> None:
    def no_bias(call: Call, cell: Cell) -> Expr:
        expr = OPS["convolution"].rule(call, cell)
        assert isinstance(expr, Dot)
        return dataclasses.replace(expr, bias=None)

    report = cs.verify(trace, ops={**OPS, "convolution": dataclasses.replace(OPS["convolution"], rule=no_bias)})
    assert [step.name for step in report.mismatches] == ["conv1", "conv2"]
    assert {step.mismatch.witness for step in report.mismatches if step.mismatch} == {"expression"}


def test_a_broken_reference_is_caught(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = OPERATIONS["relu"]
    broken = ReferenceOperation(lambda x: 1.001 * np.asarray(sound.compute(self=x)), sound.error)
    monkeypatch.setitem(OPERATIONS, "relu", broken)
    wrong = assert_only(cs.verify(trace), "relu")
    assert wrong.mismatch is not None
    assert wrong.mismatch.witness == "reference"


def test_a_reference_of_another_shape_is_a_mismatch(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ReferenceOperation(lambda x: x.swapaxes(2, 3), OPERATIONS["relu"].error)
    monkeypatch.setitem(OPERATIONS, "relu", broken)
    wrong = assert_only(cs.verify(trace), "relu")
    assert str(wrong.mismatch) == "has a shape that the reference contradicts: it gives (1, 5, 14, 6)"


# What has no witness, and what needs none.


class Strange(nn.Module):
    """An operation that neither witness knows, between two that both do."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.special.i0(x * 2) + 1
        return result


def test_an_operation_without_witnesses_is_named_and_the_rest_is_proved() -> None:
    report = cs.verify(cs.trace(Strange(), torch.rand(1, 4, 4)))
    assert [(step.op, step.finding) for step in report.steps] == [
        ("mul", "proved"), ("i0", "unsupported"), ("add", "proved"),
    ]  # fmt: skip
    assert not report.proved
    assert not report.mismatches
    assert report.share == pytest.approx(2 / 3)
    assert report.summary().endswith("without a witness: i0")


def test_an_operation_without_a_rule_is_recomputed(trace: Trace) -> None:
    report = cs.verify(trace, ops={name: op for name, op in OPS.items() if name != "relu"})
    assert found(report, "relu").finding == "recomputed"
    assert report.recomputed == 1
    assert not report.proved
    assert "without a witness: relu" in report.summary()


def test_a_share_below_one_is_never_written_as_100_percent() -> None:
    steps = (StepReport(0, "a", "relu", "proved", 10**9), StepReport(1, "b", "odd", "unsupported", 1))
    assert "99.99 % proved" in Verification(steps).summary()


def test_overridden_steps_are_given_and_what_follows_is_proved() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    report = cs.verify(cs.trace(model, torch.rand(1, 8, 8), overrides={"1": np.ones((1, 2, 6, 6), np.float32)}))
    assert [step.finding for step in report.steps] == ["proved", "given", "proved"]
    assert report.proved


def test_numbers_drawn_at_random_are_given() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(3)

    report = cs.verify(cs.trace(Noisy(), torch.rand(1, 3)))
    assert {step.op: step.finding for step in report.steps}["randn"] == "given"
    assert report.proved


def test_dropout_in_training_is_proved_with_its_mask() -> None:
    report = cs.verify(cs.trace(nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.4)), torch.rand(1, 6), training=True))
    assert report.proved


def test_changed_weights_are_said_and_seen() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    recorded = cs.trace(model, torch.rand(1, 8, 8))
    with torch.no_grad():
        model[0].weight[0] += 0.1  # type: ignore[index, operator]  # a Module's attributes are Tensor or Module
    report = cs.verify(recorded)
    assert report.notes == ("0.weight changed since the trace: weights changed.",)
    assert [step.name for step in report.mismatches] == ["0"]


def test_the_report_is_json(trace: Trace) -> None:
    lie = tampered(trace, outputs={"conv1": shift((0, 2, 3, 4), np.nan)})
    plain = json.loads(json.dumps(cs.verify(lie).to_json(), allow_nan=False))
    assert plain["proved"] is False
    assert plain["steps"][0]["mismatch"]["cell"] == [0, 2, 3, 4]
    assert plain["steps"][0]["mismatch"]["recorded"] == "nan"
    assert plain["steps"][0]["worst"] == "inf"
    assert plain["steps"][1]["mismatch"] is None
    assert json.loads(json.dumps(cs.verify(trace).to_json(), allow_nan=False))["share"] == 1


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_an_error_of_a_part_in_500_shows_in_a_large_normalization_and_its_gradient(kind: str) -> None:
    """65,536 numbers are normalized together; kernels add them in chunks and lanes, which round less than in turn."""
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(1, 4) if kind == "group" else torch.nn.LayerNorm([4, 128, 128])
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), norm, torch.nn.Flatten(), torch.nn.Linear(65536, 2))
    trace = cs.trace(model, torch.rand(1, 1, 128, 128), target=torch.tensor([1]))
    forward, backward = f"native_{kind}_norm", f"native_{kind}_norm_backward"
    assert {step.finding for step in cs.verify(trace, cells=1).steps if step.op in {forward, backward}} == {"proved"}
    for op in (forward, backward):
        array = next(step for step in trace.all_steps if step.op == op).output
        array.flags.writeable = True
        array += 0.002 * (array if op == forward else np.abs(array).mean())
    found = {step.op: step.finding for step in reversed(cs.verify(trace, cells=1).steps)}
    assert (found[forward], found[backward]) == ("mismatch", "mismatch")
