"""Capture on random small networks: in-place writes, reuse, branches, concatenation, views, groups, dilation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.traces.step import Origin
from replay import assert_replays, assert_same_output, same

Act = Callable[["Grown", list[Tensor], Tensor, int], Tensor]


class Grown(nn.Module):
    """A network from a plan: each act makes a tensor of four axes from an earlier one, and may write into others."""

    def __init__(self, plan: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.plan = plan
        self.shared = nn.ReLU(inplace=True)
        self.norms = nn.ModuleDict()
        self.layers = nn.ModuleDict()

    def layer(self, key: str, make: Callable[[], nn.Module]) -> nn.Module:
        """A layer that is made when it is first needed."""
        if key not in self.layers:
            self.layers[key] = make()
        return self.layers[key]

    def forward(self, x: Tensor) -> dict[str, Any]:
        made = [x]
        for place, (act, source, number) in enumerate(self.plan):
            self.place = place
            made.append(ACTS[act](self, made, made[source % len(made)], number))
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


def grow(plan: list[tuple[str, int, int]]) -> tuple[Grown, Tensor]:
    """The network with all its layers made."""
    torch.manual_seed(len(plan))
    net, image = Grown(plan), torch.randn(1, 2, 7, 6)
    with torch.no_grad():
        net.train()(image.clone())
    return net.eval(), image


@settings(max_examples=120)
@given(PLANS)
def test_a_trace_has_the_bits_of_an_untraced_run(plan: list[tuple[str, int, int]]) -> None:
    net, image = grow(plan)
    before = torch.get_rng_state()
    with torch.no_grad():
        expected = net(image.clone())
    torch.set_rng_state(before)
    trace = cs.trace(net, image)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_output(expected, trace.output)
    assert same(trace.input, image.numpy())
    assert_replays(trace)


@settings(max_examples=60)
@given(PLANS, st.sampled_from([0, 0.002, 0.02]))
def test_less_kept_gives_the_same_numbers(plan: list[tuple[str, int, int]], budget: float) -> None:
    net, image = grow(plan)
    everything, some = cs.trace(net, image), cs.trace(net, image, keep=budget)
    assert [repr(step) for step in some.all_steps] == [repr(step) for step in everything.all_steps]
    assert_replays(some)
    for one, other in zip(some.steps, everything.steps, strict=True):
        assert all(map(same, one.outputs, other.outputs)), one


@settings(max_examples=60)
@given(PLANS, st.randoms())
def test_every_operand_is_found_where_it_was_made(plan: list[tuple[str, int, int]], random: Any) -> None:
    net, image = grow(plan)
    trace = cs.trace(net, image)
    for step in trace.all_steps:
        for name, item, ref in step.refs():
            value = trace.operand(step, name)
            array = value[item] if isinstance(value, tuple) else value
            if array.size and ref.dtype == "float32":
                cell = tuple(random.randrange(n) for n in array.shape)
                origin = trace.origin(step, name, cell, item)
                found = _made(trace, origin)[origin.cell]
                assert np.array_equal(found, array[cell], equal_nan=True), (step, name, cell, origin)


def _made(trace: cs.Trace, origin: Origin) -> Any:
    """The array that an origin is a cell of."""
    if origin.kind == "step":
        return trace[origin.id].outputs[origin.output]
    if origin.kind == "constant":
        return trace.constants[origin.id]
    return (trace.parameters if origin.kind == "parameter" else trace.inputs)[origin.name]
