"""Bytecode: inspect whether a model's `forward` may do more than call torch operations.

Most models do not, and then need less monitoring: watching the generators of Python and NumPy, methods that torch does
not dispatch, and the model's own objects takes as long as a small network's forward pass. Runs no code of the model.
"""

import dis
import types
from collections.abc import Collection
from functools import cache
from typing import Any

import torch
from torch import nn

from convscope.capture.model_state import PLAIN

BESIDE = frozenset(
    {
        "__array__", "__dlpack__", "data", "data_ptr", "eval", "exec", "getattr", "np", "numpy", "random", "setattr",
        "storage", "tolist", "untyped_storage", "vars",
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
    known = [scope[name] for name in code.co_names if name in scope] + [getattr(kind, name, None) for name in names]
    if not all(map(_harmless, known)) or BESIDE & set(names):
        return None
    if any(instruction.opname == "IMPORT_NAME" for instruction in dis.get_instructions(code)):
        return None
    return tuple(names)


def _harmless(thing: Any) -> bool:
    if thing is None or isinstance(thing, _HARMLESS) or _ours(thing):
        return True
    return not callable(thing) and not isinstance(thing, types.ModuleType | property)


_HARMLESS = (nn.Module, torch.Tensor)
_PLAIN_VALUES = (
    nn.Module, torch.Tensor, torch.dtype, torch.device, bool, int, float, complex, str, tuple, list, dict, set,
    type(None),
)  # fmt: skip


def _ours(thing: Any) -> bool:
    """Whether a module, class or function belongs to torch or to Python's math modules."""
    home = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return isinstance(home, str) and home.partition(".")[0] in {"torch", "math", "builtins", "typing"}
