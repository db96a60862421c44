"""Infinities and nan on a kernel's way: nothing that a sound kernel makes is called wrong, nothing wrong is proved."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.expr.call import Call, Operand
from convscope.proof.tolerance import undecided
from rule_case import Doing
from tampering import tampered

NAN, INF = float("nan"), float("inf")


ROWS: dict[str, nn.Module] = {
    "layer norm": nn.LayerNorm(6),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4),
    "RMS norm": nn.RMSNorm(6),
    "var_mean": Doing(lambda x: torch.var_mean(x, -1)[1]),
    "std_mean": Doing(lambda x: torch.std_mean(x, -1)[1]),
    "mean": Doing(lambda x: x.mean(-1)),
    "lerp": Doing(lambda x: torch.lerp(x, x.flip(-1), 0.75)),
    "quantile": Doing(lambda x: x.float().quantile(0.3, -1)),
    "GELU": nn.GELU(),
    "attention": Doing(lambda x: F.scaled_dot_product_attention(x, x, x)),
    "distances": Doing(lambda x: torch.cdist(x.float(), x.float() + 1, p=0)),
    "bilinear": Doing(lambda x: F.bilinear(x, x, torch.ones(2, 6, 6, dtype=x.dtype))),
    "transposed convolution": Doing(lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3, dtype=x.dtype), stride=2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_an_infinite_or_missing_number_is_no_mismatch(name: str, dtype: torch.dtype) -> None:
    for bad in (INF, -INF, NAN):
        torch.manual_seed(1)
        x = torch.randn(1, 4, 5, 6).to(dtype)
        x[0, 1, 2, 3] = bad
        report = cs.verify(cs.trace(ROWS[name].to(dtype).eval(), x))
        assert not report.mismatches, (bad, report.mismatches[0].op, report.mismatches[0].mismatch)


@pytest.mark.parametrize("name", ["layer norm", "group norm", "RMS norm"])
def test_statistics_that_nothing_reads_leave_the_rest_proved(name: str) -> None:
    x = torch.randn(1, 4, 5, 6)
    x[0, 1, 2, 3] = INF
    assert cs.verify(cs.trace(ROWS[name].float(), x)).proved


@pytest.mark.parametrize("name", ["layer norm", "group norm", "mean", "lerp", "GELU", "attention"])
@pytest.mark.parametrize("bad", [INF, NAN, 7.0])
def test_a_wrong_number_away_from_the_infinity_is_found(name: str, bad: float) -> None:
    x = torch.randn(2, 4, 5, 6)
    x[0, 1, 2, 3] = INF
    trace = cs.trace(ROWS[name].float(), x)

    def lie(made: np.ndarray) -> np.ndarray:
        made = made.copy()
        made[(1, *[0] * (made.ndim - 1))] = bad
        return made

    name = trace.all_steps[-1].name
    assert cs.verify(tampered(trace, outputs={name: lie})).mismatches


def test_what_arithmetic_settles_is_judged() -> None:
    """A product, a sum of small terms, and anything moved have one right answer, also for infinities and nan."""
    x = torch.tensor([[INF, 1.0, -2.0]])
    for call in (lambda x: x * 2, lambda x: x.sum(-1, keepdim=True), lambda x: x.flip(-1), lambda x: x + 1):
        trace = cs.trace(Doing(call), x)
        lie = tampered(trace, outputs={trace.all_steps[-1].name: lambda made: made * np.nan})
        assert cs.verify(lie).mismatches


def test_an_overflow_on_the_way_is_open_in_the_type_of_the_kernel_alone() -> None:
    for dtype, large in (("float32", 1e30), ("float64", 1e200)):
        operand = Operand.of(np.array([large, 1.0]), "x", dtype=dtype)
        for op, is_open in (("var", True), ("sum", False), ("mul", False)):
            call = Call(op, {"self": operand}, (), dtype)
            assert bool(undecided(call, 1.0, INF)) == is_open, (dtype, op)
    small = Call("var", {"self": Operand.of(np.array([1e3, 1.0]), "x", dtype="float32")}, (), "float32")
    assert not undecided(small, 1.0, INF)


LARGE: dict[str, Callable[[Tensor], Tensor]] = {
    "addcdiv": lambda x: torch.addcdiv(x, x, x.flip(-1), value=3.0),
    "round": lambda x: torch.round(x, decimals=3),
    "product": lambda x: x.prod(-1),
    "running product": lambda x: x.cumprod(-1),
    "remainder": lambda x: torch.remainder(x, 1e-3),
    "sinc": torch.sinc,
    "norm of order -2.5": lambda x: torch.linalg.vector_norm(x, ord=-2.5, dim=-1),
    "norm of order 0.9": lambda x: torch.linalg.vector_norm(x, ord=0.9, dim=-1),
    "batch norm": lambda x: F.batch_norm(
        x.reshape(-1, 4), torch.zeros(4), torch.ones(4), x.reshape(-1)[:4], torch.ones(4)
    ),
    "bicubic": lambda x: F.interpolate(x.reshape(1, 1, 2, 4), scale_factor=2, mode="bicubic"),
    "histogram": lambda x: x.histc(100),
}


@pytest.mark.parametrize("name", LARGE)
def test_an_overflow_on_the_way_is_no_mismatch(name: str) -> None:
    for scale in (3.4e38, 1e30, 1e20, 1e-20, 1e-38):
        x = torch.tensor([[[1.0, -0.9, 0.7, 0.001], [0.99, 1.0, -1.0, 0.5]]]) * scale
        report = cs.verify(cs.trace(Doing(LARGE[name]), x))
        assert not report.mismatches, (scale, report.mismatches[0].mismatch)


LOST: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "norm of one number": (lambda x: torch.linalg.vector_norm(x, ord=4), torch.tensor([[1e-36]])),
    "product": (lambda x: x.prod(-1), torch.tensor([[1e-30, 3e-12, 1e35, 1.5], [2.0, 3.0, 1.0, 1.0]])),
    "batch norm of half": (
        lambda x: F.batch_norm(x, None, None, training=True),
        ((torch.arange(36.0).reshape(9, 4) * 7 % 11 - 5.3) * 2.7e-6).half(),
    ),
    "losses of small weights": (
        lambda x: F.nll_loss(x, torch.tensor([0, 2]), weight=torch.full((3,), 1e-35)),
        torch.tensor([[-1e-5, 2e-5, 1e-5], [1e-5, 1e-5, -2e-5]]),
    ),
    "last offset of a bag": (
        lambda x: F.embedding_bag(torch.tensor([1, 2, 0]), x, torch.tensor([0, 1, 1]), include_last_offset=True),
        torch.randn(3, 2),
    ),
    "product of slices": (
        lambda x: x.new_ones(1).scatter_reduce(0, torch.zeros(4, dtype=torch.long), x, "prod"),
        torch.tensor([2.0**-16, 2.0**-16, 65504.0, 65504.0]).half(),
    ),
    "nan above infinity, sorted": (
        lambda x: torch.cat([x.sort(-1)[1], x.sort(-1, descending=True)[1]]),
        torch.tensor([[INF, NAN, 0.5, -INF]]),
    ),
    "index of several nan": (
        lambda x: torch.unique(x, return_inverse=True)[1],
        torch.where(torch.arange(24.0) % 3 == 0, NAN, torch.arange(24.0)),
    ),
    "histogram of nan": (lambda x: torch.histogram(x, 3, range=(0, 1)).hist, torch.tensor([0.1, NAN, 0.5])),
}


@pytest.mark.parametrize("name", LOST)
def test_numbers_lost_on_the_way_are_no_mismatch(name: str) -> None:
    call, x = LOST[name]
    report = cs.verify(cs.trace(Doing(call), x))
    assert not report.mismatches, report.mismatches[0].mismatch


COMPARED: dict[str, Callable[[Tensor], Tensor]] = {
    "searchsorted": lambda x: torch.searchsorted(x, x.flip(-1).contiguous()),
    "searchsorted, right": lambda x: torch.searchsorted(x, x.flip(-1).contiguous(), right=True),
    "searchsorted, by a sorter": lambda x: torch.searchsorted(x, x, sorter=x.argsort(-1)),
    "bucketize": lambda x: torch.bucketize(x, x[0]),
    "margin of several classes": lambda x: F.multi_margin_loss(x, torch.tensor([1, 0]), reduction="none"),
    "margin of several labels": lambda x: F.multilabel_margin_loss(x, torch.tensor([[1, 0, -1, 2, 3]] * 2)),
    "ignored targets": lambda x: F.nll_loss(x, torch.tensor([1, 4]), torch.tensor([1, 1, 1, 1, NAN]), ignore_index=4),
}


@pytest.mark.parametrize("name", COMPARED)
def test_comparisons_with_nan_are_those_of_the_kernel(name: str) -> None:
    for bad in (NAN, INF, -INF):
        x = torch.tensor([[0.5, bad, 0.1, 2.0, 1.0], [3.0, 1.0, bad, -1.0, 2.0]])
        trace = cs.trace(Doing(COMPARED[name]), x)
        assert not cs.verify(trace).mismatches, bad
        if np.isfinite(trace.all_steps[-1].output).all():
            lie = tampered(trace, outputs={trace.all_steps[-1].name: lambda made: made + 1})
            assert cs.verify(lie).mismatches
