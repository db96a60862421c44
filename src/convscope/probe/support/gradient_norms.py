"""Gradient norms: what of the loss's gradient arrives at each layer of a model, measured by hooks over batches.

Uses torch; no data sets, no runs.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.errors import TrainingError
from convscope.training.objectives import Loss, mse
from convscope.training.outputs import answer, check_classes
from convscope.training.reproducibility import own_random_state


@dataclass(frozen=True, slots=True, eq=False)
class LayerGradients:
    """The gradients of one layer with a weight matrix or kernels."""

    layer: str
    """Its module path."""
    kind: str
    weights: int
    """Number of weights, without the bias."""
    outputs: NDArray[np.float64] = field(repr=False)
    """Norm of the gradient of each image's loss with respect to the layer's outputs, shape (N,)."""
    batches: NDArray[np.float64] = field(repr=False)
    """Norm of the gradient of each batch's mean loss with respect to the weights, shape (B,)."""
    norm: float
    """Norm of the weights."""

    @property
    def relative(self) -> float:
        """Median norm of the weights' gradient, divided by that of the weights."""
        return float(np.median(self.batches)) / self.norm if self.norm else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class GradientPoint:
    """All layers at one point of a training."""

    step: int | None
    """The optimizer step whose weights these are; None for a model that is not at a kept step of a run."""
    loss: float
    """Mean loss of the images."""
    layers: tuple[LayerGradients, ...]
    """In the order in which the model calls them."""

    @property
    def share(self) -> tuple[float, float, float]:
        """How much of the gradient at the last layer reaches the first: median over the images, and its 95 % interval.

        The interval is that of the order statistics, which assumes nothing about the distribution.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = self.layers[0].outputs / self.layers[-1].outputs
        return _median(ratios[~np.isnan(ratios)])  # an image without any gradient says nothing


class _Watched:
    """What the hooks on a model's layers see in one batch."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = {
            name: module
            for name, module in model.named_modules()
            if any(p.requires_grad and p.dim() > 1 for p in module.parameters(recurse=False))
        }
        self.squares: dict[str, NDArray[np.float64]] = {}
        """Layer -> squared norm of the gradient of its outputs for each image; a layer called twice adds both."""
        self.order: list[str] = []
        """The layers that were called and give one or more rows for each image."""
        self.images = 0

    def __enter__(self) -> "_Watched":
        self._stack = ExitStack()
        for name, module in self.layers.items():
            self._stack.callback(module.register_forward_hook(partial(self._called, name)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _called(self, name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        result = output[0] if isinstance(output, tuple) and output else output
        if isinstance(result, Tensor) and result.requires_grad and result.dim() and len(result) % self.images == 0:
            if name not in self.order:
                self.order.append(name)
            # the hook is on the number before an in-place activation writes over it
            result.register_hook(partial(self._received, name))  # type: ignore[no-untyped-call]  # in torch

    def _received(self, name: str, gradient: Tensor) -> None:
        per_image = (
            gradient.detach().double().reshape(self.images, -1) * self.images
        )  # of the image's loss, not of the mean
        squares = per_image.square().sum(1).cpu().numpy()
        self.squares[name] = self.squares.get(name, 0) + squares


def measured(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], loss: Loss, step: int | None, seed: int
) -> GradientPoint:
    """The gradients of a model that may be changed."""
    model.train()
    like = next(model.parameters(), torch.empty(0))
    outputs: dict[str, list[NDArray[np.float64]]] = {}
    norms: dict[str, list[float]] = {}
    losses = []
    with own_random_state(seed), torch.enable_grad(), _Watched(model) as watched:
        if not watched.layers:
            raise TrainingError(
                "this model has no trainable layer with a weight matrix or kernels (there is none, or all are frozen)."
            )
        for images, labels in batches:
            watched.images, watched.squares = len(images), {}
            scores = answer(model, images.to(like))
            check_classes(scores, int(labels.max()) + 1, one_number=loss is mse)
            value = loss(scores, labels.to(like.device))
            _differentiated(value, model)
            losses.append(value.item())
            for name, module in watched.layers.items():
                outputs.setdefault(name, []).append(np.sqrt(watched.squares.get(name, np.zeros(len(images)))))
                norms.setdefault(name, []).append(_norm(p.grad for p in _weights(module)))
    layers = tuple(_layer(name, watched.layers[name], outputs[name], norms[name]) for name in watched.order)
    if not layers:
        raise TrainingError("no layer of this model gives a row for each image, so there is nothing to compare.")
    return GradientPoint(step, float(np.mean(losses)), layers)


def _differentiated(value: Tensor, model: nn.Module) -> None:
    """Run the backward pass, the parameters' gradients starting from nothing."""
    if not value.requires_grad:
        raise TrainingError(
            "the loss does not depend on any parameter: forward uses argmax, detach, NumPy or no_grad; let it return "
            "the scores."
        )
    model.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]  # in torch


def _layer(name: str, module: nn.Module, outputs: list[NDArray[np.float64]], norms: list[float]) -> LayerGradients:
    weights = _weights(module)
    size = sum(p.numel() for p in weights)
    kind = type(module).__name__
    return LayerGradients(name, kind, size, np.concatenate(outputs), np.array(norms), _norm(weights))


def _weights(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters(recurse=False) if p.requires_grad and p.dim() > 1]


def _norm(tensors: Iterable[Tensor | None]) -> float:
    squares = [float(tensor.detach().double().square().sum()) for tensor in tensors if tensor is not None]
    return float(np.sqrt(sum(squares)))


def _median(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """A median with the distribution-free 95 % interval of its order statistics (normal approximation of their ranks).

    >>> _median(np.arange(101.0))
    (50.0, 40.0, 60.0)

    Source: W. J. Conover, Practical nonparametric statistics, 1999, section 3.2.
    """
    if not len(values):
        return (float("nan"),) * 3
    ordered, n = np.sort(values), len(values)
    reach = 0.98 * np.sqrt(n)
    low, high = max(int(np.floor(n / 2 - reach)), 0), min(int(np.ceil(n / 2 + reach)) - 1, n - 1)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])
