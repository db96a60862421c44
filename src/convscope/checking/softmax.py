"""Check of softmax."""

from collections.abc import Callable

import numpy as np

from convscope.checking.convolution import result
from convscope.checking.layouts import INPUT
from convscope.checking.operation import Case, Form, Limits, Mistake, Operation, Results, Values, names, whole
from convscope.reference import softmax
from convscope.render.numbers import short
from convscope.typing import Array

ROWS = (
    Form("(N, features)"),
    Form("(features,)", {"x": lambda a: a[0]}, {"out": lambda a, _v: a[None]}, Limits(1), "vector"),
)


def _softmax(values: Values) -> Results:
    return {"out": softmax(values["x"])}


def _softmax_cases(limits: Limits) -> list[Case]:
    rng = np.random.default_rng(7)
    n = min(2, limits.images)
    drawn = [np.array([[1.0, 2, 0]]), whole(rng, n, 3), whole(rng, n, 4), rng.standard_normal((min(3, n + 1), 5))]
    return [Case({"x": x}) for x in [*drawn, np.array([[1000.0, 1001, 999]]), np.array([[-1000.0, -1001, -999]])]]


def _exponentials(values: Values, at: tuple[int, ...], axis: int | None) -> list[str]:
    x = values["x"] - values["x"].max()
    over = x[at[0]] if axis == 1 else x[:, at[1]] if axis == 0 else x.ravel()
    below = [short(float(number)) for number in np.exp(over)]
    return [f"exp({short(float(x[at]))}) = {short(float(np.exp(x[at])))}", f"÷ ({' + '.join(below)})"]


def _shares(function: Callable[[Array], Array]) -> Callable[[Values], Results]:
    def instead(values: Values) -> Results:
        with np.errstate(all="ignore"):
            return {"out": function(values["x"])}

    return instead


def _plain(x: Array, base: float = np.e) -> Array:
    powers = base**x
    return np.asarray(powers / powers.sum(-1, keepdims=True))


SOFTMAX = Operation(
    "softmax",
    {"x": INPUT | names("logits scores o u")},
    {},
    lambda _values: {},
    frozenset(),
    ("out",),
    _softmax_cases,
    _softmax,
    (
        Mistake(
            "normalised over the whole batch",
            "The sum runs over all images: each row must sum to 1. (A function of "
            "one row alone is checked with layout vector.)",
            instead=_shares(lambda x: softmax(x.ravel()).reshape(x.shape)),
            workings=lambda v, at: _exponentials(v, at, None),
        ),
        Mistake(
            "along the wrong axis",
            "The sum runs over the images (axis 0): sum over the classes (axis 1).",
            instead=_shares(lambda x: softmax(x, 0)),
            workings=lambda v, at: _exponentials(v, at, 0),
        ),
        Mistake(
            "exponential overflows",
            "exp(x) is infinite from about 710 on (float32: 89), and 0 far below: subtract "
            "the row's maximum first; the result stays the same.",
            instead=_shares(lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
            workings=lambda v, at: [
                f"exp({short(float(v['x'][at]))})",
                "÷ the sum of such numbers: inf ÷ inf or 0 ÷ 0",
            ],
        ),
        Mistake("not normalised", "The exponentials are returned: divide by their sum.", instead=_shares(np.exp)),
        Mistake(
            "not normalised",
            "The exponentials are returned: divide by their sum.",
            instead=_shares(lambda x: np.exp(x - x.max(-1, keepdims=True))),
        ),
        Mistake(
            "without the exponential",
            "x is divided by its sum: take exp(x) first.",
            instead=_shares(lambda x: x / x.sum(-1, keepdims=True)),
        ),
        Mistake("sigmoid", "That is a sigmoid of each number.", instead=_shares(lambda x: 1 / (1 + np.exp(-x)))),
        Mistake(
            "logarithm taken", "That is the logarithm of the softmax.", instead=_shares(lambda x: np.log(softmax(x)))
        ),
        Mistake(
            "applied twice", "The softmax of a softmax is returned.", instead=_shares(lambda x: softmax(softmax(x)))
        ),
        Mistake(
            "sign of the exponent",
            "exp(-x) is taken: the largest number must get the largest probability.",
            instead=_shares(lambda x: softmax(-x)),
        ),
        Mistake(
            "powers of two", "Powers of 2 are taken: softmax uses e.", instead=_shares(lambda x: softmax(x * np.log(2)))
        ),
        Mistake(
            "divided by the maximum",
            "The exponentials are divided by the largest: divide by their sum.",
            instead=_shares(lambda x: np.exp(x) / np.exp(x).max(-1, keepdims=True)),
        ),
        Mistake("truncated to integers", "The result is stored as integers.", after=result(np.trunc)),
        Mistake(
            "maximum not in the sum",
            "The maximum is subtracted in the numerator only.",
            instead=_shares(lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x).sum(-1, keepdims=True)),
        ),
    ),
    ROWS,
    workings=lambda v, at: _exponentials(v, at, 1),
)
