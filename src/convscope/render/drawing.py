"""Drawing: an explanation of one number as text, how each kind of expression is drawn, and its formula with numbers."""

import math
from collections.abc import Mapping

import numpy as np

from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.expr.primitives import PRIMITIVES
from convscope.expr.primitives.moments import KERNELS
from convscope.render.numbers import MINUS, NumberScale, digits_for, number_of, short, small, table
from convscope.render.reductions import draw_cells, draw_extreme, draw_ranked, draw_softmax, draw_variance
from convscope.render.sums import BLANK, INDENT, ROUNDING, RULE, Detail, Row, draw_sum, indented, render, result_scale

Argument = Expr | Cells

OPERATORS, POWERS = frozenset("+−×÷√"), frozenset("²³")
"""Signs next to which a negative number needs brackets: after the first, before the second."""
CHANGED: Mapping[str, str] = {
    "descend": "before",
    "decay": "before",
    "with_decay": "gradient",
    "look_ahead": "gradient",
}
"""Functions that change one of their arguments, perhaps by little -> that argument, with the digits that show it."""


def formula(apply: Apply) -> str:
    """The formula in words, with the arguments' names.

    >>> from convscope.expr.expr import number
    >>> formula(Apply("relu", {"x": number(-1, "x")}))
    'max(0, x)'
    """
    return PRIMITIVES[apply.function].formula.format(**{name: name for name in apply.arguments})


def draw_formula(apply: Apply) -> list[Row | str]:
    """The arguments with their numbers, then the formula with these numbers and its result."""
    names = list(apply.arguments)
    labels = table([(name, describe(a)) for name, a in apply.arguments.items()], "<<", "   ")
    changed = CHANGED.get(apply.function)
    shown = [
        short(a.value(), _digits(apply, a.value())) if name == changed and not isinstance(a, Cells) else _number(a)
        for name, a in apply.arguments.items()
    ]
    lines: list[Row | str] = [Row(label, text) for label, text in zip(labels, shown, strict=True)]
    if any(isinstance(a, Cells) for a in apply.arguments.values()):
        return lines
    return [*lines, BLANK, *put_in(apply, dict(zip(names, shown, strict=True)))]


def put_in(apply: Apply, shown: Mapping[str, str]) -> list[Row | str]:
    """The formula with the displayed numbers substituted, and the remainder due to their rounding."""
    function = PRIMITIVES[apply.function]
    values = [_exact(a) for a in apply.arguments.values()]
    with np.errstate(all="ignore"):
        template = function.branch(*values) if function.branch else function.formula
        with_shown = float(function.value(*(np.float64(number_of(text)) for text in shown.values())))
    value = apply.value()
    digits = _digits(apply, value)
    scale = NumberScale.fine(value or with_shown, digits)
    label = (
        template.strip("{}")
        if template != function.formula and template.strip("{}") in shown
        else _filled(_clause(template, function.formula), shown)
    )
    rounded = number_of(scale.show(with_shown))  # rounded once, as the remainder below counts it
    lines: list[Row | str] = [Row(label, short(rounded, digits))]
    if np.isfinite([value, with_shown]).all() and scale.units(value) != scale.units(with_shown):
        lines.append(Row(ROUNDING, scale.text(scale.units(value) - scale.units(with_shown))))
    return lines


def describe(argument: Argument) -> str:
    """A description of a number: its cell, or how it was computed."""
    if isinstance(argument, Leaf):
        return "" if argument.source.kind == "number" else argument.label
    if isinstance(argument, Cells):
        return f"{len(argument):,} cells of {argument.source.name}"
    if isinstance(argument, Dot):
        division = f": {short(argument.total())} ÷ {argument.divisor:,.9g}" if argument.divisor != 1 else ""
        return argument.note + division
    if argument.function in KERNELS:
        cells, _, correction = argument.arguments.values()
        assert isinstance(cells, Cells)
        assert isinstance(correction, Leaf)
        count = len(cells) - correction.scalar
        return f"{argument.note}: squares {short(argument.value() * count)} ÷ {count:,.9g}"
    if argument.function == "stored":
        return describe(argument.arguments["x"])
    return argument.note or formula(argument)


def _number(argument: Argument) -> str:
    if isinstance(argument, Cells):
        return ""
    return short(argument.value(), 9 if isinstance(argument, Leaf) and argument.source.kind == "number" else 5)


def _exact(argument: Argument) -> float:
    assert not isinstance(argument, Cells)
    return argument.value()


def _clause(template: str, formula: str) -> str:
    """The clause of a formula that applies, where it is but a number, which alone would not say why: `else 0`."""
    if "{" not in template:
        for clause in formula.split(", "):
            if clause == f"else {template}" or clause.startswith(f"{template} if "):
                return clause
    return template


def _filled(template: str, shown: Mapping[str, str]) -> str:
    """The template with numbers substituted; a negative one gets brackets unless it is alone between commas."""
    text = template
    for name, number in shown.items():
        mark = "{" + name + "}"
        while mark in text:
            position = text.index(mark)
            before, after = text[:position].rstrip()[-1:], text[position + len(mark) :].lstrip()[:1]
            bare = not number.startswith("−") or (before not in OPERATORS and after not in POWERS)
            text = text.replace(mark, number if bare else f"({number})", 1)
    return text


SERIES = {
    "max": draw_extreme,
    "min": draw_extreme,
    "argmax": draw_extreme,
    "argmin": draw_extreme,
    "ranked": draw_ranked,
    "rank_of": draw_ranked,
    "softmax": draw_softmax,
    "safe_softmax": draw_softmax,
    "log_softmax": draw_softmax,
    "logsumexp": draw_softmax,
    **dict.fromkeys(KERNELS, draw_variance),
}
BRIEF = frozenset({"normalize", "normalize_weight", "normalize_affine", "inverse_std"})
"""Functions whose statistics are written in a line instead of drawn."""


def draw(expr: Expr, detail: Detail | None = None) -> list[Row | str]:
    """The calculation, without its result: rows of labels and numbers, and whole lines.

    >>> from convscope.expr.call import Source
    >>> x = Leaf(-0.5, Source("conv1", "step", (1, 4)), (0, 2))
    >>> print(*render(draw(Apply("relu", {"x": x}))), sep="\\n")
    x   conv1 (2)   −0.5
    <BLANKLINE>
    max(0, −0.5)     0
    """
    detail = detail or Detail()
    if isinstance(expr, Leaf):
        return [Row(expr.label, short(expr.scalar, 9))]
    if isinstance(expr, Dot):
        return draw_sum(expr, detail)
    if expr.function in SERIES:
        return SERIES[expr.function](expr, detail)
    if any(isinstance(a, Cells) for a in expr.arguments.values()):
        return draw_cells(expr, detail)
    return [*_inner(expr, detail), *draw_formula(expr)]


def headline(expr: Expr) -> str:
    """A description of the number in one line.

    >>> from convscope.expr.expr import number
    >>> headline(Apply("add", {"x": number(1, "x"), "y": number(2, "y")}))
    'x + y'
    """
    if isinstance(expr, Leaf):
        return "a number written in the model" if expr.source.kind == "number" else f"the same number as {expr.label}"
    if isinstance(expr, Dot):
        return expr.note
    if expr.note and any(isinstance(a, Cells) for a in expr.arguments.values()):
        return expr.note
    return f"{expr.note}: {formula(expr)}" if expr.note else formula(expr)


def result(expr: Expr) -> str:
    """The number itself, rounded as the calculation shows it.

    >>> from convscope.expr.expr import number
    >>> result(number(0.25, "x"))
    '0.25'
    """
    value = expr.value()
    if isinstance(expr, Dot):
        return result_scale(expr).show(value) if len(expr.left) else "0"
    return short(value, _digits(expr, value))


def rounding(expr: Expr) -> str:
    """A description of how the shown result is rounded; empty if it is not.

    >>> from convscope.expr.expr import number
    >>> rounding(number(0.25, "x")), rounding(number(1 / 3, "x"))
    ('', 'rounded to 5 digits')
    """
    value = expr.value()
    if not math.isfinite(value) or number_of(result(expr)) == value:
        return ""
    if isinstance(expr, Dot):
        scale = result_scale(expr)
        return "" if scale.power else f"rounded to {scale.decimals} decimals"
    return f"rounded to {_digits(expr, value)} digits"


def _digits(expr: Expr, number: float) -> int:
    """Significant digits of the result, or of what it was before: five, or as many as show a small change."""
    if not isinstance(expr, Apply) or expr.function not in CHANGED:
        return 5
    return digits_for(number, expr.value() - _exact(expr.arguments[CHANGED[expr.function]]))


def _inner(apply: Apply, detail: Detail) -> list[Row | str]:
    """The sums and functions that go in as arguments, each drawn before it is used."""
    if apply.function in BRIEF:
        return []
    lines: list[Row | str] = []
    for name, argument in apply.arguments.items():
        if isinstance(argument, Dot | Apply):
            lines.append(f"{name}: {headline(argument)}")
            lines += [*indented(render([*draw(argument, detail), RULE, Row(name, result(argument))]), INDENT), BLANK]
    return lines


def page(name: str, expr: Expr, recorded: float, bound: float, detail: Detail) -> list[str]:
    """The number, the calculation, then calculated, recorded, difference.

    >>> from convscope.expr.expr import Leaf
    >>> from convscope.expr.call import Source
    >>> x = Leaf(0.75, Source("conv1", "step", (1, 4)), (0, 2))
    >>> print(*page("copy (2)", x, 0.75, 0.0, Detail()), sep="\\n")
    copy (2) = 0.75
    the same number as conv1 (2)
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
    head = [f"{name} = {result(expr)}{f'   {mark}' if mark else ''}", headline(expr), ""]
    line = _in_one_line(rows)
    if line is None:
        return [*head, *indented(render([*rows, RULE, Row("calculated", result(expr))]))]
    pictured = [row for row in rows if isinstance(row, str)]
    return [*head, *indented([*pictured, "", f"{line} = {result(expr)}"])]


def _in_one_line(rows: list[Row | str]) -> str | None:
    """The sum under a drawing, `−2.9386 + 2.2435 (conv.bias[0])`, or what it adds; None where it is more than that."""
    terms = [row for row in rows if isinstance(row, Row) and row is not BLANK]
    if not any(isinstance(row, str) for row in rows) or any(t.label[:1] in "÷×" or t.label == "sum" for t in terms):
        return None
    if not 1 <= len(terms) <= 3 or not terms[0].label.startswith("sum of"):
        return None
    line = terms[0].number if len(terms) > 1 else terms[0].label
    for term in terms[1:]:
        sign, number = (MINUS, term.number[1:]) if term.number.startswith(MINUS) else ("+", term.number)
        line += f" {sign} {number} ({term.label})"
    return line


def compared(expr: Expr, recorded: float, bound: float) -> list[Row | str]:
    """The number in full, the number PyTorch recorded, and the allowed difference."""
    value = expr.value()
    if not math.isfinite(value) or not math.isfinite(recorded) or not math.isfinite(bound):
        return [Row("recorded", short(recorded, 9))]
    if bound == 0 and value == recorded:
        with np.errstate(over="ignore"):
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
