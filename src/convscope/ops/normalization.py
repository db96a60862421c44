"""Normalization: batch, layer and group normalization, by running statistics or by those of the input itself."""

import numpy as np

from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import Span, gather, leaf
from convscope.expr.expr import Apply, Expr, Leaf, number
from convscope.ops.dependencies import as_mask
from convscope.ops.reductions import mean_of, variance_of
from convscope.ops.vjp import VJP, Varies, first_result, only, tangent, wide
from convscope.typing import Array


def batch_norm(call: Call, cell: Cell) -> Expr:
    """Shift and scale each channel: by its running statistics, or in training by those of this batch.

    >>> import numpy as np
    >>> x = Operand.of(np.full((1, 1, 2, 2), 3.0), "conv1")
    >>> mean, var = (Operand.of(np.ones(1), f"bn1.running_{name}", "parameter") for name in ("mean", "var"))
    >>> settings = dict(weight=None, bias=None, running_mean=mean, running_var=var, training=False, eps=0.0)
    >>> batch_norm(Call("native_batch_norm", dict(input=x, **settings), (1, 1, 2, 2)), (0, 0, 1, 1)).value()
    2.0

    Source: Ioffe and Szegedy 2015; PyTorch documentation, torch.nn.BatchNorm2d.
    """
    image = call["input"]
    training = bool(call.get("training", call.op.endswith("batch_norm_legit")))
    if call.output and not training:
        raise LookupError("in evaluation, batch norm has only one result")
    channel = cell[1] if call.output == 0 else cell[0]
    if training or call.get("running_mean") is None:
        cells = gather(image, [range(n) if axis != 1 else channel for axis, n in enumerate(image.shape)])
        kernel = batch_kernel(call)
        mean: Expr = mean_of(cells, kernel)
        var: Leaf | Apply = variance_of(cells, kernel=kernel)
    else:
        mean, var = leaf(call["running_mean"], (channel,)), leaf(call["running_var"], (channel,))
    statistics = (_stored(mean, call), _stored(var, call)) if training else (mean, var)
    if call.output:
        return _statistic(call, *statistics)
    if _is_narrow(call) and call.extra.get("layout") == "other":
        x, average, spread = (_in_steps(part) for part in (leaf(image, cell), *statistics))
        return _normalized(call, x, average, spread, (channel,))
    return _normalized(call, leaf(image, cell), *statistics, (channel,))


def batch_kernel(call: Call) -> str:
    """How the kernel finds the mean and variance of a batch, as a name of `KERNELS`."""
    steady = call["input"].source.dtype == "float32" and call.extra.get("layout") == "contiguous"
    return "variance" if steady else "variance_in_passes"


def layer_norm(call: Call, cell: Cell) -> Expr:
    """Shift and scale by the mean and variance of the last axes of this image; weight and bias for each cell.

    Source: Ba, Kiros and Hinton 2016; PyTorch documentation, torch.nn.LayerNorm.
    """
    image = call["input"]
    lead = len(image.shape) - len(call["normalized_shape"])
    cells = gather(image, [*cell[:lead], *map(range, image.shape[lead:])])
    mean, var = mean_of(cells), variance_of(cells)
    if call.output:
        return _statistic(call, mean, var)
    return _normalized(call, leaf(image, cell), mean, var, cell[lead:])


def group_norm(call: Call, cell: Cell) -> Expr:
    """Shift and scale by the mean and variance of a group of channels; weight and bias for each channel.

    Source: Wu and He 2018; PyTorch documentation, torch.nn.GroupNorm.
    """
    image = call["input"]
    size = image.shape[1] // call["group"]
    group = cell[1] // size if call.output == 0 else cell[1]
    cells = gather(image, [cell[0], Span(group * size, np.arange(size)), *map(range, image.shape[2:])])
    kernel = "variance" if call.extra.get("layout") == "contiguous" else "variance_at_once"
    mean, var = mean_of(cells, kernel), variance_of(cells, kernel=kernel)
    if call.output:
        return _statistic(call, mean, var)
    return _normalized(call, leaf(image, cell), mean, var, (cell[1],))


def _normalized(call: Call, x: Expr, mean: Expr, var: Expr, affine_cell: Cell) -> Apply:
    eps = number(call["eps"], "eps")
    stored = isinstance(var, Apply) and var.function == "stored"
    parts: dict[str, Expr] = {"x": x, "mean": mean, "var": var, "eps": Apply("stored", {"x": eps}) if stored else eps}
    return _affine(parts, call["weight"], call["bias"], affine_cell)


def _stored(part: Expr, call: Call) -> Expr:
    """A statistic as batch norm stores it between its two passes: in the narrow type, where its weights are narrow."""
    return Apply("stored", {"x": part}) if _is_narrow(call) else part


def _is_narrow(call: Call) -> bool:
    """Whether image and weights are both of a narrow type."""
    weight = call["weight"]
    return bool(call.precision.inner) and (weight is None or weight.source.dtype == call.dtype)


def _in_steps(part: Expr) -> Apply:
    """A number of a kernel that rounds each operation of the normalization to the narrow type.

    Of memory in another order than contiguous or channels last, the kernel rounds x - mean and both products (3 u), and
    adds eps, takes the root and divides (3 u more of the rate). Twice stored, x and mean move by 4 u, and the variance
    moves the rate by 2 u.
    Source: PyTorch, aten/src/ATen/native/Normalization.cpp, batch_norm_cpu_transform_input_template.
    """
    return Apply("stored", {"x": Apply("stored", {"x": part})})


def _affine(parts: dict[str, Expr], weight: Operand | None, bias: Operand | None, affine_cell: Cell) -> Apply:
    name = "normalize"
    if weight is not None or bias is not None:
        name = "normalize_weight"
        parts["weight"] = number(1, "weight") if weight is None else leaf(weight, affine_cell)
    if bias is not None:
        name = "normalize_affine"
        parts["bias"] = leaf(bias, affine_cell)
    return Apply(name, {**parts})


def _statistic(call: Call, mean: Expr, var: Expr) -> Expr:
    """The second and third result: the mean and 1 / sqrt(variance + eps)."""
    if call.output == 1:
        return mean
    return Apply("inverse_std", {"var": var, "eps": number(call["eps"], "eps")})


def batch_norm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """In evaluation a scale for each channel; the constant is bias - mean * scale."""
    first_result(call)
    only(call, varies, "input", "weight", "bias")
    image = wide(call["input"])
    line = [1, -1] + [1] * (image.ndim - 2)
    scale, bias = (_line(call[name], line, empty) for name, empty in (("weight", 1.0), ("bias", 0.0)))
    training = bool(call.get("training", call.op.endswith("batch_norm_legit")))
    axes = tuple(a for a in range(image.ndim) if a != 1)
    if training or call.get("running_mean") is None:
        deviation, root = _centred(image, axes, call["eps"])
        learnt = _learnt(call, varies, weights, deviation / root, axes)
        return _with_learnt(_own_statistics(call, weights, axes, scale, bias), learnt, call, varies)
    root = np.sqrt(wide(call["running_var"]).reshape(line) + call["eps"])
    mean = wide(call["running_mean"]).reshape(line)
    learnt = _learnt(call, varies, weights, (image - mean) / root, axes)
    shift = bias - mean * scale / root
    return _with_learnt(VJP({"input": weights * scale / root}, float(np.sum(weights * shift))), learnt, call, varies)


def layer_norm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Over the last axes."""
    first_result(call)
    only(call, varies, "input", "weight", "bias")
    image = wide(call["input"])
    axes = tuple(range(image.ndim - len(call["normalized_shape"]), image.ndim))
    scale = 1.0 if call["weight"] is None else wide(call["weight"])
    bias = 0.0 if call["bias"] is None else wide(call["bias"])
    deviation, root = _centred(image, axes, call["eps"])
    learnt = _learnt(call, varies, weights, deviation / root, tuple(range(axes[0])))
    return _with_learnt(_own_statistics(call, weights, axes, np.asarray(scale), np.asarray(bias)), learnt, call, varies)


def group_norm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Over groups of channels."""
    first_result(call)
    only(call, varies, "input", "weight", "bias")
    image = wide(call["input"])
    grouped = (image.shape[0], call["group"], -1)
    line = [1, -1] + [1] * (image.ndim - 2)
    scale, bias = (_line(call[name], line, empty) for name, empty in (("weight", 1.0), ("bias", 0.0)))
    scaled_weights = (weights * scale).reshape(grouped)
    deviation, root = _centred(image.reshape(grouped), (2,), call["eps"])
    gradient = _through(scaled_weights, deviation, root, (2,)).reshape(image.shape)
    normal = (deviation / root).reshape(image.shape)
    learnt = _learnt(call, varies, weights, normal, tuple(a for a in range(image.ndim) if a != 1))
    image_vjp = tangent({"input": gradient}, call, float(np.sum(weights * (normal * scale + bias))))
    return _with_learnt(image_vjp, learnt, call, varies)


def _own_statistics(call: Call, weights: Array, axes: tuple[int, ...], scale: Array, bias: Array) -> VJP:
    image = wide(call["input"])
    deviation, root = _centred(image, axes, call["eps"])
    gradient = _through(weights * scale, deviation, root, axes)
    return tangent({"input": gradient}, call, float(np.sum(weights * (deviation / root * scale + bias))))


def _learnt(call: Call, varies: Varies, weights: Array, normal: Array, axes: tuple[int, ...]) -> dict[str, Array]:
    """The gradients of the learnt scale and shift, where these vary: sums over what shares one of them."""
    sums = {"weight": weights * normal, "bias": weights}
    return {
        name: products.sum(axis=axes).reshape(call[name].shape) for name, products in sums.items() if name in varies
    }


def _with_learnt(image: VJP, learnt: dict[str, Array], call: Call, varies: Varies) -> VJP:
    """The gradients of the operands that vary; with learnt ones the tangent in all of them."""
    if not learnt:
        return image
    gradients = {**(image.gradients if "input" in varies else {}), **learnt}
    by_image = 0.0 if "input" in varies else float(np.sum(image.gradients["input"] * wide(call["input"])))
    by_learnt = sum(float(np.sum(gradient * wide(call[name]))) for name, gradient in learnt.items())
    return VJP(gradients, image.constant + by_image - by_learnt, linear=False)


def _centred(image: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    deviation = image - image.mean(axis=axes, keepdims=True)
    return deviation, np.sqrt((deviation**2).mean(axis=axes, keepdims=True) + eps)


def _through(scaled_weights: Array, deviation: Array, root: Array, axes: tuple[int, ...]) -> Array:
    """The weights through x -> (x - mean) / root, whose mean and root depend on x."""
    by_mean = scaled_weights - scaled_weights.mean(axis=axes, keepdims=True)
    by_rate = deviation / root**2 * (scaled_weights * deviation).mean(axis=axes, keepdims=True)
    return np.asarray((by_mean - by_rate) / root)


def _line(operand: Operand | None, line: list[int], empty: float) -> Array:
    return np.asarray(empty) if operand is None else wide(operand).reshape(line)


def batch_norm_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """By recorded statistics the same cell; by its own the whole channel of the whole batch."""
    uses_batch = own_statistics(call)
    shape = call["input"].shape
    if call.output:  # the statistics, one for each channel
        line = as_mask(mask).reshape(1, -1, *[1] * (len(shape) - 2))
    else:
        line = as_mask(mask)
        line = line.max(axis=tuple(a for a in range(line.ndim) if a != 1), keepdims=True) if uses_batch else line
    return _with_scale(call, varies, np.broadcast_to(line, shape).copy())


def own_statistics(call: Call) -> bool:
    """Whether a batch norm takes mean and variance from the batch, as in training."""
    return bool(call.get("training", call.op.endswith("batch_norm_legit"))) or call.get("running_mean") is None


def layer_norm_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells along the last axes."""
    shape = call["input"].shape
    axes = tuple(range(len(shape) - len(call["normalized_shape"]), len(shape)))
    row_mask = as_mask(mask).max(axis=axes, keepdims=True)
    return _with_scale(call, varies, np.broadcast_to(row_mask, shape).copy())


def group_norm_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells of a group of channels."""
    shape = call["input"].shape
    grouped = as_mask(mask).reshape(shape[0], call["group"], -1)
    wide = int(np.prod(shape)) // (shape[0] * call["group"])
    group_mask = np.broadcast_to(grouped.max(axis=2, keepdims=True), (shape[0], call["group"], wide))
    return _with_scale(call, varies, group_mask.reshape(shape).copy())


def _with_scale(call: Call, varies: frozenset[str], image: Array) -> dict[str, Array]:
    """A scale or shift that itself depends on the image is taken to be read whole."""
    operands = call.operands()
    affine_masks = {name: np.ones(operands[name].shape, np.float32) for name in varies - {"input"}}
    return {"input": image, **affine_masks} if "input" in varies else affine_masks
