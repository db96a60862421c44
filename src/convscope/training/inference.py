"""Modes: asking a model for an answer, in eval mode for a while, each of its modules left as it was.

What a model raises becomes one sentence, also while it trains.
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
    """Within it the model evaluates: batch norm by its running statistics, dropout off."""
    with in_evaluation(model):
        yield model


def answer(model: nn.Module, images: Tensor) -> Tensor:
    """What a model answers to images (N, C, H, W) as it is, in the mode it is in: (N, K).

    Raises:
        ModelError: the model fails on them; the message says where in the user's code.
        ShapeError: it answers with something else than one score per class or one number for each image.
    """
    return scores_of(returned(model, images), len(images))


def returned(model: nn.Module, images: Tensor) -> object:
    """What a model returns for images, whatever it is.

    Raises:
        ModelError: the model fails on them; the message says where in the user's code.
    """
    try:
        return model(images)
    except Exception as error:
        raise refusal(model, images, error) from error


def refusal(model: nn.Module, images: Tensor, error: Exception) -> ConvscopeError:
    """The error to raise in the place of what a model raised on images (N, C, H, W)."""
    if isinstance(error, ConvscopeError):
        return error
    count, shape = len(images), "x".join(map(str, images.shape[1:]))
    name = card_of(model).name
    if isinstance(error, torch.OutOfMemoryError):
        return ModelError(f"{name} finds no memory for {count} images of {shape} at once; take a smaller --batch-size.")
    return failed(f"{name} on {f'{count} images' if count > 1 else 'an image'} of {shape}", error)
