"""Engines: what computes one training step. PyTorch here; numpy_engine.py does it in plain NumPy."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from convscope.errors import TrainingError, UnknownName, UsageError
from convscope.training.numpy_engine import NumpyEngine, NumpyOptimizer
from convscope.training.objectives import Loss, Stepper, make_optimizer
from convscope.training.outputs import refusal, scores_of
from convscope.training.recipes import Recipe
from convscope.training.runtime import Runtime, make_runtime

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
                said = self.joined(images)
            except Exception as error:
                raise refusal(self.model, images, error) from error
            output = scores_of(said, len(images))
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
    for name, value, known in (("device", device, ("auto", "cpu")), ("precision", precision, ("float64",))):
        if value not in {None, *known}:
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
