"""Normalization: batch, layer and group normalization, by recorded statistics or by those of the input itself."""

from convscope.rules.call import Call, Cell, Operand
from convscope.rules.expr import Apply, Expr, Leaf, number
from convscope.rules.gather import leaf, outer
from convscope.rules.reductions import mean_of, variance_of


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
        cells = outer(image, [range(n) if axis != 1 else channel for axis, n in enumerate(image.shape)])
        steady = image.source.dtype == "float32" and call.extra.get("layout") == "contiguous"
        kernel = "variance" if steady else "variance_in_passes"
        mean: Expr = mean_of(cells, kernel)
        var: Leaf | Apply = variance_of(cells, kernel=kernel)
    else:
        mean, var = leaf(call["running_mean"], (channel,)), leaf(call["running_var"], (channel,))
    kept = (_kept(mean, call), _kept(var, call)) if training else (mean, var)
    if call.output:
        return _statistic(call, *kept)
    return _normalized(call, leaf(image, cell), *kept, (channel,))


def layer_norm(call: Call, cell: Cell) -> Expr:
    """Shift and scale by the mean and variance of the last axes of this image; weight and bias for each cell.

    Source: Ba, Kiros and Hinton 2016; PyTorch documentation, torch.nn.LayerNorm.
    """
    image = call["input"]
    lead = len(image.shape) - len(call["normalized_shape"])
    cells = outer(image, [*cell[:lead], *map(range, image.shape[lead:])])
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
    cells = outer(image, [cell[0], range(group * size, (group + 1) * size), *map(range, image.shape[2:])])
    kernel = "variance" if call.extra.get("layout") == "contiguous" else "variance_at_once"
    mean, var = mean_of(cells, kernel), variance_of(cells, kernel=kernel)
    if call.output:
        return _statistic(call, mean, var)
    return _normalized(call, leaf(image, cell), mean, var, (cell[1],))


def _normalized(call: Call, x: Leaf, mean: Expr, var: Expr, place: Cell) -> Apply:
    eps = number(call["eps"], "eps")
    stored = isinstance(var, Apply) and var.function == "stored"
    parts = {"x": x, "mean": mean, "var": var, "eps": Apply("stored", {"x": eps}) if stored else eps}
    return _affine(parts, call["weight"], call["bias"], place)


def _kept(part: Expr, call: Call) -> Expr:
    """A statistic as batch norm stores it between its two passes: in the narrow type, where its weights are narrow."""
    weight = call["weight"]
    narrow = call.precision.inner and (weight is None or weight.source.dtype == call.dtype)
    return Apply("stored", {"x": part}) if narrow else part


def _affine(parts: dict[str, Expr], weight: Operand | None, bias: Operand | None, place: Cell) -> Apply:
    name = "normalize"
    if weight is not None or bias is not None:
        name = "normalize_weight"
        parts["weight"] = number(1, "weight") if weight is None else leaf(weight, place)
    if bias is not None:
        name = "normalize_affine"
        parts["bias"] = leaf(bias, place)
    return Apply(name, {**parts})


def _statistic(call: Call, mean: Expr, var: Expr) -> Expr:
    """The second and third result: the mean and 1 / sqrt(variance + eps)."""
    if call.output == 1:
        return mean
    return Apply("inverse_std", {"var": var, "eps": number(call["eps"], "eps")})
