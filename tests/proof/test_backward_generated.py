"""Training steps through one layer with settings drawn by chance: every gradient is proved, arithmetic and derivative.

PyTorch's own autograd makes the gradients; the definitions and rules recompute them, and compare them with the
derivative of the forward step. A planted mistake turns each red.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.proof.verification_report import Verification

Layer = Callable[..., Tensor]
FINDINGS = {"proved", "unresolved", "given"}
"""Unresolved are samples so near a border that all of them are close to 0."""


class Through(nn.Module):
    """A function of parameters, so that each of them gets a gradient."""

    def __init__(self, layer: Layer, *tensors: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.tensors = nn.ParameterList(nn.Parameter(tensor) for tensor in tensors)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(*self.tensors).flatten()[None] * x


def weighed(output: Tensor, _target: Tensor) -> Tensor:
    """A weighted sum: each number of the output has another gradient."""
    return (output * torch.linspace(-1, 2, output.numel(), dtype=output.dtype)).sum()


def stepped(layer: Layer, *tensors: Tensor) -> cs.Trace:
    image = torch.ones(1, 1, dtype=tensors[0].dtype)
    return cs.trace(Through(layer, *tensors), image, target=torch.zeros(1), loss=weighed)


def assert_proved(layer: Layer, *tensors: Tensor) -> Verification:
    report = cs.verify(stepped(layer, *tensors), cells=30)
    left = [(s.name, s.op, s.finding, str(s.mismatch)) for s in report.steps if s.finding not in FINDINGS]
    assert not left, left
    return report


def drawn(draw: st.DrawFn) -> Callable[..., Tensor]:
    """Random numbers of one type, and of a seed that hypothesis shows."""
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    return lambda *shape: torch.randn(shape, generator=generator).to(dtype)


@st.composite
def grids(draw: st.DrawFn) -> tuple[Layer, Tensor, Tensor]:
    """A sampled image or volume: at any positions, at its own cells, or at quarters of cells."""
    normal = drawn(draw)
    axes = draw(st.integers(2, 3))
    images, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    sizes, out = ([draw(st.integers(1, 6)) for _ in range(axes)] for _ in range(2))
    modes = ("bilinear", "nearest", "bicubic") if axes == 2 else ("bilinear", "nearest")
    align = draw(st.booleans())
    how: dict[str, Any] = {"mode": draw(st.sampled_from(modes)), "align_corners": align}
    how["padding_mode"] = draw(st.sampled_from(("zeros", "border", "reflection")))
    kind = draw(st.sampled_from(("any", "own cells", "quarters")))
    x, grid = normal(images, channels, *sizes), normal(images, *out, axes)
    if kind == "own cells" and min(sizes) > 1:
        theta = torch.eye(axes, axes + 1, dtype=x.dtype).expand(images, -1, -1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=align)
    elif kind == "quarters":
        grid = (grid * 4).round() / 4
    return lambda x, grid: F.grid_sample(x, grid, **how), x, grid


@settings(max_examples=20, deadline=None)
@given(grids())
def test_any_sampling_has_proved_gradients(case: tuple[Any, ...]) -> None:
    assert_proved(*case)


@pytest.mark.parametrize("align", [False, True])
def test_the_gradient_of_a_grid_at_its_own_cells_is_proved(*, align: bool) -> None:
    """As a spatial transformer begins: every position is the middle of a cell, where the slope jumps."""
    for size in range(2, 20, 3):
        x = torch.randn(1, 2, size, size + 1, generator=torch.Generator().manual_seed(size))
        theta = torch.eye(2, 3).expand(1, 2, 3)
        assert_proved(
            lambda x, theta: F.grid_sample(
                x, F.affine_grid(theta, list(x.shape), align_corners=align), align_corners=align
            ),
            x,
            theta,
        )


@st.composite
def rows(draw: st.DrawFn) -> tuple[Any, ...]:
    """Distances of rows, some of which are equal, in any norm and of tensors that are broadcast."""
    normal = drawn(draw)
    p = draw(st.sampled_from([0.0, 0.5, 1.0, 1.3, 2.0, 3.0, float("inf")]))
    width, count, others = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    if draw(st.booleans()):
        x = normal(max(count, 2), width)
        return lambda x: F.pdist(x, p), x
    x, y = normal(draw(st.integers(1, 2)), count, width), normal(others, width)
    if draw(st.booleans()):
        y[0] = x[0, 0]
    return lambda x, y: torch.cdist(x, y, p), x, y


@settings(max_examples=20, deadline=None)
@given(rows())
def test_any_distances_have_proved_gradients(case: tuple[Any, ...]) -> None:
    assert_proved(*case)


@st.composite
def bags(draw: st.DrawFn) -> tuple[Any, ...]:
    """Bags of embeddings, some empty, with rows that are repeated."""
    normal = drawn(draw)
    rows, count, lengths = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 4)),
        draw(st.lists(st.integers(0, 3), min_size=1)),
    )
    indices = torch.tensor([draw(st.integers(0, rows - 1)) for _ in range(sum(lengths))], dtype=torch.int64)
    how: dict[str, Any] = {"mode": draw(st.sampled_from(("sum", "mean", "max")))}
    how["offsets"] = torch.tensor([sum(lengths[:k]) for k in range(len(lengths))])
    how["padding_idx"] = draw(st.sampled_from((None, 0)))
    if how["mode"] == "sum" and draw(st.booleans()):
        return (
            lambda table, scales: F.embedding_bag(indices, table, per_sample_weights=scales, **how),
            normal(rows, count),
            normal(len(indices)),
        )
    return lambda table: F.embedding_bag(indices, table, **how), normal(rows, count)


@settings(max_examples=20, deadline=None)
@given(bags())
def test_any_bags_have_proved_gradients(case: tuple[Any, ...]) -> None:
    assert_proved(*case)


@st.composite
def selections(draw: st.DrawFn) -> tuple[Layer, Tensor]:
    """Windows at random places, segments, masks and limits."""
    normal = drawn(draw)
    kind = draw(st.sampled_from(("windows", "segments", "mask", "logit", "cross", "xlog1py")))
    axes = draw(st.integers(2, 3))
    x = normal(draw(st.integers(1, 2)), 2, *(draw(st.integers(4, 7)) for _ in range(axes)))
    if kind == "windows":
        size, out = draw(st.integers(1, 2)), [draw(st.integers(1, 2)) for _ in range(axes)]
        draws = normal(*x.shape[:2], axes).sigmoid()
        pool = F.fractional_max_pool2d if axes == 2 else F.fractional_max_pool3d
        return lambda x: pool(x, size, out, _random_samples=draws), x
    if kind == "segments":
        reduce = draw(st.sampled_from(("sum", "mean", "max", "min", "prod")))
        lengths = torch.tensor([1, len(x[0, 0]) - 1])
        return lambda x: torch.segment_reduce(x[0, 0], reduce, lengths=lengths), x
    if kind == "mask":
        mask = normal(*x.shape) > 0
        return lambda x: torch.zeros_like(x).masked_scatter(mask, x), x
    if kind == "cross":
        return lambda x: torch.linalg.cross(x.flatten()[:6].view(3, 2), x.flatten()[6:9].view(3, 1), dim=0), x
    if kind == "xlog1py":
        return lambda x: torch.special.xlog1py(x, x.flip(-1).abs()), x
    eps = draw(st.sampled_from((None, 0.1, 0.3)))
    return lambda x: torch.logit(x.sigmoid(), eps=eps), x


@settings(max_examples=25, deadline=None)
@given(selections())
def test_any_selection_has_proved_gradients(case: tuple[Any, ...]) -> None:
    assert_proved(*case)
