"""The text of an explanation: the calculation, the calculations of its parts below it, and the notes.

Uses the explanation it is asked for, and render; decides nothing about proof.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from convscope.escaping import joined
from convscope.expr.expr import Leaf
from convscope.proof.derivatives import derivatives_of
from convscope.proof.status import STATUSES
from convscope.render.drawing import page, passage
from convscope.render.numbers import short as number_text
from convscope.render.reductions import Inner, parts
from convscope.render.sums import Detail, indented

if TYPE_CHECKING:
    from convscope.proof.explanation import Explanation


def text_of(explanation: "Explanation", *, everything: bool, depth: int, short: bool) -> str:
    """The calculation on paper; the arguments are those of `Explanation.to_text`, `everything` its `all`."""
    if explanation.expr is None:
        return joined(
            [f"{explanation.name} = {number_text(explanation.recorded)}", *explanation.notes, "", explanation.says]
        )
    detail = Detail(everything=everything)
    if short:
        lines = passage(explanation.name, explanation.expr, STATUSES[explanation.status].word, detail)
        lines += ["", *explanation.notes] if explanation.notes else []
    else:
        lines = page(explanation.name, explanation.expr, explanation.recorded, explanation.bound, detail)
        lines += ["", *explanation.notes, explanation.says]
    if depth > 1:
        deeper = _deeper(explanation, detail, depth)
        lines += ["", "where these numbers come from", "", *indented(deeper)] if deeper else []
    return joined(lines)


def _deeper(explanation: "Explanation", detail: Detail, depth: int) -> list[str]:
    """The calculations of the parts of a number."""
    lines: list[str] = []
    for part in [] if explanation.expr is None else parts(explanation.expr, detail):
        lines += _part(explanation, part, detail, depth)
    return lines[:-1]


def _part(root: "Explanation", part: Leaf | Inner, detail: Detail, depth: int) -> list[str]:
    """One part's own calculation, and below it those of its parts."""
    if isinstance(part, Inner):
        lines = passage(part.label, part.expr, "", detail)
        deeper = parts(part.expr, detail) if depth > 2 else []
        return [*lines, "", *indented([line for p in deeper for line in _part(root, p, detail, depth - 1)])]
    explanation = root.follow(part)
    if explanation is None:
        return []
    mark = STATUSES[explanation.status].word
    if explanation.expr is None:
        return [f"{explanation.name} = {number_text(explanation.recorded)}   {mark}", *explanation.notes, ""]
    lines = [*passage(explanation.name, explanation.expr, mark, detail), ""]
    below = _deeper(explanation, detail, depth - 1) if depth > 2 else []
    return [*lines, *indented(below), *([""] if below else [])]


def notes_on(explanation: "Explanation") -> Iterator[str]:
    """Remarks: a wrong derivative, changed weights, an operation without a rule, where a NaN came in."""
    if explanation.trace.training_step is not None:
        wrong = derivatives_of(explanation.trace, explanation.ops).status(explanation.step)[1]
        if wrong is not None:
            expected, recorded = number_text(wrong.expected), number_text(wrong.recorded)
            yield (
                f"the derivative of the forward step gives {expected} at {wrong.cell}, where this gradient has "
                f"{recorded}."
            )
    for name in explanation.changed:
        yield f"{name} changed since the trace."
    for cause in explanation.step.broken:
        yield f"the chain to the image is broken here: {cause}."
    if explanation.reason:
        yield explanation.reason
    elif explanation.raw is None:
        reads = ", ".join(dict.fromkeys(ref.name for _, _, ref in explanation.step.refs())) or "nothing"
        kind = " of complex numbers" if explanation.step.is_complex else ""
        listed = "docs/reference/operations.md lists those that have one"
        yield f"no rule explains {explanation.step.op!r}{kind}, which reads {reads}; {listed}."
    elif not np.isfinite(explanation.recorded):
        entered = [p for p in explanation.parts(all=True) if isinstance(p, Leaf) and not np.isfinite(p.number)]
        source = f"comes from {entered[0].label}" if entered else "arises here: the numbers that go in are finite"
        yield f"{number_text(explanation.recorded)} {source}."
