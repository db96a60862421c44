"""Verify on numbers that are not ordinary: NaN, infinities, integers, narrow and wide types."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.ops import OPS
from convscope.proof.calls import call_of
from convscope.traces.trace import Trace
from tampering import Net, assert_only, found, shift, tampered


@pytest.fixture(scope="module")
def trace() -> Trace:
    torch.manual_seed(0)
    return cs.trace(Net(), torch.rand(1, 2, 12, 13))


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


class Causal(nn.Module):
    """Attention to the positions before, with an odd number in one key."""

    def __init__(self, odd: float) -> None:
        super().__init__()
        self.odd = odd

    def forward(self, query: Tensor) -> Tensor:
        """The image as query; the key at position 3 holds the number."""
        key = query.flip(-1).clone()
        key[..., 3, 1] = self.odd
        return nn.functional.scaled_dot_product_attention(query, key, query, is_causal=True)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_key_that_a_causal_query_does_not_see_may_hold_anything(odd: float) -> None:
    trace = cs.trace(Causal(odd), torch.rand(1, 2, 5, 4, generator=torch.Generator().manual_seed(3)))
    attention = next(step for step in trace.all_steps if "attention" in step.op)
    assert np.isfinite(attention.outputs[0][0, :, :3]).all()
    assert np.isnan(attention.outputs[0][0, :, 3:]).all()
    assert cs.explain(trace, attention, (0, 0, 2, 1)).proved
    if np.isnan(odd):
        assert cs.verify(trace).proved
    lie = tampered(trace, outputs={attention.name: shift((0, 0, 2, 0), np.nan)})
    assert cs.verify(lie).mismatches


POOLS: dict[str, Callable[[], nn.Module]] = {
    "fractional": lambda: nn.FractionalMaxPool2d(3, output_size=3, return_indices=True),
    "adaptive": lambda: nn.AdaptiveMaxPool2d(3, return_indices=True),
}


@pytest.mark.parametrize("name", POOLS)
def test_the_last_nan_of_a_pooling_window_is_its_place(name: str) -> None:
    torch.manual_seed(3)
    image = torch.rand(1, 1, 9, 9)
    image[0, 0, ::2, ::2] = np.nan
    trace = cs.trace(POOLS[name](), image)
    assert cs.verify(trace).proved
    step = next(step for step in trace.all_steps if "max_pool" in step.op)
    vjp = OPS[step.op].vjp
    assert vjp is not None
    pulled = vjp(call_of(trace, step), np.ones((1, 1, 3, 3)), frozenset({"self"}))
    np.testing.assert_array_equal(np.flatnonzero(pulled.gradients["self"]), np.unique(step.outputs[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("row", [[np.nan] * 5, [-np.inf, np.nan, -np.inf, -np.inf, -np.inf], [-np.inf] * 5], ids=str)
def test_a_query_without_a_number_among_its_scores_is_nan_unless_all_are_masked(
    row: list[float], dtype: torch.dtype
) -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.zeros(5, 5, dtype=x.dtype)
            mask[1] = torch.tensor(row)
            return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    masked = row == [-np.inf] * 5
    trace = cs.trace(Attention(), torch.rand(1, 2, 5, 4).to(dtype))
    assert not cs.verify(trace).mismatches
    step = trace.all_steps[-1]
    expr = cs.explain(trace, step, (0, 0, 1, 0)).expr
    assert expr is not None
    assert expr.value() == 0 if masked else np.isnan(expr.value())
    other = tampered(trace, outputs={step.name: shift((0, 0, 2, 0), np.nan)})
    assert cs.verify(other).mismatches
    report = cs.verify(tampered(trace, outputs={step.name: shift((0, 0, 1, 0), np.nan) if masked else np.nan_to_num}))
    assert report.mismatches if masked else not report.proved


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
            return x.narrow(1, 0, 0).relu() * 2

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


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_wide_transposed_convolution_of_a_narrow_type_is_resolved(dtype: torch.dtype, onednn: bool) -> None:
    """Its kernel rounds the sum over the channels of each tap, in which channels cancel; and then adds the taps."""
    torch.manual_seed(6)
    model = nn.ConvTranspose2d(256, 3, 4, 2, padding=1).to(dtype)
    with torch.backends.mkldnn.flags(enabled=onednn):
        recorded = cs.trace(model, torch.randn(1, 256, 5, 6).to(dtype))
    report = cs.verify(recorded)
    assert report.proved, [(step.finding, step.resolution) for step in report.steps]
    step = report.steps[-1]
    by = 2 * step.resolution * float(np.sqrt(np.mean(recorded.all_steps[-1].output ** 2)))
    lie = tampered(recorded, outputs={step.name: shift((0, 1, 2, 3), by)})
    assert cs.verify(lie).mismatches


def test_narrow_types_see_less(trace: Trace) -> None:
    narrow = cs.trace(Net().to(torch.bfloat16), torch.rand(1, 2, 12, 13).to(torch.bfloat16))
    wide = found(cs.verify(trace), "conv1").resolution
    assert found(cs.verify(narrow), "conv1").resolution > 100 * wide


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_safe_softmax_of_a_narrow_type_rounds_as_softmax_does(dtype: torch.dtype) -> None:
    class Safe(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = torch.ops.aten._safe_softmax(x, 1)
            return made

    for seed in range(6):
        torch.manual_seed(seed)
        recorded = cs.trace(Safe(), torch.randn(2, 3, 5).to(dtype))
        assert cs.verify(recorded).proved
    lie = tampered(recorded, outputs={recorded.all_steps[-1].name: lambda made: made * 1.03})
    assert cs.verify(lie).mismatches
