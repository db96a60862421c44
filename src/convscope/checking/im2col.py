"""Check of im2col: every window of an image as one column, so that a convolution becomes a matrix product."""

from collections.abc import Callable
from typing import Any

import numpy as np

from convscope.checking.mistakes import ONE_SIDE, PAD, borders, padded
from convscope.checking.operation import (
    Case,
    CaseLimits,
    CheckedOperation,
    Form,
    Mistake,
    Results,
    Values,
    pair,
    small_integers,
)
from convscope.checking.signature import INPUT, PADDING, SIZE, STRIDE
from convscope.typing import Array


def reference(values: Values) -> Results:
    """(N, C·R·S, P·Q): cell (channel, row, column) of the window down, windows row by row across."""
    return {"out": _windows(values).reshape(len(values["x"]), -1, _count(values))}


def _windows(values: Values, stride: int | None = None) -> Array:
    """The windows of an image, (N, C, R, S, P, Q)."""
    (top, left), (r, s), step = _borders(values), pair(values["kernel_size"]), stride or values["stride"]
    x = np.pad(values["x"], ((0, 0), (0, 0), top, left))
    rows, columns = _sizes(values)
    out = np.zeros((*x.shape[:2], r, s, rows, columns))
    for i, j in np.ndindex(rows, columns):
        out[..., i, j] = x[:, :, i * step : i * step + r, j * step : j * step + s]
    return out


def _borders(values: Values) -> tuple[tuple[int, int], tuple[int, int]]:
    p = values["padding"]
    if isinstance(p, list):
        return p[0], p[1]
    return (p, p), (p, p)


def _sizes(values: Values) -> tuple[int, int]:
    size, shape = pair(values["kernel_size"]), values["x"].shape[2:]
    rows, columns = (
        (n + sum(border) - k) // values["stride"] + 1
        for n, k, border in zip(shape, size, _borders(values), strict=True)
    )
    return rows, columns


def _count(values: Values) -> int:
    rows, columns = _sizes(values)
    return rows * columns


def cases(limits: CaseLimits) -> list[Case]:
    """Cases from four windows of one plane to a batch."""
    rng = np.random.default_rng(11)
    first = {"x": np.arange(1.0, 10).reshape(1, 1, 3, 3), "kernel_size": 2, "stride": 1, "padding": 0}
    shapes: list[tuple[tuple[int, ...], tuple[int, int, int]]] = [
        ((1, 1, 3, 4), (2, 1, 0)),
        ((1, 2, 3, 3), (2, 1, 0)),
        ((1, 1, 5, 4), (2, 2, 0)),
        ((1, 1, 3, 3), (3, 1, 1)),
        ((2, 1, 3, 3), (2, 1, 0)),
        ((2, 3, 6, 5), (3, 2, 1)),
    ]
    out = [Case(first)]
    for (n, c, h, w), (size, stride, padding) in shapes:
        x = small_integers(rng, min(n, limits.images), c if limits.channels > 1 else 1, h, w)
        out.append(Case({"x": x, "kernel_size": size, "stride": stride, "padding": padding}))
    real = rng.standard_normal((min(2, limits.images), 2 if limits.channels > 1 else 1, 5, 6))
    return [*out, Case({"x": real, "kernel_size": 3, "stride": 1, "padding": 0})]


def _reordered(*order: int) -> Callable[[Values], Results]:
    """The windows' axes (N, C, R, S, P, Q) in another order before they are flattened."""
    return lambda v: {"out": _windows(v).transpose(order).reshape(len(v["x"]), -1, _count(v))}


def _stride_lost(values: Values) -> Results:
    return {"out": _windows(values, 1).reshape(len(values["x"]), -1, _count(values))}


def _take(shape: Callable[[Values], tuple[int, ...]], *order: int) -> dict[str, Callable[[Array, Values], Array]]:
    """Convert from another convention: the names of its axes, and their order as (N, C·R·S, P·Q).

    A result whose axes do not part the cells of a window from the windows has mixed them, and stays as it is.
    """
    split = min(order[1] + 1, 2)  # of the three axes, how many come before the border between cells and windows

    def take(array: Array, values: Values) -> Array:
        sizes = shape(values)
        border = int(np.prod(sizes[:split]))
        parted = border in np.cumprod([1, *array.shape])
        return array.reshape(sizes).transpose(order) if parted and array.size == int(np.prod(sizes)) else array

    return {"out": take}


def _n(values: Values) -> int:
    return len(values["x"])


def _cells(values: Values) -> int:
    r, s = pair(values["kernel_size"])
    return int(values["x"].shape[1]) * r * s


NOT_MOVED = (
    "reshaped without moving the axes",
    "The cells of the windows and the windows are mixed: reshape keeps the order of the numbers, so bring the axes of "
    "the windows to one side first, by transpose.",
)


def mixed_rows(values: Values) -> Results:
    """The windows' axes (N, C, R, S, P, Q), reshaped to (N·P·Q, C·R·S)."""
    rows = _windows(values).reshape(_n(values), _count(values), _cells(values))
    return {"out": rows.transpose(0, 2, 1)}


def _mixed_columns(values: Values) -> Results:
    """The windows' axes (N, P, Q, C, R, S), reshaped to (C·R·S, N·P·Q)."""
    columns = _windows(values).transpose(0, 4, 5, 1, 2, 3).reshape(_cells(values), _n(values), _count(values))
    return {"out": columns.transpose(1, 0, 2)}


def _mixed_images(values: Values) -> Results:
    """The windows' axes (N, C, R, S, P, Q), reshaped to (C·R·S, N·P·Q): wrong for several images."""
    columns = _windows(values).reshape(_cells(values), _n(values), _count(values))
    return {"out": columns.transpose(1, 0, 2)}


def _form(name: str, shape: Callable[[Values], tuple[int, ...]], *order: int, **options: Any) -> Form:
    return Form(name, {}, _take(shape, *order), **options)


IM2COL = CheckedOperation(
    "im2col",
    {"x": INPUT},
    {"kernel_size": SIZE, "stride": STRIDE, "padding": PADDING},
    lambda _values: {"kernel_size": 2, "stride": 1, "padding": 0},
    frozenset(),
    ("out",),
    cases,
    reference,
    (
        Mistake(
            "channels last in each column",
            "The channel changes fastest in each column; kernels are stored channel "
            "by channel, so it must change slowest.",
            instead=_reordered(0, 2, 3, 1, 4, 5),
        ),
        *(Mistake(*NOT_MOVED, instead=mixed) for mixed in (mixed_rows, _mixed_columns, _mixed_images)),
        Mistake(
            "window rows and columns swapped",
            "Each window is read column by column: read it row by row.",
            instead=_reordered(0, 1, 3, 2, 4, 5),
        ),
        Mistake(
            "windows column by column",
            "The windows are taken column by column: take them row by row.",
            instead=_reordered(0, 1, 2, 3, 5, 4),
        ),
        Mistake(
            "stride ignored",
            "The windows start at every cell: multiply row and column by the stride.",
            instead=_stride_lost,
        ),
        Mistake("stride ignored", "The windows start at every cell.", lambda v: v | {"stride": 1}),
        Mistake(*PAD, lambda v: v | {"padding": 0}),
        *(Mistake(*ONE_SIDE, borders(*sides)) for sides in ((0, 2, 0, 2), (2, 0, 2, 0))),
        Mistake("padded with the edge", "The padding repeats the edge: it should be zero.", padded("edge")),
        Mistake(
            "window flipped",
            "Each window is read backwards.",
            instead=lambda v: {"out": _windows(v)[:, :, ::-1, ::-1].reshape(_n(v), -1, _count(v))},
        ),
        Mistake(
            "last windows missing",
            "The last windows are left out.",
            after=lambda r, v: {
                "out": r["out"].reshape(_n(v), -1, *_sizes(v))[..., :-1, :-1].reshape(_n(v), _cells(v), -1)
            },
        ),
        Mistake(
            "truncated to integers",
            "The result is stored as integers.",
            after=lambda r, _v: {"out": np.trunc(r["out"])},
        ),
    ),
    (
        _form("(N, C·R·S, P·Q), as PyTorch's unfold", lambda v: (_n(v), _cells(v), _count(v)), 0, 1, 2),
        _form("(N·P·Q, C·R·S)", lambda v: (_n(v), _count(v), _cells(v)), 0, 2, 1),
        _form("(C·R·S, N·P·Q)", lambda v: (_cells(v), _n(v), _count(v)), 1, 0, 2),
        _form("(C·R·S, P·Q·N), as in CS231n", lambda v: (_cells(v), _count(v), _n(v)), 2, 0, 1),
        Form("one image: (C·R·S, P·Q)", {"x": lambda a: a[0]}, {"out": lambda a, _v: a[None]}, CaseLimits(1)),
        Form("one image: (P·Q, C·R·S)", {"x": lambda a: a[0]}, {"out": lambda a, _v: a.T[None]}, CaseLimits(1)),
        Form("one plane: (R·S, P·Q)", {"x": lambda a: a[0, 0]}, {"out": lambda a, _v: a[None]}, CaseLimits(1, 1)),
        Form("one plane: (P·Q, R·S)", {"x": lambda a: a[0, 0]}, {"out": lambda a, _v: a.T[None]}, CaseLimits(1, 1)),
    ),
    sums={"out": (("x",),)},
)
