"""Verify: what is right is proved, and every way of being wrong is found, by name and cell."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.expr.call import Call
from convscope.expr.expr import Dot, Expr
from convscope.ops import OPS
from convscope.proof.verification_report import StepReport, Verification
from convscope.reference.operation import Operation as ReferenceOperation
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Cell, Step
from convscope.traces.trace import Trace

Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


class Tampered:
    """A trace's source that lies: about what a step made, read, or was told to do."""

    def __init__(
        self,
        trace: Trace,
        *,
        outputs: Mapping[str, Change] | None = None,
        operands: Mapping[tuple[str, str], Change] | None = None,
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._honest = trace._source
        self._outputs = {trace[name].id: change for name, change in (outputs or {}).items()}
        self._operands = {(trace[n].id, argument): change for (n, argument), change in (operands or {}).items()}
        warned = {trace[name].id: dict(new) for name, new in (arguments or {}).items()}
        self._steps = tuple(
            dataclasses.replace(step, values=self, arguments={**step.arguments, **warned.get(step.id, {})})
            for step in trace.all_steps
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def steps(self) -> tuple[Step, ...]:
        return self._steps

    def output(self, step: int, index: int) -> Any:
        result = self._honest.output(step, index)
        return self._outputs[step](result.copy()) if step in self._outputs and index == 0 else result

    def operand(self, step: int, name: str, item: int) -> Any:
        result = self._honest.operand(step, name, item)
        return self._operands[step, name](result.copy()) if (step, name) in self._operands else result


def tampered(trace: Trace, **lies: Any) -> Trace:
    return Trace(Tampered(trace, **lies))


class Net(nn.Module):
    """Convolution, in-place ReLU, pooling, a residual, a linear layer; every size different from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, (3, 4), stride=(2, 1), padding=(1, 2))
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.fc = nn.Linear(5 * 3 * 7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        return self.fc((x + self.conv2(x)).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def trace() -> Trace:
    torch.manual_seed(0)
    return cs.trace(Net(), torch.rand(1, 2, 12, 13))


def found(report: Verification, name: str) -> StepReport:
    return next(step for step in report.steps if step.name == name)


def assert_only(report: Verification, name: str) -> StepReport:
    """The step is a mismatch, and nothing else is."""
    assert [step.name for step in report.mismatches] == [name]
    assert not report.proved
    assert report.share < 1
    assert name in {step.name for step in report.steps if step.mismatch is not None}
    return found(report, name)


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


# Mutations: each turns its step, and only its step, red.


def shift(cell: tuple[int, ...], by: float) -> Change:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array[cell] += by
        return array

    return change


@pytest.mark.parametrize("name", ["conv1", "relu", "pool", "conv2", "add", "fc"])
def test_one_altered_number_is_found_and_explained(trace: Trace, name: str) -> None:
    honest = found(cs.verify(trace), name)
    output = trace[name].output
    cell = tuple(n // 2 for n in output.shape)
    size = float(np.sqrt(np.mean(np.square(output))))
    lie = tampered(trace, outputs={name: shift(cell, max(20 * honest.resolution, 1e-6) * size)})
    wrong = assert_only(cs.verify(lie), name)
    assert wrong.mismatch is not None
    assert wrong.mismatch.cell == cell
    assert wrong.mismatch.recorded == lie[name].output[cell]
    assert wrong.mismatch.expected == pytest.approx(output[cell], abs=1e-5)
    assert wrong.worst > 1
    assert "✗ mismatch" in wrong.mismatch.why
    assert f"at {cell}: recorded" in str(wrong.mismatch)


def test_a_changed_kernel_cell_is_found_in_its_channel(trace: Trace) -> None:
    by = float(np.abs(trace.operand("conv1", "weight")).mean()) * 1e-4
    lie = tampered(trace, operands={("conv1", "weight"): shift((3, 1, 2, 0), by)})
    wrong = assert_only(cs.verify(lie), "conv1")
    assert wrong.mismatch is not None
    assert wrong.mismatch.cell[1] == 3


def test_a_changed_weight_of_a_linear_layer_is_found_in_its_unit(trace: Trace) -> None:
    lie = tampered(trace, operands={("fc", "mat2"): shift((17, 2), 1e-3)})
    wrong = assert_only(cs.verify(lie), "fc")
    assert wrong.mismatch is not None
    assert wrong.mismatch.cell == (0, 2)


@pytest.mark.parametrize(("name", "argument"), [("conv1", "weight"), ("conv1", "input"), ("conv2", "weight")])
def test_swapped_axes_are_found(argument: str, name: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(2, 4, 3))
    model.add_module("conv2", nn.Conv2d(4, 3, 3))
    lie = tampered(cs.trace(model, torch.rand(2, 9, 9)), operands={(name, argument): lambda a: a.swapaxes(2, 3)})
    assert_only(cs.verify(lie), name)


@pytest.mark.parametrize(
    "told",
    [
        {"stride": (1, 1)},
        {"stride": (1, 2)},
        {"padding": (2, 2)},
        {"padding": (1, 1)},
        {"padding": (2, 1)},
        {"dilation": (1, 2)},
        {"bias": None},
    ],
    ids=str,
)
def test_another_stride_padding_dilation_or_no_bias_is_found(trace: Trace, told: dict[str, Any]) -> None:
    wrong = assert_only(cs.verify(tampered(trace, arguments={"conv1": told})), "conv1")
    assert wrong.mismatch is not None
    if wrong.mismatch.witness == "shape":
        assert "has a shape that the reference contradicts: it gives (1, 5," in str(wrong.mismatch)


def test_a_window_shifted_by_one_cell_is_found() -> None:
    torch.manual_seed(2)
    lie = tampered(
        cs.trace(nn.Conv2d(1, 2, 3, padding=1), torch.rand(1, 8, 8)),
        operands={("conv2d", "input"): lambda a: np.roll(a, 1, axis=3)},
    )
    assert_only(cs.verify(lie), "conv2d")


@pytest.mark.parametrize("name", ["relu", "pool"])
def test_the_smallest_lie_about_an_exact_step_is_found(trace: Trace, name: str) -> None:
    output = trace[name].output
    cell = tuple(int(i) for i in np.unravel_index(output.argmax(), output.shape))

    def nudged(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array[cell] = np.nextafter(array[cell], np.float32(10))
        return array

    wrong = assert_only(cs.verify(tampered(trace, outputs={name: nudged})), name)
    assert wrong.mismatch is not None
    assert wrong.mismatch.cell == cell
    assert wrong.mismatch.allowed == 0


def test_the_wrong_winner_of_a_pooling_is_found() -> None:
    honest = cs.trace(nn.MaxPool2d(2), torch.rand(1, 4, 4))
    winners = honest.all_steps[0].outputs[1].copy()
    winners[0, 0, 1, 1] ^= 1

    class Lying(Tampered):
        def output(self, step: int, index: int) -> Any:
            return winners if index else honest.all_steps[step].output

    wrong = cs.verify(Trace(Lying(honest))).mismatches
    assert [step.mismatch.output for step in wrong if step.mismatch] == [1]
    assert wrong[0].mismatch is not None
    assert wrong[0].mismatch.cell == (0, 0, 1, 1)


# Offsets below each cell's own bound.


def test_a_dropped_bias_below_every_bound_is_caught_by_the_channel_mean() -> None:
    torch.manual_seed(3)
    layer = nn.Conv2d(16, 3, 5)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.fill_(4e-5)
        layer.bias[0] = 0.0
    honest = cs.trace(layer, torch.rand(16, 64, 64))
    lie = tampered(honest, arguments={"conv2d": {"bias": None}})
    wrong = assert_only(cs.verify(lie, cells=20), "conv2d")
    assert wrong.mismatch is not None
    assert wrong.mismatch.witness == "channel mean"
    assert wrong.mismatch.cell in {(1,), (2,)}
    assert wrong.mismatch.recorded - wrong.mismatch.expected == pytest.approx(4e-5, rel=0.1)
    assert wrong.mismatch.allowed < 4e-5
    assert found(cs.verify(honest), "conv2d").resolution * np.std(honest["conv2d"].output) > 4e-5  # no cell shows it
    assert "on average over channel" in str(wrong.mismatch)


SIZES = st.integers(1, 40)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A convolution and an image, also of the kinds whose roundings are far from independent."""
    torch.manual_seed(draw(st.integers(0, 2**20)))
    groups = draw(st.sampled_from([1, 1, 2]))
    channels, kernels = groups * draw(st.integers(1, 6)), groups * draw(st.integers(1, 4))
    height, width = draw(st.integers(5, 48)), draw(st.integers(5, 48))
    layer: nn.Conv2d | nn.ConvTranspose2d = (
        nn.ConvTranspose2d(channels, kernels, draw(st.integers(1, 3)), groups=groups, stride=draw(st.integers(1, 2)))
        if draw(st.integers(0, 3)) == 0
        else nn.Conv2d(channels, kernels, draw(st.sampled_from([1, 2, 3, 5])), groups=groups, padding=1)
    )
    image = torch.rand(1, channels, height, width)
    match draw(st.sampled_from(["photo", "constant", "levels", "one channel", "halves", "gradient", "noise", "box"])):
        case "constant":
            image[:] = draw(st.floats(0.01, 3.0))
        case "levels":
            image = (image * draw(st.integers(1, 255))).round() / 255
        case "one channel":
            image[:, 1:] = 0.1
        case "halves":
            image[..., : width // 2] = 0.7
        case "gradient":
            image[:] = torch.linspace(0.1, 0.9, width)
        case "noise":
            image = 0.3 + 1e-6 * image
        case "box":
            image = 0.3 + 0.1 * image
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    return layer, image


def assert_rounding_never_moves_a_mean(case: tuple[nn.Module, Tensor]) -> None:
    layer, image = case
    report = cs.verify(cs.trace(layer, image), cells=5)
    assert report.proved, [str(step.mismatch) for step in report.mismatches]


@settings(max_examples=40)
@given(convolutions())
def test_rounding_alone_never_triggers_the_channel_mean(case: tuple[nn.Module, Tensor]) -> None:
    assert_rounding_never_moves_a_mean(case)


@pytest.mark.study
@settings(max_examples=3000)
@given(convolutions())
def test_rounding_alone_never_triggers_the_channel_mean_in_thousands(case: tuple[nn.Module, Tensor]) -> None:
    assert_rounding_never_moves_a_mean(case)


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


# Numbers that are not ordinary.


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_followed(bad: float) -> None:
    torch.manual_seed(4)
    image = torch.rand(1, 2, 12, 13)
    image[0, 1, 5, 5] = bad
    assert cs.verify(cs.trace(Net(), image)).proved


def test_a_nan_that_should_not_be_there_is_found(trace: Trace) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        lie = tampered(trace, outputs={"conv1": shift((0, 2, 3, 4), bad)})
        wrong = assert_only(cs.verify(lie), "conv1")
        assert wrong.mismatch is not None
        assert wrong.mismatch.cell == (0, 2, 3, 4)


@pytest.mark.parametrize(("pixels", "finding"), [((3e38, 3e38), "unsupported"), ((3.0, 1.0), "mismatch")])
def test_an_infinity_that_meets_an_overflow_is_undecided(pixels: tuple[float, float], finding: str) -> None:
    """Beside an infinite pixel the kernel's own infinities of the other sign give nan; small products cannot."""
    conv = nn.Conv2d(1, 1, (1, 3), bias=False)
    conv.weight.data[:] = torch.tensor([1.0, -1e5, 1.0])
    trace = cs.trace(conv, torch.tensor([np.inf, *pixels])[None, None, None])
    lie = tampered(trace, outputs={"conv2d": lambda made: made * np.nan})
    assert [step.finding for step in cs.verify(lie).steps] == [finding]
    expected = {"unsupported": "unresolved"}.get(finding, finding)
    assert cs.explain(lie, 0, (0, 0, 0)).status == expected


def test_a_number_where_nan_should_be_is_found() -> None:
    image = torch.rand(1, 3, 3)
    image[0, 0, 0] = float("nan")
    lie = tampered(cs.trace(nn.ReLU(), image), outputs={"relu": np.nan_to_num})
    wrong = assert_only(cs.verify(lie), "relu")
    assert wrong.mismatch is not None
    assert np.isnan(wrong.mismatch.expected)


def test_numbers_beyond_the_largest_become_infinite() -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 1e38 * 10 - torch.exp(x * 100)

    report = cs.verify(cs.trace(Huge(), torch.full((1, 3), 2.0)))
    assert report.proved, [str(step.mismatch) for step in report.mismatches]


class Indices(nn.Module):
    """Integers and booleans."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.arange(x.shape[1])
        return x.argmax(1) + order[0] * 2, x > 0.5


def test_integers_and_booleans_are_proved_exactly() -> None:
    recorded = cs.trace(Indices(), torch.rand(1, 7))
    report = cs.verify(recorded)
    assert report.proved
    assert {step.resolution for step in report.steps} == {0.0}
    lie = tampered(recorded, outputs={"gt": np.logical_not})
    assert_only(cs.verify(lie), "gt")


def test_a_tensor_without_numbers_is_proved() -> None:
    class Empty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :0].relu() * 2

    report = cs.verify(cs.trace(Empty(), torch.ones(1, 3)))
    assert report.proved
    assert report.numbers == 0
    assert report.share == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_proved_and_their_lies_found(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    recorded = cs.trace(Net().to(dtype), torch.rand(1, 2, 12, 13).to(dtype))
    report = cs.verify(recorded)
    assert report.proved, [str(step.mismatch) for step in report.mismatches]
    by = 50 * found(report, "conv1").resolution * float(np.sqrt(np.mean(recorded["conv1"].output ** 2)))
    assert_only(cs.verify(tampered(recorded, outputs={"conv1": shift((0, 1, 2, 3), by)})), "conv1")


def test_narrow_types_see_less(trace: Trace) -> None:
    narrow = cs.trace(Net().to(torch.bfloat16), torch.rand(1, 2, 12, 13).to(torch.bfloat16))
    wide = found(cs.verify(trace), "conv1").resolution
    assert found(cs.verify(narrow), "conv1").resolution > 100 * wide


def test_the_report_is_json(trace: Trace) -> None:
    lie = tampered(trace, outputs={"conv1": shift((0, 2, 3, 4), np.nan)})
    plain = json.loads(json.dumps(cs.verify(lie).to_json(), allow_nan=False))
    assert plain["proved"] is False
    assert plain["steps"][0]["mismatch"]["cell"] == [0, 2, 3, 4]
    assert plain["steps"][0]["mismatch"]["recorded"] == "nan"
    assert plain["steps"][0]["worst"] == "inf"
    assert plain["steps"][1]["mismatch"] is None
    assert json.loads(json.dumps(cs.verify(trace).to_json(), allow_nan=False))["share"] == 1


# What is no proof: nothing calculated, an answer from elsewhere, bounds that exclude nothing.


def test_a_model_that_calculates_nothing_is_not_proved() -> None:
    report = cs.verify(cs.trace(nn.Identity(), torch.rand(1, 3)))
    assert not report.proved
    assert report.share == 0
    assert report.summary().startswith("not proved, nothing was calculated: the trace has no steps; 0 numbers")
    assert [str(part) for part in report.returned] == ["the output is what input holds, bit for bit"]


def test_a_report_of_given_numbers_alone_is_not_proved() -> None:
    model = nn.Sequential(nn.ReLU())
    report = cs.verify(cs.trace(model, torch.rand(1, 3), overrides={"0": np.ones((1, 3), np.float32)}))
    assert not report.proved
    assert "all numbers are given" in report.summary()


class Returns(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.rand(3, 2))

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def written_later(x: Tensor) -> Any:
    """Returns tensors into which is written after they were made."""
    made = x * 2
    view, kept = made[:, 1:], made[:, :1].clone()
    made[:, 0] = 7
    view.add_(1)
    return {"made": made, "view": view, "turned": made.t(), "kept": (kept, x)}


def test_the_output_is_what_its_steps_hold_also_where_they_wrote_later() -> None:
    report = cs.verify(cs.trace(Returns(written_later), torch.rand(4, 3)))
    assert report.proved, [str(part) for part in report.returned]
    assert [part.name for part in report.returned] == [
        "the output['made']", "the output['view']", "the output['turned']", "the output['kept'][0]",
        "the output['kept'][1]",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["made", "view", "turned"])
def test_a_changed_cell_of_the_output_is_found(name: str) -> None:
    class Changed(Tampered):
        def result(self) -> Any:
            output = dict(self._honest.result())
            output[name] = output[name].copy()
            output[name][-1, -1] = np.nextafter(output[name][-1, -1], np.float32(9))
            return output

    report = cs.verify(Trace(Changed(cs.trace(Returns(written_later), torch.rand(4, 3)))))
    assert not report.proved
    assert report.wrong
    assert [part.name for part in report.returned if not part.held] == [f"the output[{name!r}]"]


def test_returned_parameters_inputs_and_constants_are_held() -> None:
    constant = torch.rand(2)
    model = Returns(lambda x: (x, model.weight, model.weight.t(), model.weight[1], constant, x.sum()))
    report = cs.verify(cs.trace(model, torch.rand(1, 3)))
    assert [part.held for part in report.returned] == [True] * 6
    assert report.proved


def test_a_float_that_left_the_tensors_is_no_proved_output() -> None:
    report = cs.verify(cs.trace(Returns(lambda x: (x * 2, float(x.sum()), 3, "text", None)), torch.rand(1, 3)))
    assert not report.proved
    assert [str(part) for part in report.returned if not part.held] == [
        "the output[1] is a plain number that no step holds"
    ]


def test_an_output_without_tensors_is_not_proved(trace: Trace) -> None:
    class Silent(Tampered):
        def result(self) -> Any:
            return {"mask": None, "size": 3}

        def returned(self) -> Any:
            return ()

    report = cs.verify(Trace(Silent(trace)))
    assert not report.proved
    assert report.summary().startswith("not proved, the output has no tensor, so nothing of it is proved")


HUGE = torch.full((1, 1, 6, 6), 1e308, dtype=torch.float64)
HUGE[..., ::2] *= -1
FAR = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXCLUDED: dict[str, tuple[nn.Module, Tensor, Change]] = {
    "an infinite bound": (Returns(lambda x: x.sum(-1)).double(), HUGE, lambda a: a * 0 + 7),
    "group norm far from zero": (nn.GroupNorm(3, 3), FAR + 100, lambda a: -a),
    "group norm, one number": (nn.GroupNorm(3, 3), FAR + 100, lambda a: a + (a == a.max()) * np.float32(0.3)),
    "layer norm far from zero": (nn.LayerNorm(8), FAR + 1000, lambda a: a * 0),
    "layer norm, a hundredth": (nn.LayerNorm(8), FAR + 1000, lambda a: a * np.float32(1.05)),
    "instance norm": (nn.InstanceNorm2d(3), FAR + 1000, lambda a: a * np.float32(1.05)),
    "variance": (Returns(lambda x: x.var(-1)), FAR + 10000, lambda a: a * 0),
    "standard deviation": (Returns(lambda x: x.std(-1)), FAR + 1000, lambda a: a * np.float32(1.05)),
    "numbers below the smallest": (nn.Conv2d(3, 1, 3, bias=False), FAR * 1e-38, lambda a: a * 0),
}


@pytest.mark.parametrize("name", EXCLUDED)
def test_a_bound_that_excludes_nothing_proves_nothing(name: str) -> None:
    model, image, change = EXCLUDED[name]
    with torch.no_grad():
        honest = cs.trace(model, image)
    report = cs.verify(honest)
    assert not report.mismatches, [str(step.mismatch) for step in report.mismatches]
    lie = cs.verify(tampered(honest, outputs={honest.all_steps[-1].name: change}))
    assert not lie.proved
    last = lie.steps[-1]
    assert last.finding in {"mismatch", "unresolved", "unsupported"}
    assert (last.finding == "mismatch") == ("norm" in name or "deviation" in name or name == "variance")


def test_zeros_within_a_bound_are_not_exact() -> None:
    trace = cs.trace(nn.Conv2d(3, 1, 3, bias=False), FAR * 1e-38)
    lie = tampered(trace, outputs={"conv2d": lambda a: a * 0})
    step = found(cs.verify(lie), "conv2d")
    assert (step.finding, step.resolution) == ("unresolved", np.inf)
    assert "unresolved: conv2d" in cs.verify(lie).summary()
    assert cs.explain(lie, "conv2d", (0, 3, 3)).status == "unresolved"
    assert not cs.explain(lie, "conv2d", (0, 3, 3)).proved


def test_zeros_that_are_exact_are_proved() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 3, bias=False))
    report = cs.verify(cs.trace(model, -FAR))
    assert report.proved
    assert {step.resolution for step in report.steps} == {0.0}


def test_one_cell_whose_bound_is_above_a_tenth_says_so() -> None:
    x = torch.zeros(1, 4, 400)
    x[0, :, :2], x[0, 0, :200], x[0, 0, 200:] = 0.5, 1e6, -1e6
    trace = cs.trace(Returns(lambda x: x.sum(-1)), x)
    assert found(cs.verify(trace), "sum").finding == "proved"
    assert cs.explain(trace, "sum", (0,)).status == "unresolved"
    assert "unresolved: within the bound" in cs.explain(trace, "sum", (0,)).to_text()
    assert cs.explain(trace, "sum", (3,)).status == "proved"


def test_the_mean_and_variance_of_constant_and_of_huge_numbers_end_in_a_report() -> None:
    for function, image in (
        (lambda x: x.var(-1), HUGE), (lambda x: x.std(-1), HUGE), (lambda x: x[..., :0].mean(), FAR),
        (lambda x: x[..., :1].var(-1, correction=0), FAR), (lambda x: F.layer_norm(x, (6,)), HUGE.float()),
    ):  # fmt: skip
        model = Returns(function).to(image.dtype)
        report = cs.verify(cs.trace(model, image))
        assert not report.mismatches, [str(step.mismatch) for step in report.mismatches]


def test_a_call_that_no_kernel_accepts_is_unsupported() -> None:
    trace = cs.trace(nn.LayerNorm(8), torch.rand(1, 8))
    lie = tampered(trace, arguments={"layer_norm": {"normalized_shape": [7]}})
    assert [step.finding for step in cs.verify(lie).steps] == ["unsupported"]
    group = cs.trace(nn.GroupNorm(2, 4), torch.rand(1, 4, 3, 3))
    for warned in ({"HxW": 8}, {"C": 2}, {"N": 3}):
        assert not cs.verify(tampered(group, arguments={"group_norm": warned})).proved


@pytest.mark.parametrize("op", ["sort", "topk", "max"])
def test_indices_of_equal_numbers_are_held_to_what_they_point_at(op: str) -> None:
    x = torch.tensor([[3.0, 1.0, 3.0, 2.0, 1.0, 3.0]])
    arguments = {"sort": (-1,), "topk": (4,), "max": (-1,)}[op]
    trace = cs.trace(Returns(lambda x: tuple(getattr(x, op)(*arguments))), x)
    assert cs.verify(trace).proved

    class Pointing(Tampered):
        index = 3

        def output(self, step: int, index: int) -> Any:
            made = self._honest.output(step, index)
            if index == 1:
                made = made.copy()
                made.reshape(-1)[0] = self.index
            return made

    for wrong in (3, -1, 99):
        lie = Pointing(trace)
        lie.index = wrong
        assert len(cs.verify(Trace(lie)).mismatches) == 1
    if op != "max":
        lie.index = int(trace.all_steps[0].outputs[1][0, 1])  # points at the right number, but twice
        assert len(cs.verify(Trace(lie)).mismatches) == 1


def test_the_report_says_what_breaks_the_chain() -> None:
    report = Verification((StepReport(0, "a", "relu", "proved", 9),), broken=("numbers left at item",))
    assert not report.proved
    assert report.notes == ("Numbers left at item.",)
