"""Undispatched methods: tensor methods that torch does not dispatch, intercepted while a pass runs in this thread.

Through them numbers leave PyTorch (`numpy()`, `tolist()`, pointers for compiled code), or a tensor gets other memory
(`.data = ...`). They are replaced on the class while any pass runs, and restored by the last one to end; other threads
are unaffected. Hooks and modes could intercept them too, but make torch take slower paths with other last bits.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from convscope.capture.recorder import Recorder
from convscope.capture.tape import assign_data

_COUNTING = threading.Lock()
_HERE = threading.local()
_originals: dict[str, Any] = {}
_running = 0

SHARING = ("numpy", "data_ptr", "__dlpack__")
"""Methods that expose a tensor's memory for reading and writing; `__array__` calls `numpy`."""
READING = ("tolist",)
"""Methods that return numbers only; `item`, `float`, `bool` and iteration are dispatched."""


@contextmanager
def watched(recorder: Recorder) -> Iterator[None]:
    """Notify `recorder` of undispatched methods called in this thread."""
    global _running  # noqa: PLW0603 - the class is shared by the whole process
    outer = getattr(_HERE, "recorder", None)
    with _COUNTING:
        if not _running:
            _replace()
        _running += 1
    _HERE.recorder = recorder
    try:
        yield
    finally:
        _HERE.recorder = outer
        with _COUNTING:
            _running -= 1
            if not _running:
                _put_back()


def _replace() -> None:
    for name in (*_WATCHING, "data"):
        _originals[name] = Tensor.__dict__.get(name)
    for name, watching in _WATCHING.items():
        setattr(Tensor, name, watching)
    Tensor.data = _DATA  # type: ignore[assignment]  # torch declares an attribute


def _put_back() -> None:
    for name, original in _originals.items():
        if original is None:  # inherited from torch._C.TensorBase
            delattr(Tensor, name)
        else:
            setattr(Tensor, name, original)


def _watching(name: str, *, shares: bool) -> Callable[..., Any]:
    """A replacement method that notifies this thread's recorder and then calls the original."""
    own = getattr(Tensor, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder = getattr(_HERE, "recorder", None)
        if recorder is not None:
            _HERE.recorder = None  # the original may call other intercepted methods
            try:
                result = own(self, *args, **kwargs)
                (recorder.shares if shares else recorder.departs)(self, f"{name.strip('_')}()")
                return result
            finally:
                _HERE.recorder = recorder
        return own(self, *args, **kwargs)

    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", own.__doc__
    return method


_WATCHING = {name: _watching(name, shares=name in SHARING) for name in (*SHARING, *READING)}


def _data(tensor: Tensor) -> Tensor:
    result: Tensor = torch._C.TensorBase.data.__get__(tensor)  # type: ignore[attr-defined]  # a descriptor of C
    return result


def _assign(tensor: Tensor, source: Tensor) -> None:
    recorder = getattr(_HERE, "recorder", None)
    if recorder is None:
        assign_data(tensor, source)
    else:
        recorder.assigns(tensor, source, assign_data)


_DATA = property(_data, _assign, doc=torch._C.TensorBase.data.__doc__)
