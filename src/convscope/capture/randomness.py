"""Randomness: the states of the random generators, kept before a run and put back after it.

Runs may overlap in several threads. The state to put back is that from before the first of them; whoever leaves last
puts it back, and whoever drew does, which one run at a time may.
"""

import random
import threading
import types
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from convscope.capture.subject import PLAIN

_COUNTING = threading.Lock()
_DRAWING = threading.RLock()
_FOUND: dict[Any, Any] = {}
"""The states from before the runs that overlap now, by generator."""
_running = 0


class Randomness:
    """What decides what will be drawn next: torch's generators, and Python's and NumPy's where a model may use them."""

    def __init__(self, device: torch.device, modules: Collection[nn.Module]) -> None:
        self._device = None if device.type == "cpu" else device
        self._generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self._drew = False
        others = any(type(module) not in PLAIN and _may_draw(module) for module in modules) or any(
            map(_hooked, modules)
        )
        with _COUNTING:
            self._enter()
            self._torch = _found("torch", torch.default_generator.get_state)
            self._accelerator = _found(device, torch.get_device_module(device).get_rng_state) if self._device else None
            self._python = _found("python", random.getstate) if others else None
            self._numpy = _found("numpy", np.random.get_state) if others else None

    def _enter(self) -> None:
        global _running  # noqa: PLW0603 - how many run is the process's, as its generators are
        if not _running:
            _FOUND.clear()
        _running += 1

    def drawing(self, generator: torch.Generator | None) -> None:
        """Told before numbers are drawn: from here to the end no other run draws.

        Args:
            generator: The one that is about to be used, kept the first time; None is the default one.
        """
        if not self._drew:
            _DRAWING.acquire()
            self._drew = True
        if generator is not None and all(generator is not known for known, _ in self._generators):
            self._generators.append((generator, generator.get_state()))

    def begin_like(self, earlier: "Randomness") -> None:
        """Start drawing from the states of an earlier run."""
        self.drawing(None)
        for generator, _ in earlier._generators:
            self.drawing(generator)
        earlier._put_back()

    def restore(self) -> None:
        """Put every state back; the run is over."""
        global _running  # noqa: PLW0603
        with _COUNTING:
            _running -= 1
            if self._drew or not _running:
                self._put_back()
        if self._drew:
            _DRAWING.release()

    def _put_back(self) -> None:
        torch.default_generator.set_state(self._torch)
        if self._device is not None:
            torch.get_device_module(self._device).set_rng_state(self._accelerator)
        for generator, state in self._generators:
            generator.set_state(state)
        if self._python is not None and self._numpy is not None:
            random.setstate(self._python)
            np.random.set_state(self._numpy)  # noqa: NPY002


def _found(name: Any, state: Callable[[], Any]) -> Any:
    """The state of a generator from before the runs that overlap now."""
    if name not in _FOUND:
        _FOUND[name] = state()
    return _FOUND[name]


def _hooked(module: nn.Module) -> bool:
    """Whether something of the user's runs with a module."""
    return bool(module.__dict__["_forward_hooks"] or module.__dict__["_forward_pre_hooks"])


def _may_draw(module: nn.Module) -> bool:
    """Whether `forward` may use Python's or NumPy's generators; saving those costs as much as a small network.

    False only where all that it names is torch's, a builtin, a module or a tensor.
    """
    names = _doubtful(type(module))  # type: ignore[arg-type]  # a class is hashable
    if names is None:
        return True
    attributes = module.__dict__
    return any(name in attributes and not _harmless(attributes[name]) for name in names)


@cache
def _doubtful(kind: type[nn.Module]) -> tuple[str, ...] | None:
    """The names in a class's `forward` that its instances may give a meaning; None if it may draw as it is."""
    if _ours(kind):
        return ()
    code = getattr(kind.forward, "__code__", None)
    if code is None or any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return None
    scope = kind.forward.__globals__
    names = [name for name in code.co_names if name not in scope]
    known = [scope[name] for name in code.co_names if name in scope] + [getattr(kind, name, None) for name in names]
    if not all(map(_harmless, known)) or {"random", "numpy", "np"} & set(names):  # imported in forward, or torch.random
        return None
    return tuple(names)


def _harmless(thing: Any) -> bool:
    if thing is None or isinstance(thing, _HARMLESS) or _ours(thing):
        return True
    return not callable(thing) and not isinstance(thing, types.ModuleType | property)


_HARMLESS = (nn.Module, torch.Tensor)


def _ours(thing: Any) -> bool:
    """Whether a module, class or function belongs to torch or to Python's mathematics."""
    home = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return isinstance(home, str) and home.partition(".")[0] in {"torch", "math", "builtins", "typing"}
