"""What verify does not call a proof: nothing calculated, an answer from elsewhere, bounds that exclude nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from convscope.proof.verification_report import StepReport, Verification
from convscope.traces.trace import Trace
from tampering import Change, Net, Tampered, found, tampered


@pytest.fixture(scope="module")
def trace() -> Trace:
    torch.manual_seed(0)
    return cs.trace(Net(), torch.rand(1, 2, 12, 13))


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
    "numbers below the smallest": (nn.Conv2d(3, 1, 3, bias=False), FAR * 2e-39, lambda a: a * 0),
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
