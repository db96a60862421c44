"""Formulas: a function with its numbers substituted, a description of each, and the remainder due to rounding."""

from collections.abc import Mapping

import numpy as np

from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.expr.primitives import PRIMITIVES
from convscope.expr.primitives.moments import KERNELS
from convscope.render.numbers import NumberScale, number_of, short, table
from convscope.render.rows import BLANK, Row
from convscope.render.sums import ROUNDING

Argument = Expr | Cells

OPERATORS, POWERS = frozenset("+−×÷√"), frozenset("²³")
"""Where a negative number needs brackets: behind the ones, before the others."""


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
    shown = [_number(a) for a in apply.arguments.values()]
    lines: list[Row | str] = [Row(label, text) for label, text in zip(labels, shown, strict=True)]
    if any(isinstance(a, Cells) for a in apply.arguments.values()):
        return lines
    return [*lines, BLANK, *put_in(apply, dict(zip(names, shown, strict=True)))]


def put_in(apply: Apply, shown: Mapping[str, str]) -> list[Row | str]:
    """The formula with the displayed numbers substituted, and the remainder due to their rounding."""
    function = PRIMITIVES[apply.function]
    values = [_exact(a) for a in apply.arguments.values()]
    with np.errstate(all="ignore"):
        taken = function.taken(*values) if function.taken else function.formula
        with_shown = float(function.value(*(number_of(text) for text in shown.values())))
    value = apply.value()
    scale = NumberScale.fine(value or with_shown)
    label = taken.strip("{}") if taken != function.formula and taken.strip("{}") in shown else _filled(taken, shown)
    lines: list[Row | str] = [Row(label, short(with_shown))]
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
        made = f": {short(argument.total())} ÷ {argument.divisor:,.9g}" if argument.divisor != 1 else ""
        return argument.note + made
    if argument.function in KERNELS:
        cells, _, correction = argument.arguments.values()
        assert isinstance(cells, Cells)
        assert isinstance(correction, Leaf)
        count = len(cells) - correction.number
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


def _filled(template: str, shown: Mapping[str, str]) -> str:
    """The template with numbers substituted; a negative one gets brackets unless it is alone between commas."""
    text = template
    for name, number in shown.items():
        mark = "{" + name + "}"
        while mark in text:
            at = text.index(mark)
            before, after = text[:at].rstrip()[-1:], text[at + len(mark) :].lstrip()[:1]
            bare = not number.startswith("−") or (before not in OPERATORS and after not in POWERS)
            text = text.replace(mark, number if bare else f"({number})", 1)
    return text
