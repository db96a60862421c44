"""Worksheet: a calculation as lines for views that draw windows and kernels themselves, such as a web page.

Everything that is added, rounded and compared is here, so that callers need not compute anything again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convscope.expr.expr import Apply, Cells, Dot, Expr
from convscope.expr.precision import exact_sum
from convscope.render.drawing import BRIEF, SERIES, compared, draw, draw_formula, headline, result, rounding
from convscope.render.numbers import NumberScale, short
from convscope.render.reductions import draw_cells, draw_extreme
from convscope.render.sums import BLANK, RULE, Detail, Row, closing, listed, scale_of

LARGEST = 64
"""Larger windows are not drawn."""


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """The terms of one channel of a window."""

    number: int | None
    """The channel of the tensor that contains the window; None if there is only one."""
    terms: NDArray[np.int64]
    """Indices into the sum's terms, shape (R, S)."""
    total: float
    """The sum of its products."""


def area_of(dot: Dot) -> int:
    """Number of consecutive terms in each plane of the window; 0 if the sum is not a window of planes."""
    grid = dot.left.grid
    kernel = dot.right is not None and dot.right.source.kind != "computed"
    if len(grid) - kernel != 2 or len(dot.left.source.shape) < 3 or max(grid[-2:]) > LARGEST or len(dot.left) < 2:
        return 0
    return int(np.prod(grid[-2:]))


def channels_of(dot: Dot) -> list[Channel]:
    """The window's planes, one per channel; empty if the sum is not a window of planes.

    Args:
        dot: A convolution, a pooling, an interpolation, a mean over planes.
    """
    shape = dot.left.source.shape
    if not area_of(dot):
        return []
    planes = np.arange(len(dot.left)).reshape(-1, *dot.left.grid[-2:])
    products = dot.products
    numbers = [int(dot.left.cells[plane[0, 0], -3]) if shape[-3] > 1 else None for plane in planes]
    return [Channel(k, plane, exact_sum(products[plane].ravel())) for k, plane in zip(numbers, planes, strict=True)]


CHANNELS = 8
"""Channels of a window whose sums have a line of their own."""


@dataclass(frozen=True, slots=True)
class WorksheetLine:
    """One line: what is added, its number as it is shown, a remark."""

    kind: Literal["row", "rule", "blank", "text"]
    label: str = ""
    number: str = ""
    after: str = ""
    channel: int | None = None
    """Whose sum it is, where it is that of one channel of a window."""
    term: int | None = None
    """The index of the term of the sum, or of the function's cell, that it shows."""


@dataclass(frozen=True, slots=True)
class Worksheet:
    """A calculation, all but the grids.

    >>> from convscope.expr.call import Source
    >>> from convscope.expr.expr import number
    >>> total = Apply("add", {"x": number(1, "x"), "y": number(0.25, "y")})
    >>> [line.label for line in worksheet(total, 1.25, 0.0).lines if line.kind == "row"]
    ['x', 'y', '1 + 0.25', 'calculated', 'recorded', 'difference']
    """

    headline: str
    """A description of the number."""
    result: str
    """The number, rounded as the calculation shows it."""
    lines: tuple[WorksheetLine, ...]
    """Terms or channel sums, the largest first, then the others; sum, rounding, bias, result, comparison."""
    dot: Dot | None = field(default=None, repr=False)
    """The sum of products that it calculates; None if it has none."""
    scale: NumberScale = field(default=NumberScale(0), repr=False)
    """The format of the products."""

    def products(self, terms: Iterable[int]) -> list[str]:
        """Some products of the sum as they are shown."""
        products = self._sum.products
        return [self.scale.show(float(products[i])) for i in terms]

    def sums(self, terms: Iterable[int]) -> list[str]:
        """The sum of the products as shown, added one after the other; each channel of a window separately.

        The last one of a channel is what its line says; of a sum without channels, it is the sum of these terms.
        """
        scale, area, products = self.scale, area_of(self._sum), self._sum.products
        finite = bool(np.isfinite(products).all())
        texts: list[str] = []
        so_far: float = 0
        for i in terms:
            product = float(products[i])
            added = scale.units(product) if finite else product
            so_far = added if area and i % area == 0 else so_far + added
            texts.append(scale.text(int(so_far)) if finite else scale.show(so_far))
        return texts

    @property
    def _sum(self) -> Dot:
        assert self.dot is not None
        return self.dot


def worksheet(expr: Expr, recorded: float, bound: float) -> Worksheet:
    """A calculation as lines.

    Args:
        expr: What made the number.
        recorded: What PyTorch gave.
        bound: How far the two may be apart.
    """
    last = Row("calculated", result(expr), rounding(expr))
    lines = [*_calculation(expr), *_lines([RULE, last, *compared(expr, recorded, bound)])]
    if isinstance(expr, Dot) and len(expr.left):
        return Worksheet(headline(expr), result(expr), tuple(lines), expr, scale_of(expr))
    return Worksheet(headline(expr), result(expr), tuple(lines))


def _calculation(expr: Expr) -> list[WorksheetLine]:
    if isinstance(expr, Dot):
        channels = channels_of(expr)
        return _window(expr, channels) if channels else _lines(listed(expr, Detail()))
    if not isinstance(expr, Apply):
        return _lines(draw(expr))
    if expr.function in SERIES:
        lines = SERIES[expr.function](expr, Detail())
        rows = [line for line in lines if isinstance(line, Row) or SERIES[expr.function] is not draw_extreme]
        return _lines(rows[1:] if rows[:1] == [BLANK] else rows)
    if any(isinstance(a, Cells) for a in expr.arguments.values()):
        return _lines(draw_cells(expr, Detail()))
    return [*_inner(expr), *_lines(draw_formula(expr))]


def _inner(apply: Apply) -> list[WorksheetLine]:
    """The sums and functions that go in as arguments; their terms are not those of the whole."""
    lines: list[WorksheetLine] = []
    for name, argument in {} if apply.function in BRIEF else apply.arguments.items():
        if isinstance(argument, Dot | Apply):
            inside = [replace(line, channel=None, term=None) for line in _calculation(argument)]
            end = _lines([RULE, Row(name, result(argument)), BLANK])
            lines += [WorksheetLine("text", f"{name}: {headline(argument)}"), *inside, *end]
    return lines


def _window(dot: Dot, channels: list[Channel]) -> list[WorksheetLine]:
    """The channels with the largest sums, a line for the others, and what leads from there to the result."""
    scale = scale_of(dot)
    if not np.isfinite([*dot.products, dot.value()]).all():
        return _lines([Row(f"sum of the {len(dot.left):,} products", short(dot.total()))])
    order = np.argsort([-abs(channel.total) for channel in channels], kind="stable")
    shown = [channels[k] for k in order[: len(channels) if len(channels) <= CHANNELS * 1.5 else CHANNELS]]
    units = [sum(scale.units(float(p)) for p in dot.products[c.terms].ravel()) for c in shown]
    lines = []
    if len(channels) > 1:
        lines = [
            WorksheetLine(
                "row", f"{dot.left.source.name} channel {c.number}, sum of {c.terms.size:,}", scale.text(u),
                channel=c.number,
            )
            for c, u in zip(shown, units, strict=True)
        ]  # fmt: skip
    if len(shown) < len(channels):
        left = len(channels) - len(shown)
        units.append(scale.units(dot.total() - sum(channel.total for channel in shown)))
        label = f"the other {left:,} channels, sum of {left * shown[0].terms.size:,}"
        lines.append(WorksheetLine("row", label, scale.text(units[-1])))
    return [*lines, *_lines([*([RULE] if lines else []), *closing(dot, scale, sum(units), drawn=True)])]


def _lines(rows: Iterable[Row | str]) -> list[WorksheetLine]:
    lines = []
    for row in rows:
        if isinstance(row, str):
            lines.append(WorksheetLine("text", row))
        elif row in {RULE, BLANK}:
            lines.append(WorksheetLine("rule" if row == RULE else "blank"))
        else:
            lines.append(WorksheetLine("row", row.label, row.number, row.after, term=row.term))
    return lines
