"""Check of a convolution's gradients dx, dw and db: its cases, and common mistakes."""

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np

from convscope.checking import convolution as forward
from convscope.checking.mistakes import OVERWRITE, STRIDE_LOST, changed, only, padded, set_to, times, wrong_sign
from convscope.checking.operation import (
    CONVOLUTIONS,
    Case,
    CaseLimits,
    CheckedOperation,
    Mistake,
    Results,
    Values,
    names,
    small_integers,
)
from convscope.checking.signature import BIAS, DILATION, GRADIENT, INPUT, PADDING, STRIDE, WEIGHT
from convscope.reference import conv2d_backward
from convscope.typing import Array


def reference(values: Values) -> Results:
    """The three gradients."""
    settings: Values = {name: values.get(name, default) for name, default in forward.DEFAULTS.items()}
    gradients = conv2d_backward(values["dout"], values["x"], values["weight"], **settings)
    return dict(zip(("dx", "dw", "db"), gradients, strict=True))


def cases(limits: CaseLimits) -> list[Case]:
    """The convolution's cases, with a gradient for each cell of its result."""
    rng = np.random.default_rng(1)
    out = []
    for case in forward.cases(limits):
        shape = forward.reference(case.values)["out"].shape
        real = not (case.values["x"] == np.rint(case.values["x"])).all()
        dout = rng.standard_normal(shape) if real else small_integers(rng, *shape, low=1, high=6)
        out.append(Case({"dout": dout, **case.values}, case.optional))
    return out


def _overwritten(values: Values, *, by_kernel: bool) -> Results:
    """dx with = where += is meant; the kernels are added up first, or overwrite each other too."""
    stride, p, step = values["stride"], values["padding"], values["dilation"]
    x, weight, dout = values["x"], values["weight"], values["dout"]
    padded = np.zeros((*x.shape[:2], x.shape[2] + 2 * p, x.shape[3] + 2 * p))
    r, s = weight.shape[2:]
    for i, j in np.ndindex(*dout.shape[2:]):
        rows = slice(i * stride, i * stride + step * (r - 1) + 1, step)
        columns = slice(j * stride, j * stride + step * (s - 1) + 1, step)
        share = np.einsum("nk,kcrs->nkcrs", dout[:, :, i, j], weight)
        padded[:, :, rows, columns] = share[:, -1] if by_kernel else share.sum(1)
    return {**reference(values), "dx": padded[:, :, p : p + x.shape[2], p : p + x.shape[3]]}


def _whole_padding(values: Values) -> Array:
    """dx of the padded image."""
    p = values["padding"]
    x = np.pad(values["x"], ((0, 0), (0, 0), (p, p), (p, p)))
    return reference(values | {"x": x, "padding": 0})["dx"]


def _cut(top: Callable[[int], int]) -> Callable[[Results, Values], Results]:
    def after(_results: Results, values: Values) -> Results:
        (h, w), first = values["x"].shape[2:], top(values["padding"])
        return {"dx": _whole_padding(values)[:, :, first : first + h, first : first + w]}

    return after


def _cut_off(_results: Results, values: Values) -> Results:
    inner = slice(values["padding"], -values["padding"])
    return {"dx": _whole_padding(values)[:, :, inner, inner]}


def _with_result(name: str, run: Callable[[Values], Results]) -> Callable[[Values], Results]:
    """One result of a variant."""
    return lambda values: {**reference(values), name: run(values)[name]}


def _with(name: str, change: Callable[[Values], Values]) -> Callable[[Values], Results]:
    return _with_result(name, lambda values: reference(change(values)))


def _last_alone(name: str, axis: int) -> Callable[[Values], Results]:
    """A sum over images (0), kernels (1), or windows in which each term overwrites the one before."""

    def last(values: Values) -> Values:
        dout = np.zeros_like(values["dout"])
        last_slice = tuple(slice(None) if i != axis else slice(-1, None) for i in range(4))
        dout[last_slice] = values["dout"][last_slice]
        return values | {"dout": dout}

    return _with(name, last)


def _spread_of_input(values: Values) -> Results:
    """dx with the input's windows in place of the kernel: without groups."""
    x, dout, stride, p, step = (values[name] for name in ("x", "dout", "stride", "padding", "dilation"))
    if values["groups"] != 1:
        return {"dx": np.zeros(0)}
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    out = np.zeros_like(padded)
    r, s = values["weight"].shape[2:]
    for i, j in np.ndindex(*dout.shape[2:]):
        rows = slice(i * stride, i * stride + step * (r - 1) + 1, step)
        columns = slice(j * stride, j * stride + step * (s - 1) + 1, step)
        out[:, :, rows, columns] += padded[:, :, rows, columns] * dout[:, :, i, j].sum(1)[:, None, None, None]
    return {"dx": out[:, :, p : p + x.shape[2], p : p + x.shape[3]]}


def _weight_times(_dw: Array, values: Values) -> Array:
    """dw with the kernel in place of the input's windows."""
    return np.asarray(values["weight"] * values["dout"].sum((0, 2, 3)).reshape(-1, 1, 1, 1))


def _last_window(values: Values) -> Values:
    dout = np.zeros_like(values["dout"])
    dout[:, :, -1, -1] = values["dout"][:, :, -1, -1]
    return values | {"dout": dout}


WRONG_SIDE = (
    "padding cut off at the wrong side",
    "dx is computed on the padded image and cut to [:H, :W]: crop the padding instead, [padding : padding + H].",
)
ALL_CUT = (
    "everything cut off without padding",
    "[padding:-padding] is empty where padding is 0: crop with [padding : padding + H].",
)
BATCH = (
    "divided by the batch size",
    "The gradient is averaged over the images: add them up; only the loss takes a mean.",
)
MEAN_BIAS = "mean for the bias gradient", "db is a mean over images and cells: it is the sum of dout for each kernel."
LOST = "sum overwritten", "Each term overwrites the one before (= instead of +=): only the last one is left."
ORDER = "gradients in another order", "The gradients are right and in another order: return dx, dw, db."
BIAS_AXES = (
    "bias gradient summed over the wrong axes",
    "db is the sum over images, rows and columns, for each kernel: axis=(0, 2, 3) of (N, K, P, Q).",
)
FLIP = (
    "kernel flipped",
    "The kernel is flipped. Where each output cell adds its gradient to its window, the kernel is used as it is; "
    "only a full convolution of dout needs it flipped.",
)


def _divided(*result_names: str) -> Callable[[Results, Values], Results]:
    return lambda results, values: {name: results[name] / len(values["x"]) for name in result_names}


def _ordered(*order: str) -> Callable[[Results, Values], Results]:
    """The gradients, each in the place of another."""
    return lambda results, _values: dict(zip(("dx", "dw", "db"), (results[name] for name in order), strict=True))


def _bias_over(*axes: int) -> Callable[[Results, Values], Results]:
    """dout summed over other axes than images, rows and columns."""
    return lambda _results, values: {"db": values["dout"].sum(axes)}


def _cells(values: Values) -> float:
    rows, columns = values["dout"].shape[2:]
    return float(rows * columns)


MISTAKES: Sequence[Mistake] = (
    Mistake(*OVERWRITE, instead=lambda v: _overwritten(v, by_kernel=False)),
    Mistake(*OVERWRITE, instead=lambda v: _overwritten(v, by_kernel=True)),
    Mistake(*WRONG_SIDE, after=_cut(lambda _p: 0)),
    Mistake(*WRONG_SIDE, after=_cut(lambda p: 2 * p)),
    Mistake(
        "padding not cut off",
        "dx has the size of the padded image: crop the padding.",
        after=lambda _r, v: {"dx": _whole_padding(v)},
    ),
    Mistake(*ALL_CUT, after=_cut_off),
    Mistake(*ALL_CUT, fails=lambda v: v["padding"] == 0),
    Mistake(*BATCH, after=_divided("dw", "db")),
    Mistake(*BATCH, after=_divided("dx", "dw", "db")),
    Mistake(*BATCH, after=_divided("dw")),
    Mistake(*BATCH, after=_divided("db")),
    Mistake(*BATCH, after=_divided("dx")),
    Mistake(
        "bias gradient summed over the kernels",
        "db is one sum of all of dout: each kernel's bias gets the sum of its own channel.",
        after=only("db", lambda db, v: np.full_like(db, v["dout"].sum())),
    ),
    *(
        Mistake(*BIAS_AXES, after=_bias_over(*axes))
        for axes in ((0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 1), (0, 2), (0, 3), (2, 3))
    ),
    *(
        Mistake(*ORDER, after=_ordered(*order))
        for order in permutations(("dx", "dw", "db"))
        if order != ("dx", "dw", "db")
    ),
    Mistake(*MEAN_BIAS, after=only("db", lambda db, v: db / _cells(v) / len(v["x"]))),
    Mistake(*MEAN_BIAS, after=only("db", lambda db, v: db / _cells(v))),
    Mistake(*FLIP, instead=_with("dx", changed("weight", lambda w: w[:, :, ::-1, ::-1]))),
    Mistake(*FLIP, after=only("dw", lambda dw, _v: dw[:, :, ::-1, ::-1])),
    Mistake(
        "kernel rows and columns swapped",
        "The kernel is transposed; use it as it is.",
        instead=_with("dx", changed("weight", lambda w: w.swapaxes(2, 3).reshape(w.shape))),
    ),
    Mistake(*STRIDE_LOST, set_to(stride=1)),
    Mistake("stride ignored in dx", STRIDE_LOST[1], instead=_with("dx", set_to(stride=1))),
    Mistake("stride ignored in dw", STRIDE_LOST[1], instead=_with("dw", set_to(stride=1))),
    Mistake("dilation ignored", "The cells of a window are `dilation` apart.", set_to(dilation=1)),
    *(
        Mistake(*LOST, instead=_last_alone(name, axis))
        for name in ("dw", "dx", "db")
        for axis in ((1,) if name == "dx" else (0,))
    ),
    *(Mistake(*LOST, instead=_with(name, _last_window)) for name in ("dw", "db")),
    Mistake(
        "input in place of the weight",
        "dx adds up the input's windows times dout: it is the kernel times dout.",
        instead=_with_result("dx", _spread_of_input),
    ),
    Mistake(
        "weight in place of the input",
        "dw adds up the kernel times dout: it is the input's windows times dout.",
        after=only("dw", _weight_times),
    ),
    Mistake(
        "first image for all",
        "Every image's gradient meets the windows of the first image: use its own.",
        instead=_with("dw", changed("x", lambda x: np.repeat(x[:1], len(x), 0))),
    ),
    Mistake(
        "sum over the images alone",
        "db is the sum over images, rows and columns.",
        after=lambda _r, v: {"db": v["dout"].sum(0)},
    ),
    Mistake(
        "padding with the edge in dw",
        "The padding is zero; the edge was repeated.",
        instead=_with("dw", padded("edge")),
    ),
    *(
        Mistake(
            f"{name} is zero",
            f"{name} is returned as initialized: nothing is added to it.",
            after=only(name, lambda g, _v: np.zeros_like(g)),
        )
        for name in ("dx", "dw", "db")
    ),
    *map(wrong_sign, ("dx", "dw", "db")),
    times("dx", "x"),
    times("dw", "weight"),
    times("db", "bias"),
    *(
        Mistake(
            "truncated to integers",
            "The result is stored as integers: make it a float array.",
            after=only(name, lambda g, _v: np.trunc(g)),
        )
        for name in ("dx", "dw", "db")
    ),
)

CONV2D_BACKWARD = CheckedOperation(
    "conv2d_backward",
    {"dout": GRADIENT, "x": INPUT, "weight": WEIGHT, "bias": BIAS},
    {"stride": STRIDE, "padding": PADDING, "dilation": DILATION, "groups": names("groups group")},
    lambda _values: forward.DEFAULTS,
    names("bias x weight"),
    ("dx", "dw", "db"),
    cases,
    reference,
    tuple(MISTAKES),
    CONVOLUTIONS,
    cache=("x", "weight", "bias", "settings"),
    bundled=names("stride padding"),
    sums={"dx": (("dout", "weight"),), "dw": (("dout", "x"),), "db": (("dout",),)},
)
