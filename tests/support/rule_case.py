"""One case of the rules: a function or a module, and the shapes of what it is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Does = Callable[..., Any]
IMAGE = (2, 3, 9, 11)
TABLE = (4, 5)


@dataclass(frozen=True)
class Case:
    """A function or a module, built anew for each trace, and the shapes of its inputs."""

    does: Callable[[], Does]
    shapes: tuple[tuple[int, ...], ...] = (TABLE,)
    training: bool = False
    scale: float = 1.0
    slopes: bool = True
    """Whether autograd can be asked for the slopes of its result."""
    resolution: float = 1 / 2000
    """How large its bound may be, as a share of its numbers' size."""


class Doing(nn.Module):
    """A function as a model."""

    def __init__(self, does: Does) -> None:
        super().__init__()
        self.does = does
        self.like = nn.Parameter(torch.zeros(()))  # says which type the model takes

    def forward(self, *inputs: Tensor) -> Any:
        return self.does(*inputs)


def layer(build: Callable[[], nn.Module], *shapes: tuple[int, ...], **options: Any) -> Case:
    """A module."""
    return Case(build, shapes or (IMAGE,), **options)


def call(does: Does, *shapes: tuple[int, ...], **options: Any) -> Case:
    """A function of its inputs."""
    return Case(lambda: does, shapes or (TABLE,), **options)


def weighing(does: Does, *weights: tuple[int, ...], shapes: tuple[tuple[int, ...], ...] = (TABLE,)) -> Case:
    """A function of its inputs and of parameters of these shapes."""

    def build() -> Does:
        values = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in weights])
        model = Doing(lambda *inputs: does(*inputs, *values))
        model.values = values
        return model

    return Case(build, shapes)
