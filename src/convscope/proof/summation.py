"""Sums: one channel of a convolution added up in its own type, term by term, in several orders.

Knows the reference; nothing of rules, expressions and traces. Each order rounds as a kernel does: after every product
or only after the addition (fused), from the first term or from the last, before or after the bias, in one sum or in
eight that are joined at the end. Bfloat16 and half are added in float32 and rounded once at the end.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.reference.casting import cast
from convscope.reference.table import OPERATIONS

Array = NDArray[Any]
LANES = 8
"""Sums that a vector unit carries along."""
CELLS = 2**14
"""Cells that are added up again, at most: what has a direction shows in a part of them."""


def drift(op: str, arguments: Mapping[str, Any], channel: int, held: Array, cells: Array, *, dtype: str) -> float:
    """The largest distance of a mean over `cells` that rounding alone makes, in any of the orders.

    Args:
        op: A convolution.
        arguments: As its ATen schema names them.
        channel: Which output channel.
        held: Its expected values as their type holds them, flattened.
        cells: Which of them count.
        dtype: Their type.
    """
    chosen = cells[:: -(-len(cells) // CELLS)]
    bias = arguments.get("bias")
    last = 0.0 if bias is None else float(bias[channel])
    kind: type[Any] = np.float64 if dtype == "float64" else np.float32
    with np.errstate(all="ignore"):
        orders = [
            total
            for backward in (False, True)
            for total in _totals(_terms(op, arguments, channel, chosen, backward), len(chosen), last, kind)
        ]
        if arguments.get("transposed") and dtype in {"bfloat16", "float16"}:
            orders += _columns(list(arguments["weight"].shape[2:]), _terms(op, arguments, channel, chosen), last, dtype)
        return max(abs(float(np.mean(cast(total, dtype) - held[chosen]))) for total in orders)


def _totals(terms: Iterator[tuple[Array, float]], count: int, bias: float, kind: type[Any]) -> list[Array]:
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
    found = []
    for start, end in ((bias, 0.0), (0.0, bias)):
        for order in (sums, sums[::-1]):
            total = np.full(sums[0].shape, start)
            for tap in order:
                total = cast(total + cast(tap, dtype), dtype)
            found.append(cast(total + end, dtype))
    return found


def _terms(
    op: str, arguments: Mapping[str, Any], channel: int, cells: Array, backward: bool = False
) -> Iterator[tuple[Array, float]]:
    """What each number of the kernel is multiplied by in the given cells, and the number itself."""
    x, weight, groups = arguments["input"], arguments["weight"], int(arguments.get("groups", 1))
    transposed = bool(arguments.get("transposed"))
    each = x.shape[1] // groups
    group, within = divmod(channel, weight.shape[1] if transposed else weight.shape[0] // groups)
    kernel = weight.shape[2:]
    taps = int(np.prod(kernel))
    probe = np.eye(taps).reshape(1, taps, *kernel) if transposed else np.eye(taps).reshape(taps, 1, *kernel)
    order = slice(None, None, -1 if backward else 1)
    for at in range(each)[order]:
        row = group * each + at
        plane = x[:, row : row + 1]
        seen = OPERATIONS[op].compute(**{**arguments, "input": plane, "weight": probe, "bias": None, "groups": 1})
        assert isinstance(seen, np.ndarray)
        numbers = (weight[row, within] if transposed else weight[channel, at]).reshape(-1)
        for tap in range(taps)[order]:
            yield seen[:, tap].reshape(-1)[cells], float(numbers[tap])
