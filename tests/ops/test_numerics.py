"""Numbers at the edges of their types: nan and infinities, narrow types, integers that wrap, sums that overflow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.expr.call import Call, Operand
from convscope.expr.precision import Precision, rounded
from convscope.expr.primitives.reductions import softmax, softmax_error
from convscope.ops import OPS
from convscope.proof.channel_bias import drift
from convscope.proof.verification_report import Verification
from convscope.reference.table import OPERATIONS
from tampering import shift, tampered

NAN, INF = float("nan"), float("inf")


class Of(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Any:
        return self.function(*x)


def verified(model: nn.Module | Callable[..., Any], *inputs: Tensor) -> Verification:
    return cs.verify(cs.trace(model if isinstance(model, nn.Module) else Of(model), inputs))


def assert_all_proved(model: nn.Module | Callable[..., Any], *inputs: Tensor, resolved: bool = True) -> None:
    """Every step is proved; with `resolved=False` its bounds may be too wide to say more than that nothing contradicts.

    A cast to the type that a tensor has returns it as it is, so that there is no step.
    """
    report = verified(model, *inputs)
    good = {"proved", "proved normwise", "given"} if resolved else {"proved", "unresolved"}
    wrong = [(step.op, step.finding, str(step.mismatch)) for step in report.steps if step.finding not in good]
    assert not wrong, wrong


# nan and infinities.


def spoiled(shape: tuple[int, ...], bad: float) -> Tensor:
    image = torch.randn(shape)
    image[(0, 0, *(1 for _ in shape[2:]))] = bad
    return image


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(
    "size", [{"scale_factor": 2}, {"size": (6, 11)}, {"size": (6, 6)}, {"scale_factor": 1.7}, {"size": (4, 3)}], ids=str
)
def test_a_pixel_that_is_not_finite_spoils_the_cells_that_read_it_alone(
    bad: float, mode: str, size: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    image = spoiled((1, 1, 6, 6), bad)
    assert_all_proved(nn.Upsample(mode=mode, **size), image)
    if mode != "nearest":
        assert_all_proved(nn.Upsample(mode=mode, align_corners=True, **size), image)


PADDED: dict[str, Callable[[], nn.Module]] = {
    "few channels": lambda: nn.Conv2d(1, 2, 3, padding=1),
    "many channels": lambda: nn.Conv2d(16, 16, 3, padding=1),
    "depthwise": lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32),
    "first layer of a network": lambda: nn.Conv2d(3, 16, 7, padding=3),
    "stride and dilation": lambda: nn.Conv2d(2, 3, 3, stride=2, padding=2, dilation=2),
    "volume": lambda: nn.Conv3d(1, 2, 3, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1),
}


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("make", PADDED.values(), ids=PADDED)
def test_padding_counts_as_the_kernel_counts_it(make: Callable[[], nn.Module], bad: float, everywhere: bool) -> None:
    """Zero times an infinite weight is nan; some kernels multiply the zeros of padding, others leave them out."""
    torch.manual_seed(0)
    layer: Any = make()
    with torch.no_grad():
        layer.weight[0, 0].view(-1)[0] = bad
        if everywhere:
            layer.weight.fill_(bad)
    channels = layer.in_channels
    assert_all_proved(layer, torch.rand(1, channels, *[7] * (layer.weight.dim() - 2)) + 0.5)


def test_a_kernel_that_multiplies_padding_is_not_taken_for_one_that_leaves_it_out() -> None:
    x, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    weight[0, 0, 0, 0] = INF
    given = {"input": x.numpy(), "weight": weight.numpy(), "bias": None, "padding": 1}
    both = [OPERATIONS["convolution"].compute(**given, multiplies_padding=counts) for counts in (True, False)]
    assert np.isnan(both[0]).sum() == 7  # type: ignore[arg-type]
    assert not np.isnan(both[1]).any()  # type: ignore[arg-type]
    finite = given | {"weight": np.ones((1, 1, 3, 3))}
    one, other = (OPERATIONS["convolution"].compute(**finite, multiplies_padding=counts) for counts in (True, False))
    np.testing.assert_allclose(one, other)  # type: ignore[arg-type]


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": F.softplus, "softplus, steep": lambda x: F.softplus(x, 3.0, 10.0), "selu": F.selu, "elu": F.elu,
    "celu": lambda x: F.celu(x, 0.7), "gelu": F.gelu, "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu, "mish": F.mish, "sigmoid": torch.sigmoid, "log_sigmoid": F.logsigmoid, "tanh": torch.tanh,
    "|x| ** -0.3": lambda x: x.abs() ** -0.3, "|x| ** 0.3": lambda x: x.abs() ** 0.3, "x ** 2": lambda x: x**2,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "leaky_relu": F.leaky_relu, "softshrink": F.softshrink,
    "exp": torch.exp, "expm1": torch.expm1, "log1p": lambda x: x.abs().log1p(), "erf": torch.erf, "erfc": torch.erfc,
    "rsqrt": lambda x: x.abs().rsqrt(), "1 / x": torch.reciprocal, "atan": torch.atan, "sin": torch.sin,
    "x / 3": lambda x: x / 3, "x // 3": lambda x: x // 3, "x % 3": lambda x: x % 3, "clamp": lambda x: x.clamp(-2, 2),
    "log_softmax": lambda x: x.log_softmax(0), "softmax": lambda x: x.softmax(0), "sum": torch.sum, "mean": torch.mean,
    "logsumexp": lambda x: x.logsumexp(0), "cumsum": lambda x: x.cumsum(0), "norm": torch.linalg.vector_norm,
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.3), "lerp": lambda x: x.lerp(x.flip(0), 0.3),
    "sort": lambda x: x.sort().values, "topk": lambda x: x.topk(3).values, "max": torch.max, "prod": torch.prod,
}  # fmt: skip


@pytest.mark.parametrize(
    "special", [[INF], [-INF], [NAN], [INF, -INF], [-INF, NAN], [0.0, -0.0], [1e-40, 3e38]], ids=str
)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_special_numbers_are_right_where_pytorch_gives_them(
    function: Callable[[Tensor], Tensor], special: list[float]
) -> None:
    report = verified(function, torch.tensor([1.0, -2.0, 3.5, *special, -30.0, 120.0]))
    assert not report.mismatches, [str(step.mismatch) for step in report.mismatches]


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6, 1e15])
def test_attention_of_large_logits_has_finite_bounds(size: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 9, 11) * size**0.5
    trace = cs.trace(Of(lambda x: F.scaled_dot_product_attention(x, x, x)), (x,))
    assert not cs.verify(trace).mismatches
    why = cs.explain(trace, trace.all_steps[-1], (0, 0, 8, 0))
    assert np.isfinite(why.bound)


def test_softmax_of_inexact_scores_is_bounded_by_their_odds() -> None:
    """Against every score moved to either end of its error."""
    random = np.random.default_rng(0)
    for spread, off in ((1.0, 0.1), (5.0, 2.0), (800.0, 30.0), (3.0, 50.0)):
        row, errors = random.normal(0, spread, 6), random.uniform(0, off, 6)
        bound = softmax_error(row, softmax(row), errors, Precision.of("float32"))
        assert np.isfinite(bound).all()
        for _ in range(200):
            moved = softmax(row + errors * random.choice([-1, 1], 6))
            assert (np.abs(moved - softmax(row)) <= bound).all()


# Resizes of narrow types.

RESIZES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "bilinear, aligned": ((1, 4, 64, 48), {"scale_factor": 2, "mode": "bilinear", "align_corners": True}),
    "bilinear, three times": ((1, 4, 64, 48), {"scale_factor": 3, "mode": "bilinear"}),
    "bilinear, to a size": ((1, 4, 64, 48), {"size": (100, 151), "mode": "bilinear"}),
    "bilinear, few pixels": ((1, 2, 9, 11), {"scale_factor": 1.7, "mode": "bilinear"}),
    "bilinear, smaller": ((1, 2, 90, 80), {"scale_factor": 0.6, "mode": "bilinear"}),
    "bicubic": ((1, 2, 40, 48), {"scale_factor": 3, "mode": "bicubic"}),
    "bicubic, aligned": ((1, 2, 40, 48), {"size": (93, 99), "mode": "bicubic", "align_corners": True}),
    "linear": ((1, 3, 150), {"size": (401,), "mode": "linear"}),
    "trilinear": ((1, 2, 9, 11, 20), {"scale_factor": 1.7, "mode": "trilinear"}),
}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("shape", "how"), RESIZES.values(), ids=RESIZES)
def test_resizes_are_proved_within_few_roundings(
    shape: tuple[int, ...], how: dict[str, Any], kind: torch.dtype
) -> None:
    torch.manual_seed(0)
    image = (torch.randn(shape) * 3).to(kind)
    for memory in [torch.contiguous_format] + [torch.channels_last] * (len(shape) == 4):
        report = verified(nn.Upsample(**how), image.contiguous(memory_format=memory))
        assert report.proved, [str(step.mismatch) for step in report.mismatches]
        largest = max(step.resolution for step in report.steps)
        assert largest < {torch.bfloat16: 0.03, torch.float16: 0.004}.get(kind, 2e-4)


def test_a_number_off_by_eight_roundings_is_found_in_a_narrow_resize() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 64, 64).bfloat16() + 1
    trace = cs.trace(nn.Upsample(scale_factor=3, mode="bilinear"), (image,))
    step = trace.all_steps[-1]
    arguments = trace.operands(step)
    values, bounds = (
        OPERATIONS[step.op].compute(**arguments),
        OPERATIONS[step.op].bound(u=2.0**-24, u_out=2.0**-8, **arguments),
    )
    assert (np.abs(step.output - values) <= bounds).all()
    assert (8 * 2.0**-8 * np.abs(values) > bounds).all()  # type: ignore[arg-type,operator]


# Means of channels.


def tiny(kind: torch.dtype) -> float:
    return {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-53}[kind]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("form", ["small bias", "scale near one", "small weights beside one", "all small"])
def test_roundings_of_one_direction_are_no_offset(kind: torch.dtype, transposed: bool, form: str) -> None:
    torch.manual_seed(0)
    for channels, size in ((1, 1), (1, 3), (3, 3), (8, 1)):
        make = nn.ConvTranspose2d if transposed else nn.Conv2d
        layer: Any = make(channels, 4, size, padding=size // 2)
        weight, middle = layer.weight.data, size // 2
        one = (weight[0] if transposed else weight[:, 0])[..., middle, middle]
        weight.fill_(0.3 * tiny(kind) if "small weights" in form else 0.0)
        layer.bias.data.fill_(0.0 if form == "scale near one" else 0.3 * tiny(kind))
        if form == "all small":
            weight.uniform_(0, 0.4 * tiny(kind))
        one.fill_(1 + 2 * tiny(kind) if form == "scale near one" else 1.0)
        image = (torch.rand(1, channels, 96, 96) + 1).to(kind)
        assert_all_proved(layer.to(kind), image)


def test_a_drift_is_what_rounding_does_and_nothing_else() -> None:
    torch.manual_seed(0)
    x, weight = torch.rand(1, 3, 40, 40).numpy() + 1, torch.randn(2, 3, 3, 3).numpy()
    given = {"input": x, "weight": weight, "bias": np.array([0.1, 0.2], np.float32)}
    values = OPERATIONS["conv2d"].compute(**given)[:, 1].reshape(-1)  # type: ignore[call-overload]
    cells = np.arange(values.size)
    assert drift("conv2d", given, 1, values, cells, dtype="float32") < 1e-6
    assert drift("conv2d", given, 1, values + 1e-3, cells, dtype="float32") == pytest.approx(1e-3, rel=1e-3)


# Integers.

COUNTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x + y": lambda x, y: x + y, "x + 100": lambda x, _: x + 100, "x - y": lambda x, y: x - y,
    "5 - x": lambda x, _: 5 - x,
    "x + 50 y": lambda x, y: torch.add(x, y, alpha=50), "x * y": lambda x, y: x * y, "-x": lambda x, _: -x,
    "|x|": lambda x, _: x.abs(), "sum": lambda x, _: x.sum(), "sum, narrow": lambda x, _: x.sum(0, dtype=x.dtype),
    "prod": lambda x, _: x.prod(), "cumsum": lambda x, _: x.cumsum(0), "x // y": lambda x, y: x // y,
    "x // 3": lambda x, _: x // 3, "truncated": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "x % y": lambda x, y: x % y, "fmod": torch.fmod, "x ** 2": lambda x, _: x**2, "x ** 3": lambda x, _: x**3,
    "square": lambda x, _: x.square(), "dot": torch.dot, "matrices": lambda x, y: x.view(2, 4) @ y.view(4, 2),
    "to uint8": lambda x, _: x.to(torch.uint8), "to int8": lambda x, _: x.to(torch.int8), "not": lambda x, _: ~x,
    "and": lambda x, y: x & y, "truth": lambda x, y: (x > y) + (x < y), "truth + y": lambda x, y: (x > y) + y,
    "sent": lambda x, y: x.scatter_add(0, torch.zeros(8, dtype=torch.long), y), "mean": lambda x, _: x.double().mean(),
    "moved": lambda x, _: x.flip(0).view(2, 4), "joined": lambda x, y: torch.cat([x, y.long()]),
}  # fmt: skip


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("function", COUNTED.values(), ids=COUNTED)
def test_whole_numbers_wrap_around(kind: torch.dtype, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    ends = torch.iinfo(kind)
    x = torch.tensor([ends.min, ends.max, 0, 1, 7, 100, ends.max // 3, ends.min + 1], dtype=kind)
    y = torch.tensor([3, 2, 5, ends.max, 1, 3, 7, 9], dtype=kind)
    assert_all_proved(function, x, y)


def test_a_product_that_does_not_wrap_is_found() -> None:
    x = Operand.of(np.array([200, 7], np.uint8), "x", dtype="uint8")
    expr = OPS["mul"].rule(Call("mul", {"self": x, "other": 2}, (2,), "uint8"), (0,))
    assert expr.value() == 144
    assert "400, which uint8 holds as 144" in getattr(expr, "note", "")


@pytest.mark.parametrize(
    ("function", "numbers"),
    [(Tensor.int, [NAN, 1.0]), (Tensor.long, [1e30, 2.0]), (Tensor.long, [2.0**63]), (Tensor.int, [-INF])],
)
def test_casts_that_c_leaves_open_are_unsupported(function: Callable[[Tensor], Tensor], numbers: list[float]) -> None:
    report = verified(function, torch.tensor(numbers))
    assert not report.mismatches
    assert not report.proved


def test_casts_to_narrow_types_round_by_way_of_float32() -> None:
    wide = torch.tensor(
        [1 + 2**-11 + 2**-40, 1e-8, 7e4, 1e300, 1 + 2**-8 + 2**-40, 1e-40, 1e-320, 3.4e38, -0.0]
    ).double()
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        assert_all_proved(Of(lambda x, kind=kind: x.to(kind)), wide)
        assert_all_proved(Of(lambda x, kind=kind: x.to(kind)), wide.float())
    assert rounded(6.15e-39, "bfloat16") == float(torch.tensor(6.15e-39).bfloat16())


# Numbers without axes, without cells, and too large.

SMALL: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x.sum(0), "mean": lambda x: x.mean(-1), "var": lambda x: x.var(0, correction=0),
    "amax": lambda x: x.amax(0), "argmax": lambda x: x.argmax(0), "max": lambda x: x.max(0),
    "sort": lambda x: x.sort(0), "topk": lambda x: x.topk(1, 0), "cumsum": lambda x: x.cumsum(0),
    "prod": lambda x: x.prod(0), "logsumexp": lambda x: x.logsumexp(0), "softmax": lambda x: x.softmax(0),
    "unfold": lambda x: x.unfold(0, 1, 1),
    "gather": lambda x: x.gather(0, torch.tensor([0])), "gather one": lambda x: x[None].gather(0, torch.tensor(0)),
    "index_select": lambda x: x.index_select(0, torch.tensor([0])), "linspace": lambda x: torch.linspace(x, x + 2, 5),
    "scatter_add": lambda x: x.scatter_add(0, torch.tensor([0]), torch.tensor([3.0])),
    "scatter": lambda x: x.scatter(0, torch.tensor(0), torch.tensor(3.0)), "norm": torch.linalg.vector_norm,
}  # fmt: skip


@pytest.mark.parametrize("function", SMALL.values(), ids=SMALL)
def test_a_number_without_axes_counts_as_a_vector_of_one(function: Callable[[Tensor], Any]) -> None:
    assert_all_proved(function, torch.tensor(1.7))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.filterwarnings("ignore:var:UserWarning")
def test_a_statistic_of_no_cells_is_what_pytorch_gives(shape: tuple[int, ...]) -> None:
    for function in (torch.mean, torch.sum, torch.var, lambda x: x.mean(0), lambda x: x.sum(-1), lambda x: x.var(-1)):
        assert not verified(function, torch.zeros(shape)).mismatches


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_variance_beyond_the_type_ends_in_a_finding(kind: torch.dtype) -> None:
    huge = torch.finfo(kind).max / 2
    assert not verified(lambda x: x.var(), torch.tensor([huge, -huge, huge / 3], dtype=kind)).mismatches


OVERFLOWING: dict[str, Callable[[Tensor], Tensor]] = {
    "average pooling": lambda x: F.avg_pool2d(x, 4), "mean": lambda x: x.mean((2, 3)), "sum": lambda x: x.sum((2, 3)),
    "convolution": lambda x: F.conv2d(x, torch.full((1, 1, 4, 4), 1 / 16)), "norm": lambda x: x.flatten(1).norm(dim=1),
    "linear": lambda x: x.flatten(1) @ torch.full((64, 2), 1 / 64.0), "adaptive": lambda x: F.adaptive_avg_pool2d(x, 2),
}  # fmt: skip


@pytest.mark.parametrize("function", OVERFLOWING.values(), ids=OVERFLOWING)
def test_a_sum_that_overflows_on_its_way_is_no_mismatch(function: Callable[[Tensor], Tensor]) -> None:
    """As in a very deep network that has diverged: the mean of 16 cells of 2e38 is finite, their sum is not."""
    for sign in (1.0, -1.0):
        report = verified(function, torch.full((1, 1, 8, 8), sign * 2e38))
        assert not report.mismatches, [str(step.mismatch) for step in report.mismatches]


NARROW: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "addmm": lambda a, b: torch.addmm(a[0], a, b, beta=0.2, alpha=0.6),
    "addmv": lambda a, b: torch.addmv(a[0], b.T, a[0]),
    "addmv, scaled": lambda a, b: torch.addmv(a[0], b, a[0], beta=0.2, alpha=0.6),
    "baddbmm": lambda a, b: torch.baddbmm(a[None], a[None], b[None], beta=0.2, alpha=0.6),
    "transposed": lambda a, b: F.conv_transpose2d(a.view(1, 1, 24, 24), b[:9, :4].reshape(1, 4, 3, 3)),
    "transposed, channels": lambda a, b: F.conv_transpose2d(a.view(1, 9, 8, 8), b.reshape(9, 1, 8, 8)),
    "truncated quotient": lambda a, b: torch.div(a, b, rounding_mode="trunc"), "floor": lambda a, b: a // b,
    "linspace": lambda a, _: torch.linspace(a[0, 0] * 0 - 4.9, a[0, 0] * 0 + 4.3, 50, dtype=a.dtype),
    "erf of almost 0": lambda a, _: torch.erf(a * 1e-30),
}  # fmt: skip


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("function", NARROW.values(), ids=NARROW)
def test_kernels_of_narrow_types_round_in_between(function: Callable[..., Tensor], kind: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b = ((torch.rand(24, 24) * 18 - 9).to(kind) for _ in range(2))
    assert_all_proved(function, a, b, resolved=function is not NARROW["erf of almost 0"])  # subnormal: wide bounds


def test_a_number_off_by_more_than_half_is_found_in_a_narrow_transposed_convolution() -> None:
    """Of 64 kernel positions, whose sums the kernel stores in turn: by the running sums, not by their magnitudes."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(9, 1, 8, bias=False).bfloat16()
    trace = cs.trace(layer, torch.randn(1, 9, 8, 8).bfloat16())
    assert cs.verify(trace).proved
    size = float(np.sqrt(np.mean(trace.all_steps[0].output.astype(np.float64) ** 2)))
    other = tampered(trace, outputs={trace.all_steps[0].name: shift((0, 0, 7, 7), 0.6 * size)})
    assert cs.verify(other).mismatches


def test_a_floored_quotient_beyond_the_digits_of_the_type_may_be_off_by_its_roundings() -> None:
    torch.manual_seed(0)
    assert_all_proved(lambda x: x // 0.7, torch.rand(2000) * 2.0**31)
