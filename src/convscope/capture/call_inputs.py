"""Call inputs: convert a user's image or inputs into the tensors that the model is called with.

Uses torch; the model's card, or trial runs of a copy of the model, decide whether an input has a batch axis.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from convscope.capture.model_state import ModelState
from convscope.cards.card import AXES, attached, input_layers
from convscope.cards.card_inference import card_of
from convscope.cards.trial_copy import in_structure
from convscope.cards.trial_runs import expectation, only_pictures, runs
from convscope.errors import ShapeError, UsageError
from convscope.type_checks import kind_of
from convscope.typing import Array

UNBATCHED = (
    nn.Embedding,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoderLayer,
)
"""Layers for which an input with three axes is not a picture."""
_ARRAYS = (Tensor, np.ndarray)
Inputs: TypeAlias = ArrayLike | Tensor | Sequence[object] | Mapping[str, object]
"""What a model is called with: one array, a tuple of positional inputs, named inputs, or one input that is a list."""


@dataclass(slots=True, eq=False)
class CallInputs:
    """The inputs of one pass; tensors are copies, so later changes to the caller's do not affect the trace."""

    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    """By name: `input` for a single image, `input0`, `input1` for several, the keys of a dict; `input[0]` in a list."""


def as_call_inputs(subject: ModelState, image: Inputs | None, batched: bool | None = None) -> CallInputs:
    """The inputs that a model is called with.

    Args:
        subject: The model.
        image: One array or tensor, (C, H, W) or with a batch axis first; a tuple of positional inputs; a mapping of
            named inputs; a list for one input that is a list. Each may be a list, tuple or mapping of arrays.
            Floating-point arrays are converted to the model's dtype; everything is moved to its device.
        batched: Whether arrays have a batch axis; False adds one. None decides for a single array, and adds one to
            several inputs only if the model runs with it and not without.

    Raises:
        ShapeError: an integer image for a model that takes floating-point numbers, or the other way round.
        UsageError: an input is not an array.
    """
    if isinstance(image, _ARRAYS):
        tensor = _tensor(subject, image, "the image")
        _check_numbers(subject, tensor)
        if _lacks_batch(subject, tensor) if batched is None else not batched:
            tensor = tensor[None]
        return CallInputs((tensor,), {}, {"input": tensor})
    arguments, keywords = _several(subject, image)
    tensors = dict(_named_tensors({**arguments, **keywords}))
    if not tensors:
        raise UsageError("none of the inputs is an array; pass at least one.")
    inputs = {**arguments, **keywords}
    lacking = _lacking(subject, arguments, keywords) if batched is None else set() if batched else set(inputs)
    inputs = {name: in_structure(v, _with_batch) if name in lacking else v for name, v in inputs.items()}
    values = tuple(inputs[name] for name in arguments)
    return CallInputs(values, {name: inputs[name] for name in keywords}, dict(_named_tensors(inputs)))


def _several(subject: ModelState, image: Inputs | None) -> tuple[dict[str, object], dict[str, object]]:
    """Positional inputs, by the names they get, and named inputs."""
    if isinstance(image, Mapping):
        return {}, {str(name): _structure(subject, value, str(name)) for name, value in image.items()}
    if isinstance(image, tuple):
        return {f"input{i}": _structure(subject, value, f"input {i}") for i, value in enumerate(image)}, {}
    if isinstance(image, list):
        arguments = {"input": _structure(subject, image, "the image")}
        if next(_named_tensors(arguments), None) is not None:
            return arguments, {}
    kind = "nothing" if image is None else kind_of(image)
    raise UsageError(
        f"an image is an array or a tensor of shape (C, H, W), not {kind}; "
        "cs.load_image reads one from a file, and a tuple or a dict passes several inputs."
    )


def _structure(subject: ModelState, value: object, name: str) -> object:
    """The same lists, tuples and mappings, with arrays replaced by tensors."""
    if isinstance(value, list):
        return [_structure(subject, item, f"{name}[{i}]") for i, item in enumerate(value)]
    if type(value) is tuple:
        return tuple(_structure(subject, item, f"{name}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping):
        return {key: _structure(subject, item, f"{name}[{key}]") for key, item in value.items()}
    if isinstance(value, bool | int | float | str | None):
        return value
    if not isinstance(value, Tensor | np.ndarray | np.generic):
        raise UsageError(f"{name} is {kind_of(value)}; pass a NumPy array or a tensor.")
    return _tensor(subject, value, name)


def _named_tensors(values: Mapping[str, object]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name, such as `images[0]` for the first item of a list."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, list | tuple):
            yield from _named_tensors({f"{name}[{i}]": item for i, item in enumerate(value)})
        elif isinstance(value, Mapping):
            yield from _named_tensors({f"{name}[{key}]": item for key, item in value.items()})


def _tensor(subject: ModelState, value: Tensor | Array | np.generic, name: str) -> Tensor:
    """An array as a new tensor on the model's device."""
    if isinstance(value, Tensor):
        tensor = value.detach().clone() if value.requires_grad else value.clone()
    else:
        if value.dtype.kind not in "biufc":
            raise UsageError(f"{name} is an array of {value.dtype}; a model needs numbers.")
        tensor = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if tensor.is_meta:
        raise UsageError(f"{name} is on the meta device and has no data.")
    if subject.dtype in {None, tensor.dtype} or not tensor.dtype.is_floating_point:
        return tensor if tensor.device == subject.device else tensor.to(subject.device)
    return tensor.to(subject.device, subject.dtype)


def _with_batch(tensor: Tensor) -> Tensor:
    return tensor[None]


def _check_numbers(subject: ModelState, tensor: Tensor) -> None:
    """Reject integers for a floating-point model, floating-point numbers for an integer model, and empty tensors."""
    if not tensor.numel():
        raise ShapeError(f"the image of shape {tuple(tensor.shape)} is empty.")
    is_integer = not tensor.dtype.is_floating_point and not tensor.is_complex()
    kind = str(tensor.dtype).removeprefix("torch.")
    if is_integer and not _takes_whole(subject, tensor):
        raise ShapeError(
            f"the image is {kind}; the model takes floating-point numbers: let cs.load_image prepare it, or scale it "
            "yourself, as in image.astype('float32') / 255."
        )
    if not is_integer and not only_pictures(subject.modules.values()) and card_of(subject.model).form == "tokens":
        raise ShapeError(f"the input is {kind}, but the model starts with an embedding, which takes int64.")


def _takes_whole(subject: ModelState, tensor: Tensor) -> bool:
    """Whether a model takes integers, because it starts with an embedding."""
    if not any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in subject.modules.values()):
        return False
    trials = [runs(subject.model, [tried], {}) for tried in (tensor, tensor[None])]
    if None not in trials and any(trials):
        return True
    # A model that fails with integers takes floating-point numbers, or fails for another reason.
    if None not in trials and any(runs(subject.model, [tried.float()], {}) for tried in (tensor, tensor[None])):
        return False
    return isinstance(_first_layer(subject), nn.Embedding)


def _lacks_batch(subject: ModelState, tensor: Tensor) -> bool:
    """Whether a single input lacks a batch axis, judged by its number of axes or, if that is ambiguous, trial runs."""
    model = subject.model
    if only_pictures(subject.modules.values()):
        return tensor.dim() == 3
    card = attached(model)
    if card is not None and card.form == "picture" and card.preprocess.size is not None:
        return tensor.dim() == 3
    runs_alone, runs_batched = runs(model, [tensor], {}), runs(model, [tensor[None]], {})
    if runs_batched is not None and runs_alone != runs_batched:
        return runs_batched
    result = expectation(model) if card is None else None
    sure = card is not None or (result is not None and result.ran)
    return tensor.dim() == (AXES[card_of(model).form] if sure else _axes(type(_first_layer(subject))))  # type: ignore[arg-type]  # a class is hashable


def _lacking(subject: ModelState, arguments: Mapping[str, object], keywords: Mapping[str, object]) -> set[str]:
    """The inputs that lack a batch axis: those with three axes, if the model runs once they get one.

    If it also runs without, as a convolution does, they count as single pictures only in a model of pictures.
    """
    inputs = {**arguments, **keywords}
    pictures = {n for n, v in inputs.items() if isinstance(v, Tensor) and v.dim() == 3 and v.is_floating_point()}
    if not pictures or any(isinstance(value, list | tuple | Mapping) for value in inputs.values()):
        return set()

    def fits(lacking: set[str]) -> bool:
        tried = {name: in_structure(value, _with_batch) if name in lacking else value for name, value in inputs.items()}
        by_name = {name: tried[name] for name in keywords}
        return bool(runs(subject.model, [tried[name] for name in arguments], by_name))

    arrays = {name for name, value in inputs.items() if isinstance(value, Tensor)}
    candidates = [pictures] if pictures == arrays else [pictures, arrays]
    convolves = only_pictures(subject.modules.values()) and any(
        layer.kind == "channels" for layer in input_layers(subject.model)
    )
    if not convolves or pictures != arrays:
        candidates = [set(), *candidates]
    return next((candidate for candidate in candidates if fits(candidate)), set())


@cache
def _axes(first: type[nn.Module]) -> int:
    """Number of axes of one image for a first layer of this class; 0 if it cannot be distinguished from a batch."""
    if issubclass(first, (*UNBATCHED, nn.BatchNorm1d)):
        return 0
    return 2 if "1d" in first.__name__ else 4 if "3d" in first.__name__ else 3


def _first_layer(subject: ModelState) -> nn.Module:
    """The first leaf module, in the order of definition."""
    return next(module for module in subject.modules.values() if not module._modules or isinstance(module, UNBATCHED))
