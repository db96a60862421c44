"""Random state: save the states of the random generators before a run and restore them after it.

Runs may overlap in several threads. The state to restore is that from before the first of them. The last run to end
restores it, and so does a run that drew numbers, which only one run at a time may do.
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
"""The states from before the current, overlapping runs, by generator."""
_running = 0


class RandomState:
    """The states of torch's generators, and of Python's and NumPy's if the model may use them."""

    def __init__(self, device: torch.device, *, others: bool) -> None:
        """Save the states of torch's generators; with `others`, those of Python and NumPy too."""
        self._device = None if device.type == "cpu" else device
        self._generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self._drew = False
        with _COUNTING:
            self._enter()
            self._torch = _initial_state("torch", torch.default_generator.get_state)
            self._accelerator = (
                _initial_state(device, torch.get_device_module(device).get_rng_state) if self._device else None
            )
            self._python = _initial_state("python", random.getstate) if others else None
            self._numpy = _initial_state("numpy", np.random.get_state) if others else None

    def _enter(self) -> None:
        global _running  # noqa: PLW0603
        if not _running:
            _FOUND.clear()
        _running += 1

    def drawing(self, generator: torch.Generator | None) -> None:
        """Called before numbers are drawn: from here to the end of this run no other run may draw.

        Args:
            generator: The generator about to be used, saved on its first use; None is the default generator.
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
        """Restore every state at the end of the run."""
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


def _initial_state(name: Any, state: Callable[[], Any]) -> Any:
    """The state of a generator from before the current, overlapping runs."""
    if name not in _FOUND:
        _FOUND[name] = state()
    return _FOUND[name]
