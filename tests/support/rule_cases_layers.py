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
LAYERS: Mapping[str, Case] = {**DISTANCES, **PRODUCTS}
