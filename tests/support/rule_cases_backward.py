"""Cases of backward operations: called directly, as autograd calls them, on gradients and numbers of any size.

A function of its inputs and the inputs' shapes; the statistics and places that a forward pass hands on are made by it.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rule_cases_backward_layers import backward_of_layers

Does = Callable[..., Any]
Shapes = tuple[tuple[int, ...], ...]
aten = torch.ops.aten
TABLE = (5, 7)
IMAGE = (2, 3, 9, 11)
ALL = [True, True, True]


def _activations() -> Iterator[tuple[str, Does]]:
    """Of a gradient and the input, or the result, of an activation."""
    for name in ("hardsigmoid", "hardswish", "silu", "mish"):
        yield f"{name} backward", getattr(aten, f"{name}_backward")
    yield "relu backward", lambda g, x: aten.threshold_backward(g, x, 0)
    yield "threshold backward", lambda g, x: aten.threshold_backward(g, x, 0.1)
    yield "hardtanh backward", lambda g, x: aten.hardtanh_backward(g, x, -0.4, 0.7)
    yield "hardshrink backward", lambda g, x: aten.hardshrink_backward(g, x, 0.3)
    yield "softshrink backward", lambda g, x: aten.softshrink_backward(g, x, 0.3)
    yield "leaky relu backward", lambda g, x: aten.leaky_relu_backward(g, x, 0.2, False)
    yield "sigmoid backward", lambda g, x: aten.sigmoid_backward(g, x.sigmoid())
    yield "tanh backward", lambda g, x: aten.tanh_backward(g, x.tanh())
    yield "gelu backward", lambda g, x: aten.gelu_backward(g, 2 * x)
    yield "gelu by tanh backward", lambda g, x: aten.gelu_backward(g, 2 * x, approximate="tanh")
    yield "softplus backward", lambda g, x: aten.softplus_backward(g, 3 * x, 2, 3)
    yield "log sigmoid backward", lambda g, x: aten.log_sigmoid_backward(g, x, (-x.abs()).exp())
    yield "elu backward", lambda g, x: aten.elu_backward(g, 0.7, 1.3, 0.9, False, x)
    yield "elu backward by its result", lambda g, x: aten.elu_backward(g, 0.7, 1.3, 1, True, x.clamp(min=-0.9))
    yield "dropout backward", lambda g, x: aten.native_dropout_backward(g, x > 0, 1 / 0.7)


def _labels(g: Tensor, x: Tensor, **options: Any) -> Any:
    """The gradient of a mean negative log-likelihood of labels 2, 0, an ignored one, 6 and 2."""
    weight = options.get("weight", x[0].abs() + 0.5)
    reduction = options.get("reduction", 1)
    target = torch.tensor([2, 0, -100, 6, 2])
    total = x.new_full((), 4.0) if weight is None else weight[target[target >= 0]].sum()
    given = g[:, 0].contiguous() if reduction == 0 else g[0, 0]
    return aten.nll_loss_backward(given, x, target, weight, reduction, -100, total)


def _labels_2d(g: Tensor, x: Tensor) -> Any:
    target = torch.arange(2 * 9 * 11).reshape(2, 9, 11) % 3
    return aten.nll_loss2d_backward(g[0, 0, 0, 0], x, target, None, 1, -100, x.new_full((), 198.0))


def _margin(g: Tensor, x: Tensor, *, p: int, reduction: int) -> Any:
    given = g[:, 0].contiguous() if reduction == 0 else g[0, 0]
    target = torch.tensor([2, 0, 3, 6, 2])
    return aten.multi_margin_loss_backward(given, x, target, p, 0.7, x[0].abs() + 0.5 if p == 1 else None, reduction)


def _label_margin(g: Tensor, x: Tensor, *, reduction: int) -> Any:
    given = g[:, 0].contiguous() if reduction == 0 else g[0, 0]
    lists = ([2, 0, -1, 3, 3, 3, 3], [6, -1, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 0], [-1] * 7, [5, 4, -1, 0, 0, 0, 0])
    target = torch.tensor(lists)
    _, right = aten.multilabel_margin_loss_forward(x, target, reduction)
    return aten.multilabel_margin_loss_backward(given, x, target, reduction, right)


def _nll(_: Tensor, x: Tensor, **options: Any) -> Any:
    """The loss of labels 2, 0, an ignored one, 6 and 2."""
    weight = options.get("weight", x[0].abs() + 0.5)
    made = aten.nll_loss_forward(
        x.log_softmax(1), torch.tensor([2, 0, -100, 6, 2]), weight, options.get("reduction", 1), -100
    )
    return made[0] if options.get("reduction") == 0 else tuple(made)


def _nll_2d(_: Tensor, x: Tensor) -> Any:
    target = torch.arange(2 * 9 * 11).reshape(2, 9, 11) % 3
    return tuple(aten.nll_loss2d_forward(x.log_softmax(1), target, None, 1, -100))


def _losses() -> Iterator[tuple[str, Does]]:
    yield "log softmax backward", lambda g, x: aten._log_softmax_backward_data(g, x.log_softmax(1), 1, x.dtype)
    yield "softmax backward", lambda g, x: aten._softmax_backward_data(g, x.softmax(0), 0, x.dtype)
    yield (
        "cross-entropy backward",
        lambda g, x: aten._log_softmax_backward_data(_labels(g, x, weight=None), x.log_softmax(1), 1, x.dtype),
    )
    yield "nll backward", _labels
    yield "nll backward of each", partial(_labels, reduction=0)
    yield "nll backward of the sum", partial(_labels, reduction=2)
    yield "nll", _nll
    yield "nll of each", partial(_nll, reduction=0)
    yield "nll of the sum without weights", partial(_nll, reduction=2, weight=None)
    yield "mse", lambda g, x: aten.mse_loss(g, x, 1)
    yield "mse of each", lambda g, x: aten.mse_loss(g, x, 0)
    yield "mse backward", lambda g, x: aten.mse_loss_backward(g[0, 0], x, g, 1)
    yield "mse backward of each", lambda g, x: aten.mse_loss_backward(g, x, g * x, 0)
    yield "smooth l1 backward", lambda g, x: aten.smooth_l1_loss_backward(g[0, 0], x, g, 1, 0.7)
    yield "soft margin backward", lambda g, x: aten.soft_margin_loss_backward(g[0, 0], 2 * x, g.sign(), 1)
    yield "soft margin backward of each", lambda g, x: aten.soft_margin_loss_backward(g, x, x.flip(0).sign(), 0)
    for p, reduction in ((1, 1), (2, 2), (2, 0)):
        yield f"multi margin backward, power {p}, reduction {reduction}", partial(_margin, p=p, reduction=reduction)
    yield "multi-label margin backward", partial(_label_margin, reduction=1)
    yield "multi-label margin backward of each", partial(_label_margin, reduction=0)
    yield "huber backward", lambda g, x: aten.huber_loss_backward(g[0, 0], x, g, 2, 0.7)
    yield (
        "binary cross-entropy backward",
        lambda g, x: aten.binary_cross_entropy_backward(g[0, 0], x.sigmoid(), (g > 0).to(x), x.abs(), 1),
    )


def _convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], *how: Any, mask: list[bool] = ALL
) -> tuple[Does, Shapes]:
    """Gradients of input, kernels and bias; the settings are stride, padding, dilation, transposed, more, groups."""
    given = list(how) + [1, 0, 1, False, 0, 1][len(how) :]
    axes = len(kernel) - 2
    stride, padding, dilation, more = ([v] * axes if isinstance(v, int) else v for v in (*given[:3], given[4]))
    transposed, groups = given[3], given[5]
    units = kernel[1] * groups if transposed else kernel[0]
    settings = (stride, padding, dilation, transposed, more, groups)
    out = aten.convolution(torch.zeros(shape), torch.zeros(kernel), None, *settings).shape

    def does(g: Tensor, x: Tensor, w: Tensor) -> Any:
        made = aten.convolution_backward(g, x, w, [units], *settings, mask)
        return tuple(one for one in made if one is not None)

    return does, (tuple(out), shape, kernel)


def _convolutions() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    image = (3, 4, 7, 9)
    yield "convolution backward", _convolution(image, (6, 4, 3, 2), [2, 1], [1, 2], [1, 2])
    yield "convolution backward of one image", _convolution((1, 2, 6, 5), (3, 2, 2, 3), mask=[False, True, True])
    yield (
        "convolution backward in groups",
        _convolution(image, (6, 2, 3, 2), 1, 1, 1, False, 0, 2, mask=[True, True, False]),
    )
    yield "depthwise convolution backward", _convolution(image, (4, 1, 3, 3), 1, 1, 1, False, 0, 4)
    yield "1-d convolution backward", _convolution((2, 3, 13), (5, 3, 4), 2, 1)
    yield "3-d convolution backward", _convolution((2, 2, 4, 5, 6), (3, 2, 2, 3, 2), 1, 1, mask=[False, True, False])
    yield "transposed convolution backward", _convolution((2, 4, 5, 6), (4, 3, 3, 2), [2, 3], [1, 0], 1, True, [1, 2])
    yield "transposed in groups backward", _convolution((2, 4, 5, 6), (4, 3, 2, 3), 2, 0, 2, True, 0, 2)


def _max_pool(g: Tensor, x: Tensor) -> Any:
    how = ([3, 2], [2, 3], [1, 1], [1, 2], True)
    places = aten.max_pool2d_with_indices(x, *how)[1]
    return aten.max_pool2d_with_indices_backward(
        g[..., : places.shape[2], : places.shape[3]].contiguous(), x, *how, places
    )


def _max_pool_overlapping(g: Tensor, x: Tensor) -> Any:
    how = ([3, 4], [1, 2], [1, 1], [1, 1], False)
    places = aten.max_pool2d_with_indices(x, *how)[1]
    return aten.max_pool2d_with_indices_backward(
        g[..., : places.shape[2], : places.shape[3]].contiguous(), x, *how, places
    )


def _max_pool_3d(g: Tensor, x: Tensor) -> Any:
    how = ([2, 2, 3], [1, 2, 2], [0, 1, 1], [1, 1, 1], False)
    places = aten.max_pool3d_with_indices(x, *how)[1]
    part = tuple(slice(n) for n in places.shape)
    return aten.max_pool3d_with_indices_backward(g[part].contiguous(), x, *how, places)


def _adaptive_max(g: Tensor, x: Tensor) -> Any:
    places = aten.adaptive_max_pool2d(x, [4, 5])[1]
    return aten.adaptive_max_pool2d_backward(g[..., :4, :5].contiguous(), x, places)


def _adaptive_max_3d(g: Tensor, x: Tensor) -> Any:
    places = aten.adaptive_max_pool3d(x, [2, 3, 4])[1]
    return aten.adaptive_max_pool3d_backward(g[..., :2, :3, :4].contiguous(), x, places)


def _averaged(kernel: list[int], *how: Any) -> Does:
    """An average pooling's backward, of a gradient cut to its size."""
    axes = len(kernel)
    forward, backward = getattr(aten, f"avg_pool{axes}d"), getattr(aten, f"avg_pool{axes}d_backward")

    def does(g: Tensor, x: Tensor) -> Any:
        part = tuple(slice(n) for n in forward(x, kernel, *how).shape)
        return backward(g[part].contiguous(), x, kernel, *how)

    return does


def _poolings() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    solid = (2, 3, 5, 6, 7)
    for name, does in {
        "max pooling backward": _max_pool,
        "max pooling backward, overlapping": _max_pool_overlapping,
        "adaptive maximum backward": _adaptive_max,
        "average pooling backward": _averaged([3, 2], [2, 3], [1, 1], True, True, None),
        "average backward without padding": _averaged([3, 4], [2, 3], [1, 1], True, False, None),
        "average backward by a divisor": _averaged([3, 3], [2, 1], [1, 1], False, True, 4),
        "adaptive average backward": lambda g, x: aten._adaptive_avg_pool2d_backward(g[..., :4, :5].contiguous(), x),
    }.items():
        yield name, (does, (IMAGE, IMAGE))
    for name, does in {
        "max pooling backward, 3-d": _max_pool_3d,
        "adaptive maximum backward, 3-d": _adaptive_max_3d,
        "average pooling backward, 3-d": _averaged([2, 3, 2], [1, 2, 3], [0, 1, 1], False, False, None),
        "adaptive average backward, 3-d": lambda g, x: aten._adaptive_avg_pool3d_backward(
            g[..., :2, :4, :3].contiguous(), x
        ),
    }.items():
        yield name, (does, (solid, solid))


def _batch_norm(g: Tensor, x: Tensor, *, train: bool = True, weighted: bool = True, mask: list[bool] = ALL) -> Any:
    x = 2 * x + 1
    axes = [a for a in range(x.ndim) if a != 1]
    mean, var = x.mean(axes), x.var(axes, correction=0)
    weight = x.flatten()[: x.shape[1]].clone() if weighted else None
    running = (mean + 0.1, var * 1.2)
    made = aten.native_batch_norm_backward(g, x, weight, *running, mean, (var + 1e-5).rsqrt(), train, 1e-5, mask)
    return tuple(one for one in made if one is not None)


def _layer_norm(g: Tensor, x: Tensor, *, weighted: bool = True, mask: list[bool] = ALL) -> Any:
    x = 2 * x + 1
    mean, rate = x.mean((1, 2), keepdim=True), (x.var((1, 2), correction=0, keepdim=True) + 1e-5).rsqrt()
    weight = x[0].clone() if weighted else None
    made = aten.native_layer_norm_backward(g, x, x.shape[1:], mean, rate, weight, weight, mask)
    return tuple(one for one in made if one is not None)


def _group_norm(g: Tensor, x: Tensor, *, groups: int = 3, weighted: bool = True) -> Any:
    x = 2 * x + 1
    rows = x.view(x.shape[0], groups, -1)
    mean, rate = rows.mean(2), (rows.var(2, correction=0) + 1e-5).rsqrt()
    weight = x[0, :, 0, 0].clone() if weighted else None
    sizes = (*x.shape[:2], x[0, 0].numel())
    return aten.native_group_norm_backward(g, x, mean, rate, weight, *sizes, groups, [True, weighted, weighted])[
        : 1 + 2 * weighted
    ]


def _normalizations() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    yield "batch norm backward", (_batch_norm, (IMAGE, IMAGE))
    yield "batch norm backward, not training", (partial(_batch_norm, train=False), (IMAGE, IMAGE))
    yield "batch norm backward, 1-d", (partial(_batch_norm, weighted=False), ((7, 5), (7, 5)))
    yield "layer norm backward", (_layer_norm, ((3, 4, 7), (3, 4, 7)))
    yield "layer norm backward, weight alone", (partial(_layer_norm, mask=[False, True, False]), ((3, 4, 7), (3, 4, 7)))
    yield (
        "layer norm backward without weights",
        (
            partial(_layer_norm, weighted=False, mask=[True, False, False]),
            ((3, 4, 7), (3, 4, 7)),
        ),
    )
    yield "group norm backward", (_group_norm, ((2, 6, 5, 4), (2, 6, 5, 4)))
    yield "instance norm backward", (partial(_group_norm, groups=6, weighted=False), ((2, 6, 5, 4), (2, 6, 5, 4)))
    yield "batch norm backward, input alone", (partial(_batch_norm, mask=[True, False, False]), (IMAGE, IMAGE))


def _recurrent(g: Tensor, x: Tensor, *rest: Tensor, reverse: bool = False, biases: bool = True) -> Any:
    """The gradients of an LSTM layer, from those of its states, of the last state and of the last cell state."""
    g, x, w, r, one, other, h, c, by_last, by_cell = (given.float() for given in (g, x, *rest))  # oneDNN has no other
    fits = x.ndim == 3 and [*map(len, rest[:4])] == [16] * 4 and w.shape[1] == x.shape[2]
    if not fits or g.shape != (*x.shape[:2], 4) or any(one.shape != g.shape[1:] for one in (h, c, by_last, by_cell)):
        raise RuntimeError("oneDNN would read beyond these tensors: it checks no shape")
    how = (2, 4, 1, biases)
    with torch.enable_grad():  # otherwise it keeps nothing for the backward pass
        made = aten.mkldnn_rnn_layer(x, w, r, one, other, h, c, reverse, [], *how, False, False, True)
    states, last, cell, kept = made
    given = x, w, r, one, other, h, c, states, last, cell, g, by_last, by_cell
    return aten.mkldnn_rnn_layer_backward(*given, reverse, *how, True, False, [], False, kept)


def _recurrent_layers() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    shapes = ((6, 2, 4), (6, 2, 3), (16, 3), (16, 4), (16,), (16,), *((2, 4),) * 4)
    yield "lstm backward", (_recurrent, shapes)
    yield "lstm backward, reversed, without biases", (partial(_recurrent, reverse=True, biases=False), shapes)
    yield "lstm backward, one step", (_recurrent, ((1, 2, 4), (1, 2, 3), *shapes[2:]))


def _weight_norm(g: Tensor, v: Tensor, length: Tensor, *, dim: int = 0) -> Any:
    _, norms = aten._weight_norm_interface(v, length, dim)  # in float32 for narrower types
    return aten._weight_norm_interface_backward(g, v, length, norms, dim)


def _weight_norms() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    yield "weight norm backward", (_weight_norm, ((5, 3, 2), (5, 3, 2), (5, 1, 1)))
    yield "weight norm backward, last axis", (partial(_weight_norm, dim=2), ((5, 3, 2), (5, 3, 2), (1, 1, 2)))


def _upsampled(op: str, size: list[int], source: list[int], *how: Any) -> tuple[Does, Shapes]:
    """A resampling's backward, from a gradient of `size` to an input of `source`."""
    return lambda g: getattr(aten, f"{op}_backward")(g, size, source, *how), ((*source[:2], *size),)


def _padded(kind: str, padding: list[int], shape: tuple[int, ...]) -> tuple[Does, Shapes]:
    axes = len(padding) // 2
    pairs = [padding[2 * (axes - 1 - a)] + padding[2 * (axes - 1 - a) + 1] for a in range(axes)]
    out = (*shape[:2], *(n + p for n, p in zip(shape[2:], pairs, strict=True)))
    backward = getattr(aten, f"{kind}_pad{axes}d_backward")
    return lambda g, x: backward(g, x, padding), (out, shape)


def _resamplings() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    plane, solid = [2, 3, 6, 10], [1, 2, 4, 3, 5]
    for size in ([7, 5], [13, 20], [3, 4]):
        for mode in ("upsample_nearest2d", "_upsample_nearest_exact2d"):
            yield f"{mode} backward from {size}", _upsampled(mode, size, plane)
        for mode in ("upsample_bilinear2d", "upsample_bicubic2d"):
            for corners in (False, True):
                yield f"{mode} backward from {size}, {corners}", _upsampled(mode, size, plane, corners)
    for mode in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
        yield f"{mode} backward, coarser", _upsampled(mode, [4, 3], [1, 2, 11, 10], False)
        yield f"{mode} backward, finer", _upsampled(mode, [9, 13], [1, 2, 6, 7], True)
        yield f"{mode} backward by factors", _upsampled(mode, [4, 17], [1, 2, 10, 10], False, 0.4, 1.7)
    for mode in ("upsample_nearest", "_upsample_nearest_exact"):
        yield f"{mode}1d backward", _upsampled(f"{mode}1d", [11], [1, 3, 6])
        yield f"{mode}3d backward", _upsampled(f"{mode}3d", [5, 7, 9], solid)
    yield (
        "upsample_bilinear2d backward by factors",
        _upsampled("upsample_bilinear2d", [10, 17], [1, 2, 6, 10], False, 1.7, 1.7),
    )
    yield "upsample_linear1d backward", _upsampled("upsample_linear1d", [11], [1, 3, 6], False)
    yield "upsample_trilinear3d backward", _upsampled("upsample_trilinear3d", [5, 7, 9], solid, False)
    for kind in ("reflection", "replication"):
        yield f"{kind} backward, 1-d", _padded(kind, [1, 2], (1, 2, 5))
        yield f"{kind} backward", _padded(kind, [1, 2, 3, 2], (1, 2, 5, 6))
        yield f"{kind} backward, 3-d", _padded(kind, [1, 2, 1, 1, 0, 1], (1, 2, 3, 4, 5))


def _indexings() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    yield "select backward", (lambda g: aten.select_backward(g, [2, 3, 4], 1, -1), ((2, 4),))
    yield "slice backward", (lambda g: aten.slice_backward(g, [2, 3, 9], 2, -7, 8, 3), ((2, 3, 2),))
    yield "diagonal backward", (lambda g: aten.diagonal_backward(g, [4, 2, 5], -1, 0, -1), ((2, 3),))
    yield "diagonal backward above", (lambda g: aten.diagonal_backward(g, [3, 2, 5], 2, 2, 0), ((2, 1),))
    yield "unfold backward", (lambda g: aten.unfold_backward(g, [2, 9, 4], 1, 3, 2), ((2, 4, 4, 3),))
    rows = torch.tensor([[1, 2, 1], [4, 1, 0]])
    yield "embedding backward", (lambda g: aten.embedding_dense_backward(g, rows, 6, -1, False), ((2, 3, 5),))
    yield (
        "embedding backward with padding",
        (
            lambda g: aten.embedding_dense_backward(g, rows, 6, 2, False),
            ((2, 3, 5),),
        ),
    )


def _attention(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *, biased: bool = False) -> Any:
    options: dict[str, Any] = {"scale": 0.4}
    if biased:
        options["attn_mask"] = (q @ k.mT)[:1, :1]
    out, total = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, **options)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
    return backward(g, q, k, v, out, total, 0.0, False, **options)


def _attention_causal(g: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Any:
    out, total = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(g, q, k, v, out, total, 0.0, True)


def _attentions() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    heads = ((2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8))
    yield "attention backward", (_attention, heads)
    yield "attention backward with a bias", (partial(_attention, biased=True), heads)
    yield "attention backward, causal", (_attention_causal, ((2, 3, 5, 8),) * 4)


def _cases() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    for name, does in (*_activations(), *_losses()):
        yield name, (does, (TABLE, TABLE))
    yield "2-d nll", (_nll_2d, (IMAGE, IMAGE))
    yield "2-d nll backward", (_labels_2d, (IMAGE, IMAGE))
    yield "prelu backward", (aten._prelu_kernel_backward, (TABLE, TABLE, (1, 7)))
    yield "glu backward", (lambda g, x: aten.glu_backward(g, x, 1), ((3, 4), (3, 8)))
    yield from _convolutions()
    yield from _poolings()
    yield from _normalizations()
    yield from _recurrent_layers()
    yield from _weight_norms()
    yield from _resamplings()
    yield from _indexings()
    yield from _attentions()
    yield from backward_of_layers()


BACKWARD: Mapping[str, tuple[Does, Shapes]] = dict(_cases())
