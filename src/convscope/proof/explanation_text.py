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


def text_of(why: "Explanation", *, everything: bool, depth: int, short: bool) -> str:
    """The calculation on paper; the arguments are those of `Explanation.to_text`, `everything` its `all`."""
    if why.expr is None:
        return joined([f"{why.name} = {number_text(why.recorded)}", *why.notes, "", why.says])
    detail = Detail(everything=everything)
    if short:
        lines = passage(why.name, why.expr, STATUSES[why.status].word, detail)
        lines += ["", *why.notes] if why.notes else []
    else:
        lines = page(why.name, why.expr, why.recorded, why.bound, detail)
        lines += ["", *why.notes, why.says]
    if depth > 1:
        deeper = _deeper(why, detail, depth)
        lines += ["", "where these numbers come from", "", *indented(deeper)] if deeper else []
    return joined(lines)


def _deeper(why: "Explanation", detail: Detail, depth: int) -> list[str]:
    """The calculations of the parts of a number."""
    lines: list[str] = []
    for part in [] if why.expr is None else parts(why.expr, detail):
        lines += _part(why, part, detail, depth)
    return lines[:-1]


def _part(whole: "Explanation", part: Leaf | Inner, detail: Detail, depth: int) -> list[str]:
    """One part's own calculation, and below it those of its parts."""
    if isinstance(part, Inner):
        lines = passage(part.label, part.expr, "", detail)
        deeper = parts(part.expr, detail) if depth > 2 else []
        return [*lines, "", *indented([line for p in deeper for line in _part(whole, p, detail, depth - 1)])]
    why = whole.follow(part)
    if why is None:
        return []
    mark = STATUSES[why.status].word
    if why.expr is None:
        return [f"{why.name} = {number_text(why.recorded)}   {mark}", *why.notes, ""]
    lines = [*passage(why.name, why.expr, mark, detail), ""]
    below = _deeper(why, detail, depth - 1) if depth > 2 else []
    return [*lines, *indented(below), *([""] if below else [])]


def notes_on(why: "Explanation") -> Iterator[str]:
    """Remarks: a wrong derivative, changed weights, an operation without a rule, where a NaN came in."""
    if why.trace.training_step is not None:
        wrong = derivatives_of(why.trace, why.ops).status(why.step)[1]
        if wrong is not None:
            expected, recorded = number_text(wrong.expected), number_text(wrong.recorded)
            yield (
                f"the derivative of the forward step gives {expected} at {wrong.cell}, where this gradient has "
                f"{recorded}."
            )
    for name in why.changed:
        yield f"{name} changed since the trace."
    for how in why.step.broken:
        yield f"the chain to the image is broken here: {how}."
    if why.reason:
        yield why.reason
    elif why.raw is None:
        reads = ", ".join(dict.fromkeys(ref.name for _, _, ref in why.step.refs())) or "nothing"
        of = " of complex numbers" if why.step.is_complex else ""
        listed = "docs/reference/operations.md lists those that have one"
        yield f"no rule explains {why.step.op!r}{of}, which reads {reads}; {listed}."
    elif not np.isfinite(why.recorded):
        entered = [p for p in why.parts(all=True) if isinstance(p, Leaf) and not np.isfinite(p.number)]
        source = f"comes from {entered[0].label}" if entered else "arises here: the numbers that go in are finite"
        yield f"{number_text(why.recorded)} {source}."
