"""Backward: the gradients of one image as a pass: how the loss, or the score of a class, changes with every cell."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import Field
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id, Message, Number
from convscope.server.jobs import client_of, stop_if_left
from convscope.server.session.inputs import PageInput, take
from convscope.server.session.model_handle import ModelHandle
from convscope.server.traces.array_pictures import number, planes_of
from convscope.server.traces.descriptions import answers_of, step_info
from convscope.server.traces.passes import Find, TracePass, overrides_of
from convscope.server.traces.routes import RAW, StepId, on, raw
from convscope.server.traces.schema import TraceInfo, TraceRequest
from convscope.server.training_steps import described
from convscope.typing import Array

router = APIRouter(tags=["gradients"])
PASSES: dict[str, Callable[[Array, Mapping[str, Any]], NDArray[np.bool_]]] = {
    "relu": lambda x, _: x <= 0,
    "threshold": lambda x, arguments: x <= arguments["threshold"],
    "hardtanh": lambda x, arguments: (x <= arguments["min_val"]) | (x >= arguments["max_val"]),
}
"""Activation -> the cells of its input at which its slope is 0, from the input and the arguments."""


class BackwardRequest(Message):
    """The backward pass of an image: how a number changes with every cell before it."""

    forward: TraceRequest
    of: Literal["loss", "class"] = "loss"
    index: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """The class: the label of the loss, or the class whose score is differentiated; None: the image's label, or else
    the model's answer."""


class BackwardInfo(Message):
    """The gradients of one image."""

    trace: TraceInfo
    """For every step of the forward pass that has one, its gradient: named, placed and linked as that step is."""
    of: Literal["loss", "class"]
    index: int
    label: str
    """The name of the class."""
    value: Number
    """The loss, or the score of the class."""
    blocked: list[int]
    """The gradients with cells at which an activation did not pass: they are 0 because of it."""


def backward_name(opened: ModelHandle, request: BackwardRequest) -> str:
    """The id of a backward pass: a digest of the request and of the weights."""
    _, weights = opened.read()
    step = opened.newest() if request.forward.at is None else request.forward.at
    return f"b{hashlib.sha256(f'{request.model_dump_json()} {step} {weights}'.encode()).hexdigest()[:24]}"


def record_backward(opened: ModelHandle, find: Find, request: BackwardRequest) -> TracePass:
    """Record the backward pass of an image.

    Raises:
        HTTPException: the request names something unknown.
        ConvscopeError: the image does not fit, or the model's training step cannot be recorded.
    """
    model, _ = opened.read()
    forward = request.forward
    weights_step = opened.newest() if forward.at is None else forward.at
    model_input = take(find(forward.input), cs.card_of(model), forward.change, forward.fit)
    overrides = overrides_of(opened, model, model_input, weights_step, forward.edits)
    index = _index(request, model, model_input, overrides)
    loss = _loss_of(opened, model, model_input) if request.of == "loss" else _score
    trace = cs.trace(
        model, model_input.value, target=[index], loss=loss, overrides=overrides or None, progress=stop_if_left
    )
    trace_pass = TracePass(
        backward_name(opened, request), opened, model, forward, model_input, trace, None, (), frozenset()
    )
    trace_pass.blocked.update(_blocked(trace))
    return trace_pass


def backward_answer(trace_pass: TracePass, request: BackwardRequest) -> BackwardInfo:
    """The description of a recorded backward pass."""
    trace, training_step = trace_pass.trace, trace_pass.trace.training_step
    assert training_step is not None
    index = int(trace.inputs["target"][0])
    classes = trace.card.classes
    trace_pass.info = trace_pass.info or _described(trace_pass)
    return BackwardInfo(
        trace=trace_pass.info,
        of=request.of,
        index=index,
        label=classes[index] if index < len(classes) else str(index),
        value=number(float(trace.all_steps[training_step.loss.id].outputs[training_step.loss.output])),
        blocked=[step.id for step in trace_pass.info.steps if step.id in trace_pass.blocked],
    )


def channel_contributions(trace_pass: TracePass, gradient: cs.Step) -> NDArray[np.float64]:
    """What each channel of a forward step adds to the differentiated number: its numbers times their slopes, added up.

    At the recorded numbers and without the biases of later steps, as in `contributions`.

    Args:
        trace_pass: A backward pass.
        gradient: The gradient of the forward step.

    Returns:
        One number for each channel, as `planes_of` counts them.

    Raises:
        HTTPException: the pass is not a backward pass, or this is not the gradient of a step.
    """
    if trace_pass.trace.training_step is None:
        raise HTTPException(404, "this is a forward pass, which has no gradients; POST api/gradients records them.")
    step = next((step for step, other, _ in _owned(trace_pass.trace) if other.id == gradient.id), None)
    if step is None:
        raise HTTPException(404, f"{gradient.name} is not the gradient of a step, so its channels add nothing.")
    slopes = np.asarray(gradient.output, np.float64)
    products = np.where(slopes == 0, 0.0, slopes * step.output)  # no infinity counts that is not passed on
    return np.asarray(planes_of(products).sum(axis=(1, 2)))


def _index(request: BackwardRequest, model: cs.Module, model_input: PageInput, overrides: Mapping[str, Array]) -> int:
    """The class: the one that is asked for, or the image's label, or the model's answer.

    Raises:
        HTTPException: the model has no such class.
    """
    named = len(cs.card_of(model).classes)
    if request.index is not None and (request.of == "loss" or request.index < named):
        return request.index  # a label that the loss does not take is refused with its step
    label = model_input.label if request.of == "loss" and request.index is None else None
    if label is not None and label < named:
        return int(label)
    forward = cs.trace(model, model_input.value, overrides=overrides or None, progress=stop_if_left)
    scores = cs.interpret(model, forward.output)
    if request.index is not None:
        if request.index < len(scores.output) or request.index == scores.best:  # the class nearest to one number
            return request.index
        last = len(scores.output) - 1
        raise HTTPException(400, f"the model answers with the classes 0 to {last}; there is no class {request.index}.")
    return int(label) if label is not None and label < len(scores.output) else int(scores.best)


def _loss_of(opened: ModelHandle, model: cs.Module, model_input: PageInput) -> str:
    """The loss of the run, or else the one that suits the outputs: one number is compared with the class number."""
    if opened.run is not None:
        return str(opened.run.recipe.loss)
    forward = cs.trace(model, model_input.value, progress=stop_if_left)
    return "mse" if np.size(forward.output) == 1 else "cross-entropy"


def _score(output: Any, target: Any) -> Any:
    """The score of a class; a single number stands for all of them."""
    return output.reshape(-1)[0] if output.numel() == 1 else output[0, target[0]]


def _pairs(trace: cs.Trace) -> Iterator[tuple[cs.Step | None, cs.Step]]:
    """The image with its gradient, and every visible step of the forward pass that has one, in order."""
    training_step = trace.training_step
    assert training_step is not None
    if "input" in training_step.gradients:
        yield None, trace.all_steps[training_step.gradients["input"].id]
    for step in trace.steps:
        if step.id >= training_step.loss.id or step.name.startswith("loss"):
            return
        for name in (f"{step.name}.grad#sum", f"{step.name}.grad"):
            try:
                yield step, trace[name]
                break
            except cs.UsageError:
                continue


def _owned(trace: cs.Trace) -> list[tuple[cs.Step | None, cs.Step, list[cs.Step]]]:
    """Every gradient once, with the forward step that it is named after and all steps that have it, in their order.

    An addition passes its gradient on, so that what it adds and its result share one.
    """
    shared: dict[int, list[tuple[cs.Step | None, cs.Step]]] = {}
    for step, gradient in _pairs(trace):
        shared.setdefault(gradient.id, []).append((step, gradient))
    owned = []
    for pairs in shared.values():
        gradient = pairs[0][1]
        steps = [step for step, _ in pairs if step is not None]
        owner = next((step for step in steps if gradient.name.startswith(f"{step.name}.grad")), pairs[-1][0])
        owned.append((owner, gradient, steps))
    return sorted(owned, key=lambda each: -1 if each[0] is None else each[0].id)


def _described(trace_pass: TracePass) -> TraceInfo:
    """The gradients in the place of the forward steps that they belong to."""
    pairs = [*_pairs(trace_pass.trace)]
    gradient_ids = {-1 if step is None else step.id: gradient.id for step, gradient in pairs}
    image = gradient_ids.get(-1)
    steps = []
    for step, gradient, sharing in _owned(trace_pass.trace):
        links = [gradient_ids[source] for each in sharing for source in each.inputs if source in gradient_ids]
        links = [link for link in dict.fromkeys(links) if link != gradient.id]
        links = links or ([] if step is None or image is None else [image])
        others = [each.name for each in sharing if each is not step]
        subject = "the image" if step is None else " and ".join([f"{step.name} ({step.says})", *others])
        module = {} if step is None else {"module": step.module, "module_type": step.module_type}
        update = {"inputs": links, "says": f"gradient at {subject}", "parameters": {}, **module}
        steps.append(step_info(gradient).model_copy(update=update))
    answers, _ = answers_of(trace_pass.model, trace_pass.trace.output)
    output_id = steps[-1].id if steps else None
    return described(trace_pass, steps, answers=answers, output=output_id)


def _blocked(trace: cs.Trace) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Gradient -> the cells that are 0 because the activation behind them did not pass."""
    gradients = {step.id: gradient for step, gradient in _pairs(trace) if step is not None}
    for step in trace.steps:
        closed = PASSES.get(step.op)
        if closed is None or not step.inputs or step.inputs[0] not in gradients:
            continue
        gradient = gradients[step.inputs[0]]
        arguments = trace.operands(step)
        mask = closed(np.asarray(arguments["self"]), arguments)
        if mask.shape == gradient.output.shape:
            yield gradient.id, mask & (gradient.output == 0)


@router.post("/gradients")
async def backward(request: Request, body: BackwardRequest) -> BackwardInfo:
    """Record the backward pass of an image, from the loss or from the score of a class."""
    workspace, client = request.app.state.gallery, client_of(request)

    def make() -> BackwardInfo:
        opened = workspace.model(body.forward.model)
        name = backward_name(opened, body)
        trace_pass = workspace.traces.keep(name, lambda: record_backward(opened, workspace.picture, body), client)
        return backward_answer(trace_pass, body)

    info: BackwardInfo = await workspace.workers.run(request, f"model {body.forward.model}", make)
    return info


@router.get("/gradients/{trace}/steps/{step}/blocked", response_class=Response, responses=dict(RAW))
async def blocked(request: Request, trace: Id, step: StepId, channel: Annotated[int, Query(ge=0)] = 0) -> Response:
    """The cells of a gradient that are 0 because an activation did not pass: 1 there, 0 elsewhere."""

    def read(trace_pass: TracePass) -> Response:
        if step not in trace_pass.blocked:
            raise HTTPException(404, f"no activation blocks the gradient {trace_pass.step(step).name}.")
        planes = planes_of(trace_pass.blocked[step].astype(np.float32))
        if channel >= len(planes):
            raise HTTPException(
                404, f"{trace_pass.step(step).name} has channels 0 to {len(planes) - 1}, not {channel}."
            )
        return raw(planes[channel])

    response: Response = await on(request, trace, read)
    return response


@router.get("/gradients/{trace}/steps/{step}/channels", response_class=Response, responses=dict(RAW))
async def channels(request: Request, trace: Id, step: StepId) -> Response:
    """What each channel of the forward step adds to the number that is differentiated."""

    def read(trace_pass: TracePass) -> Response:
        return raw(channel_contributions(trace_pass, trace_pass.step(step)).astype(np.float32))

    response: Response = await on(request, trace, read)
    return response
