"""Updates: one parameter's step by SGD, Adam, AdamW, Adadelta or RMSprop, in the optimizer's own formula.

An update is recorded as one operation, `convscope::adam(param, grad, ...)`, whose first result is the new parameter and
whose others are the optimizer's new state. Batch norm's running statistics are updated too, by the batch.
Source: PyTorch documentation, torch.optim, the algorithm of each.
"""

from collections.abc import Callable, Mapping

import numpy as np

from convscope.expr.call import Call, Cell
from convscope.expr.cells import gather, leaf
from convscope.expr.expr import Apply, Expr, number
from convscope.ops import titles
from convscope.ops.dependencies import as_mask
from convscope.ops.normalization import batch_kernel
from convscope.ops.op import Op
from convscope.ops.pointwise import pointwise_dependencies
from convscope.ops.reductions import mean_of, variance_of
from convscope.typing import Array


def sgd(call: Call, cell: Cell) -> Expr:
    """The parameter minus the learning rate times its gradient, or times the running sum of its gradients (momentum).

    >>> import numpy as np
    >>> from convscope.expr.call import Operand
    >>> p, g = (Operand.of(np.array([x]), name) for x, name in ((1.0, "fc.weight"), (10.0, "fc.weight.grad")))
    >>> settings = dict(lr=0.01, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False)
    >>> sgd(Call("convscope::sgd", dict(param=p, grad=g, momentum_buffer=None, **settings), (1,)), (0,)).value()
    0.9
    """
    gradient = _gradient(call, cell)
    velocity = gradient
    if call["momentum"] and call["momentum_buffer"] is not None:
        velocity = _momentum(call, cell, gradient, "dampening")
    if call.output:
        return velocity if call["momentum"] else _moved(gradient)
    direction = velocity
    if call["momentum"] and call["nesterov"]:
        parts = {"gradient": gradient, "momentum": _setting(call, "momentum"), "velocity": velocity}
        direction = Apply("look_ahead", parts, "the gradient plus the momentum ahead")
    return _descend(call, cell, direction)


def adam(call: Call, cell: Cell) -> Expr:
    """A step along the running mean of the gradients, divided by their root mean square, both bias-corrected.

    Source: Kingma and Ba 2015; with decoupled decay (AdamW) Loshchilov and Hutter 2019.
    """
    decoupled = call.op.endswith("adamw")
    gradient = _gradient(call, cell, decays=not decoupled)
    mean = _mean(call, cell, "beta1", "exp_avg", gradient)
    square = _square(call, cell, "beta2", "exp_avg_sq", gradient)
    if call.output:
        return (mean, square)[call.output - 1]
    step = number(call["step"], "step")
    unbiased: dict[str, Expr] = {
        name: Apply("unbiased", {"mean": running, "beta": _setting(call, beta), "step": step}, note)
        for name, running, beta, note in (
            ("gradient", mean, "beta1", "the bias-corrected mean"),
            ("square", square, "beta2", "the bias-corrected mean square"),
        )
    }
    direction = Apply("scaled", {**unbiased, "eps": _setting(call, "eps")}, "mean gradient over its root mean square")
    return _descend(call, cell, direction, decays=decoupled)


def adadelta(call: Call, cell: Cell) -> Expr:
    """A step as large as recent steps, for a gradient as large as recent gradients.

    Source: Zeiler 2012.
    """
    gradient = _gradient(call, cell)
    square = _square(call, cell, "rho", "square_avg", gradient)
    parts: dict[str, Expr] = {"moved": leaf(call["acc_delta"], cell), "square": square, "eps": _setting(call, "eps")}
    direction = Apply("ratio_of_roots", {**parts, "gradient": gradient}, "the gradient, scaled to the size of steps")
    if call.output == 1:
        return square
    if call.output == 2:
        return _square(call, cell, "rho", "acc_delta", direction)
    return _descend(call, cell, direction)


def rmsprop(call: Call, cell: Cell) -> Expr:
    """The gradient over the root of the running mean of its squares; centred, less the square of its running mean.

    Source: Hinton 2012, lecture 6e; Graves 2013 for the centred form.
    """
    gradient = _gradient(call, cell)
    square: Expr = _square(call, cell, "alpha", "square_avg", gradient)
    if call.output == 1:
        return square
    if call["centered"]:
        mean = _mean(call, cell, "alpha", "grad_avg", gradient)
        if call.output == 3:
            return mean
        square = Apply("centred_square", {"square": square, "mean": mean}, "the mean square around the mean")
    parts = {"gradient": gradient, "square": square, "eps": _setting(call, "eps")}
    direction: Expr = Apply("scaled", parts, "the gradient over its root mean square")
    if call["momentum"]:
        direction = _momentum(call, cell, direction, "")
    return direction if call.output else _descend(call, cell, direction)


def running_statistic(call: Call, cell: Cell) -> Expr:
    """Batch norm's running mean or variance, moved towards that of the batch.

    >>> import numpy as np
    >>> from convscope.expr.call import Operand
    >>> x, mean = Operand.of(np.full((2, 1, 2), 3.0), "conv1"), Operand.of(np.ones(1), "bn1.running_mean", "parameter")
    >>> operands = dict(running_mean=mean, input=x, momentum=0.5)
    >>> running_statistic(Call("convscope::running_mean", operands, (1,)), (0,)).value()
    2.0

    Source: PyTorch documentation, torch.nn.BatchNorm2d.
    """
    image, name = call["input"], call.op.partition("::")[2]
    cells = gather(image, [range(n) if axis != 1 else cell[0] for axis, n in enumerate(image.shape)])
    kernel = batch_kernel(call)
    batch: Expr = mean_of(cells, kernel) if name == "running_mean" else variance_of(cells, 1, kernel)
    parts = {"momentum": _setting(call, "momentum"), "before": leaf(call[name], cell), "batch": batch}
    return Apply("moving_average", parts)


def running_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The whole channel of the whole batch, and the statistic before."""
    line = as_mask(mask).reshape(1, -1, *[1] * (len(call["input"].shape) - 2))
    reads = {"input": np.broadcast_to(line, call["input"].shape).copy()}
    return {name: reads.get(name, as_mask(mask)) for name in varies}


def _setting(call: Call, name: str) -> Expr:
    """A setting of the optimizer; the functions count its rounding themselves."""
    return number(call[name], name, call.dtype)


def _gradient(call: Call, cell: Cell, *, decays: bool = True) -> Expr:
    gradient: Expr = leaf(call["grad"], cell)
    if call["maximize"]:
        gradient = Apply("neg", {"x": gradient}, "the negated gradient, to maximize")
    if not decays or not call["weight_decay"]:
        return gradient
    parts = {"gradient": gradient, "weight_decay": _setting(call, "weight_decay"), "before": leaf(call["param"], cell)}
    return Apply("with_decay", parts, "the gradient with weight decay")


def _mean(call: Call, cell: Cell, rate: str, state: str, gradient: Expr) -> Apply:
    parts = {"beta": _setting(call, rate), "before": leaf(call[state], cell), "gradient": gradient}
    return Apply("running_mean", parts, "running mean of the gradients")


def _square(call: Call, cell: Cell, rate: str, state: str, gradient: Expr) -> Apply:
    parts = {"beta": _setting(call, rate), "before": leaf(call[state], cell), "gradient": gradient}
    averaged = "steps" if state == "acc_delta" else "gradients"
    return Apply("running_square", parts, f"running mean of the {averaged}' squares")


def _momentum(call: Call, cell: Cell, gradient: Expr, dampening: str) -> Expr:
    damped = _setting(call, dampening) if dampening else number(0, "dampening", call.dtype)
    if call["momentum_buffer"] is None:
        return gradient
    before = leaf(call["momentum_buffer"], cell)
    parts = {"momentum": _setting(call, "momentum"), "before": before, "dampening": damped, "gradient": gradient}
    return Apply("momentum", parts, "running sum of the gradients")


def _descend(call: Call, cell: Cell, direction: Expr, *, decays: bool = False) -> Apply:
    before: Expr = leaf(call["param"], cell)
    if decays and call["weight_decay"]:
        parts = {"before": before, "lr": _setting(call, "lr"), "weight_decay": _setting(call, "weight_decay")}
        before = Apply("decay", parts, "the parameter, decayed")
    return Apply("descend", {"before": before, "lr": _setting(call, "lr"), "direction": direction})


def _moved(expr: Expr) -> Expr:
    return Apply("identity", {"x": expr})


_RULES: Mapping[str, Callable[[Call, Cell], Expr]] = {
    "convscope::sgd": sgd,
    "convscope::adam": adam,
    "convscope::adamw": adam,
    "convscope::adadelta": adadelta,
    "convscope::rmsprop": rmsprop,
}
UPDATES: Mapping[str, Op] = {
    **{name: Op(rule, pointwise_dependencies, title=titles.update) for name, rule in _RULES.items()},
    **{
        f"convscope::{name}": Op(running_statistic, running_dependencies, title=titles.running_statistic)
        for name in ("running_mean", "running_var")
    },
}
