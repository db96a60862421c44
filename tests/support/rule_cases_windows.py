"""Operations for the rules: convolution, products, pooling, normalization, attention."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rule_case import IMAGE, Case, call, layer


class SelfAttention(nn.Module):
    """Attention of a tensor to itself, which takes the fused path."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention, self.options = nn.MultiheadAttention(12, 4, batch_first=True), options

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, **self.options)


CONVOLUTION: Mapping[str, Case] = {
    "convolution": layer(lambda: nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2))),
    "convolution in groups": layer(lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (1, 4, 7, 9)),
    "depthwise convolution": layer(lambda: nn.Conv2d(6, 6, (3, 2), groups=6, bias=False), (1, 6, 7, 9)),
    "convolution of the same size": layer(lambda: nn.Conv2d(3, 5, (3, 5), padding="same"), (1, 3, 6, 7)),
    "unbatched convolution": layer(lambda: nn.Conv2d(3, 4, 3), (3, 8, 9)),
    "1-d convolution": layer(lambda: nn.Conv1d(3, 5, 4, padding=2, stride=2), (2, 3, 13)),
    "3-d convolution": layer(lambda: nn.Conv3d(2, 3, (2, 3, 2), padding=1), (1, 2, 5, 6, 7)),
    "transposed convolution": layer(
        lambda: nn.ConvTranspose2d(4, 6, (3, 4), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)), (2, 4, 5, 6)
    ),
    "transposed in groups": layer(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2), (1, 4, 5, 6)),
    "transposed 1-d": layer(lambda: nn.ConvTranspose1d(3, 5, 4, stride=3), (2, 3, 6)),
    "reflected": layer(lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (1, 3, 6, 7)),
    "replicated": layer(lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), (1, 3, 6, 7)),
    "circular": layer(lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"), (1, 3, 6, 7)),
}
LINEAR: Mapping[str, Case] = {
    "linear": layer(lambda: nn.Linear(17, 5), (3, 17)),
    "linear without bias": layer(lambda: nn.Linear(17, 5, bias=False), (2, 3, 17)),
    "bmm": call(torch.matmul, (3, 4, 5), (3, 5, 2)),
    "mv": call(torch.mv, (4, 5), (5,)),
    "dot": call(torch.dot, (7,), (7,)),
    "baddbmm": call(partial(torch.baddbmm, beta=0.5, alpha=2), (3, 4, 2), (3, 4, 5), (3, 5, 2)),
    "addmm": call(partial(torch.addmm, beta=0, alpha=0.3), (4, 2), (4, 5), (5, 2)),
    "addmv": call(torch.addmv, (4,), (4, 5), (5,)),
    "a matrix times itself": call(lambda x: x @ x.mT, (4, 4)),
}
POOLING: Mapping[str, Case] = {
    "max pooling": call(
        lambda x: F.max_pool2d(x, (3, 2), (2, 3), padding=(1, 1), dilation=(1, 2), ceil_mode=True), IMAGE
    ),
    "max pooling, 1-d": call(lambda x: F.max_pool1d(x, 2), (2, 3, 9)),
    "max pooling, 3-d": call(lambda x: F.max_pool3d(x, 2, 1), (1, 3, 5, 6, 7)),
    "average pooling": call(lambda x: F.avg_pool2d(x, (3, 2), (2, 3), padding=(1, 1), ceil_mode=True), IMAGE),
    "average without padding": call(
        lambda x: F.avg_pool2d(x, (3, 2), (2, 3), padding=(1, 1), ceil_mode=True, count_include_pad=False), IMAGE
    ),
    "average by a divisor": call(lambda x: F.avg_pool2d(x, 3, divisor_override=4, padding=1), IMAGE),
    "average pooling, 3-d": call(lambda x: F.avg_pool3d(x, 2, 1, padding=1), (1, 3, 5, 6, 7)),
    "adaptive average": call(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (2, 3, 7, 9)),
    "adaptive average, 3-d": call(lambda x: F.adaptive_avg_pool3d(x, (2, 3, 4)), (2, 3, 7, 5, 6)),
    "adaptive maximum": call(lambda x: F.adaptive_max_pool2d(x, (3, 4)), (2, 3, 7, 9)),
    "adaptive maximum, 3-d": call(lambda x: F.adaptive_max_pool3d(x, 3), (2, 3, 7, 6, 5)),
    "unpooling": call(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), [2, 2]), (1, 2, 6, 8)),
    "unpooling, 3-d": call(
        lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), [2, 2, 2]), (1, 2, 4, 6, 8)
    ),
}
NORMALIZATION: Mapping[str, Case] = {
    "batch norm": layer(lambda: nn.BatchNorm2d(3)),
    "batch norm in training": layer(lambda: nn.BatchNorm2d(3), training=True),
    "batch norm, 1-d, in training": layer(lambda: nn.BatchNorm1d(5), (7, 5), training=True),
    "batch norm by this batch": call(
        lambda x: torch.ops.aten._native_batch_norm_legit.no_stats(x, None, None, True, 0.1, 1e-5), IMAGE, slopes=False
    ),
    "batch norm without training": call(
        lambda x: torch.ops.aten._native_batch_norm_legit_no_training(
            x, None, None, x.mean((0, 2, 3)), x.var((0, 2, 3)), 0.1, 1e-5
        ),
        IMAGE,
        slopes=False,
    ),
    "instance norm": call(F.instance_norm, IMAGE),
    "layer norm": layer(lambda: nn.LayerNorm((4, 7)), (3, 4, 7)),
    "layer norm without weights": call(lambda x: F.layer_norm(x, (7,)), (3, 4, 7)),
    "group norm": layer(lambda: nn.GroupNorm(3, 6), (2, 6, 5, 4)),
    "rms norm": layer(lambda: nn.RMSNorm(9), (3, 9)),
    "local response norm": call(lambda x: F.local_response_norm(x, 3), (1, 6, 5, 4)),
}


def _attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, **options)


HEADS = ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8))
ATTENTION: Mapping[str, Case] = {
    "attention": call(_attend, *HEADS),
    "attention, causal": call(partial(_attend, is_causal=True), *[(2, 3, 5, 8)] * 3),
    "attention with a mask": call(
        lambda q, k, v: _attend(q, k, v, attn_mask=(q @ k.mT)[:1, :1] > 0, scale=0.3), *HEADS
    ),
    "attention with a bias": call(lambda q, k, v: _attend(q, k, v, attn_mask=(q @ k.mT)[0, 0]), *HEADS, slopes=False),
}
ROWS = (2, 6, 12)
FUSED: Mapping[str, Case] = {  # many layers in one: bounds of bounds
    "multi-head attention": Case(SelfAttention, (ROWS,), resolution=1 / 500),
    "multi-head attention, heads apart": Case(lambda: SelfAttention(average_attn_weights=False), (ROWS,)),
    "encoder layer": layer(lambda: nn.TransformerEncoderLayer(12, 4, 20, batch_first=True), ROWS, resolution=1 / 10),
    "encoder layer, norm first": layer(
        lambda: nn.TransformerEncoderLayer(12, 4, 20, batch_first=True, norm_first=True, activation="gelu"),
        ROWS,
        resolution=1 / 10,
    ),
}
