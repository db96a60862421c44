"""Check of batch norm in training: statistics of the batch, scale and shift."""

from collections.abc import Callable
from itertools import permutations

import numpy as np

from convscope.checking.mistakes import changed
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
from convscope.checking.signature import INPUT
from convscope.render.numbers import short
from convscope.typing import Array

EPS = 1e-5


def reference(values: Values) -> Results:
    """(x - mean) / sqrt(var + eps) · gamma + beta, mean and variance of each channel over images, rows, columns."""
    return normalised()(values)


def normalised(
    axes: tuple[int, ...] = (0, 2, 3),
    ddof: int = 0,
    spread: Callable[[Array, float], Array] = lambda var, eps: np.sqrt(var + eps),
    averaged: Callable[[Array, Array], Array] = lambda x, mean: (x - mean) ** 2,
    variance_axes: tuple[int, ...] = (),
) -> Callable[[Values], Results]:
    """Batch norm with other statistics."""

    def run(values: Values) -> Results:
        x = values["x"]
        eps = values.get("eps", EPS)
        with np.errstate(all="ignore"):
            mean = x.mean(axes, keepdims=True)
            spread_axes = variance_axes or axes
            total = averaged(x, x.mean(spread_axes, keepdims=True)).sum(spread_axes, keepdims=True)
            y = (x - mean) / spread(total / np.float64(x.size / total.size - ddof), eps)
        shape = (1, -1, 1, 1)
        return {"out": y * values["gamma"].reshape(shape) + values["beta"].reshape(shape)}

    return run


def _evaluated(values: Values) -> Results:
    """With running statistics that were never updated: mean 0, variance 1."""
    scale = values["gamma"] / np.sqrt(1 + values["eps"])
    return {"out": values["x"] * scale.reshape(1, -1, 1, 1) + values["beta"].reshape(1, -1, 1, 1)}


def cases(limits: CaseLimits) -> list[Case]:
    """One channel of four numbers, then more; eps is large in one of them, so that it counts."""
    rng = np.random.default_rng(8)
    first = {"x": np.array([1.0, 3, 5, 7]).reshape(4, 1, 1, 1), "gamma": np.array([2.0]), "beta": np.array([1.0])}
    out = [Case(first | {"eps": EPS})]
    if not limits.square:
        out.append(Case(first | {"x": np.array([[0.0, 2], [4, 10]]).reshape(2, 1, 1, 2), "eps": EPS}))
    for shape, eps in (
        ((3, 2, 1, 1), EPS),
        ((2, 2, 2, 3), EPS),
        ((4, 3, 1, 1), 0.5),
        ((3, 3, 4, 4), 0.5),
        ((5, 4, 3, 2), EPS),
    ):
        n, c, h, w = shape
        h, w = (h, w) if limits.square is False else (1, 1)
        if limits.square and (h, w) != (shape[2], shape[3]):
            n *= shape[2]
        real = small_integers(rng, n, c, h, w) + rng.standard_normal((n, c, h, w)) / 4
        out.append(
            Case({"x": real, "gamma": small_integers(rng, c, low=1), "beta": small_integers(rng, c), "eps": eps})
        )
    return out


def _line(values: Values, cell: tuple[int, ...], axes: tuple[int, ...], ddof: int = 0) -> list[str]:
    x, c = values["x"], cell[1]
    part = x[tuple(slice(None) if axis in axes else cell[axis] for axis in range(4))]
    mean, var = float(part.mean()), float(part.var(ddof=ddof)) if part.size > ddof else float("nan")
    sizes = " · ".join(("images", "channels", "rows", "columns")[axis] for axis in axes)
    return [
        f"mean of {part.size} numbers ({sizes}) = {short(mean)}",
        f"variance, divided by {part.size - ddof} = {short(var)}",
        f"({short(float(x[cell]))} − {_bracket(mean)}) ÷ √({short(var)} + {short(values['eps'])})",
        f"× {_bracket(float(values['gamma'][c]))} + {_bracket(float(values['beta'][c]))}",
    ]


def _bracket(number: float) -> str:
    return f"({short(number)})" if number < 0 else short(number)


def _statistics(cause: str, sentence: str, axes: tuple[int, ...], ddof: int = 0) -> Mistake:
    return Mistake(cause, sentence, instead=normalised(axes, ddof), workings=lambda v, cell: _line(v, cell, axes, ddof))


def _eps(eps: float) -> Callable[[Values], Values]:
    return lambda values: values | {"eps": eps}


_FLAT = {"x": lambda a: a[:, :, 0, 0]}

BATCH_NORM = CheckedOperation(
    "batch_norm",
    {"x": INPUT, "gamma": names("gamma weight scale g w"), "beta": names("beta bias shift b")},
    {"eps": names("eps epsilon e")},
    lambda _values: {"eps": EPS},
    names("gamma beta"),
    ("out",),
    cases,
    reference,
    (
        _statistics(
            "variance divided by n - 1",
            "The sample variance (ddof=1) is used: normalization divides by n; only the running variance uses n - 1.",
            (0, 2, 3),
            1,
        ),
        _statistics(
            "statistics for each pixel",
            "Mean and variance are taken over the images only (axis 0): for maps, "
            "take them over images, rows and columns of each channel.",
            (0,),
        ),
        _statistics(
            "statistics for each image",
            "Mean and variance are taken for each image and channel (instance norm): take them over all images.",
            (2, 3),
        ),
        _statistics(
            "statistics over the channels",
            "Mean and variance are taken over the features of one image (layer norm).",
            (1, 2, 3),
        ),
        _statistics(
            "statistics over the channels", "Mean and variance are taken over the channels of one pixel.", (1,)
        ),
        _statistics(
            "statistics over everything",
            "All channels share one mean and one variance: each channel has its own.",
            (0, 1, 2, 3),
        ),
        *(
            Mistake(
                "mean and variance over different axes",
                "Mean and variance are taken over different axes: take both over images, rows and columns.",
                instead=normalised(mean, variance_axes=variance),
            )
            for mean, variance in permutations(((0, 2, 3), (0,), (2, 3), (1, 2, 3), (0, 1, 2, 3)), 2)
            if (0, 2, 3) in (mean, variance)
        ),
        Mistake(
            "running statistics in training",
            "Mean and variance are the running ones, as in evaluation: in training, take those of the batch.",
            instead=_evaluated,
        ),
        Mistake(
            "sum of the squares for the variance",
            "The squared deviations are summed, but not divided by their number.",
            instead=normalised(averaged=lambda x, mean: (x - mean) ** 2 * (x.size / mean.size)),
        ),
        Mistake(
            "eps outside the root",
            "eps is added to the standard deviation: add it to the variance.",
            instead=normalised(spread=lambda var, eps: np.sqrt(var) + eps),
        ),
        Mistake(
            "divided by the variance",
            "The square root is missing: divide by the standard deviation.",
            instead=normalised(spread=lambda var, eps: var + eps),
        ),
        Mistake(
            "not divided by the spread",
            "Only the mean is subtracted.",
            instead=normalised(spread=lambda var, _eps: np.ones_like(var)),
        ),
        Mistake(
            "mean not subtracted",
            "The mean is not subtracted.",
            instead=lambda v: {
                "out": reference(v)["out"]
                + (
                    v["gamma"].reshape(1, -1, 1, 1)
                    * v["x"].mean((0, 2, 3), keepdims=True)
                    / np.sqrt(v["x"].var((0, 2, 3), keepdims=True) + v["eps"])
                )
            },
        ),
        Mistake(
            "mean of the squares for the variance",
            "The mean is not subtracted before squaring: the variance is the mean of (x - mean)².",
            instead=normalised(averaged=lambda x, _mean: x**2),
        ),
        Mistake(
            "mean deviation for the standard deviation",
            "The mean of |x - mean| is used: take the square root of the mean of (x - mean)².",
            instead=normalised(
                averaged=lambda x, mean: np.abs(x - mean), spread=lambda deviation, eps: deviation + eps
            ),
        ),
        Mistake(
            "shift scaled too",
            "gamma multiplies beta too: calculate gamma · x + beta.",
            lambda v: v | {"beta": v["gamma"] * v["beta"]},
        ),
        Mistake("eps forgotten", "eps is not used.", _eps(0.0)),
        *(
            Mistake("eps not the argument", f"eps is always {eps:g}: use the argument.", _eps(eps))
            for eps in (1e-5, 1e-8, 1e-3)
        ),
        Mistake(
            "scale and shift forgotten",
            "gamma and beta are not used.",
            lambda v: v | {"gamma": np.ones_like(v["gamma"]), "beta": np.zeros_like(v["beta"])},
        ),
        Mistake("scale forgotten", "gamma is not used.", changed("gamma", np.ones_like)),
        Mistake("shift forgotten", "beta is not used.", changed("beta", np.zeros_like)),
        Mistake(
            "scale and shift swapped",
            "gamma shifts and beta scales: calculate gamma · x + beta.",
            lambda v: v | {"gamma": v["beta"], "beta": v["gamma"]},
        ),
    ),
    (
        *(form for form in PLANES if form.limits == CaseLimits()),
        Form("(N, features)", _FLAT, {"out": lambda a, _v: a[:, :, None, None]}, CaseLimits(square=True)),
    ),
    bundled=names("eps"),
    constants={
        "mode": "train",
        "training": True,
        "train": True,
        "momentum": 0.9,
        "running_mean": "zeros",
        "running_var": "ones",
        "moving_mean": "zeros",
        "moving_var": "ones",
    },
    workings=lambda v, cell: _line(v, cell, (0, 2, 3)),
)
