"""Expr: what made one number, as a small expression of recorded numbers.

Uses NumPy and the table of functions; no operations, no steps, no text. A `Leaf` is a recorded number, a `Dot` a sum
of products, an `Apply` a function of other expressions; `Cells` are many numbers of one tensor, as aligned arrays.

Every expression evaluates itself in float64 (`value`) and says how far the float kernel that it explains may have ended
from there (`error`): sums by the number and magnitude of what they add, functions by their units in the last place.

An expression may stand for n cells at once, as `Vectorized` rules make it: its arrays then have a leading axis of n
(a `Leaf` has n numbers), its result is two arrays of shape (n,), and no sentence goes with it. What is evaluated is the
same arithmetic, along the last axis.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Cell, Places, Source
from convscope.expr.precision import (
    EXACT,
    WHOLE,
    Precision,
    exact,
    exact_sum,
    exact_sums,
    gamma,
    sums,
    wrapped,
    writing_error,
)
from convscope.expr.primitives import PRIMITIVES
from convscope.expr.primitives.primitive import Primitive
from convscope.typing import Array, Numbers

WRITTEN = "written"
"""The type of a number in a call: a kernel rounds it to its own."""


class BoundedResult(NamedTuple):
    """A number and how far the kernel's own may be from it; of n cells at once, two arrays of shape (n,)."""

    value: Numbers
    error: Numbers


@dataclass(frozen=True, slots=True)
class Leaf:
    """One recorded number: a cell of a tensor, or a number written in the call.

    >>> Leaf(0.25, Source("eps", "number")).value()
    0.25
    """

    number: Numbers
    """An int only where a float would round it; of n cells, an array of shape (n,)."""
    source: Source
    cell: Cell = ()

    @property
    def label(self) -> str:
        """Where the number stands: `conv1 (3, 10, 12)`, `conv1.bias[3]`."""
        return self.source.label(self.cell)

    @property
    def scalar(self) -> float:
        """The number of one cell, an int where it is one."""
        assert not isinstance(self.number, np.ndarray)
        return self.number

    def value(self) -> float:
        """The number itself."""
        return float(self.number)

    def result(self, precision: Precision) -> BoundedResult:
        """The number; exact where it was read from a tensor, rounded once to the kernel's type where it was written.

        A tensor without axes counts as written: it takes the type of what it is combined with.
        """
        coarsest = max(precision.sum, precision.stored)
        written = self.source.dtype == WRITTEN or (not self.cell and Precision.of(self.source.dtype).finer(coarsest))
        value = self.number.astype(np.float64) if isinstance(self.number, np.ndarray) else float(self.number)
        return BoundedResult(value, writing_error(value, precision) if written else 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Several numbers of one tensor, as aligned arrays: a window, a row, a kernel.

    >>> window = Cells(np.array([1.0, 2.0]), Source("image", "input", (1, 4)), np.array([[0, 0], [0, 1]]), (2,))
    >>> len(window), window.leaf(1).label
    (2, 'image (1)')
    """

    values: Array
    """float64, shape (T,); int64 where float64 would round one of them. Of n cells, (n, T)."""
    source: Source
    places: Array | Places
    """Which cell each number is: as `cells`, or as what these are written out from."""
    grid: tuple[int, ...]
    """Layout of the T numbers, the last axis fastest: (channels, rows, columns) for a window."""
    inside: Array | None = None
    """False where a number is padding, shape (T,); or None."""
    errors: Array | None = None
    """How far the kernel's intermediate numbers may be from these, shape (T,); None for recorded numbers."""
    derive: Callable[[int], "Leaf | Dot | Apply"] | None = field(default=None, repr=False)
    """The expression of one intermediate number; None for recorded numbers."""
    origins: tuple[tuple[Source, Cell], ...] = field(default=(), repr=False)
    """Tensor and cell in which each number was made, where these are several tensors."""

    @property
    def cells(self) -> Array:
        """Which cell each number is, int64, shape (T, axes); outside the tensor where it is padding."""
        return self.places.cells() if isinstance(self.places, Places) else self.places

    @property
    def many(self) -> bool:
        """Whether these are numbers of many cells."""
        return self.values.ndim > 1

    def __len__(self) -> int:
        return int(self.values.shape[-1])

    def is_padding(self, index: int) -> bool:
        """Whether this number is outside the tensor."""
        return self.inside is not None and not self.inside[index]

    def placed(self, positions: Array) -> "Cells":
        """These cells with their positions in the place of their numbers."""
        source = Source("positions", "number", self.source.shape, "int64")
        return Cells(positions.astype(np.float64), source, self.places, self.grid)

    def leaf(self, index: int) -> Leaf:
        """One of them alone."""
        made = self.origins[index] if self.origins else (self.source, tuple(map(int, self.cells[index])))
        return Leaf(exact(self.values[index]), *made)


@dataclass(frozen=True, slots=True, eq=False)
class Dot:
    """A sum of products, scaled, plus a bias: the arithmetic of a convolution, a linear layer, a mean.

    >>> image = Source("image", "input", (1, 2))
    >>> window = Cells(np.array([1.0, 2.0]), image, np.array([[0, 0], [0, 1]]), (2,))
    >>> Dot(window, divisor=2).value()
    1.5
    """

    left: Cells
    right: Cells | None = None
    """What each number is multiplied by, aligned with `left`; None where they are just added."""
    bias: "Leaf | Apply | None" = None
    scale: float = 1.0
    divisor: float = 1.0
    note: str = ""
    """What this sum is, in words."""
    extra: Numbers = 0
    """Roundings of the kernel beyond those of a sum, its scale, divisor and bias."""
    narrow: int = 0
    """How many roundings of partial sums are to the type of the result, where the kernel stores these in between."""
    parts: int = 0
    """How many partial sums the kernel stores and adds up in this order, products in turn; 0 where it stores none."""
    kind: str = ""
    """The integer type it counts in, where it is one: without rounding, and around at the ends of its range."""
    skips: bool = False
    """Whether the kernel leaves padding out instead of multiplying zeros."""

    @property
    def values(self) -> Array:
        """The numbers, float64, shape (T,)."""
        return self.left.values

    @property
    def weights(self) -> Array:
        """What each is multiplied by, float64, shape (T,)."""
        return np.ones_like(self.left.values) if self.right is None else self.right.values

    @property
    def sources(self) -> Array:
        """The cell of each number, int64, shape (T, axes)."""
        return self.left.cells

    @property
    def products(self) -> Array:
        """Each number times its weight: float64, shape (T,), before scale and divisor.

        Padding counts as zeros, and zero times an infinite weight is nan; unless the kernel `skips` it.
        """
        products = self.left.values.astype(np.float64, copy=False)
        with np.errstate(all="ignore"):
            products = products if self.right is None else products * self.right.values
        return np.where(self.left.inside, products, 0.0) if self.skips and self.left.inside is not None else products

    @property
    def factor(self) -> float:
        """What the sum of the products is multiplied by."""
        return float(self._factors())

    def _factors(self) -> Numbers:
        """The same, of many cells an array."""
        return _over(self.scale, self.divisor)

    def total(self) -> float:
        """The sum of the products alone: no scale, no bias."""
        return exact_sum(self.products)

    def value(self) -> float:
        """The number, calculated in float64 with one rounding in the sum."""
        return float(self.result(EXACT).value)

    def result(self, precision: Precision) -> BoundedResult:
        """The number and its bound: (T + 1) roundings of all magnitudes, T counting the products that are not zero.

        Adding a zero is exact, so it costs no rounding; scale, divisor and bias cost one each. With intermediate
        numbers their own errors come on top, each times the other factor.

        A sum whose magnitudes exceed the type may overflow on its way, whatever comes out: then there is no limit.

        Source: Higham 2002, section 3.1, for a sum in any order and with or without fused multiply-add.
        """
        if self.kind:
            return BoundedResult(float(self._counted()), 0.0)
        products = self.products
        total = exact_sum(products) if products.ndim == 1 else exact_sums(products)
        value = _over(total * self.scale, self.divisor)
        with np.errstate(all="ignore"):
            error = self._inherited()
            added = sums(products, np.abs)
            scaled_sum, size = added * max(abs(self.scale), 1.0), added * np.abs(self._factors())
            roundings = np.count_nonzero(products, axis=-1) - (self.right is None)
            roundings = roundings + self.extra + (self.scale != 1) + (self.divisor != 1)
            if self.bias is not None:
                plus = self.bias.result(precision)
                value, error, size = value + plus.value, error + plus.error, size + abs(plus.value)
                roundings = roundings + 1
            error = error + gamma(np.maximum(roundings, 0), precision.sum) * size
            if self.narrow and precision.inner:
                stored = gamma(self.narrow, precision.inner) * (self._put_down(products, size, added) + error)
                if self.parts:
                    stored = np.fmin(stored, self._walked(products, value, precision, error))
                error = error + stored
            if self.right is not None and precision.flushes:  # products of numbers that the kernel takes for 0
                small = np.minimum(np.abs(self.left.values), np.abs(self.right.values)) < precision.tiny
                error = error + (np.abs(products) * small).sum(-1) * abs(self.factor)
            error = np.where(np.maximum(scaled_sum, size) >= precision.room, np.inf, error)
            error = error + (roundings > 0) * precision.tiny * np.maximum(1.0, roundings * abs(self.factor))
        return BoundedResult(value, error) if products.ndim > 1 else BoundedResult(float(value), float(error))

    def _counted(self) -> int:
        """The sum in integers."""
        left = [int(number) for number in self.values.tolist()]
        right = [1] * len(left) if self.right is None else [int(number) for number in self.right.values.tolist()]
        total = sum(a * b for a, b in zip(left, right, strict=True)) * int(self.scale)
        total = total if self.divisor == 1 else WHOLE["trunc_div"](total, int(self.divisor))
        return wrapped(total + (0 if self.bias is None else counted(self.bias)), self.kind)

    def _put_down(self, products: Array, size: Numbers, added: Numbers) -> Numbers:
        """The magnitudes of what the kernel stores: of the partial sums of products, and of the rest."""
        if not self.parts:
            return size
        sums = np.abs(products.reshape(*products.shape[:-1], -1, self.parts).sum(-2)).sum(-1)
        return size - (added - sums) * abs(self.factor)

    def _walked(self, products: Array, value: Numbers, precision: Precision, error: Numbers) -> Numbers:
        """What is lost where the kernel adds the partial sums up in turn, each stored: by their running sums.

        If each partial sum c and each running sum r is rounded by u, the error after P of them is at most (1 + u)^P
        times the sum of u·(|c| + |r|); the result with its bias is rounded once more.
        """
        parts = products.reshape(*products.shape[:-1], -1, self.parts).sum(-2)
        running = np.cumsum(parts, -1)
        lost = precision.inner * (np.abs(parts).sum(-1) + np.abs(running).sum(-1) + np.abs(value))
        return (lost + error) * (1 + precision.inner) ** (self.parts + 2) - error

    def _inherited(self) -> Numbers:
        """What the errors of intermediate numbers add up to."""
        error: float | Array = 0.0
        left_errors, right_errors = self.left.errors, None if self.right is None else self.right.errors
        if self.right is None:
            errors = 0.0 if left_errors is None else left_errors
            return sums(np.broadcast_to(errors, self.values.shape), np.asarray) * np.abs(self._factors())
        if left_errors is not None:
            error = error + left_errors * np.abs(self.weights)
        if right_errors is not None:
            error = error + right_errors * (np.abs(self.values) + (0.0 if left_errors is None else left_errors))
        return np.sum(error, axis=-1) * np.abs(self._factors()) if isinstance(error, np.ndarray) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """A function of other numbers, found in `FUNCTIONS` by name.

    >>> Apply("relu", {"x": Leaf(-0.5, Source("conv1", "step", (1,)), (0,))}).value()
    0.0
    """

    function: str
    arguments: Mapping[str, "Leaf | Cells | Dot | Apply"]
    """In the order in which the function takes them."""
    note: str = ""
    """What this number is, in words."""
    kind: str = ""
    """The integer type it counts in, where it is one: without rounding, and around at the ends of its range."""

    def value(self) -> float:
        """The number, calculated in float64."""
        return float(self.result(EXACT).value)

    def result(self, precision: Precision) -> BoundedResult:
        """The number and its bound: the function's own roundings, plus its slope times its arguments' errors."""
        if self.kind:
            return BoundedResult(float(counted(self)), 0.0)
        values: list[Numbers] = []
        errors: list[Numbers] = []
        for argument in self.arguments.values():
            if isinstance(argument, Cells):
                values.append(argument.values.astype(np.float64, copy=False))
                errors.append(0.0 if argument.errors is None else argument.errors)
            else:
                result = argument.result(precision)
                values.append(result.value)
                errors.append(result.error)
        rows = [isinstance(argument, Cells) for argument in self.arguments.values()]
        with np.errstate(all="ignore"):
            return _applied(PRIMITIVES[self.function], precision, values, errors, rows)


def _applied(
    primitive: Primitive, precision: Precision, values: list[Numbers], errors: list[Numbers], rows: list[bool]
) -> BoundedResult:
    """A function of single numbers, of n cells at once where the arguments have a leading axis.

    One cell is n = 1 for the functions that take arrays, so that it gets the same bits alone as among others. The
    others are called for each cell.
    """
    is_batch = max(np.ndim(value) - row for value, row in zip(values, rows, strict=True)) > 0
    if primitive.many:
        if not is_batch:
            values = [np.asarray(value)[None] for value in values]
            errors = [e[None] if row and isinstance(e, np.ndarray) else e for e, row in zip(errors, rows, strict=True)]
        result = primitive.value(*values)
        error = primitive.error(precision, result, values, errors)
        return BoundedResult(result, error) if is_batch else BoundedResult(_single(result), _single(error))
    if not is_batch:
        values = [np.float64(v) if isinstance(v, float) else v for v in values]  # x**2 of a Python float may raise
        result = np.float64(primitive.value(*values))
        return BoundedResult(float(result), float(primitive.error(precision, result, values, errors)))
    count = max(np.shape(value)[0] for value, row in zip(values, rows, strict=True) if np.ndim(value) > row)
    cells = [_applied(primitive, precision, _rows(values, rows, k), _rows(errors, rows, k), rows) for k in range(count)]
    return BoundedResult(np.array([cell.value for cell in cells]), np.array([cell.error for cell in cells]))


def _rows(arguments: list[Numbers], rows: list[bool], index: int) -> list[Numbers]:
    """What one of many cells has of each argument; a single number or row is the same for all."""
    return [
        (a[index] if row else float(a[index])) if isinstance(a, np.ndarray) and a.ndim > row else a
        for a, row in zip(arguments, rows, strict=True)
    ]


def _single(numbers: Numbers) -> float:
    return float(np.ravel(numbers)[0])


Expr = Leaf | Dot | Apply
"""What made one number."""


def counted(expr: Expr) -> int:
    """The value of an expression of integers, in integers.

    >>> x, y = (Leaf(n, Source("x", "step", dtype="uint8")) for n in (200.0, 100.0))
    >>> counted(Apply("add", {"x": x, "y": y}, kind="uint8"))
    44
    """
    if isinstance(expr, Leaf):
        return int(expr.number)
    if isinstance(expr, Apply) and expr.kind:
        arguments = (
            [int(n) for n in a.values.tolist()] if isinstance(a, Cells) else counted(a) for a in expr.arguments.values()
        )
        return wrapped(WHOLE[expr.function](*arguments), expr.kind)
    return int(expr.value())


def _over(dividend: Numbers, divisor: Numbers) -> Numbers:
    """A quotient as IEEE arithmetic gives it: the mean of no cells is nan."""
    with np.errstate(all="ignore"):
        quotient = np.divide(dividend, divisor)
    return quotient if np.ndim(quotient) else float(quotient)


def number(value: float, name: str, dtype: str = WRITTEN) -> Leaf:
    """A number that is written in the call, such as `eps`.

    Args:
        dtype: The type that the kernel reads it in, where it matters that it has been rounded to that already.
    """
    return Leaf(float(value), Source(name, "number", dtype=dtype))
