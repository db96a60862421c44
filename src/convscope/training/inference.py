"""Inference: run a model in eval mode and restore the mode of each of its modules afterwards.

An exception raised by the model becomes one readable error, also during training.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.errors import ConvscopeError, ModelError
from convscope.models.evaluation_mode import in_evaluation
from convscope.models.user_code import failed
from convscope.training.outputs import scores_of


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
    return failed(f"{name} on {f'{count} images' if count > 1 else 'an image'} of {shape}", error)
