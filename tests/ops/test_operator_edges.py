"""Edge values, equal numbers and odd layouts in PyTorch's operator database: no traceback, no false mismatch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.errors import UsageError
from rule_case import Doing as Of

pytest.importorskip("expecttest", reason="the operator database of PyTorch's tests imports it")
SCRIPT = Path(__file__).parents[1] / "support" / "operator_edges.py"


def studied(share: float, *dtypes: str) -> list[dict[str, Any]]:
    """The results for each type, from one process."""
    command = [sys.executable, str(SCRIPT), ",".join(dtypes), str(share), "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7200)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_some_operations_on_edge_values_end_in_a_finding() -> None:
    results = studied(0.015, "float32", "bfloat16")
    assert len(results) == 2
    for result in results:
        assert result["lines"] == []
        assert result["counts"]["proved"] > 8


def test_memory_behind_a_tensor_without_cells_is_refused_in_a_sentence() -> None:
    memory = torch.arange(6.0).reshape(2, 3)
    trace = cs.trace(Of(lambda x: torch.as_strided(memory[:0], (2, 2), (2, 1)) + x), torch.ones(1))
    step = next(step for step in trace.all_steps if step.op == "as_strided")
    assert "which is not recorded" in str(cs.explain(trace, step, (0, 0)))


class RunningMaximum(nn.Module):
    """A running maximum of a parameter without cells."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first.cummax(0)[0].flatten()[None] * x


def test_a_gradient_that_is_the_input_itself_is_refused_in_a_sentence() -> None:
    """PyTorch's gradient of a running maximum of no cells is the tensor that it was given."""
    with pytest.raises(UsageError, match="no recorded operation made"):
        cs.verify(cs.trace(RunningMaximum(), torch.ones(1, 1), target=torch.zeros(1), loss=lambda y, _: y.sum()))


class Weighted(nn.Module):
    """A function of a parameter, times the input."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], numbers: torch.Tensor) -> None:
        super().__init__()
        self.function, self.first = function, nn.Parameter(numbers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.first).flatten()[None] * x


def checked(function: Callable[[torch.Tensor], torch.Tensor], numbers: torch.Tensor) -> cs.Verification:
    """The verification of a training step whose loss weighs all numbers differently."""

    def loss(y: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return (y * torch.linspace(-1, 2, y.numel())).sum()

    return cs.verify(cs.trace(Weighted(function, numbers), torch.ones(1, 1), target=torch.zeros(1), loss=loss))


NEAR_ONE = torch.linspace(-0.9999, 0.9999, 101)
EQUAL = torch.full((3,), 0.1)
ROWS = torch.tensor([[0, 1], [2, 2]])
TABLE = torch.arange(12.0).reshape(4, 3) / 7
INDEX = torch.tensor([[0, 0, 2]])
TIES = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0] * 4])


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        pytest.param(torch.atanh, NEAR_ONE, id="a slope that magnifies the rounding of 1 - x²"),
        pytest.param(
            torch.sinc, torch.tensor([0.1, 2.99, -3.003, 0.0, 1.0]), id="a slope of two parts that nearly cancel"
        ),
        pytest.param(torch.sinc, torch.tensor(-8.4784), id="the same of one number"),
        pytest.param(lambda x: torch.logcumsumexp(x * 9, 0), torch.linspace(-1, 1, 25), id="sums of exponentials"),
        pytest.param(torch.std, EQUAL, id="the root of a variance of 0 has the slope 0"),
        pytest.param(torch.sgn, NEAR_ONE, id="a gradient that PyTorch never stores"),
        pytest.param(lambda x: F.embedding(ROWS, x, padding_idx=2), TABLE, id="the padding row"),
        pytest.param(lambda x: x.topk(3, 1)[0], TIES, id="the largest few among equal numbers"),
        pytest.param(lambda x: x.sort(1)[0], TIES, id="equal numbers sorted"),
        pytest.param(
            lambda x: x.scatter_reduce(1, INDEX, x[:, :3] * 2, "sum", include_self=False),
            TABLE[:1],
            id="not what was there",
        ),
        pytest.param(
            lambda x: x.flatten().gather(0, INDEX[:, :0]).sum() + x.sum(), TABLE, id="no place in another shape"
        ),
        pytest.param(lambda x: F.embedding_bag(ROWS, x, mode="sum", padding_idx=1), TABLE, id="a padding row of bags"),
        pytest.param(
            lambda x: x.sum().index_reduce(0, INDEX[0, :1], x[0, 1], "mean"), TABLE, id="a mean of two numbers"
        ),
        pytest.param(
            lambda x: x.sum().index_reduce(0, INDEX[0, :1], x[0, 1], "prod"), TABLE, id="a product of two numbers"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:index_reduce")
def test_the_gradient_of_an_edge_is_proved(
    function: Callable[[torch.Tensor], torch.Tensor], numbers: torch.Tensor
) -> None:
    report = checked(function, numbers)
    assert {step.finding for step in report.steps} <= {"proved", "unresolved", "given"}, str(report)
    assert "largest difference" in str(report)


def test_gradients_divided_by_the_frequency_of_rows_are_proved_without_a_finite_difference() -> None:
    report = checked(lambda x: F.embedding(ROWS, x, scale_grad_by_freq=True), TABLE)
    assert {step.finding for step in report.steps} == {"proved"}
    assert "because embedding divides gradients by the frequency" in str(report)


def tripled(x: torch.Tensor) -> torch.Tensor:
    """A row whose first cell is written in place."""
    row = x[0].clone()
    row[0].mul_(3)
    return row[None] * 1.5


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.mean().expand(2, 3), id="a number expanded"),
        pytest.param(lambda x: x.mean().repeat(3), id="a number repeated"),
        pytest.param(lambda x: x.sum().max(0)[0] + x.sum().topk(1, 0)[0], id="the largest of one number"),
        pytest.param(
            lambda x: x.sum().prod() + x.sum().scatter_add(0, INDEX[0, 0], x[0, 0]), id="a product of one number"
        ),
        pytest.param(lambda x: (x * 0.1).bfloat16(), id="a conversion"),
        pytest.param(lambda x: F.interpolate(x[None], size=7, mode="linear"), id="resizing"),
        pytest.param(lambda x: torch.dist(x, x.flip(1)), id="a distance"),
        pytest.param(lambda x: torch.linalg.vector_norm(x, ord=0) * x, id="a count of cells"),
        pytest.param(tripled, id="one number written in place"),
        pytest.param(
            lambda x: F.nll_loss(x, torch.tensor([1]), torch.tensor([1.0, -2.0, 1.0, 3.0, 1.0])), id="negative weights"
        ),
    ],
)
def test_a_number_is_what_the_image_adds_up_to(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    trace = cs.trace(Of(function), torch.tensor([[0.3, -1.7, 2.9, 0.11, 5.3]]))
    step = trace.all_steps[-1]
    why = cs.explain(trace, step, (0,) * len(step.shape)).to_input()
    assert why.checks, str(why)
    assert why.bound >= 0


def test_a_conversion_to_another_number_is_left_over() -> None:
    trace = cs.trace(Of(lambda x: (x.double() * 0.1).float()), torch.tensor([[0.3, -1.7]]))
    step = next(step for step in trace.all_steps if step.op == "_to_copy" and step.dtype == "float32")
    numbers = step.output
    numbers.flags.writeable = True
    numbers[0, 1] += 1
    assert not cs.explain(trace, step, (0, 1)).to_input().checks
    assert cs.explain(trace, step, (0, 0)).to_input().checks


def test_equally_spaced_numbers_depend_on_the_tensors_they_lie_between() -> None:
    trace = cs.trace(Of(lambda x: torch.linspace(x[0, 0], x[0, 1], 4)[None]), torch.tensor([[0.0, 1.0, 2.0]]))
    assert cs.probe.receptive_field(trace, "linspace", (1,)).count == 2


def test_a_wrong_formula_near_a_steep_slope_is_still_wrong() -> None:
    """What float64 gives for the operations that PyTorch recorded is not the derivative."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return torch.atanh(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            slope: torch.Tensor = 1 / (1 - x * x * (1 - 1e-5))
            return grad * slope

    report = checked(Wrong.apply, NEAR_ONE)
    assert "wrong derivative" in {step.finding for step in report.steps}


def test_gradients_of_complex_numbers_are_not_taken_for_derived() -> None:
    report = checked(lambda x: torch.fft.irfft(x.to(torch.complex64)), TABLE)
    assert "wrong derivative" not in {step.finding for step in report.steps}
    assert not report.proved


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.logsumexp(x, 0),
        lambda x: torch.var(x, correction=-5),
        lambda x: torch.std_mean(x, correction=-5)[0],
    ],
)
def test_reductions_of_no_cells_are_explained(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    memory = torch.zeros(0, 3)
    trace = cs.trace(Of(lambda x: function(memory) + x), torch.ones(1))
    assert cs.verify(trace).proved
    step = next(step for step in trace.all_steps if step.op in {"logsumexp", "var", "std_mean"})
    explanation = cs.explain(trace, step, (0,) * len(step.shape))
    assert explanation.proved
    assert explanation.to_text()


def test_segments_beyond_the_data_are_refused_in_a_sentence() -> None:
    data, offsets = torch.zeros(4)[:0], torch.tensor([0, 2])
    model = Of(lambda x: torch.segment_reduce(data, "sum", offsets=offsets, unsafe=True) + x)
    trace = cs.trace(model, torch.ones(1))
    step = next(step for step in trace.all_steps if step.op == "segment_reduce")
    assert "beyond its data, which is not recorded" in str(cs.explain(trace, step, (0,)))
    assert "mismatch" not in {step.finding for step in cs.verify(trace).steps}


def test_writing_by_strides_into_memory_with_gaps_is_refused_in_a_sentence() -> None:
    memory = torch.arange(12.0).reshape(3, 4)[:, ::2]
    trace = cs.trace(Of(lambda x: torch.as_strided_scatter(memory, x[0, :2], (2,), (2,)) + x.sum()), torch.ones(1, 2))
    step = next(step for step in trace.all_steps if step.op == "as_strided_scatter")
    assert "laid out row by row" in str(cs.explain(trace, step, (0, 0)))
    assert "mismatch" not in {step.finding for step in cs.verify(trace).steps}


def test_a_wrong_median_of_rows_in_the_same_memory_is_found() -> None:
    """PyTorch sorts the rows of an expanded tensor in place, one after the other, in memory that they share."""
    row = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0]])
    trace = cs.trace(Of(lambda x: row.expand(5, 5).median(0)[0] + x), torch.ones(1))
    assert torch.equal(row.expand(5, 5).median(0)[0], row[0]) == cs.verify(trace).proved


def test_batch_norm_without_running_statistics_is_recorded() -> None:
    image = torch.linspace(-1, 1, 24).reshape(2, 3, 4)

    def batch_norm(x: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor
        normalized, _, _ = torch.ops.aten._native_batch_norm_legit.no_stats(image * x, None, None, True, 0.1, 1e-5)
        return normalized

    report = checked(batch_norm, torch.ones(1))
    assert "wrong derivative" not in {step.finding for step in report.steps}


@pytest.mark.study
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_all_operations_on_edge_values_end_in_a_finding(dtype: str) -> None:
    (result,) = studied(1.0, dtype)
    assert result["lines"] == []
    assert result["counts"]["proved"] > 1000
