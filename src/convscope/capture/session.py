"""Session: a model, its input and its settings; runs it under a recorder, and again with the same bits if needed.

Knows torch; no steps, no names.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from convscope.capture.bytecode import runs_other_code
from convscope.capture.call_inputs import CallInputs
from convscope.capture.known_constants import KnownConstants, known_to
from convscope.capture.model_state import ModelState, version
from convscope.capture.random_state import RandomState
from convscope.capture.recorder import Recorder, StopRecording
from convscope.capture.shortcuts import SHORTCUTS
from convscope.capture.tape import finalize
from convscope.capture.undispatched import watched
from convscope.progress import Progress
from convscope.traces.step import Array

_LOCKS: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id(module): flags belong to modules, not threads
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
    known: KnownConstants | None = None
    """The model's constants before the pass; needed only if numbers left PyTorch during it."""
    progress: Progress | None = None
    """Called when a module starts; an exception from it ends the run."""

    def __post_init__(self) -> None:
        self.tensors = self.subject.parameters
        self.stamps = stamps(self.subject.parameters)

    def run(self, recorder: Recorder) -> Any:
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

    def _run(self, recorder: Recorder) -> Any:
        with _alone(self.subject):
            result, gradients = self.subject.found(), torch.is_grad_enabled()
            torch._C._set_grad_enabled(False)
            try:
                with _without_fused_transformers():
                    return self._prepared(recorder)
            finally:
                torch._C._set_grad_enabled(gradients)
                self.subject.leave_as(result)
                if recorder.tape.departures and self.known is None:
                    self.known = known_to(self.subject.modules.values())

    def _prepared(self, recorder: Recorder) -> Any:
        subject = self.subject
        if self.parameters:
            given = {name: subject.put(name, value) for name, value in self.parameters.items()}
            self.tensors = {**subject.parameters, **given}
        if not self.training:
            subject.evaluate()
        if subject.compiled:
            subject.uncompile()
        others = runs_other_code(subject.modules.values())
        now = RandomState(subject.device, others=others)
        try:
            if not others:
                return self._drawing_like(now, recorder)
            with watched(recorder):
                return self._drawing_like(now, recorder)
        finally:
            now.restore()

    def _drawing_like(self, now: RandomState, recorder: Recorder) -> Any:
        """Run from the random state of the first run."""
        subject = self.subject
        recorder.drawing, recorder.progress = now.drawing, self.progress
        recorder.begin()
        if self.start is None:
            self.start = now
        else:
            now.begin_like(self.start)
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

    def call(self, recorder: Recorder) -> Any:  # noqa: ARG002  # a training step's needs it
        """Call the model, while `recorder` records."""
        return self.subject.model(*self.intake.arguments, **self.intake.keywords)

    def _uncount(self) -> None:
        """Refresh the write counts of parameters and buffers, whose numbers have been restored."""
        for name, tensor in self.subject.parameters.items():
            before = self.stamps[name][1]
            if version(tensor) != before and name not in self.parameters:
                torch._C._autograd._unsafe_set_version_counter((tensor,), (before,))

    def changed(self) -> tuple[str, ...]:
        """The parameters and buffers that changed since the trace."""
        with _alone(self.subject):  # a pass may have replaced parameters by overrides
            held, now = self.subject.parameters_now(), stamps(self.subject.parameters)
        return tuple(
            name
            for name, tensor in self.subject.parameters.items()
            if name not in self.parameters and (held.get(name) is not tensor or now[name] != self.stamps[name])
        )


@contextmanager
def _alone(subject: ModelState) -> Iterator[None]:
    """Exclude other threads that run a module of this model; other models may run meanwhile."""
    with _LOOKING:
        locks = [_LOCKS.setdefault(id(module), threading.RLock()) for module in subject.modules.values()]
    held = []
    try:
        for lock in sorted(locks, key=id):  # a fixed order prevents deadlocks
            lock.acquire()
            held.append(lock)
        yield
    finally:
        for lock in held:
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
