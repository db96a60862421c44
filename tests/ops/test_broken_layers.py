"""Rules of layers and losses that are wrong in one respect: each disagrees with what PyTorch recorded."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from convscope.expr.call import Call, Cell, Operand
from convscope.expr.expr import Expr
from convscope.ops import OPS
from convscope.proof.explanation import explain
from rule_cases import recorded

Arguments = dict[str, Any]
Change = Callable[[Arguments], Arguments]


def setting(**changed: Any) -> Change:
    return lambda arguments: arguments | changed


def moved(name: str, change: Callable[[Any], Any]) -> Change:
    return lambda a: a | {name: Operand(np.asarray(change(a[name].array)), a[name].source)}


BROKEN: Mapping[str, tuple[str, str, Change]] = {
    "another order of a distance": ("cdist", "_cdist_forward", setting(p=1.9)),
    "pairs of another row": ("pdist", "_pdist_forward", moved("self", lambda x: np.roll(x, 1, 0))),
    "another axis of weight norm": ("weight norm", "_weight_norm_interface", setting(dim=1)),
    "a batch left out": ("addbmm, plain", "addbmm", moved("batch1", lambda x: x * (np.arange(3) < 2)[:, None, None])),
    "another scale": ("addr", "addr", setting(alpha=0.3001)),
    "exchanged inputs": ("bilinear layer", "_trilinear", moved("i1", lambda x: x[::-1])),
    "a loss added up": ("mean squared error, mean", "mse_loss", setting(reduction=2)),
    "another knee": ("huber loss, sum", "huber_loss", setting(delta=0.701)),
    "another beta": ("smooth L1 loss, mean", "smooth_l1_loss", setting(beta=0.701)),
    "no weight of the positive class": (
        "binary cross-entropy of logits, weighted, mean", "binary_cross_entropy_with_logits", setting(pos_weight=None),
    ),
    "an ignored class counted": (
        "negative log-likelihood, weighted, mean", "nll_loss_forward", setting(ignore_index=9),
    ),
    "another class": ("negative log-likelihood, none", "nll_loss_forward", moved("target", lambda t: (t + 1) % 5)),
    "another margin": ("multi-class margin, squared, sum", "multi_margin_loss", setting(margin=0.701)),
    "another blank": ("CTC loss", "_ctc_loss", setting(blank=1)),
    "an offset moved": (
        "bag of embeddings, mean", "_embedding_bag_forward_only", moved("offsets", lambda o: o - (o == 5)),
    ),
    "padding counted": ("bag of embeddings, mean", "_embedding_bag_forward_only", setting(padding_idx=-1)),
    "windows of other samples": (
        "fractional max pooling", "fractional_max_pool2d", moved("random_samples", lambda s: s[..., ::-1]),
    ),
    "another zero point": ("fake quantization", "fake_quantize_per_tensor_affine_cachemask", setting(zero_point=2)),
    "columns for rows": ("bilinear samples, zeros", "grid_sampler_2d", moved("grid", lambda g: g[..., ::-1])),
    "other corners": ("bicubic samples, border", "grid_sampler_2d", setting(align_corners=True)),
    "another border": ("bilinear samples, reflection", "grid_sampler_2d", setting(padding_mode=0)),
    "places between other corners": ("affine grid", "affine_grid_generator", setting(align_corners=True)),
    "a filter by corners": ("antialiased bicubic to (4, 5)", "_upsample_bicubic2d_aa", setting(align_corners=True)),
    "other lengths": ("packing", "_pack_padded_sequence", moved("lengths", lambda n: n[::-1])),
}  # fmt: skip


@pytest.mark.parametrize("change", BROKEN)
def test_a_rule_that_is_wrong_in_one_respect_turns_red(change: str) -> None:
    case, name, alter = BROKEN[change]
    trace, _, _ = recorded(case)
    step = next(s for s in trace.all_steps if s.op == name)
    op = OPS[name]

    def broken(call: Call, cell: Cell) -> Expr:
        return op.rule(replace(call, arguments=alter(dict(call.arguments))), cell)

    cells = list(np.ndindex(*step.shape))[:60]
    statuses = {explain(trace, step, cell, ops={**OPS, name: replace(op, rule=broken)}).status for cell in cells}
    assert "mismatch" in statuses
    assert {explain(trace, step, cell).status for cell in cells} == {"proved"}
