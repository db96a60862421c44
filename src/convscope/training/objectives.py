"""Objectives: the losses and optimizers by name, and optimizer steps without the overhead that PyTorch adds."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from convscope.errors import TrainingError, UnknownName
from convscope.training.recipes import Recipe


class Stepper(Protocol):
    """Updates the weights: an optimizer, or an equivalent of one."""

    def zero_grad(self) -> None:
        """Clear the gradients."""

    def step(self) -> Any:
        """Update the weights by their gradients."""


@dataclass(frozen=True, slots=True, eq=False)
class AdamStepper:
    """Adam and AdamW in their functional form, on the optimizer's own state: the results are bitwise equal.

    `Optimizer.step` and `zero_grad` also open a profiler range, call hooks and check every setting; for a small
    network this takes a tenth of the whole training step (bench/training.py).
    """

    optimizer: torch.optim.Adam

    def zero_grad(self) -> None:
        """See `Stepper`."""
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = None

    def step(self) -> None:
        """See `Stepper`; the first step is the optimizer's own, which creates its state."""
        weights_by_group = [[w for w in group["params"] if w.grad is not None] for group in self.optimizer.param_groups]
        if any(not self.optimizer.state.get(weight) for weights in weights_by_group for weight in weights):
            self.optimizer.step()
            return
        with torch.no_grad():
            for group, weights in zip(self.optimizer.param_groups, weights_by_group, strict=True):
                self._move(group, weights)

    def _move(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        states = [self.optimizer.state[weight] for weight in weights]
        move = adamw if isinstance(self.optimizer, torch.optim.AdamW) else adam
        move(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def stepper_of(optimizer: torch.optim.Optimizer) -> Stepper:
    """The fastest stepper for an optimizer from `make_optimizer`."""
    plain = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW) and optimizer.param_groups[0]["fused"]
    return AdamStepper(optimizer) if plain else optimizer  # type: ignore[arg-type]  # just checked


Loss = Callable[[Tensor, Tensor], Tensor]


def _without_compiler(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """An optimizer whose methods do not import torch.compile, which takes longer than many trainings.

    Gradients of the step itself (`differentiable`) are never used here.
    """
    marked = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in marked}
    step = torch.no_grad()(inspect.unwrap(kind.step))

    def reduced(self: torch.optim.Optimizer, _protocol: object) -> tuple[object, ...]:
        """Pickled and copied as PyTorch's own class, by whose name it would be looked up."""
        return object.__new__, (kind,), self.__getstate__()

    added = {"step": step, "__module__": kind.__module__, "original": kind, "__reduce_ex__": reduced}
    return type(kind.__name__, (kind,), {**plain, **added})


def kind_of_optimizer(optimizer: torch.optim.Optimizer) -> type[torch.optim.Optimizer]:
    """An optimizer's class; PyTorch's own for one of `OPTIMIZERS`.

    >>> weight = nn.Parameter(torch.zeros(1))
    >>> kind_of_optimizer(OPTIMIZERS["adam"]([weight])) is torch.optim.Adam
    True
    """
    optimizer_class = type(optimizer)
    original: type[torch.optim.Optimizer] = vars(optimizer_class).get(
        "original", optimizer_class
    )  # not that of a subclass of the user's
    return original


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    name: _without_compiler(kind)
    for name, kind in {
        "adadelta": torch.optim.Adadelta,
        "adagrad": torch.optim.Adagrad,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "nadam": torch.optim.NAdam,
        "rmsprop": torch.optim.RMSprop,
        "sgd": torch.optim.SGD,
    }.items()
}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the model's trainable parameters, fused where PyTorch has a fused one.

    `sgd` has Nesterov momentum 0.9; everything else is PyTorch's default.

    Raises:
        UnknownName: unknown optimizer.
        TrainingError: the model has no trainable parameters.
    """
    if recipe.optimizer not in OPTIMIZERS:
        raise UnknownName("optimizer", recipe.optimizer, OPTIMIZERS)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise TrainingError("this model has no trainable parameters (there are none, or all of them are frozen).")
    kind = OPTIMIZERS[recipe.optimizer]
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if recipe.optimizer == "sgd" else {}
    if "fused" in inspect.signature(kind).parameters and all(p.dtype.is_floating_point for p in parameters):
        options["fused"] = True
    return kind(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, **options)


def mse(output: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error to the class number (one output) or to the one-hot class (several)."""
    if output.shape[1] == 1:
        return F.mse_loss(output[:, 0], labels.to(output.dtype))
    return F.mse_loss(output, F.one_hot(labels, output.shape[1]).to(output.dtype))


LOSSES: Mapping[str, Loss] = {
    "cross-entropy": F.cross_entropy,
    "mse": mse,
    "nll": F.nll_loss,
}


def make_loss(recipe: Recipe) -> Loss:
    """The recipe's loss: (outputs (N, K), labels (N,)) -> scalar, the mean over the batch.

    Raises:
        UnknownName: unknown loss.
    """
    if recipe.loss not in LOSSES:
        raise UnknownName("loss", recipe.loss, LOSSES)
    if recipe.loss == "cross-entropy" and recipe.label_smoothing:
        smoothing = recipe.label_smoothing
        return lambda output, labels: F.cross_entropy(output, labels, label_smoothing=smoothing)
    return LOSSES[recipe.loss]
