"""Stops: the explorer's addresses that a lesson leads to, checked against the model that they show."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import convscope as cs
from convscope.errors import ConvscopeError, UsageError
from convscope.lessons.session import ShownStop
from convscope.models import load_model

VIEWS = ("look", "change", "train", "compare", "probe", "kernels")
"""The views of the page, as web/src/lib/state.svelte.ts lists them; a test compares both."""
PARTS = (
    "view", "origin", "change", "edits", "at", "fit", "step", "channel", "cell", "window", "trail", "why", "pixels",
    "shared", "open", "layer", "kernel", "question", "asked",
)  # fmt: skip
"""The parts of an address that a stop may have."""
WORDS = ("image", "softmax")
"""Steps of an address that are not steps of the trace."""


def model_of(stop: ShownStop) -> Any:
    """The module that a stop shows.

    Raises:
        ConvscopeError: there is no such model.
    """
    if isinstance(stop.model, str):
        return load_model(stop.model)
    return getattr(stop.model, "model", stop.model)  # a run has its model


def check_stop(stop: ShownStop, *, trusted: bool = True) -> Iterator[str]:
    """What of a stop does not exist, as sentences.

    Args:
        stop: The stop.
        trusted: Whether the lesson's code is executed. Otherwise its stops may name only built-in networks and images
            of built-in data sets, as a name could also refer to code or to any file.
    """
    if not trusted:
        refused = list(_unsafe(stop))
        yield from refused
        if refused:
            return
    try:
        model = model_of(stop)
        parts = dict(parse_qsl(stop.page, keep_blank_values=True, max_num_fields=50))
        image = stop.image if stop.image is not None else cs.random_image(model)
        trace = cs.trace(model, cs.load_image(image, like=model) if isinstance(image, str) else image)
    except ConvscopeError as error:
        yield str(error)
        return
    except ValueError as error:  # of parse_qsl
        yield f"the page's address cannot be read: {error}."
        return
    yield from _unknown_parts(parts)
    yield from _misplaced(parts, trace)


def _unsafe(stop: ShownStop) -> Iterator[str]:
    if stop.model not in cs.MODELS:
        yield f"the model {stop.model!r} is not built in; the lesson's code would make it, and that is not executed."
    if stop.image is not None and str(stop.image).partition(":")[0] not in cs.DATASETS:
        yield f"the image {stop.image!r} is not one of a built-in data set; the lesson's code is not executed."


def _unknown_parts(parts: Mapping[str, str]) -> Iterator[str]:
    settings = () if "question" not in parts else tuple(parts)  # then every other part is a setting of the question
    for name, value in parts.items():
        if name in {"model", "input"}:
            yield f"page: {name} does not belong into the address; the keys model and image decide it."
        elif name not in PARTS and name not in settings:
            yield f"page: the explorer's address has no part {name!r}; it has {', '.join(PARTS)}."
        elif name == "view" and value not in VIEWS:
            yield f"page: no view is called {value!r}; there are {', '.join(VIEWS)}."
        elif name == "question" and value not in cs.probe.PROBES:
            yield f"page: no question is called {value!r}; there are {', '.join(cs.probe.PROBES)}."


def _misplaced(parts: Mapping[str, str], trace: cs.Trace) -> Iterator[str]:
    layer = parts.get("layer")
    if layer is not None and layer not in trace.parameters:
        yield f"page: the model has no parameter {layer!r}; it has {', '.join(trace.parameters)}."
    name = parts.get("step")
    if name is None or name in WORDS:
        return
    try:
        step = trace[name.removeprefix(":")]
    except UsageError as error:
        yield f"page: {error}"
        return
    shape = step.shape[1:]
    cell = parts.get("cell", "")
    if cell and not (
        cell.replace(".", "").isdigit()
        and len(cell.split(".")) == len(shape)
        and all(int(index) < size for index, size in zip(cell.split("."), shape, strict=True))
    ):
        first = ".".join("0" for _ in shape)
        last = ".".join(str(size - 1) for size in shape)
        yield f"page: {name} has no cell {cell!r}; its cells are {first} to {last}."
