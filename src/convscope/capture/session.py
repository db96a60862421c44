"""Session: a model, its input and its settings; runs it under a recorder, and again with the same bits if needed.

Torch does not dispatch some tensor methods through which numbers leave PyTorch (`numpy()`, `tolist()`, pointers for
compiled code) or a tensor gets other memory (`.data = ...`), nor dropout functions that are inactive. `watched`
replaces them while any pass runs, and the last pass to end restores them; other threads are unaffected. Hooks and modes
could intercept them too, but make torch take slower paths whose last bits differ.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import functional

from convscope.capture.call_inputs import CallInputs
from convscope.capture.model_inspection import KnownConstants, known_to, runs_other_code
from convscope.capture.model_state import ModelState, RandomState, set_version, version
from convscope.capture.recorder import SHORTCUTS, Recorder, StopRecording
from convscope.capture.tape import assign_data, finalize
from convscope.progress import Progress
from convscope.typing import Array

_COUNTING = threading.Lock()
_HERE = threading.local()
_originals: dict[str, object] = {}
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
    for name in _DROPOUTS:  # as found: they may be replaced already
        _dropouts[name] = getattr(functional, name)
        setattr(functional, name, _watching_dropout(_dropouts[name]))
    for name in (*_WATCHING, "data"):
        _originals[name] = Tensor.__dict__.get(name)
    for name, watching in _WATCHING.items():
        setattr(Tensor, name, watching)
    Tensor.data = _DATA  # type: ignore[assignment]  # torch declares an attribute


def _put_back() -> None:
    for name, dropout in _dropouts.items():
        setattr(functional, name, dropout)
    for name, original in _originals.items():
        if original is None:  # inherited from torch._C.TensorBase
            delattr(Tensor, name)
        else:
            setattr(Tensor, name, original)


def _watching(name: str, *, shares: bool) -> Callable[..., object]:
    """A replacement method that notifies this thread's recorder and then calls the original."""
    original = getattr(Tensor, name)

    def method(self: Tensor, *args: object, **kwargs: object) -> object:
        recorder = getattr(_HERE, "recorder", None)
        if recorder is not None:
            _HERE.recorder = None  # the original may call other intercepted methods
            try:
                result = original(self, *args, **kwargs)
                (recorder.shares if shares else recorder.departs)(self, f"{name.strip('_')}()")
                return result
            finally:
                _HERE.recorder = recorder
        return original(self, *args, **kwargs)

    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", original.__doc__
    return method


_WATCHING = {name: _watching(name, shares=name in SHARING) for name in (*SHARING, *READING)}


def _watching_dropout(original: Callable[..., object]) -> Callable[..., object]:
    """A wrapper of a dropout function that records inactive calls, for which torch dispatches nothing."""

    @functools.wraps(original)
    def dropout(*args: object, **kwargs: object) -> object:
        result = original(*args, **kwargs)
        recorder = getattr(_HERE, "recorder", None)
        if recorder is None:
            return result
        bound = _PARAMETERS.bind(*args, **kwargs)
        bound.apply_defaults()
        x, p, active = (bound.arguments[word] for word in ("input", "p", "training"))
        return recorder.idles(float(p), result) if p and not active and result is x else result

    return dropout


_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d")
_dropouts: dict[str, Callable[..., object]] = {}
_PARAMETERS = inspect.signature(functional.dropout)


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


_LOCKS: "WeakValueDictionary[int, threading.RLock]" = (
    WeakValueDictionary()
)  # by id(module): flags belong to modules, not threads
_LOOKING = threading.Lock()
_FASTPATH = threading.Lock()
_fastpath_uses = [0, True]  # number of running passes, and the user's setting; guarded by _FASTPATH


@dataclass(slots=True, eq=False)
class TracingSession:
    """Everything that determines one trace; `run` makes it."""

    shortens: ClassVar[bool] = True
    """Whether common layers may be called by shortcuts, which autograd does not see."""

    subject: ModelState
    intake: CallInputs
    training: bool = False
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    """Overrides of parameters, by name."""
    results: Mapping[int, Array] = field(default_factory=dict)
    """Overrides of the first result of a call, by time."""
    tensors: Mapping[str, Tensor] = field(init=False)
    """The parameters and buffers used, by name."""
    stamps: dict[str, tuple[int, int]] = field(init=False)
    """Parameter name -> its memory and its count of writes."""
    start: RandomState | None = None
    """The random state at the start of the first run."""
    earlier: KnownConstants | None = None
    """The model's constants before the pass; needed only if numbers left PyTorch during it."""
    progress: Progress | None = None
    """Called when a module starts; an exception from it ends the run."""

    def __post_init__(self) -> None:
        self.tensors = self.subject.parameters
        self.stamps = stamps(self.subject.parameters)

    def run(self, recorder: Recorder) -> object:
        """Run the model once, recording each operation, and restore everything afterwards.

        Returns:
            The model's return value; the numbers of its tensors are on the recorder's tape.

        Raises:
            Exception: any exception of the model; the recorder has everything up to then.
        """
        if self.subject.compiled or torch.is_inference_mode_enabled():
            with _ordinary(self.subject.compiled):
                return self._run(recorder)
        return self._run(recorder)

    def _run(self, recorder: Recorder) -> object:
        with _alone(self.subject):
            result, gradients = self.subject.save(), torch.is_grad_enabled()
            torch._C._set_grad_enabled(False)
            try:
                with _without_fused_transformers():
                    return self._prepared(recorder)
            finally:
                torch._C._set_grad_enabled(gradients)
                self.subject.restore(result)
                if recorder.tape.departures and self.earlier is None:
                    self.earlier = known_to(self.subject.modules.values())

    def _prepared(self, recorder: Recorder) -> object:
        subject = self.subject
        if self.parameters:
            replaced = {name: subject.put(name, value) for name, value in self.parameters.items()}
            self.tensors = {**subject.parameters, **replaced}
        if not self.training:
            subject.evaluate()
        if subject.compiled:
            subject.uncompile()
        runs_others = runs_other_code(subject.modules.values())
        random_state = RandomState(subject.device, others=runs_others)
        try:
            if not runs_others:
                return self._drawing_like(random_state, recorder)
            with watched(recorder):
                return self._drawing_like(random_state, recorder)
        finally:
            random_state.restore()

    def _drawing_like(self, random_state: RandomState, recorder: Recorder) -> object:
        """Run from the random state of the first run."""
        subject = self.subject
        recorder.drawing, recorder.progress = random_state.drawing, self.progress
        recorder.begin()
        if self.start is None:
            self.start = random_state
        else:
            random_state.begin_like(self.start)
        shortcuts = SHORTCUTS if self.shortens and not recorder.replaces and _undisturbed() else {}
        for path, module in subject.modules.items():
            recorder.follow(module, path, shortcuts)
        try:
            with recorder:
                return self.call(recorder)
        except StopRecording:
            return None
        finally:
            finalize(recorder.tape, [*self.tensors.values(), *self.intake.tensors.values()], recorder.born)
            if recorder.tape.writes:
                self._uncount()

    def call(self, recorder: Recorder) -> object:  # noqa: ARG002  # a training step's needs it
        """Call the model, while `recorder` records."""
        return self.subject.model(*self.intake.arguments, **self.intake.keywords)

    def _uncount(self) -> None:
        """Refresh the write counts of parameters and buffers, whose numbers have been restored."""
        for name, tensor in self.subject.parameters.items():
            before = self.stamps[name][1]
            if version(tensor) != before and name not in self.parameters:
                set_version(tensor, before)

    def changed(self) -> tuple[str, ...]:
        """The parameters and buffers that changed since the trace."""
        with _alone(self.subject):  # a pass may have replaced parameters by overrides
            current, current_stamps = self.subject.parameters_now(), stamps(self.subject.parameters)
        return tuple(
            name
            for name, tensor in self.subject.parameters.items()
            if name not in self.parameters
            and (current.get(name) is not tensor or current_stamps[name] != self.stamps[name])
        )


@contextmanager
def _alone(subject: ModelState) -> Iterator[None]:
    """Exclude other threads that run a module of this model; other models may run meanwhile."""
    with _LOOKING:
        locks = [_LOCKS.setdefault(id(module), threading.RLock()) for module in subject.modules.values()]
    acquired = []
    try:
        for lock in sorted(locks, key=id):  # a fixed order prevents deadlocks
            lock.acquire()
            acquired.append(lock)
        yield
    finally:
        for lock in acquired:
            lock.release()


def stamps(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Name -> values that change when a tensor is written into or gets other memory."""
    try:
        return {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()}
    except RuntimeError:  # inference tensors do not count writes
        return {name: (tensor.data_ptr(), version(tensor)) for name, tensor in tensors.items()}


def _undisturbed() -> bool:
    """Whether torch's functions are not intercepted by another mode or override."""
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return not modes and not torch.is_autocast_enabled("cpu")


@contextmanager
def _ordinary(compiled: bool) -> Iterator[None]:
    """Leave inference mode, whose tensors do not count writes, and disable torch.compile."""
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with torch.inference_mode(False), stance:
        yield


@contextmanager
def _without_fused_transformers() -> Iterator[None]:
    """Run transformer layers as their individual operations, so that each one is recorded and proved.

    PyTorch's inference fast path runs a whole encoder layer as one operation and hides its inner numbers. The switch
    is process-wide: the first pass turns it off, and the last one restores the user's setting.
    """
    with _FASTPATH:
        if not _fastpath_uses[0]:
            _fastpath_uses[1] = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _fastpath_uses[0] += 1
    try:
        yield
    finally:
        with _FASTPATH:
            _fastpath_uses[0] -= 1
            if not _fastpath_uses[0]:
                torch.backends.mha.set_fastpath_enabled(bool(_fastpath_uses[1]))
