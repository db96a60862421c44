"""Objectives: the losses and optimizers by name. Knows torch, no files."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import TrainingError, UnknownName
from convscope.training.recipes import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
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
