"""Tracing: `trace` runs a model once and records every number."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from convscope.capture.call_inputs import CallInputs, Inputs, as_call_inputs
from convscope.capture.model_errors import failure
from convscope.capture.model_state import ModelState, Unshaped
from convscope.capture.recompute import MEGABYTE, BudgetRecorder, Recomputing, SparseRecorder
from convscope.capture.recorder import Recorder
from convscope.capture.recording import Recording, tensors_of
from convscope.capture.session import TracingSession
from convscope.errors import ShapeError, TraceError, UnknownName, UsageError
from convscope.inputs.model_inputs import prepare_inputs
from convscope.inputs.pictures import BATCH, prepare_batch
from convscope.models.loading import load_model
from convscope.models.preparation import give_shapes
from convscope.models.user_code import as_module
from convscope.progress import Progress
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.training.runs import Run, load_run
from convscope.type_checks import kind_of, takes
from convscope.typing import Array

Keep = Literal["all"] | str | Iterable[str] | float | None


@takes()
def trace(
    model: nn.Module | Run | str | Path,
    image: Inputs | str | Path | None = None,
    *,
    target: ArrayLike | Tensor | None = None,
    loss: str | Callable[..., Tensor] | None = None,
    optimizer: str | torch.optim.Optimizer | None = None,
    lr: float | None = None,
    training: bool | None = None,
    at_step: int | None = None,
    batched: bool | None = None,
    keep: Keep = None,
    overrides: Mapping[str, ArrayLike | Tensor] | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Run a model once and record every operation with its numbers; the model is left unchanged.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(3, 5, 7, padding="same"), torch.zeros(3, 20, 20))
    >>> trace.steps
    (<0 conv2d: convolution 1x5x20x20 float32>,)
    >>> trace.parameters["weight"].shape
    (5, 3, 7, 7)

    >>> cs.trace("crosses", "crosses:plus").output.shape
    (1, 1)

    With the images' labels, the loss and the backward pass are recorded too, and with an optimizer its update:

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> step = cs.trace(net, torch.ones(3, 1, 2, 2), target=[0, 1, 1], optimizer="adam", lr=0.1)
    >>> step["1.weight.grad"].output.shape, step["1.weight.updated"].output.shape
    ((2, 4), (2, 4))

    Args:
        model: Any `nn.Module`, including a single layer, a run, or a name as `cs.load_model` takes it. It runs in eval
            mode without gradients. Lazy layers get their shapes from this input, as from any first call.
        image: An array or tensor, (C, H, W) or (N, C, H, W); it is moved to the model's device and dtype. A tuple holds
            several positional inputs, a mapping named inputs, and a list is one input that is a list. Models of
            signals, volumes or token ids take arrays of their own shapes. A name, such as "dog.jpg", "mnist:test/7" or
            "shapes:train/0-63", is loaded and prepared as the model expects.
        target: The label of each image, or what the loss compares the output with.
        loss: "cross-entropy" (the default; a run brings its own), "mse", "nll", or a function of output and target. It
            receives what the model returned or, if it takes only a tensor, the first one in it.
        optimizer: A name as for `cs.train` (SGD there has Nesterov momentum 0.9), or an optimizer with its state, which
            is copied. A run brings its own, with the state of its newest snapshot.
        lr: The learning rate of an optimizer by name; None takes the optimizer's own.
        training: Keep each module's training flag; running statistics are restored afterwards. For a training step,
            whether every module runs in training mode; None: where there is an optimizer.
        at_step: Repeats this step of a run, counted from 1, instead of one on images that are given: with the weights,
            the optimizer's state, the batch and the masks that it had, bit for bit.
        batched: Whether arrays have a batch axis; False adds one. None decides by the number of axes and, if that is
            ambiguous, by what the model accepts.
        keep: None keeps everything that fits into half of the free memory, "all" keeps everything. Names of steps keep
            only those, and a number keeps at most that many megabytes (10^6 bytes). Anything else is recomputed on
            demand, with the same bits; `trace.notes` says how much was kept.
        overrides: Arrays by name that replace the model's own: `{"conv1.weight": array}` for a parameter,
            `{"conv1": array}` for a step's result.
        progress: Called as `progress("tracing", modules started, 0)` whenever a module starts. A KeyboardInterrupt, or
            another BaseException, raised there ends the pass and leaves the model unchanged.

    Returns:
        The trace; its arrays are read-only, with bfloat16 and half widened exactly to float32.

    Raises:
        UsageError: `model` or `image` is of the wrong type, or a name does not exist.
        ShapeError: an integer image, or an override of another shape.
        ModelError: a model that cannot be traced: TorchScript, quantized, without weights.
        InputError: an image that a layer cannot process.
        TraceError: the model raised, or returned no tensor; `.module` says where, `.trace` has the partial trace.
    """
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return trace(
                model, image, target=target, loss=loss, optimizer=optimizer, lr=lr, training=training,
                batched=batched, keep=keep, overrides=overrides, progress=progress,
            )  # fmt: skip
    model, image = _loaded(model, image, of_run=target is not None or at_step is not None)
    if at_step is not None:
        from convscope.capture.step_tracing import step_of_run  # noqa: PLC0415  # it imports all that trains

        return step_of_run(model, at_step, image, target, loss, optimizer, lr)
    run, net = (model, model.model) if isinstance(model, Run) else (None, model)
    subject, intake = _prepared(net, image, batched)
    if target is None:
        _only_with_a_target(loss=loss, optimizer=optimizer, lr=lr)
        session = TracingSession(subject, intake, bool(training), progress=progress)
        return _forward_pass(session, keep, overrides or {})
    from convscope.capture.step_tracing import training_step  # noqa: PLC0415  # as above
    from convscope.capture.training_step import StepSettings  # noqa: PLC0415

    if keep is not None and keep != "all":
        raise UsageError("a training step keeps every number; leave keep out, or pass fewer images.")
    settings = StepSettings(target, loss, optimizer, lr, training)
    parameters = _parameters(subject, overrides or {})
    return training_step(subject, intake, settings, run=run, parameters=parameters, progress=progress)


def _loaded(
    model: nn.Module | Run | str | Path, image: Inputs | str | Path | None, *, of_run: bool
) -> tuple[nn.Module | Run, Inputs | None]:
    """A model and an image by their names; with `of_run`, a run's folder is the run, which knows its loss too."""
    if isinstance(model, str | Path):
        model = load_run(model) if of_run and (Path(model) / "config.json").is_file() else load_model(model)
    if isinstance(image, str | Path):
        image = _named(image, model.model if isinstance(model, Run) else model)
    return (model if isinstance(model, nn.Module | Run) else as_module(model)), image


def _prepared(model: nn.Module, image: Inputs | None, batched: bool | None) -> tuple[ModelState, CallInputs]:
    """The model, whose lazy layers get their shapes from this input, and the input as the model takes it."""
    try:
        subject = ModelState.of(model)
    except Unshaped:
        first = as_call_inputs(ModelState.unshaped(model), image, batched)
        give_shapes(model, first.arguments, first.keywords)
        subject = ModelState.of(model)
    return subject, as_call_inputs(subject, image, batched)


def _parameters(subject: ModelState, overrides: Mapping[str, ArrayLike | Tensor]) -> dict[str, Tensor]:
    """The overrides of a training step, which may replace parameters alone."""
    for name in overrides:
        if name not in subject.parameters:
            raise UnknownName("parameter to override in a training step", name, [*subject.parameters])
    return {name: _fitting(subject, name, value) for name, value in overrides.items()}


def _named(image: str | Path, model: nn.Module) -> Inputs:
    """An image or a batch by its name, prepared as the model expects, as the commands take it."""
    if isinstance(image, str) and BATCH.fullmatch(image):
        return np.stack([prepared.array for prepared in prepare_batch(image, model)])
    prepared: Inputs = prepare_inputs(image, model).value
    return prepared


def _only_with_a_target(**settings: object) -> None:
    for name, value in settings.items():
        if value is not None:
            raise UsageError(f"{name} belongs to a training step; pass the labels of these images too: target=labels.")


def _forward_pass(session: TracingSession, keep: Keep, overrides: Mapping[str, ArrayLike | Tensor]) -> Trace:
    """Run a session, with arrays that replace parameters and results of steps."""
    if overrides:
        subject = session.subject
        parameter_overrides = {name: value for name, value in overrides.items() if name in subject.parameters}
        session.parameters = {name: _fitting(subject, name, value) for name, value in parameter_overrides.items()}
        session.results = _results(
            session, {name: value for name, value in overrides.items() if name not in parameter_overrides}
        )
    recorded = _keep(session, keep)
    if overrides:
        _used(session, recorded)
    session.progress = None  # not called again when numbers are recomputed
    return recorded


def _keep(session: TracingSession, keep: Keep) -> Trace:
    """Run a session, keeping the requested numbers."""
    if keep is None:
        return _recorded(session, BudgetRecorder(session))
    if keep == "all":
        return _recorded(session, Recorder(session.results))
    if isinstance(keep, int | float):
        if keep < 0:
            raise UsageError(f"keep is a budget in megabytes, 0 or more, not {keep}.")
        half = keep * MEGABYTE / 2  # the other half is for recomputed calls
        recorder = SparseRecorder(session, lambda _: True, half)
        recorder.window = half
        return _recorded(session, recorder)
    names = [keep] if isinstance(keep, str) else list(keep)
    sketch = _recorded(session, SparseRecorder(session, lambda _: False, 0))
    times = {_time(sketch[name]) for name in names}
    return _recorded(session, SparseRecorder(session, times.__contains__, float("inf")))


def _recorded(session: TracingSession, recorder: Recorder) -> Trace:
    """Run a session; its errors say where they happened and hold the partial trace."""
    try:
        result = session.run(recorder)
    except Exception as error:
        raise failure(session, error, recorder, _trace_of(session, recorder, None)) from error
    try:
        empty = not isinstance(result, Tensor) and next(tensors_of(result), None) is None
    except RecursionError:
        result = None  # not kept: whatever reads it would go round in circles
        message = (
            "the model returned containers that hold themselves, or thousands within each other; return its tensors."
        )
        raise TraceError(message, "", None) from None
    recorded = _trace_of(session, recorder, result)
    if empty:
        kind = "nothing" if result is None else f"{kind_of(result)} without tensors"
        raise TraceError(f"the model returned {kind}; its forward must return a tensor.", "", recorded)
    return recorded


def _trace_of(session: TracingSession, recorder: Recorder, result: object) -> Trace:
    if isinstance(recorder, SparseRecorder) and not recorder.is_complete:
        return Trace(Recomputing(session, recorder, result))
    return Trace(Recording(session, recorder, result))


def _results(session: TracingSession, overrides: Mapping[str, ArrayLike | Tensor]) -> dict[int, Array]:
    """Overrides of steps, by the time of their calls, which a first run determines."""
    if not overrides:
        return {}
    sketch = _recorded(session, SparseRecorder(session, lambda _: False, 0))
    results = {}
    for name, value in overrides.items():
        step_names = [step.name for step in sketch.steps]
        if name not in step_names and name not in {step.name for step in sketch.all_steps}:
            raise UnknownName("step or parameter", name, [*step_names, *session.subject.parameters])
        step = sketch[name]
        array = torch.as_tensor(value).detach().cpu().numpy()
        _check_same_shape(name, array.shape, step.shape)
        results[_time(step)] = array
    return results


def _time(step: Step) -> int:
    assert isinstance(step.values, Recording)
    return step.values.entries[step.id].time


def _fitting(subject: ModelState, name: str, value: ArrayLike | Tensor) -> Tensor:
    """A copy of an override as a tensor like the parameter that it replaces."""
    parameter = subject.parameters[name]
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"the override of {name} is {kind_of(value)}, which is not an array of numbers.") from None
    tensor = tensor.detach().to(parameter.device, parameter.dtype, copy=True)
    _check_same_shape(name, tuple(tensor.shape), tuple(parameter.shape))
    return tensor


def _check_same_shape(name: str, override: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if override != shape:
        raise ShapeError(f"{name} has shape {shape}, but its override has {override}.")


def _used(session: TracingSession, recorded: Trace) -> None:
    """Reject an override that no step reads: it would suggest that the parameter has no effect."""
    read_names = {ref.name for step in recorded.all_steps for _, _, ref in step.refs() if ref.kind == "parameter"}
    for name in session.parameters:
        if name not in read_names:
            raise UsageError(
                f"no step read the override of {name}: the model does not use this parameter, or also "
                "holds it elsewhere."
            )
