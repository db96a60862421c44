"""More operations for the rules: distances, losses, samplers, recurrent layers, bags of embeddings, quantization."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rule_case import Case, call, layer, weighing

ROWS = ((2, 4, 5), (2, 3, 5))
aten = torch.ops.aten
DISTANCES: Mapping[str, Case] = {
    "cdist": call(partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist"), *ROWS),
    "cdist, 1-norm": call(partial(torch.cdist, p=1), (4, 5), (3, 5)),
    "cdist, 3-norm": call(partial(torch.cdist, p=3), (4, 5), (3, 5)),
    "cdist, largest difference": call(partial(torch.cdist, p=float("inf")), (4, 5), (3, 5)),
    "cdist by products": call(aten._euclidean_dist, (4, 5), (3, 5)),
    "pdist": call(F.pdist, (4, 5)),
    "distance of two tensors": call(partial(torch.dist, p=3), (4, 5), (5,)),
    "pairwise distance": call(F.pairwise_distance, (4, 5), (4, 5)),
    "norm without an order": call(lambda x: aten.norm.ScalarOpt_dim(x, None, [1], True), (4, 5)),
    "weight norm": weighing(lambda x, v, g: x @ torch._weight_norm(v, g, 0), (5, 3), (5, 1)),
    "weight norm of inputs": call(lambda v, g: torch._weight_norm(v, g, 1), (5, 3), (1, 3)),
    "lengths of weight norm": call(lambda v, g: aten._weight_norm_interface(v, g, 0)[1], (5, 3), (5, 1)),
}
PRODUCTS: Mapping[str, Case] = {
    "vdot": call(torch.vdot, (7,), (7,)),
    "addbmm": call(partial(torch.addbmm, beta=0.5, alpha=2), (4, 2), (3, 4, 5), (3, 5, 2)),
    "addbmm, plain": call(torch.addbmm, (4, 2), (3, 4, 5), (3, 5, 2)),
    "cross product": call(partial(torch.linalg.cross, dim=1), (4, 3, 5), (1, 3, 5)),
    "addr": call(partial(torch.addr, beta=0.5, alpha=0.3), (4, 2), (4,), (2,)),
    "addr, plain": call(torch.addr, (4, 2), (4,), (2,)),
    "bilinear layer": layer(lambda: nn.Bilinear(4, 3, 5), (2, 4), (2, 3)),
    "product of three": call(lambda x, y, z: aten._trilinear(x, y, z, [2], [1], [0], [1], 1), (3, 4), (3, 5), (4, 5)),
}
CLASSES, MASK = torch.tensor([1, 0, 4, 2]), torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])
LABELS, JOINED = torch.tensor([[3, 0, -1, 1, 2]] * 4), torch.tensor([1, 2, 3])
PIXELS = torch.tensor([[[1, 0, 2], [2, 2, 1]]])


def _class_weights(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0.5, 0.7, 1.2, 0.3, 0.9]).to(x)


PAIRED: Mapping[str, Callable[..., torch.Tensor]] = {
    "mean squared error": F.mse_loss,
    "smooth L1 loss": partial(F.smooth_l1_loss, beta=0.7),
    "huber loss": partial(F.huber_loss, delta=0.7),
    "soft margin loss": lambda x, _, **how: F.soft_margin_loss(3 * x, MASK.to(x).expand(4, 5), **how),
    "binary cross-entropy": lambda x, y, **how: F.binary_cross_entropy(x.sigmoid(), y.sigmoid(), **how),
    "binary cross-entropy, weighted": lambda x, y, **how: F.binary_cross_entropy(
        x.sigmoid(), y.sigmoid(), _class_weights(x), **how
    ),
    "binary cross-entropy of logits": lambda x, y, **how: F.binary_cross_entropy_with_logits(x, y.sigmoid(), **how),
    "binary cross-entropy of logits, weighted": lambda x, y, **how: F.binary_cross_entropy_with_logits(
        x, y.sigmoid(), y.abs(), pos_weight=_class_weights(x), **how
    ),
    "negative log-likelihood": lambda x, _, **how: F.nll_loss(x, CLASSES, **how),
    "negative log-likelihood, weighted": lambda x, _, **how: F.nll_loss(
        x, CLASSES, _class_weights(x), ignore_index=4, **how
    ),
    "negative log-likelihood, one image": lambda x, _, **how: F.nll_loss(x[0], CLASSES[2], _class_weights(x), **how),
    "multi-class margin": lambda x, _, **how: F.multi_margin_loss(x, CLASSES, **how),
    "multi-class margin, squared": lambda x, _, **how: F.multi_margin_loss(
        x, CLASSES, 2, 0.7, weight=_class_weights(x), **how
    ),
    "multi-label margin": lambda x, _, **how: F.multilabel_margin_loss(x, LABELS, **how),
}
LOSSES: Mapping[str, Case] = {
    **{
        f"{name}, {reduction}": call(partial(does, reduction=reduction), (4, 5), (4, 5))
        for name, does in PAIRED.items()
        for reduction in ("none", "mean", "sum")
    },
    **{
        f"negative log-likelihood of pixels, {reduction}": call(
            partial(
                lambda x, **how: F.nll_loss(x, PIXELS, torch.tensor([0.3, 1.0, 0.7]).to(x), **how), reduction=reduction
            ),
            (1, 3, 2, 3),
        )
        for reduction in ("none", "mean", "sum")
    },
    "CTC loss": call(
        lambda x: F.ctc_loss(
            x.log_softmax(2),
            torch.tensor([[1, 2, 2], [3, 0, 0]]),
            torch.tensor([6, 5]),
            torch.tensor([3, 1]),
            reduction="none",
        ),
        (6, 2, 4),
    ),
    "CTC loss of joined targets": call(
        lambda x: F.ctc_loss(x.log_softmax(2), JOINED, torch.tensor([6, 4]), torch.tensor([1, 2]), reduction="sum"),
        (6, 2, 4),
    ),
    "multi-label margin, one image": call(lambda x: F.multilabel_margin_loss(x, LABELS[0]), (5,)),
}
BAGS, OFFSETS = torch.tensor([0, 3, 2, 2, 1, 3]), torch.tensor([0, 0, 2, 5])


def _bag(table: torch.Tensor, *scales: torch.Tensor, **how: Any) -> torch.Tensor:
    offsets = torch.tensor([0, 2, 6]) if how.get("include_last_offset") else OFFSETS
    return F.embedding_bag(BAGS, table, offsets, **how, per_sample_weights=scales[0] if scales else None)


EMBEDDING_BAG: Mapping[str, Case] = {
    "bag of embeddings, sum": call(partial(_bag, mode="sum")),
    "bag of embeddings, weighted": call(partial(_bag, mode="sum"), (4, 5), (6,)),
    "bag of embeddings, mean": call(partial(_bag, mode="mean", padding_idx=2)),
    "bag of embeddings, largest": call(partial(_bag, mode="max")),
    "bag of embeddings, last offset": call(partial(_bag, mode="sum", include_last_offset=True)),
    "bag of embeddings for a backward pass": call(
        lambda x: torch.ops.aten._embedding_bag(x, BAGS, OFFSETS, False, 1)[0], slopes=False
    ),
}
RANDOMIZED: Mapping[str, Case] = {
    "rrelu": call(lambda x: aten.rrelu_with_noise(x, torch.zeros_like(x), 0.1, 0.4, False)),
    "fractional max pooling": call(
        lambda x: F.fractional_max_pool2d(x, (3, 2), (4, 5), _random_samples=torch.rand(2, 3, 2).to(x)), (2, 3, 9, 11)
    ),
    "fractional max pooling, 3-d": call(
        lambda x: F.fractional_max_pool3d(x, (2, 3, 2), (3, 2, 4), _random_samples=torch.rand(1, 2, 3).to(x)),
        (1, 2, 6, 7, 8),
    ),
    "positions of fractional max pooling": call(
        lambda x: F.fractional_max_pool2d(x, 2, 3, return_indices=True, _random_samples=torch.rand(1, 2, 2).to(x))[1],
        (2, 6, 7),
        slopes=False,
    ),
}
QUANTIZATION: Mapping[str, Case] = {
    "fake quantization": call(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.13, 3, 0, 15)),
    "fake quantization by tensors": call(
        lambda x: torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.13), torch.tensor(3), 0, 15)
    ),
    "fake quantization of channels": call(
        lambda x: torch.fake_quantize_per_channel_affine(
            x, torch.tensor([0.13, 0.2, 0.7, 0.4, 0.3]), torch.tensor([0, 1, 2, 0, 3], dtype=torch.int32), 1, -8, 7
        )
    ),
    "fake quantization of channels, shifted": call(
        lambda x: torch.fake_quantize_per_channel_affine(
            x, torch.tensor([0.13, 0.2, 0.7, 0.4]), torch.tensor([0.3, 1.2, 2.5, 0.0]), 0, -8, 7
        )
    ),
}
GRIDS = ((2, 3, 6, 7), (2, 4, 5, 2))


def _sampled(x: torch.Tensor, grid: torch.Tensor, **how: Any) -> torch.Tensor:
    return F.grid_sample(x, grid * 0.8, **how)


SAMPLING: Mapping[str, Case] = {
    **{
        f"{mode} samples, {padding}{', corners' if corners else ''}": call(
            partial(_sampled, mode=mode, padding_mode=padding, align_corners=corners), *GRIDS
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
    },
    **{
        f"{mode} samples of a volume": call(
            partial(_sampled, mode=mode, padding_mode=padding, align_corners=False), (2, 3, 4, 5, 6), (2, 3, 2, 4, 3)
        )
        for mode, padding in (("bilinear", "reflection"), ("nearest", "zeros"))
    },
    "affine grid": call(lambda x: F.affine_grid(x, [2, 3, 4, 5], align_corners=False), (2, 2, 3)),
    "affine grid of corners": call(lambda x: F.affine_grid(x, [2, 3, 4, 5], align_corners=True), (2, 2, 3)),
    "affine grid of a volume": call(lambda x: F.affine_grid(x, [2, 3, 4, 5, 2], align_corners=False), (2, 3, 4)),
}
ANTIALIASED = tuple(  # lanczos since torch 2.13
    mode for mode in ("bilinear", "bicubic", "lanczos") if hasattr(torch.ops.aten, f"_upsample_{mode}2d_aa")
)
ANTIALIASING: Mapping[str, Case] = {
    f"antialiased {mode} to {size}{' by corners' if corners else ''}": call(
        partial(F.interpolate, size=size, mode=mode, align_corners=corners, antialias=True), (2, 3, 9, 11)
    )
    for mode in ANTIALIASED
    for size in ((4, 5), (13, 3), (20, 24))
    for corners in ((False,) if mode == "lanczos" else (False, True))
}
SEQUENCE = (6, 2, 3)


class _Recurrent(nn.Module):
    """The results of a recurrent layer as tensors."""

    def __init__(self, recurrent: nn.Module, *, packed: bool = False) -> None:
        super().__init__()
        self.recurrent, self.packed = recurrent, packed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.packed:
            result: torch.Tensor = 1 * self.recurrent(x)[0]  # the last step of the trace
            return result
        sequences = nn.utils.rnn.pack_padded_sequence(x, [6, 4])
        packed: torch.Tensor = 1 * self.recurrent(sequences)[0].data
        return packed


RECURRENT: Mapping[str, Case] = {
    "LSTM": Case(lambda: _Recurrent(nn.LSTM(3, 4)), (SEQUENCE,)),
    "LSTM, both ways, two layers": Case(lambda: _Recurrent(nn.LSTM(3, 4, 2, bidirectional=True)), (SEQUENCE,)),
    "LSTM without biases, batch first": Case(
        lambda: _Recurrent(nn.LSTM(3, 4, bias=False, batch_first=True)), (SEQUENCE,)
    ),
    "last states of an LSTM": Case(lambda: nn.LSTM(3, 4), (SEQUENCE,)),
    "LSTM of packed sequences": Case(lambda: _Recurrent(nn.LSTM(3, 4), packed=True), (SEQUENCE,)),
    "GRU of packed sequences": Case(lambda: _Recurrent(nn.GRU(3, 4), packed=True), (SEQUENCE,)),
    "packing": call(lambda x: aten._pack_padded_sequence(x, torch.tensor([5, 3, 1]), True)[0] * 1, (3, 5, 2)),
}
LAYERS: Mapping[str, Case] = {
    **DISTANCES,
    **PRODUCTS,
    **LOSSES,
    **EMBEDDING_BAG,
    **RANDOMIZED,
    **QUANTIZATION,
    **SAMPLING,
    **ANTIALIASING,
    **RECURRENT,
}
