"""Check of a convolution: its cases, and common mistakes."""

from collections.abc import Callable, Sequence

import numpy as np

from convscope.checking.convolution_bias import BIAS_MISTAKES
from convscope.checking.mistakes import (
    ABSOLUTE,
    FIRST_IMAGE,
    LAST,
    LAST_ROW,
    NORMALIZED,
    ONE_ROW,
    ONE_SIDE,
    PAD,
    POSITIVE_INPUT,
    ROW_ONLY,
    TOO_SMALL,
    TRANSPOSED,
    TRUNCATED,
    borders,
    changed,
    last_product,
    one_channel,
    padded,
    result,
    rounded_up,
    running,
    same_column,
    same_row,
    scaled,
    set_to,
    without_last,
    without_last_windows,
)
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
from convscope.checking.signature import BIAS, DILATION, INPUT, PADDING, STRIDE, WEIGHT
from convscope.reference import conv2d
from convscope.typing import Array

DEFAULTS: Values = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def reference(values: Values) -> Results:
    """The convolution."""
    settings: Values = {name: values.get(name, default) for name, default in DEFAULTS.items()}
    return {"out": conv2d(values["x"], values["weight"], values.get("bias"), **settings)}


def cases(limits: CaseLimits) -> list[Case]:
    """Cases from one plane of nine numbers to a batch; each setting alone, then combined."""
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    first = {"x": x, "weight": np.array([[[[1.0, 2], [0, -1]]]]), "bias": np.array([1.0]), **DEFAULTS}
    shapes: list[tuple[tuple[int, ...], Values]] = [
        ((1, 1, 3, 4, 1, 2, 2), {}),
        ((1, 2, 3, 3, 1, 2, 2), {}),
        ((1, 1, 3, 3, 2, 2, 2), {}),
        ((1, 1, 5, 4, 1, 2, 2), {"stride": 2}),
        ((1, 1, 3, 3, 1, 3, 3), {"padding": 1}),
        ((1, 1, 4, 5, 1, 2, 2), {"dilation": 2}),
        ((2, 1, 3, 3, 1, 2, 2), {}),
        ((1, 2, 4, 4, 2, 3, 3), {}),
        ((2, 3, 6, 5, 3, 3, 3), {"stride": 2, "padding": 1}),
        ((1, 1, 4, 4, 1, 2, 2), {"padding": 2, "stride": 3}),
        ((2, 2, 8, 7, 3, 3, 3), {"stride": 2, "padding": 2, "dilation": 2}),
        ((1, 4, 4, 4, 4, 2, 2), {"groups": 2}),
    ]
    rng = np.random.default_rng(0)
    out = [Case(first), *(Case(_arrays(rng, s, limits) | DEFAULTS | v) for s, v in shapes if _fits(v, limits))]
    real = [((2, 3, 7, 6, 2, 3, 3), {}), ((2, 2, 9, 8, 3, 3, 3), {"stride": 2, "padding": 1})]
    out += [Case(_arrays(rng, shape, limits, real=True) | DEFAULTS | values) for shape, values in real]
    if not limits.square:
        out.append(Case(_arrays(rng, (2, 2, 6, 5, 2, 2, 3), limits) | DEFAULTS, optional=True))
    return out


def _fits(values: Values, limits: CaseLimits) -> bool:
    return "groups" not in values or min(limits.channels, limits.kernels) > 1


def _arrays(rng: np.random.Generator, shape: tuple[int, ...], limits: CaseLimits, *, real: bool = False) -> Values:
    n, c, h, w, k, r, s = shape
    n, k = min(n, limits.images), k if limits.kernels > 1 else 1
    c = c if limits.channels > 1 else 1

    def draw(*size: int) -> Array:
        return rng.standard_normal(size) if real else small_integers(rng, *size)

    return {"x": draw(n, c, h, w), "weight": draw(k, c if c < 4 else 2, r, s), "bias": draw(k)}


def cropped(results: Results, values: Values) -> Results:
    """Crop to the size of the correct result, from the first window on."""
    rows, columns = reference(values)["out"].shape[2:]
    return {"out": results["out"][:, :, :rows, :columns]}


def axes(settings: str, row: bool) -> Callable[[Values], Values]:
    """Apply a setting to rows only or to columns only."""

    def before(values: Values) -> Values:
        value, none = values[settings], DEFAULTS[settings]
        return values | {settings: (value, none) if row else (none, value)}

    return before


def _before_image(values: Values) -> Values:
    """Zeros above and on the left, so that the first window holds only the image's first cell."""
    r, s = values["weight"].shape[2:]
    return values | {"x": np.pad(values["x"], ((0, 0), (0, 0), (r - 1, 0), (s - 1, 0)))}


def _flipped(values: Values) -> Values:
    return values | {"weight": values["weight"][:, :, ::-1, ::-1]}


def _largest_product(values: Values) -> Results:
    """The largest product of each window in place of their sum: without groups."""
    if values.get("groups", 1) != 1:
        return {"out": np.zeros(0)}
    out = reference(values)["out"]
    p, step, stride = values["padding"], values["dilation"], values["stride"]
    r, s = values["weight"].shape[2:]
    padded = np.pad(values["x"], ((0, 0), (0, 0), (p, p), (p, p)))
    for i, j in np.ndindex(*out.shape[2:]):
        rows = slice(i * stride, i * stride + step * (r - 1) + 1, step)
        columns = slice(j * stride, j * stride + step * (s - 1) + 1, step)
        products = padded[:, None, :, rows, columns] * values["weight"]  # (N, K, C, R, S)
        out[:, :, i, j] = products.max(axis=(2, 3, 4))
    bias = values.get("bias")
    return {"out": out if bias is None else out + bias.reshape(1, -1, 1, 1)}


def _matrix_product(values: Values) -> Results:
    """The window times the kernel as matrices, all cells added: for square kernels."""
    weight = values["weight"]
    if weight.shape[2] != weight.shape[3]:
        return {"out": np.zeros(0)}
    left = np.repeat(weight.sum(3)[:, :, None, :], weight.shape[2], 2)  # window[i, k] meets the sum of kernel row k
    return reference(values | {"weight": left})


def _swapped(weight: Array) -> Array:
    return weight.swapaxes(2, 3).reshape(weight.shape)


PLACES = "stride ignored", "The windows start at every cell: multiply the row and the column by the stride."
RUN_ON = "sum not reset", "The sum goes on from one cell to the next: set it to zero before each window."


MISTAKES: Sequence[Mistake] = (
    Mistake(
        "kernel flipped",
        "The kernel is read from its last cell to its first. A convolution layer does not flip it (cross-correlation).",
        changed("weight", lambda w: w[:, :, ::-1, ::-1]),
    ),
    *(
        Mistake("kernel flipped along one axis", "The kernel is mirrored along one axis; read it as it is.", change)
        for change in (changed("weight", lambda w: w[:, :, ::-1]), changed("weight", lambda w: w[..., ::-1]))
    ),
    Mistake(
        "kernel rows and columns swapped",
        "The kernel is transposed: kernel cell (row, column) belongs to window cell (row, column).",
        changed("weight", _swapped),
    ),
    Mistake(*PLACES, set_to(stride=1), cropped),
    Mistake(*PLACES, set_to(stride=1)),
    Mistake(*ROW_ONLY, axes("stride", True), cropped),
    Mistake(*ROW_ONLY, axes("stride", False), cropped),
    Mistake(*PAD, set_to(padding=0)),
    *(Mistake(*ONE_SIDE, borders(*sides)) for sides in ((0, 2, 0, 2), (2, 0, 2, 0), (0, 1, 0, 1), (1, 0, 1, 0))),
    *(
        Mistake("padding in one direction only", "Only rows or only columns are padded: pad both.", borders(*sides))
        for sides in ((1, 1, 0, 0), (0, 0, 1, 1))
    ),
    Mistake("padded with the edge", "The padding repeats the edge of the image; it should be zero.", padded("edge")),
    Mistake("padded with a mirror", "The padding mirrors the image; it should be zero.", padded("reflect")),
    Mistake("padded with a mirror", "The padding mirrors the image; it should be zero.", padded("symmetric")),
    Mistake("padded with ones", "The padding is one; it should be zero.", padded("constant", constant_values=1)),
    Mistake("padded by wrapping", "The padding wraps around the image; it should be zero.", padded("wrap")),
    *BIAS_MISTAKES,
    Mistake(
        "mean over the channels",
        "The channels are averaged: a convolution adds them up.",
        scaled(lambda v: 1 / v["weight"].shape[1]),
    ),
    Mistake(
        "mean over the channels",
        "The channels are averaged, bias included: a convolution adds them up, and the bias once.",
        scaled(lambda v: 1 / v["weight"].shape[1], bias=True),
    ),
    Mistake(
        "mean over the window",
        "The products are averaged: a convolution adds them up.",
        scaled(lambda v: 1 / v["weight"][0].size),
    ),
    Mistake(
        "mean over the window",
        "The products of each channel are averaged: a convolution adds them up.",
        scaled(lambda v: 1 / v["weight"][0, 0].size),
    ),
    NORMALIZED,
    Mistake(
        "channels added before the product",
        "The sum over the image's channels is multiplied by the kernel's: multiply channel by channel, then add.",
        lambda v: v | {"x": v["x"].sum(1, keepdims=True), "weight": v["weight"].sum(1, keepdims=True), "groups": 1},
    ),
    Mistake(
        "only the last channel",
        "Each channel overwrites the sum of the one before (= instead of +=): only the last one is left.",
        changed("weight", one_channel(-1)),
    ),
    Mistake(
        "only the first channel", "Only the first channel is read: add all of them.", changed("weight", one_channel(0))
    ),
    Mistake(
        "channels in reverse",
        "The channels of image and kernel are paired in reverse order.",
        changed("weight", lambda w: w[:, ::-1]),
    ),
    Mistake(
        "first kernel for all",
        "Every output channel uses the first kernel; channel k has weight[k].",
        changed("weight", lambda w: np.repeat(w[:1], len(w), 0)),
    ),
    Mistake(
        "last kernel for all",
        "Every output channel uses the last kernel; channel k has weight[k].",
        changed("weight", lambda w: np.repeat(w[-1:], len(w), 0)),
    ),
    Mistake(*LAST, after=result(lambda out: out[:, :, :-1, :-1])),
    TOO_SMALL,
    Mistake(
        "size rounded up",
        "A window that extends beyond the padded image is kept: round (H + 2·padding - R) / stride down.",
        rounded_up,
    ),
    Mistake(*LAST_ROW, after=result(lambda out: out[:, :, :-1])),
    Mistake(*LAST_ROW, after=result(lambda out: out[..., :-1])),
    Mistake(*LAST, after=result(without_last_windows)),
    Mistake(
        "window one cell too small",
        "The last row and column of each window are left out: a slice ends before its stop.",
        changed("weight", without_last),
    ),
    Mistake(
        "window one cell too late",
        "The windows start one cell too late: indices begin at 0.",
        changed("x", lambda x: np.pad(x[:, :, 1:, 1:], ((0, 0), (0, 0), (0, 1), (0, 1)))),
    ),
    *(
        Mistake(
            "windows begin outside the image",
            "The result is the beginning of a full convolution: the first window must be inside the image.",
            change,
            cropped,
        )
        for change in (_before_image, lambda v: _before_image(_flipped(v)))
    ),
    Mistake(
        "dilation ignored",
        "The cells of a window are neighbours: they should be `dilation` apart.",
        set_to(dilation=1),
        cropped,
    ),
    Mistake(
        "dilation ignored", "The cells of a window are neighbours: they should be `dilation` apart.", set_to(dilation=1)
    ),
    Mistake(
        "dilation one too large",
        "`dilation` is the distance between cells: 1 means neighbours.",
        lambda v: v | {"dilation": v["dilation"] + 1},
    ),
    Mistake(
        "only the last product",
        "Each product overwrites the one before (= instead of +=): only the last one is left.",
        changed("weight", last_product),
    ),
    Mistake(
        "largest product instead of the sum",
        "The largest product of each window is taken: add all of them.",
        instead=_largest_product,
    ),
    Mistake(
        "kernel not used",
        "The window is summed without the kernel: multiply by the kernel first.",
        changed("weight", np.ones_like),
    ),
    Mistake(
        "image and kernel added",
        "Window and kernel are added cell by cell: multiply them.",
        changed("weight", np.ones_like),
        lambda r, v: {"out": r["out"] + v["weight"].sum((1, 2, 3)).reshape(1, -1, 1, 1)},
    ),
    Mistake("products not added", "Only the bias is returned.", changed("weight", np.zeros_like)),
    *(
        Mistake(
            "windows do not move",
            "The window's position ignores the row or the column of the result: add it.",
            after=change,
        )
        for change in (result(same_row), result(same_column))
    ),
    ONE_ROW,
    Mistake(*RUN_ON, after=running()),
    Mistake(*RUN_ON, after=running(0)),
    Mistake(*RUN_ON, after=running(0, 1)),
    Mistake(*RUN_ON, after=running(0, 1, 2)),
    Mistake(
        "matrix product for products",
        "Window and kernel are multiplied as matrices (@ or dot): multiply cell by cell (*).",
        instead=_matrix_product,
    ),
    TRUNCATED,
    Mistake("rounded to integers", "The result is rounded; return it as it is.", after=result(np.rint)),
    Mistake(
        "negative results set to zero",
        "A ReLU is applied: a convolution keeps negative sums.",
        after=result(lambda out: np.maximum(out, 0)),
    ),
    ABSOLUTE,
    POSITIVE_INPUT,
    FIRST_IMAGE,
    TRANSPOSED,
    Mistake(
        "positions column by column",
        "The results are in column order: make the loop over rows the outer one, or swap the axes after reshape.",
        after=result(lambda out: out.swapaxes(2, 3).reshape(out.shape)),
    ),
    Mistake("image transposed", "Rows and columns of the image are swapped.", changed("x", lambda x: x.swapaxes(2, 3))),
    Mistake(
        "channels last in the result",
        "The result's channels come last; they come second: (N, K, P, Q).",
        after=result(lambda out: out.transpose(0, 2, 3, 1)),
    ),
    Mistake(
        "kernels before images in the result",
        "The result's first axis counts kernels; images come first.",
        after=result(lambda out: out.swapaxes(0, 1)),
    ),
)

CONV2D = CheckedOperation(
    "conv2d",
    {"x": INPUT, "weight": WEIGHT, "bias": BIAS},
    {"stride": STRIDE, "padding": PADDING, "dilation": DILATION, "groups": names("groups group")},
    lambda _values: DEFAULTS,
    names("bias"),
    ("out",),
    cases,
    reference,
    tuple(MISTAKES),
    CONVOLUTIONS,
    bundled=names("stride padding"),
    sums={"out": (("x", "weight"), ("bias",))},
)
