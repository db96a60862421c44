"""Sums: a sum of products, every number of it, or the largest terms and the total of the others."""

import math

import numpy as np

from convscope.expr.call import Array
from convscope.expr.expr import Dot, Leaf
from convscope.render.detail import Detail
from convscope.render.grids import grids
from convscope.render.numbers import NumberScale, short, table
from convscope.render.rows import BLANK, Row

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
    """The same without a drawing: the terms as rows, and all that leads from them to the result."""
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
    """Which terms are shown: all in their order, or the largest first."""
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
        rows_of_sum.append(Row(f"{len(dot.left) - len(order):,} others", scale.show(_others(dot, order))))
    return rows_of_sum


def _label(dot: Dot, index: int) -> str:
    return f"padding around {dot.left.source.name}" if dot.left.is_padding(index) else dot.left.leaf(index).label


def _bracket(text: str) -> str:
    return f"({text})" if text.startswith("−") else text


def _others(dot: Dot, order: Array) -> float:
    return (
        math.fsum([*dot.products.tolist(), *(-dot.products[order]).tolist()])
        if np.isfinite(dot.products).all()
        else math.nan
    )


def _totals(dot: Dot, scale: NumberScale, detail: Detail, *, drawn: bool) -> list[Row | str]:
    """From the terms to the result: sum, rounding, scale and divisor, bias."""
    word = f"{'cells' if dot.right is None else 'products'}"
    if not np.isfinite([*dot.products, dot.value()]).all():
        return [Row(f"sum of the {len(dot.left):,} {word}", scale.show(dot.total())), *_bias(dot, scale)]
    order = np.arange(len(dot.left)) if drawn else chosen(dot, detail)
    shown = sum(scale.units(float(p)) for p in dot.products[order])
    if len(order) < len(dot.left):
        shown += scale.units(_others(dot, order))
    return closing(dot, scale, shown, drawn=drawn)


def closing(dot: Dot, scale: NumberScale, shown: int, *, drawn: bool) -> list[Row | str]:
    """From the terms to the result: sum, rounding, scale and divisor, bias.

    Args:
        scale: Of the terms.
        shown: What the terms add up to as they are shown, in units of `scale`.
        drawn: Whether they are drawn as grids, so that their sum needs a line of its own.
    """
    word = f"{'cells' if dot.right is None else 'products'}"
    lines: list[Row | str] = [Row(f"sum of the {len(dot.left):,} {word}", scale.text(shown))] if drawn else []
    if dot.factor == 1:
        bias = 0 if dot.bias is None else scale.units(dot.bias.value())
        return [*lines, *_rest(scale.units(dot.value()) - bias - shown, scale), *_bias(dot, scale)]
    total = scale.units(dot.total())
    lines += _rest(total - shown, scale)
    if not drawn or total != shown:
        lines.append(Row("sum", scale.text(total)))
    return [*lines, *_scaled(dot, total / 10**scale.decimals * 10.0**scale.power)]


def _scaled(dot: Dot, total: float) -> list[Row | str]:
    """From the sum, as it is shown, to the result."""
    scale = result_scale(dot)
    bias = 0 if dot.bias is None else scale.units(dot.bias.value())
    factored = scale.units(total * dot.factor)
    rest = _rest(scale.units(dot.value()) - bias - factored, scale)
    return [Row(_factor(dot), scale.text(factored)), *rest, *_bias(dot, scale)]


def _factor(dot: Dot) -> str:
    scaled = f"× {short(dot.scale)}" if dot.scale != 1 else ""
    return f"{scaled} ÷ {dot.divisor:,.9g}".strip() if dot.divisor != 1 else scaled


def _rest(units: int, scale: NumberScale) -> list[Row | str]:
    return [Row(ROUNDING, scale.text(units))] if units else []


def _bias(dot: Dot, scale: NumberScale) -> list[Row | str]:
    if dot.bias is None:
        return []
    label = dot.bias.label if isinstance(dot.bias, Leaf) else dot.bias.note
    return [Row(label, scale.show(dot.bias.value()))]
