"""Outputs: what a model's answer to images means, one rule for all that ask for classes.

A classifier answers N images with one score per class, shape (N, K), or with one number each, (N, 1). Whatever says so
in another form is brought to this one; whatever does not, such as a segmentation map, is refused in one sentence.
Knows torch; no data, no files.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import ShapeError

INSTEAD = "trace, explain and verify take it as it is"


def logits_of(output: object) -> Tensor:
    """The tensor among what a model answers with: the only one, or the one called logits.

    >>> logits_of({"logits": torch.ones(1, 2), "features": torch.ones(1, 9)}).shape
    torch.Size([1, 2])

    Args:
        output: A tensor or an array; a dict, a tuple, or an output object of transformers.

    Raises:
        ShapeError: there is none, or there are several and none is called logits.
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
            f"the model answers with {len(tensors)} tensors ({listed}) and none of them is called logits, so what its "
            f"classes are is not known; {INSTEAD}, and a wrapper whose forward returns one of them can be used here."
        )
    raise ShapeError(
        f"the model answers with {_article(type(output).__name__)}; training and predictions need a tensor of logits."
    )


def scores_of(output: object, images: int) -> Tensor:
    """What a model answers to some images as one score per class or one number: shape (N, K), of a real type.

    >>> scores_of(torch.zeros(2, 10, 1, 1), 2).shape
    torch.Size([2, 10])
    >>> scores_of(torch.zeros(2), 2).shape
    torch.Size([2, 1])

    Args:
        output: What the model returned, as `logits_of` takes it.
        images: How many images it was asked about, N. Axes of length one, as global pooling leaves them, are dropped;
            without a batch axis the answer to one image is its scores, to several one number each.

    Raises:
        ShapeError: it is something else: maps, sequences, complex numbers or truth values, nothing at all.
    """
    logits = logits_of(output)
    if logits.is_complex() or logits.dtype == torch.bool:
        raise ShapeError(f"the model answers with numbers of type {_type(logits)}; classes are told by real scores.")
    if logits.layout is not torch.strided or logits.is_nested:
        raise ShapeError("the model answers with a sparse or nested tensor; classes are told by a dense one.")
    rows = _rows(logits, images)
    return rows if rows.is_floating_point() else rows.float()


def _rows(logits: Tensor, images: int) -> Tensor:
    """The answer with one row per image."""
    shape = tuple(logits.shape)
    if len(shape) <= 1 and images == 1 and logits.numel():
        return logits.reshape(1, -1)
    if not shape or shape[0] != images or not logits.numel():
        raise ShapeError(
            f"the model answers {images} image{'s' * (images != 1)} with numbers of shape {_size(shape)}; classes are "
            f"told by one row of scores per image, ({images}, number of classes)."
        )
    if len(shape) == 2:
        return logits
    inner = [size for size in shape[1:] if size != 1]
    if len(inner) > 1:
        kind = f"maps of {_size(shape[1:])} numbers, as segmentation does, not" if len(shape) == 4 else _inner(shape)
        raise ShapeError(
            f"the model answers an image with {kind} with one score per class, so it gives an image no class; "
            f"{INSTEAD}."
        )
    return logits.reshape(images, -1)


def _inner(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"{shape[1]} rows of {shape[2]} numbers, a sequence, not"
    return f"numbers of shape {_size(shape[1:])}, not"


def check_classes(scores: Tensor, classes: int, *, one_number: bool = True) -> None:
    """Refuse scores (N, K) of fewer classes than there are; one number is the nearest class number where that is meant.

    Raises:
        ShapeError: 1 < K < classes, or K = 1 and one number is not meant.
    """
    outputs = scores.shape[1]
    if outputs < classes and not (outputs == 1 and one_number):
        raise ShapeError(
            f"the model answers with {outputs} number{'s' * (outputs != 1)} for an image, and the data has {classes} "
            "classes."
        )


def decide(output: Tensor, classes: int) -> Tensor:
    """The class of each output: the largest of the first `classes`, the nearest class number of a single one.

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
    """Whether scores (1, K), K > 1, already are shares of one: the model ends in a softmax, or they add up to 1.

    A softmax in float32 divides by a sum of K terms, which K roundings of 2**-24 may have moved, and rounds each share
    once more. Whole numbers, such as 1 and 0, are the scores of a network made by hand rather than shares.
    """
    if ends_in(model, nn.Softmax):
        return True
    whole = bool((row == row.round()).all())
    return bool((row >= 0).all()) and not whole and abs(float(row.double().sum()) - 1) < (row.shape[1] + 2) * 2.0**-24


def _from_numpy(output: np.ndarray[Any, Any]) -> Tensor:
    try:
        return torch.from_numpy(np.array(output))
    except TypeError:
        raise ShapeError(f"the model answers with an array of type {output.dtype}; numbers are needed.") from None


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _size(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _article(name: str) -> str:
    return "None" if name == "NoneType" else f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"
