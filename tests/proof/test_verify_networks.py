"""Verify on networks that chance has built: 100 % proved, and the bits of an untraced run."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from proving import assert_proved

ACTIVATIONS: tuple[Any, ...] = (
    nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True), nn.SiLU(inplace=True), nn.GELU(),
    nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU6(), nn.ELU(), nn.Softplus(),
    nn.Mish(), nn.Softmax(1), nn.LogSoftmax(1), torch.abs, torch.neg, lambda x: x.clamp(-0.5, 0.7),
    lambda x: x * 0.1 - 0.3,
)  # fmt: skip


class Grown(nn.Module):
    """Layers in a row; each knows by itself what it reads."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.steps = layers
        self.layers = nn.ModuleList(layer for layer in layers if isinstance(layer, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.steps:
            x = layer(x)
        return x


class Branches(nn.Module):
    """Two paths from one tensor, and how they meet again."""

    def __init__(self, one: nn.Module, other: nn.Module, meet: str) -> None:
        super().__init__()
        self.one, self.other, self.meet = one, other, meet

    def forward(self, x: Tensor) -> Tensor:
        a: Tensor = self.one(x)
        b: Tensor = self.other(x)
        match self.meet:
            case "cat":
                return torch.cat([a, b, a[:, :1]], 1)
            case "add_":
                return a.clone().add_(b)
            case "gate":
                return a * b.sigmoid() + x.mean()
            case _:
                return torch.where(a > b, a, b) - a / (b.abs() + 0.5)


def rolled(x: Tensor) -> Tensor:
    return x.roll((1, -2), (2, 3)).flip(3).transpose(2, 3).contiguous()


def written(x: Tensor) -> Tensor:
    """Writes into a view of what it reads."""
    y = x.clone(memory_format=torch.contiguous_format)
    y[:, ::2].mul_(2.0)
    y[:, :, 0] = y[:, :, -1] + 1
    return y.view(y.shape[0], -1).view(y.shape)


def folded(x: Tensor) -> Tensor:
    return F.unfold(x, (1, 1)).reshape(x.shape).permute(0, 1, 3, 2)


KEEPS = (nn.ReLU, nn.GELU, nn.SiLU, nn.BatchNorm2d, nn.GroupNorm)
"""Layers that may be used twice: they keep every size."""
MOVES: tuple[Any, ...] = (rolled, written, folded, lambda x: x.expand(-1, -1, -1, -1) + x[:, :, :1])


@st.composite
def layers(draw: st.DrawFn, channels: int, side: int, depth: int) -> tuple[list[Any], int]:
    """Some layers for maps of so many channels, and how many channels come out. Sizes stay odd and small."""
    result: list[Any] = []
    for _ in range(draw(st.integers(1, depth))):
        kind = draw(st.sampled_from(["conv", "conv", "norm", "act", "act", "pool", "move", "branch", "grow", "again"]))
        if kind == "conv":
            layer, channels = draw(convolution(channels))
            result.append(layer)
        elif kind == "norm":
            result.append(draw(normalization(channels)))
        elif kind == "act":
            result.append(draw(st.sampled_from(ACTIVATIONS)))
        elif kind == "pool":
            result.append(draw(pooling()))
        elif kind == "move":
            result.append(draw(st.sampled_from(MOVES)))
        elif kind == "grow":
            mode: Any = draw(st.sampled_from(["nearest", "bilinear", "bicubic"]))
            result.append(nn.Upsample(size=(side, side + 2), mode=mode))
        elif kind == "again" and result and isinstance(result[-1], KEEPS):
            result.append(result[-1])
        elif kind == "branch" and depth > 2:
            one, other = (Grown([draw(kept(channels)), draw(st.sampled_from(ACTIVATIONS))]) for _ in range(2))
            meet = draw(st.sampled_from(["cat", "add_", "gate", "where"]))
            result.append(Branches(one, other, meet))
            channels = 2 * channels + 1 if meet == "cat" else channels
    return result, channels


@st.composite
def convolution(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
    kernels = groups * draw(st.integers(1, max(1, 6 // groups)))
    if draw(st.integers(0, 4)) == 0:
        stride = draw(st.integers(1, 2))
        transposed = nn.ConvTranspose2d(
            channels, kernels, (2, 3), stride, groups=groups, output_padding=draw(st.integers(0, stride - 1))
        )
        return transposed, kernels
    mode: Any = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    dilation = draw(st.integers(1, 2))
    layer = nn.Conv2d(
        channels, kernels, kernel, draw(st.integers(1, 2)), (1, 2), dilation, groups, draw(st.booleans()), mode
    )
    return nn.Sequential(nn.AdaptiveAvgPool2d((7, 9)), layer), kernels


@st.composite
def kept(draw: st.DrawFn, channels: int) -> nn.Module:
    """A layer that keeps every size."""
    size: Any = draw(st.sampled_from([1, 3, (3, 5)]))
    bias, groups = draw(st.booleans()), draw(st.sampled_from([1, channels]))
    return nn.Conv2d(channels, channels, size, padding="same", groups=groups, bias=bias)


@st.composite
def normalization(draw: st.DrawFn, channels: int) -> nn.Module:
    batch: Any = nn.BatchNorm2d(channels)
    batch.running_mean.uniform_(-1, 1)
    batch.running_var.uniform_(0.1, 2)
    instance = nn.InstanceNorm2d(channels, affine=True)
    groups = [nn.GroupNorm(1, channels), nn.GroupNorm(channels, channels)]
    result: nn.Module = draw(st.sampled_from([batch, instance, *groups]))
    return result


@st.composite
def pooling(draw: st.DrawFn) -> Any:
    ceil, stride = draw(st.booleans()), draw(st.integers(1, 2))
    wide = nn.AdaptiveMaxPool2d((6, 5)) if draw(st.booleans()) else nn.AdaptiveAvgPool2d((5, 6))
    pool: nn.Module = (
        nn.MaxPool2d((2, 3), stride, padding=1, ceil_mode=ceil)
        if draw(st.booleans())
        else nn.AvgPool2d((3, 2), stride, padding=1, ceil_mode=ceil, count_include_pad=draw(st.booleans()))
    )
    return nn.Sequential(pool, wide) if draw(st.booleans()) else nn.Sequential(wide, pool)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(draw(st.integers(0, 2**20)))
    channels, height, width = draw(st.integers(1, 4)), draw(st.integers(5, 13)), draw(st.integers(5, 13))
    body, out = draw(layers(channels, 7, 6))
    head: list[Any] = [nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.LayerNorm(2 * out), nn.Linear(2 * out, 3)]
    image = torch.randn(draw(st.integers(1, 2)), channels, height, width)
    return Grown([*body, *(head if draw(st.booleans()) else [])]).eval(), image


@settings(max_examples=30)
@given(networks())
def test_networks_built_by_chance_are_proved(case: tuple[nn.Module, Tensor]) -> None:
    assert_proved(*case, cells=30, vanishing=True)


@pytest.mark.study
@settings(max_examples=2000)
@given(networks(), st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16]))
def test_thousands_of_networks_built_by_chance_are_proved(case: tuple[nn.Module, Tensor], dtype: torch.dtype) -> None:
    model, image = case
    model = nn.Sequential(nn.Conv2d(image.shape[1], image.shape[1], 1), model).eval()  # its type is the model's
    assert_proved(model.to(dtype), image.to(dtype), cells=30, vanishing=True)


def weighed(output: Tensor, _target: Tensor) -> Tensor:
    """A weighted mean of all numbers."""
    return (output * torch.linspace(-1, 2, output.numel()).reshape(output.shape)).mean()


def assert_no_gradient_is_wrong(case: tuple[nn.Module, Tensor], *, training: bool) -> None:
    """A training step, its forward pass with batch statistics or without; what PyTorch refuses is left out."""
    model, image = case
    model = nn.Sequential(nn.Conv2d(image.shape[1], image.shape[1], 1), model).train(training)
    try:
        trace = cs.trace(model, image, target=torch.zeros(len(image)), loss=weighed, training=training)
    except cs.errors.ConvscopeError:  # a result that its gradient needs was overwritten in place; one value per channel
        assume(False)
    report = cs.verify(trace, cells=12)
    wrong = [
        (s.name, s.op, s.finding, str(s.mismatch)) for s in report.steps if s.finding not in {"proved", "unresolved"}
    ]
    assert not [step for step in wrong if step[2] in {"mismatch", "wrong derivative"}], wrong
    assert not report.wrong


@settings(max_examples=8, deadline=None)
@given(networks(), st.booleans())
def test_training_steps_of_networks_built_by_chance_have_no_wrong_gradient(
    case: tuple[nn.Module, Tensor], training: bool
) -> None:
    assert_no_gradient_is_wrong(case, training=training)


@pytest.mark.study
@settings(max_examples=300, deadline=None)
@given(networks(), st.booleans())
def test_hundreds_of_training_steps_have_no_wrong_gradient(case: tuple[nn.Module, Tensor], training: bool) -> None:
    assert_no_gradient_is_wrong(case, training=training)
