"""Session: a model, its input and how it is to run; runs it under a recorder, again with the same bits if need be.

Knows torch; no steps, no names.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
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
from convscope.capture.tape import settle
from convscope.capture.undispatched import watched
from convscope.progress import Progress
from convscope.traces.step import Array

_LOCKS: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id(module): flags are a module's, not a thread's
_LOOKING = threading.Lock()
_FASTPATH = threading.Lock()
_fastpath_uses = [0, True]  # passes under way, and the user's setting; guarded by _FASTPATH


@dataclass(slots=True, eq=False)
class TracingSession:
    """How one trace was made; `run` makes it."""

    subject: ModelState
    intake: CallInputs
    training: bool = False
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    """What stands in the place of the model's own, by name."""
    results: Mapping[int, Array] = field(default_factory=dict)
    """What stands in the place of the first result of a call, by time."""
    tensors: Mapping[str, Tensor] = field(init=False)
    """Parameters and buffers as they were used, by name."""
    stamps: dict[str, tuple[int, int]] = field(init=False)
    """By name: which memory each parameter was in, and how often it had been written into."""
    start: RandomState | None = None
    """The random states that the first run started from."""
    known: KnownConstants | None = None
    """What the model held before the pass, where numbers left PyTorch during it."""
    progress: Progress | None = None
    """Told when a module begins; what it raises ends the run."""

    def __post_init__(self) -> None:
        self.tensors = self.subject.parameters
        self.stamps = stamps(self.subject.parameters)

    def run(self, recorder: Recorder) -> Any:
        """Run the model once, each operation recorded, and leave everything as it was.

        Returns:
            What the model returned; its tensors hold their numbers on the recorder's tape.

        Raises:
            Exception: whatever the model raised; the recorder has what happened until then.
        """
        if self.subject.compiled or torch.is_inference_mode_enabled():
            with _ordinary(self.subject.compiled):
                return self._run(recorder)
        return self._run(recorder)

    def _run(self, recorder: Recorder) -> Any:
        with _alone(self.subject):
            found, gradients = self.subject.found(), torch.is_grad_enabled()
            torch._C._set_grad_enabled(False)
            try:
                with _without_fused_transformers():
                    return self._prepared(recorder)
            finally:
                torch._C._set_grad_enabled(gradients)
                self.subject.leave_as(found)
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
        """Run from the random states of the first run."""
        subject = self.subject
        recorder.drawing, recorder.progress = now.drawing, self.progress
        recorder.begin()
        if self.start is None:
            self.start = now
        else:
            now.begin_like(self.start)
        shortcuts = SHORTCUTS if not recorder.replaces and _undisturbed() else {}
        for path, module in subject.modules.items():
            recorder.follow(module, path, shortcuts)
        try:
            with recorder:
                return subject.model(*self.intake.arguments, **self.intake.keywords)
        except StopRecording:
            return None
        finally:
            settle(recorder.tape, [*self.tensors.values(), *self.intake.tensors.values()], recorder.born)
            if recorder.tape.writes:
                self._uncount()

    def _uncount(self) -> None:
        """Forget that parameters and buffers were written into: their numbers are as they were."""
        for name, tensor in self.subject.parameters.items():
            before = self.stamps[name][1]
            if version(tensor) != before and name not in self.parameters:
                torch._C._autograd._unsafe_set_version_counter((tensor,), (before,))

    def changed(self) -> tuple[str, ...]:
        """The parameters and buffers that are no longer those of the trace."""
        with _alone(self.subject):  # a pass puts overrides in the place of parameters
            held, now = self.subject.parameters_now(), stamps(self.subject.parameters)
        return tuple(
            name
            for name, tensor in self.subject.parameters.items()
            if name not in self.parameters and (held.get(name) is not tensor or now[name] != self.stamps[name])
        )


@contextmanager
def _alone(subject: ModelState) -> Iterator[None]:
    """While no other thread runs any of a model's modules here; other models run meanwhile."""
    with _LOOKING:
        locks = [_LOCKS.setdefault(id(module), threading.RLock()) for module in subject.modules.values()]
    held = []
    try:
        for lock in sorted(locks, key=id):  # in one order, so that no two threads wait for each other
            lock.acquire()
            held.append(lock)
        yield
    finally:
        for lock in held:
            lock.release()


def stamps(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """What changes when a tensor is written into or gets other memory, by name."""
    try:
        return {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()}
    except RuntimeError:  # tensors of inference mode do not count
        return {name: (tensor.data_ptr(), version(tensor)) for name, tensor in tensors.items()}


def _undisturbed() -> bool:
    """Whether nobody else changes what torch's functions do."""
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return not modes and not torch.is_autocast_enabled("cpu")


@contextmanager
def _ordinary(compiled: bool) -> Iterator[None]:
    """Outside of inference mode, whose tensors do not count how often they are written into, and uncompiled."""
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with torch.inference_mode(False), stance:
        yield


@contextmanager
def _without_fused_transformers() -> Iterator[None]:
    """Run transformer layers as the operations that they consist of, so that each one is seen and proved.

    PyTorch's fast path of evaluation runs a whole encoder layer as one operation, whose inner numbers are hidden.
    The switch is process-wide: it goes off with the first pass and back to the user's setting with the last one.
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
