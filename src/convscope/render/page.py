"""Page: a whole explanation of one number as text: what it is, the calculation, and how it compares."""

import math

import numpy as np

from convscope.expr.expr import Expr
from convscope.render.drawing import draw, headline, result, rounding
from convscope.render.numbers import MINUS, NumberScale, short, small
from convscope.render.sums import BLANK, RULE, Detail, Row, indented, render


def page(name: str, expr: Expr, recorded: float, bound: float, detail: Detail) -> list[str]:
    """The number, the calculation, then calculated, recorded, difference.

    >>> from convscope.expr.expr import Leaf
    >>> from convscope.expr.call import Source
    >>> x = Leaf(0.75, Source("conv1", "step", (1, 4)), (0, 2))
    >>> print(*page("copy (2)", x, 0.75, 0.0, Detail()), sep="\\n")
    copy (2) = 0.75
    the cell conv1 (2), moved
    <BLANKLINE>
      conv1 (2)    0.75
      ─────────────────
      calculated   0.75
      recorded     0.75
      difference   0      none is allowed: nothing is rounded here
    """
    last = Row("calculated", result(expr), rounding(expr))
    rows = [*draw(expr, detail), RULE, last, *compared(expr, recorded, bound)]
    return [f"{name} = {result(expr)}", headline(expr), "", *indented(render(rows))]


def passage(name: str, expr: Expr, mark: str, detail: Detail) -> list[str]:
    """Only the number and its calculation, as a part of another explanation."""
    rows = draw(expr, detail)
    drawn = [f"{name} = {result(expr)}{f'   {mark}' if mark else ''}", headline(expr), ""]
    line = _in_one_line(rows)
    if line is None:
        return [*drawn, *indented(render([*rows, RULE, Row("calculated", result(expr))]))]
    pictured = [row for row in rows if isinstance(row, str)]
    return [*drawn, *indented([*pictured, "", f"{line} = {result(expr)}"])]


def _in_one_line(rows: list[Row | str]) -> str | None:
    """The sum under a drawing as `−2.9386 + 2.2435 (conv.bias[0])`; None where it is more than that."""
    terms = [row for row in rows if isinstance(row, Row) and row is not BLANK]
    if not any(isinstance(row, str) for row in rows) or any(t.label[:1] in "÷×" or t.label == "sum" for t in terms):
        return None
    if not 1 <= len(terms) <= 3 or not terms[0].label.startswith("sum of"):
        return None
    line = terms[0].number
    for term in terms[1:]:
        sign, number = (MINUS, term.number[1:]) if term.number.startswith(MINUS) else ("+", term.number)
        line += f" {sign} {number} ({term.label})"
    return line


def compared(expr: Expr, recorded: float, bound: float) -> list[Row | str]:
    """The same number in full, the number PyTorch recorded, and the allowed difference."""
    value = expr.value()
    if not math.isfinite(value) or not math.isfinite(recorded) or not math.isfinite(bound):
        return [Row("recorded", short(recorded, 9))]
    if bound == 0 and value == recorded:
        full = short(value, 9 if float(np.float32(value)) == value else 17)
        exact = Row("difference", "0", "none is allowed: nothing is rounded here")
        return [*([Row("in full", full)] if result(expr) != full else []), Row("recorded", full), exact]
    decimals = _decimals(bound, value)
    if decimals is None:
        near = Row("difference", short(recorded - value, 2), f"allowed ± {small(bound)}")
        return [Row("in full", short(value, 12)), Row("recorded", short(recorded, 12)), near]
    scale = NumberScale(decimals)
    return [
        Row("in full", scale.show(value)),
        Row("recorded", scale.show(recorded)),
        Row("difference", scale.text(scale.units(recorded) - scale.units(value)), f"allowed ± {small(bound)}"),
    ]


def _decimals(bound: float, value: float) -> int | None:
    """Number of decimals that shows the bound with two digits; None if these numbers need scientific notation."""
    if not bound:
        return None
    decimals = max(1 - math.floor(math.log10(bound)), 0)
    return decimals if decimals <= 16 and abs(value) < 1e12 else None
