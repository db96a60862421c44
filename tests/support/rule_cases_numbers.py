"""Operations for the rules: reductions, activations, functions and arithmetic of single numbers."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from rule_case import TABLE, Case, Does, call, layer


def after(does: Does, first: Does) -> Does:
    """One function after another."""
    return lambda x: does(first(x))


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
    "searchsorted": lambda x: torch.searchsorted(x.sort(-1).values, x[..., :2].contiguous(), right=True),
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
    "dropout in evaluation mode": layer(lambda: nn.Dropout(0.3)),
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
    "xlog1py": lambda x, y: torch.special.xlog1py(x, y.abs() - 0.3),
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
