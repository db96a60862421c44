"""The NumPy engine: a training step computed by `convscope.reference` alone, forward, backward and optimizer.

Everything is float64, including the model's parameters, so results are stored unrounded and a training resumes bit for
bit. From the same weights and batches it stays within 1e-5 of PyTorch's float64 for hundreds of steps, and of its
float32 too unless roundings are amplified (very small batches of a deep network with Adam can reach 1e-4).
PyTorch only stores the parameters and the optimizer's state; it computes none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from convscope.errors import UsageError
from convscope.reference import training as reference
from convscope.training.recipes import Recipe
from convscope.typing import Array


def _pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    return {"kernel_size": module.kernel_size, "stride": module.stride, "padding": module.padding}


LAYERS: Mapping[type[nn.Module], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    nn.Conv2d: (
        "conv2d",
        lambda m: {"stride": m.stride, "padding": m.padding, "dilation": m.dilation, "groups": m.groups},
    ),
    nn.Linear: ("linear", lambda _: {}),
    nn.ReLU: ("relu", lambda _: {}),
    nn.Tanh: ("tanh", lambda _: {}),
    nn.Softmax: ("softmax", lambda _: {}),
    nn.MaxPool2d: ("max_pool2d", _pooling),
    nn.AvgPool2d: ("avg_pool2d", _pooling),
    nn.Flatten: ("flatten", lambda _: {}),
}
"""Module class -> its name in `convscope.reference.LAYERS`, and a function that gives its settings there."""

PLAIN: Mapping[type[nn.Module], Mapping[str, tuple[Any, ...]]] = {
    nn.Conv2d: {"padding_mode": ("zeros",)},
    nn.Softmax: {"dim": (1, -1)},  # the last layer gives (N, classes)
    nn.MaxPool2d: {"dilation": (1, (1, 1)), "ceil_mode": (False,), "return_indices": (False,)},
    nn.AvgPool2d: {"ceil_mode": (False,), "count_include_pad": (True,), "divisor_override": (None,)},
    nn.Flatten: {"start_dim": (1,), "end_dim": (-1,)},
}
"""The supported values of settings for which the reference has no argument."""

FUNCTIONS: Mapping[Any, str] = {torch.flatten: "flatten", torch.relu: "relu", torch.tanh: "tanh"}
"""Functions that a `forward` may call."""

OPTIMIZERS = ("adam", "adadelta")
LOSSES: Mapping[str, str] = {"cross-entropy": "cross_entropy", "mse": "mse"}


@dataclass(slots=True, eq=False)
class NumpyEngine:
    """Trains a sequential network in NumPy; implements `Engine`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    layers: list[reference.Layer] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = layers_of(self.model)

    def step(self, images: Tensor, labels: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Forward, loss, backward, optimizer: see `Engine`."""
        parameters = dict(self.model.named_parameters())
        numbers = {name: value.detach().numpy() for name, value in parameters.items()}
        loss, slope = reference.LOSSES[LOSSES[self.recipe.loss]]
        values = reference.forward(self.layers, numbers, images.numpy())
        output, target = values[-1], self._target(values[-1], labels.numpy())
        for name, grad in reference.backward(self.layers, numbers, values, slope(output, target)).items():
            parameters[name].grad = torch.from_numpy(grad if share == 1 else grad * share)
        self.optimizer.step()
        return torch.tensor(loss(output, target), dtype=torch.float64), torch.from_numpy(output)

    def _target(self, output: Array, labels: Array) -> Array:
        """The target of the loss: labels; for the squared error class numbers or one-hot rows."""
        if self.recipe.loss != "mse":
            return labels
        return labels[:, None].astype(np.float64) if output.shape[1] == 1 else np.eye(output.shape[1])[labels]


class NumpyOptimizer(torch.optim.Optimizer):
    """An optimizer of `convscope.reference`; its state is kept where PyTorch keeps it, so that snapshots save it."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.update = reference.OPTIMIZERS[recipe.optimizer]
        super().__init__([p for p in model.parameters() if p.requires_grad], {"lr": recipe.lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # there is no closure to call again
        """Update every parameter by its gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                memory = {name: value.numpy() for name, value in self.state[parameter].items()}
                moved, memory = self.update(parameter.numpy(), parameter.grad.numpy(), memory, lr=group["lr"])
                parameter.copy_(torch.from_numpy(moved))
                self.state[parameter] = {name: torch.as_tensor(value) for name, value in memory.items()}


def check_numpy(model: nn.Module, recipe: Recipe) -> None:
    """Reject models and recipes that the NumPy engine cannot train.

    Raises:
        UsageError: an unsupported layer, optimizer, loss or setting.
    """
    layers_of(model)
    if recipe.optimizer not in OPTIMIZERS:
        raise _lacks(f"optimizer {recipe.optimizer}", "optimizers", OPTIMIZERS)
    if recipe.loss not in LOSSES:
        raise _lacks(f"loss {recipe.loss}", "losses", LOSSES)
    for name in ("weight_decay", "label_smoothing"):
        if getattr(recipe, name):
            setting = name.replace("_", " ")
            raise UsageError(f"the NumPy engine does not support {setting}; train with PyTorch, --engine torch.")


def layers_of(model: nn.Module) -> list[reference.Layer]:
    """A sequential model as a list of layers.

    >>> [layer.op for layer in layers_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))]
    ['flatten', 'linear']

    Raises:
        UsageError: an unsupported layer, or a model that is not sequential.
    """
    layers: list[reference.Layer] = []
    last = None
    for node in _graph(model).nodes:
        if node.op == "placeholder" and last is None:
            last = node
        elif node.op in {"call_module", "call_function"} and node.all_input_nodes == [last]:
            layers.append(_layer(model, node))
            last = node
        elif node.op != "output" or node.args[0] is not last:
            raise _not_sequential(model)
    names = [layer.name for layer in layers if layer.name]
    if len(set(names)) < len(names):  # its gradients would have to be added up
        raise _not_sequential(model)
    if "softmax" in [layer.op for layer in layers[:-1]]:
        raise _lacks("Softmax before the last layer", "layers", _names())
    return layers


def _graph(model: nn.Module) -> fx.Graph:
    try:
        return fx.symbolic_trace(model).graph
    except Exception as error:  # the model's own code may raise anything when called with an fx proxy
        raise _not_sequential(model) from error


def _layer(model: nn.Module, node: fx.Node) -> reference.Layer:
    if node.op == "call_function":
        plain = node.target is not torch.flatten or (node.args[1:] == (1,) and not node.kwargs)
        if node.target not in FUNCTIONS or not plain:
            raise _lacks(f"function {getattr(node.target, '__name__', node.target)} in that form", "layers", _names())
        return reference.Layer(FUNCTIONS[node.target])
    name = str(node.target)
    module = model.get_submodule(name)
    kind = type(module)
    if kind not in LAYERS:
        raise _lacks(f"{kind.__name__} ({name})", "layers", _names())
    for setting, allowed in PLAIN.get(kind, {}).items():
        if getattr(module, setting) not in allowed:
            raise _lacks(f"{kind.__name__} with {setting}={getattr(module, setting)!r} ({name})", "layers", _names())
    op, settings = LAYERS[kind]
    return reference.Layer(op, name if list(module.parameters()) else "", settings(module))


def _names() -> list[str]:
    return [kind.__name__ for kind in LAYERS]


def _lacks(what: str, kind: str, known: Any) -> UsageError:
    return UsageError(
        f"the NumPy engine does not support {what}; its {kind} are {', '.join(known)}. "
        "Train with PyTorch, --engine torch."
    )


def _not_sequential(model: nn.Module) -> UsageError:
    return UsageError(
        f"the NumPy engine trains sequential networks, and {type(model).__name__} is not sequential; "
        f"its layers are {', '.join(_names())}. Train with PyTorch, --engine torch."
    )
