"""Random small networks: in-place writes, reuse, branches, concatenation, views, groups, dilation; with parameters for
training steps also broadcasting, indexing, scattering, sorting, norms of all kinds.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Plan = list[tuple[str, int, int]]
"""For each act its name, which of the earlier tensors it works on, and a number that selects a variant."""
Act = Callable[["Grown", list[Tensor], Tensor, int], Tensor]


class Grown(nn.Module):
    """A network from a plan: each act makes a tensor of four axes from an earlier one, and may write into others."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.shared = nn.ReLU(inplace=True)
        self.norms = nn.ModuleDict()
        self.layers = nn.ModuleDict()
        self.weights = nn.ParameterDict()

    def layer(self, key: str, make: Callable[[], nn.Module]) -> nn.Module:
        """A layer that is made when it is first needed."""
        if key not in self.layers:
            self.layers[key] = make()
        return self.layers[key]

    def weight(self, *shape: int) -> Tensor:
        """A parameter that is made when it is first needed."""
        key = "x".join(["w", *map(str, shape)])
        if key not in self.weights:
            self.weights[key] = nn.Parameter(1 + torch.randn(shape) / 2)
        weight: Tensor = self.weights[key]
        return weight

    def forward(self, x: Tensor) -> dict[str, Any]:
        made = [x]
        for place, (act, source, number) in enumerate(self.plan):
            self.place = place
            made.append((ACTS | TRAINED)[act](self, made, made[source % len(made)], number))
        return {"last": made[-1], "all": tuple(made[1:])}


def convolution(net: Grown, _: list[Tensor], x: Tensor, n: int) -> Tensor:
    c = x.shape[1]
    groups = c if n % 3 == 0 else 1
    mode: Any = ("zeros", "reflect", "replicate", "circular")[n % 4] if min(x.shape[2:]) > 3 else "zeros"
    key = f"conv{net.place % 3}_{c}_{groups}_{mode}"  # some are used again
    y: Tensor = net.layer(
        key,
        lambda: nn.Conv2d(
            c, c * (1 + n % 2), 3, padding=1 + n % 2, dilation=1 + n % 2, groups=groups, padding_mode=mode
        ),
    )(x)
    return y


def transposed(net: Grown, _: list[Tensor], x: Tensor, n: int) -> Tensor:
    c = x.shape[1]
    y: Tensor = net.layer(f"up{c}", lambda: nn.ConvTranspose2d(c, 2, 3, stride=1 + n % 2))(x)[:, :, :9, :9]
    return y


def norm(net: Grown, _: list[Tensor], x: Tensor, n: int) -> Tensor:
    c = x.shape[1]
    y: Tensor = net.layer(f"norm{c}_{n % 2}", lambda: (nn.BatchNorm2d(c), nn.GroupNorm(1, c))[n % 2])(x)
    return y


def reuse(net: Grown, _: list[Tensor], x: Tensor, n: int) -> Tensor:
    y: Tensor = net.shared(x) if n % 2 else net.shared(x.clone())
    return y


def in_place(_: Grown, made: list[Tensor], x: Tensor, n: int) -> Tensor:
    x.mul_(0.5).add_(1)
    if n % 2:
        x[:, :1].neg_()
        made[-1].clamp_(max=2)
    return x


def branch(_: Grown, made: list[Tensor], x: Tensor, n: int) -> Tensor:
    other = made[n % len(made)]
    if other.shape != x.shape:
        return x + other.mean()
    return (x + other, x - other, torch.maximum(x, other), torch.where(x > 0, x, other))[n % 4]


def join(_: Grown, made: list[Tensor], x: Tensor, n: int) -> Tensor:
    fitting = [t for t in made if t.shape[0] == x.shape[0] and t.shape[2:] == x.shape[2:]][: 2 + n % 2]
    return torch.cat([x, *fitting], 1)[:, :6]


def views(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    return (
        x.transpose(2, 3),
        x[:, :, 1:, :] if x.shape[2] > 2 else x,
        x.flatten(2).view(x.shape),
        x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        x.flip(3),
        x.expand(2, -1, -1, -1)[:1],
    )[n % 6]


def pooling(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    if min(x.shape[2:]) < 3:
        return F.adaptive_avg_pool2d(x, 2)
    return (F.max_pool2d(x, 3, 2, 1, ceil_mode=True), F.avg_pool2d(x, 2, 1), F.interpolate(x, size=(5, 4)))[n % 3]


def attention(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    if n % 2:
        return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)
    weights = (tokens @ tokens.transpose(1, 2)).softmax(-1)
    return (weights @ tokens).transpose(1, 2).view(x.shape)


def noise(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    return F.dropout(x, 0.5) if n % 2 else x + torch.randn_like(x)


ACTS: dict[str, Act] = {
    act.__name__: act
    for act in (convolution, transposed, norm, reuse, in_place, branch, join, views, pooling, attention, noise)
}
PLANS = st.lists(
    st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 6), st.integers(0, 11)), min_size=1, max_size=7
)


# Acts for training steps


def scaled(net: Grown, _: list[Tensor], x: Tensor, n: int) -> Tensor:
    c, h, w = x.shape[1:]
    shape = ((c, 1, 1), (1, 1, w), (), (h, 1), (1, c, 1, 1), (w,), (1, c, h, w), (c, h, w))[n % 8]
    return x * net.weight(*shape) if n % 3 else x + net.weight(*shape)


def linear(net: Grown, _: list[Tensor], x: Tensor, n: int) -> Tensor:
    w = x.shape[3]
    y: Tensor = net.layer(f"linear{w}_{n % 2}", lambda: nn.Linear(w, w, bias=bool(n % 2)))(x)
    return y


class Passed(torch.autograd.Function):
    """A copy, whose backward returns the tensor that it received."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def passed(_: Grown, __: list[Tensor], x: Tensor, _n: int) -> Tensor:
    y: Tensor = Passed.apply(x)  # type: ignore[no-untyped-call]
    return y


def put(_: Grown, made: list[Tensor], x: Tensor, n: int) -> Tensor:
    y = x.clone()
    if n % 4 == 0:
        y[..., 0] = made[-1].flatten()[0]
    elif n % 4 == 1:
        y[:, :1] = y[:, :1] * 2
    elif n % 4 == 2:
        y[:, :, torch.tensor([0, 1])] = x[:, :, :2].sin()
    else:
        y.masked_fill_(x > 0.5, 0.25)
    return y


def twice_in_place(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    part = (x * 1)[:, :, :2] if n % 2 else (x * 1).transpose(2, 3)
    part.mul_(0.5).add_(1)
    return part.clamp_(max=1.2) if n % 3 else part


SELECTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x.sort(3).values,
    lambda x: x.topk(2, 2).values,
    lambda x: x.gather(3, (x[..., :2] > 0).long()),
    lambda x: x.index_select(2, torch.tensor([1, 0, 1])),
    lambda x: x.scatter(3, torch.zeros_like(x[..., :1]).long(), 2 * x[..., :1]),
    lambda x: x.clone().index_add_(2, torch.tensor([0, 0]), x[:, :, :2]),
    lambda x: x.max(2, keepdim=True).values.expand_as(x) * x,
    lambda x: x.chunk(2, 2)[0] if x.shape[2] > 3 else x,
    lambda x: torch.roll(x, 1, 2),
    lambda x: x.tril() + x.triu(1),
    lambda x: x.diff(dim=2) if x.shape[2] > 2 else x,
    lambda x: x.repeat(1, 1, 2, 1)[:, :, :6],
    lambda x: F.pixel_shuffle(torch.cat([x] * 4, 1), 2)[:, :, :7, :7],
    lambda x: F.unfold(x, 2).mean(1)[:, None, None, :].expand(-1, 2, 3, -1),
)


def selection(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    return SELECTIONS[n % len(SELECTIONS)](x)


CALCULATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: torch.einsum("nchw,nchw->nch", x, x)[..., None].expand_as(x),
    lambda x: torch.stack([x, x * 2]).mean(0),
    lambda x: x.cumsum(2),
    lambda x: x / (x.norm(dim=1, keepdim=True) + 1),
    lambda x: F.layer_norm(x, x.shape[3:]),
    F.instance_norm,
    lambda x: F.local_response_norm(x, 2),
    lambda x: x.softmax(1) + x.logsumexp(1, keepdim=True),
    lambda x: F.gelu(x) + F.silu(x) + F.elu(x) + F.softplus(x),
    lambda x: x * x.std(dim=(2, 3), keepdim=True),
    lambda x: x + x.prod(3, keepdim=True),
    lambda x: (x.abs() + 0.1).log().exp().sqrt().rsqrt(),
    lambda x: torch.minimum(x, x.mean(3, keepdim=True)) - x.amax(1, keepdim=True),
    lambda x: torch.bmm(x.flatten(0, 1), x.flatten(0, 1).transpose(1, 2)).view(*x.shape[:3], -1),
    lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")[:, :, :6, :6],
    lambda x: F.adaptive_max_pool2d(x, 3),
)


def calculation(_: Grown, __: list[Tensor], x: Tensor, n: int) -> Tensor:
    return CALCULATIONS[n % len(CALCULATIONS)](x)


TRAINED: dict[str, Act] = {
    **{name: act for name, act in ACTS.items() if name != "noise"},
    **{act.__name__: act for act in (scaled, linear, passed, put, twice_in_place, selection, calculation)},
}
TRAINED_PLANS = st.lists(
    st.tuples(st.sampled_from(sorted(TRAINED)), st.integers(0, 9), st.integers(0, 47)), min_size=1, max_size=8
)
