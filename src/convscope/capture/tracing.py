"""Run: `trace`, the verb that runs a model once and keeps every number."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from convscope.capture.arrays import tensors_of
from convscope.capture.call_inputs import as_call_inputs
from convscope.capture.memory_budget import BudgetRecorder
from convscope.capture.model_errors import failure
from convscope.capture.model_state import ModelState, Unshaped
from convscope.capture.recompute import MEGABYTE, Recomputing, SparseRecorder
from convscope.capture.recorder import Recorder
from convscope.capture.recording import Recording
from convscope.capture.session import TracingSession
from convscope.errors import ShapeError, TraceError, UnknownName, UsageError
from convscope.models.lazy_layers import give_shapes
from convscope.progress import Progress
from convscope.traces.step import Array, Step
from convscope.traces.trace import Trace

Keep = Literal["all"] | str | Iterable[str] | float | None


def trace(
    model: nn.Module,
    image: Any,
    *,
    training: bool = False,
    batched: bool | None = None,
    keep: Keep = None,
    overrides: Mapping[str, ArrayLike | Tensor] | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Run a model once and record every operation with its numbers; the model is left exactly as found.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(3, 5, 7, padding="same"), torch.zeros(3, 20, 20))
    >>> trace.steps
    (<0 conv2d: convolution 1x5x20x20 float32>,)
    >>> trace.parameters["weight"].shape
    (5, 3, 7, 7)

    Args:
        model: Any `nn.Module`, a bare layer too. It runs in evaluation mode and without gradients. Lazy layers get
            their shapes from this input, as from any first call.
        image: An array or tensor, (C, H, W) or (N, C, H, W); it is moved to the model's device and type. A tuple gives
            several inputs in order, a mapping gives them by name, a list is one input that is a list. A model of
            signals, volumes or whole numbers takes arrays of its own shapes.
        training: Leave each module's training flag as it is; running statistics are put back afterwards.
        batched: Whether arrays have a batch axis first; where they have none, one is added. None finds out by the
            number of axes and, where the model's layers leave that open, by what runs.
        keep: None keeps everything that fits into half of the memory that is free, "all" everything. Names of steps
            keep only those, a number keeps at most that many megabytes (10^6 bytes). Whatever else is asked for later
            is recomputed, with the same bits; `trace.notes` says how much was kept.
        overrides: Numbers by name, in whose place the pass is to run: `{"conv1.weight": array}` for a parameter,
            `{"conv1": array}` for a step's result.
        progress: Called as `progress("tracing", modules begun, 0)` each time that a module begins; a KeyboardInterrupt,
            or another error that no `except Exception` stops, ends the pass there and the model is left as found.

    Returns:
        The trace; its arrays are read-only, those of bfloat16 and half widened exactly to float32.

    Raises:
        UsageError: `model` or `image` is none, or a name that does not exist.
        ShapeError: an image of whole numbers, or an override of another shape.
        ModelError: a model that cannot be traced: TorchScript, quantised, without weights.
        InputError: an image that a layer cannot take.
        TraceError: the model raised, or returned no tensor; `.module` says where, `.trace` has what was recorded.
    """
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return trace(
                model, image, training=training, batched=batched, keep=keep, overrides=overrides, progress=progress
            )
    try:
        subject = ModelState.of(model)
    except Unshaped:
        first = as_call_inputs(ModelState.unshaped(model), image, batched)
        give_shapes(model, first.arguments, first.keywords)
        subject = ModelState.of(model)
    session = TracingSession(subject, as_call_inputs(subject, image, batched), training, progress=progress)
    done = _overridden(session, keep, overrides) if overrides else _keep(session, keep)
    session.progress = None  # it was told of this pass; not of numbers that are made again
    return done


def _overridden(session: TracingSession, keep: Keep, overrides: Mapping[str, ArrayLike | Tensor]) -> Trace:
    """Run a session with numbers in the place of others."""
    subject = session.subject
    mine = {name: value for name, value in overrides.items() if name in subject.parameters}
    session.parameters = {name: _fitting(subject, name, value) for name, value in mine.items()}
    session.results = _results(session, {name: value for name, value in overrides.items() if name not in mine})
    done = _keep(session, keep)
    _used(session, done)
    return done


def _keep(session: TracingSession, keep: Keep) -> Trace:
    """Run a session, keeping what is wanted."""
    if keep is None:
        return _recorded(session, BudgetRecorder(session))
    if keep == "all":
        return _recorded(session, Recorder(session.results))
    if isinstance(keep, int | float):
        if keep < 0:
            raise UsageError(f"keep is a budget in megabytes, 0 or more, not {keep}.")
        half = keep * MEGABYTE / 2  # the other half is for what is made again
        recorder = SparseRecorder(session, lambda _: True, half)
        recorder.window = half
        return _recorded(session, recorder)
    names = [keep] if isinstance(keep, str) else list(keep)
    sketch = _recorded(session, SparseRecorder(session, lambda _: False, 0))
    wanted = {_time(sketch[name]) for name in names}
    return _recorded(session, SparseRecorder(session, wanted.__contains__, float("inf")))


def _recorded(session: TracingSession, recorder: Recorder) -> Trace:
    """Run a session; what it raises says where it happened and has the partial trace."""
    try:
        result = session.run(recorder)
    except Exception as error:
        raise failure(session, error, recorder, _told(session, recorder, None)) from error
    told = _told(session, recorder, result)
    if not isinstance(result, Tensor) and next(tensors_of(result), None) is None:
        said = "nothing" if result is None else f"a {type(result).__name__} without tensors"
        raise TraceError(f"the model returned {said}; its forward must return a tensor.", "", told)
    return told


def _told(session: TracingSession, recorder: Recorder, result: Any) -> Trace:
    if isinstance(recorder, SparseRecorder) and not recorder.whole:
        return Trace(Recomputing(session, recorder, result))
    return Trace(Recording(session, recorder, result))


def _results(session: TracingSession, given: Mapping[str, ArrayLike | Tensor]) -> dict[int, Array]:
    """Overrides of steps, by the time of their calls; which those are, only a run can say."""
    if not given:
        return {}
    sketch = _recorded(session, SparseRecorder(session, lambda _: False, 0))
    results = {}
    for name, value in given.items():
        known = [step.name for step in sketch.steps]
        if name not in known and name not in {step.name for step in sketch.all_steps}:
            raise UnknownName("step or parameter", name, [*known, *session.subject.parameters])
        step = sketch[name]
        array = torch.as_tensor(value).detach().cpu().numpy()
        _same_shape(name, array.shape, step.shape)
        results[_time(step)] = array
    return results


def _time(step: Step) -> int:
    assert isinstance(step.values, Recording)
    return step.values.entries[step.id].time


def _fitting(subject: ModelState, name: str, value: ArrayLike | Tensor) -> Tensor:
    """A copy of an override as a tensor like the parameter that it stands for."""
    mine = subject.parameters[name]
    tensor = torch.as_tensor(value).detach().to(mine.device, mine.dtype, copy=True)
    _same_shape(name, tuple(tensor.shape), tuple(mine.shape))
    return tensor


def _same_shape(name: str, given: tuple[int, ...], mine: tuple[int, ...]) -> None:
    if given != mine:
        raise ShapeError(f"{name} has the shape {mine}; the override for it has {given}.")


def _used(session: TracingSession, done: Trace) -> None:
    """An override that no step reads would say that a parameter does nothing."""
    read = {ref.name for step in done.all_steps for _, _, ref in step.refs() if ref.kind == "parameter"}
    for name in session.parameters:
        if name not in read:
            raise UsageError(
                f"no step read the override of {name}: the model does not use this parameter, or holds it in "
                "another place too."
            )
