"""Drawing: which way each kind of expression is drawn."""

import math

from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.expr.primitives.moments import KERNELS
from convscope.render.detail import Detail
from convscope.render.formulas import draw_formula, formula
from convscope.render.numbers import number_of, short
from convscope.render.rows import BLANK, INDENT, RULE, Row, indented, render
from convscope.render.series import draw_cells, draw_extreme, draw_ranked, draw_softmax, draw_variance
from convscope.render.sums import draw_sum, result_scale

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
        return [Row(expr.label, short(expr.number, 9))]
    if isinstance(expr, Dot):
        return draw_sum(expr, detail)
    if expr.function in SERIES:
        return SERIES[expr.function](expr, detail)
    if any(isinstance(a, Cells) for a in expr.arguments.values()):
        return draw_cells(expr, detail)
    return [*_inner(expr, detail), *draw_formula(expr)]


def headline(expr: Expr) -> str:
    """What the number is, in one line.

    >>> from convscope.expr.expr import number
    >>> headline(Apply("add", {"x": number(1, "x"), "y": number(2, "y")}))
    'x + y'
    """
    if isinstance(expr, Leaf):
        return "a number written in the model" if expr.source.kind == "number" else f"the cell {expr.label}, moved"
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
    return short(value)


def rounding(expr: Expr) -> str:
    """How the shown result is rounded, in words; nothing where it is not.

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
    return "rounded to 5 digits"


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
