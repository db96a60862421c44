"""Mistakes that several operations share, and ways to make one: changes of arguments and of results."""

from collections.abc import Callable

import numpy as np

from convscope.checking.operation import Mistake, Results, Values
from convscope.typing import Array


def set_to(**changes: object) -> Callable[[Values], Values]:
    """Replace settings by fixed values."""
    return lambda values: values | changes


def changed(name: str, change: Callable[[Array], Array]) -> Callable[[Values], Values]:
    """Change one array, if the function has it."""
    return lambda values: values | ({name: change(values[name])} if values.get(name) is not None else {})


def result(change: Callable[[Array], Array]) -> Callable[[Results, Values], Results]:
    """Change the result."""
    return lambda results, _values: {"out": change(results["out"])}


def only(name: str, change: Callable[[Array, Values], Array]) -> Callable[[Results, Values], Results]:
    """Change one of the results."""
    return lambda results, values: {name: change(results[name], values)}


def wrong_sign(name: str) -> Mistake:
    """A gradient with the wrong sign."""
    return Mistake("wrong sign", f"{name} has the wrong sign.", after=only(name, lambda gradient, _values: -gradient))


def without_last_windows(out: Array) -> Array:
    """A result whose last row and column are zero."""
    out = out.copy()
    out[:, :, -1, :] = 0
    out[:, :, :, -1] = 0
    return out


def padded(mode: str, **how: object) -> Callable[[Values], Values]:
    """Pad with something other than zeros."""

    def before(values: Values) -> Values:
        p = values["padding"]
        widths = ((0, 0), (0, 0), (p, p), (p, p))
        return values | {"x": np.pad(values["x"], widths, mode, **how), "padding": 0}  # type: ignore[call-overload]

    return before


def borders(top: int, bottom: int, left: int, right: int) -> Callable[[Values], Values]:
    """Pad with other widths: multiples of the correct one."""

    def before(values: Values) -> Values:
        p = values["padding"]
        return values | {"padding": [(top * p, bottom * p), (left * p, right * p)]}

    return before


PAD = "padding missing", "The image is used without its padding: put rings of zeros around it first."
ONE_SIDE = "padding on one side only", "All the padding is on one side: each side gets `padding` rows or columns."
ROW_ONLY = "stride in one direction only", "Only rows or only columns are multiplied by the stride: multiply both."
OVERWRITE = (
    "overlapping windows overwrite each other",
    "A cell in several windows keeps only the gradient of the last one (= instead of +=): add all of them.",
)
STRIDE_LOST = "stride ignored", "The windows are taken at (i, j): they begin at (i * stride, j * stride)."

TRUNCATED = Mistake(
    "truncated to integers", "The result is stored as integers: make the output a float array.", after=result(np.trunc)
)
FIRST_IMAGE = Mistake(
    "first image for all",
    "Every image gets the result of the first.",
    after=result(lambda out: np.repeat(out[:1], len(out), 0)),
)
TRANSPOSED = Mistake(
    "result transposed", "Rows and columns of the result are swapped.", after=result(lambda out: out.swapaxes(2, 3))
)
