"""Reductions: functions of many numbers at once: the largest, a product, a normalization, a softmax."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from convscope.expr.precision import BLOCK, Precision, gamma, sums
from convscope.expr.primitives.primitive import Primitive
from convscope.typing import Array, Numbers, Row

# ruff: noqa: ARG001 - what is called through one table has one signature

EXP = 40.0
"""Roundings of one exp: softmax and attention use a fast one of up to 20 units in the last place."""


def softmax(row: Row) -> Row:
    """Shares that sum to 1, from the largest down so that nothing overflows.

    >>> softmax(np.zeros(4)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    grown = np.exp(row - np.max(row, axis=-1, keepdims=True))
    return np.asarray(grown / np.sum(grown, axis=-1, keepdims=True))


def softmax_error(row: Row, shares: Row, errors: Row | float, precision: Precision) -> Row:
    """How far a kernel's softmax may be from ours, each cell: (..., T).

    Each exp has its own roundings and those of `cell - max`, and carries the error of its cell on; the sum of T
    of them and the division round again. A factor exp(error of cell + largest error) covers inexact cells; where it is
    above e, that factor is applied to the odds of the cell against all others, which keeps its share below 1.
    """
    depth = np.abs(np.where(shares > 0, row - np.max(row, axis=-1, keepdims=True), 0.0))
    mean_depth = np.sum(shares * depth, axis=-1, keepdims=True)
    relative = precision.sum * (depth + mean_depth + 2 * EXP + row.shape[-1] + 8) + 3 * precision.inner
    if not np.any(errors):
        return np.asarray(1.01 * shares * relative + precision.tiny)
    input_errors = np.broadcast_to(errors, row.shape)
    score_shift = input_errors + np.max(input_errors, axis=-1, keepdims=True)
    near = 1.01 * shares * (relative + np.expm1(np.minimum(score_shift, 1.0)))
    if not np.any(score_shift > 1):
        return np.asarray(near + precision.tiny)
    depth = np.where(np.isneginf(row), 0.0, np.max(row, axis=-1, keepdims=True) - row)
    shifted = _shifted_odds(row, shares, score_shift + 2 * precision.sum * np.max(depth, axis=-1, keepdims=True))
    shifted = shifted + 1.01 * shares * precision.sum * (4 * EXP + row.shape[-1])
    return np.asarray(
        np.where(np.any(score_shift > 1, axis=-1, keepdims=True), np.minimum(shifted, 1.0), near) + precision.tiny
    )


def _shifted_odds(row: Row, shares: Row, shift: Row) -> Row:
    """How much a share moves when its odds against all other cells move by a factor exp(shift) in either direction."""
    fallen = row - np.max(row, axis=-1, keepdims=True)
    against = np.empty_like(fallen)
    for cell in range(row.shape[-1]):  # the logarithm of the odds against it
        other_cells = np.delete(fallen, cell, axis=-1)
        level = np.max(other_cells, axis=-1, initial=-np.inf)
        level = np.where(np.isfinite(level), level, 0.0)
        weighed = np.log(np.sum(np.exp(other_cells - level[..., None]), axis=-1)) + level
        against[..., cell] = np.where(np.isneginf(fallen[..., cell]), np.inf, weighed - fallen[..., cell])
    with np.errstate(all="ignore"):
        more, less = 1 / (1 + np.exp(against - shift)), 1 / (1 + np.exp(against + shift))
    return np.asarray(np.maximum(more - shares, shares - less))


def _normalize(x: Numbers, mean: Numbers, var: Numbers, *affine: Numbers) -> Numbers:
    eps, weight, bias = _affine(affine)
    return np.divide(x - mean, np.sqrt(var + eps)) * weight + bias


def _affine(affine: Sequence[Numbers]) -> tuple[Numbers, Numbers, Numbers]:
    """eps, weight and bias; a missing weight is 1, a missing bias 0."""
    return affine[0], affine[1] if len(affine) > 1 else 1.0, affine[2] if len(affine) > 2 else 0.0


def _normalize_error(
    precision: Precision, result: Numbers, values: Sequence[Numbers], errors: Sequence[Numbers]
) -> Numbers:
    """(x - mean) * s + bias with s = weight / sqrt(var + eps), in whatever order a kernel calculates it."""
    x, mean, var = values[:3]
    eps, weight, bias = _affine(values[3:])
    e_x, e_mean, e_var, e_eps = errors[:4]
    width = var + eps
    narrowest = np.maximum(width - e_var - e_eps, 0.99 * eps)
    scale = abs(weight) / np.sqrt(width)
    rate_change = np.maximum(
        np.sqrt(np.divide(width, narrowest)) - 1, 1 - np.sqrt(np.divide(width, width + e_var + e_eps))
    )
    shifted = (e_x + e_mean) * scale * (1 + rate_change)
    rounding = 8 * precision.sum * (abs(x * scale) + abs(mean * scale) + abs(bias))
    total = abs(x - mean) * scale * rate_change + shifted + rounding + precision.tiny
    return np.where((narrowest > 0) & ~np.isinf(e_var), total, np.where(e_var, np.inf, 0.0))


def _norm(row: Row, order: float) -> Numbers:
    sizes = np.abs(row)
    if order == np.inf:
        return np.max(sizes)
    if order == -np.inf:
        return np.min(sizes)
    if order == 0:
        return float(np.count_nonzero(sizes))
    return np.sum(sizes**order) ** (1 / order)


def _norm_error(precision: Precision, result: float, values: tuple[Row, float], errors: object) -> float:
    row, order = values
    if np.isinf(order) or order == 0:
        return 0.0
    powers = gamma(row.size + 12, precision.sum) / min(abs(order), 1e3)
    sizes, underflow = np.abs(row[np.isfinite(row) & (row != 0)]), row.size * precision.tiny  # powers may underflow
    total = np.sum(sizes**order)
    if total >= precision.room or (order < 0 and total <= underflow):
        return np.inf
    if order not in {1.0, 2.0}:  # the order and its inverse are written
        powers += precision.sum * (np.max(np.abs(np.log(sizes)), initial=0.0) + abs(np.log(result or 1.0)))
    if order >= 1:
        underflows = row.size > 1 or total < precision.tiny
        near = (
            (abs(result) * underflow / total if total >= underflow else underflow ** (1 / order)) if underflows else 0.0
        )
    else:
        near = (
            max(abs(max(total + change, 0.0) ** (1 / order) - result) for change in (-underflow, underflow))
            if sizes.size
            else 0.0
        )
    return float((powers + 12 * precision.sum) * abs(result) + near + precision.tiny * bool(result))


def _logsumexp(rows: Row) -> Numbers:
    top = np.max(rows, axis=-1)
    return np.where(np.isfinite(top), top + np.log(_fallen(rows)), top)


def _fallen(rows: Row) -> Numbers:
    """The sum of exponentials of each row, its largest number taken off before."""
    top = np.max(rows, axis=-1, keepdims=True)
    return sums(rows, lambda part: np.exp(part - top))


def _logsumexp_error(precision: Precision, result: Numbers, values: tuple[Row], errors: Sequence[Numbers]) -> Numbers:
    rows = values[0]
    top = np.max(rows, axis=-1)
    weighed = _weighed_depth(rows, top[..., None])
    rounding = precision.sum * (weighed + EXP + rows.shape[-1] + 12 + 4 * np.abs(top) + 4 * np.abs(result))
    rounding = rounding + precision.inner * (weighed + 3 + np.abs(top) + np.abs(result))
    return np.where(np.isfinite(top), rounding + _largest_error(precision, result, values, errors), 0.0)


def _weighed_depth(rows: Row, top: Numbers) -> Numbers:
    """How far the numbers of each row are below its largest, each counted by its share."""
    if rows.shape[-1] <= BLOCK:
        return np.asarray(np.sum(softmax(rows) * np.minimum(top - rows, 1e4), axis=-1))
    return sums(rows, lambda part: np.exp(part - top) * np.minimum(top - part, 1e4)) / _fallen(rows)


def _log_softmax(x: Numbers, rows: Row) -> Numbers:
    return x - np.max(rows, axis=-1) - np.log(_fallen(rows))


def _log_softmax_error(
    precision: Precision, result: Numbers, values: tuple[Numbers, Row], errors: Sequence[Numbers]
) -> Numbers:
    x, rows = values
    top = np.max(rows, axis=-1)
    spread = top - x
    inherited = _logsumexp_error(precision, 0.0, (rows - top[..., None],), [errors[1]])
    u = 4 * precision.sum + precision.inner
    return np.where(np.isfinite(spread), inherited + u * (np.abs(spread) + np.abs(x) + np.abs(result)), 0.0)


def _share(x: Numbers, rows: Row) -> Numbers:
    return np.exp(x - np.max(rows, axis=-1)) / _fallen(rows)


def _safe_share(x: Numbers, rows: Row) -> Numbers:
    return np.where(np.all(rows == -np.inf, axis=-1), 0.0, _share(x, rows))


def _share_error(
    precision: Precision, result: Numbers, values: tuple[Numbers, Row], errors: Sequence[Numbers]
) -> Numbers:
    rows = values[1]
    if rows.shape[-1] > BLOCK and not np.any(errors[0]) and not np.any(errors[1]):
        return _long_share_error(precision, result, rows)
    input_errors = np.maximum(np.broadcast_to(errors[1], rows.shape), np.asarray(errors[0])[..., None])
    shares = softmax(rows)
    chosen = np.argmin(np.abs(shares - np.asarray(result)[..., None]), axis=-1)  # x is one of the cells
    error = _picked(softmax_error(rows, shares, input_errors if np.any(input_errors) else 0.0, precision), chosen)
    return np.where(np.greater(result, 0), error, precision.tiny)


def _long_share_error(precision: Precision, result: Numbers, rows: Row) -> Numbers:
    """As `_share_error` of long rows of recorded numbers, without another array of their length.

    The share is that of its own cell, so the cell is as far below the largest as -log(share of it over the largest's).
    """
    top = np.max(rows, axis=-1, keepdims=True)
    total = _fallen(rows)
    depth = np.maximum(0.0, -np.log(np.multiply(result, total)))
    mean_depth = sums(rows, lambda part: _weighed(part, top)) / total
    relative = precision.sum * (depth + mean_depth + 2 * EXP + rows.shape[-1] + 8) + 3 * precision.inner
    return np.where(np.greater(result, 0), 1.01 * result * relative + precision.tiny, precision.tiny)


def _weighed(part: Row, top: Numbers) -> Row:
    powers = np.exp(part - top)
    return np.where(powers > 0, powers * (top - part), 0.0)


def _largest_error(precision: Precision, result: Numbers, values: object, errors: Sequence[Numbers]) -> Numbers:
    return np.max(errors[0], axis=-1) if np.ndim(errors[0]) else errors[0]


def _exact(precision: Precision, result: object, values: object, errors: object) -> float:
    return 0.0


def _product_error(precision: Precision, result: float, values: tuple[Row], errors: object) -> float:
    sizes = np.abs(values[0])
    underflow = precision.tiny
    if np.prod(np.minimum(sizes[sizes > 0], 1.0)) < precision.tiny:  # a product on the way may underflow
        underflow = underflow * sizes.size * np.prod(np.maximum(sizes, 1.0))
    return float(gamma(sizes.size, precision.sum) * abs(result) + underflow)


def _at_largest(row: Row, positions: Row) -> Numbers:
    return _picked(positions, np.argmax(row, axis=-1))


def _at_smallest(row: Row, positions: Row) -> Numbers:
    return _picked(positions, np.argmin(row, axis=-1))


def _picked(positions: Row, index: Array) -> Numbers:
    return np.take_along_axis(positions, np.expand_dims(index, -1), -1)[..., 0]


def _order(row: Row, descending: float) -> Array:
    is_nan = np.isnan(row)  # nan counts as the largest, beyond infinity
    return np.lexsort((-row, ~is_nan) if descending else (row, is_nan))


def _ranked(row: Row, rank: float, descending: float) -> Numbers:
    return row[_order(row, descending)[int(rank)]]


def _at_rank(row: Row, rank: float, descending: float) -> Numbers:
    return _order(row, descending)[int(rank)]


def _open_if_tied(precision: Precision, result: float, values: tuple[Row, float, float], errors: object) -> float:
    """Which of several equal cells comes first is the kernel's own affair."""
    row = values[0]
    same = np.isnan(row).sum() if np.isnan(row[int(result)]) else np.count_nonzero(row == row[int(result)])
    return float("inf") if same > 1 else 0.0


def _inverse_std(var: Numbers, eps: Numbers) -> Numbers:
    return np.divide(1.0, np.sqrt(var + eps))


def _inverse_std_error(
    precision: Precision, result: Numbers, values: tuple[Numbers, Numbers], errors: Sequence[Numbers]
) -> Numbers:
    var, eps = values
    width = var + eps
    narrowest = np.maximum(width - errors[0], 0.99 * eps)
    rate_change = np.maximum(np.sqrt(np.divide(width, narrowest)) - 1, 1 - np.sqrt(np.divide(width, width + errors[0])))
    total = result * rate_change + 8 * precision.sum * np.abs(result) + precision.inner * np.abs(result)
    return np.where((narrowest > 0) & ~np.isinf(errors[0]), total, np.where(errors[0], np.inf, 0.0))


def _stored_error(precision: Precision, result: Numbers, values: object, errors: Sequence[Numbers]) -> Numbers:
    return errors[0] + 2.1 * precision.inner * np.maximum(np.abs(result), precision.tiny)


_NORMALIZE_FORMULA = "({x} − {mean}) ÷ √({var} + {eps})"
REDUCTIONS: Mapping[str, Primitive] = {
    "max": Primitive("the largest of {cells}", partial(np.max, axis=-1), _largest_error, many=True),
    "min": Primitive("the smallest of {cells}", partial(np.min, axis=-1), _largest_error, many=True),
    "ranked": Primitive("number {rank} of {cells}, sorted", _ranked, _largest_error),
    "rank_of": Primitive("where number {rank} of {cells}, sorted, is", _at_rank, _open_if_tied),
    "argmax": Primitive("where the largest of {cells} is", _at_largest, _exact, many=True),
    "argmin": Primitive("where the smallest of {cells} is", _at_smallest, _exact, many=True),
    "product": Primitive("the product of {cells}", np.prod, _product_error),
    "any": Primitive("1 if any of {cells} is not 0", lambda row: 1.0 * np.any(row), _exact),
    "all": Primitive("1 if none of {cells} is 0", lambda row: 1.0 * np.all(row), _exact),
    "normalize": Primitive(_NORMALIZE_FORMULA, _normalize, _normalize_error, many=True),
    "normalize_weight": Primitive(f"{_NORMALIZE_FORMULA} × {{weight}}", _normalize, _normalize_error, many=True),
    "normalize_affine": Primitive(
        f"{_NORMALIZE_FORMULA} × {{weight}} + {{bias}}", _normalize, _normalize_error, many=True
    ),
    "stored": Primitive("{x}, as it was stored in between", lambda x: x, _stored_error, many=True),
    "inverse_std": Primitive("1 ÷ √({var} + {eps})", _inverse_std, _inverse_std_error, many=True),
    "norm": Primitive("(sum of |{cells}| to the {order}) to the 1 ÷ {order}", _norm, _norm_error),
    "softmax": Primitive("exp({x} − max) ÷ sum of exp({cells} − max)", _share, _share_error, many=True),
    "safe_softmax": Primitive("exp({x} − max) ÷ sum of exp({cells} − max)", _safe_share, _share_error, many=True),
    "log_softmax": Primitive("{x} − max − log(sum of exp({cells} − max))", _log_softmax, _log_softmax_error, many=True),
    "logsumexp": Primitive("max + log(sum of exp({cells} − max))", _logsumexp, _logsumexp_error, many=True),
}
