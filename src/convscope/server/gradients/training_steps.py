"""Training steps: repeat a step of a run, record it as a pass, and describe its batch and its updates."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import schema
from convscope.server.session.inputs import Taken
from convscope.server.session.model_handle import ModelHandle
from convscope.server.traces.array_pictures import base64url, number, shades, shrunk
from convscope.server.traces.passes import TracePass
from convscope.server.traces.routes import step_info
from convscope.typing import Array

IMAGES = 64
"""Maximum number of images in an answer."""
SIDE = 56
"""Pixels a side of a thumbnail, at most."""
SAME = 1e-5
"""Relative difference up to which the optimizer's direction is the gradient itself."""


def step_name(opened: ModelHandle, step: int) -> str:
    """The id of a recorded step: a digest of the run and the step, which never change together.

    Raises:
        HTTPException: 422, the model is not a run.
    """
    if opened.run is None:
        raise HTTPException(422, f"{opened.name} was not loaded from a run, so it has no training steps to repeat.")
    created = opened.run.config["environment"].get("created", "")
    digest = hashlib.sha256(f"{opened.run.path} {created} {opened.run.config['seed']} {step}".encode()).hexdigest()
    return f"s{digest[:24]}"


def record_step(opened: ModelHandle, step: int) -> TracePass:
    """Repeat a run up to a step and record it.

    Raises:
        ConvscopeError: the run has no such step, or cannot be repeated.
    """
    name = step_name(opened, step)
    assert opened.run is not None
    trace = cs.trace(opened.run, at_step=step)
    source = schema.SampleRef(source=opened.source or "none", split="train", index=0)
    images = trace.input
    taken = Taken(f"batch of step {step}", images[0], images[0], None, (), images)
    request = schema.TraceRequest(model=opened.id, input=source)
    return TracePass(name, opened, None, request, taken, trace, None, (), frozenset())


def step_answer(done: TracePass, step: int) -> schema.TrainingStepInfo:
    """The description of a recorded step."""
    trace, made = done.trace, done.trace.training_step
    assert made is not None
    done.info = done.info or described(done, [step_info(step) for step in trace.steps])
    effect = cs.step_effect(trace)
    return schema.TrainingStepInfo(
        trace=done.info,
        step=step,
        optimizer=made.optimizer.partition(" ")[0],
        mode=made.mode,
        loss_name=made.loss_name,
        before=number(effect.before),
        after=number(effect.after),
        count=len(trace.input),
        images=_images(trace),
        updates=sorted((_update(trace, name) for name in made.updated), key=lambda each: len(each.shape) < 2),
    )


def described(done: TracePass, steps: list[schema.StepInfo], **more: Any) -> schema.TraceInfo:
    """The description of a pass with gradients, as far as a page needs it to name and explain its numbers."""
    shapes = {ref.name: ref.shape for ref in done.trace.outside.values() if ref.kind == "parameter"}
    found: dict[str, Any] = {
        "id": done.id,
        "model": done.opened.id,
        "input": done.taken.info(),
        "steps": steps,
        "modules": dict(done.trace.modules),
        "parameters": [schema.ParameterInfo(name=n, shape=list(s), changed=False) for n, s in shapes.items()],
        "answers": [],
        "output": None,
        "notes": [],
        "error": None,
    }
    return schema.TraceInfo(**{**found, **more})


def _update(trace: cs.Trace, name: str) -> schema.ParameterUpdate:
    made = trace.training_step
    assert made is not None
    gradient = _named(trace, name)
    along, rate = cs.update_direction(trace, name)
    own = gradient.output.reshape(along.shape).astype(np.float64)
    return schema.ParameterUpdate(
        name=name,
        shape=list(along.shape),
        gradient=gradient.id,
        updated=made.updated[name].id,
        rate=rate,
        plain=bool(np.allclose(along, own, rtol=SAME, atol=0)),
    )


def _named(trace: cs.Trace, parameter: str) -> cs.Step:
    """The step that made a parameter's gradient: the one of this name, rather than a view of it."""
    made = trace.training_step
    assert made is not None
    last = trace.all_steps[made.gradients[parameter].id]
    named = trace[f"{parameter}.grad"]
    return named if [n for n in named.shape if n > 1] == [n for n in last.shape if n > 1] else last


def _images(trace: cs.Trace) -> list[schema.BatchImage]:
    """The batch, those with the largest losses first; none where the inputs are not pictures."""
    images, losses = trace.input, cs.image_losses(trace)
    if images.ndim != 4:
        return []
    order = np.arange(len(images)) if losses is None else np.argsort(-losses, kind="stable")
    labels = _labels(trace.inputs, trace.card.classes)
    return [
        schema.BatchImage(
            index=index,
            label=labels[index] if labels else None,
            loss=None if losses is None else number(float(losses[index])),
            **_thumbnail(trace, images[index]),
        )
        for index in order[:IMAGES].tolist()
    ]


def _labels(inputs: Mapping[str, Array], classes: Any) -> list[str]:
    target = inputs.get("target")
    if target is None or target.ndim != 1 or target.dtype.kind not in "iu":
        return []
    return [classes[label] if 0 <= label < len(classes) else str(label) for label in target.tolist()]


def _thumbnail(trace: cs.Trace, image: Array) -> dict[str, Any]:
    shown = np.clip(trace.card.preprocess.restore(image)[:3], 0, 1)
    small = shades(shrunk(shown, SIDE), 0, 1)
    small = small[:1] if len(small) == 2 else small
    return {"picture": base64url(small), "shape": small.shape}


def effect_info(done: TracePass, times: float) -> schema.StepEffectInfo:
    """The loss after the same update with another learning rate.

    Raises:
        HTTPException: 404, the trace is not a training step.
    """
    check_step(done)
    effect = cs.step_effect(done.trace, times)
    after = effect.after if math.isfinite(effect.after) else math.nan
    return schema.StepEffectInfo(trace=done.id, times=times, before=number(effect.before), after=number(after))


def check_step(done: TracePass) -> None:
    """Refuse a trace without an update.

    Raises:
        HTTPException: 404.
    """
    made = done.trace.training_step
    if made is None or not made.updated:
        raise HTTPException(404, "this trace is not a training step; ask for one at /api/training-steps.")
