"""Arrays: convert tensors to NumPy arrays, and a model's output to plain containers of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from convscope.errors import TraceError
from convscope.traces.step import Array, frozen

NARROW = {torch.bfloat16, torch.float16}


def array_of(tensor: Tensor) -> Array:
    """A tensor as a read-only array, without a copy for CPU tensors; bfloat16 and half are widened to float32.

    Raises:
        TraceError: The tensor is on the meta device, so it has no numbers.
    """
    if tensor.is_meta:
        raise TraceError("a result of this pass is on the meta device and has no numbers.")
    tensor = tensor.detach()
    if tensor.is_nested:
        tensor = tensor.to_padded_tensor(0.0)
    elif tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.dtype in NARROW or str(tensor.dtype).startswith("torch.float8"):
        tensor = tensor.float()
    if tensor.dtype == torch.complex32:  # NumPy lacks this type
        tensor = tensor.to(torch.complex64)
    return frozen(tensor.resolve_conj().resolve_neg().cpu().numpy())


def in_structure(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """A model's output with `change` applied to each tensor; mappings and dataclasses become dict, sequences tuple."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {str(name): in_structure(item, change) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: in_structure(getattr(value, field.name), change) for field in fields(value)}
    if isinstance(value, list | tuple):
        return tuple(in_structure(item, change) for item in value)
    return value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of a model's output, in order."""
    results: list[Tensor] = []
    in_structure(value, results.append)
    return iter(results)
