"""Memory: a training step is verified in the memory of a few of its results, and says what it left out for it."""

import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.errors import ConvscopeError
from convscope.expr import precision as rounding
from convscope.expr.precision import Precision
from convscope.expr.primitives import PRIMITIVES, reductions
from convscope.ops import OPS
from convscope.proof import gradient_check, gradient_range, repeated_forward
from convscope.proof.backward import operands_of
from convscope.proof.calls import call_of
from convscope.proof.chain import chain, unexplained
from convscope.proof.derivatives import derivatives_of
from convscope.proof.gradient_check import check_gradients
from convscope.proof.gradient_range import moved_by_statistics
from convscope.proof.memory_limit import bytes_of
from convscope.proof.recomputation import Recomputation, recomputed
from convscope.proof.repeated_forward import Forward, Roundings, memory_of
from convscope.proof.vjp_parts import gradients_of
from convscope.reference.parts import boxes
from rule_cases import CASES, recorded


def peak_of(job: Callable[[], object]) -> int:
    """The most bytes of NumPy's arrays that a job holds at once."""
    tracemalloc.start()
    try:
        job()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def trained(*layers: nn.Module, side: int, channels: int = 8) -> cs.Trace:
    """A training step of a convolution, these layers and a classifier, on two images."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, channels, 3, padding=1)
    model = nn.Sequential(first, *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(3))
    images = torch.rand(2, 3, side, side)
    model(images)
    return cs.trace(model, images, target=[0, 2], loss="cross-entropy", optimizer="sgd")


def weights_of(trace: cs.Trace, name: str) -> dict[cs.Ref, np.ndarray]:
    ref = next(ref for ref in trace.outside.values() if ref.name == name)
    return {ref: trace.parameters[name].astype(np.float64)}


def test_a_repeated_forward_pass_keeps_the_results_that_are_still_read() -> None:
    trace = trained(*(nn.Tanh() for _ in range(20)), side=64)
    result = 2 * 8 * 64 * 64 * 8
    peak = peak_of(lambda: Forward(trace, weights_of(trace, "0.weight")).loss())
    assert peak < 10 * result
    assert 2 * result <= memory_of(trace) < 10 * result


def test_a_result_that_is_read_later_is_kept_until_then() -> None:
    class Around(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(torch.tanh(torch.tanh(x))) + x

    trace = trained(Around(), side=8)
    loss = Forward(trace, weights_of(trace, "0.weight")).loss()
    assert loss == pytest.approx(float(trace["loss"].output), rel=1e-6)


LARGE = {
    "batch norm": (nn.BatchNorm2d(8), nn.ReLU()), "group norm": (nn.GroupNorm(2, 8),), "pooling": (nn.MaxPool2d(2),),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()), "dropout": (nn.Dropout(0.2),),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_a_large_pass_goes_by_parts_through_the_recorded_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the known roundings added, each result is the recorded one, whether these were kept or not."""
    trace = trained(*LARGE[name], side=180)
    losses = []
    for kept in (repeated_forward.KEPT_BYTES, 0):
        monkeypatch.setattr(repeated_forward, "KEPT_BYTES", kept)
        roundings = Roundings()
        losses += [Forward(trace, weights_of(trace, "0.weight"), roundings).loss() for _ in range(2)]
    assert losses == pytest.approx([float(trace["loss"].output)] * 4, rel=1e-9)


def test_finite_differences_that_need_too_much_memory_are_left_out_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = trained(nn.Tanh(), side=16)
    assert check_gradients(trace).too_large == 0
    monkeypatch.setattr(gradient_check, "allowed", lambda _: gradient_check.SPARE + memory_of(trace) - 1)
    check = check_gradients(trace)
    assert (check.moved, check.too_large) == (0, memory_of(trace))
    assert check.lines[0] == "finite difference: left out, a repeated forward pass in float64 would need 0 MB of memory"
    assert check.agrees
    assert cs.verify(trace).proved


def test_gradients_are_compared_in_the_memory_of_a_few_results() -> None:
    """Of the derivatives of all steps, the product of the chain, and the difference that rounding does not explain."""
    trace = trained(nn.BatchNorm2d(8), nn.Tanh(), nn.Tanh(), nn.Tanh(), nn.GroupNorm(2, 8), nn.MaxPool2d(2), side=384)
    derivatives = derivatives_of(trace)
    result, parts = 2 * 8 * 384 * 384 * 4, 40_000_000

    def compare(place: int) -> None:
        for derivative in derivatives.of_node(place):
            derivatives.unexplained(derivative)

    for place in range(len(derivatives.nodes)):
        peak = peak_of(partial(compare, place))
        assert peak < 10 * result + parts, derivatives.nodes[place].kind
    assert peak_of(lambda: chain(trace)) < 12 * result + parts
    assert peak_of(lambda: unexplained(derivatives)) < 14 * result + parts


@pytest.mark.parametrize("name", CASES)
def test_the_vector_jacobian_product_of_the_pieces_adds_up_to_that_of_the_whole(name: str) -> None:
    trace, *_ = recorded(name)
    random = np.random.default_rng(0)
    for step in trace.all_steps:
        op = OPS.get(step.op)
        varies = frozenset(n for n, ref in operands_of(step) if "float" in ref.dtype)
        if op is None or op.vjp is None or not varies or step.is_complex:
            continue
        call = call_of(trace, step)
        weights = random.standard_normal(call.shape)
        try:
            whole = op.vjp(call, weights, varies).gradients
        except (ConvscopeError, ValueError):  # no rule for this form, or for all operands at once
            continue
        parts = gradients_of(op, call, weights, varies, cells=7)
        assert parts.keys() == whole.keys()
        for operand, gradient in whole.items():
            np.testing.assert_allclose(parts[operand], gradient, rtol=1e-9, atol=1e-11, err_msg=f"{step.op} {operand}")


LAYERS = {"batch": nn.BatchNorm2d(8), "group": nn.GroupNorm(4, 8), "layer": nn.LayerNorm([8, 9, 9])}


@pytest.mark.parametrize("name", LAYERS)
def test_what_rounded_statistics_move_falls_into_channels_groups_and_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = trained(LAYERS[name], side=9)
    steps = [step for step in trace.all_steps if step.op.endswith("norm_backward")]

    def inexact(trace: cs.Trace, step: cs.Step, output: int) -> Recomputation:
        witness = recomputed(trace, step, output)
        assert witness is not None
        return Recomputation(witness.values * 1.001, np.abs(witness.values))

    monkeypatch.setattr(gradient_range, "recomputed_result", inexact)
    whole = [moved_by_statistics(trace, step, 0) for step in steps]
    monkeypatch.setattr(gradient_range, "is_large", lambda _: True)
    monkeypatch.setattr(gradient_range, "boxes", partial(boxes, cells=7))
    assert len(steps) == 3
    for step, gradient in zip(steps, whole, strict=True):
        assert gradient is not None
        parts = moved_by_statistics(trace, step, 0)
        assert parts is not None
        np.testing.assert_allclose(parts, gradient, rtol=1e-4, atol=1e-30)  # means of float32 numbers
        assert gradient.max() > 0 or step.name.endswith("bias.grad")  # which no statistic moves


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_a_long_row_has_the_values_and_bounds_of_a_short_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    rows = 3 * random.standard_normal((2, 5000))
    rows[0, 5] = -np.inf
    values = [rows] if name == "logsumexp" else [rows[:, 7], rows]
    primitive, precision = PRIMITIVES[name], Precision.of("float32")

    def results() -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            value = np.asarray(primitive.value(*values))
            return value, np.asarray(primitive.error(precision, value, values, [0.0] * len(values)))

    whole = results()
    monkeypatch.setattr(reductions, "BLOCK", 512)
    monkeypatch.setattr(rounding, "BLOCK", 512)
    for one, other in zip(results(), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_the_size_of_a_tensor_is_that_of_its_type() -> None:
    class Narrow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(torch.float8_e4m3fn).to(torch.float16) > 0

    trace = cs.trace(Narrow(), torch.ones(1, 1, 4, 4))
    assert [bytes_of(step.results[0]) for step in trace.steps] == [16, 32, 16]
