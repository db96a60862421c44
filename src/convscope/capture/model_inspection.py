"""Model inspection: constants it has without any image, and whether `forward` may do more than call torch.

Most models do not, and then need less monitoring: watching the generators of Python and NumPy, methods that torch does
not dispatch, and the model's own objects takes as long as a small network's forward pass. Runs no code of the model.
"""

import dis
import types
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from convscope.capture.held_objects import reached
from convscope.capture.model_state import OF_MODULES, PLAIN

NUMBERS = (int, float, complex, np.number)
Number: TypeAlias = complex | np.generic
"""A number of Python (an int and a float are a complex to the type checker) or of NumPy."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownConstants:
    """Tensors and numbers that existed before the pass and so do not depend on the image."""

    tensors: tuple[Tensor, ...]
    numbers: frozenset[Number]


def known_to(modules: Iterable[nn.Module]) -> KnownConstants:
    """The tensors and numbers that modules hold, or that their functions refer to or contain."""
    tensors: list[Tensor] = []
    numbers: set[Number] = {0, 1, -1, 2}
    roots: list[object] = []
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


def _of_functions(value: object) -> Iterable[object]:
    if isinstance(value, types.FunctionType | types.MethodType | staticmethod | classmethod | property):
        return _of_function(value)
    return ()


def _of_function(value: object) -> list[object]:
    """A function's constants, defaults, closure and the globals that it names."""
    if isinstance(value, property):
        return [value.fget, value.fset]
    function = getattr(value, "__func__", value)
    if not isinstance(function, types.FunctionType):
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *_of_code(function)]


def _of_code(function: types.FunctionType) -> Iterator[object]:
    scope, codes = function.__globals__, [function.__code__]
    while codes:
        code = codes.pop()
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                codes.append(constant)
            else:
                yield constant
        if (function.__module__ or "").partition(".")[0] != "torch":  # torch's own globals are not needed
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


BESIDE = frozenset(
    {
        "__array__", "__dlpack__", "data", "data_ptr", "dropout", "dropout1d", "dropout2d", "dropout3d", "eval", "exec",
        "getattr", "np", "numpy", "random", "setattr", "storage", "tolist", "untyped_storage", "vars",
    }
)  # fmt: skip
"""Names through which code can do things that torch does not dispatch, or reach such names."""


def runs_other_code(modules: Collection[nn.Module]) -> bool:
    """Whether any of these modules may run code other than torch's and plain arithmetic on tensors."""
    return any(type(module) not in PLAIN and _does_more(module) for module in modules) or any(map(_hooked, modules))


def _hooked(module: nn.Module) -> bool:
    """Whether a module has user hooks."""
    return bool(module.__dict__["_forward_hooks"] or module.__dict__["_forward_pre_hooks"])


def _does_more(module: nn.Module) -> bool:
    """False only if every name in `forward` is torch's, a builtin, a module, a tensor or a plain value."""
    names = _doubtful(type(module))  # type: ignore[arg-type]  # a class is hashable
    if names is None:
        return True
    attributes = module.__dict__
    return any(name in attributes and not isinstance(attributes[name], _PLAIN_VALUES) for name in names)


@cache
def _doubtful(kind: type[nn.Module]) -> tuple[str, ...] | None:
    """The names in a class's `forward` that its instances resolve; None if the code itself may do more."""
    if _ours(kind):
        return ()
    code = getattr(kind.forward, "__code__", None)
    if code is None or any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return None
    scope = kind.forward.__globals__
    names = [name for name in code.co_names if name not in scope]
    referenced = [scope[name] for name in code.co_names if name in scope] + [
        getattr(kind, name, None) for name in names
    ]
    if not all(map(_harmless, referenced)) or BESIDE & set(names):
        return None
    if any(instruction.opname == "IMPORT_NAME" for instruction in dis.get_instructions(code)):
        return None
    return tuple(names)


def _harmless(value: object) -> bool:
    if value is None or isinstance(value, _HARMLESS) or _ours(value):
        return True
    return not callable(value) and not isinstance(value, types.ModuleType | property)


_HARMLESS = (nn.Module, torch.Tensor)
_PLAIN_VALUES = (
    nn.Module, torch.Tensor, torch.dtype, torch.device, bool, int, float, complex, str, tuple, list, dict, set,
    type(None),
)  # fmt: skip


def _ours(value: object) -> bool:
    """Whether a module, class or function belongs to torch or to Python's math modules."""
    home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return isinstance(home, str) and home.partition(".")[0] in {"torch", "math", "builtins", "typing"}
