"""Known constants: tensors and numbers that a model has without any image: attributes, closures, literals in its code.

Knows Python's functions and torch's modules; runs no code of the model.
"""

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.capture.held_objects import reached
from convscope.capture.model_state import OF_MODULES, PLAIN

NUMBERS = (int, float, complex, np.number)


@dataclass(frozen=True, slots=True, eq=False)
class KnownConstants:
    """Tensors and numbers that existed before the pass and so do not depend on the image."""

    tensors: tuple[Tensor, ...]
    numbers: frozenset[Any]


def known_to(modules: Iterable[nn.Module]) -> KnownConstants:
    """The tensors and numbers that modules hold, or that their functions refer to or contain."""
    tensors: list[Tensor] = []
    numbers: set[Any] = {0, 1, -1, 2}
    roots: list[Any] = []
    for module in modules:
        roots += [value for name, value in module.__dict__.items() if name not in OF_MODULES]
        if type(module) in PLAIN:
            continue
        for kind in type(module).__mro__:
            if kind.__module__.partition(".")[0] != "torch":
                roots += vars(kind).values()
    for value in reached(roots, _of_functions):
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, NUMBERS):
            numbers.add(value)
    return KnownConstants(tuple(tensors), frozenset(numbers))


def _of_functions(value: Any) -> Iterable[Any]:
    if isinstance(value, types.FunctionType | types.MethodType | staticmethod | classmethod | property):
        return _of_function(value)
    return ()


def _of_function(value: Any) -> list[Any]:
    """A function's constants, defaults, closure and the globals that it names."""
    if isinstance(value, property):
        return [value.fget, value.fset]
    function = getattr(value, "__func__", value)
    if not isinstance(function, types.FunctionType):
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *_of_code(function)]


def _of_code(function: types.FunctionType) -> Iterator[Any]:
    scope, codes = function.__globals__, [function.__code__]
    while codes:
        code = codes.pop()
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                codes.append(constant)
            else:
                yield constant
        if function.__module__.partition(".")[0] != "torch":  # torch's own globals are not needed
            for name in code.co_names:
                yield scope.get(name)
                yield getattr(nn.functional, name, None)
                yield getattr(torch, name, None)


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - empty cells raise
    except ValueError:
        return False
    return True
