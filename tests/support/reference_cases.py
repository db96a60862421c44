"""Calls of ATen operations, for comparison with the reference: sizes all different, options one by one, odd numbers.

A case is what PyTorch would be called with. Floating tensors hold numbers that float32 has too, so that every case
can run in both types.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

Tensor = torch.Tensor


@dataclass(frozen=True)
class Case:
    op: str
    """ATen name with overload: `convolution.default`."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    single: tuple[int, ...] = ()
    """The arguments that kernels take in float32 alone."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", tuple(map(_float32, self.args)))


def _float32(value: Any) -> Any:
    """`value` with the numbers that float32 has too."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float().double()
    return [_float32(v) for v in value] if isinstance(value, list) else value


_random = torch.Generator().manual_seed(3)


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return (torch.randn(*shape, generator=_random) * scale + shift).double()


def positive(*shape: int) -> Tensor:
    return (torch.rand(*shape, generator=_random) + 0.1).double()


def whole(*shape: int, high: int = 9) -> Tensor:
    return torch.randint(0, high, shape, generator=_random)


def odd(*shape: int) -> Tensor:
    """With NaN, both infinities, equal cells and both zeros among them."""
    x = normal(*shape)
    flat = x.view(-1)
    flat[1], flat[4], flat[6], flat[8:11], flat[12], flat[13] = torch.nan, torch.inf, -torch.inf, 0.25, 0.0, -0.0
    return x


def spread(*shape: int) -> Tensor:
    """From tiny to far out, both signs: where functions saturate, overflow or turn."""
    steps = torch.linspace(-1, 1, int(torch.tensor(shape).prod()), dtype=torch.float32)
    return (steps**3 * 30).double().view(*shape)


def _each(op: str, calls: dict[str, tuple[Any, ...] | Case]) -> dict[str, Case]:
    name = op.split(".", maxsplit=1)[0]
    return {f"{name} {k}": c if isinstance(c, Case) else Case(op, c) for k, c in calls.items()}


def _convolutions() -> Iterator[dict[str, Case]]:
    x, w, b = normal(2, 6, 9, 11), normal(4, 6, 2, 3), normal(4)
    t = normal(6, 4, 2, 3)
    yield _each("convolution.default", {
        "plain": (x, w, b, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        "no bias": (x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        "stride, padding": (x, w, b, [2, 3], [1, 2], [1, 1], False, [0, 0], 1),
        "dilation": (x, w, b, [1, 2], [2, 1], [3, 2], False, [0, 0], 1),
        "groups": (x, normal(4, 3, 2, 3), b, [1, 1], [1, 0], [1, 1], False, [0, 0], 2),
        "depthwise": (x, normal(12, 1, 2, 3), normal(12), [1, 1], [1, 1], [1, 1], False, [0, 0], 6),
        "1x1": (x, normal(5, 6, 1, 1), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        "1-d": (normal(2, 3, 13), normal(5, 3, 4), normal(5), [2], [1], [3], False, [0], 1),
        "3-d": (
            normal(2, 3, 5, 6, 7), normal(4, 3, 2, 3, 1), normal(4), [1, 2, 3], [1, 0, 2], [1, 1, 2], False, [0] * 3, 1
        ),
        "transposed": (x, t, b, [1, 1], [0, 0], [1, 1], True, [0, 0], 1),
        "transposed, stride": (x, t, b, [2, 3], [1, 0], [1, 1], True, [1, 2], 1),
        "transposed, dilation": (x, t, None, [3, 2], [1, 2], [2, 3], True, [2, 0], 1),
        "transposed, groups": (x, normal(6, 2, 2, 3), b, [2, 2], [0, 1], [1, 1], True, [0, 1], 2),
        "transposed 1-d": (normal(2, 3, 7), normal(3, 5, 4), normal(5), [2], [1], [1], True, [1], 1),
        "transposed 3-d": (
            normal(1, 3, 3, 4, 5), normal(3, 2, 2, 3, 1), None, [1, 2, 2], [0, 1, 0], [1] * 3, True, [0, 1, 0], 1
        ),
        "many rows": (normal(1, 40, 70, 64), normal(3, 40, 3, 3), normal(3), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    })  # fmt: skip
    yield {
        "_convolution": Case(
            "_convolution.default", (x, w, b, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, True, True)
        ),
        "conv1d": Case("conv1d.default", (normal(2, 3, 13), normal(5, 3, 4), normal(5), [2], [1])),
        "conv2d same": Case("conv2d.padding", (x, normal(4, 6, 4, 3), b, [1, 1], "same")),
        "conv2d valid": Case("conv2d.padding", (x, w, b, [2, 1], "valid")),
        "conv2d": Case("conv2d.default", (x, w, b, [2], [1])),
        "conv3d": Case("conv3d.default", (normal(1, 2, 4, 5, 6), normal(3, 2, 2, 2, 2))),
        "conv_transpose1d": Case(
            "conv_transpose1d.default", (normal(1, 3, 7), normal(3, 2, 3), None, [2], [1], [1], 1, [2])
        ),
        "conv_transpose2d": Case("conv_transpose2d.input", (x, t, b, [2, 3], [1, 0], [1, 0])),
        "conv_transpose3d": Case("conv_transpose3d.input", (normal(1, 2, 2, 3, 4), normal(2, 3, 2, 2, 2))),
    }  # fmt: skip


def _products() -> Iterator[dict[str, Case]]:
    a, b, c = normal(3, 7), normal(7, 5), normal(5)
    yield {
        "linear": Case("linear.default", (normal(2, 3, 7), normal(5, 7), c)),
        "mm": Case("mm.default", (a, b)),
        "bmm": Case("bmm.default", (normal(2, 3, 7), normal(2, 7, 5))),
        "mv": Case("mv.default", (a, normal(7))),
        "dot": Case("dot.default", (normal(70), normal(70))),
        "matmul": Case("matmul.default", (normal(2, 1, 3, 7), normal(4, 7, 5))),
        "addmm": Case("addmm.default", (c, a, b)),
        "addmm scaled": Case("addmm.default", (c, a, b), {"beta": 0.3, "alpha": -1.7}),
        "addmm beta 0": Case("addmm.default", (torch.full((5,), torch.nan).double(), a, b), {"beta": 0}),
        "addmv": Case("addmv.default", (normal(3), a, normal(7)), {"alpha": 0.1}),
        "baddbmm": Case(
            "baddbmm.default", (normal(2, 3, 5), normal(2, 3, 7), normal(2, 7, 5)), {"beta": 0, "alpha": 0.35}
        ),
    }  # fmt: skip


def _attention() -> Iterator[dict[str, Case]]:
    q, k, v = normal(2, 3, 5, 8), normal(2, 3, 7, 8), normal(2, 3, 7, 8)
    flash = "_scaled_dot_product_flash_attention_for_cpu.default"
    mask = torch.zeros(5, 7).double().masked_fill(torch.rand(5, 7, generator=_random) > 0.7, -torch.inf)
    yield _each(flash, {
        "plain": (q, k, v),
        "large scores": (5 * q, 5 * k, v),
        "causal": (q, k, v, 0.0, True),
        "mask": Case(flash, (q, k, v), {"attn_mask": mask, "scale": 0.7}),
        "many keys": (normal(1, 2, 40, 16), normal(1, 2, 1100, 16), normal(1, 2, 1100, 16)),
    })  # fmt: skip
    seen = torch.rand(5, 7, generator=_random) > 0.4
    yield {
        "attention bool": Case("scaled_dot_product_attention.default", (q, k, v, seen)),
        "attention causal": Case("scaled_dot_product_attention.default", (q, k, v), {"is_causal": True}),
        "attention 3-d": Case("scaled_dot_product_attention.default", (q[0], k[0], v[0]), {"scale": 0.2}),
        "attention, grouped": Case(
            "scaled_dot_product_attention.default", (normal(1, 4, 5, 8), normal(1, 2, 6, 8), normal(1, 2, 6, 8)),
            {"enable_gqa": True},
        ),
    }  # fmt: skip


def _normalizations() -> Iterator[dict[str, Case]]:
    x, w, b, m, v = normal(3, 4, 5, 6, scale=2.0, shift=1.0), normal(4), normal(4), normal(4), positive(4)
    yield _each("native_batch_norm.default", {
        "eval": (x, w, b, m, v, False, 0.1, 1e-5),
        "eval, bare": (x, None, None, m, v, False, 0.1, 1e-3),
        "train": (x, w, b, None, None, True, 0.1, 1e-5),
        "train, far from 0": (x + 100, w, b, None, None, True, 0.1, 1e-5),
        "train, constant": (torch.full((2, 4, 3), 0.1).double(), w, b, None, None, True, 0.1, 1e-5),
        "train 3-d": (normal(2, 4, 3, 5, 2), w, b, None, None, True, 0.1, 1e-5),
        "train, channels last": (x.to(memory_format=torch.channels_last), w, b, None, None, True, 0.1, 1e-5),
    })  # fmt: skip
    last = normal(2, 5, 7, shift=3.0)
    yield {
        "_native_batch_norm_legit": Case("_native_batch_norm_legit.no_stats", (x, w, b, True, 0.1, 1e-5)),
        "_native_batch_norm_legit_no_training": Case(
            "_native_batch_norm_legit_no_training.default", (x, w, b, m, v, 0.1, 1e-5)
        ),
        "batch_norm": Case("batch_norm.default", (x, w, b, m, v, False, 0.1, 1e-5, True)),
        "layer norm": Case("native_layer_norm.default", (last, [7], normal(7), normal(7), 1e-5)),
        "layer norm 2 axes": Case("native_layer_norm.default", (last, [5, 7], None, None, 1e-6)),
        "layer norm, far from 0": Case("native_layer_norm.default", (last + 300, [7], normal(7), normal(7), 1e-5)),
        "layer_norm": Case("layer_norm.default", (last, [7], normal(7), None, 1e-5)),
        "group norm": Case("native_group_norm.default", (x, w, b, 3, 4, 30, 2, 1e-5)),
        "group norm of 1": Case("native_group_norm.default", (x, None, None, 3, 4, 30, 1, 1e-5)),
        "group norm, channels last": Case(
            "native_group_norm.default", ((x + 20).to(memory_format=torch.channels_last), w, b, 3, 4, 30, 2, 1e-5)
        ),
        "group_norm": Case("group_norm.default", (x, 2, w, b, 1e-4)),
        "_fused_rms_norm": Case("_fused_rms_norm.default", (last, [7], normal(7), 1e-6)),
        "rms_norm": Case("rms_norm.default", (last, [5, 7], None, 1e-5)),
    }  # fmt: skip
    for order in (2, 1, 0, 3, float("inf"), float("-inf"), 2.5):
        yield {
            f"linalg_vector_norm {order}": Case("linalg_vector_norm.default", (normal(3, 8, 9), order, [0, 2], True))
        }
    yield {"linalg_vector_norm all": Case("linalg_vector_norm.default", (normal(3, 8),))}


def _poolings() -> Iterator[dict[str, Case]]:
    x, equal = normal(2, 3, 9, 12), whole(2, 3, 9, 12, high=3).double()
    strange = odd(2, 3, 9, 12)
    yield _each("max_pool2d_with_indices.default", {
        "plain": (x, [2, 3]),
        "overlap": (x, [3, 4], [1, 2], [1, 2]),
        "dilation": (x, [2, 3], [2, 1], [0, 1], [3, 2]),
        "ceil": (x, [2, 5], [2, 3], [1, 0], [1, 1], True),
        "ceil, short": (x, [2, 2], [3, 5], [0, 0], [1, 1], True),
        "equal cells": (equal, [3, 3], [2, 2], [1, 1]),
        "odd numbers": (strange, [2, 3], [1, 2], [1, 1]),
        "only minus infinity": (torch.full((1, 1, 4, 5), -torch.inf).double(), [2, 3], [2, 2], [1, 1]),
        "integers": (whole(2, 3, 7, 8) - 20, [2, 3], [2, 2], [1, 0]),
        "one image": (x[0], [2, 2]),
    })  # fmt: skip
    y, z = normal(2, 3, 13), normal(1, 2, 5, 6, 7)
    yield {
        "max_pool3d_with_indices": Case("max_pool3d_with_indices.default", (z, [2, 3, 2], [1, 2, 3], [1, 0, 1])),
        "max_pool1d_with_indices": Case("max_pool1d_with_indices.default", (y, [3], [2], [1])),
        "max_pool1d": Case("max_pool1d.default", (y, [3], [2], [1])),
        "max_pool2d": Case("max_pool2d.default", (x, [3, 2], [2, 2], [1, 0], [1, 1], True)),
        "max_pool3d": Case("max_pool3d.default", (z, [2, 3, 2])),
    }
    yield _each("avg_pool2d.default", {
        "plain": (x, [2, 3]),
        "padding": (x, [3, 4], [1, 2], [1, 2]),
        "padding not counted": (x, [3, 4], [1, 2], [1, 2], False, False),
        "ceil": (x, [2, 5], [2, 3], [1, 2], True, True),
        "ceil, not counted": (x, [4, 5], [3, 4], [1, 2], True, False),
        "divisor": (x, [2, 3], [2, 2], [1, 0], False, True, 7),
        "larger than the input": (normal(1, 2, 3, 4), [9, 8], [9, 8], [3, 2], True),
        "odd numbers": (strange, [2, 3]),
    })  # fmt: skip
    yield {
        "avg_pool1d": Case("avg_pool1d.default", (y, [3], [2], [1])),
        "avg_pool3d": Case("avg_pool3d.default", (z, [2, 3, 2], [1, 2, 3], [1, 0, 1], False, False)),
        "_adaptive_avg_pool2d": Case("_adaptive_avg_pool2d.default", (x, [4, 5])),
        "_adaptive_avg_pool2d to 1": Case("_adaptive_avg_pool2d.default", (x, [1, 1])),
        "_adaptive_avg_pool2d larger": Case("_adaptive_avg_pool2d.default", (x[0], [11, 5])),
        "_adaptive_avg_pool3d": Case("_adaptive_avg_pool3d.default", (z, [2, 4, 3])),
        "adaptive_avg_pool1d": Case("adaptive_avg_pool1d.default", (y, [5])),
        "adaptive_avg_pool2d": Case("adaptive_avg_pool2d.default", (x, [7, 2])),
        "adaptive_avg_pool3d": Case("adaptive_avg_pool3d.default", (z, [2, 4, 3])),
        "adaptive_max_pool1d": Case("adaptive_max_pool1d.default", (y, [5])),
        "adaptive_max_pool2d": Case("adaptive_max_pool2d.default", (equal, [4, 5])),
        "adaptive_max_pool2d odd": Case("adaptive_max_pool2d.default", (strange, [4, 5])),
        "adaptive_max_pool3d": Case("adaptive_max_pool3d.default", (z, [2, 4, 3])),
        "max_unpool2d": Case(
            "max_unpool2d.default",
            (normal(2, 1, 2, 3), torch.tensor([0, 6, 3, 19, 10, 8]).expand(2, 1, 6).reshape(2, 1, 2, 3), [4, 5]),
        ),
        "max_unpool3d": Case(
            "max_unpool3d.default",
            (normal(2, 1, 2, 1, 1), torch.tensor([[[[[7]], [[2]]]]] * 2), [2, 3, 2], [2, 3, 2], [0, 0, 0]),
        ),
    }


def cases() -> dict[str, Case]:
    from reference_cases_backward import backward
    from reference_cases_layers import layers
    from reference_cases_pointwise import more

    result: dict[str, Case] = {}
    for family in (_convolutions, _products, _attention, _normalizations, _poolings, *more(), *layers(), backward):
        for some in family():
            assert not result.keys() & some.keys()
            result |= some
    return result


CASES = {name: case for name, case in cases().items() if hasattr(torch.ops.aten, case.op.partition(".")[0])}
