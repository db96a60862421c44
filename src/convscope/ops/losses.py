"""Losses: the negative log-likelihood of the labels, and the mean squared error."""

import numpy as np

from convscope.expr.call import Array, Call, Cell, Operand, Source, broadcast_cell, indices
from convscope.expr.cells import broadcast, leaf
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.ops.dependencies import as_mask, everything
from convscope.ops.vjp import VJP, Varies, first_result, fitted, only, wide

NONE, MEAN = 0, 1
"""ATen's numbers for `reduction`; 2 is the sum."""


def nll_loss(call: Call, cell: Cell) -> Expr:
    """Minus the log-probability of each label, averaged; the second result is the sum of the labels' weights.

    >>> logs = Operand.of(np.log([[0.25, 0.75], [0.5, 0.5]]), "log_softmax")
    >>> labels = Operand.of(np.array([1, 0]), "target", "input")
    >>> given = {"self": logs, "target": labels, "weight": None, "reduction": 1, "ignore_index": -100}
    >>> round(nll_loss(Call("nll_loss_forward", given, (), "float64"), ()).value(), 4)
    0.4904

    Source: PyTorch documentation, torch.nn.NLLLoss.
    """
    logs, labels, at = call["self"], *_counted(call)
    weight = call["weight"]
    if call.output:
        if weight is None or call["reduction"] == NONE:
            return number(len(labels) if call["reduction"] != NONE else 0, "labels that count")
        return Dot(_weights(weight, labels), note=f"the weights of {len(labels):,} labels")
    if call["reduction"] == NONE:
        return _of_one(call, cell)
    chosen = Cells(logs.array[indices(at)].astype(np.float64), logs.source, at, (len(at),))
    scales = None if weight is None else _weights(weight, labels)
    total = 1.0
    if call["reduction"] == MEAN:
        total = float(len(labels)) if scales is None else float(scales.values.sum())
    what = f"minus the log-probabilities of {len(labels):,} labels"
    note = f"{what}, averaged" if call["reduction"] == MEAN else f"{what}, added up"
    extra = 0 if scales is None else len(labels) + 1  # the sum of the weights is rounded too
    return Dot(chosen, scales, scale=-1.0, divisor=total, note=note, extra=extra)


def _counted(call: Call) -> tuple[Array, Array]:
    """The labels that count, (T,), and the cell of each one's log-probability, (T, axes)."""
    target = call["target"].array
    places = np.argwhere(target != call["ignore_index"]) if target.ndim else np.zeros((1, 0), np.int64)
    labels = target[indices(places)] if target.ndim else target[None]
    axis = 1 if target.ndim else 0
    return labels, np.insert(places, axis, labels, axis=1)


def _weights(weight: Operand, labels: Array) -> Cells:
    return Cells(weight.array[labels].astype(np.float64), weight.source, labels[:, None], (len(labels),))


def _of_one(call: Call, cell: Cell) -> Expr:
    """The loss of one image."""
    label = int(call["target"].array[cell])
    if label == call["ignore_index"]:
        return number(0, f"label {label} is ignored")
    chosen = leaf(call["self"], (*cell[:1], label, *cell[1:]) if cell else (label,))
    loss = Apply("neg", {"x": chosen}, f"the label is {label}")
    return loss if call["weight"] is None else Apply("mul", {"x": loss, "y": leaf(call["weight"], (label,))})


def nll_loss_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the label's log-probability alone."""
    first_result(call)
    only(call, varies, "self")
    labels, at = _counted(call)
    scales = np.ones(len(labels)) if call["weight"] is None else wide(call["weight"])[labels]
    total = scales.sum() if call["reduction"] == MEAN else 1.0
    arriving = weights if call["reduction"] != NONE else weights[indices(np.delete(at, 1, axis=1))]
    gradient = np.zeros(call["self"].shape)
    gradient[indices(at)] = -scales / total * arriving
    return VJP({"self": gradient})


def mse_loss(call: Call, cell: Cell) -> Expr:
    """The squares of the differences, averaged."""
    x, target = call["self"], call["target"]
    if call["reduction"] == NONE:
        return Apply("square", {"x": _difference(call, cell)})
    shape = np.broadcast_shapes(x.shape, target.shape)
    at = np.argwhere(np.ones(shape, bool)).reshape(-1, len(shape))
    values = (wide(x) - wide(target)).ravel()
    errors = call.precision.sum * np.abs(values)
    source = Source("difference", "computed", shape, call.dtype)
    apart = Cells(values, source, at, shape, errors=errors, derive=lambda i: _difference(call, tuple(map(int, at[i]))))
    mean = call["reduction"] == MEAN
    note = f"{len(at):,} differences from the target, squared and {'averaged' if mean else 'added up'}"
    return Dot(apart, apart, divisor=float(len(at)) if mean else 1.0, note=note)


def _difference(call: Call, cell: Cell) -> Apply:
    x, target = (
        leaf(call[name], broadcast_cell(cell, call[name].shape)) if call[name].shape else broadcast(call[name], (), "")
        for name in ("self", "target")
    )
    parts: dict[str, Leaf] = {"x": x, "y": target}
    return Apply("sub", {**parts}, "the difference from the target")


def mse_loss_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Twice each difference, divided by how many there are where the loss is a mean."""
    only(call, varies, "self", "target")
    apart = wide(call["self"]) - wide(call["target"])
    slope = 2 * apart * weights / (max(apart.size, 1) if call["reduction"] == MEAN else 1)
    signed = {"self": slope, "target": -slope}
    value = float(np.sum(slope * apart)) / 2
    gradients = {name: fitted(signed[name], call[name].shape) for name in varies}
    linear = sum(float(np.sum(gradient * wide(call[name]))) for name, gradient in gradients.items())
    return VJP(gradients, value - linear, linear=False)


def loss_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The labels' log-probabilities alone."""
    if call.op == "mse_loss" or call["reduction"] == NONE or call.output:
        return everything(call, mask, varies)
    result = np.zeros(call["self"].shape)
    result[indices(_counted(call)[1])] = mask.max()
    return {**everything(call, mask, varies), **({"self": as_mask(result)} if "self" in varies else {})}
