"""Rules over generated settings and numbers: each cell must be within its bound."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_rules import assert_adds_up, explained, sampled
from torch import Tensor, nn

import convscope as cs
from convscope.proof.explanation import explain
from rule_case import Doing

few = settings(max_examples=30)
Draw = st.DataObject


def numbers(draw: Draw, *shape: int) -> Tensor:
    """Of any size, anywhere on the line, some of them zero: what makes sums cancel and variances vanish."""
    generator = torch.Generator().manual_seed(draw.draw(st.integers(0, 2**31)))
    size, shift = 10.0 ** draw.draw(st.integers(-6, 6)), draw.draw(st.sampled_from([0.0, 0.0, 1.0, -300.0]))
    found = torch.randn(shape, generator=generator) * size + shift * size
    return found * (torch.rand(shape, generator=generator) > draw.draw(st.sampled_from([0.0, 0.0, 0.7])))


def assert_explained(does: Callable[..., Any], *inputs: Tensor) -> None:
    try:
        trace = cs.trace(Doing(does).eval(), inputs)
    except cs.ConvscopeError:  # settings that PyTorch refuses
        assume(False)
    for why in explained(trace, 4):
        assert_adds_up(why)


@few
@given(st.data())
def test_any_convolution(draw: Draw) -> None:
    axes = draw.draw(st.integers(1, 3))
    groups = draw.draw(st.integers(1, 3))
    settings_of = st.lists(st.integers(1, 3), min_size=axes, max_size=axes).map(tuple)
    sizes, strides, dilations = (draw.draw(settings_of) for _ in range(3))
    padding = tuple(draw.draw(st.integers(0, size)) for size in sizes)
    kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][
        axes - 1 + 3 * draw.draw(st.booleans())
    ]
    layer = kind(2 * groups, 3 * groups, sizes, strides, padding, groups=groups, dilation=dilations)
    assert_explained(layer, numbers(draw, draw.draw(st.integers(1, 2)), 2 * groups, *(5, 7, 4)[:axes]))


@few
@given(st.data())
def test_any_pooling(draw: Draw) -> None:
    sizes = draw.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw.draw(st.integers(0, size // 2)) for size in sizes)
    ceil = draw.draw(st.booleans())
    image = numbers(draw, 2, 3, 7, 9)
    assert_explained(lambda x: F.max_pool2d(x, sizes, strides, padding, ceil_mode=ceil), image)
    counted = draw.draw(st.booleans())
    assert_explained(lambda x: F.avg_pool2d(x, sizes, strides, padding, ceil, counted), image)
    assert_explained(lambda x: F.adaptive_avg_pool2d(x, sizes), image)


@few
@given(st.data())
def test_any_resampling(draw: Draw) -> None:
    mode = draw.draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]))
    corners = draw.draw(st.booleans()) if mode.startswith("bi") else None
    image = numbers(draw, 1, 2, 5, 8)
    if draw.draw(st.booleans()):
        size = draw.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
        assert_explained(lambda x: F.interpolate(x, size, mode=mode, align_corners=corners), image)
    else:
        factor = draw.draw(st.floats(0.3, 4.0))
        assert_explained(lambda x: F.interpolate(x, scale_factor=factor, mode=mode, align_corners=corners), image)


@few
@given(st.data())
def test_any_statistic(draw: Draw) -> None:
    image = numbers(draw, 2, 4, 5, draw.draw(st.integers(1, 40)))
    eps = draw.draw(st.sampled_from([1e-5, 1e-12, 1.0]))
    assert_explained(lambda x: F.layer_norm(x, x.shape[2:], eps=eps), image)
    assert_explained(lambda x: F.group_norm(x, 2, eps=eps), image)
    assert_explained(lambda x: F.batch_norm(x, None, None, training=True, eps=eps), image)
    assert_explained(lambda x: (x.var(1), x.std((0, 2)), x.mean(3), x.sum(0)), image)


@few
@given(st.data())
def test_any_softmax_and_attention(draw: Draw) -> None:
    scores = numbers(draw, 3, 7)
    assert_explained(lambda x: (x.softmax(1), x.log_softmax(0), x.logsumexp(1)), scores)
    query, key, value = (numbers(draw, 1, 2, length, 4) for length in (5, 6, 6))
    assume(float(query.abs().max()) * float(key.abs().max()) < 1e5)  # beyond, scores decide by rounding
    assert_explained(F.scaled_dot_product_attention, query, key, value)


@few
@given(st.data())
def test_any_function(draw: Draw) -> None:
    name = draw.draw(
        st.sampled_from(
            ["relu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "elu", "celu"]
        )
    )
    assert_explained(getattr(F, name), numbers(draw, 3, 20))
    assert_explained(lambda x: (x.exp(), x.abs().log(), x.abs().sqrt(), x.sin(), x**2, 1 / x), numbers(draw, 3, 20))


@few
@given(st.data())
def test_any_chain_of_moves(draw: Draw) -> None:
    """A number keeps its value on any way, and the explanation finds where it came from."""
    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.flip(0),
        lambda x: x.transpose(0, -1),
        lambda x: x.reshape(-1, x.shape[0]),
        lambda x: x[..., 1:] if x.shape[-1] > 1 else x,
        lambda x: x.roll(1, 0),
        lambda x: x.unsqueeze(1).expand(-1, 2, *x.shape[1:]),
        lambda x: x.repeat(2, *[1] * (x.ndim - 1)),
        lambda x: torch.cat([x, x.flip(-1)], -1),
        lambda x: x.flatten(),
        lambda x: torch.stack([x, x], 1),
        lambda x: x.contiguous(),
    ]
    chosen = draw.draw(st.lists(st.sampled_from(moves), min_size=1, max_size=5))

    def does(x: Tensor) -> Tensor:
        for move in chosen:
            x = move(x)
        return x + 0

    image = torch.arange(24.0).reshape(2, 3, 4)
    trace = cs.trace(Doing(does), image)
    for step in trace.all_steps:
        for cell in sampled(step.shape, 4):
            why = explain(trace, step, cell)
            assert_adds_up(why)
            found = why.to_input()
            assert found.total == found.value
            if step.op != "add":
                place = np.argwhere(found.weights["input"])
                assert image.numpy()[tuple(place[0][-image.ndim :])] == why.recorded
