"""Evaluation mode: switch every module to eval mode and back, also those whose `eval` fails, as torch.export's does."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def evaluate(model: nn.Module) -> nn.Module:
    """Set a model to eval mode: by its own `eval` or, if that fails, module by module.

    >>> evaluate(nn.Dropout()).training
    False
    """
    try:
        model.eval()
    except (NotImplementedError, AttributeError, RuntimeError):
        for module in model.modules():
            module.__dict__["training"] = False
    return model


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode; afterwards each module returns to its previous mode."""
    before = [(module, module.training) for module in model.modules()]
    evaluate(model)
    try:
        yield
    finally:
        for module, mode in before:
            module.__dict__["training"] = mode
