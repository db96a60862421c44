"""Intake: what a user gives as an image, as the tensors that the model is called with.

Knows torch and the model's layers; runs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.capture.subject import Subject
from convscope.errors import ShapeError, UsageError

UNBATCHED = (
    nn.Embedding,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoderLayer,
)
"""Layers whose input of three axes is no picture."""
_ARRAYS = (Tensor, np.ndarray)


@dataclass(slots=True, eq=False)
class Intake:
    """The inputs of one pass; tensors are copies, so nothing that happens to the caller's changes a trace."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """By name: `input` for a single image, `input0`, `input1` for several, the keys of a dict."""


def take_in(subject: Subject, image: Any) -> Intake:
    """The inputs that a model is called with.

    Args:
        subject: The model.
        image: One array or tensor, (C, H, W) or with a batch axis first; a tuple for positional inputs; a mapping for
            inputs by name. Arrays of fractions get the model's type; all go to its device.

    Raises:
        ShapeError: a single image of whole numbers, or with another number of axes than a picture has.
        UsageError: something that is no array.
    """
    if isinstance(image, _ARRAYS):
        tensor = _batched(subject, _tensor(subject, image, "the image"))
        return Intake((tensor,), {}, {"input": tensor})
    if isinstance(image, Mapping):
        keywords = {str(name): _tensor(subject, value, str(name)) for name, value in image.items()}
        return Intake((), keywords, _only_tensors(keywords))
    if isinstance(image, tuple):
        named = {f"input{i}": _tensor(subject, value, f"input {i}") for i, value in enumerate(image)}
        return Intake(tuple(named.values()), {}, _only_tensors(named))
    given = "nothing" if image is None else f"a {type(image).__name__}"
    raise UsageError(
        f"an image is an array or a tensor of shape (C, H, W), not {given}; "
        "cs.load_image reads one from a file, and a tuple or a dict gives a model several inputs."
    )


def _tensor(subject: Subject, value: Any, what: str) -> Any:
    """An array as a tensor of its own on the model's device; what is none passes as it is."""
    if isinstance(value, Tensor):
        tensor = value.detach().clone() if value.requires_grad else value.clone()
    elif isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biufc":
            raise UsageError(f"{what} is an array of {value.dtype}; a model takes numbers.")
        tensor = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    elif isinstance(value, bool | int | float | str | None):
        return value
    else:
        raise UsageError(f"{what} is a {type(value).__name__}; give a NumPy array or a tensor.")
    if tensor.is_meta:
        raise UsageError(f"{what} is on the meta device and has no numbers.")
    if subject.dtype in {None, tensor.dtype} or not tensor.dtype.is_floating_point:
        return tensor if tensor.device == subject.device else tensor.to(subject.device)
    return tensor.to(subject.device, subject.dtype)


def _only_tensors(named: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UsageError("no input is an array; give the model at least one.")
    return tensors


def _batched(subject: Subject, tensor: Tensor) -> Tensor:
    """One image with a batch axis first: a picture has three axes, what a 1-d or a 3-d layer takes, two or four."""
    first = _first_layer(subject)
    if not tensor.dtype.is_floating_point and not tensor.is_complex() and not isinstance(first, nn.Embedding):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ShapeError(
            f"the image is {kind}; a model takes fractions: let cs.load_image prepare it, or scale it yourself, "
            "as in image.astype('float32') / 255."
        )
    if not tensor.numel():
        raise ShapeError(f"the image of shape {tuple(tensor.shape)} holds no numbers.")
    return tensor[None] if tensor.dim() == _axes(type(first)) else tensor  # type: ignore[arg-type]  # a class is hashable


@cache
def _axes(first: type[nn.Module]) -> int:
    """How many axes one image has for a first layer of this kind; 0 where that cannot be told from a batch."""
    if issubclass(first, (*UNBATCHED, nn.BatchNorm1d)):
        return 0
    return 2 if "1d" in first.__name__ else 4 if "3d" in first.__name__ else 3


def _first_layer(subject: Subject) -> nn.Module:
    """The first module that has no others inside, in the order of definition."""
    return next(module for module in subject.modules.values() if not module._modules or isinstance(module, UNBATCHED))
