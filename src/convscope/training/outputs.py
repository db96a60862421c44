"""Outputs: run a model in eval mode, and interpret its return value as class scores.

For N images a classifier returns one score per class, shape (N, K), or one number each, (N, 1). Equivalent forms are
converted to this one; anything else, such as a segmentation map, raises an error with a clear message.
Uses torch; no data, no files.

An exception raised by the model becomes one readable error, also during training.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.cards.layer_inputs import failing_layer
from convscope.errors import ConvscopeError, ModelError, ShapeError
from convscope.models.preparation import in_evaluation
from convscope.models.user_code import failed, line_of

INSTEAD = "trace, explain and verify accept it"


def logits_of(output: object) -> Tensor:
    """The tensor of scores in a model's return value: the only tensor, or the one called logits.

    >>> logits_of({"logits": torch.ones(1, 2), "features": torch.ones(1, 9)}).shape
    torch.Size([1, 2])

    Args:
        output: A tensor or an array; a dict, a tuple, or an output object of transformers.

    Raises:
        ShapeError: there is no tensor, or there are several and none is called logits.
    """
    if isinstance(output, np.ndarray):
        return _from_numpy(output)
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor | np.ndarray):
        return logits_of(named)
    parts: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        parts = output
    elif isinstance(output, list | tuple):
        parts = dict(enumerate(output))
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor | np.ndarray)}
    if len(tensors) == 1:
        return logits_of(next(iter(tensors.values())))
    if tensors:
        listed = ", ".join(f"{name}: {_size(part.shape)}" for name, part in [*tensors.items()][:6])
        raise ShapeError(
            f"the model returns {len(tensors)} tensors ({listed}) and none of them is called logits, so its classes "
            f"are unknown; {INSTEAD}, and a wrapper whose forward returns one of them can be used here."
        )
    raise ShapeError(
        f"the model returns {_article(type(output).__name__)}; training and predictions need a tensor of logits."
    )


def scores_of(output: object, images: int) -> Tensor:
    """A model's return value as one score per class or one number per image: shape (N, K), of a real type.

    >>> scores_of(torch.zeros(2, 10, 1, 1), 2).shape
    torch.Size([2, 10])
    >>> scores_of(torch.zeros(2), 2).shape
    torch.Size([2, 1])

    Args:
        output: The model's return value, in any form that `logits_of` accepts.
        images: Number of images N. Axes of length one, as left by global pooling, are dropped; an output without a
            batch axis holds the scores of one image, or one number for each of several.

    Raises:
        ShapeError: it is something else: maps, sequences, complex numbers, booleans, or empty.
    """
    logits = logits_of(output)
    if logits.is_complex() or logits.dtype == torch.bool:
        raise ShapeError(f"the model returns numbers of type {_type(logits)}; classes need real-valued scores.")
    if logits.layout is not torch.strided or logits.is_nested:
        raise ShapeError("the model returns a sparse or nested tensor; classes need a dense one.")
    rows = _rows(logits, images)
    return rows if rows.is_floating_point() else rows.float()


def _rows(logits: Tensor, images: int) -> Tensor:
    """The output with one row per image."""
    shape = tuple(logits.shape)
    if len(shape) <= 1 and images == 1 and logits.numel():
        return logits.reshape(1, -1)
    if not shape or shape[0] != images or not logits.numel():
        raise ShapeError(
            f"for {images} image{'s' * (images != 1)} the model returns shape {_size(shape)}; classes need one row of "
            f"scores per image, ({images}, number of classes)."
        )
    if len(shape) == 2:
        return logits
    inner = [size for size in shape[1:] if size != 1]
    if len(inner) > 1:
        kind = f"maps of {_size(shape[1:])} numbers, like a segmentation" if len(shape) == 4 else _inner(shape)
        raise ShapeError(
            f"for each image the model returns {kind}, not one score per class, so an image has no predicted class; "
            f"{INSTEAD}."
        )
    return logits.reshape(images, -1)


def _inner(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"{shape[1]} rows of {shape[2]} numbers, a sequence"
    return f"numbers of shape {_size(shape[1:])}"


def check_classes(scores: Tensor, classes: int, *, one_number: bool = True) -> None:
    """Reject scores (N, K) for fewer classes than the data has; a single number may be read as a class number.

    Raises:
        ShapeError: 1 < K < classes, or K = 1 and not `one_number`.
    """
    outputs = scores.shape[1]
    if outputs < classes and not (outputs == 1 and one_number):
        raise ShapeError(
            f"the model has {outputs} output{'s' * (outputs != 1)} for an image, and the data has {classes} classes."
        )


def decide(output: Tensor, classes: int) -> Tensor:
    """The predicted class for each output: argmax of the first `classes`, or the class number nearest to a single one.

    >>> decide(torch.tensor([[0.376], [1.139]]), 2)
    tensor([0, 1])
    """
    if output.shape[1] == 1:
        return output[:, 0].nan_to_num().round().clamp(0, classes - 1).long()
    return output[:, :classes].argmax(1)


def ends_in(model: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> bool:
    """Whether the model's last layer is of a kind, such as a softmax."""
    leaves = [module for module in model.modules() if not any(module.children())]
    return isinstance(leaves[-1], kinds)


def are_probabilities(model: nn.Module, row: Tensor) -> bool:
    """Whether scores (1, K), K > 1, already are probabilities: the model ends in a softmax, or they add up to 1.

    A softmax in float32 divides by a sum of K terms with K roundings of 2**-24, and rounds each quotient once more.
    Integers, such as 1 and 0, are taken for the scores of a hand-made network rather than probabilities.
    """
    if ends_in(model, nn.Softmax):
        return True
    is_integer = bool((row == row.round()).all())
    return (
        bool((row >= 0).all()) and not is_integer and abs(float(row.double().sum()) - 1) < (row.shape[1] + 2) * 2.0**-24
    )


def _from_numpy(output: np.ndarray[Any, Any]) -> Tensor:
    try:
        return torch.from_numpy(np.array(output))
    except TypeError:
        raise ShapeError(f"the model returns an array of type {output.dtype}; numbers are needed.") from None


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _size(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _article(name: str) -> str:
    return "None" if name == "NoneType" else f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Within it the model is in eval mode: batch norm uses its running statistics, dropout is off."""
    with in_evaluation(model):
        yield model


def answer(model: nn.Module, images: Tensor) -> Tensor:
    """A model's scores (N, K) for images (N, C, H, W), in the mode it is in.

    Raises:
        ModelError: the model fails on them; the message says where in the user's code.
        ShapeError: its output is neither one score per class nor one number for each image.
    """
    return scores_of(returned(model, images), len(images))


def returned(model: nn.Module, images: Tensor) -> object:
    """A model's raw return value for images.

    Raises:
        ModelError: the model fails on them; the message says where in the user's code.
    """
    try:
        return model(images)
    except Exception as error:
        raise refusal(model, images, error) from error


def refusal(model: nn.Module, images: Tensor, error: Exception) -> ConvscopeError:
    """The error to raise instead of the exception that a model raised on images (N, C, H, W)."""
    if isinstance(error, ConvscopeError):
        return error
    count, shape = len(images), "x".join(map(str, images.shape[1:]))
    name = card_of(model).name
    if isinstance(error, torch.OutOfMemoryError):
        return ModelError(f"{name} runs out of memory on {count} images of {shape}; use a smaller --batch-size.")
    attempt = f"{name} on {f'{count} images' if count > 1 else 'an image'} of {shape}"
    layer = failing_layer(model, error)
    return ModelError(f"{attempt} fails: {layer}{line_of(error)}.") if layer else failed(attempt, error)
