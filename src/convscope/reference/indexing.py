"""Indexing and writing: index, gather, scatter, embedding; tensors made of numbers. Knows casting, roundoff, NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convscope.reference.casting import cast, type_name
from convscope.reference.roundoff import FUNCTION, gamma, written
from convscope.typing import Array

Sizes = Sequence[int]


def index(x: Array, indices: Sequence[Array | None]) -> Array:
    """index: cells by lists of coordinates or masks, one per axis; None takes a whole axis."""
    return x[tuple(slice(None) if i is None else i for i in indices)]


def index_select(x: Array, dim: int, index: Array) -> Array:
    """index_select: slices of an axis by their numbers."""
    return x.take(np.atleast_1d(index), dim) if x.ndim else x


def gather(x: Array, dim: int, index: Array) -> Array:
    """gather: for each cell of `index`, the cell of `x` with that number along `dim`; a number is a vector of one."""
    return np.atleast_1d(x)[_spots(np.atleast_1d(index), dim)].reshape(index.shape)


def take(x: Array, index: Array) -> Array:
    """take: cells by their numbers in reading order."""
    return np.asarray(x.reshape(-1)[index])


def select_masked(x: Array, mask: Array) -> Array:
    """masked_select: the cells where the mask holds, in reading order."""
    together = np.broadcast_shapes(x.shape, mask.shape)
    return np.asarray(np.broadcast_to(x, together)[np.broadcast_to(mask, together)])


def scatter(
    x: Array, dim: int, index: Array, src: Array | None = None, value: Any = None, reduce: str | None = None
) -> Array:
    """scatter: `x` with `src` (or a value) written where `gather` would read; "add" adds, "multiply" multiplies."""
    out = np.array(x, ndmin=1)  # a number counts as a vector of one
    index = np.atleast_1d(index)
    spots = _spots(index, dim)
    value = int(value) if src is None and x.dtype.kind in "iu" else value
    new = value if src is None else np.atleast_1d(src)[tuple(slice(0, s) for s in index.shape)]
    if reduce is None:
        out[spots] = new
    else:
        (np.add if reduce == "add" else np.multiply).at(out, spots, new)
    return out.reshape(x.shape)


def scatter_add(x: Array, dim: int, index: Array, src: Array) -> Array:
    """scatter_add: `x` with `src` added where `gather` would read."""
    return scatter(x, dim, index, src, reduce="add")


def scatter_add_error(_y: Array, u: float, x: Array, dim: int, index: Array, src: Array) -> Array:
    """As many additions as the axis of `index` is long, at most."""
    terms = index.shape[dim] if index.ndim else 1
    return gamma(terms, u) * scatter_add(np.abs(x), dim, index, np.abs(src))


def scatter_error(
    _y: Array, u: float, x: Array, dim: int, index: Array, src: Array | None = None, value: Any = None,
    reduce: str | None = None,
) -> Any:  # fmt: skip
    """Exact, but a value is written; with `reduce`, as many operations as the axis of `index` is long, at most."""
    if reduce is not None:
        size = np.abs(np.asarray(value if src is None else src))
        terms = 2 * index.shape[dim] if index.ndim else 2
        return gamma(terms, u) * scatter(np.abs(x), dim, index, size if src is not None else None, size, reduce)
    return scatter(np.zeros(x.shape), dim, index, value=written(value, u)) if src is None else 0.0


def write_part(
    x: Array, src: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """slice_scatter: `x` with one of its slices replaced."""
    out = np.array(x)
    out[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)] = src
    return out


def write_select(x: Array, src: Array, dim: int, index: int) -> Array:
    """select_scatter: `x` with slice `index` of an axis replaced."""
    out = np.array(x)
    out[(slice(None),) * (dim % x.ndim) + (index,)] = src
    return out


def write_index(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Array:
    """index_put: `x` with the cells that `index` would read replaced, or added to."""
    out, spots = np.array(x), tuple(slice(None) if i is None else i for i in indices)
    if accumulate:
        np.add.at(out, spots, values)  # type: ignore[arg-type]  # slices are allowed, NumPy's types do not say so
    else:
        out[spots] = values
    return out


def write_index_error(
    _y: Array, u: float, x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False
) -> Any:
    """Exact; when adding, as many additions as values are added to the cell."""
    if not accumulate:
        return 0.0
    share = write_index(np.zeros(x.shape), indices, np.ones(np.shape(values)), True) * u
    return share / np.maximum(1 - share, 0.0) * write_index(np.abs(x), indices, np.abs(values), True)


def embedding(weight: Array, indices: Array) -> Array:
    """embedding: row number `indices` of a table."""
    return weight[indices]


def filled(size: Sizes, fill_value: Any = 0.0, dtype: Any = None) -> Array:
    """full, and zeros and ones with their own values: a tensor of one number."""
    return cast(np.full(tuple(size), fill_value), dtype)


def filled_like(x: Array, fill_value: Any = 0.0, dtype: Any = None) -> Array:
    """full_like, zero: one number in the shape (and kind) of another tensor."""
    return np.broadcast_to(cast(np.asarray(fill_value), dtype or (None if x.dtype.kind == "f" else x.dtype)), x.shape)


def fill(x: Array, value: Any) -> Array:
    """fill: one number in the shape and kind of another tensor."""
    return filled_like(x, value)


def new_filled(x: Array, size: Sizes, fill_value: Any = 0.0, dtype: Any = None) -> Array:
    """new_full, and new_zeros and new_ones: one number in any shape, in the kind of another tensor."""
    return filled(size, fill_value, dtype or x.dtype)


def of_value(fill_value: float) -> dict[str, Any]:
    """The three forms of zeros and of ones."""

    def plain(size: Sizes, dtype: Any = None) -> Array:
        return filled(size, fill_value, dtype or "float64")

    def like(x: Array, dtype: Any = None) -> Array:
        return filled_like(x, fill_value, dtype)

    def new(x: Array, size: Sizes, dtype: Any = None) -> Array:
        return new_filled(x, size, fill_value, dtype)

    return {"plain": plain, "like": like, "new": new}


def number(s: Any, dtype: Any = None) -> Array:
    """scalar_tensor: one number, in PyTorch's default float type unless told otherwise."""
    return cast(np.asarray(s), dtype or "float64")


def counted(end: Any, start: Any = 0, step: Any = 1, dtype: Any = None) -> Array:
    """arange: start, start + step, ... before `end`; whole numbers if all three are."""
    many = max(0, int(np.ceil((end - start) / step)))
    return cast(start + step * np.arange(many), dtype)


def counted_error(y: Array, u: float, end: Any, start: Any = 0, step: Any = 1, dtype: Any = None) -> Any:
    """Start and step are written, multiplied by the count, and added."""
    steps = written(step, u) * np.arange(y.size) + written(start, u)
    return steps + 2 * u * np.abs(y) * (np.asarray(y).dtype.kind == "f") if np.any(np.mod(y, 1)) else 0.0


def spaced(start: float, end: float, steps: int, dtype: Any = None) -> Array:
    """linspace: `steps` numbers from `start` to `end`, equally far apart; for an integer type all are cut."""
    if type_name(dtype).startswith(("int", "uint")):
        start, end = np.trunc(start), np.trunc(end)
    return cast(np.linspace(start, end, steps), dtype)


def spaced_error(y: Array, u: float, start: float, end: float, steps: int, dtype: Any = None) -> Any:
    """From either end: the step is rounded three times, multiplied, and added. What is cut may jump near an integer."""
    off = np.full(steps, 5 * u * (abs(start) + abs(end)))
    if y.dtype.kind == "f":
        return off
    at = np.linspace(np.trunc(start), np.trunc(end), steps)
    apart = np.abs(at - np.round(at))
    return np.where((apart > 0) & (apart <= off), 1.0, 0.0)


def spaced_powers(start: float, end: float, steps: int, base: float = 10.0, dtype: Any = None) -> Array:
    """logspace: `base` to the power of numbers that are equally far apart; for an integer type all are cut."""
    if type_name(dtype).startswith(("int", "uint")):
        start, end = np.trunc(start), np.trunc(end)
    return cast(np.power(float(base), np.linspace(start, end, steps)), dtype)


def spaced_powers_error(
    y: Array, u: float, start: float, end: float, steps: int, base: float = 10.0, dtype: Any = None
) -> Any:
    """As `spaced_error` in the exponent, times the logarithm of the base, and a call of pow; what is cut may jump."""
    exponent = 5 * u * (abs(start) + abs(end))
    with np.errstate(all="ignore"):
        log = abs(np.log(abs(base))) if base else 0.0
        exact_power = np.abs(np.power(float(base), np.linspace(np.trunc(start), np.trunc(end), steps)))
        size = np.abs(y) if y.dtype.kind == "f" else exact_power
        written_base = np.maximum(abs(start), abs(end)) * (written(base, u) / abs(base) if base else 0.0)
        off = size * np.expm1(exponent * log + written_base + FUNCTION * u)
    if y.dtype.kind == "f":
        return off
    apart = np.abs(exact_power - np.round(exact_power))
    return np.where((apart > 0) & (apart <= off), 1.0, 0.0)


def identity(n: int, m: int | None = None, dtype: Any = None) -> Array:
    """eye: ones on the diagonal."""
    return cast(np.eye(n, m), dtype)


def _spots(index: Array, dim: int) -> tuple[Array, ...]:
    grid = list(np.ogrid[tuple(slice(0, s) for s in index.shape)])
    if grid:
        grid[dim % len(grid)] = index
    return tuple(grid)
