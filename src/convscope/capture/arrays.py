"""Arrays: torch's tensors as NumPy arrays, and what a model returned as plain containers of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from convscope.errors import TraceError
from convscope.traces.step import Array, frozen

NARROW = {torch.bfloat16, torch.float16}


def array_of(tensor: Tensor) -> Array:
    """A tensor's numbers, read-only, without a copy where it lies in main memory; narrow types exactly as float32.

    Raises:
        TraceError: it is on the meta device, so it has none.
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
    if tensor.dtype == torch.complex32:  # NumPy has no such type
        tensor = tensor.to(torch.complex64)
    return frozen(tensor.resolve_conj().resolve_neg().cpu().numpy())


def in_structure(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """A model's output with each tensor changed: mappings and dataclasses as dict, sequences as tuple."""
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
    found: list[Tensor] = []
    in_structure(value, found.append)
    return iter(found)
