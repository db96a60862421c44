"""Verify finds every change: of a number, a weight, a setting, or of an offset below each cell's own bound."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.traces.trace import Trace
from tampering import Net, Tampered, assert_only, found, shift, tampered


@pytest.fixture(scope="module")
def trace() -> Trace:
    torch.manual_seed(0)
    return cs.trace(Net(), torch.rand(1, 2, 12, 13))


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
