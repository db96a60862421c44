"""Calls of the operations behind layers and losses, for comparison with the reference."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from reference_cases import Case, normal, odd, positive, whole
from reference_cases_pointwise import Family


def _distances() -> Iterator[dict[str, Case]]:
    x, y = normal(2, 4, 5), normal(2, 3, 5)
    for p in (0.0, 0.5, 1.0, 2.0, 3.0, float("inf")):
        yield {
            f"_cdist_forward {p}": Case("_cdist_forward.default", (x, y, p, 2)),
            f"_pdist_forward {p}": Case("_pdist_forward.default", (x[0], p)),
        }
    v = normal(5, 3, 2)
    yield {
        "dist": Case("dist.default", (x, y[:1, :1], 2)),
        "dist, largest": Case("dist.default", (x, y[:1, :1], float("inf"))),
        "_cdist_forward far": Case("_cdist_forward.default", (x + 100, y + 100, 2.0, 2)),
        "_euclidean_dist": Case("_euclidean_dist.default", (x, y)),
        "_euclidean_dist far": Case("_euclidean_dist.default", (x + 30, y + 30)),
        "norm": Case("norm.Scalar", (x, 2)),
        "norm axes": Case("norm.ScalarOpt_dim", (x, 3, [0, 2], True)),
        "norm without an order": Case("norm.ScalarOpt_dim", (x, None, [1])),
        "_weight_norm_interface": Case("_weight_norm_interface.default", (v, normal(5, 1, 1), 0)),
        "_weight_norm_interface last": Case("_weight_norm_interface.default", (v, normal(1, 1, 2), 2)),
    }


def _outer_products() -> Iterator[dict[str, Case]]:
    x, left, right = normal(4, 2), normal(3, 4, 5), normal(3, 5, 2)
    yield {
        "vdot": Case("vdot.default", (normal(7), normal(7))),
        "addbmm": Case("addbmm.default", (x, left, right)),
        "addbmm scaled": Case("addbmm.default", (x, left, right), {"beta": 0.3, "alpha": -1.7}),
        "addr": Case("addr.default", (x, normal(4), normal(2))),
        "addr scaled": Case("addr.default", (x, normal(4), normal(2)), {"beta": 0, "alpha": 0.3}),
        "linalg_cross": Case("linalg_cross.default", (normal(4, 3, 5), normal(1, 3, 5)), {"dim": 1}),
        "bilinear": Case(
            "_trilinear.default", (normal(2, 4), normal(5, 4, 3), normal(2, 3), [1, 3], [0], [1, 2], [2, 3])
        ),
        "_trilinear unrolled": Case(
            "_trilinear.default", (normal(3, 4), normal(3, 5), normal(4, 5), [2], [1], [0], [1], 1)
        ),
    }


def _losses() -> Iterator[dict[str, Case]]:
    x, y, share, far = normal(4, 5), normal(4, 5), positive(4, 5) / 1.2, normal(4, 5, scale=20)
    sign, classes, weight = torch.where(y > 0, 1.0, -1.0).double(), whole(4, high=5), positive(5)
    labels = torch.tensor([[3, 0, -1, 1, 4], [2, -1, 0, 0, 0], [0, 1, 2, 3, 4], [-1, 0, 0, 0, 0]])
    for name, reduction in (("none", 0), ("mean", 1), ("sum", 2)):
        yield {
            f"mse_loss {name}": Case("mse_loss.default", (x, y, reduction)),
            f"smooth_l1_loss {name}": Case("smooth_l1_loss.default", (x, y, reduction, 0.7)),
            f"huber_loss {name}": Case("huber_loss.default", (x, y, reduction, 0.7)),
            f"soft_margin_loss {name}": Case("soft_margin_loss.default", (x, sign, reduction)),
            f"soft_margin_loss far {name}": Case("soft_margin_loss.default", (far, sign, reduction)),
            f"binary_cross_entropy {name}": Case("binary_cross_entropy.default", (share, y.sigmoid(), None, reduction)),
            f"binary_cross_entropy weighted {name}": Case(
                "binary_cross_entropy.default", (share, y.sigmoid(), weight, reduction)
            ),
            f"logits {name}": Case("binary_cross_entropy_with_logits.default", (x, share, None, None, reduction)),
            f"logits weighted {name}": Case(
                "binary_cross_entropy_with_logits.default", (far, share, weight, weight + 1, reduction)
            ),
            f"nll_loss {name}": Case("nll_loss_forward.default", (x, classes, None, reduction, -100)),
            f"nll_loss weighted {name}": Case("nll_loss_forward.default", (x, classes, weight, reduction, 1)),
            f"nll_loss of one {name}": Case("nll_loss_forward.default", (x[0], classes[0], weight, reduction, 7)),
            f"nll_loss2d {name}": Case(
                "nll_loss2d_forward.default", (normal(2, 5, 3, 4), whole(2, 3, 4, high=5), weight, reduction, 1)
            ),
            f"multi_margin_loss {name}": Case("multi_margin_loss.default", (x, classes, 1, 1, None, reduction)),
            f"multi_margin_loss squared {name}": Case(
                "multi_margin_loss.default", (x, classes, 2, 0.7, weight, reduction)
            ),
            f"multi_margin_loss of one {name}": Case(
                "multi_margin_loss.default", (x[0], classes[0], 1, 1, weight, reduction)
            ),
            f"multilabel_margin_loss {name}": Case("multilabel_margin_loss_forward.default", (x, labels, reduction)),
        }
    yield {
        "_ctc_loss": Case(
            "_ctc_loss.default",
            (normal(7, 2, 4).log_softmax(2), torch.tensor([[1, 2, 2], [3, 0, 0]]), [7, 5], [3, 1]),
        ),
        "_ctc_loss of joined targets": Case(
            "_ctc_loss.Tensor",
            (normal(7, 3, 4).log_softmax(2), torch.tensor([1, 0, 3, 3]), *torch.tensor([[7, 4, 2], [1, 3, 0]]), 2),
        ),
        "_ctc_loss, no alignment": Case(
            "_ctc_loss.default", (normal(2, 1, 4).log_softmax(2), torch.tensor([[1, 1]]), [2], [2])
        ),
        "nll_loss of nothing": Case("nll_loss_forward.default", (x, classes * 0, None, 1, 0)),
        "smooth_l1_loss, wide": Case("smooth_l1_loss.default", (far, y, 0, 30.0)),
        "multilabel_margin_loss of one": Case("multilabel_margin_loss_forward.default", (x[0], labels[0], 1)),
    }


def _embedding_bags() -> Iterator[dict[str, Case]]:
    table, rows, starts = normal(7, 3), whole(9, high=7), torch.tensor([0, 2, 2, 5])
    ends = torch.tensor([0, 2, 2, 9])
    for name, mode in (("sum", 0), ("mean", 1), ("largest", 2)):
        yield {
            f"_embedding_bag {name}": Case("_embedding_bag.default", (table, rows, starts, False, mode)),
            f"_embedding_bag_forward_only {name}": Case(
                "_embedding_bag_forward_only.default", (table, rows, ends, False, mode, False, None, True, 3)
            ),
        }
    yield {
        "_embedding_bag weighted": Case(
            "_embedding_bag_forward_only.default", (table, rows, starts, False, 0, False, normal(9), False, 2)
        )
    }


def _randomized() -> Iterator[dict[str, Case]]:
    x, y = normal(2, 3, 9, 11), normal(1, 2, 6, 7, 8)
    yield {
        "rrelu": Case("rrelu_with_noise.default", (normal(4, 5), normal(4, 5), 0.1, 0.4, False)),
        "fractional_max_pool2d": Case("fractional_max_pool2d.default", (x, [3, 2], [4, 5], positive(2, 3, 2) / 1.2)),
        "fractional_max_pool2d odd": Case(
            "fractional_max_pool2d.default", (odd(3, 6, 7), [2, 2], [5, 1], positive(1, 3, 2) / 1.2)
        ),
        "fractional_max_pool3d": Case(
            "fractional_max_pool3d.default", (y, [2, 3, 2], [3, 2, 4], positive(1, 2, 3) / 1.2)
        ),
    }


def _quantization() -> Iterator[dict[str, Case]]:
    x, far = normal(4, 5), normal(4, 5, scale=30)
    name, sizes = "fake_quantize_per_channel_affine_cachemask.default", positive(5).float()
    yield {
        "fake quantize": Case("fake_quantize_per_tensor_affine_cachemask.default", (x, 0.13, 3, 0, 15)),
        "fake quantize ties": Case("fake_quantize_per_tensor_affine_cachemask.default", (x.round(), 2.0, 0, -2, 3)),
        "fake quantize far": Case("fake_quantize_per_tensor_affine_cachemask.default", (far, 0.1, -3, -128, 127)),
        "fake quantize odd": Case("fake_quantize_per_tensor_affine_cachemask.default", (odd(4, 5), 0.1, 3, 0, 15)),
        "fake quantize by tensors": Case(
            "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default",
            (x, torch.tensor([0.13]), torch.tensor([3]), torch.tensor([1]), 0, 15),
            single=(1,),
        ),
        "fake quantize off": Case(
            "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default",
            (x, torch.tensor([0.13]), torch.tensor([3]), torch.tensor([0]), 0, 15),
            single=(1,),
        ),
        "fake quantize channels": Case(
            name, (x, sizes, torch.tensor([0, 1, 2, 0, 3], dtype=torch.int32), 1, -8, 7), single=(1,)
        ),
        "fake quantize channels, shifted": Case(name, (x, sizes, positive(5).float() * 3, 1, -8, 7), single=(1, 2)),
    }


def _sampling() -> Iterator[dict[str, Case]]:
    x, grid, y, volume = normal(2, 3, 6, 7), normal(2, 4, 5, 2), normal(2, 3, 4, 5, 6), normal(2, 3, 2, 4, 3)
    for mode, padding, corners in product(range(3), range(3), (False, True)):
        name = f"{mode} {padding} {corners}"
        yield {f"grid_sampler_2d {name}": Case("grid_sampler_2d.default", (x, grid, mode, padding, corners))}
        if mode < 2:
            yield {f"grid_sampler_3d {name}": Case("grid_sampler_3d.default", (y, volume, mode, padding, corners))}
    for corners in (False, True):
        yield {
            f"affine_grid {corners}": Case("affine_grid_generator.default", (normal(2, 2, 3), [2, 3, 4, 5], corners)),
            f"affine_grid of a volume {corners}": Case(
                "affine_grid_generator.default", (normal(2, 3, 4), [2, 3, 4, 5, 1], corners)
            ),
        }
    antialiased = ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa")
    for name in filter(partial(hasattr, torch.ops.aten), antialiased):  # lanczos since torch 2.13
        yield {
            f"{name} down": Case(f"{name}.default", (normal(2, 3, 9, 11), [4, 3], False)),
            f"{name} up": Case(f"{name}.default", (normal(2, 3, 9, 11), [20, 24], False)),
            f"{name} corners": Case(f"{name}.default", (normal(2, 3, 9, 11), [4, 15], True)),
            f"{name} factors": Case(f"{name}.vec", (normal(2, 3, 9, 11), None, False, [0.45, 1.7])),
        }


def _recurrent() -> Iterator[dict[str, Case]]:
    x, h, c = normal(6, 2, 3), normal(2, 4), normal(2, 4)
    weights = normal(16, 3), normal(16, 4), normal(16), normal(16)
    for reverse, biases in product((False, True), repeat=2):
        yield {
            f"mkldnn_rnn_layer {reverse} {biases}": Case(
                "mkldnn_rnn_layer.default",
                (x, *weights, h, c, reverse, [], 2, 4, 1, biases, False, False, False),
                single=tuple(range(7)),
            )
        }
    yield {
        "_pack_padded_sequence": Case("_pack_padded_sequence.default", (x, torch.tensor([6, 4]), False)),
        "_pack_padded_sequence batch first": Case(
            "_pack_padded_sequence.default", (normal(3, 5, 2), torch.tensor([5, 3, 1]), True)
        ),
    }


def layers() -> tuple[Family, ...]:
    return _distances, _outer_products, _losses, _embedding_bags, _randomized, _quantization, _sampling, _recurrent
