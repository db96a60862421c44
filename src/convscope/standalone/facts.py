"""Facts: what a report says of a model beside its numbers: the training, the confusion matrix, one training step.

Plain values for JSON; text from others is spelled out, so that it steers no reader.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convscope.capture.tracing import trace
from convscope.errors import ConvscopeError
from convscope.escaping import spelled
from convscope.proof.explanation import explain
from convscope.traces.trace import Trace
from convscope.training.evaluation import evaluate
from convscope.training.runs import Run
from convscope.typing import Array

Plain = dict[str, Any]
POINTS = 1500
"""Points of a curve: more cannot be told apart."""
SCORES = ("event", "step", "loss", "accuracy", "test_loss", "test_accuracy")
EXAMPLES = 8
"""Images of the training step."""


def training_of(run: Run) -> Plain | None:
    """The curves of a training and its settings; None if it has no metrics yet."""
    events = run.history
    if not events:
        return None
    epochs = [event for event in events if event["event"] == "epoch"]
    batches = [event for event in events if event["event"] != "epoch"]
    points = [*batches[:: len(batches) // POINTS + 1], *epochs]
    return {
        "points": [{name: point[name] for name in SCORES if name in point} for point in points],
        "lines": str(run).splitlines(),
    }


def confusion_of(run: Run) -> Plain | str:
    """The confusion matrix on the run's test images; a sentence where these cannot be read."""
    try:
        result = evaluate(run)
    except (ConvscopeError, OSError) as error:
        return spelled(f"The confusion matrix is left out: {error}")
    counts = result.confusion
    return {
        "dataset": spelled(result.dataset),
        "classes": [spelled(name) for name in result.classes],
        "counts": counts.tolist(),
        "accuracy": result.accuracy,
        "images": int(counts.sum()),
    }


def step_of(run: Run, images: Sequence[Array], labels: Sequence[int | None]) -> list[Plain] | str:
    """One training step on the report's images: why the loss, a gradient and a new weight are what they are.

    Args:
        run: Brings the loss, the optimizer and its rate.
        images: As the model takes them, each of shape (C, H, W).
        labels: The class of each; images without one are left out.
    """
    known = [(image, label) for image, label in zip(images, labels, strict=True) if label is not None][:EXAMPLES]
    if not known or len({image.shape for image, _ in known}) > 1:
        return "A training step is left out: it needs images of one size whose classes are known."
    try:
        step = trace(run, np.stack([image for image, _ in known]), target=[label for _, label in known])
        return [_part(step, name, cell) for name, cell in _telling(step)]
    except ConvscopeError as error:
        return spelled(f"A training step is left out: {error}")


def _telling(step: Trace) -> list[tuple[str, tuple[int, ...]]]:
    """The loss, the largest gradient of the first kernels, and the new weight that it leads to."""
    names = {each.name for each in step.steps}
    weight = next((n.removesuffix(".grad") for n in sorted(names, key=_order(step)) if n.endswith("weight.grad")), None)
    told: list[tuple[str, tuple[int, ...]]] = [("loss", ())] if "loss" in names else []
    if weight is not None:
        gradient = step[f"{weight}.grad"].output
        cell = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(gradient))), gradient.shape))
        told += [(f"{weight}.{what}", cell) for what in ("grad", "updated") if f"{weight}.{what}" in names]
    return told


def _order(step: Trace) -> Any:
    """The place of a gradient's parameter in the model, so that the first layer comes first."""
    places = {f"{name}.grad": place for place, name in enumerate(step.parameters)}
    return lambda name: (places.get(name, len(places)), name)


def _part(step: Trace, name: str, cell: tuple[int, ...]) -> Plain:
    why = explain(step, name, cell)
    return {"title": spelled(why.name), "text": why.to_text()}


def answers_of(probes: Sequence[Any]) -> list[Plain]:
    """Results of probes, each as its own text."""
    return [{"title": _words(type(result).__name__), "text": str(result)} for result in probes]


def _words(name: str) -> str:
    """A class's name in words: ReceptiveField as receptive field."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
