"""Engines: what computes one training step, forward, backward and optimizer: PyTorch, or NumPy.

The NumPy engine computes by `convscope.reference` alone, for the networks of the tutorials.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn

from convscope.errors import TrainingError, UnknownName, UsageError
from convscope.reference import training as reference
from convscope.training.objectives import Loss, Stepper, make_optimizer
from convscope.training.outputs import refusal, scores_of
from convscope.training.recipes import Recipe
from convscope.training.runtime import Runtime, make_runtime
from convscope.typing import Array

ENGINES = ("torch", "numpy")


class Engine(Protocol):
    """Trains a model by one batch at a time."""

    def step(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Forward, loss, backward, optimizer step; updates the model's weights.

        Args:
            images: Normalized for the model, shape (n, C, H, W).
            labels: Shape (n,).
            share: These images as a fraction of the whole batch: less than 1 with several processes, or if some
                images cannot be read.

        Returns:
            The loss before the step, and the outputs (n, K).
        """


@dataclass(slots=True, eq=False)
class TorchEngine:
    """PyTorch's autograd and optimizers, on any device, in one process or several."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    runtime: Runtime
    joined: nn.Module = field(init=False)
    stepper: Stepper = field(init=False)

    def __post_init__(self) -> None:
        self.joined, self.stepper = self.runtime.setup(self.model, self.optimizer)

    def step(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """See `Engine`."""
        with self.runtime.autocast():
            try:
                joined = self.joined(images)
            except Exception as error:
                raise refusal(self.model, images, error) from error
            output = scores_of(joined, len(images))
            if not output.requires_grad:
                raise TrainingError(
                    "the model's output has no gradient (its forward uses argmax, detach, NumPy or no_grad), so "
                    "nothing can be learned from it; let forward return the scores themselves."
                )
            loss = self.loss(output, labels)
        self.stepper.zero_grad()
        self.runtime.backward(loss, share)
        self.stepper.step()
        return loss.detach(), output.detach()


def rehearsal(model: nn.Module, loss: Loss, runtime: Runtime, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A function that runs forward, loss and backward on a copy of a model, to measure how long a step takes."""
    copy = deepcopy(model)

    def step() -> None:
        copy.zero_grad()
        with runtime.autocast():
            output = loss(scores_of(copy(images), len(images)), labels)
        torch.autograd.backward(output)

    return step


def check_engine(engine: str, device: str | None, precision: str | None) -> tuple[str, str]:
    """The device and precision to train with; the defaults of PyTorch's engine are "auto" and "float32".

    >>> check_engine("numpy", None, None)
    ('cpu', 'float64')

    Raises:
        UnknownName: no engine has this name.
        UsageError: a device or precision that the NumPy engine does not have.
    """
    if engine not in ENGINES:
        raise UnknownName("engine", engine, ENGINES)
    if engine == "torch":
        return device or "auto", precision or "float32"
    for name, value, supported in (("device", device, ("auto", "cpu")), ("precision", precision, ("float64",))):
        if value not in {None, *supported}:
            raise UsageError(
                f"the NumPy engine calculates on the CPU in float64, not with {name} {value}; leave it out."
            )
    return "cpu", "float64"


def runtime_for(engine: str, device: str, precision: str) -> Runtime:
    """The runtime of this process.

    Raises:
        UsageError: several processes with the NumPy engine.
    """
    runtime = make_runtime(device, precision)
    if engine == "numpy" and runtime.world > 1:
        raise UsageError("the NumPy engine trains in one process; start it without torchrun.")
    return runtime


def make_engine(
    engine: str, model: nn.Module, recipe: Recipe, loss: Loss, runtime: Runtime
) -> tuple[Engine, torch.optim.Optimizer]:
    """The engine by name, and the optimizer that holds its state."""
    if engine == "numpy":
        mover = NumpyOptimizer(model, recipe)
        return NumpyEngine(model, mover, recipe), mover
    optimizer = make_optimizer(model, recipe)
    return TorchEngine(model, optimizer, loss, runtime), optimizer


# The NumPy engine


def _pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, object]:
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

PLAIN: Mapping[type[nn.Module], Mapping[str, tuple[object, ...]]] = {
    nn.Conv2d: {"padding_mode": ("zeros",)},
    nn.Softmax: {"dim": (1, -1)},  # the last layer gives (N, classes)
    nn.MaxPool2d: {"dilation": (1, (1, 1)), "ceil_mode": (False,), "return_indices": (False,)},
    nn.AvgPool2d: {"ceil_mode": (False,), "count_include_pad": (True,), "divisor_override": (None,)},
    nn.Flatten: {"start_dim": (1,), "end_dim": (-1,)},
}
"""The supported values of settings for which the reference has no argument."""

FUNCTIONS: Mapping[object, str] = {torch.flatten: "flatten", torch.relu: "relu", torch.tanh: "tanh"}
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
                updated, memory = self.update(parameter.numpy(), parameter.grad.numpy(), memory, lr=group["lr"])
                parameter.copy_(torch.from_numpy(updated))
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


def _lacks(feature: str, kind: str, supported: Any) -> UsageError:
    return UsageError(
        f"the NumPy engine does not support {feature}; its {kind} are {', '.join(supported)}. "
        "Train with PyTorch, --engine torch."
    )


def _not_sequential(model: nn.Module) -> UsageError:
    return UsageError(
        f"the NumPy engine trains sequential networks, and {type(model).__name__} is not sequential; "
        f"its layers are {', '.join(_names())}. Train with PyTorch, --engine torch."
    )
