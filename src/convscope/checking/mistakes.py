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


def multiplied(factor: Callable[[Values], float], *result_names: str) -> Callable[[Results, Values], Results]:
    """Multiply some of the results by a number."""
    return lambda results, values: {name: results[name] * factor(values) for name in result_names}


def wrong_sign(name: str) -> Mistake:
    """A gradient with the wrong sign."""
    return Mistake("wrong sign", f"{name} has the wrong sign.", after=only(name, lambda gradient, _values: -gradient))


def without_last_windows(out: Array) -> Array:
    """A result whose last row and column are zero."""
    out = out.copy()
    out[:, :, -1, :] = 0
    out[:, :, :, -1] = 0
    return out


def padded(mode: str, **options: object) -> Callable[[Values], Values]:
    """Pad with something other than zeros."""

    def before(values: Values) -> Values:
        p = values["padding"]
        widths = ((0, 0), (0, 0), (p, p), (p, p))
        return values | {"x": np.pad(values["x"], widths, mode, **options), "padding": 0}  # type: ignore[call-overload]

    return before


def scaled(share: Callable[[Values], float], *, bias: bool = False) -> Callable[[Values], Values]:
    """Scale the products (and the bias) by a factor."""

    def before(values: Values) -> Values:
        factor = share(values)
        changes = {"weight": values["weight"] * factor}
        if bias and values.get("bias") is not None:
            changes["bias"] = values["bias"] * factor
        return values | changes

    return before


def without_last(weight: Array) -> Array:
    """A kernel with its last row and column set to zero."""
    weight = weight.copy()
    weight[:, :, -1, :] = 0
    weight[:, :, :, -1] = 0
    return weight


def last_product(weight: Array) -> Array:
    """A kernel with all cells but the very last set to zero."""
    out = np.zeros_like(weight)
    out[:, -1, -1, -1] = weight[:, -1, -1, -1]
    return out


def same_row(out: Array) -> Array:
    """The first row of windows in all rows."""
    return np.repeat(out[:, :, :1], out.shape[2], 2)


def same_column(out: Array) -> Array:
    """The first column of windows in all columns."""
    return np.repeat(out[..., :1], out.shape[3], 3)


def borders(top: int, bottom: int, left: int, right: int) -> Callable[[Values], Values]:
    """Pad with other widths: multiples of the correct one."""

    def before(values: Values) -> Values:
        p = values["padding"]
        return values | {"padding": [(top * p, bottom * p), (left * p, right * p)]}

    return before


def reach(values: Values) -> tuple[int, int]:
    """Rows and columns of a window, with the gaps of its dilation."""
    rows, columns = values["weight"].shape[2:] if "weight" in values else [values["kernel_size"]] * 2
    dilation = values.get("dilation", 1)
    return dilation * (rows - 1) + 1, dilation * (columns - 1) + 1


def _size_without_padding(results: Results, values: Values) -> Results:
    sizes = zip(values["x"].shape[2:], reach(values), strict=True)
    rows, columns = (max((n - k) // values["stride"] + 1, 0) for n, k in sizes)
    return {"out": results["out"][:, :, :rows, :columns]}


def rounded_up(values: Values) -> Values:
    """Zeros below and on the right, so that an incomplete last window fits."""
    p, sizes = values["padding"], zip(values["x"].shape[2:], reach(values), strict=True)
    return values | {"padding": [(p, p + -(n + 2 * p - k) % values["stride"]) for n, k in sizes]}


def first_image_alone(name: str) -> Callable[[Results, Values], Results]:
    """Something that is added to each image, such as the bias, added to the first one only."""

    def after(results: Results, values: Values) -> Results:
        if values.get(name) is None:
            return results
        out = results["out"].copy()
        out[1:] -= values[name].reshape(1, -1, *[1] * (out.ndim - 2))
        return {"out": out}

    return after


def times(name: str, other: str) -> Mistake:
    """A gradient multiplied by the array that it belongs to."""

    def after(results: Results, values: Values) -> Results:
        factors = values.get(other)
        return {name: results[name] * factors} if factors is not None else {}

    sentence = f"{name} is multiplied by {other}: the gradient of a sum of products has the *other* factor alone."
    return Mistake(f"{name} multiplied by {other}", sentence, after=after)


def bias_times(results: Results, values: Values) -> Results:
    """The sum multiplied by the bias."""
    if values.get("bias") is None:
        return results
    bias = values["bias"].reshape(1, -1, *[1] * (results["out"].ndim - 2))
    return {"out": (results["out"] - bias) * bias}


BIAS_FACTOR = "bias multiplied", "The sum is multiplied by the bias: add it."
ALL_BIASES = (
    "all biases added to each unit",
    "The sum of all biases is added to every result: unit k gets bias[k] alone.",
)
FORMULA = "There are (size + 2·padding - window) // stride + 1 windows along each axis"
TOO_SMALL = Mistake(
    "padding forgotten in the result's size",
    f"The image is padded, but the result's size is calculated without the padding. {FORMULA}.",
    after=_size_without_padding,
)
LAST = "last windows missing", f"The last row and column of windows are left out. {FORMULA}."
LAST_ROW = "last windows missing along one axis", f"One size of the result is one too small. {FORMULA}."


def running(*axes_kept: int) -> Callable[[Results, Values], Results]:
    """Sums that are not reset from cell to cell, only for each index of the kept axes."""

    def after(results: Results, _values: Values) -> Results:
        out = results["out"]
        kept_shape = out.shape[: len(axes_kept)]
        return {"out": out.reshape(*kept_shape, -1).cumsum(-1).reshape(out.shape)}

    return after


def one_channel(channel: int) -> Callable[[Array], Array]:
    """Kernels with all channels but one set to zero."""

    def change(weight: Array) -> Array:
        out = np.zeros_like(weight)
        out[:, channel] = weight[:, channel]
        return out

    return change


PAD = "padding missing", "The image is used without its padding: put rings of zeros around it first."
ONE_SIDE = (
    "padding on one side only",
    "All the padding is on one side: each side gets `padding` rows or columns, so the result's size counts it twice.",
)
ROW_ONLY = "stride in one direction only", "Only rows or only columns are multiplied by the stride: multiply both."
OVERWRITE = (
    "overlapping windows overwrite each other",
    "A cell in several windows keeps only the gradient of the last one (= instead of +=): add all of them.",
)
LARGE = "logits whose exponential overflows or vanishes"
EXP_RAISES = Mistake(
    "exponential overflows",
    "math.exp(x) raises an OverflowError from about 710 on, and is 0 far below: subtract the row's maximum first; the "
    "result stays the same.",
    fails=lambda values: float(np.abs(values["x"]).max()) > 709,
    except_on=LARGE,
)
STRIDE_LOST = "stride ignored", "The windows are taken at (i, j): they begin at (i * stride, j * stride)."

ONE_ROW = Mistake(
    "one row for all",
    "Every row of the result is its last one, as in [[0] * n] * m, whose rows are one list: "
    "make each row anew, [[0] * n for _ in range(m)].",
    after=result(lambda out: np.repeat(out[..., -1:, :], out.shape[-2], -2)),
)
ABSOLUTE = Mistake("absolute value", "The sign of the result is lost: keep negative sums.", after=result(np.abs))
POSITIVE_INPUT = Mistake(
    "negative inputs set to zero",
    "A ReLU is applied to the input: it belongs after the layer, if anywhere.",
    changed("x", lambda x: np.maximum(x, 0)),
)
TRUNCATED = Mistake(
    "truncated to integers", "The result is stored as integers: make the output a float array.", after=result(np.trunc)
)
ROUNDED_DOWN = Mistake(
    "truncated to integers", "The result is rounded down: divide with /, and keep floats.", after=result(np.floor)
)
FIRST_IMAGE = Mistake(
    "first image for all",
    "Every image gets the result of the first.",
    after=result(lambda out: np.repeat(out[:1], len(out), 0)),
)
TRANSPOSED = Mistake(
    "result transposed", "Rows and columns of the result are swapped.", after=result(lambda out: out.swapaxes(2, 3))
)


def _normalized(weight: Array) -> Array:
    """Each kernel divided by the sum of its cells, if that is not zero."""
    total = weight.sum((1, 2, 3), keepdims=True)
    return weight / np.where(total == 0, 1, total)


NORMALIZED = Mistake(
    "divided by the sum of the kernel",
    "The sum is divided by that of the kernel's cells, as in a blur: a convolution adds the products as they are.",
    changed("weight", _normalized),
)
