"""Training in plain NumPy: a row of layers forward, a row of gradients backward, and one step of an optimizer.

Uses the tutorial operations and their gradients; no torch. Parameters are named as PyTorch names them: a layer
called conv1 has conv1.weight and conv1.bias.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from convscope.errors import UnknownName
from convscope.reference import functional as ops
from convscope.reference.argument_checks import fitting
from convscope.reference.matmul import linear
from convscope.reference.operation import Arguments
from convscope.typing import Array

Params = Mapping[str, Array]
State = dict[str, dict[str, Array]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of a network.

    >>> Layer("conv2d", "conv1", {"padding": 1}).op
    'conv2d'
    """

    op: str
    """A key of `LAYERS`."""
    name: str = ""
    """What its parameters are called; empty where it has none."""
    settings: Arguments = field(default_factory=dict)
    """Its arguments: stride, padding, kernel_size."""


@dataclass(frozen=True, slots=True)
class LayerKind:
    """How one kind of layer works, and how gradients pass through it."""

    forward: Callable[[Array, list[Array], Arguments], Array]
    """(input, its parameters, settings) -> output."""
    backward: Callable[[Array, Array, Array, list[Array], Arguments], tuple[Array, ...]]
    """(gradient of the output, input, output, parameters, settings) -> gradients of the input and of each parameter."""


LAYERS: Mapping[str, LayerKind] = {
    "conv2d": LayerKind(
        lambda x, p, s: ops.conv2d(x, *p, **s), lambda g, x, _y, p, s: ops.conv2d_backward(g, x, p[0], **s)
    ),
    "linear": LayerKind(lambda x, p, _: linear(x, *p), lambda g, x, _y, p, _: ops.linear_backward(g, x, p[0])),
    "relu": LayerKind(lambda x, _p, _: ops.relu(x), lambda g, x, _y, _p, _: (ops.relu_backward(g, x),)),
    "tanh": LayerKind(lambda x, _p, _: ops.tanh(x), lambda g, _x, y, _p, _: (ops.tanh_backward(g, y),)),
    "softmax": LayerKind(lambda x, _p, _: ops.softmax(x), lambda g, _x, y, _p, _: (ops.softmax_backward(g, y),)),
    "max_pool2d": LayerKind(
        lambda x, _, s: ops.max_pool2d(x, **s), lambda g, x, _y, _p, s: (ops.max_pool2d_backward(g, x, **_pooled(s)),)
    ),
    "avg_pool2d": LayerKind(
        lambda x, _, s: ops.avg_pool2d(x, **s), lambda g, x, _y, _p, s: (ops.avg_pool2d_backward(g, x, **_pooled(s)),)
    ),
    "flatten": LayerKind(lambda x, _p, _s: x.reshape(len(x), -1), lambda g, x, _y, _p, _s: (g.reshape(x.shape),)),
}

LOSSES: Mapping[str, tuple[Callable[[Array, Array], float], Callable[[Array, Array], Array]]] = {
    "cross_entropy": (ops.cross_entropy, ops.cross_entropy_backward),
    "mse": (ops.mse, ops.mse_backward),
}
"""The value of a loss and its gradient, each from (outputs, targets)."""


@fitting
def forward(layers: Sequence[Layer], params: Params, x: Array) -> list[Array]:
    """Every value of the network, the input first, the output last.

    >>> net = [Layer("flatten"), Layer("linear", "fc"), Layer("relu")]
    >>> weights = {"fc.weight": np.array([[1.0, -1.0]]), "fc.bias": np.array([0.5])}
    >>> forward(net, weights, np.array([[[3.0], [1.0]]]))[-1]
    array([[2.5]])

    Args:
        layers: The network, in order.
        params: Arrays by name.
        x: A batch, shape (N, ...).

    Raises:
        UnknownName: a layer that is not in `LAYERS`, or a parameter that is not in `params`.
    """
    values = [np.asarray(x, np.float64)]
    for layer in layers:
        values.append(_kind(layer).forward(values[-1], _parameters_of(layer, params), layer.settings))
    return values


@fitting
def backward(layers: Sequence[Layer], params: Params, values: Sequence[Array], grad: Array) -> dict[str, Array]:
    """The gradient of the loss with respect to every parameter.

    >>> net, weights = [Layer("linear", "fc")], {"fc.weight": np.array([[2.0]]), "fc.bias": np.array([0.0])}
    >>> values = forward(net, weights, np.array([[3.0]]))
    >>> grads = backward(net, weights, values, np.array([[1.0]]))
    >>> grads["fc.weight"].tolist(), grads["fc.bias"].tolist()
    ([[3.0]], [1.0])

    Args:
        layers: The network, as `forward` had it.
        params: Its parameters by name.
        values: What `forward` returned.
        grad: Gradient of the loss with respect to the output.
    """
    results: dict[str, Array] = {}
    for layer, x, y in zip(reversed(layers), reversed(values[:-1]), reversed(values[1:]), strict=True):
        grad, *gradients = _kind(layer).backward(grad, x, y, _parameters_of(layer, params), layer.settings)
        results |= dict(zip(_names(layer, params), gradients, strict=False))  # a layer without bias drops its gradient
    return results


@fitting
def step(
    layers: Sequence[Layer], params: Params, state: State, x: Array, target: Array, *,
    loss: str, optimizer: str, **settings: float | tuple[float, float],
) -> tuple[dict[str, Array], State, float]:  # fmt: skip
    """One batch: forward, loss, backward, optimizer.

    >>> net, weights = [Layer("linear", "fc")], {"fc.weight": np.array([[2.0]]), "fc.bias": np.array([0.0])}
    >>> x, target = np.array([[1.0]]), np.array([[0.0]])
    >>> moved, _, loss = step(net, weights, {}, x, target, loss="mse", optimizer="sgd", lr=0.25)
    >>> loss, moved["fc.weight"].tolist()
    (4.0, [[1.0]])

    Args:
        layers: The network.
        params: Its parameters by name; they are not changed.
        state: What the optimizer remembers, by parameter; {} at the start.
        x: The batch, shape (N, ...).
        target: Labels (N,), or values in the output's shape for "mse".
        loss: A key of `LOSSES`.
        optimizer: A key of `OPTIMIZERS`.
        **settings: The optimizer's: lr, and so on.

    Returns:
        New parameters, new state, and the loss before the step.
    """
    value, slope = _named("loss", loss, LOSSES)
    values = forward(layers, params, x)
    grads = backward(layers, params, values, slope(values[-1], target))
    update = _named("optimizer", optimizer, OPTIMIZERS)
    updated_pairs = {name: update(params[name], grads[name], state.get(name, {}), **settings) for name in params}
    return (
        {n: p for n, (p, _) in updated_pairs.items()},
        {n: s for n, (_, s) in updated_pairs.items()},
        value(values[-1], target),
    )


@fitting
def sgd(
    param: Array, grad: Array, state: Mapping[str, Array], lr: float = 1e-3, momentum: float = 0.0
) -> tuple[Array, dict[str, Array]]:
    """Stochastic gradient descent: against the gradient, or against its running sum.

    >>> sgd(np.array([1.0]), np.array([10.0]), {}, lr=0.1)[0]
    array([0.])

    Source: PyTorch documentation, torch.optim.SGD.
    """
    velocity = momentum * state["velocity"] + grad if "velocity" in state else grad
    return param - lr * velocity, {"velocity": velocity} if momentum else {}


@fitting
def adam(
    param: Array, grad: Array, state: Mapping[str, Array], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    """Adam: the running mean of gradients over the root of the running mean of their squares, both unbiased.

    >>> adam(np.array([1.0]), np.array([10.0]), {}, lr=0.1)[0].round(6)
    array([0.9])

    Source: PyTorch documentation, torch.optim.Adam (Kingma and Ba, 2015).
    """
    steps = state.get("steps", np.zeros(())) + 1
    mean = betas[0] * state.get("mean", np.zeros_like(param)) + (1 - betas[0]) * grad
    square = betas[1] * state.get("square", np.zeros_like(param)) + (1 - betas[1]) * grad * grad
    size = np.sqrt(square / (1 - betas[1] ** steps)) + eps
    updated = param - lr * (mean / (1 - betas[0] ** steps)) / size
    return updated, {"steps": steps, "mean": mean, "square": square}


@fitting
def adadelta(
    param: Array, grad: Array, state: Mapping[str, Array], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6
) -> tuple[Array, dict[str, Array]]:
    """Adadelta: steps as large as recent steps, over gradients as large as recent gradients.

    >>> adadelta(np.array([1.0]), np.array([10.0]), {})[0].round(4)
    array([0.9968])

    Source: PyTorch documentation, torch.optim.Adadelta (Zeiler, 2012).
    """
    square = rho * state.get("square", np.zeros_like(param)) + (1 - rho) * grad * grad
    delta = np.sqrt(state.get("moved", np.zeros_like(param)) + eps) / np.sqrt(square + eps) * grad
    mean_square_step = rho * state.get("moved", np.zeros_like(param)) + (1 - rho) * delta * delta
    return param - lr * delta, {"square": square, "moved": mean_square_step}


OPTIMIZERS: Mapping[str, Callable[..., tuple[Array, dict[str, Array]]]] = {
    "sgd": sgd,
    "adam": adam,
    "adadelta": adadelta,
}


def _named(kind: str, name: str, table: Mapping[str, T]) -> T:
    if name not in table:
        raise UnknownName(f"{kind} of the NumPy engine", name, table)
    return table[name]


def _kind(layer: Layer) -> LayerKind:
    return _named("layer", layer.op, LAYERS)


def _names(layer: Layer, params: Params) -> list[str]:
    names = [f"{layer.name}.weight", f"{layer.name}.bias"] if layer.name else []
    if names and names[0] not in params:
        raise UnknownName("parameter", names[0], params)
    return [name for name in names if name in params]


def _parameters_of(layer: Layer, params: Params) -> list[Array]:
    return [params[name] for name in _names(layer, params)]


def _pooled(settings: Arguments) -> Arguments:
    """A pooling's settings as its gradient takes them: the window as rows and columns, no stride for its size."""
    size = settings["kernel_size"]
    stride = settings.get("stride")
    pair = (size, size) if isinstance(size, int) else tuple(size)
    return {"kernel_size": pair, "stride": () if stride is None else stride, "padding": settings.get("padding", 0)}
