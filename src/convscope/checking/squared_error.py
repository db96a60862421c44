"""Check of the mean squared error and its gradient: its cases, and common mistakes."""

from collections.abc import Callable

import numpy as np

from convscope.checking.mistakes import multiplied
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
from convscope.reference import mse
from convscope.reference.functional import mse_backward
from convscope.render.numbers import short
from convscope.typing import Array


def _mse(values: Values) -> Results:
    x, target = values["x"], values["target"]
    return {"loss": np.array(mse(x, target)), "dx": mse_backward(x, target)}


def _mse_cases(_limits: CaseLimits) -> list[Case]:
    rng = np.random.default_rng(10)
    out = [Case({"x": np.array([[3.0], [1]]), "target": np.array([[1.0], [4]])})]
    out += [
        Case({"x": small_integers(rng, n, c), "target": small_integers(rng, n, c)}) for n, c in ((1, 3), (2, 3), (4, 2))
    ]
    return [*out, Case({"x": rng.standard_normal((5, 3)), "target": rng.standard_normal((5, 3))})]


def _error(loss_of: Callable[[Array], object]) -> Callable[[Values], Results]:
    return lambda v: {**_mse(v), "loss": np.asarray(loss_of(v["x"] - v["target"]))}


def _squares(values: Values, cell: tuple[int, ...]) -> list[str]:
    if cell:
        return ["2 · (x − target) ÷ the number of elements"]
    differences = [short(float(d)) for d in (values["x"] - values["target"]).ravel()]
    return [" + ".join(f"({d})²" for d in differences), f"÷ {len(differences)}"]


MSE = CheckedOperation(
    "mse",
    {
        "x": names("x y_pred y_hat yhat pred preds prediction predictions output outputs input a p"),
        "target": names("target targets y y_true t label labels expected b"),
    },
    {},
    lambda _values: {},
    frozenset(),
    ("loss", "dx"),
    _mse_cases,
    _mse,
    (
        Mistake(
            "halved",
            "The mean is halved, as in some textbooks: the mean squared error is the mean itself.",
            after=multiplied(lambda _v: 0.5, "loss", "dx"),
            workings=lambda v, cell: [*_squares(v, cell), "÷ 2"],
        ),
        Mistake(
            "halved",
            "The mean is halved.",
            after=multiplied(lambda _v: 0.5, "loss"),
            workings=lambda v, cell: [*_squares(v, cell), "÷ 2"],
        ),
        Mistake(
            "sum for mean",
            "The squares are summed: divide by the number of elements.",
            after=multiplied(lambda v: v["x"].size, "loss", "dx"),
            workings=lambda v, cell: _squares(v, cell)[:1],
        ),
        Mistake(
            "sum for mean",
            "The squares are summed: divide by the number of elements.",
            after=multiplied(lambda v: v["x"].size, "loss"),
            workings=lambda v, cell: _squares(v, cell)[:1],
        ),
        Mistake(
            "sum for mean, halved",
            "The squares are summed and halved: divide by the number of elements.",
            after=multiplied(lambda v: v["x"].size / 2, "loss"),
        ),
        Mistake(
            "mean over the batch alone",
            "The sum is divided by the number of images: divide by the number of elements.",
            after=multiplied(lambda v: v["x"].shape[1], "loss"),
        ),
        Mistake(
            "root taken",
            "That is the root of the mean squared error.",
            instead=_error(lambda d: np.sqrt((d**2).mean())),
        ),
        Mistake("absolute differences", "The differences are not squared.", instead=_error(lambda d: np.abs(d).mean())),
        Mistake("differences not squared", "The differences are added with their signs.", instead=_error(np.mean)),
        Mistake(
            "square of the mean",
            "The differences are averaged before they are squared.",
            instead=_error(lambda d: d.mean() ** 2),
        ),
        Mistake("wrong sign", "The loss is negative.", after=multiplied(lambda _v: -1, "loss")),
        Mistake(
            "gradient not doubled", "The slope of a square is 2 · (x - target).", after=multiplied(lambda _v: 0.5, "dx")
        ),
        Mistake(
            "gradient divided by the batch alone",
            "The gradient is divided by the number of images: divide by the number of elements, as in the loss.",
            after=multiplied(lambda v: v["x"].shape[1], "dx"),
        ),
        Mistake("wrong sign", "dx has the wrong sign.", after=multiplied(lambda _v: -1, "dx")),
    ),
    (
        Form("(N, outputs)"),
        Form(
            "(numbers,)",
            {n: (lambda a: a.ravel()) for n in ("x", "target")},
            {"dx": lambda a, v: a.reshape(v["x"].shape)},
        ),
    ),
    workings=_squares,
)
