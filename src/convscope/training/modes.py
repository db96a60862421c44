"""Modes: a model in eval mode for a while, each of its modules left as it was, also where the model raises."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Within it the model evaluates: batch norm by its running statistics, dropout off."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in before:
            module.training = mode
