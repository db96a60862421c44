"""More operations for the rules: distances, losses, samplers, recurrent layers, bags of embeddings, quantization."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from rule_cases import Case, call, layer, weighing

ROWS = ((2, 4, 5), (2, 3, 5))
aten = torch.ops.aten
DISTANCES: Mapping[str, Case] = {
    "cdist": call(partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist"), *ROWS),
    "cdist, 1-norm": call(partial(torch.cdist, p=1), (4, 5), (3, 5)),
    "cdist, 3-norm": call(partial(torch.cdist, p=3), (4, 5), (3, 5)),
    "cdist, largest difference": call(partial(torch.cdist, p=float("inf")), (4, 5), (3, 5)),
    "cdist by products": call(aten._euclidean_dist, (4, 5), (3, 5)),
    "pdist": call(F.pdist, (4, 5)),
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
    "addr": call(partial(torch.addr, beta=0.5, alpha=0.3), (4, 2), (4,), (2,)),
    "addr, plain": call(torch.addr, (4, 2), (4,), (2,)),
    "bilinear layer": layer(lambda: nn.Bilinear(4, 3, 5), (2, 4), (2, 3)),
    "product of three": call(lambda x, y, z: aten._trilinear(x, y, z, [2], [1], [0], [1], 1), (3, 4), (3, 5), (4, 5)),
}
CLASSES, MASK = torch.tensor([1, 0, 4, 2]), torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])
LABELS = torch.tensor([[3, 0, -1, 1, 2]] * 4)
PIXELS = torch.tensor([[[1, 0, 2], [2, 2, 1]]])


def _class_weights(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0.5, 0.7, 1.2, 0.3, 0.9]).to(x)


PAIRED = {
    "mean squared error": F.mse_loss,
    "smooth L1 loss": partial(F.smooth_l1_loss, beta=0.7),
    "huber loss": partial(F.huber_loss, delta=0.7),
    "soft margin loss": lambda x, y, **how: F.soft_margin_loss(3 * x, MASK.to(x).expand(4, 5), **how),
    "binary cross-entropy": lambda x, y, **how: F.binary_cross_entropy(x.sigmoid(), y.sigmoid(), **how),
    "binary cross-entropy, weighted": lambda x, y, **how: F.binary_cross_entropy(
        x.sigmoid(), y.sigmoid(), _class_weights(x), **how
    ),
    "binary cross-entropy of logits": lambda x, y, **how: F.binary_cross_entropy_with_logits(x, y.sigmoid(), **how),
    "binary cross-entropy of logits, weighted": lambda x, y, **how: F.binary_cross_entropy_with_logits(
        x, y.sigmoid(), y.abs(), pos_weight=_class_weights(x), **how
    ),
    "negative log-likelihood": lambda x, y, **how: F.nll_loss(x, CLASSES, **how),
    "negative log-likelihood, weighted": lambda x, y, **how: F.nll_loss(
        x, CLASSES, _class_weights(x), ignore_index=4, **how
    ),
    "negative log-likelihood, one image": lambda x, y, **how: F.nll_loss(x[0], CLASSES[2], _class_weights(x), **how),
    "multi-class margin": lambda x, y, **how: F.multi_margin_loss(x, CLASSES, **how),
    "multi-class margin, squared": lambda x, y, **how: F.multi_margin_loss(
        x, CLASSES, 2, 0.7, weight=_class_weights(x), **how
    ),
    "multi-label margin": lambda x, y, **how: F.multilabel_margin_loss(x, LABELS, **how),
}
LOSSES: Mapping[str, Case] = {
    **{
        f"{name}, {reduction}": call(partial(does, reduction=reduction), (4, 5), (4, 5))
        for name, does in PAIRED.items()
        for reduction in ("none", "mean", "sum")
    },
    **{
        f"negative log-likelihood of pixels, {reduction}": call(
            partial(lambda x, **how: F.nll_loss(x, PIXELS, torch.tensor([0.3, 1.0, 0.7]).to(x), **how), reduction=reduction),
            (1, 3, 2, 3),
        )
        for reduction in ("none", "mean", "sum")
    },
    "multi-label margin, one image": call(lambda x: F.multilabel_margin_loss(x, LABELS[0]), (5,)),
}
LAYERS: Mapping[str, Case] = {**DISTANCES, **PRODUCTS, **LOSSES}
