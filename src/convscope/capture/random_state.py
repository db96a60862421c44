"""Randomness: the states of the random generators, kept before a run and put back after it.

Runs may overlap in several threads. The state to put back is that from before the first of them; whoever leaves last
puts it back, and whoever drew does, which one run at a time may.
"""

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

_COUNTING = threading.Lock()
_DRAWING = threading.RLock()
_FOUND: dict[Any, Any] = {}
"""The states from before the runs that overlap now, by generator."""
_running = 0


class RandomState:
    """What decides what will be drawn next: torch's generators, and Python's and NumPy's where a model may use them."""

    def __init__(self, device: torch.device, *, others: bool) -> None:
        """Keep the states of torch's generators, with `others` those of Python and NumPy too."""
        self._device = None if device.type == "cpu" else device
        self._generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self._drew = False
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

    def begin_like(self, earlier: "RandomState") -> None:
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
