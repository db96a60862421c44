"""Backward: the gradients of one image as a pass: how the loss, or the score of a class, changes with every cell."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import schema
from convscope.server.gradients.training_steps import described
from convscope.server.session.inputs import take
from convscope.server.session.model_handle import ModelHandle
from convscope.server.traces.array_pictures import number, planes_of
from convscope.server.traces.passes import Find, TracePass, overrides_of
from convscope.server.traces.routes import answers_of, step_info

PASSES: dict[str, Callable[[Any, Any], NDArray[np.bool_]]] = {
    "relu": lambda x, _: x <= 0,
    "threshold": lambda x, arguments: x <= arguments["threshold"],
    "hardtanh": lambda x, arguments: (x <= arguments["min_val"]) | (x >= arguments["max_val"]),
}
"""Activation -> the cells of its input at which its slope is 0, from the input and the arguments."""


def backward_name(opened: ModelHandle, request: schema.BackwardRequest) -> str:
    """The id of a backward pass: a digest of the request and of the weights."""
    _, weights = opened.read()
    at = opened.newest() if request.forward.at is None else request.forward.at
    return f"b{hashlib.sha256(f'{request.model_dump_json()} {at} {weights}'.encode()).hexdigest()[:24]}"


def record_backward(opened: ModelHandle, find: Find, request: schema.BackwardRequest) -> TracePass:
    """Record the backward pass of an image.

    Raises:
        HTTPException: the request names something unknown.
        ConvscopeError: the image does not fit, or the model's training step cannot be recorded.
    """
    model, _ = opened.read()
    forward = request.forward
    at = opened.newest() if forward.at is None else forward.at
    taken = take(find(forward.input), cs.card_of(model), forward.change, forward.fit)
    overrides = overrides_of(opened, model, taken, at, forward.edits)
    index = _index(request, model, taken, overrides)
    loss: Any = _loss_of(opened) if request.of == "loss" else lambda output, target: output[0, target[0]]
    trace = cs.trace(model, taken.value, target=[index], loss=loss, overrides=overrides or None)
    done = TracePass(backward_name(opened, request), opened, model, forward, taken, trace, None, (), frozenset())
    done.blocked.update(_blocked(trace))
    return done


def backward_answer(done: TracePass, request: schema.BackwardRequest) -> schema.BackwardInfo:
    """The description of a recorded backward pass."""
    trace, made = done.trace, done.trace.training_step
    assert made is not None
    index = int(trace.inputs["target"][0])
    classes = trace.card.classes
    done.info = done.info or _described(done)
    return schema.BackwardInfo(
        trace=done.info,
        of=request.of,
        index=index,
        label=classes[index] if index < len(classes) else str(index),
        value=number(float(trace.all_steps[made.loss.id].outputs[made.loss.output])),
        blocked=[each.id for each in done.info.steps if each.id in done.blocked],
    )


def channel_contributions(done: TracePass, gradient: cs.Step) -> NDArray[np.float64]:
    """What each channel of a forward step adds to the differentiated number: its numbers times their slopes, added up.

    At the recorded numbers and without the biases of later steps, as in `contributions`.

    Args:
        done: A backward pass.
        gradient: The gradient of the forward step.

    Returns:
        One number for each channel, as `planes_of` counts them.

    Raises:
        HTTPException: the pass is not a backward pass, or this is not the gradient of a step.
    """
    if done.trace.training_step is None:
        raise HTTPException(404, "this is a forward pass, which has no gradients; POST api/gradients records them.")
    step = next((step for step, each in _pairs(done.trace) if step is not None and each.id == gradient.id), None)
    if step is None:
        raise HTTPException(404, f"{gradient.name} is not the gradient of a step, so no channel of it adds anything.")
    slopes = np.asarray(gradient.output, np.float64)
    products = np.where(slopes == 0, 0.0, slopes * step.output)  # no infinity counts that is not passed on
    return np.asarray(planes_of(products).sum(axis=(1, 2)))


def _index(request: schema.BackwardRequest, model: Any, taken: Any, overrides: Any) -> int:
    """The class: the one that is asked for, or the image's label, or the model's answer."""
    if request.index is not None:
        return request.index
    label = taken.label if request.of == "loss" else None
    if label is not None and label < len(cs.card_of(model).classes):
        return int(label)
    scores = cs.interpret(model, cs.trace(model, taken.value, overrides=overrides or None).output)
    return int(label) if label is not None and label < len(scores.output) else int(scores.best)


def _loss_of(opened: ModelHandle) -> str:
    return "cross-entropy" if opened.run is None else str(opened.run.recipe.loss)


def _pairs(trace: cs.Trace) -> Iterator[tuple[cs.Step | None, cs.Step]]:
    """The image with its gradient, and every visible step of the forward pass that has one, in order."""
    made = trace.training_step
    assert made is not None
    if "input" in made.gradients:
        yield None, trace.all_steps[made.gradients["input"].id]
    for step in trace.steps:
        if step.id >= made.loss.id or step.name.startswith("loss"):
            return
        for name in (f"{step.name}.grad#sum", f"{step.name}.grad"):
            try:
                yield step, trace[name]
                break
            except cs.UsageError:
                continue


def _described(done: TracePass) -> schema.TraceInfo:
    """The gradients in the place of the forward steps that they belong to."""
    pairs = [*_pairs(done.trace)]
    place = {-1 if step is None else step.id: gradient.id for step, gradient in pairs}
    image = place.get(-1)
    steps = []
    for step, gradient in pairs:
        links = [] if step is None else [place[each] for each in step.inputs if each in place]
        links = links or ([] if step is None or image is None else [image])
        what = "the image" if step is None else f"{step.name} ({step.says})"
        module = {} if step is None else {"module": step.module, "module_type": step.module_type}
        changed = {"inputs": links, "says": f"gradient at {what}", "parameters": {}, **module}
        steps.append(step_info(gradient).model_copy(update=changed))
    answers, _ = answers_of(done.model, done.trace.output)
    last = steps[-1].id if steps else None
    return described(done, steps, answers=answers, output=last)


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
