"""Operations for the rules: numbers that move: views and copies, writes, fillings, resampling."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rule_case import Case, Does, call


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
    "index_put of other numbers of the image": lambda x: x.index_put(
        (torch.tensor([1, 0]), torch.tensor([0, 2])), 3 * x[0, 1]
    ),
    "index_put, adding numbers of the image": lambda x: x.index_put(
        (torch.tensor([1, 1]), torch.tensor([0, 0])), 3 * x[0, :2], accumulate=True
    ),
    "index_put by a mask": lambda x: x.index_put((x > 0.2,), x[0, 0, 0] * 2),
    "index_put, adding": lambda x: x.index_put(
        (torch.tensor([1, 1]), torch.tensor([0, 0])), torch.ones(2, 4).to(x), accumulate=True
    ),
    "scatter": lambda x: x.scatter(1, torch.tensor([[[1, 0, 2, 1]], [[0, 0, 2, 2]]]), 0.5),
    "scatter of the image": lambda x: x.scatter(1, torch.tensor([[[1, 0, 2, 1], [0, 1, 1, 2]]]), 2 * x[:1, 1:]),
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
        "_efficientzerotensor": lambda x: x + torch._efficientzerotensor(5).clone(),
        "zeros in place": lambda x: x + x.clone().zero_(),
        "ones": lambda x: x + torch.ones(5),
        "ones_like": lambda x: x + torch.ones_like(x),
        "new_ones": lambda x: x + x.new_ones(5),
        "full": lambda x: x + torch.full((5,), 0.3),
        "full_like": lambda x: x + torch.full_like(x, 0.3),
        "new_full": lambda x: x + x.new_full((5,), 0.3),
        "fill": lambda x: x + x.clone().fill_(0.2),
        "fill with a number of the pass": lambda x: x.clone().fill_(x.sum()),
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
