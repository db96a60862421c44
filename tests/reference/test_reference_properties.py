"""Properties of the reference over generated cases: any sizes, any options, numbers of any magnitude."""

from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_reference import both, check, run

from reference_cases import Case

Draw = st.DrawFn
SMALL = st.integers(1, 3)


def tensor(draw: Draw, *shape: int) -> torch.Tensor:
    """Of one magnitude or of many, with some equal cells and zeros."""
    seed = draw(st.integers(0, 2**32 - 1))
    kind = draw(st.sampled_from(["normal", "wide", "shifted", "whole"]))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if kind == "wide":
        x *= 10.0 ** rng.uniform(-6, 6, size=shape)
    elif kind == "shifted":
        x += 10.0 ** rng.uniform(0, 3)
    elif kind == "whole":
        x = np.round(2 * x)
    return torch.from_numpy(x).float().double()


@st.composite
def convolutions(draw: Draw) -> Case:
    rank = draw(SMALL)
    each = st.lists(SMALL, min_size=rank, max_size=rank)
    groups, transposed = draw(SMALL), draw(st.booleans())
    inputs, outputs = groups * draw(SMALL), groups * draw(SMALL)
    kernel, stride, dilation = draw(each), draw(each), draw(each)
    padding = draw(st.lists(st.integers(0, 3), min_size=rank, max_size=rank))
    sizes = draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        each_axis = zip(sizes, stride, spans, extra, padding, strict=True)
        assume(all((n - 1) * s + span + e > 2 * p for n, s, span, e, p in each_axis))
        shape = (inputs, outputs // groups, *kernel)
    else:
        extra = [0] * rank
        assume(all(n + 2 * p >= span for n, p, span in zip(sizes, padding, spans, strict=True)))
        shape = (outputs, inputs // groups, *kernel)
    x, weight = tensor(draw, draw(SMALL), inputs, *sizes), tensor(draw, *shape)
    bias = tensor(draw, outputs) if draw(st.booleans()) else None
    return Case("convolution.default", (x, weight, bias, stride, padding, dilation, transposed, extra, groups))


@st.composite
def poolings(draw: Draw) -> Case:
    kernel, stride = draw(st.tuples(SMALL, SMALL)), draw(st.tuples(SMALL, SMALL))
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    x = tensor(draw, draw(SMALL), draw(SMALL), draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        dilation = draw(st.tuples(SMALL, SMALL))
        room = zip(x.shape[2:], kernel, padding, dilation, strict=True)
        assume(all(n + 2 * p >= d * (k - 1) + 1 for n, k, p, d in room))
        return Case("max_pool2d_with_indices.default", (x, [*kernel], [*stride], padding, [*dilation], ceil))
    return Case("avg_pool2d.default", (x, [*kernel], [*stride], padding, ceil, draw(st.booleans())))


@st.composite
def resamplings(draw: Draw) -> Case:
    sizes = [draw(st.integers(1, 40)) for _ in range(2)]
    x = tensor(draw, 1, 2, draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    op = draw(
        st.sampled_from(
            ["upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"]
        )
    )
    if "nearest" in op:
        return Case(f"{op}.default", (x, sizes))
    return Case(f"{op}.default", (x, sizes, draw(st.booleans())))


@st.composite
def statistics(draw: Draw) -> Case:
    n, c, size = draw(st.integers(1, 4)), draw(SMALL), draw(st.integers(2, 50))
    x, eps = tensor(draw, n, c, size), draw(st.sampled_from([1e-12, 1e-5, 1e-2]))
    weight, bias = tensor(draw, c), tensor(draw, c)
    kind = draw(st.sampled_from(["batch", "layer", "group", "eval", "var", "norm"]))
    if kind == "batch":
        return Case("native_batch_norm.default", (x, weight, bias, None, None, True, 0.1, eps))
    if kind == "layer":
        return Case("native_layer_norm.default", (x, [c, size], None, None, eps))
    if kind == "group":
        return Case("native_group_norm.default", (x, weight, bias, n, c, size, 1, eps))
    if kind == "eval":
        variance = tensor(draw, c).abs() + 0.01
        return Case("native_batch_norm.default", (x, weight, bias, tensor(draw, c), variance, False, 0.1, eps))
    if kind == "norm":
        return Case("linalg_vector_norm.default", (x, draw(st.sampled_from([1, 2, 3.0])), [0, 2]))
    return Case("var_mean.correction", (x, [0, 2]), {"correction": draw(st.integers(0, 1))})


@st.composite
def shares(draw: Draw) -> Case:
    x = tensor(draw, draw(SMALL), draw(st.integers(1, 60)), draw(SMALL))
    if draw(st.booleans()):
        x = torch.where(x < 0.5, -torch.inf, x)
    op = draw(st.sampled_from(["_softmax", "_log_softmax"]))
    return Case(f"{op}.default", (x, draw(st.integers(-3, 2)), False))


@st.composite
def attentions(draw: Draw) -> Case:
    n, heads, length, keys, size = (draw(st.integers(1, m)) for m in (2, 3, 6, 40, 8))
    scale = draw(st.sampled_from([0.1, 1.0, 4.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q, k, v = (torch.from_numpy(rng.normal(size=(n, heads, rows, size)) * scale) for rows in (length, keys, keys))
    mask = torch.from_numpy(np.where(rng.random((length, keys)) > 0.3, 0.0, -np.inf)) if draw(st.booleans()) else None
    return Case(
        "_scaled_dot_product_flash_attention_for_cpu.default",
        (q, k, v, 0.0, mask is None and draw(st.booleans())),
        {"attn_mask": mask},
    )


@st.composite
def products(draw: Draw) -> Case:
    m, t, n = (draw(st.integers(1, 30)) for _ in range(3))
    return Case("addmm.default", (tensor(draw, n), tensor(draw, m, t), tensor(draw, t, n)))


def agree(case: Case) -> None:
    for dtype, u in ((torch.float64, 2.0**-53), (torch.float32, 2.0**-24)):
        check(run(case, dtype), *both(case, u))


@given(convolutions())
@settings(max_examples=150)
def test_any_convolution(case: Case) -> None:
    agree(case)


@given(poolings())
@settings(max_examples=100)
def test_any_pooling(case: Case) -> None:
    agree(case)


@given(resamplings())
@settings(max_examples=150)
def test_any_resampling(case: Case) -> None:
    agree(case)


@given(statistics())
@settings(max_examples=150)
def test_any_statistics(case: Case) -> None:
    agree(case)


@given(st.one_of(shares(), attentions(), products()))
@settings(max_examples=150)
def test_any_softmax_attention_and_product(case: Case) -> None:
    agree(case)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
def test_unfolded_windows_times_kernels_are_a_convolution(
    h: int, w: int, kernel: int, padding: int, stride: int
) -> None:
    """Two definitions of this room, written apart, meet."""
    from convscope.reference.table import OPERATIONS

    assume(min(h, w) + 2 * padding >= kernel)
    rng = np.random.default_rng(h * 100 + w)
    x, weight = rng.normal(size=(2, 3, h, w)), rng.normal(size=(4, 3, kernel, kernel))
    how: dict[str, Any] = {"padding": [padding] * 2, "stride": [stride] * 2, "dilation": [1, 1]}
    direct = OPERATIONS["convolution"].compute(input=x, weight=weight, bias=None, **how)
    columns = OPERATIONS["im2col"].compute(self=x, kernel_size=[kernel, kernel], **how)
    assert isinstance(direct, np.ndarray)
    assert isinstance(columns, np.ndarray)
    assert np.allclose((weight.reshape(4, -1) @ columns).reshape(direct.shape), direct, rtol=1e-12, atol=1e-12)
