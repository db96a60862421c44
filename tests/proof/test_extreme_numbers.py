"""Numbers at the ends of a type: where a sound kernel over- or underflows on its way, no number is called wrong."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.reference.precision import written


class Calls(nn.Module):
    """A function as a model."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """Call it."""
        return self.call(x)


SUMS_OF_SQUARES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "layer norm": (nn.LayerNorm(10), (1, 1, 2, 10)),
    "group norm": (nn.GroupNorm(1, 4), (1, 4, 5, 5)),
    "group norm, channels last": (nn.GroupNorm(1, 4), (1, 4, 5, 6)),
    "batch norm": (nn.BatchNorm2d(4), (2, 4, 5, 5)),
    "instance norm": (nn.InstanceNorm2d(4), (1, 4, 5, 5)),
    "RMS norm": (nn.RMSNorm(10), (1, 1, 2, 10)),
    "variance": (Calls(lambda x: x.var(-1)), (1, 1, 4, 7)),
    "norm": (Calls(lambda x: torch.linalg.vector_norm(x, dim=-1)), (1, 1, 3, 200)),
    "normalize": (Calls(lambda x: nn.functional.normalize(x, dim=-1)), (1, 1, 3, 5)),
    "attention": (Calls(lambda x: nn.functional.scaled_dot_product_attention(x, x, x)), (1, 1, 4, 6)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SUMS_OF_SQUARES)
def test_squares_beyond_the_type_are_no_mismatch(name: str, dtype: torch.dtype) -> None:
    model, shape = SUMS_OF_SQUARES[name]
    training = name == "batch norm"
    for scale in (1e-44, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 1e37):
        torch.manual_seed(1)
        x = (torch.randn(shape) * scale).to(dtype)
        if "last" in name:
            x = x.contiguous(memory_format=torch.channels_last)
        report = cs.verify(cs.trace(model.to(dtype).train(training), x, training=training))
        assert not report.mismatches, (scale, report.mismatches[0].mismatch)
        if scale >= 1e30 and name not in {"RMS norm", "norm", "normalize", "variance"}:
            assert not report.proved, scale  # nothing is known where the sums are infinite


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e15])
def test_what_does_not_overflow_is_still_judged(scale: float) -> None:
    trace = cs.trace(nn.LayerNorm(10, eps=0.0), torch.randn(1, 1, 2, 10) * scale)
    array = trace.all_steps[0].outputs[0]
    array.flags.writeable = True
    array[0, 0, 1, 3] *= 1.001
    assert cs.verify(trace).mismatches


FAR = torch.linspace(-110, -80, 512).reshape(1, 1, 16, 32)
GATED: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "mish": nn.functional.mish,
    "glu": nn.functional.glu,
    "silu in place": lambda x: nn.functional.silu(x.clone(), inplace=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", GATED)
def test_a_gate_whose_exponential_overflows_is_no_mismatch(name: str, dtype: torch.dtype) -> None:
    x = FAR.to(dtype) * (8 if dtype == torch.float64 else 1)
    trace = cs.trace(Calls(GATED[name]), x)
    assert not cs.verify(trace).mismatches
    if dtype == torch.bfloat16:  # its arrays are copies
        return
    array = trace.all_steps[-1].outputs[0]
    array.flags.writeable = True
    array[0, 0, -1, -1] = 1e-30  # the largest of them is about -1e-33
    assert cs.verify(trace).mismatches


class Saturated(nn.Module):
    """A function of a bias, whose gradient is looked at."""

    def __init__(self, call: Callable[[Tensor], Tensor], low: float, high: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.call, self.bias = call, nn.Parameter(torch.linspace(low, high, 512, dtype=dtype)[None])

    def forward(self, x: Tensor) -> Tensor:
        """The function of the bias alone, with the image added as 0."""
        return self.call(self.bias + 0 * x.flatten(1))


@pytest.mark.parametrize(
    ("call", "low", "high", "dtype"),
    [
        (torch.sigmoid, 8, 30, torch.float32),
        (torch.sigmoid, -50, 50, torch.float64),
        (torch.tanh, 2, 12, torch.float32),
        (torch.expm1, -30, -8, torch.float32),
        (nn.functional.elu, -30, -8, torch.float32),
    ],
)
def test_the_gradient_of_a_saturated_result_is_its_derivative(
    call: Callable[[Tensor], Tensor], low: float, high: float, dtype: torch.dtype
) -> None:
    model = Saturated(call, low, high, dtype)
    trace = cs.trace(model, torch.zeros(1, 1, 16, 32, dtype=dtype), target=torch.tensor([3]), loss="cross-entropy")
    assert not cs.verify(trace).mismatches


def test_a_number_written_below_the_normal_ones_has_fewer_digits() -> None:
    for value in (1e-40, 3e-45, 1e-38, 0.1, 1.0, 2.0**-140):
        error = abs(float(np.float32(value)) - value)
        assert error <= float(written(value, 2.0**-24)) <= max(2.0**-24 * value, 2.0**-150)
    assert not written(2.0**-149, 2.0**-24).any()
    assert written(2.0**-150, 2.0**-24).any()


def test_a_square_beyond_float64_is_infinite_and_nothing_else() -> None:
    model = Calls(lambda x: nn.functional.mse_loss(x, torch.ones_like(x), reduction="none"))
    trace = cs.trace(model, torch.tensor([[1e200, 3.0]], dtype=torch.float64))
    step = trace.all_steps[-1]
    expr = cs.explain(trace, step, (0, 0)).expr
    assert expr is not None
    assert expr.value() == np.inf
    assert not cs.verify(trace).mismatches
    array = step.outputs[0]
    array.flags.writeable = True
    array[0, 0] = 7.0
    assert not cs.verify(trace).proved
    array[0, 1] = 4.001
    assert cs.verify(trace).mismatches
