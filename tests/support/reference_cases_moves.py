"""Calls that move numbers: resampling, views and copies, writing into a tensor."""

from collections.abc import Iterator
from typing import Any

import torch

from reference_cases import Case, normal, odd, whole


def resampling() -> Iterator[dict[str, Case]]:
    x = normal(2, 3, 5, 7)
    for rank, linear, shape in (
        (1, "linear1d", (2, 3, 5)),
        (2, "bilinear2d", (2, 3, 5, 7)),
        (3, "trilinear3d", (1, 2, 3, 4, 5)),
    ):
        y, up, down = normal(*shape), [11, 9, 13][:rank], [2, 3, 4][:rank]
        factors = [1.7, 2.0, 2.5][:rank]
        grown = [int(s * f) for s, f in zip(shape[2:], factors, strict=True)]
        for name in (f"upsample_nearest{rank}d", f"_upsample_nearest_exact{rank}d"):
            yield {
                f"{name} up": Case(f"{name}.default", (y, up)),
                f"{name} down": Case(f"{name}.default", (y, down)),
                f"{name} scales": Case(f"{name}.default", (y, grown, *factors)),
                f"{name} vec": Case(f"{name}.vec", (y, None, factors)),
            }
        yield {
            f"{linear} up": Case(f"upsample_{linear}.default", (y, up, False)),
            f"{linear} corners": Case(f"upsample_{linear}.default", (y, up, True)),
            f"{linear} down": Case(f"upsample_{linear}.default", (y, down, False)),
            f"{linear} vec": Case(f"upsample_{linear}.vec", (y, None, False, factors)),
        }
        border = [2, 1, 1, 2, 0, 1][: 2 * rank]
        yield {
            f"reflection_pad{rank}d": Case(f"reflection_pad{rank}d.default", (y, border)),
            f"replication_pad{rank}d": Case(f"replication_pad{rank}d.default", (y, border)),
            f"circular {rank}": Case("_pad_circular.default", (y, border)),
        }
    yield {
        "bicubic up": Case("upsample_bicubic2d.default", (x, [13, 9], False)),
        "bicubic corners": Case("upsample_bicubic2d.default", (x, [9, 11], True)),
        "bicubic down": Case("upsample_bicubic2d.default", (x, [2, 3], False)),
        "bicubic scales": Case("upsample_bicubic2d.vec", (x, None, False, [1.7, 2.5])),
        "constant_pad_nd": Case("constant_pad_nd.default", (x, [1, 2, 0, 3], 0.1)),
        "constant_pad_nd cutting": Case("constant_pad_nd.default", (x, [-1, 2, 1, -2])),
        "im2col": Case("im2col.default", (normal(2, 3, 8, 9), [2, 3], [2, 1], [1, 0], [2, 3])),
        "col2im": Case("col2im.default", (normal(2, 18, 35), [6, 7], [2, 3], [1, 1], [0, 1], [1, 1])),
        "col2im apart": Case("col2im.default", (normal(2, 12, 6), [4, 6], [2, 2], [1, 1], [0, 0], [2, 2])),
        "unfold": Case("unfold.default", (x, 2, 3, 2)),
    }


def moves() -> Iterator[dict[str, Case]]:
    x = normal(4, 6, 5)
    y = normal(2, 8, 6, 9)
    calls: dict[str, tuple[Any, ...]] = {
        "clone.default": (x,), "detach.default": (x,), "alias.default": (x,), "contiguous.default": (x.mT,),
        "lift.default": (x,), "lift_fresh.default": (x,), "copy.default": (x, normal(6, 1)),
        "view.default": (x, [3, -1, 4]), "_unsafe_view.default": (x, [24, 5]),
        "_reshape_alias.default": (x, [8, 15], [15, 1]), "reshape.default": (x.mT, [-1, 8]),
        "flatten.using_ints": (y, 1, 2), "unflatten.int": (y, 1, [2, -1]), "squeeze.default": (normal(1, 3, 1),),
        "squeeze.dim": (normal(1, 3, 1), 2), "squeeze.dims": (normal(1, 3, 1), [0, 1]), "unsqueeze.default": (x, -1),
        "transpose.int": (x, 0, -1), "t.default": (x[0],), "permute.default": (x, [2, 0, 1]),
        "movedim.int": (y, 1, -1), "expand.default": (normal(1, 3, 1), [2, 5, -1, 4]),
        "expand_as.default": (normal(6, 1), x), "repeat.default": (x, [2, 1, 3, 1]), "tile.default": (x, [2, 3]),
        "repeat_interleave.self_int": (x, 2, 1), "cat.default": ([x, normal(4, 2, 5)], 1),
        "stack.default": ([x, x + 1, x], -1), "split.Tensor": (x, 4, 1), "unsafe_split.Tensor": (x, 2, 0),
        "split_with_sizes.default": (x, [1, 3, 2], 1), "unsafe_split_with_sizes.default": (x, [1, 3], 0),
        "chunk.default": (x, 4, 1), "unsafe_chunk.default": (x, 2, 2), "unbind.int": (x, 1),
        "slice.Tensor": (x, 1, -5, 9223372036854775807, 2), "narrow.default": (x, 1, 2, 3), "select.int": (x, -1, -2),
        "roll.default": (x, [2, -1], [1, 2]), "flip.default": (x, [0, 2]), "diagonal.default": (x, 1, 1, 2),
        "tril.default": (x, -1), "triu.default": (x, 1), "as_strided.default": (x, [3, 2, 2], [10, 2, 3], 4),
        "pixel_shuffle.default": (y, 2), "pixel_unshuffle.default": (y, 3), "channel_shuffle.default": (y, 4),
        "native_channel_shuffle.default": (y, 2), "rot90.default": (x, 1, [2, 0]), "repeat_interleave.Tensor":
        (torch.tensor([2, 0, 3]),), "alias_copy.default": (x,), "detach_copy.default": (x,),
        "view_copy.default": (x, [8, -1]), "squeeze_copy.default": (normal(1, 3, 1),), "unsqueeze_copy.default": (x, 1),
        "transpose_copy.int": (x, 0, -1), "t_copy.default": (x[0],), "permute_copy.default": (x, [2, 0, 1]),
        "expand_copy.default": (normal(1, 3, 1), [2, 5, -1, 4]), "split_copy.Tensor": (x, 4, 1),
        "split_with_sizes_copy.default": (x, [1, 3, 2], 1), "unbind_copy.int": (x, 1),
        "narrow_copy.default": (x, 1, 2, 3), "select_copy.int": (x, -1, -2), "diagonal_copy.default": (x, 1, 1, 2),
        "as_strided_copy.default": (x, [3, 2, 2], [10, 2, 3], 4), "unfold_copy.default": (x, 2, 3, 2),
        "take.default": (x, torch.tensor([[3, -1], [0, 17]])), "masked_select.default": (x, normal(6, 1) > 0),
    }  # fmt: skip
    yield {f"move {op}": Case(op, args) for op, args in calls.items()}
    yield {
        "rot90 twice": Case("rot90.default", (x, 2, [0, 1])),
        "rot90 back": Case("rot90.default", (x, -1, [1, 2])),
        "roll flat": Case("roll.default", (x, [7])),
        "_to_copy": Case("_to_copy.default", (3 * x,), {"dtype": torch.int64}),
        "_to_copy bfloat16": Case("_to_copy.default", (x,), {"dtype": torch.bfloat16}),
        "_to_copy float16": Case("_to_copy.default", (x,), {"dtype": torch.float16}),
        "move slice_copy": Case("slice_copy.Tensor", (x, 1, 1)),
    }


def written() -> Iterator[dict[str, Case]]:
    x, at, twice = normal(4, 5, 6), torch.tensor([3, 0]), torch.tensor([1, 4, 1])
    n = whole(4, 5, 6)
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        sent = normal(4, 3, 6) if reduce != "amax" else odd(4, 3, 6)
        for own in (True, False):
            yield {
                f"scatter_reduce {reduce} {own}": Case(
                    "scatter_reduce.two", (x, 1, whole(3, 3, 5, high=5), sent, reduce), {"include_self": own}
                )
            }
        if reduce != "sum":
            yield {
                f"index_reduce {reduce}": Case("index_reduce.default", (x, 1, twice, sent, reduce)),
                f"index_reduce {reduce} alone": Case(
                    "index_reduce.default", (x, 1, twice, sent, reduce), {"include_self": False}
                ),
            }
    yield {
        "scatter_reduce whole": Case("scatter_reduce.two", (n, 2, whole(4, 5, 3, high=6), n, "amax")),
        "index_add": Case("index_add.default", (x, 1, twice, normal(4, 3, 6))),
        "index_add scaled": Case("index_add.default", (x, 0, torch.tensor([3, 3]), normal(2, 5, 6)), {"alpha": -0.3}),
        "index_add whole": Case("index_add.default", (n, 1, twice, whole(4, 3, 6))),
        "index_copy": Case("index_copy.default", (x, 0, at, normal(2, 5, 6))),
        "index_fill": Case("index_fill.int_Scalar", (x, 2, at, 0.3)),
        "index_fill by a tensor": Case("index_fill.int_Tensor", (x, 1, at, torch.tensor(0.5))),
        "put": Case("put.default", (x, torch.tensor([[3, -1], [9, 3]]), normal(2, 2))),
        "put adding": Case("put.default", (x, torch.tensor([3, -1, 3]), normal(3), True)),
        "masked_scatter": Case("masked_scatter.default", (x, whole(5, 6, high=2).bool(), normal(9, 20))),
        "diagonal_scatter": Case("diagonal_scatter.default", (x, normal(5, 4), 1, 0, -1)),
        "diagonal_scatter below": Case("diagonal_scatter.default", (x, normal(4, 4), -1, 1, 2)),
        "as_strided_scatter": Case("as_strided_scatter.default", (x, normal(2, 3), [2, 3], [17, 2], 5)),
        "diag_embed": Case("diag_embed.default", (normal(3, 4), -2, 0, 2)),
        "diag_embed above": Case("diag_embed.default", (n[0], 1)),
        "block_diag": Case("block_diag.default", ([normal(2, 3), normal(4), normal(3, 1)],)),
    }
