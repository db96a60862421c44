"""Channel bias: an offset below every cell's bound adds up over a feature map; rounding without direction does not.

Roundings may share a direction: x + b with a small b gives x wherever b is less than half a unit in the last place of
x. Two things keep that from being taken for an error. What is compared is the recorded number with the expected one
*as its type holds it*, which takes the last rounding out. And a channel that still looks wrong is added up again in
its own type, term by term, in several orders: as far as such sums move the mean, it is allowed to move.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from convscope.reference.operation import Arguments
from convscope.reference.precision import cast
from convscope.reference.table import OPERATIONS
from convscope.typing import Array

LANES = 8
"""Sums that a vector unit carries along."""
CELLS = 2**14
"""Cells that are added up again, at most: what has a direction shows in a part of them."""


def drift(op: str, arguments: Arguments, channel: int, stored_values: Array, cells: Array, *, dtype: str) -> float:
    """The largest distance of a mean over `cells` that rounding alone makes, in any of the orders.

    Args:
        op: A convolution.
        arguments: As its ATen schema names them.
        channel: Which output channel.
        stored_values: Its expected values as their type holds them, flattened.
        cells: Which of them count.
        dtype: Their type.
    """
    chosen = cells[:: -(-len(cells) // CELLS)]
    bias = arguments.get("bias")
    last = 0.0 if bias is None else float(bias[channel])
    kind: type[np.float32 | np.float64] = np.float64 if dtype == "float64" else np.float32
    with np.errstate(all="ignore"):
        orders = [
            total
            for backward in (False, True)
            for total in _totals(_terms(op, arguments, channel, chosen, backward), len(chosen), last, kind)
        ]
        if arguments.get("transposed") and dtype in {"bfloat16", "float16"}:
            orders += _columns(list(arguments["weight"].shape[2:]), _terms(op, arguments, channel, chosen), last, dtype)
        return max(abs(float(np.mean(cast(total, dtype) - stored_values[chosen]))) for total in orders)


def _totals(
    terms: Iterator[tuple[Array, float]], count: int, bias: float, kind: type[np.float32 | np.float64]
) -> list[Array]:
    """The terms in their order: with the bias first or last, fused or rounded, and in lanes."""
    fused, rounded = ([np.full(count, start, kind) for start in (bias, 0.0)] for _ in range(2))
    lanes = [np.zeros(count, kind) for _ in range(LANES)]
    for index, (numbers, weight) in enumerate(terms):
        product = numbers * weight  # exact in float64 for every narrower type
        fused = [(total + product).astype(kind) for total in fused]
        rounded = [total + product.astype(kind) for total in rounded]
        lanes[index % LANES] = (lanes[index % LANES] + product).astype(kind)
    joined = np.zeros(count, kind)
    for lane in lanes:
        joined = joined + lane
    return [fused[0], fused[1] + kind(bias), rounded[0], rounded[1] + kind(bias), joined + kind(bias)]


def _columns(kernel: list[int], terms: Iterator[tuple[Array, float]], bias: float, dtype: str) -> list[Array]:
    """Of a transposed convolution in a narrow type: each tap's sum over the channels, added up in that type."""
    taps = int(np.prod(kernel))
    sums: list[Array] = [np.zeros((), np.float32)] * taps
    for index, (numbers, weight) in enumerate(terms):
        sums[index % taps] = (sums[index % taps] + numbers * weight).astype(np.float32)
    results = []
    for start, end in ((bias, 0.0), (0.0, bias)):
        for order in (sums, sums[::-1]):
            total = np.full(sums[0].shape, start)
            for tap in order:
                total = cast(total + cast(tap, dtype), dtype)
            results.append(cast(total + end, dtype))
    return results


def _terms(
    op: str, arguments: Arguments, channel: int, cells: Array, backward: bool = False
) -> Iterator[tuple[Array, float]]:
    """The input that each kernel number is multiplied by in these cells, and the number itself."""
    x, weight, groups = arguments["input"], arguments["weight"], int(arguments.get("groups", 1))
    transposed = bool(arguments.get("transposed"))
    channels_per_group = x.shape[1] // groups
    group, within = divmod(channel, weight.shape[1] if transposed else weight.shape[0] // groups)
    kernel = weight.shape[2:]
    taps = int(np.prod(kernel))
    probe = np.eye(taps).reshape(1, taps, *kernel) if transposed else np.eye(taps).reshape(taps, 1, *kernel)
    order = slice(None, None, -1 if backward else 1)
    for channel_index in range(channels_per_group)[order]:
        row = group * channels_per_group + channel_index
        plane = x[:, row : row + 1]
        tap_inputs = OPERATIONS[op].compute(**{**arguments, "input": plane, "weight": probe, "bias": None, "groups": 1})
        assert isinstance(tap_inputs, np.ndarray)
        numbers = (weight[row, within] if transposed else weight[channel, channel_index]).reshape(-1)
        for tap in range(taps)[order]:
            yield tap_inputs[:, tap].reshape(-1)[cells], float(numbers[tap])


CONVOLUTIONS = frozenset(["convolution", "_convolution", "conv1d", "conv2d", "conv3d"])
DOUBT = 1e-12
"""Significance level: the probability that rounding alone moves a channel's mean this far."""
GRAIN = 2.0**-12
"""Windows that differ by less than this part of the channel's largest may share roundings: they count as the same."""


class Offset(NamedTuple):
    """A channel whose cells are off by the same amount."""

    channel: int
    mean: float
    """Mean error, recorded - expected, of the cells that count."""
    allowed: float
    expected: float
    """Their mean value."""


class ChannelErrors:
    """The errors of each output channel added up, part by part.

    Args:
        channels: How many there are.
        dtype: Type of the recorded numbers, as PyTorch names it.
    """

    def __init__(self, channels: int, dtype: str) -> None:
        self._dtype = dtype
        self._errors, self._squares = np.zeros(channels), np.zeros(channels)
        self._finite, self._cells = np.ones(channels, bool), 0

    def add(self, values: Array, bounds: Array, recorded: Array) -> None:
        """Some cells of every channel: what the reference gives, how far each may be off, what the trace holds."""
        with np.errstate(all="ignore"):
            error, bound = (_by_channel(a) for a in (recorded - cast(values, self._dtype), bounds))
            self._finite &= np.isfinite(error).all(1) & np.isfinite(bound).all(1)
            self._errors += error.sum(1)
            self._squares += np.square(bound).sum(1)
        self._cells += error.shape[1]

    def suspects(self) -> list[int]:
        """The channels whose mean error is more than rounding without direction can give."""
        with np.errstate(invalid="ignore"):
            mean, allowed = self._errors / self._cells, _hoeffding(self._squares / self._cells, self._cells)
            return [int(channel) for channel in np.flatnonzero(self._finite & (np.abs(mean) > allowed))]


def has_channel_means(op: str, recorded: Array) -> bool:
    """Whether the channels of such a result are tested: convolutions of numbers with a fraction."""
    return op in CONVOLUTIONS and recorded.dtype.kind == "f" and recorded.size > 0


def offset(
    op: str,
    arguments: Arguments,
    channel: int,
    *,
    values: Array,
    bounds: Array,
    recorded: Array,
    dtype: str = "float32",
) -> Offset | None:
    """A suspect output channel whose mean error is more than rounding can give, also with a direction; or None.

    Args:
        op: The operation.
        arguments: As its ATen schema names them.
        channel: Which.
        values: What the reference gives for it, shape (N, ...).
        bounds: How far each number may be from it, the same shape.
        recorded: What the trace holds, the same shape.
        dtype: Its type, as PyTorch names it.

    Source: Hoeffding, Probability Inequalities for Sums of Bounded Random Variables, 1963, theorem 2: n independent
    errors without direction, each within its bound b, have a mean beyond sqrt(2 ln(2 / p) · Σb²) / n with a
    probability of at most p. Roundings of equal numbers are equal, so only cells are counted whose windows differ
    from each other in every input channel. What has a direction is `drift`, doubled, because a kernel's own order of
    addition is none of those tried.
    """
    with np.errstate(all="ignore"):
        stored_values = cast(values, dtype)
        error, bound = (recorded - stored_values).reshape(-1), bounds.reshape(-1)
    differ = _different(op, arguments, channel, len(values))
    mean, allowed = error[differ].mean(), _allowed(bound[differ])
    if abs(mean) > allowed:
        allowed += 2 * drift(op, arguments, channel, stored_values.reshape(-1), differ, dtype=dtype)
    if abs(mean) > allowed:
        return Offset(channel, float(mean), float(allowed), float(values.reshape(-1)[differ].mean()))
    return None


def _by_channel(array: Array) -> Array:
    return array.swapaxes(0, 1).reshape(array.shape[1], -1)


def _allowed(bounds: Array) -> Array:
    """Bound of the mean's distance from 0 for numbers with these bounds."""
    return _hoeffding(float(np.mean(np.square(bounds))), len(bounds))


def _hoeffding(square: Array | float, count: int) -> Array:
    """The same, for `count` numbers whose bounds have this mean square."""
    return np.asarray(np.sqrt(2 * np.log(2 / DOUBT) * square / count))


def _different(op: str, arguments: Arguments, channel: int, images: int) -> Array:
    """Cells of one output channel whose windows differ in every input channel, as places in the flattened channel.

    Windows are distinguished by three sums of their numbers with random weights; a window of zeros has no rounding.
    """
    x, weight, groups = arguments["input"], arguments["weight"], int(arguments.get("groups", 1))
    transposed = bool(arguments.get("transposed"))
    channels_per_group = x.shape[1] // groups
    group = channel // (weight.shape[1] if transposed else weight.shape[0] // groups)
    group_input = x[:, group * channels_per_group : (group + 1) * channels_per_group]
    tests = (channels_per_group, 3, *weight.shape[2:]) if transposed else (channels_per_group * 3, 1, *weight.shape[2:])
    random = np.random.default_rng(0).uniform(0.5, 1.5, tests)
    sums = OPERATIONS[op].compute(
        **{**arguments, "input": group_input, "weight": random, "bias": None, "groups": channels_per_group}
    )
    assert isinstance(sums, np.ndarray)
    marks = (
        sums.reshape(images, channels_per_group, 3, -1).transpose(1, 0, 3, 2).reshape(channels_per_group, -1, 3)
    )  # (C, N·P·Q, 3)
    distinct = np.ones(marks.shape[1], bool)
    for mark in marks:
        largest = np.abs(mark).max()
        rounded_marks = (
            np.round(mark / (GRAIN * largest)).astype(np.int64) if largest > 0 else np.zeros(mark.shape, np.int64)
        )
        first = np.zeros(len(distinct), bool)
        first[np.unique(rounded_marks @ np.array([1, 2**20, 2**40]), return_index=True)[1]] = True
        distinct &= first | ~mark.any(1)
    return np.flatnonzero(distinct) if distinct.any() else np.array([0])
