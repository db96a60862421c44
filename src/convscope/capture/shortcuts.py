"""Shortcuts: call the ATen operations of common layers directly, without torch's dispatch to Python.

That dispatch takes as long as a small layer. Each shortcut makes exactly the calls of its layer, so numbers and record
are the same; a test compares them. Any unusual configuration is left to the layer itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[Tensor, tuple[tuple[Any, tuple[Any, ...], Any], ...]]
"""A shortcut's result: the layer's output, and (function, arguments, result) of each ATen call."""

Shortcut = Callable[[Any, Tensor], Made | None]
"""(layer, input) -> result; None if the layer itself must run."""


def _convolution(layer: Any, x: Tensor) -> Made | None:
    axes, padding, parameters = len(layer.kernel_size) + 2, layer.padding, layer._parameters
    weight = parameters.get("weight")
    if layer.padding_mode != "zeros" or x.dim() != axes or type(padding) is str or not _plain(weight):
        return None
    args = (
        x,
        weight,
        parameters["bias"],
        layer.stride,
        padding,
        layer.dilation,
        False,
        (0,) * (axes - 2),
        layer.groups,
    )
    out = torch.convolution(*args)
    return out, ((_CONVOLUTION, args, out),)


def _linear(layer: Any, x: Tensor) -> Made | None:
    parameters = layer._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if x.dim() != 2 or not _plain(weight) or bias is None:
        return None
    turned = weight.t()
    out = torch.addmm(bias, x, turned)
    return out, ((_T, (weight,), turned), (_ADDMM, (bias, x, turned), out))


def _max_pool(layer: Any, x: Tensor) -> Made | None:
    if layer.return_indices or x.dim() != 4 or not x.is_cpu:
        return None
    args = (x, _two(layer.kernel_size), _two(layer.stride), _two(layer.padding), _two(layer.dilation), layer.ceil_mode)
    both = torch._C._nn.max_pool2d_with_indices(*args)
    return both[0], ((_MAX_POOL, args, both),)


def _relu(layer: Any, x: Tensor) -> Made | None:
    if layer.inplace:
        return None
    out = torch.relu(x)
    return out, ((_RELU, (x,), out),)


def _two(size: Any) -> Any:
    return (size, size) if type(size) is int else size


def _plain(weight: Any) -> bool:
    """Whether a weight is an ordinary CPU tensor."""
    return type(weight) is nn.Parameter and weight.dtype is torch.float32 and weight.is_cpu


_CONVOLUTION = torch.ops.aten.convolution.default
_T = torch.ops.aten.t.default
_ADDMM = torch.ops.aten.addmm.default
_MAX_POOL = torch.ops.aten.max_pool2d_with_indices.default
_RELU = torch.ops.aten.relu.default

SHORTCUTS: Mapping[type[nn.Module], Shortcut] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: _relu,
}
