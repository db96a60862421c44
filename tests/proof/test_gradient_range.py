"""Gradients whose numbers leave their type on the way: none is called wrong, none is proved by a bound too wide."""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.proof.derivatives import derivatives_of
from convscope.traces.trace import Trace
from tampering import tampered


class OfBias(nn.Module):
    """A function of a bias, whose gradient is looked at."""

    def __init__(self, call: Callable[[Tensor], Tensor], low: float, high: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.call, self.bias = call, nn.Parameter(torch.linspace(low, high, 32, dtype=dtype)[None])

    def forward(self, x: Tensor) -> Tensor:
        """The function of the bias alone, with the image added as 0."""
        return self.call(self.bias) + 0 * x.flatten(1)


def trained(call: Callable[[Tensor], Tensor], low: float, high: float, dtype: torch.dtype) -> Trace:
    """A training step of a function of 32 numbers between these."""
    image = torch.zeros(1, 1, 4, 8, dtype=dtype)
    return cs.trace(OfBias(call, low, high, dtype), image, target=torch.tensor([0]), loss="cross-entropy")


CALLS: MappingProxyType[str, Callable[[Tensor], Tensor]] = MappingProxyType({
    "softplus": F.softplus,
    "log sigmoid": F.logsigmoid,
    "SiLU": F.silu,
    "Mish": F.mish,
    "GLU": lambda x: F.glu(torch.cat([x, x], -1)),
    "logaddexp with 0": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "logaddexp": lambda x: torch.logaddexp(x, x * 0.5),
    "logaddexp2": lambda x: torch.logaddexp2(x, x * 0.5),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True) + x,
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "exponential": torch.exp,
    "root of an exponential": lambda x: x.exp().rsqrt(),
    "square of an exponential": lambda x: x.exp() ** 2,
    "cube of an exponential": lambda x: x.exp() ** 3,
    "softmax": lambda x: x.softmax(-1),
    "ELU": F.elu,
    "sigmoid": torch.sigmoid,
})  # fmt: skip
END = {torch.float32: 87.0, torch.float64: 708.0}
"""exp of minus this is about the smallest normal number."""


@pytest.mark.parametrize("dtype", END, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_at_the_end_of_its_type_is_no_wrong_derivative(name: str, dtype: torch.dtype) -> None:
    end = END[dtype]
    for low, high in ((-end - 20, -end + 6), (end - 6, end + 20), (-end / 2 - 5, -end / 2 + 5)):
        report = cs.verify(trained(lambda x: CALLS[name](x).clamp(-1e4, 1e4), low, high, dtype))
        assert not report.mismatches, (low, report.mismatches[0].op, report.mismatches[0].mismatch)


SMALL: MappingProxyType[str, Callable[[Tensor, float], Tensor]] = MappingProxyType({
    "scaled there and back": lambda x, c: x * c / c,
    "cube": lambda x, c: (x * c) ** 3 / c,
    "softmax": lambda x, c: x.softmax(-1) * c / c,
    "normalized": lambda x, c: F.normalize(x * c, dim=-1),
    "product": lambda x, c: (x[:, :4] * c).prod(-1, keepdim=True) + x,
})  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_through_numbers_below_the_normal_ones_is_no_wrong_derivative(name: str) -> None:
    for c in (1.2e-40, 3.5e-39, 1.3e-38, 1e-36, 1e-19):
        report = cs.verify(trained(lambda x, c=c: SMALL[name](x, c), -2, 2, torch.float32))  # type: ignore[misc]
        assert not report.mismatches, (c, report.mismatches[0].op, report.mismatches[0].mismatch)


class Half(torch.autograd.Function):
    """The exponential with half of its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """exp."""
        ctx.save_for_backward(x.exp())
        return x.exp()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Half of it."""
        return torch.mul(grad, ctx.saved_tensors[0]) * 0.5


@pytest.mark.parametrize(("low", "high"), [(-3.0, 3.0), (-40.0, -20.0), (20.0, 40.0)])
def test_half_a_gradient_is_wrong(low: float, high: float) -> None:
    report = cs.verify(trained(lambda x: Half.apply(x) + 0, low, high, torch.float32))  # type: ignore[no-untyped-call]
    assert [step.finding for step in report.mismatches] == ["wrong derivative"]


def test_half_a_gradient_beyond_the_type_is_not_proved() -> None:
    assert not cs.verify(trained(lambda x: Half.apply(x) + 0, -110, -95, torch.float32)).proved  # type: ignore[no-untyped-call]


def test_an_infinity_in_the_place_of_an_ordinary_gradient_is_found() -> None:
    for bad in (np.inf, np.nan):
        trace = trained(lambda x: torch.logaddexp(x, x * 0.5), -3, 3, torch.float32)
        name = next(step.name for step in reversed(trace.all_steps) if step.op == "div")
        assert cs.verify(tampered(trace, outputs={name: lambda made, bad=bad: made * bad})).mismatches


def test_products_that_underflow_in_the_sums_of_images_are_no_wrong_gradient() -> None:
    torch.manual_seed(1)
    images = torch.rand(3, 2, 1, 1) * torch.tensor([1e-3, 0, 0]).reshape(3, 1, 1, 1)  # one image alone has a sum
    trace = cs.trace(nn.Conv2d(2, 2, 1), images, target=[0, 1, 0], loss=lambda y, _: (y * y * 1e-37).sum())
    gradient = trace["weight.grad"]
    assert 0 < np.abs(gradient.output).max() < np.finfo(np.float32).tiny
    assert not cs.verify(trace).mismatches


NORMS: MappingProxyType[str, Callable[[], nn.Module]] = MappingProxyType({
    "batch": lambda: nn.BatchNorm2d(4),
    "layer": lambda: nn.LayerNorm([4, 6, 6]),
    "group": lambda: nn.GroupNorm(2, 4),
})  # fmt: skip


class FarFromZero(nn.Module):
    """A normalization of numbers whose mean is many deviations from zero, so that its rounding matters."""

    def __init__(self, norm: str, centre: float, spread: float) -> None:
        super().__init__()
        self.centre, self.spread = centre, spread
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 1), NORMS[norm](), nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Moved far from zero, normalized, classified."""
        return torch.as_tensor(self.last(self.norm(self.first(x) * self.spread + self.centre).flatten(1)))


def far_from_zero(norm: str, centre: float, spread: float) -> Trace:
    """A training step of such a network."""
    torch.manual_seed(2)
    model, image = FarFromZero(norm, centre, spread), torch.randn(4, 3, 6, 6)
    return cs.trace(model, image, training=True, target=torch.tensor([0, 1, 2, 0]), loss="cross-entropy")


FAR = [(3.0, 1e-3), (30.0, 1e-3), (1e3, 1.0), (1e5, 1.0)]
CONSTANT = [(1e3, 0.0), (1e3, 1e-6), (1e5, 1e-2)]


@pytest.mark.parametrize(("centre", "spread"), [*FAR, *CONSTANT])
@pytest.mark.parametrize("norm", NORMS)
def test_the_rounding_of_a_normalization_far_from_zero_is_no_wrong_gradient(
    norm: str, centre: float, spread: float
) -> None:
    """Neither of a step, nor in the two comparisons of the whole."""
    report = cs.verify(far_from_zero(norm, centre, spread), cells=20)
    assert not report.mismatches
    assert not report.wrong, report.lines


PLANTED = [
    *(("batch", *numbers, 1.01) for numbers in FAR),
    *((norm, *numbers, -1.0) for norm in ("layer", "group") for numbers in [(3.0, 1e-3), (1e3, 1.0)]),
]
"""Layer and group norm subtract sums of numbers far from zero, so that smaller errors are no larger than roundings."""


@pytest.mark.parametrize(("norm", "centre", "spread", "times"), PLANTED)
def test_a_scaled_gradient_of_a_normalization_is_a_wrong_derivative(
    norm: str, centre: float, spread: float, times: float
) -> None:
    trace = far_from_zero(norm, centre, spread)
    steps = [step for step in trace.all_steps if step.op == f"native_{norm}_norm_backward"]
    assert len(steps) == 3
    for step in steps:
        changed = tampered(trace, outputs={step.name: lambda made: made * times})
        assert derivatives_of(changed).status(changed.all_steps[step.id])[0] == "wrong derivative"


@pytest.mark.parametrize("norm", NORMS)
def test_a_wrong_gradient_before_a_normalization_far_from_zero_is_found_by_both_comparisons(norm: str) -> None:
    """Though the roundings that it hides among are taken out."""
    trace = far_from_zero(norm, 1e3, 1.0)
    changed = tampered(trace, outputs={"first.weight.grad": lambda made: made * 1.05})
    check = cs.verify(changed, cells=20).gradients
    assert check is not None
    assert check.furthest > 0.01
    assert check.chain_worst == "first.weight"
    assert check.chain_furthest > 0.01
