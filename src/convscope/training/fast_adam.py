"""Fast Adam: optimizer steps without the overhead that PyTorch adds to each one. Knows optimizers, no models."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw


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
        moved = [[w for w in group["params"] if w.grad is not None] for group in self.optimizer.param_groups]
        if any(not self.optimizer.state.get(weight) for weights in moved for weight in weights):
            self.optimizer.step()
            return
        with torch.no_grad():
            for group, weights in zip(self.optimizer.param_groups, moved, strict=True):
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
