"""Activations: the results of chosen steps over many batches, without recording the rest.

A trace of the first images finds the calls behind the steps; in every pass the results of these calls are handed to a
callback, and nothing is stored.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, overload

from torch import Tensor, nn

from convscope.capture.call_records import results_of, signature_of
from convscope.capture.model_state import ModelState
from convscope.capture.recorder import Recorder, StopRecording
from convscope.capture.recording import Recording
from convscope.capture.tape import Call
from convscope.capture.tracing import trace
from convscope.errors import TraceError
from convscope.traces.step import Step
from convscope.traces.trace import Trace

T = TypeVar("T")
INPUT = -1


class _WatchedStep(NamedTuple):
    """A chosen step, and the operation of the call that makes its result."""

    step: Step
    op: str


class ActivationWatch:
    """Runs a model on batches and hands out the results of chosen steps.

    >>> import torch
    >>> watch = ActivationWatch(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), ["1"])
    >>> with torch.no_grad():
    ...     watch(torch.ones(7, 1, 5, 5), lambda step, result: tuple(result.shape))
    {'1': (7, 2, 3, 3)}
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        """Choose the steps, by their names in a trace.

        Raises:
            ModelError: the model cannot be traced.
        """
        self._model = model
        self._inner = ModelState.of(model).model
        self._names = tuple(names)
        self._calls: dict[bool, Mapping[int, Sequence[_WatchedStep]]] = {}

    @overload
    def __call__(self, images: Tensor, read: Callable[[Step, Tensor], T]) -> dict[str, T]: ...
    @overload
    def __call__(self, images: Tensor, read: Callable[[Step, Tensor], T], *, whole: bool) -> dict[str, Any]: ...
    def __call__(self, images: Tensor, read: Callable[[Step, Tensor], T], *, whole: bool = False) -> Mapping[str, Any]:
        """Run the model on a batch as it is; the caller sets eval mode and disables gradients.

        Args:
            images: Shape (N, C, H, W), on the model's device.
            read: Called with each step and its result, shape (N, ...), while the model runs; the tensor may be
                overwritten later, so copy what you keep.
            whole: Run the model to its end, and return its output under the name "".

        Returns:
            The return value of `read` for each step, by name.

        Raises:
            UnknownName: the model has no step of that name.
            TraceError: the model runs other operations for this batch than for its first images.
        """
        several = len(images) > 1  # some operations are views for one image and copies for several
        if several not in self._calls:
            self._calls[several] = _calls(self._model, images[:2], self._names)
        calls = self._calls[several]
        watcher = _ActivationRecorder(calls, read, whole)
        watcher.results.update({step.name: read(step, images) for step, _ in calls.get(INPUT, ())})
        try:
            with watcher:
                output = self._inner(images)
        except StopRecording:
            output = None
        missing = [step.name for watched in calls.values() for step, _ in watched if step.name not in watcher.results]
        if missing:
            steps = ", ".join(missing)
            raise TraceError(f"the model did not run {steps} for this batch; its control flow depends on the input.")
        return {**watcher.results, **({"": output} if whole else {})}


class _ActivationRecorder(Recorder):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Counts the calls and hands out the results of the chosen ones."""

    def __init__(
        self, watched: Mapping[int, Sequence[_WatchedStep]], read: Callable[[Step, Tensor], object], to_end: bool
    ) -> None:
        super().__init__()
        self.results: dict[str, object] = {}
        self._watched = watched
        self._read = read
        self._last = float("inf") if to_end else max(watched, default=-1)
        self._count = 0

    def about_to_write(self, tensor: Tensor, time: int) -> None:
        """Nothing is stored, so nothing needs to be copied."""

    def _note(self, call: Call) -> None:
        watched, call_index = self._watched.get(self._count, ()), self._count
        self._count += 1
        for step, op in watched:
            if signature_of(call[0]).op != op:
                raise TraceError(
                    f"the model ran {signature_of(call[0]).op} where it ran {step.name} ({op}) before; its "
                    "control flow depends on the input, so its steps cannot be compared between images."
                )
            self.results[step.name] = self._read(step, results_of(call)[0])
        if call_index >= self._last:
            raise StopRecording


def _calls(model: nn.Module, images: Tensor, names: Iterable[str]) -> Mapping[int, Sequence[_WatchedStep]]:
    """The calls behind the steps, by their number in the pass; `INPUT` for steps that return the images."""
    sketch = trace(model, images, keep=0)
    calls: dict[int, list[_WatchedStep]] = {}
    for step in map(sketch.__getitem__, names):
        made_by = _before_idle(sketch, step)
        index = INPUT if made_by is None else _dispatch_index(made_by)
        calls.setdefault(index, []).append(_WatchedStep(step, "" if made_by is None else made_by.op))
    return calls


def _before_idle(sketch: Trace, step: Step) -> Step | None:
    """The step itself; for an inactive dropout layer, which torch does not dispatch, the one before it, if any."""
    while step.op == "dropout":
        ref = step.arguments["input"]
        if ref.kind != "step":
            return None
        step = sketch.all_steps[ref.id]
    return step


def _dispatch_index(step: Step) -> int:
    """The number of a step's call in the pass."""
    assert isinstance(step.values, Recording)
    time = step.values.entries[step.id].time
    return time - sum(undispatched < time for undispatched in step.values.tape.undispatched)
