"""Layer arithmetic: output sizes, parameter counts and multiply-adds as formulas with their numbers.

The formulas are PyTorch's documented ones and use only integers: `summary` applies them to a recorded pass, and
`blocks` to a network that does not exist yet, so both show the same text.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """A calculation with integers.

    >>> print(Sum("(3·3·8 + 1)·16", 1168))
    (3·3·8 + 1)·16 = 1,168
    """

    text: str
    """The left side, with the numbers filled in: `⌊ ⌋` rounds down, `⌈ ⌉` up."""
    value: int

    def __str__(self) -> str:
        shown = f"{self.value:,}"
        return shown if self.text in {shown, str(self.value)} else f"{self.text} = {shown}"

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {"text": self.text, "value": self.value}


NOTHING = Sum("0", 0)


def product(numbers: Iterable[int]) -> str:
    """Numbers with dots between them.

    >>> product((3, 3, 8))
    '3·3·8'
    """
    return "·".join(map(str, numbers)) or "1"


def window_size(n: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool = False) -> Sum:
    """The number of positions of a window along an axis.

    >>> print(window_size(28, 3, 1, 1, 1))
    (28 + 2·1 - 3) / 1 + 1 = 28
    >>> print(window_size(28, 3, 2, 0, 2))
    ⌊(28 + 2·0 - 2·(3 - 1) - 1) / 2⌋ + 1 = 12

    Args:
        n: Cells along the axis.
        kernel, stride, padding, dilation: As in PyTorch's layers.
        ceil: Whether a last window may extend past the end, as with pooling's `ceil_mode`.

    Source: PyTorch documentation, torch.nn.Conv2d and torch.nn.MaxPool2d.
    """
    last_start = n + 2 * padding - dilation * (kernel - 1) - 1
    extent = f"{kernel}" if dilation == 1 else f"{dilation}·({kernel} - 1) - 1"
    text = f"({n} + 2·{padding} - {extent}) / {stride}"
    if last_start % stride == 0:
        return Sum(f"{text} + 1", last_start // stride + 1)
    if not ceil:
        return Sum(f"⌊{text}⌋ + 1", last_start // stride + 1)
    count = -(-last_start // stride) + 1
    if (count - 1) * stride >= n + padding:  # a window must not start in the padding behind the last cell
        return Sum(f"⌈{text}⌉ + 1 - 1", count - 1)
    return Sum(f"⌈{text}⌉ + 1", count)


def transposed_size(n: int, kernel: int, stride: int, padding: int, dilation: int, *, more: int) -> Sum:
    """The output size of a transposed convolution along an axis.

    >>> print(transposed_size(7, 2, 2, 0, 1, more=0))
    (7 - 1)·2 - 2·0 + 1·(2 - 1) + 0 + 1 = 14

    Source: PyTorch documentation, torch.nn.ConvTranspose2d.
    """
    size = (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + more + 1
    return Sum(f"({n} - 1)·{stride} - 2·{padding} + {dilation}·({kernel} - 1) + {more} + 1", size)


AxisSums = tuple[tuple[int, Sum], ...]
"""Axis of the result, and the calculation of its length."""


def regrouped(before: Shape, after: Shape) -> list[tuple[Shape, tuple[int, ...]]]:
    """Runs of axes that a reshape turns into one another: sizes before, axes after.

    >>> regrouped((1, 16, 5, 5), (1, 400))
    [((1,), (0,)), ((16, 5, 5), (1,))]
    """
    groups, i, j = list[tuple[Shape, tuple[int, ...]]](), 0, 0
    while i < len(before) and j < len(after):
        rows, columns = [i], [j]
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
                rows.append(i - 1)
            elif right < left and j < len(after):
                right, j = right * after[j], j + 1
                columns.append(j - 1)
            else:
                return groups
        groups.append((tuple(before[row] for row in rows), tuple(columns)))
    return groups


def reshape_sums(before: Shape, after: Shape) -> AxisSums:
    """Lengths of the axes that a reshape makes from several.

    >>> [(axis, str(length)) for axis, length in reshape_sums((1, 16, 3, 3), (1, 144))]
    [(1, '16·3·3 = 144')]
    """
    return tuple(
        (axes[0], Sum(product(n for n in sizes if n != 1), after[axes[0]]))
        for sizes, axes in regrouped(before, after)
        if len(axes) == 1 and sum(n != 1 for n in sizes) > 1
    )


def parameter_sum(shapes: Sequence[Shape]) -> Sum:
    """The number of a step's parameters.

    >>> print(parameter_sum([(16, 8, 3, 3), (16,)]))
    (3·3·8 + 1)·16 = 1,168
    >>> print(parameter_sum([(64,), (64,)]))
    2·64 = 128
    """
    count = sum(map(math.prod, shapes))
    if not shapes:
        return NOTHING
    weight, *others = shapes
    biased = others == [weight[:1]]
    if len(weight) > 1 and (biased or not others):
        inside = product((*weight[2:], weight[1]))
        return Sum(f"({inside} + 1)·{weight[0]}" if biased else f"{inside}·{weight[0]}", count)
    if len(set(shapes)) == 1 and len(shapes) > 1:
        return Sum(product((len(shapes), *weight)), count)
    products = ["·".join(map(str, shape)) or "1" for shape in shapes]
    return Sum(" + ".join(products), count)


def multiplied(cells: Shape, per_cell: Shape, batch: Shape = ()) -> Sum:
    """Multiply-adds: the cells of a result, times the products in each.

    >>> print(multiplied((28, 28, 16), (3, 3, 8)))
    28·28·16 · 3·3·8 = 903,168
    """
    leading = tuple(n for n in batch if n != 1)
    numbers = (*leading, *cells, *per_cell)
    texts = [product(part) for part in (leading, cells, per_cell) if part]
    return Sum(" · ".join(texts), math.prod(numbers))


def convolution_cost(result: Shape, weight: Shape) -> Sum:
    """Multiply-adds of a convolution: shapes (N, K, P, Q) of its result and (K, C, R, S) of its weight."""
    batch, cells = result[: len(result) - len(weight) + 1], result[len(result) - len(weight) + 1 :]
    return multiplied((*cells[1:], cells[0]), (*weight[2:], weight[1]), batch)


def product_cost(result: Shape, inner: Shape) -> Sum:
    """Multiply-adds of a matrix product: each cell of the result adds `inner` products."""
    return multiplied(tuple(n for n in result if n != 1) or (1,), inner)


def sum_texts(
    shape: Shape, size: AxisSums, parameters: Sum, multiply_adds: Sum, shared: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """The sums of a layer as text: the name and the calculation.

    >>> size = tuple((axis, window_size(28, 3, 1, 1, 1)) for axis in (2, 3))
    >>> list(sum_texts((1, 16, 28, 28), size, parameter_sum([(16, 8, 3, 3), (16,)]), NOTHING))
    [('size', '(28 + 2·1 - 3) / 1 + 1 = 28'), ('parameters', '(3·3·8 + 1)·16 = 1,168')]

    Args:
        shape: Shape of its result, with the batch axis.
        size: How the lengths of axes follow from the input.
        parameters, multiply_adds: Its counts; those of 0 are left out.
        shared: Its parameters that an earlier layer has counted.
    """
    yield from _size_texts(shape, size)
    if parameters.value:
        yield "parameters", str(parameters)
    if shared:
        yield "shared", f"{', '.join(shared)}: counted above"
    if multiply_adds.value:
        yield "multiply-adds", str(multiply_adds)


def _size_texts(shape: Shape, size: AxisSums) -> Iterator[tuple[str, str]]:
    """The sums of an output size, equal ones once, each with the recorded length where that differs."""
    texts = dict[str, list[int]]()
    for axis, total in size:
        recorded = shape[axis]
        text = str(total) if recorded == total.value else f"{total}, recorded {recorded:,}"
        texts.setdefault(text, []).append(axis)
    names = {2: "rows", 3: "columns"} if len(shape) == 4 and len(texts) > 1 else {}
    names |= {1: "channels"} if len(shape) > 3 else {1: "size"}  # the second of three axes may hold tokens
    for text, axes in texts.items():
        yield (names.get(axes[0], "size") if len(axes) == 1 else "size"), text
