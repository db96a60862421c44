"""Formulas with their numbers put in: which clause applies, and why."""

import pytest

from convscope.expr.expr import Apply, number
from convscope.render.drawing import draw_formula
from convscope.render.sums import BLANK, Row

CLAUSES = [
    ("pass_above", {"grad": 0.25, "x": 0.0, "threshold": 0.0}, "else 0"),
    ("pass_above", {"grad": 0.25, "x": 0.5, "threshold": 0.0}, "grad"),
    ("pass_from", {"grad": 0.25, "x": -1.0, "threshold": 0.0}, "else 0"),
    ("pass_between", {"grad": 0.25, "x": 2.0, "low": -1.0, "high": 1.0}, "else 0"),
    ("pass_outside", {"grad": 0.25, "x": 0.1, "lambd": 0.5}, "else 0"),
    ("hardshrink", {"x": 0.1, "lambd": 0.5}, "else 0"),
    ("softshrink", {"x": 0.1, "lambd": 0.5}, "else 0"),
    ("hardsigmoid_backward", {"grad": 0.25, "x": 4.0}, "else 0"),
    ("prelu_slope_backward", {"grad": 0.25, "x": 0.5}, "0 if 0.5 > 0"),
    ("hardswish_backward", {"grad": 0.25, "x": -4.0}, "0 if −4 ≤ −3"),
    ("heaviside", {"x": 2.0, "y": 0.5}, "else 1"),
    ("heaviside", {"x": -2.0, "y": 0.5}, "0 if −2 < 0"),
]


@pytest.mark.parametrize(("function", "arguments", "label"), CLAUSES)
def test_a_formula_of_several_cases_says_which_one_applies(
    function: str, arguments: dict[str, float], label: str
) -> None:
    rows = draw_formula(Apply(function, {name: number(value, name) for name, value in arguments.items()}))
    formula = rows[rows.index(BLANK) + 1]
    assert isinstance(formula, Row)
    assert formula.label == label
