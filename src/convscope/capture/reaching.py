"""Reaching: what a model holds besides its parameters, through containers, objects of its own and its functions.

Knows Python's containers and torch's modules; runs nothing of the model.
"""

import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.capture.subject import OF_MODULES, PLAIN

MOST = 10_000
"""Objects that are looked at, at most: a model may hold a whole data set."""
NUMBERS = (int, float, complex, np.number)
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
OTHERS = frozenset({"torch", "numpy", *sys.stdlib_module_names})
"""Packages whose objects keep their state to themselves."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What could be read without the image: tensors and numbers that were there before the pass."""

    tensors: tuple[Tensor, ...]
    numbers: frozenset[Any]


def known_to(modules: Iterable[nn.Module]) -> Known:
    """The tensors and numbers that modules hold, or that their functions name or contain."""
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
    for value in reached(roots, functions=True):
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, NUMBERS):
            numbers.add(value)
    return Known(tuple(tensors), frozenset(numbers))


def reached(roots: Iterable[Any], *, functions: bool = False) -> Iterator[Any]:
    """Every object that can be reached from some, each once; modules, tensors and classes end the way.

    Args:
        roots: Where to begin.
        functions: Whether also what functions contain, close over and name.
    """
    seen: set[int] = set()
    left = deque(roots)
    while left and len(seen) < MOST:
        value = left.popleft()
        if id(value) in seen or value is None or isinstance(value, str | bool):
            continue
        seen.add(id(value))
        yield value
        left.extend(_inside(value, functions=functions))


def _inside(value: Any, *, functions: bool) -> Iterable[Any]:
    if isinstance(value, Mapping) and isinstance(value, dict):
        return value.values()
    if isinstance(value, CONTAINERS):
        return value
    if functions and isinstance(value, types.FunctionType | types.MethodType | staticmethod | classmethod | property):
        return _of_function(value)
    return [] if not is_own(value) else [*vars_of(value).values()]


def is_own(value: Any) -> bool:
    """Whether this is an object of the model's own code, whose attributes are its state."""
    if isinstance(value, nn.Module | Tensor | type | types.ModuleType | types.FunctionType | types.MethodType):
        return False
    return type(value).__module__.partition(".")[0] not in OTHERS and not isinstance(value, CONTAINERS)


def vars_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too, without running any code of it."""
    try:
        attributes = dict(object.__getattribute__(value, "__dict__"))
    except (AttributeError, TypeError):
        attributes = {}
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            member = kind.__dict__.get(name)
            if isinstance(member, types.MemberDescriptorType):
                try:
                    attributes[name] = member.__get__(value)
                except AttributeError:  # not set
                    continue
    return attributes


def _of_function(value: Any) -> list[Any]:
    """What a function contains: constants, defaults, what it closes over, and the globals that it names."""
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
        if function.__module__.partition(".")[0] != "torch":  # of torch's functions what they contain is enough
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
