"""Check of the gradients of maximum and average pooling."""

from collections.abc import Callable, Iterator

import numpy as np

from convscope.checking import pooling as forward
from convscope.checking.mistakes import OVERWRITE, STRIDE_LOST, only, wrong_sign
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
from convscope.checking.signature import GRADIENT, INPUT, PADDING, SIZE, STRIDE
from convscope.reference import avg_pool2d_backward, max_pool2d_backward
from convscope.typing import Array

Share = Callable[[Array], Array]
"""Maps a window to the fraction of the gradient that each cell gets, both (N, C, R, S)."""


def maximum(values: Values) -> Results:
    """The gradient goes to the maximum of each window."""
    return {"dx": max_pool2d_backward(*_arguments(values))}


def average(values: Values) -> Results:
    """The gradient is distributed evenly over each window."""
    return {"dx": avg_pool2d_backward(*_arguments(values))}


def _arguments(values: Values) -> tuple[Array, Array, tuple[int, int], int, int]:
    size = values["kernel_size"]
    return values["dout"], values["x"], (size, size), values["stride"], values["padding"]


def cases(limits: CaseLimits) -> list[Case]:
    """The pooling's cases with a gradient for each window; then equal cells in one window."""
    rng = np.random.default_rng(3)
    out = []
    for case in forward.cases(limits):
        x, shape = case.values["x"], forward.maximum(case.values)["out"].shape
        if (x == np.rint(x)).all():  # no ties before the case that is about them
            x = (rng.permutation(x.size) - x.size // 2).reshape(x.shape).astype(np.float64)
            dout = small_integers(rng, *shape, low=1, high=8)
        else:
            dout = rng.standard_normal(shape)
        out.append(Case({"dout": dout, **case.values, "x": x}))
    ties = {"kernel_size": 2, "stride": 2, "padding": 0}
    out.append(Case({"dout": np.array([[[[6.0]]]]), "x": np.array([[[[2.0, 7], [7, 1]]]]), **ties}))
    out.append(Case({"dout": np.array([[[[6.0, 4]]]]), "x": np.array([[[[0.0, 0, 3, 3], [0, 0, 3, 1]]]]), **ties}))
    return out


def _windows(values: Values, share: Share, *, add: bool = True, stride: int | None = None) -> Results:
    """dx from the share of each cell of each window; with `add` False, windows overwrite each other."""
    x, p, size = values["x"], values["padding"], values["kernel_size"]
    step = stride or values["stride"]
    wide = ((0, 0), (0, 0), (p, p), (p, p))
    padded, out = np.pad(x, wide, constant_values=-np.inf), np.zeros_like(np.pad(x, wide))
    for i, j in np.ndindex(*values["dout"].shape[2:]):
        rows, columns = slice(i * step, i * step + size), slice(j * step, j * step + size)
        gradient = share(padded[:, :, rows, columns]) * values["dout"][:, :, i, j][:, :, None, None]
        out[:, :, rows, columns] = gradient + (out[:, :, rows, columns] if add else 0)
    return {"dx": out[:, :, p : p + x.shape[2], p : p + x.shape[3]]}


def _winners(window: Array) -> Array:
    return np.asarray(window == window.max(axis=(2, 3), keepdims=True), np.float64)


def _one_hot(window: Array, *, last: bool = False) -> Array:
    flat = window.reshape(*window.shape[:2], -1)
    best = flat.shape[-1] - 1 - flat[..., ::-1].argmax(-1) if last else flat.argmax(-1)
    return np.asarray(np.eye(flat.shape[-1])[best].reshape(window.shape))


def _even(window: Array) -> Array:
    winners = _winners(window)
    return np.asarray(winners / winners.sum(axis=(2, 3), keepdims=True))


def _mean(window: Array) -> Array:
    return np.full(window.shape, 1 / (window.shape[2] * window.shape[3]))


def _winner_overwritten(values: Values) -> Results:
    """Assign only the cell of the maximum; the others keep their values."""
    out = np.zeros_like(values["x"])
    for n, c, i, j, row, column in _winning_cells(values):
        out[n, c, row, column] = values["dout"][n, c, i, j]
    return {"dx": out}


Place = Callable[[tuple[int, int], tuple[int, int], int], tuple[int, int]]
"""(i, j) of the window, row and column of its maximum inside it, stride -> where the gradient is put."""


def _misplaced(place: Place) -> Callable[[Values], Results]:
    """The gradient goes to another cell of the padded input than the maximum; what is outside is lost."""

    def instead(values: Values) -> Results:
        x, p, step, size = values["x"], values["padding"], values["stride"], values["kernel_size"]
        wide = ((0, 0), (0, 0), (p, p), (p, p))
        padded, out = np.pad(x, wide, constant_values=-np.inf), np.zeros_like(np.pad(x, wide))
        for n, c, i, j in np.ndindex(*values["dout"].shape):
            window = padded[n, c, i * step : i * step + size, j * step : j * step + size]
            row, column = divmod(int(window.argmax()), size)
            cell = place((i, j), (row, column), step)
            if all(index < count for index, count in zip(cell, out.shape[2:], strict=True)):
                out[n, c, cell[0], cell[1]] += values["dout"][n, c, i, j]
        return {"dx": out[:, :, p : p + x.shape[2], p : p + x.shape[3]]}

    return instead


def _winning_cells(values: Values) -> Iterator[tuple[int, ...]]:
    for i, j, window in forward.windows(values):
        top = max(i * values["stride"] - values["padding"], 0)
        left = max(j * values["stride"] - values["padding"], 0)
        for n, c in np.ndindex(*window.shape[:2]):
            row, column = np.unravel_index(window[n, c].argmax(), window.shape[2:])
            yield n, c, i, j, top + int(row), left + int(column)


COMMON = (
    Mistake(
        "dx is zero",
        "dx is returned as initialized: nothing is added to it.",
        after=only("dx", lambda dx, _v: np.zeros_like(dx)),
    ),
    wrong_sign("dx"),
    Mistake(
        "divided by the batch size",
        "The gradient is averaged over the images; only the loss takes a mean.",
        after=only("dx", lambda dx, _v: dx / len(dx)),
    ),
    Mistake(
        "truncated to integers",
        "dx is stored as integers: make it a float array.",
        after=only("dx", lambda dx, _v: np.trunc(dx)),
    ),
)

MAX_MISTAKES = (
    Mistake(
        "every tie gets the gradient",
        "All cells equal to the maximum get the whole gradient: each window passes it once, to the first of them. "
        "(The mask `window == window.max()` does so; behind a ReLU, windows of zeros are common.)",
        instead=lambda v: _windows(v, _winners),
        except_on="windows with several equal maxima",
    ),
    Mistake(
        "given to the smallest cell",
        "Only the largest cell made the output: give the gradient to it.",
        instead=lambda v: _windows(v, lambda window: _one_hot(-window)),
    ),
    Mistake(
        "ties share the gradient",
        "Cells equal to the maximum share the gradient. That is a valid subgradient; PyTorch chooses the first.",
        instead=lambda v: _windows(v, _even),
        harmless=True,
    ),
    Mistake(
        "the last tie gets the gradient",
        "Of cells equal to the maximum, the last one gets the gradient. That is a valid subgradient; PyTorch takes "
        "the first.",
        instead=lambda v: _windows(v, lambda window: _one_hot(window, last=True)),
        harmless=True,
    ),
    Mistake(*OVERWRITE, instead=_winner_overwritten),
    Mistake(*OVERWRITE, instead=lambda v: _windows(v, _one_hot, add=False)),
    Mistake(*OVERWRITE, instead=lambda v: _windows(v, _winners, add=False)),
    Mistake(*STRIDE_LOST, instead=lambda v: _windows(v, _one_hot, stride=1)),
    Mistake(
        "stride ignored where the gradient is put",
        "The gradient is put at (i + row, j + column): a window starts at (i · stride, j · stride).",
        instead=_misplaced(lambda window, cell, _stride: (window[0] + cell[0], window[1] + cell[1])),
    ),
    Mistake(
        "position in the window taken for one in the image",
        "argmax counts inside the window: add the row and the column where the window starts.",
        instead=_misplaced(lambda _window, cell, _stride: cell),
    ),
    Mistake(
        "row and column of the maximum swapped",
        "The position of the maximum is used as (column, row): unravel_index gives (row, column).",
        instead=_misplaced(lambda window, cell, stride: (window[0] * stride + cell[1], window[1] * stride + cell[0])),
    ),
    Mistake(
        "every cell of the window gets the gradient",
        "Only the largest cell made the output: only it gets the gradient.",
        instead=lambda v: _windows(v, lambda window: np.ones(window.shape)),
    ),
    Mistake(
        "shared out as in average pooling",
        "Only the largest cell gets the gradient, and all of it.",
        instead=lambda v: _windows(v, _mean),
    ),
    Mistake(
        "incoming gradient ignored",
        "The winners are marked with 1: multiply by dout.",
        instead=lambda v: maximum(v | {"dout": np.ones_like(v["dout"])}),
    ),
    Mistake(
        "multiplied by the maximum",
        "The gradient is multiplied by the winner's value; its slope is 1.",
        after=lambda r, v: {"dx": r["dx"] * v["x"]},
    ),
    Mistake(
        "gradient for positive maxima only",
        "Windows whose largest cell is not positive get no gradient, as behind a ReLU: any maximum passes it.",
        after=lambda r, v: {"dx": r["dx"] * (v["x"] > 0)},
    ),
    *COMMON,
)

AVG_MISTAKES = (
    Mistake(
        "not divided by the window's size",
        "Each cell gets the whole gradient: give it 1 / (rows · columns) of it.",
        instead=lambda v: _windows(v, lambda window: np.ones(window.shape)),
    ),
    Mistake(
        "divided by the width of the window",
        "Divide by rows times columns.",
        after=lambda r, v: {"dx": r["dx"] * v["kernel_size"]},
    ),
    Mistake(
        "divided by the number of windows",
        "Divide by the number of cells in a window.",
        instead=lambda v: average(v | {"dout": v["dout"] * v["kernel_size"] ** 2 / v["dout"][0, 0].size}),
    ),
    Mistake(*OVERWRITE, instead=lambda v: _windows(v, _mean, add=False)),
    Mistake(*STRIDE_LOST, instead=lambda v: _windows(v, _mean, stride=1)),
    Mistake(
        "given to the largest cell", "Every cell of the window gets its share, not the largest alone.", instead=maximum
    ),
    Mistake(
        "multiplied by the input",
        "The slope of a mean does not depend on the input's values.",
        after=lambda r, v: {"dx": r["dx"] * v["x"]},
    ),
    Mistake(
        "incoming gradient ignored",
        "Each share is multiplied by dout.",
        instead=lambda v: average(v | {"dout": np.ones_like(v["dout"])}),
    ),
    *COMMON,
)


def _pooling(name: str, run: Callable[[Values], Results], mistakes: tuple[Mistake, ...], mode: str) -> CheckedOperation:
    return CheckedOperation(
        name,
        {"dout": GRADIENT, "x": INPUT},
        {"kernel_size": SIZE, "stride": STRIDE, "padding": PADDING},
        forward.defaults,
        frozenset(),
        ("dx",),
        cases,
        run,
        mistakes,
        PLANES,
        cache=("x", "settings"),
        bundled=names("kernel_size stride"),
        constants={"mode": mode},
        sums={"dx": (("dout",),)},
    )


MAX_POOL2D_BACKWARD = _pooling("max_pool2d_backward", maximum, MAX_MISTAKES, "max")
AVG_POOL2D_BACKWARD = _pooling("avg_pool2d_backward", average, AVG_MISTAKES, "average")
