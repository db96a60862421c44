"""Layer inputs: what torch's layers expect, in words, and the layer at which an exception arose. Runs nothing."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from torch import Tensor, nn


def misfit(module: nn.Module, received: Tensor) -> str:
    """How the input violates a layer's expectations, or ""."""
    shape = tuple(received.shape)
    reason = next((check(module, shape) for kind, check in EXPECTS.items() if isinstance(module, kind)), "")
    weight = getattr(module, "weight", None)
    if not reason and isinstance(weight, Tensor) and received.is_floating_point() and weight.dtype != received.dtype:
        return f"holds {weight.dtype} but received {received.dtype}".replace("torch.", "")
    return reason


def _convolution(module: nn.modules.conv._ConvNd, shape: tuple[int, ...]) -> str:
    kernel = module.kernel_size
    if len(shape) not in {len(kernel) + 1, len(kernel) + 2}:
        return f"expects {len(kernel) + 2} axes, the batch first, but received {shape}"
    channels = shape[-len(kernel) - 1]
    if channels != module.in_channels:
        return f"expects {_count(module.in_channels)}, but received {channels}"
    small = any(n < k for n, k in zip(shape[-len(kernel) :], kernel, strict=True))
    return f"has a kernel of {kernel}, larger than its input {shape}" if small else ""


def _linear(module: nn.Linear, shape: tuple[int, ...]) -> str:
    fits = shape[-1:] == (module.in_features,)
    return "" if fits else f"expects {module.in_features:,} numbers in the last axis, but received {shape}"


def _batch_norm(module: nn.modules.batchnorm._NormBase, shape: tuple[int, ...]) -> str:
    fits = len(shape) > 1 and shape[1] == module.num_features
    return "" if fits else f"expects {_count(module.num_features)}, but received {shape}"


def _layer_norm(module: nn.LayerNorm, shape: tuple[int, ...]) -> str:
    normalized_shape = tuple(module.normalized_shape)
    return (
        ""
        if shape[-len(normalized_shape) :] == normalized_shape
        else f"expects {normalized_shape} as its last axes, but received {shape}"
    )


def _pooling(module: nn.modules.pooling._MaxPoolNd | nn.modules.pooling._AvgPoolNd, shape: tuple[int, ...]) -> str:
    return f"has a kernel of {module.kernel_size}, larger than its input {shape}"


def _count(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


EXPECTS: Mapping[type[nn.Module], Callable[[Any, tuple[int, ...]], str]] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.modules.pooling._MaxPoolNd: _pooling,
    nn.modules.pooling._AvgPoolNd: _pooling,
}
"""Layer class -> the function that explains why a shape does not fit."""


def failing_layer(model: nn.Module, error: BaseException) -> str:
    """The layer that raised an exception and what it expected, with what would fit if that is known; or "".

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
    >>> import torch
    >>> try:
    ...     model(torch.zeros(1, 1, 24, 24))
    ... except RuntimeError as error:
    ...     print(failing_layer(model, error))
    1 (Linear) expects 100 numbers in the last axis, but received (1, 576); nn.Linear(576, 2) would fit
    """
    paths = {id(module): path for path, module in model.named_modules()}
    description = ""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        module, received = (traceback.tb_frame.f_locals.get(name) for name in ("self", "input"))
        if id(module) in paths and isinstance(module, nn.Module) and isinstance(received, Tensor):
            reason = misfit(module, received)
            description = (
                f"{paths[id(module)] or 'it'} ({type(module).__name__}) {reason}{_fitting(module, received)}"
                if reason
                else ""
            )
        traceback = traceback.tb_next
    return description


def _fitting(module: nn.Module, received: Tensor) -> str:
    if not isinstance(module, nn.Linear) or not received.dim():
        return ""
    return f"; nn.Linear({received.shape[-1]}, {module.out_features}) would fit"
