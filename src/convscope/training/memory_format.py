"""Memory format: train in channels_last where it is faster. Values do not change, but sums may round differently."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from convscope.data.dataset import Dataset
from convscope.training.batches import as_batches
from convscope.training.inference import in_eval_mode

POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@contextmanager
def trained_channels_last(model: nn.Module, data: Dataset, *, wanted: bool) -> Iterator[bool]:
    """Train in channels_last memory format if requested and supported; yields whether it is active.

    PyTorch's CPU pooling is several times faster in this format (bench/training.py).
    """
    if not (wanted and _convolves(model)):
        yield False
        return
    _lay_out(model, torch.channels_last)
    runs = _runs(model, data)
    if not runs:
        _lay_out(model, torch.contiguous_format)
    hooks = [m.register_forward_hook(_ask_channels_last) for m in model.modules() if runs and isinstance(m, POOLS)]
    try:
        yield runs
    finally:
        for hook in hooks:
            hook.remove()
        _lay_out(model, torch.contiguous_format)


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _runs(model: nn.Module, data: Dataset) -> bool:
    """Whether the model accepts two images in this format; a `view` in the model would fail."""
    first = data.first(2)
    some = replace(data, images=first, labels=data.labels[: len(first)], names=())
    sample = as_batches(some, torch.device("cpu"), channels_last=True).take(torch.arange(len(first)))[0]
    parameter = next(model.parameters())
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(sample.to(parameter.dtype))
    except RuntimeError:
        return False
    return True


def _ask_channels_last(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    """Give the gradient of a pooling result the result's memory format: else backward copies the whole map twice."""
    if output.requires_grad and output.dim() == 4:
        output.register_hook(_channels_last)  # type: ignore[no-untyped-call]  # torch ships this one without types


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Convert all four-dimensional weights to the memory format `layout`; their values do not change."""
    for weight in model.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
