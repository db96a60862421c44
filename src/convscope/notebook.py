"""Notebook: what the last line of a cell shows: the picture that `cs.plot` draws, or else what printing says.

Uses the names of convscope's objects and IPython's display formatters; it imports neither.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import convscope as cs

DEEP = 60
"""Steps of a trace up to which its network is drawn by itself: a deeper one takes seconds, `cs.plot.network(trace)`."""


PICTURES: Mapping[str, str] = {
    "traces.trace.Trace": "network",
    "data.dataset.Dataset": "samples",
    "plot.canvas.style.StyledFigure": "",
    "proof.contributions.Contributions": "contributions",
    "proof.explanation.Explanation": "explanation",
    "training.evaluation.Evaluation": "confusion",
    "training.runs.Run": "history",
    **{probe.result: probe.function for probe in cs.probe.PROBES.values()},
}
"""The picture of `cs.plot` that shows each kind of object; a picture shows itself."""

WORDS: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(
        (
            "checking.result.Check",
            "export.summary.Summary",
            "filters.EdgeResponse",
            "traces.difference.Difference",
            "training.evaluation.Prediction",
        ),
        str,
    ),
    **{name: str for name in PICTURES if name.startswith(("probe.", "proof."))},
    "probe.receptive_field.ReceptiveFields": str,
    "proof.verification_report.Verification": lambda report: str(report.summary()),
    "training.evaluation.Evaluation": lambda result: (
        f"{result.dataset}: {result.accuracy:.2%} of {int(result.confusion.sum()):,} images right, loss "
        f"{result.loss:.4g}"
    ),
}
"""Type -> the text shown where a cell shows only text; other types keep their usual form."""


def register(display: Any) -> None:
    """Let a notebook show convscope's objects; nothing is imported or drawn before one is shown.

        register(get_ipython().display_formatter)

    Args:
        display: IPython's display formatter.

    Source: IPython's `BaseFormatter.for_type_by_name`
    (https://ipython.readthedocs.io/en/stable/api/generated/IPython.core.formatters.html).
    """
    for path, say in WORDS.items():
        display.formatters["text/plain"].for_type_by_name(*_named(path), _written(say))
    for path in PICTURES:
        display.formatters["image/svg+xml"].for_type_by_name(*_named(path), _svg)


def text_of(value: object) -> str:
    """The text that a notebook shows for a value.

    >>> text_of(1.5)
    '1.5'
    """
    say = WORDS.get(_path_of(value), repr)
    return say(value)


def picture_of(value: Any) -> Any:
    """The figure that a notebook shows for a value; None if it is shown as text."""
    picture = PICTURES.get(_path_of(value))
    if picture is None or (picture == "network" and value.training_step is None and len(value.steps) > DEEP):
        return None
    try:
        return _figure(value, picture)
    except cs.ConvscopeError:  # such as the curves of a run before its first line: its words are shown
        return None


def _path_of(value: object) -> str:
    """Module and name of a value's type, as the tables above name it."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(f"{__package__}.")


def bundle(result: object) -> dict[str, str]:
    """What any notebook shows of a result: its text and its picture, by MIME type.

    >>> trace = cs.trace(cs.load_model("crosses"), cs.load_image("crosses:plus"))
    >>> sorted(bundle(trace)), sorted(bundle(cs.verify(trace)))
    (['image/svg+xml', 'text/plain'], ['text/plain'])
    """
    shown = {"text/plain": WORDS.get(_path_of(result), str)(result)}
    svg = _svg(result)
    return shown if svg is None else {**shown, "image/svg+xml": svg}


def _named(path: str) -> tuple[str, str]:
    module, _, name = f"{__package__}.{path}".rpartition(".")
    return module, name


def _written(say: Callable[[Any], str]) -> Callable[[Any, Any, bool], None]:
    def write(result: Any, printer: Any, _cycle: bool) -> None:
        printer.text(say(result))

    return write


def _figure(result: Any, picture: str) -> Any:
    if not picture:
        return result
    if picture == "network" and result.training_step is not None:
        picture = "training_step"
    draw = getattr(cs.plot, picture)
    return draw(result.confusion, result.classes) if picture == "confusion" else draw(result)


def _svg(value: object) -> str | None:
    figure = picture_of(value)
    if figure is None:
        return None
    file = io.StringIO()
    figure.savefig(file, format="svg")
    return file.getvalue()
