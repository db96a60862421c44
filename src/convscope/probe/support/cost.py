"""Cost: what a model's answer to one image takes: parameters, multiply-adds, time. Knows torch."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 7
LONG_ENOUGH = 0.02
"""Seconds that one measurement lasts at least, where a pass is shorter."""
Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one image costs."""

    parameters: int
    """Numbers that training can change."""
    multiply_adds: int
    """Of convolutions, matrix products and attention; everything else is left out."""
    milliseconds: float
    """Median time for an image, in a batch."""
    least: float
    """The shortest of the measured times, in milliseconds."""
    most: float
    """The longest."""
    batch: int
    """Images in the batch that was timed."""


def costs(models: Sequence[nn.Module], batches: Sequence[Tensor]) -> tuple[Cost, ...]:
    """What one image costs each model; the models take turns, so that a busy machine treats all alike.

    >>> with torch.no_grad():
    ...     cost = costs([nn.Conv2d(1, 4, 3)], [torch.zeros(2, 1, 10, 10)])[0]
    >>> cost.parameters, cost.multiply_adds
    (40, 2304)

    Args:
        models: In evaluation mode, on their device; gradients are the caller's.
        batches: For each model a batch that it is timed on, shape (n, C, H, W).
    """
    counted = [_multiply_adds(model, batch[:1]) for model, batch in zip(models, batches, strict=True)]
    passes = [_passes(model, batch) for model, batch in zip(models, batches, strict=True)]
    times: list[list[float]] = [[] for _ in models]
    for _ in range(REPEATS):
        for model, batch, count, taken in zip(models, batches, passes, times, strict=True):
            taken.append(1000 * _timed(model, batch, count) / (count * len(batch)))
    return tuple(
        Cost(_parameters(model), adds, statistics.median(taken), min(taken), max(taken), len(batch))
        for model, adds, taken, batch in zip(models, counted, times, batches, strict=True)
    )


def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    """PyTorch's own count of floating-point operations, two for each multiply-add, and what it leaves out."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores and their sum with the values: (N, H, L, D) by (N, H, S, D)."""
    images, heads, length, depth = query
    return 2 * images * heads * length * key[2] * (depth + value[3])


def _heads(query: Shape, key: Shape, _value: Shape, width: int, *_: Any, **__: Any) -> int:
    """A whole attention layer on (N, L, E): four projections and the attention between."""
    images, length = query[0], query[1]
    return 2 * images * (2 * (length + key[1]) * width**2 + 2 * length * key[1] * width)


def _encoder(source: Shape, width: int, *more: Any, **_: Any) -> int:
    """A whole encoder layer: attention, then two linear layers."""
    images, length = source[0], source[1]
    hidden = more[12][0]  # the fifteenth argument is the first linear layer's weight, (F, E)
    return _heads(source, source, source, width) + 4 * images * length * width * int(hidden)


FUSED: Any = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._native_multi_head_attention: _heads,
    torch.ops.aten._transformer_encoder_layer_fwd: _encoder,
}
"""Floating-point operations of what PyTorch's own count leaves out."""


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _passes(model: nn.Module, batch: Tensor) -> int:
    """How many passes are timed together, so that they last long enough; the first pass of all is not counted."""
    _timed(model, batch, 1)
    return max(1, min(1000, round(LONG_ENOUGH / _timed(model, batch, 1))))


def _timed(model: nn.Module, batch: Tensor, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        model(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - start
