"""Check of maximum and average pooling."""

from collections.abc import Callable, Iterator

import numpy as np

from convscope.checking.mistakes import (
    FIRST_IMAGE,
    LAST,
    LAST_ROW,
    ONE_ROW,
    ROUNDED_DOWN,
    ROW_ONLY,
    STRIDE_LOST,
    TOO_SMALL,
    TRANSPOSED,
    TRUNCATED,
    result,
    set_to,
    without_last_windows,
)
from convscope.checking.operation import (
    PLANES,
    Case,
    CaseLimits,
    CheckedOperation,
    Mistake,
    Results,
    Values,
    names,
    small_integers,
)
from convscope.checking.signature import INPUT, PADDING, SIZE, STRIDE
from convscope.reference import avg_pool2d, max_pool2d
from convscope.typing import Array


def defaults(values: Values) -> Values:
    """Windows of 2 x 2, next to each other."""
    return {"kernel_size": 2, "stride": values["kernel_size"], "padding": 0}


def maximum(values: Values) -> Results:
    """The largest cell of each window."""
    return {"out": max_pool2d(values["x"], values["kernel_size"], values["stride"], values["padding"])}


def average(values: Values) -> Results:
    """The mean of each window."""
    return {"out": avg_pool2d(values["x"], values["kernel_size"], values["stride"], values["padding"])}


def cases(limits: CaseLimits) -> list[Case]:
    """Cases from two windows to a batch; then overlapping windows, windows with gaps, padding and negative values."""
    first = {"x": np.array([[[[1.0, 5, 2, 0], [3, 4, 8, 6]]]]), "kernel_size": 2, "stride": 2, "padding": 0}
    shapes: list[tuple[tuple[int, ...], tuple[int, int, int]]] = [
        ((1, 1, 4, 4), (2, 2, 0)),
        ((1, 2, 2, 4), (2, 2, 0)),
        ((1, 1, 3, 4), (2, 1, 0)),
        ((1, 1, 5, 5), (3, 2, 0)),
        ((1, 1, 5, 4), (2, 2, 0)),
        ((2, 1, 4, 6), (2, 2, 0)),
        ((1, 1, 5, 7), (2, 3, 0)),
        ((1, 1, 3, 3), (3, 1, 1)),
        ((2, 3, 6, 5), (3, 2, 1)),
        ((1, 1, 6, 6), (3, 3, 0)),
    ]
    rng = np.random.default_rng(2)
    out = [Case(first)]
    for (n, c, h, w), (size, stride, padding) in shapes:
        shape = (min(n, limits.images), c if limits.channels > 1 else 1, h, w)
        low = -9 if padding else -4
        x = small_integers(rng, *shape, low=low, high=0 if padding else 10)
        out.append(Case({"x": x, "kernel_size": size, "stride": stride, "padding": padding}))
    shape = (min(2, limits.images), 3 if limits.channels > 1 else 1, 7, 8)
    for size, stride in ((2, 2), (3, 2)):
        x = rng.standard_normal(shape)
        out.append(Case({"x": x, "kernel_size": size, "stride": stride, "padding": 0}))
    return out


def maximum_cases(limits: CaseLimits) -> list[Case]:
    """The cases with a small window of negative numbers near the start."""
    first, *others = cases(limits)
    below_zero = {"x": np.array([[[[-3.0, -1], [-2, -4]]]]), "kernel_size": 2, "stride": 2, "padding": 0}
    return [first, Case(below_zero), *others]


def windows(values: Values, x: Array | None = None, *, size: int | None = None) -> Iterator[tuple[int, int, Array]]:
    """Row, column and window of the padded input, cut off where the input ends."""
    x = values["x"] if x is None else x
    p, size = values["padding"], size or values["kernel_size"]
    rows, columns = maximum(values)["out"].shape[2:]
    for i, j in np.ndindex(rows, columns):
        top, left = i * values["stride"] - p, j * values["stride"] - p
        yield i, j, x[:, :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)]


def each_window(
    reduce_window: Callable[[Array], Array], *, size: int = 0, zeros: bool = False
) -> Callable[[Values], Results]:
    """Another function of each window; with `zeros` the padding takes part."""

    def instead(values: Values) -> Results:
        p, x = values["padding"], values["x"]
        if zeros:
            values = values | {"x": np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))), "padding": 0}
        out = maximum(values)["out"].copy()
        for i, j, window in windows(values, size=values["kernel_size"] + size):
            out[:, :, i, j] = reduce_window(window)
        return {"out": out}

    return instead


def _over(function: Callable[..., Array]) -> Callable[[Array], Array]:
    return lambda window: function(window, axis=(2, 3))


def _cropped(run: Callable[[Values], Results]) -> Callable[[Values], Results]:
    def instead(values: Values) -> Results:
        rows, columns = maximum(values)["out"].shape[2:]
        return {"out": run(values | {"stride": 1})["out"][:, :, :rows, :columns]}

    return instead


def _farthest(window: Array) -> Array:
    flat = window.reshape(*window.shape[:2], -1)
    return np.take_along_axis(flat, np.abs(flat).argmax(-1)[..., None], -1)[..., 0]


def _over_channels(values: Values) -> Results:
    best = values["x"].max(1, keepdims=True)
    return {"out": maximum(values | {"x": np.repeat(best, values["x"].shape[1], 1)})["out"]}


def _last_short(values: Values, reduce_window: Callable[..., Array]) -> Results:
    """Ceil mode: a last window that is cut off by the end of the input is kept."""
    x, size, step, p = values["x"], values["kernel_size"], values["stride"], values["padding"]
    rows, columns = (-(-(n + 2 * p - size) // step) + 1 for n in x.shape[2:])
    out = np.zeros((*x.shape[:2], rows, columns))
    for i, j in np.ndindex(rows, columns):
        top, left = i * step - p, j * step - p
        out[:, :, i, j] = reduce_window(x[:, :, max(top, 0) : top + size, max(left, 0) : left + size], axis=(2, 3))
    return {"out": out}


def _one_way(run: Callable[[Values], Results], *, row: bool) -> Callable[[Values], Results]:
    """Rows only or columns only are multiplied by the stride."""

    def instead(values: Values) -> Results:
        out, unit_stride = run(values)["out"], run(values | {"stride": 1})["out"]
        positions = tuple(
            np.arange(n) * (values["stride"] if (axis == 0) == row else 1) for axis, n in enumerate(out.shape[2:])
        )
        return {"out": unit_stride[:, :, positions[0][:, None], positions[1]]}

    return instead


def _stride_mistakes(run: Callable[[Values], Results]) -> tuple[Mistake, ...]:
    """Windows that start at the wrong cells."""
    return (
        Mistake(*STRIDE_LOST, instead=_cropped(run)),
        Mistake(*STRIDE_LOST, set_to(stride=1)),
        Mistake(
            "stride always the window's size",
            "The windows never overlap: move them by `stride`.",
            lambda v: v | {"stride": v["kernel_size"]},
        ),
        Mistake(*ROW_ONLY, instead=_one_way(run, row=True)),
        Mistake(*ROW_ONLY, instead=_one_way(run, row=False)),
    )


def _window_mistakes(reduce_window: Callable[..., Array]) -> tuple[Mistake, ...]:
    """Windows of the wrong size."""
    return (
        Mistake(
            "last short window kept",
            "A window that reaches beyond the input is kept: only whole windows count.",
            instead=lambda v: _last_short(v, reduce_window),
        ),
        Mistake(
            "window one cell too small",
            "The last row and column of each window are left out: a slice ends before its stop.",
            instead=each_window(_over(reduce_window), size=-1),
        ),
        Mistake(
            "window one cell too large",
            "Each window has a row and a column too many.",
            instead=each_window(_over(reduce_window), size=1),
        ),
    )


def _shared(run: Callable[[Values], Results], reduce_window: Callable[..., Array]) -> tuple[Mistake, ...]:
    """Mistakes of both poolings."""
    return (
        *_stride_mistakes(run),
        TOO_SMALL,
        Mistake(*LAST, after=result(lambda out: out[:, :, :-1, :-1])),
        Mistake(*LAST_ROW, after=result(lambda out: out[:, :, :-1])),
        Mistake(*LAST_ROW, after=result(lambda out: out[..., :-1])),
        Mistake(*LAST, after=result(without_last_windows)),
        Mistake("padding missing", "The image is used without its padding.", set_to(padding=0)),
        *_window_mistakes(reduce_window),
        TRANSPOSED,
        ONE_ROW,
        TRUNCATED,
        ROUNDED_DOWN,
        FIRST_IMAGE,
        Mistake(
            "first channel for all",
            "Every channel gets the result of the first.",
            after=result(lambda out: np.repeat(out[:, :1], out.shape[1], 1)),
        ),
    )


MAX_MISTAKES = (
    Mistake(
        "padding competes as zeros",
        "The padding counts as zero and beats negative numbers: pad with -inf.",
        instead=each_window(_over(np.max), zeros=True),
    ),
    Mistake(
        "maximum starts at zero",
        "The largest value starts at 0, which beats negative numbers: start at -inf.",
        after=result(lambda out: np.maximum(out, 0)),
    ),
    Mistake(
        "position instead of value",
        "The position of the largest cell in its window is returned (argmax): return the cell itself (max).",
        instead=each_window(lambda window: window.reshape(*window.shape[:2], -1).argmax(-1)),
    ),
    *(
        Mistake(
            "maximum along one axis only",
            "The maximum is taken along one axis of the window and the mean along the other: take it over both.",
            instead=each_window(change),
        )
        for change in (lambda window: window.max(axis=2).mean(axis=2), lambda window: window.max(axis=3).mean(axis=2))
    ),
    Mistake(
        "second largest for maximum",
        "The second largest cell is taken: take the largest (the last of a sorted window).",
        instead=each_window(lambda window: np.sort(window.reshape(*window.shape[:2], -1))[..., -2]),
    ),
    Mistake("mean for maximum", "The window is averaged: take its largest cell.", instead=average),
    Mistake("minimum for maximum", "The smallest cell is taken: take the largest.", instead=each_window(_over(np.min))),
    Mistake("sum for maximum", "The window is summed: take its largest cell.", instead=each_window(_over(np.sum))),
    Mistake(
        "largest magnitude instead of largest value",
        "The sign is ignored: -3 is smaller than 1.",
        instead=each_window(lambda window: np.abs(window).max(axis=(2, 3))),
    ),
    Mistake(
        "largest magnitude instead of largest value",
        "The cell that is farthest from zero is taken: -3 is smaller than 1.",
        instead=each_window(_farthest),
    ),
    Mistake(
        "maximum over all channels",
        "The maximum is taken over all channels: pool each channel separately.",
        instead=_over_channels,
    ),
    *_shared(maximum, np.max),
)

AVG_MISTAKES = (
    Mistake(
        "sum for mean",
        "The window is summed, but not divided by its number of cells.",
        after=lambda r, v: {"out": r["out"] * v["kernel_size"] ** 2},
    ),
    Mistake(
        "divided by the width of the window",
        "The sum is divided by the width: divide by rows times columns.",
        after=lambda r, v: {"out": r["out"] * v["kernel_size"]},
    ),
    Mistake(
        "divided by the square of the stride",
        "The sum is divided by stride times stride: divide by the number of cells in the window.",
        after=lambda r, v: {"out": r["out"] * (v["kernel_size"] / v["stride"]) ** 2},
    ),
    Mistake(
        "padding not counted",
        "The sum is divided by the number of cells inside the image: the padding counts too "
        "(count_include_pad=True, PyTorch's default).",
        instead=each_window(_over(np.mean)),
    ),
    Mistake(
        "zeros not counted",
        "The sum is divided by the number of cells that are not zero: divide by the number of cells in the window.",
        instead=each_window(lambda window: window.sum((2, 3)) / np.maximum((window != 0).sum((2, 3)), 1), zeros=True),
    ),
    Mistake("maximum for mean", "The largest cell is taken: take the mean.", instead=maximum),
    Mistake("median for mean", "The median is taken: take the mean.", instead=each_window(_over(np.median))),
    Mistake(
        "mean over all channels",
        "The mean is taken over the channels too: pool each channel separately.",
        after=result(lambda out: np.repeat(out.mean(1, keepdims=True), out.shape[1], 1)),
    ),
    *_shared(average, np.mean),
)


def _pooling(name: str, run: Callable[[Values], Results], mistakes: tuple[Mistake, ...], mode: str) -> CheckedOperation:
    return CheckedOperation(
        name,
        {"x": INPUT},
        {"kernel_size": SIZE, "stride": STRIDE, "padding": PADDING},
        defaults,
        frozenset(),
        ("out",),
        maximum_cases if mode == "max" else cases,
        run,
        mistakes,
        PLANES,
        bundled=names("kernel_size stride"),
        constants={"mode": mode},
        sums={"out": (("x",),)} if mode == "average" else {},
        picks=mode == "max",
    )


MAX_POOL2D = _pooling("max_pool2d", maximum, MAX_MISTAKES, "max")
AVG_POOL2D = _pooling("avg_pool2d", average, AVG_MISTAKES, "average")
