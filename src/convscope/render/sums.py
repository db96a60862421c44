"""Sums: a sum of products, every number of it as grids, or the largest terms and the total of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convscope.expr.expr import Cells, Dot, Leaf
from convscope.expr.precision import exact_sum
from convscope.render.numbers import NumberScale, beside, right, short, table
from convscope.typing import Array


@dataclass(frozen=True, slots=True)
class Detail:
    """The number of terms listed of a long sum.

    >>> Detail().count(4608), Detail().count(12), Detail(everything=True).count(4608)
    (8, 12, 4608)
    """

    terms: int = 8
    """The largest ones; all where there are no more than half as many again."""
    everything: bool = False

    def count(self, total: int) -> int:
        """Number of terms to show out of a total."""
        return total if self.everything or total <= self.terms * 1.5 else self.terms


INDENT = "  "


@dataclass(frozen=True, slots=True)
class Row:
    """A label with its number, as text.

    >>> Row("conv1.bias[0]", "2.2435").number
    '2.2435'
    """

    label: str
    number: str
    after: str = ""
    """A remark behind the number."""
    term: int | None = None
    """The index of the term of a sum, or of the function's cell, that the row shows."""


RULE = Row("─", "")
BLANK = Row("", "")
Lines = Sequence[Row | str]
"""Rows, and whole lines of text between them."""


def render(lines: Lines) -> list[str]:
    """Rows with their numbers aligned at the point, whole lines as they are.

    >>> print(*render(["a line", Row("sum", "−3.25"), RULE, Row("calculated", "10.5")]), sep="\\n")
    a line
    sum          −3.25
    ──────────────────
    calculated   10.5
    """
    rows = [line for line in lines if isinstance(line, Row) and line not in {RULE, BLANK}]
    left = max((len(row.label) for row in rows), default=0)
    wholes = max((len(row.number.partition(".")[0]) for row in rows), default=0)
    behind = max((len(row.number) - len(row.number.partition(".")[0]) for row in rows), default=0)
    texts = []
    for line in lines:
        if isinstance(line, str):
            texts.append(line)
        elif line is RULE:
            texts.append("─" * (left + 3 + wholes + behind))
        elif line is BLANK:
            texts.append("")
        else:
            integer, point, fraction = line.number.partition(".")
            number = integer.rjust(wholes) + (point + fraction).ljust(behind)
            texts.append(f"{line.label.ljust(left)}   {number}   {line.after}".rstrip())
    return texts


def indented(lines: Sequence[str], indent: str = INDENT) -> list[str]:
    """Lines moved to the right; empty ones stay empty."""
    return [indent + line if line else "" for line in lines]


WIDTH = 98
PADDING = "·"
CHANNELS = 4


def grids(dot: Dot, scale: NumberScale, everything: bool = False) -> list[str]:
    """The lines of the drawing; empty if the sum has no plane, or one too large to display.

    Args:
        dot: A convolution, a pooling, an interpolation, a mean over planes.
        scale: How its products are shown.
        everything: Draw all channels, however many.
    """
    planes = _planes(dot)
    if planes is None or (len(planes) > CHANNELS and not everything):
        return []
    columns = [dot.left.values, *([] if dot.right is None else [dot.right.values])]
    scales = [NumberScale.of(map(float, column)) for column in columns]
    for gap in ("  ", " "):
        blocks = [_block(dot, plane, scales, scale, gap) for plane in planes]
        if max(len(line) for block in blocks for line in block[1:]) <= WIDTH:
            return [line for block in blocks for line in ("", *block)][1:]
    return []


def _planes(dot: Dot) -> Array | None:
    """The terms of each plane, (channels, rows, columns); None without planes."""
    grid = dot.left.grid
    convolution = dot.right is not None and dot.right.source.kind != "computed"
    spatial = len(grid) - convolution
    if spatial != 2 or len(dot.left.source.shape) < 3 or grid[-2] > 8 or grid[-2] * grid[-1] < 2:
        return None
    return np.arange(len(dot.left)).reshape(-1, *grid[-2:])


def _block(dot: Dot, plane: Array, scales: list[NumberScale], scale: NumberScale, gap: str) -> list[str]:
    window = _numbers(dot.left.values, plane, scales[0], dot.left, gap)
    if dot.right is None:
        return [region(dot.left, plane), *window]
    kernel = _numbers(dot.right.values, plane, scales[1], None, gap)
    products = _numbers(dot.products, plane, scale, dot.left, gap)
    head = f"{region(dot.left, plane)}  ×  {_place(dot.right, plane)}  =  products"
    return [head, *beside([window, kernel, products], ["  ×  ", "  =  "])]


def _numbers(values: Array, plane: Array, scale: NumberScale, window: Cells | None, gap: str) -> list[str]:
    def shown(index: int) -> str:
        return PADDING if window is not None and window.is_padding(index) else scale.show(float(values[index]))

    texts = right([shown(int(i)) for i in plane.ravel()])
    width = plane.shape[1]
    return [gap.join(texts[start : start + width]) for start in range(0, len(texts), width)]


def region(cells: Cells, plane: Array) -> str:
    """The region of a plane of cells: `conv1 channel 3, rows 0 to 2, columns 4 to 6`."""
    plane_cells = cells.cells[plane]
    spans = [_span(name, plane_cells[..., axis]) for name, axis in (("row", -2), ("column", -1))]
    has_channels = len(cells.source.shape) > 2 and cells.source.shape[-3] > 1
    channel = f" channel {plane_cells[0, 0, -3]}" if has_channels else ""
    return f"{cells.source.name}{channel}, {', '.join(spans)}"


def _span(name: str, positions: Array) -> str:
    result = np.unique(positions)
    texts = [str(p).replace("-", "−") for p in result]
    if len(result) == 1:
        return f"{name} {texts[0]}"
    steps = np.diff(result)
    if (steps == 1).all():
        return f"{name}s {texts[0]} to {texts[-1]}"
    return f"{name}s {', '.join(texts)}"


def _place(cells: Cells, plane: Array) -> str:
    if cells.source.kind == "computed":
        return cells.source.name
    lead = cells.cells[plane[0, 0]][:-2]
    return f"{cells.source.name}[{', '.join(map(str, lead))}]"


ROUNDING = "rounding of the numbers shown"


def draw_sum(dot: Dot, detail: Detail) -> list[Row | str]:
    """The terms, what their rounding leaves over, the divisor, the bias: everything but the result itself."""
    if len(dot.left) == 0:
        return [Row("nothing to add", "0")]
    scale = scale_of(dot)
    picture = grids(dot, scale, detail.everything)
    rows = [*picture, BLANK] if picture else _terms(dot, scale, detail)
    return [*rows, *_totals(dot, scale, detail, drawn=bool(picture))]


def listed(dot: Dot, detail: Detail) -> list[Row | str]:
    """A sum without a drawing: the terms as rows, and all that leads from them to the result."""
    if len(dot.left) == 0:
        return [Row("nothing to add", "0")]
    scale = scale_of(dot)
    return [*_terms(dot, scale, detail), *_totals(dot, scale, detail, drawn=False)]


def scale_of(dot: Dot) -> NumberScale:
    """One scale for the products and their sum, and for bias and result where nothing is multiplied in between."""
    extra = [dot.total()] if dot.factor != 1 else [dot.value(), *([] if dot.bias is None else [dot.bias.value()])]
    return NumberScale.of([*map(float, dot.products), *extra])


def result_scale(dot: Dot) -> NumberScale:
    """The scale of the result: of its own size where the sum was divided."""
    if dot.factor == 1:
        return scale_of(dot)
    return NumberScale.of([dot.value(), dot.total() * dot.factor, *([] if dot.bias is None else [dot.bias.value()])])


def chosen(dot: Dot, detail: Detail) -> Array:
    """The indices of the terms shown: all in order, or the largest first."""
    count = detail.count(len(dot.left))
    if count == len(dot.left):
        return np.arange(count)
    sizes = np.nan_to_num(np.abs(dot.products), nan=np.inf)
    return np.argsort(-sizes, kind="stable")[:count]


def _terms(dot: Dot, scale: NumberScale, detail: Detail) -> list[Row | str]:
    order = chosen(dot, detail)
    products = dot.products[order]
    labels = [_label(dot, int(i)) for i in order]
    left = NumberScale.of(map(float, dot.left.values[order]))
    values = [left.show(float(v)) for v in dot.left.values[order]]
    if dot.right is None:
        texts = labels
    elif dot.right is dot.left:
        texts = table(list(zip(labels, [f"{_bracket(v)}²" for v in values], ["="] * len(order), strict=True)), "<><")
    else:
        right = NumberScale.of(map(float, dot.right.values[order]))
        weights = [right.show(float(w)) for w in dot.right.values[order]]
        places = [dot.right.leaf(int(i)).label for i in order]
        rows = list(zip(labels, values, ["×"] * len(order), places, weights, ["="] * len(order), strict=True))
        texts = table(rows, "<><<><")
    rows_of_sum: list[Row | str] = [
        Row(text, scale.show(float(p)), term=int(i)) for i, text, p in zip(order, texts, products, strict=True)
    ]
    if len(order) < len(dot.left):
        rows_of_sum.append(Row(f"{len(dot.left) - len(order):,} others", scale.show(_sum_of_others(dot, order))))
    return rows_of_sum


def _label(dot: Dot, index: int) -> str:
    return f"padding around {dot.left.source.name}" if dot.left.is_padding(index) else dot.left.leaf(index).label


def _bracket(text: str) -> str:
    return f"({text})" if text.startswith("−") else text


def _sum_of_others(dot: Dot, order: Array) -> float:
    return exact_sum(np.delete(dot.products, order))


def _totals(dot: Dot, scale: NumberScale, detail: Detail, *, drawn: bool) -> list[Row | str]:
    """From the terms to the result: sum, rounding, scale and divisor, bias."""
    word = f"{'cells' if dot.right is None else 'products'}"
    if not np.isfinite([*dot.products, dot.value(), dot.total()]).all():
        return [Row(f"sum of the {len(dot.left):,} {word}", scale.show(dot.total())), *_bias(dot, scale)]
    order = np.arange(len(dot.left)) if drawn else chosen(dot, detail)
    shown = sum(scale.units(float(p)) for p in dot.products[order])
    if len(order) < len(dot.left):
        shown += scale.units(_sum_of_others(dot, order))
    return closing(dot, scale, shown, drawn=drawn)


def closing(dot: Dot, scale: NumberScale, shown: int, *, drawn: bool) -> list[Row | str]:
    """From the terms to the result: sum, rounding, scale and divisor, bias.

    Args:
        scale: The scale of the terms.
        shown: What the terms add up to as they are shown, in units of `scale`.
        drawn: Whether they are drawn as grids, so that their sum needs a line of its own.
    """
    word = f"{'cells' if dot.right is None else 'products'}"
    lines: list[Row | str] = [Row(f"sum of the {len(dot.left):,} {word}", scale.text(shown))] if drawn else []
    if dot.factor == 1:
        bias = 0 if dot.bias is None else scale.units(dot.bias.value())
        return [*lines, *_rounding_row(scale.units(dot.value()) - bias - shown, scale), *_bias(dot, scale)]
    total = scale.units(dot.total())
    lines += _rounding_row(total - shown, scale)
    if not drawn or total != shown:
        lines.append(Row("sum", scale.text(total)))
    return [*lines, *_scaled(dot, scale.number(total))]


def _scaled(dot: Dot, total: float) -> list[Row | str]:
    """From the sum, as it is shown, to the result."""
    scale = result_scale(dot)
    bias = 0 if dot.bias is None else scale.units(dot.bias.value())
    factored = scale.units((total if np.isfinite(total) else dot.total()) * dot.factor)  # 1.7977e308 is too large
    rounding_rows = _rounding_row(scale.units(dot.value()) - bias - factored, scale)
    return [Row(_factor(dot), scale.text(factored)), *rounding_rows, *_bias(dot, scale)]


def _factor(dot: Dot) -> str:
    scaled = f"× {short(dot.scale)}" if dot.scale != 1 else ""
    return f"{scaled} ÷ {dot.divisor:,.9g}".strip() if dot.divisor != 1 else scaled


def _rounding_row(units: int, scale: NumberScale) -> list[Row | str]:
    return [Row(ROUNDING, scale.text(units))] if units else []


def _bias(dot: Dot, scale: NumberScale) -> list[Row | str]:
    if dot.bias is None:
        return []
    label = dot.bias.label if isinstance(dot.bias, Leaf) else dot.bias.note
    return [Row(label, scale.show(dot.bias.value()))]
