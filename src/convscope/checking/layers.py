"""Check of ReLU and its gradient, linear layers, softmax and batch norm."""

from collections.abc import Callable

import numpy as np

from convscope.checking.convolution import changed, result
from convscope.checking.convolution_backward import only
from convscope.checking.layouts import BIAS, GRADIENT, INPUT, PLANES, WEIGHT
from convscope.checking.operation import Array, Case, Form, Limits, Mistake, Operation, Results, Values, names, whole
from convscope.reference import linear, relu, relu_backward, softmax
from convscope.render.numbers import short

ROWS = (Form("(N, features)"), Form("(features,)", {"x": lambda a: a[0]}, {"out": lambda a, _v: a[None]}, Limits(1), "vector"))
NO_SETTINGS: dict[str, frozenset[str]] = {}


def _nothing(_values: Values) -> Values:
    return {}


# ---------------------------------------------------------------------------------------------------------- ReLU


def _relu(values: Values) -> Results:
    return {"out": relu(values["x"])}


def _relu_backward(values: Values) -> Results:
    return {"dx": relu_backward(values["dout"], values["x"])}


def _relu_cases(limits: Limits) -> list[Case]:
    rng = np.random.default_rng(4)
    shapes = ((1, 1, 2, 3), (1, 2, 3, 3), (2, 3, 4, 4))
    drawn = [rng.standard_normal((min(n, limits.images), c if limits.channels > 1 else 1, h, w)) for n, c, h, w in shapes]
    values = [np.array([[[[-2.0, 0, 3], [1.5, -0.5, 8]]]]), *drawn]
    return [Case({"x": x}) for x in values]


def _relu_backward_cases(limits: Limits) -> list[Case]:
    rng = np.random.default_rng(5)
    return [Case({"dout": whole(rng, *c.values["x"].shape), **c.values}) for c in _relu_cases(limits)]


def _cellwise(function: Callable[[Array], Array]) -> Callable[[Values], Results]:
    return lambda values: {"out": function(values["x"])}


_ROW_FORM = Form(
    "(N, features)", {n: (lambda a: a.reshape(len(a), -1)) for n in ("x", "dout")},
    {n: (lambda a, v: a.reshape(v["x"].shape)) for n in ("out", "dx")},
)  # fmt: skip

RELU = Operation(
    "relu",
    {"x": INPUT},
    NO_SETTINGS,
    _nothing,
    frozenset(),
    ("out",),
    _relu_cases,
    _relu,
    (
        Mistake("absolute value", "Negative numbers lose their sign: they become 0.", instead=_cellwise(np.abs)),
        Mistake("minimum for maximum", "min(x, 0) is taken: take max(x, 0).", instead=_cellwise(lambda x: np.minimum(x, 0))),
        Mistake("negative part kept", "Negative numbers are kept: they become 0.", instead=_cellwise(lambda x: x)),
        *(
            Mistake("leaky", f"Negative numbers are multiplied by {slope}: they become 0.",
                    instead=_cellwise(lambda x, slope=slope: np.where(x > 0, x, slope * x)))  # type: ignore[misc]
            for slope in (0.01, 0.1, 0.2)
        ),
        Mistake("mask without values", "1 is returned for positive numbers: return the numbers.",
                instead=_cellwise(lambda x: (x > 0) * 1.0)),
        Mistake("sigmoid", "That is a sigmoid.", instead=_cellwise(lambda x: 1 / (1 + np.exp(-x)))),
        Mistake("tanh", "That is a hyperbolic tangent.", instead=_cellwise(np.tanh)),
        Mistake("softplus", "That is log(1 + exp(x)).", instead=_cellwise(lambda x: np.log1p(np.exp(x)))),
        Mistake("maximum with one", "max(x, 1) is taken: take max(x, 0).", instead=_cellwise(lambda x: np.maximum(x, 1))),
        Mistake("cut off at one", "Numbers above 1 are cut: keep them.", instead=_cellwise(lambda x: np.clip(x, 0, 1))),
        Mistake("cut off at six", "Numbers above 6 are cut (ReLU6).", instead=_cellwise(lambda x: np.clip(x, 0, 6))),
        Mistake("cut to whole numbers", "The result is stored as whole numbers.", after=result(np.trunc)),
    ),
    (*PLANES, _ROW_FORM),
    workings=lambda v, at: [f"max({short(float(v['x'][at]))}, 0)"],
)  # fmt: skip


def _masked(mask: Callable[[Values], Array]) -> Callable[[Values], Results]:
    return lambda values: {"dx": values["dout"] * mask(values)}


RELU_BACKWARD = Operation(
    "relu_backward",
    {"dout": GRADIENT, "x": INPUT},
    NO_SETTINGS,
    _nothing,
    frozenset(),
    ("dx",),
    _relu_backward_cases,
    _relu_backward,
    (
        Mistake("decided by the gradient's sign", "dout decides what passes: it is x, the input of the forward pass.",
                instead=_masked(lambda v: v["dout"] > 0)),
        Mistake("passes at zero", "The gradient passes where x is 0: it is 0 there (x > 0, not x >= 0).",
                instead=_masked(lambda v: v["x"] >= 0)),
        Mistake("not masked", "The gradient passes everywhere: only where x > 0.", instead=_masked(lambda v: np.ones(1))),
        Mistake("mask inverted", "The gradient passes where x <= 0: it passes where x > 0.",
                instead=_masked(lambda v: v["x"] <= 0)),
        Mistake("incoming gradient ignored", "The mask is returned: multiply it by dout.",
                instead=lambda v: {"dx": (v["x"] > 0) * 1.0}),
        Mistake("multiplied by the output", "dout is multiplied by relu(x): its slope is 1.",
                instead=_masked(lambda v: relu(v["x"]))),
        Mistake("multiplied by the input", "dout is multiplied by x: the slope is 1 or 0.",
                instead=_masked(lambda v: v["x"])),
        Mistake("wrong sign", "dx has the wrong sign.", after=only("dx", lambda dx, _v: -dx)),
    ),
    (*PLANES, _ROW_FORM),
    cache=("x",),
    workings=lambda v, at: [f"x = {short(float(v['x'][at]))}", f"dout = {short(float(v['dout'][at]))}",
                            "passed on" if v["x"][at] > 0 else "stopped: x is not above 0"],
)  # fmt: skip

# -------------------------------------------------------------------------------------------------------- linear


def _linear(values: Values) -> Results:
    return {"out": linear(values["x"], values["weight"], values.get("bias"))}


def _linear_cases(limits: Limits) -> list[Case]:
    rng = np.random.default_rng(6)
    first = {"x": np.array([[1.0, 2]]), "weight": np.array([[1.0, 2], [3, -1]]), "bias": np.array([1.0, -2])}
    out = [Case(first)]
    for n, inputs, units in ((1, 3, 2), (2, 3, 3), (3, 2, 4)):
        n = min(n, limits.images)
        out.append(Case({"x": whole(rng, n, inputs), "weight": whole(rng, units, inputs), "bias": whole(rng, units)}))
    real = rng.standard_normal
    return [*out, Case({"x": real((min(3, limits.images), 7)), "weight": real((4, 7)), "bias": real(4)})]


def _reshaped(weight: Array) -> Array:
    """The matrix that `x @ weight.reshape(inputs, units)` multiplies by, as (units, inputs)."""
    return weight.reshape(weight.shape[::-1]).T


_IN_OUT = {"weight": lambda a: np.ascontiguousarray(a.T)}
_COLUMNS = {"x": lambda a: np.ascontiguousarray(a.T), "bias": lambda a: a.reshape(-1, 1)}

LINEAR = Operation(
    "linear",
    {"x": INPUT, "weight": WEIGHT | {"theta"}, "bias": BIAS},
    NO_SETTINGS,
    _nothing,
    names("bias"),
    ("out",),
    _linear_cases,
    _linear,
    (
        Mistake("weight not transposed", "x @ weight reads the weights by columns: nn.Linear stores (outputs, inputs), so "
                "take x @ weight.T.", changed("weight", _reshaped)),
        Mistake("bias forgotten", "The bias is never added.", changed("bias", np.zeros_like)),
        Mistake("bias subtracted", "The bias is subtracted; it is added.", changed("bias", np.negative)),
        Mistake("bias added once per product", "The bias is added to every product: add it once.",
                lambda v: changed("bias", lambda b: b * v["weight"].shape[1])(v)),
        Mistake("first bias for all", "Every unit gets the first bias.", changed("bias", lambda b: np.full_like(b, b[0]))),
        Mistake("mean for sum", "The products are averaged: add them up.",
                changed("weight", lambda w: w / w.shape[1])),
        Mistake("last input left out", "The last product is missing.",
                changed("weight", lambda w: np.concatenate([w[:, :-1], 0 * w[:, -1:]], 1))),
        Mistake("only the last input", "Each product overwrites the one before (= where += is meant).",
                changed("weight", lambda w: np.concatenate([0 * w[:, :-1], w[:, -1:]], 1))),
        Mistake("negative results set to zero", "A ReLU is applied: a linear layer keeps negative sums.",
                after=result(lambda out: np.maximum(out, 0))),
        Mistake("cut to whole numbers", "The result is stored as whole numbers.", after=result(np.trunc)),
        Mistake("result transposed", "The result is (units, N); it should be (N, units).",
                after=result(lambda out: out.T)),
    ),
    (
        Form("x (N, inputs), weight (outputs, inputs)"),
        Form("x (N, inputs), weight (inputs, outputs)", _IN_OUT, never_named=names("weight"), layout="in-out"),
        Form("x (inputs,), weight (outputs, inputs)", {"x": lambda a: a[0]}, {"out": lambda a, _v: a[None]}, Limits(1), "vector"),
        Form("x (inputs, N), weight (outputs, inputs)", _COLUMNS, {"out": lambda a, _v: a.T}, layout="columns"),
    ),
    sums={"out": (("x", "weight"), ("bias",))},
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------- softmax


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
    NO_SETTINGS,
    _nothing,
    frozenset(),
    ("out",),
    _softmax_cases,
    _softmax,
    (
        Mistake("normalised over the whole batch", "The sum runs over all images: each row sums to 1 by itself. (A function of "
                "one row alone is checked with layout vector.)",
                instead=_shares(lambda x: softmax(x.ravel()).reshape(x.shape)),
                workings=lambda v, at: _exponentials(v, at, None)),
        Mistake("along the wrong axis", "The sum runs over the images (axis 0): it runs over the classes (axis 1).",
                instead=_shares(lambda x: softmax(x, 0)), workings=lambda v, at: _exponentials(v, at, 0)),
        Mistake("exponential overflows", "exp(x) is infinite from about 710 on (float32: 89), and 0 far below: subtract "
                "the row's maximum first; the shares stay the same.", instead=_shares(lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
                workings=lambda v, at: [f"exp({short(float(v['x'][at]))})", "÷ the sum of such numbers: inf ÷ inf or 0 ÷ 0"]),
        Mistake("not normalised", "The exponentials are returned: divide by their sum.", instead=_shares(np.exp)),
        Mistake("not normalised", "The exponentials are returned: divide by their sum.",
                instead=_shares(lambda x: np.exp(x - x.max(-1, keepdims=True)))),
        Mistake("without the exponential", "x is divided by its sum: take exp(x) first.",
                instead=_shares(lambda x: x / x.sum(-1, keepdims=True))),
        Mistake("sigmoid", "That is a sigmoid of each number.", instead=_shares(lambda x: 1 / (1 + np.exp(-x)))),
        Mistake("logarithm taken", "That is the logarithm of the softmax.", instead=_shares(lambda x: np.log(softmax(x)))),
        Mistake("applied twice", "The softmax of a softmax is returned.", instead=_shares(lambda x: softmax(softmax(x)))),
        Mistake("sign of the exponent", "exp(-x) is taken: the largest number must get the largest share.",
                instead=_shares(lambda x: softmax(-x))),
        Mistake("powers of two", "Powers of 2 are taken: softmax uses e.",
                instead=_shares(lambda x: softmax(x * np.log(2)))),
        Mistake("divided by the maximum", "The exponentials are divided by the largest: divide by their sum.",
                instead=_shares(lambda x: np.exp(x) / np.exp(x).max(-1, keepdims=True))),
        Mistake("cut to whole numbers", "The result is stored as whole numbers.", after=result(np.trunc)),
        Mistake("maximum not in the sum", "The maximum is subtracted above the line only.",
                instead=_shares(lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x).sum(-1, keepdims=True))),
    ),
    ROWS,
    workings=lambda v, at: _exponentials(v, at, 1),
)  # fmt: skip
