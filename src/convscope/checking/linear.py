"""Check of a linear layer."""

import numpy as np

from convscope.checking.mistakes import (
    ABSOLUTE,
    ALL_BIASES,
    BIAS_FACTOR,
    POSITIVE_INPUT,
    bias_times,
    changed,
    first_image_alone,
    result,
)
from convscope.checking.operation import (
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
from convscope.checking.signature import BIAS, INPUT, WEIGHT
from convscope.reference import linear
from convscope.typing import Array


def _linear(values: Values) -> Results:
    return {"out": linear(values["x"], values["weight"], values.get("bias"))}


def _linear_cases(limits: CaseLimits) -> list[Case]:
    rng = np.random.default_rng(6)
    first = {"x": np.array([[1.0, 2]]), "weight": np.array([[1.0, 2], [3, -1]]), "bias": np.array([1.0, -2])}
    out = [Case(first)]
    for n, inputs, units in ((1, 3, 2), (2, 3, 3), (3, 2, 4)):
        x = small_integers(rng, min(n, limits.images), inputs)
        out.append(Case({"x": x, "weight": small_integers(rng, units, inputs), "bias": small_integers(rng, units)}))
    real = rng.standard_normal
    return [*out, Case({"x": real((min(3, limits.images), 7)), "weight": real((4, 7)), "bias": real(4)})]


def _reshaped(weight: Array) -> Array:
    """The matrix that `x @ weight.reshape(inputs, units)` multiplies by, as (units, inputs)."""
    return weight.reshape(weight.shape[::-1]).T


def _bias_in_weights(results: Results, values: Values) -> Results:
    """x · (weight + bias): the bias comes once for each input, times that input."""
    if values.get("bias") is None:
        return results
    return {"out": results["out"] + (values["x"].sum(1, keepdims=True) - 1) * values["bias"]}


_IN_OUT = {"weight": lambda a: np.ascontiguousarray(a.T)}
_COLUMNS = {"x": lambda a: np.ascontiguousarray(a.T), "bias": lambda a: a.reshape(-1, 1)}

LINEAR = CheckedOperation(
    "linear",
    {"x": INPUT, "weight": WEIGHT | {"theta"}, "bias": BIAS},
    {},
    lambda _values: {},
    names("bias"),
    ("out",),
    _linear_cases,
    _linear,
    (
        Mistake(
            "weight not transposed",
            "x @ weight reads the weights by columns: nn.Linear stores (outputs, inputs), so take x @ weight.T.",
            changed("weight", _reshaped),
        ),
        Mistake("bias forgotten", "The bias is never added.", changed("bias", np.zeros_like)),
        Mistake(
            "bias added to the first image only",
            "The other rows get no bias: add it to all.",
            after=first_image_alone("bias"),
        ),
        Mistake("bias subtracted", "The bias is subtracted: add it.", changed("bias", np.negative)),
        Mistake(
            "bias added once per product",
            "The bias is added to every product: add it once.",
            lambda v: changed("bias", lambda b: b * v["weight"].shape[1])(v),
        ),
        Mistake(
            "bias added to the weights",
            "The bias is added to the weights before the products, so each sum has it times the inputs: add it once.",
            after=_bias_in_weights,
        ),
        Mistake(
            "first bias for all", "Every unit gets the first bias.", changed("bias", lambda b: np.full_like(b, b[0]))
        ),
        Mistake(*ALL_BIASES, changed("bias", lambda b: np.full_like(b, b.sum()))),
        Mistake(*BIAS_FACTOR, after=bias_times),
        Mistake(
            "inputs added before the product",
            "The sum of the inputs is multiplied by the sum of the weights: multiply each pair, then add.",
            instead=lambda v: _linear(
                v | {"x": v["x"].sum(1, keepdims=True), "weight": v["weight"].sum(1, keepdims=True)}
            ),
        ),
        Mistake("mean for sum", "The products are averaged: add them up.", changed("weight", lambda w: w / w.shape[1])),
        Mistake(
            "last input left out",
            "The last product is missing.",
            changed("weight", lambda w: np.concatenate([w[:, :-1], 0 * w[:, -1:]], 1)),
        ),
        Mistake(
            "only the last input",
            "Each product overwrites the one before (= instead of +=).",
            changed("weight", lambda w: np.concatenate([0 * w[:, :-1], w[:, -1:]], 1)),
        ),
        Mistake(
            "negative results set to zero",
            "A ReLU is applied: a linear layer keeps negative sums.",
            after=result(lambda out: np.maximum(out, 0)),
        ),
        ABSOLUTE,
        POSITIVE_INPUT,
        Mistake(
            "sum over the units",
            "Every unit gets the sum of all units' products: unit k has the products of weight[k] alone.",
            changed("weight", lambda w: np.repeat(w.sum(0, keepdims=True), len(w), 0)),
        ),
        Mistake("truncated to integers", "The result is stored as integers.", after=result(np.trunc)),
        Mistake(
            "result transposed", "The result is (units, N); it should be (N, units).", after=result(lambda out: out.T)
        ),
    ),
    (
        Form("x (N, inputs), weight (outputs, inputs)"),
        Form("x (N, inputs), weight (inputs, outputs)", _IN_OUT, never_named=names("weight"), layout="in-out"),
        Form(
            "x (inputs,), weight (outputs, inputs)",
            {"x": lambda a: a[0]},
            {"out": lambda a, _v: a[None]},
            CaseLimits(1),
            "vector",
        ),
        Form("x (inputs, N), weight (outputs, inputs)", _COLUMNS, {"out": lambda a, _v: a.T}, layout="columns"),
    ),
    sums={"out": (("x", "weight"), ("bias",))},
)
