"""Notebook: what the last line of a cell shows: the picture that `cs.plot` draws, or else what printing says.

Knows the names of convscope's objects and IPython's display formatters; it imports neither.
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
    "plot.canvas.style.Page": "",
    "proof.contributions.Contributions": "contributions",
    "proof.explanation.Explanation": "explanation",
    "training.evaluation.Evaluation": "confusion",
    "training.runs.Run": "history",
    **{probe.result: probe.function for probe in cs.probe.PROBES.values()},
}
"""The picture of `cs.plot` that shows each kind of object; a picture shows itself."""

WORDS: Mapping[str, Callable[[Any], str]] = {
    "traces.difference.Difference": str,
    **{name: str for name in PICTURES if name.startswith(("probe.", "proof."))},
    "probe.receptive_field.ReceptiveFields": str,
    "proof.verification_report.Verification": lambda report: str(report.summary()),
    "training.evaluation.Evaluation": lambda found: (
        f"{found.dataset}: {found.accuracy:.2%} of {int(found.confusion.sum()):,} images right, loss {found.loss:.4g}"
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
    for path, picture in PICTURES.items():
        display.formatters["image/svg+xml"].for_type_by_name(*_named(path), _drawn(picture))


def bundle(result: Any) -> dict[str, str]:
    """What any notebook shows of a result: its text and its picture, by MIME type.

    >>> trace = cs.trace(cs.load_model("crosses"), cs.load_image("crosses:plus"))
    >>> sorted(bundle(trace)), sorted(bundle(cs.verify(trace)))
    (['image/svg+xml', 'text/plain'], ['text/plain'])
    """
    name = f"{type(result).__module__}.{type(result).__qualname__}".removeprefix(f"{__package__}.")
    shown = {"text/plain": WORDS.get(name, str)(result)}
    svg = _drawn(PICTURES[name])(result) if name in PICTURES else None
    return shown if svg is None else {**shown, "image/svg+xml": svg}


def _named(path: str) -> tuple[str, str]:
    module, _, name = f"{__package__}.{path}".rpartition(".")
    return module, name


def _written(say: Callable[[Any], str]) -> Callable[[Any, Any, bool], None]:
    def write(found: Any, printer: Any, _cycle: bool) -> None:
        printer.text(say(found))

    return write


def _figure(found: Any, picture: str) -> Any:
    if not picture:
        return found
    draw = getattr(cs.plot, picture)
    return draw(found.confusion, found.classes) if picture == "confusion" else draw(found)


def _drawn(picture: str) -> Callable[[Any], str | None]:
    def svg(found: Any) -> str | None:
        if picture == "network" and len(found.steps) > DEEP:
            return None
        try:
            figure = _figure(found, picture)
        except cs.ConvscopeError:  # such as the curves of a run before its first line: its words are shown
            return None
        file = io.StringIO()
        figure.savefig(file, format="svg")
        return file.getvalue()

    return svg
