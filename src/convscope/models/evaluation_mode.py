"""Modes: training and evaluation of every module, also of those that refuse to be told, such as torch.export's."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def evaluate(model: nn.Module) -> nn.Module:
    """Set a model to evaluation: by its own `eval`, or where that fails, module by module.

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
    """Within it the model evaluates; then each of its modules is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    evaluate(model)
    try:
        yield
    finally:
        for module, mode in before:
            module.__dict__["training"] = mode
