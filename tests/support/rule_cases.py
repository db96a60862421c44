"""One table of operations for the rules: what PyTorch is asked to do, on inputs whose sizes all differ.

Each case is traced like any model; the trace may record several operations, and all of them are looked at. Channels,
kernel, input and output sizes differ, so that a swapped axis cannot pass.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.capture.tracing import trace
from convscope.traces.trace import Trace
from rule_cases_backward import BACKWARD

Does = Callable[..., Any]
IMAGE = (2, 3, 9, 11)
TABLE = (4, 5)


@dataclass(frozen=True)
class Case:
    """A function or a module, built anew for each trace, and the shapes of its inputs."""

    does: Callable[[], Does]
    shapes: tuple[tuple[int, ...], ...] = (TABLE,)
    training: bool = False
    scale: float = 1.0
    slopes: bool = True
    """Whether autograd can be asked for the slopes of its result."""
    resolution: float = 1 / 2000
    """How large its bound may be, as a share of its numbers' size."""


class Doing(nn.Module):
    """A function as a model."""

    def __init__(self, does: Does) -> None:
        super().__init__()
        self.does = does
        self.like = nn.Parameter(torch.zeros(()))  # says which type the model takes

    def forward(self, *inputs: Tensor) -> Any:
        return self.does(*inputs)


@lru_cache(maxsize=1)  # tests with `scope="module"` in their parameters ask for a case one after the other
def recorded(name: str, dtype: torch.dtype = torch.float32) -> tuple[Trace, Doing, tuple[Tensor, ...]]:
    """The trace of a case, its model and its inputs, the same each time."""
    case = CASES[name]
    torch.manual_seed(zlib.crc32(name.encode()))
    model = Doing(case.does()).to(dtype).train(case.training)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point() and value is not model.like:
            value.requires_grad_(False).copy_(
                torch.rand_like(value) + 0.5 if value.min() > 0 else torch.randn_like(value)
            )
    inputs = tuple((torch.randn(shape) * case.scale).to(dtype) for shape in case.shapes)
    return trace(model, inputs, training=case.training), model, inputs


def layer(build: Callable[[], nn.Module], *shapes: tuple[int, ...], **options: Any) -> Case:
    """A module."""
    return Case(build, shapes or (IMAGE,), **options)


def call(does: Does, *shapes: tuple[int, ...], **options: Any) -> Case:
    """A function of its inputs."""
    return Case(lambda: does, shapes or (TABLE,), **options)


def weighing(does: Does, *weights: tuple[int, ...], shapes: tuple[tuple[int, ...], ...] = (TABLE,)) -> Case:
    """A function of its inputs and of parameters of these shapes."""

    def build() -> Does:
        values = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in weights])
        model = Doing(lambda *inputs: does(*inputs, *values))
        model.values = values
        return model

    return Case(build, shapes)


def written(x: Tensor) -> Tensor:
    """Two parts of a copy overwritten."""
    y = x.clone()
    y[:, 1] = 2 * x[:, 0]
    y[:, :, 2:] += 1
    return y * 1


def reduced(how: str, own: bool, x: Tensor) -> Tensor:
    """Some numbers of a tensor sent to others, two of them to the same."""
    at = torch.tensor([[[1, 0, 1], [2, 2, 2]]])
    return torch.scatter_reduce(x, 2, at, 3 * x[:1, :2, :3], how, include_self=own)


COPIED: Mapping[str, tuple[Any, ...]] = {
    "alias": (), "detach": (), "view": ([4, 6],), "squeeze": (), "unsqueeze": (1,), "transpose": (0, 2),
    "permute": ([2, 0, 1],), "expand": ([5, 2, 3, 4],), "split": (2, 2), "split_with_sizes": ([1, 3], 2),
    "unbind": (1,), "slice": (2, 1, 4, 2), "narrow": (2, -3, 2), "select": (1, -2), "diagonal": (1, 0, 2),
    "as_strided": ([2, 3], [7, 2], 1), "unfold": (2, 3, 1),
}  # fmt: skip
"""Views whose twin copies, with settings for a tensor of shape (2, 3, 4)."""


def copied(view: str, *settings: Any) -> Any:
    """The twin of a view; its tensor comes last."""
    *options, x = settings
    return getattr(torch.ops.aten, f"{view}_copy")(x, *options)


class SelfAttention(nn.Module):
    """Attention of a tensor to itself, which takes the fused path."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention, self.options = nn.MultiheadAttention(12, 4, batch_first=True), options

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, **self.options)


def after(does: Does, first: Does) -> Does:
    """One function after another."""
    return lambda x: does(first(x))


CONVOLUTION: Mapping[str, Case] = {
    "convolution": layer(lambda: nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2))),
    "convolution in groups": layer(lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (1, 4, 7, 9)),
    "depthwise convolution": layer(lambda: nn.Conv2d(6, 6, (3, 2), groups=6, bias=False), (1, 6, 7, 9)),
    "convolution of the same size": layer(lambda: nn.Conv2d(3, 5, (3, 5), padding="same"), (1, 3, 6, 7)),
    "unbatched convolution": layer(lambda: nn.Conv2d(3, 4, 3), (3, 8, 9)),
    "1-d convolution": layer(lambda: nn.Conv1d(3, 5, 4, padding=2, stride=2), (2, 3, 13)),
    "3-d convolution": layer(lambda: nn.Conv3d(2, 3, (2, 3, 2), padding=1), (1, 2, 5, 6, 7)),
    "transposed convolution": layer(
        lambda: nn.ConvTranspose2d(4, 6, (3, 4), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)), (2, 4, 5, 6)
    ),
    "transposed in groups": layer(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2), (1, 4, 5, 6)),
    "transposed 1-d": layer(lambda: nn.ConvTranspose1d(3, 5, 4, stride=3), (2, 3, 6)),
    "reflected": layer(lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (1, 3, 6, 7)),
    "replicated": layer(lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), (1, 3, 6, 7)),
    "circular": layer(lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"), (1, 3, 6, 7)),
}
LINEAR: Mapping[str, Case] = {
    "linear": layer(lambda: nn.Linear(17, 5), (3, 17)),
    "linear without bias": layer(lambda: nn.Linear(17, 5, bias=False), (2, 3, 17)),
    "bmm": call(torch.matmul, (3, 4, 5), (3, 5, 2)),
    "mv": call(torch.mv, (4, 5), (5,)),
    "dot": call(torch.dot, (7,), (7,)),
    "baddbmm": call(partial(torch.baddbmm, beta=0.5, alpha=2), (3, 4, 2), (3, 4, 5), (3, 5, 2)),
    "addmm": call(partial(torch.addmm, beta=0, alpha=0.3), (4, 2), (4, 5), (5, 2)),
    "addmv": call(torch.addmv, (4,), (4, 5), (5,)),
    "a matrix times itself": call(lambda x: x @ x.mT, (4, 4)),
}
POOLING: Mapping[str, Case] = {
    "max pooling": call(
        lambda x: F.max_pool2d(x, (3, 2), (2, 3), padding=(1, 1), dilation=(1, 2), ceil_mode=True), IMAGE
    ),
    "max pooling, 1-d": call(lambda x: F.max_pool1d(x, 2), (2, 3, 9)),
    "max pooling, 3-d": call(lambda x: F.max_pool3d(x, 2, 1), (1, 3, 5, 6, 7)),
    "average pooling": call(lambda x: F.avg_pool2d(x, (3, 2), (2, 3), padding=(1, 1), ceil_mode=True), IMAGE),
    "average without padding": call(
        lambda x: F.avg_pool2d(x, (3, 2), (2, 3), padding=(1, 1), ceil_mode=True, count_include_pad=False), IMAGE
    ),
    "average by a divisor": call(lambda x: F.avg_pool2d(x, 3, divisor_override=4, padding=1), IMAGE),
    "average pooling, 3-d": call(lambda x: F.avg_pool3d(x, 2, 1, padding=1), (1, 3, 5, 6, 7)),
    "adaptive average": call(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (2, 3, 7, 9)),
    "adaptive average, 3-d": call(lambda x: F.adaptive_avg_pool3d(x, (2, 3, 4)), (2, 3, 7, 5, 6)),
    "adaptive maximum": call(lambda x: F.adaptive_max_pool2d(x, (3, 4)), (2, 3, 7, 9)),
    "adaptive maximum, 3-d": call(lambda x: F.adaptive_max_pool3d(x, 3), (2, 3, 7, 6, 5)),
    "unpooling": call(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), [2, 2]), (1, 2, 6, 8)),
    "unpooling, 3-d": call(
        lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), [2, 2, 2]), (1, 2, 4, 6, 8)
    ),
}
NORMALIZATION: Mapping[str, Case] = {
    "batch norm": layer(lambda: nn.BatchNorm2d(3)),
    "batch norm in training": layer(lambda: nn.BatchNorm2d(3), training=True),
    "batch norm, 1-d, in training": layer(lambda: nn.BatchNorm1d(5), (7, 5), training=True),
    "batch norm by this batch": call(
        lambda x: torch.ops.aten._native_batch_norm_legit.no_stats(x, None, None, True, 0.1, 1e-5), IMAGE, slopes=False
    ),
    "batch norm without training": call(
        lambda x: torch.ops.aten._native_batch_norm_legit_no_training(
            x, None, None, x.mean((0, 2, 3)), x.var((0, 2, 3)), 0.1, 1e-5
        ),
        IMAGE,
        slopes=False,
    ),
    "instance norm": call(F.instance_norm, IMAGE),
    "layer norm": layer(lambda: nn.LayerNorm((4, 7)), (3, 4, 7)),
    "layer norm without weights": call(lambda x: F.layer_norm(x, (7,)), (3, 4, 7)),
    "group norm": layer(lambda: nn.GroupNorm(3, 6), (2, 6, 5, 4)),
    "rms norm": layer(lambda: nn.RMSNorm(9), (3, 9)),
    "local response norm": call(lambda x: F.local_response_norm(x, 3), (1, 6, 5, 4)),
}
REDUCED: Mapping[str, Does] = {
    "mean": lambda x: x.mean((0, 2)),
    "mean of all": torch.mean,
    "sum": lambda x: x.sum(1, keepdim=True),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std((0, 1), unbiased=False, keepdim=True),
    "var and mean": lambda x: torch.var_mean(x, 1),
    "std and mean": lambda x: torch.std_mean(x, (0, 2)),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((0, 2)),
    "max along an axis": lambda x: x.max(1),
    "min along an axis": lambda x: x.min(-1, keepdim=True),
    "max of all": torch.max,
    "min of all": torch.min,
    "aminmax": lambda x: tuple(torch.aminmax(x, dim=1)),
    "argmax": torch.argmax,
    "argmin": lambda x: x.argmin(1),
    "sort": lambda x: x.sort(1, descending=True),
    "topk": lambda x: x.topk(2, 2),
    "cumsum": lambda x: x.cumsum(1),
    "prod": lambda x: x.prod(1),
    "any": lambda x: (x > 0.5).any(1),
    "all": lambda x: (x > -0.5).all(),
    "logsumexp": lambda x: x.logsumexp(1),
    "length": lambda x: torch.linalg.vector_norm(x, dim=(1, 2)),
    "1-norm": lambda x: x.norm(p=1, dim=1),
    "3-norm": lambda x: x.norm(p=3, dim=1),
    "median": lambda x: x.median(1),
    "median of all": torch.median,
    "nanmedian": lambda x: x.log().nanmedian(-1, keepdim=True),
    "kthvalue": lambda x: x.kthvalue(2, 1),
    "mode": lambda x: x.mode(1),
    "cumprod": lambda x: x.cumprod(1),
    "cummax": lambda x: x.cummax(1),
    "cummin": lambda x: x.cummin(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "nansum": lambda x: x.log().nansum(1),
    "trace": lambda x: x[0].trace(),
    "count_nonzero": lambda x: x.relu().count_nonzero(1),
    "nonzero": lambda x: x.relu().nonzero(),
    "nonzero_static": lambda x: torch.nonzero_static(x[0, :2].relu(), size=12),
    "unique": lambda x: torch.unique(x.round(), return_inverse=True, return_counts=True),
    "unique slices": lambda x: torch.unique(x[:, :2, 0].sign(), return_inverse=True, return_counts=True, dim=0),
    "unique runs": lambda x: torch.unique_consecutive(x.sign(), return_inverse=True, return_counts=True),
    "repeat_interleave": lambda x: torch.repeat_interleave(x.relu()[0, 0].ceil().int()),
    "unique slices of nothing": lambda x: torch.unique(x[:, :0], dim=1),
    "searchsorted": lambda x: torch.searchsorted(x.sort(-1).values, x[..., :2], right=True),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-0.5, 0.1, 0.7]).to(x)),
    "isin": lambda x: torch.isin(x.round(), x[0, 0].round()),
    "histc": lambda x: x.histc(4, -1, 1),
    "histogram": lambda x: tuple(torch.histogram(x, 3, weight=x.abs(), density=True)),
    "histogram by edges": lambda x: torch.histogram(x, torch.tensor([-1.0, 0.3, 0.4, 1.0]).to(x))[0],
    **{
        f"segment_reduce by {how}": partial(
            torch.segment_reduce, reduce=how, lengths=torch.tensor([2, 0, 1]), initial=2
        )
        for how in ("sum", "mean", "prod", "max", "min")
    },
    "segment_reduce by offsets": lambda x: torch.segment_reduce(
        x, "mean", offsets=torch.tensor([[0, 2, 4], [0, 1, 4], [0, 3, 4]]), axis=1
    ),
    "largest size": lambda x: torch.linalg.vector_norm(x, ord=float("inf"), dim=1),
    "softmax": lambda x: F.softmax(3 * x, 1),
    "softmax of the last axis": lambda x: F.softmax(3 * x, -1),
    "log softmax": lambda x: F.log_softmax(3 * x, 2),
    "safe softmax": lambda x: torch._safe_softmax(x.masked_fill(x[:, :1] > 0, -float("inf")), 1),
}
REDUCTION = {name: call(does, (3, 4, 5)) for name, does in REDUCED.items()}
ACTIVATION: Mapping[str, Case] = {
    **{
        name: call(getattr(F, name), (5, 30), scale=3)
        for name in [
            "relu",
            "leaky_relu",
            "elu",
            "selu",
            "celu",
            "hardtanh",
            "relu6",
            "hardsigmoid",
            "hardswish",
            "silu",
            "mish",
            "softplus",
            "logsigmoid",
            "gelu",
            "tanh",
            "sigmoid",
            "softsign",
            "hardshrink",
            "softshrink",
            "tanhshrink",
        ]
    },
    "gelu by tanh": call(partial(F.gelu, approximate="tanh"), scale=2),
    "prelu": layer(lambda: nn.PReLU(3)),
    "glu": call(partial(F.glu, dim=1), (3, 8)),
    "threshold": call(lambda x: F.threshold(x, 0.1, 0.2)),
    "steep leaky relu": call(lambda x: F.leaky_relu(x, 0.2)),
    "softplus beyond its threshold": call(lambda x: F.softplus(x, 2, 3), scale=4),
    "relu in place": call(lambda x: F.relu_(x * 1)),
    "dropout with its recorded mask": layer(lambda: nn.Dropout(0.3), training=True),
    "native dropout": call(lambda x: torch.native_dropout(x, 0.3, True)[0]),
    "native dropout, not training": call(lambda x: torch.native_dropout(x, 0.3, False)[0]),
}
FUNCTIONS: Mapping[str, Case] = {
    **{
        name: call(getattr(torch, name), (5, 7), scale=2)
        for name in [
            "exp",
            "sin",
            "cos",
            "tan",
            "neg",
            "abs",
            "sign",
            "sgn",
            "floor",
            "ceil",
            "round",
            "trunc",
            "frac",
            "reciprocal",
            "erf",
            "erfc",
            "expm1",
            "exp2",
            "atan",
            "sinh",
            "cosh",
            "square",
            "isnan",
            "isinf",
            "isfinite",
            "logical_not",
        ]
    },
    **{
        name: call(after(getattr(torch, name), lambda x: x.abs() + 0.1), (5, 7))
        for name in ["log", "sqrt", "rsqrt", "log2", "log10", "log1p"]
    },
    **{name: call(after(getattr(torch, name), torch.tanh), (5, 7)) for name in ("asin", "acos")},
    "round to decimals": call(lambda x: x.round(decimals=2)),
    **{
        name: call(getattr(torch, name), (5, 7), scale=2)
        for name in ["asinh", "deg2rad", "rad2deg", "sinc", "signbit", "isposinf", "isneginf", "angle", "frexp"]
    },
    "acosh": call(lambda x: torch.acosh(x.abs() + 1.1), (5, 7)),
    "atanh": call(after(torch.atanh, torch.tanh), (5, 7)),
    "logit": call(after(torch.logit, torch.sigmoid), (5, 7)),
    "logit within limits": call(lambda x: torch.logit(x.sigmoid(), eps=0.3), (5, 7)),
    "nan_to_num": call(lambda x: torch.nan_to_num(x.log(), nan=0.3, neginf=-1.7), (5, 7)),
    "nan_to_num of the type": call(lambda x: torch.nan_to_num((x > 0).to(x) / 0), (5, 7), slopes=False),
}
OF_TWO: Mapping[str, Does] = {
    "add": torch.add,
    "add scaled": partial(torch.add, alpha=0.3),
    "sub": torch.sub,
    "sub scaled": partial(torch.sub, alpha=0.3),
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "atan2": torch.atan2,
    **{name: getattr(torch, name) for name in ("copysign", "hypot", "fmax", "fmin", "logaddexp", "logaddexp2")},
    "xlogy": lambda x, y: torch.xlogy(x, y.abs() + 0.1),
    "ldexp": torch.ldexp,
    "heaviside": lambda x, y: torch.heaviside(x.relu(), y),
    "fmod": torch.fmod,
    "remainder": torch.remainder,
    "floor_divide": torch.floor_divide,
    "where": lambda x, y: torch.where(x > 0.1, x, y),
    "addcmul": lambda x, y: torch.addcmul(x, 2 * x, y, value=0.7),
    "addcdiv": lambda x, y: torch.addcdiv(x, 2 * x, y, value=0.7),
    "lerp": lambda x, y: torch.lerp(x, y.expand(4, 5), 0.3),
    "lerp by a tensor": lambda x, y: torch.lerp(x, 2 * x, y),
    "pow of tensors": lambda x, y: (x.abs() + 0.1) ** y,
}
OF_ONE: Mapping[str, Does] = {
    "rsub": lambda x: 1 - x,
    "times a number": lambda x: x * 0.1,
    "by a number": lambda x: x / 3,
    "plus a number": lambda x: x + 0.1,
    "div, rounded down": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "div, rounded towards 0": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "a square": lambda x: x**2,
    "a cube": lambda x: x**3,
    "a root by pow": lambda x: (x.abs() + 0.1) ** 0.37,
    "a number to a power": lambda x: 2.5**x,
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.3),
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp from below": lambda x: x.clamp(min=0.1),
    "clamp_min": lambda x: x.clamp_min(0.2),
    "clamp_max": lambda x: x.clamp_max(0.2),
    "clamp by a tensor": lambda x: x.clamp(max=x[0]),
    "comparisons": lambda x: (x > 0.1) & (x < 1) | x.ge(0.4) ^ x.le(-0.3) | x.eq(0) | ~x.ne(0),
    "logic": lambda x: (x > 0).logical_and(x < 1).logical_or(x > 2).logical_xor(x < -1),
    "bits of integers": lambda x: ~(x * 9).int() & 5,
}
ARITHMETIC = {
    **{name: call(does, TABLE, (5,)) for name, does in OF_TWO.items()},
    **{name: call(does) for name, does in OF_ONE.items()},
}
MOVED: Mapping[str, Does] = {
    "view": lambda x: x.view(3, 8),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(1, 2).reshape(2, 12),
    "select": lambda x: x.select(1, -1),
    "slice": lambda x: x[:, 1::2, -3:],
    "unsqueeze and squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "squeeze of all": lambda x: x[:, :1].squeeze(),
    "expand": lambda x: x[:, :1].expand(2, 5, 4),
    "flatten of a transposed": lambda x: x.mT.flatten(),
    "cat": lambda x: torch.cat([x, 2 * x, x[:, :1]], 1),
    "stack": lambda x: torch.stack([x, 2 * x], -1),
    "split": lambda x: x.split(2, 2),
    "split into sizes": lambda x: x.split([1, 2], 1),
    "unsafe_split": lambda x: torch.unsafe_split(x, 2, 2),
    "unsafe_split_with_sizes": lambda x: torch.unsafe_split_with_sizes(x, [1, 3], 2),
    "unbind": lambda x: x.unbind(1),
    "roll": lambda x: x.roll((1, -2), (0, 2)),
    "roll of all": lambda x: x.roll(5),
    "rot90": lambda x: (torch.rot90(x, 1, (2, 1)), x.rot90(2, (0, 2)), x.rot90(3, (0, 1))),
    "take": lambda x: x.take(torch.tensor([[3, -1], [0, 17]])),
    "masked_select": lambda x: x.masked_select(x[0] > 0.1),
    **{f"{name}_copy": partial(copied, name, *settings) for name, settings in COPIED.items()},
    "repeat": lambda x: x.repeat(3, 1, 2, 1),
    "flip": lambda x: x.flip(0, 2),
    "diagonal": lambda x: x.diagonal(1, 0, 2),
    "unfold of an axis": lambda x: x.unfold(2, 3, 1),
    "index": lambda x: x[:, [2, 0]],
    "index of two axes": lambda x: x[[1, 0], :, [3, 1]],
    "index by a mask": lambda x: x[x > 0],
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "gather": lambda x: x.gather(1, torch.tensor([[[1, 0, 2, 1]], [[0, 0, 2, 2]]])),
    "embedding": lambda x: F.embedding(torch.tensor([[1, 2], [0, 1]]), x[0]),
    "tril": lambda x: x.tril(1),
    "triu": torch.triu,
    "slice_scatter": lambda x: torch.slice_scatter(x, 2 * x[:, :2], 1, 0, 3, 2),
    "select_scatter": lambda x: torch.select_scatter(x, 2 * x[:, 0], 1, 2),
    "index_put": lambda x: x.index_put((torch.tensor([1, 0]), torch.tensor([0, 2])), torch.ones(2, 4).to(x)),
    "index_put, adding": lambda x: x.index_put(
        (torch.tensor([1, 1]), torch.tensor([0, 0])), torch.ones(2, 4).to(x), accumulate=True
    ),
    "scatter": lambda x: x.scatter(1, torch.tensor([[[1, 0, 2, 1]], [[0, 0, 2, 2]]]), 0.5),
    "scatter_add": lambda x: x.scatter_add(1, torch.tensor([[[1, 0, 2, 1], [1, 1, 2, 0]]]), 2 * x[:1, :2]),
    "index_add": lambda x: x.index_add(1, torch.tensor([2, 0, 2]), 3 * x, alpha=0.7),
    "index_copy": lambda x: x.index_copy(2, torch.tensor([2, 0]), 3 * x[..., :2]),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([2, 0]), 0.3),
    **{
        f"scatter_reduce by {reduce}{'' if own else ', without itself'}": partial(reduced, reduce, own)
        for reduce, own in [("sum", True), ("prod", True), ("mean", False), ("amax", True), ("amin", False)]
    },
    "scatter, multiplying": lambda x: x.scatter(1, torch.tensor([[[1, 1, 2, 0]]]), 3 * x[:1, :1], reduce="multiply"),
    "index_reduce": lambda x: x.index_reduce(1, torch.tensor([2, 0, 2]), 3 * x, "mean"),
    "put": lambda x: x.put(torch.tensor([[3, -1, 3]]), 3 * x[:1, 0, :3]),
    "put, adding": lambda x: x.put(torch.tensor([[3, -1, 3]]), 3 * x[:1, 0, :3], accumulate=True),
    "masked_scatter": lambda x: x.masked_scatter(x > 0.2, 3 * x),
    "diagonal_scatter": lambda x: torch.diagonal_scatter(x, 3 * x[:, 0, 1:], 1, 1, 2),
    "diag_embed": lambda x: torch.diag_embed(x, 1, 0, -2),
    "block_diag": lambda x: torch.block_diag(x[0], x[1, 0], x[0, 0, 0]),  # type: ignore[no-untyped-call]
    "a part written in place": written,
    "as_strided": lambda x: x.clone().as_strided((3, 4), (4, 1), 12),
    "clone, detach, alias": lambda x: torch.ops.aten.alias(x.detach().clone()),
    "a written constant": lambda x: x + torch.tensor([1.0, 2.0, 0.5, 4.0]).to(x),
    "to half and back": lambda x: x.half().float(),
    "to bfloat16": lambda x: x.bfloat16(),
    "to integers": lambda x: (x * 9).int(),
    "to truth values": lambda x: x.bool(),
}
MOVES: Mapping[str, Case] = {
    **{name: call(does, (2, 3, 4)) for name, does in MOVED.items()},
    "as_strided_scatter": call(  # PyTorch's own gradient leaves out what is not written over
        lambda x: torch.as_strided_scatter(x * 1, 3 * x[0, :2, :2], (2, 2), (5, 2), 3), (2, 3, 4), slopes=False
    ),
    "t": call(torch.t, (2, 3)),
    "t_copy": call(torch.ops.aten.t_copy, (2, 3)),
    "pixel_shuffle": call(lambda x: F.pixel_shuffle(x, 2), (1, 8, 3, 2)),
    "pixel_unshuffle": call(lambda x: F.pixel_unshuffle(x, 2), (1, 2, 4, 6)),
    "channel_shuffle": call(lambda x: F.channel_shuffle(x, 3), (1, 6, 3, 2)),
    "im2col": call(lambda x: F.unfold(x, (2, 3), dilation=(2, 1), padding=1, stride=(1, 2)), (1, 2, 6, 7)),
    "col2im": call(lambda x: F.fold(x, (6, 7), (2, 3), padding=(0, 1)), (1, 12, 35)),
    "constant padding": call(lambda x: F.pad(x, (1, 2, 0, -1), value=0.3), (1, 2, 4, 5)),
    "reflection, 1-d": call(lambda x: F.pad(x, (1, 2), mode="reflect"), (1, 2, 5)),
    "reflection, 3-d": call(lambda x: F.pad(x, (1, 2, 1, 1, 0, 1), mode="reflect"), (1, 2, 3, 4, 5)),
    "replication, 1-d": call(lambda x: F.pad(x, (1, 2), mode="replicate"), (1, 2, 5)),
    "replication, 3-d": call(lambda x: F.pad(x, (1, 2, 3, 1, 0, 1), mode="replicate"), (1, 2, 3, 4, 5)),
}
FILLED: Mapping[str, Case] = {
    name: call(does, slopes=False)
    for name, does in {
        "zeros": lambda x: x + torch.zeros(5),
        "zeros_like": lambda x: x + torch.zeros_like(x),
        "new_zeros": lambda x: x + x.new_zeros(5),
        "zeros in place": lambda x: x + x.clone().zero_(),
        "ones": lambda x: x + torch.ones(5),
        "ones_like": lambda x: x + torch.ones_like(x),
        "new_ones": lambda x: x + x.new_ones(5),
        "full": lambda x: x + torch.full((5,), 0.3),
        "full_like": lambda x: x + torch.full_like(x, 0.3),
        "new_full": lambda x: x + x.new_full((5,), 0.3),
        "fill": lambda x: x + x.clone().fill_(0.2),
        "scalar_tensor": lambda x: x + torch.scalar_tensor(0.3),
        "arange": lambda x: x + torch.arange(1.0, 3.0, 0.4),
        "arange of integers": lambda x: x + torch.arange(5),
        "linspace": lambda x: x + torch.linspace(0.1, 1, 5),
        "logspace": lambda x: x + torch.logspace(-0.3, 1.2, 5, base=2.5),
        "eye": lambda x: x + torch.eye(4, 5),
    }.items()
}
RESAMPLING: Mapping[str, Case] = {
    **{
        f"{mode} to {size}{' by corners' if corners else ''}": call(
            partial(F.interpolate, size=size, mode=mode, align_corners=corners), (2, 3, 6, 10)
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
        for size in ((7, 5), (13, 20), (3, 4))
        for corners in ((None, True) if mode.startswith("bi") else (None,))
    },
    **{
        f"{mode} by a factor": call(partial(F.interpolate, scale_factor=1.7, mode=mode), (1, 3, 6, 10))
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
    },
    "linear resampling": call(partial(F.interpolate, size=11, mode="linear"), (1, 3, 6)),
    "trilinear": call(partial(F.interpolate, size=(5, 7, 9), mode="trilinear"), (1, 3, 6, 3, 4)),
    "nearest, 1-d": call(partial(F.interpolate, size=11), (1, 3, 6)),
    "nearest, 3-d": call(partial(F.interpolate, size=(5, 7, 9)), (1, 3, 6, 3, 4)),
    "nearest-exact, 1-d": call(partial(F.interpolate, size=11, mode="nearest-exact"), (1, 3, 6)),
    "nearest-exact, 3-d": call(partial(F.interpolate, size=(5, 7, 9), mode="nearest-exact"), (1, 3, 6, 3, 4)),
}


def _attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, **options)


HEADS = ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8))
ATTENTION: Mapping[str, Case] = {
    "attention": call(_attend, *HEADS),
    "attention, causal": call(partial(_attend, is_causal=True), *[(2, 3, 5, 8)] * 3),
    "attention with a mask": call(
        lambda q, k, v: _attend(q, k, v, attn_mask=(q @ k.mT)[:1, :1] > 0, scale=0.3), *HEADS
    ),
    "attention with a bias": call(lambda q, k, v: _attend(q, k, v, attn_mask=(q @ k.mT)[0, 0]), *HEADS, slopes=False),
}
ROWS = (2, 6, 12)
FUSED: Mapping[str, Case] = {  # many layers in one: bounds of bounds
    "multi-head attention": Case(SelfAttention, (ROWS,), resolution=1 / 500),
    "multi-head attention, heads apart": Case(lambda: SelfAttention(average_attn_weights=False), (ROWS,)),
    "encoder layer": layer(lambda: nn.TransformerEncoderLayer(12, 4, 20, batch_first=True), ROWS, resolution=1 / 10),
    "encoder layer, norm first": layer(
        lambda: nn.TransformerEncoderLayer(12, 4, 20, batch_first=True, norm_first=True, activation="gelu"),
        ROWS,
        resolution=1 / 10,
    ),
}

from rule_cases_layers import LAYERS  # noqa: E402  # it needs what is above

CASES: Mapping[str, Case] = {
    **CONVOLUTION,
    **LINEAR,
    **POOLING,
    **NORMALIZATION,
    **REDUCTION,
    **ACTIVATION,
    **FUNCTIONS,
    **ARITHMETIC,
    **MOVES,
    **FILLED,
    **RESAMPLING,
    **ATTENTION,
    **FUSED,
    **{name: call(does, *shapes, slopes=False) for name, (does, shapes) in BACKWARD.items()},
    **LAYERS,
}
