"""Checks of ReLU, its gradient, and softmax."""

from collections.abc import Callable

import numpy as np

from convscope.checking.mistakes import EXP_RAISES, LARGE, result, wrong_sign
from convscope.checking.operation import (
    PLANES,
    Case,
    CaseLimits,
    CheckedOperation,
    Form,
    Mistake,
    Results,
    Values,
    names,
    small_integers,
)
from convscope.checking.signature import GRADIENT, INPUT
from convscope.reference import relu, relu_backward, softmax
from convscope.render.numbers import short
from convscope.typing import Array


def _relu(values: Values) -> Results:
    return {"out": relu(values["x"])}


def _relu_backward(values: Values) -> Results:
    return {"dx": relu_backward(values["dout"], values["x"])}


def _relu_cases(limits: CaseLimits) -> list[Case]:
    rng = np.random.default_rng(4)
    shapes = ((1, 1, 2, 3), (1, 2, 3, 3), (2, 3, 4, 4))
    random_inputs = [
        rng.standard_normal((min(n, limits.images), c if limits.channels > 1 else 1, h, w)) for n, c, h, w in shapes
    ]
    values = [np.array([[[[-2.0, 0, 3], [1.5, -0.5, 8]]]]), *random_inputs]
    return [Case({"x": x}) for x in values]


def _relu_backward_cases(limits: CaseLimits) -> list[Case]:
    rng = np.random.default_rng(5)
    return [Case({"dout": small_integers(rng, *c.values["x"].shape), **c.values}) for c in _relu_cases(limits)]


def _cellwise(function: Callable[[Array], Array]) -> Callable[[Values], Results]:
    return lambda values: {"out": function(values["x"])}


def _leaky(slope: float) -> Callable[[Array], Array]:
    return lambda x: np.where(x > 0, x, slope * x)


_ROW_FORM = Form(
    "(N, features)",
    {n: (lambda a: a.reshape(len(a), -1)) for n in ("x", "dout")},
    {n: (lambda a, v: a.reshape(v["x"].shape)) for n in ("out", "dx")},
)

RELU = CheckedOperation(
    "relu",
    {"x": INPUT},
    {},
    lambda _values: {},
    frozenset(),
    ("out",),
    _relu_cases,
    _relu,
    (
        Mistake("absolute value", "Negative numbers lose their sign: set them to 0.", instead=_cellwise(np.abs)),
        Mistake(
            "minimum for maximum", "min(x, 0) is taken: take max(x, 0).", instead=_cellwise(lambda x: np.minimum(x, 0))
        ),
        Mistake("negative part kept", "Negative numbers are kept: set them to 0.", instead=_cellwise(lambda x: x)),
        *(
            Mistake(
                "leaky",
                f"Negative numbers are multiplied by {slope}: set them to 0.",
                instead=_cellwise(_leaky(slope)),
            )
            for slope in (0.01, 0.1, 0.2)
        ),
        Mistake(
            "mask without values",
            "1 is returned for positive numbers: return the numbers.",
            instead=_cellwise(lambda x: (x > 0) * 1.0),
        ),
        Mistake("sigmoid", "That is a sigmoid.", instead=_cellwise(lambda x: 1 / (1 + np.exp(-x)))),
        Mistake("tanh", "That is a hyperbolic tangent.", instead=_cellwise(np.tanh)),
        Mistake("softplus", "That is log(1 + exp(x)).", instead=_cellwise(lambda x: np.log1p(np.exp(x)))),
        Mistake(
            "maximum with one", "max(x, 1) is taken: take max(x, 0).", instead=_cellwise(lambda x: np.maximum(x, 1))
        ),
        Mistake("cut off at one", "Numbers above 1 are cut: keep them.", instead=_cellwise(lambda x: np.clip(x, 0, 1))),
        Mistake("cut off at six", "Numbers above 6 are cut (ReLU6).", instead=_cellwise(lambda x: np.clip(x, 0, 6))),
        Mistake("truncated to integers", "The result is stored as integers.", after=result(np.trunc)),
    ),
    (*PLANES, _ROW_FORM),
    workings=lambda v, cell: [f"max({short(float(v['x'][cell]))}, 0)"],
)


def _masked(mask: Callable[[Values], Array]) -> Callable[[Values], Results]:
    return lambda values: {"dx": values["dout"] * mask(values)}


RELU_BACKWARD = CheckedOperation(
    "relu_backward",
    {"dout": GRADIENT, "x": INPUT},
    {},
    lambda _values: {},
    frozenset(),
    ("dx",),
    _relu_backward_cases,
    _relu_backward,
    (
        Mistake(
            "decided by the gradient's sign",
            "dout decides what passes: use x, the input of the forward pass.",
            instead=_masked(lambda v: v["dout"] > 0),
        ),
        Mistake(
            "passes at zero",
            "The gradient passes where x is 0. Any slope from 0 to 1 is valid there; PyTorch takes 0 (x > 0).",
            instead=_masked(lambda v: v["x"] >= 0),
            harmless=True,
        ),
        Mistake(
            "not masked",
            "The gradient passes everywhere: pass it only where x > 0.",
            instead=_masked(lambda _v: np.ones(1)),
        ),
        Mistake(
            "mask inverted",
            "The gradient passes where x <= 0: pass it where x > 0.",
            instead=_masked(lambda v: v["x"] <= 0),
        ),
        Mistake(
            "incoming gradient ignored",
            "The mask is returned: multiply it by dout.",
            instead=lambda v: {"dx": (v["x"] > 0) * 1.0},
        ),
        Mistake(
            "input in place of the gradient",
            "The positive numbers of x are returned: return dout where x > 0.",
            instead=lambda v: {"dx": relu(v["x"])},
        ),
        Mistake(
            "multiplied by the output",
            "dout is multiplied by relu(x): its slope is 1.",
            instead=_masked(lambda v: relu(v["x"])),
        ),
        Mistake(
            "multiplied by the input",
            "dout is multiplied by x: the slope is 1 or 0.",
            instead=_masked(lambda v: v["x"]),
        ),
        wrong_sign("dx"),
    ),
    (*PLANES, _ROW_FORM),
    cache=("x",),
    workings=lambda v, cell: [
        f"x = {short(float(v['x'][cell]))}",
        f"dout = {short(float(v['dout'][cell]))}",
        "passed on" if v["x"][cell] > 0 else "stopped: x is not above 0",
    ],
)


ROWS = (
    Form("(N, features)"),
    Form("(features,)", {"x": lambda a: a[0]}, {"out": lambda a, _v: a[None]}, CaseLimits(1), "vector"),
)


def _softmax(values: Values) -> Results:
    return {"out": softmax(values["x"])}


def _softmax_cases(limits: CaseLimits) -> list[Case]:
    rng = np.random.default_rng(7)
    n = min(2, limits.images)
    inputs = [
        np.array([[1.0, 2, 0]]),
        small_integers(rng, n, 3),
        small_integers(rng, n, 4),
        rng.standard_normal((min(3, n + 1), 5)),
    ]
    return [Case({"x": x}) for x in [*inputs, np.array([[1000.0, 1001, 999]]), np.array([[-1000.0, -1001, -999]])]]


def _exponentials(values: Values, cell: tuple[int, ...], axis: int | None) -> list[str]:
    x = values["x"] - values["x"].max()
    inputs = x[cell[0]] if axis == 1 else x[:, cell[1]] if axis == 0 else x.ravel()
    denominator_terms = [short(float(number)) for number in np.exp(inputs)]
    return [f"exp({short(float(x[cell]))}) = {short(float(np.exp(x[cell])))}", f"÷ ({' + '.join(denominator_terms)})"]


def _shares(function: Callable[[Array], Array]) -> Callable[[Values], Results]:
    def instead(values: Values) -> Results:
        with np.errstate(all="ignore"):
            return {"out": function(values["x"])}

    return instead


def _peaked(x: Array) -> Array:
    return np.asarray(np.exp(x - x.max(-1, keepdims=True)))


def _plain(x: Array, base: float = np.e) -> Array:
    powers = base**x
    return np.asarray(powers / powers.sum(-1, keepdims=True))


SOFTMAX = CheckedOperation(
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
            workings=lambda v, cell: _exponentials(v, cell, None),
        ),
        Mistake(
            "along the wrong axis",
            "The sum runs over the images (axis 0): sum over the classes (axis 1).",
            instead=_shares(lambda x: softmax(x, 0)),
            workings=lambda v, cell: _exponentials(v, cell, 0),
        ),
        Mistake(
            "exponential overflows",
            "exp(x) is infinite from about 710 on (float32: 89), and 0 far below: subtract "
            "the row's maximum first; the result stays the same.",
            instead=_shares(lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
            except_on=LARGE,
            workings=lambda v, cell: [
                f"exp({short(float(v['x'][cell]))})",
                "÷ the sum of such numbers: inf ÷ inf or 0 ÷ 0",
            ],
        ),
        EXP_RAISES,
        Mistake(
            "along the wrong axis",
            "The sum runs over the images (axis 0): sum over the classes (axis 1).",
            instead=_shares(lambda x: _peaked(x) / _peaked(x).sum(0)),
        ),
        Mistake(
            "along the wrong axis",
            "The sum runs over the images (axis 0): sum over the classes (axis 1). (A function of "
            "one row alone is checked with layout vector.)",
            instead=_shares(lambda x: np.exp(x) / np.exp(x).sum(0)),
        ),
        Mistake(
            "divided by the mean",
            "The exponentials are divided by their mean: divide by their sum.",
            instead=_shares(lambda x: softmax(x) * x.shape[-1]),
        ),
        Mistake("not normalised", "The exponentials are returned: divide by their sum.", instead=_shares(np.exp)),
        Mistake(
            "divided by the norm",
            "The exponentials are divided by the root of the sum of their squares: divide by their sum.",
            instead=_shares(lambda x: softmax(x) / np.sqrt((softmax(x) ** 2).sum(-1, keepdims=True))),
        ),
        Mistake(
            "not normalised",
            "The exponentials are returned: divide by their sum.",
            instead=_shares(_peaked),
        ),
        Mistake(
            "without the exponential",
            "x is divided by its sum: take exp(x) first.",
            instead=_shares(lambda x: x / x.sum(-1, keepdims=True)),
        ),
        Mistake(
            "divided by the sum of the inputs",
            "The exponentials are divided by the sum of x: divide by the sum of the exponentials.",
            instead=_shares(lambda x: np.exp(x) / x.sum(-1, keepdims=True)),
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
    workings=lambda v, cell: _exponentials(v, cell, 1),
)
