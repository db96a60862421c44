"""Reductions: how functions of many cells are written: a maximum, a softmax, a variance; operands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.expr.precision import exact_sum
from convscope.render.numbers import NumberScale, number_of, short, table
from convscope.render.sums import BLANK, ROUNDING, Detail, Row, chosen, region
from convscope.typing import Array


def draw_extreme(apply: Apply, detail: Detail) -> list[Row | str]:
    """The candidates and the winner: as a grid with the winner in brackets, or as a list, the best first."""
    cells = _cells(apply)
    smallest = apply.function.endswith("min")
    winner = int(np.argmin(cells.values) if smallest else np.argmax(cells.values))
    word = "smallest" if smallest else "largest"
    picture = _marked(cells, winner)
    lines: list[Row | str]
    if picture:
        result = Row(f"{cells.leaf(winner).label}, the {word}", short(float(cells.values[winner])), term=winner)
        lines = [*picture, BLANK, result]
    else:
        order = best(cells.values if smallest else -cells.values, detail)
        scale = NumberScale.of(map(float, cells.values[order]))
        marks = [f"← the {word}" if i == winner else "" for i in order]
        lines = [
            Row(cells.leaf(int(i)).label, scale.show(float(cells.values[i])), mark, int(i))
            for i, mark in zip(order, marks, strict=True)
        ]
        if len(order) < len(cells):
            lines.append(Row(f"{len(cells) - len(order):,} others, none {'smaller' if smallest else 'larger'}", ""))
    if "positions" in apply.arguments:
        lines += [BLANK, Row("its position", short(apply.value(), 12))]
    return lines


def draw_ranked(apply: Apply, detail: Detail) -> list[Row | str]:
    """The cells in order, as far as the one that was asked for."""
    cells = _cells(apply)
    rank, down = (int(a.value()) for a in list(apply.arguments.values())[1:] if not isinstance(a, Cells))
    order = np.argsort(-cells.values if down else cells.values, kind="stable")
    first = 0 if rank < detail.count(len(cells)) else rank - detail.terms + 1
    shown = order[first : max(rank + 1, first + detail.terms)]
    scale = NumberScale.of(map(float, cells.values[shown]))
    lines: list[Row | str] = [Row(f"{first:,} before", "")] if first else []
    lines += [
        Row(cells.leaf(int(i)).label, scale.show(float(cells.values[i])), "← this one" * bool(i == order[rank]), int(i))
        for i in shown
    ]
    behind = len(cells) - first - len(shown)
    lines += [Row(f"{behind:,} behind", "")] if behind else []
    return [*lines, *([BLANK, Row("its position", short(apply.value(), 12))] if apply.function == "rank_of" else [])]


def draw_softmax(apply: Apply, detail: Detail) -> list[Row | str]:
    """Every cell's exponential below the largest, their sum, and this cell's part of it."""
    cells, value = _cells(apply), apply.value()
    top = float(np.max(cells.values))
    if not math.isfinite(top) or not np.isfinite(value):
        return [Row(f"the largest of {len(cells):,} cells of {cells.source.name}", short(top))]
    with np.errstate(all="ignore"):
        grown = np.exp(cells.values - top)
    order = best(-grown, detail)
    scale = NumberScale.of([*map(float, grown[order]), float(grown.sum())])
    before = NumberScale.of(map(float, cells.values[order]))
    head = table(
        [(cells.leaf(int(i)).label, f"exp({before.show(float(cells.values[i]))} − max)") for i in order], "<<", "   "
    )
    lines: list[Row | str] = [f"max = {before.show(top)}", BLANK]
    lines += [Row(text, scale.show(float(grown[i])), term=int(i)) for text, i in zip(head, order, strict=True)]
    shown = sum(scale.units(float(grown[i])) for i in order)
    if len(order) < len(cells):
        remainder = float(grown.sum() - grown[order].sum())
        lines.append(Row(f"{len(cells) - len(order):,} others", scale.show(remainder)))
        shown += scale.units(remainder)
    total = scale.units(float(grown.sum()))
    if total != shown:
        lines.append(Row(ROUNDING, scale.text(total - shown)))
    lines += [Row("sum", scale.text(total)), BLANK]
    return [*lines, *_from_sum(apply, top, float(grown.sum()))]


def draw_variance(apply: Apply, detail: Detail) -> list[Row | str]:
    """Squared distances from the mean, the largest first, their sum, divided by their number."""
    cells = _cells(apply)
    mean, correction = (a.value() for a in list(apply.arguments.values())[1:] if not isinstance(a, Cells))
    with np.errstate(all="ignore"):
        squares = (cells.values - mean) ** 2
    order = best(-squares, detail)
    total, value = exact_sum(squares), apply.value()
    scale = NumberScale.of([*map(float, squares[order]), total])
    texts = [f"({short(float(cells.values[i]))} − mean)²" for i in order]
    head = table([(cells.leaf(int(i)).label, t) for i, t in zip(order, texts, strict=True)], "<<", "   ")
    lines: list[Row | str] = [Row(f"mean of {len(cells):,} cells", short(mean)), BLANK]
    if not np.isfinite([*squares, value]).all():
        return [*lines, Row(f"sum of the {len(cells):,} squared distances from it", short(total))]
    lines += [Row(text, scale.show(float(squares[i])), term=int(i)) for text, i in zip(head, order, strict=True)]
    shown = sum(scale.units(float(squares[i])) for i in order)
    if len(order) < len(cells):
        remainder = exact_sum(np.delete(squares, order))
        lines.append(Row(f"{len(cells) - len(order):,} others", scale.show(remainder)))
        shown += scale.units(remainder)
    if scale.units(total) != shown:
        lines.append(Row(ROUNDING, scale.text(scale.units(total) - shown)))
    lines.append(Row("sum", scale.show(total)))
    count, fine = len(cells) - correction, NumberScale.fine(value)
    divided = scale.number(scale.units(total)) / count if count > 0 else value
    remainder = fine.units(value) - fine.units(divided) if np.isfinite([value, divided]).all() else 0
    left = [Row(ROUNDING, fine.text(remainder))] if remainder else []
    return [*lines, Row(f"÷ {count:,.9g}", fine.show(divided)), *left]


def draw_cells(apply: Apply, detail: Detail) -> list[Row | str]:
    """Any other function of many cells: the largest of them."""
    cells = _cells(apply)
    order = best(-np.abs(cells.values), detail)
    scale = NumberScale.of(map(float, cells.values[order]))
    lines: list[Row | str] = [
        Row(cells.leaf(int(i)).label, scale.show(float(cells.values[i])), term=int(i)) for i in order
    ]
    if len(order) < len(cells):
        lines.append(Row(f"{len(cells) - len(order):,} others", ""))
    constants = {n: a for n, a in apply.arguments.items() if isinstance(a, Leaf) and a.source.kind == "number"}
    return [*lines, *(Row(name, short(a.scalar)) for name, a in constants.items())]


def _from_sum(apply: Apply, top: float, total: float) -> list[Row | str]:
    """From the sum of exponentials to the result."""
    value, added = apply.value(), short(total)
    scale = NumberScale.fine(value)
    x = apply.arguments.get("x")
    if x is None:
        text, shown = f"{_bracket(short(top))} + log({added})", number_of(short(top)) + math.log(float(added))
    elif apply.function == "log_softmax":
        assert not isinstance(x, Cells)
        text = f"{short(x.value())} − {_bracket(short(top))} − log({added})"
        shown = number_of(short(x.value())) - number_of(short(top)) - math.log(float(added))
    else:
        assert not isinstance(x, Cells)
        part = short(math.exp(x.value() - top))
        text, shown = f"{part} ÷ {added}", number_of(part) / float(added)
    remainder = (
        scale.units(value) - scale.units(shown) if math.isfinite(shown) else 0
    )  # 1.7977e308 is beyond the largest
    return [Row(text, short(shown)), *([Row(ROUNDING, scale.text(remainder))] if remainder else [])]


def _bracket(text: str) -> str:
    return f"({text})" if text.startswith("−") else text


def _cells(apply: Apply) -> Cells:
    return next(a for a in apply.arguments.values() if isinstance(a, Cells))


def best(keys: Array, detail: Detail) -> Sequence[int]:
    """The indices of the smallest keys, as many as are shown, the smallest first."""
    count = detail.count(len(keys))
    order = np.argsort(np.nan_to_num(keys, nan=-np.inf), kind="stable")
    return [int(i) for i in (order if count == len(keys) else order[:count])]


def _marked(cells: Cells, winner: int) -> list[str]:
    """The window as a grid, the winner in brackets; empty unless it is a small plane."""
    if len(cells.grid) != 2 or len(cells.source.shape) < 3 or cells.grid[0] > 8 or cells.grid[1] > 8 or len(cells) < 2:
        return []
    scale = NumberScale.of(map(float, cells.values))
    texts = [scale.show(float(v)) for v in cells.values]
    width = max(map(len, texts))
    marked = [(f"[{t}]" if i == winner else f"{t} ").rjust(width + 2) for i, t in enumerate(texts)]
    step = cells.grid[1]
    plane = np.arange(len(cells)).reshape(cells.grid)
    return [
        region(cells, plane),
        *(" ".join(marked[start : start + step]).rstrip() for start in range(0, len(marked), step)),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Inner:
    """An intermediate number of a fused operation, which was not recorded."""

    label: str
    expr: Expr


def parts(expr: Expr, detail: Detail | None = None) -> list[Leaf | Inner]:
    """The recorded and the intermediate numbers that are shown when the expression is drawn, each once.

    >>> from convscope.expr.call import Source
    >>> x = Leaf(-0.5, Source("conv1", "step", (1, 4)), (0, 2))
    >>> [part.label for part in parts(Apply("relu", {"x": x}))]
    ['conv1 (2)']

    Args:
        detail: How many of the terms of a long sum.
    """
    results: dict[str, Leaf | Inner] = {}
    for part in _parts(expr, detail or Detail()):
        results.setdefault(part.label, part)
    return list(results.values())


def _parts(expr: Expr, detail: Detail) -> list[Leaf | Inner]:
    match expr:
        case Leaf():
            return [] if expr.source.kind == "number" else [expr]
        case Dot():
            bias = [] if expr.bias is None else _parts(expr.bias, detail)
            sides = [expr.left] if expr.right is None or expr.right is expr.left else [expr.left, expr.right]
            return [_part(side, int(i)) for i in chosen(expr, detail) for side in sides if _real(side, int(i))] + bias
        case Apply():
            results: list[Leaf | Inner] = []
            for argument in expr.arguments.values():
                results += (
                    _of_cells(expr, argument, detail) if isinstance(argument, Cells) else _parts(argument, detail)
                )
            return results


def _of_cells(apply: Apply, cells: Cells, detail: Detail) -> list[Leaf | Inner]:
    """The winner of a maximum; the largest of anything else."""
    if apply.function in {"max", "argmax", "min", "argmin"}:
        sign = 1 if "max" in apply.function else -1
        return [_part(cells, int(np.argmax(sign * cells.values)))] if cells.source.kind != "number" else []
    return [_part(cells, i) for i in best(-np.abs(cells.values), detail)]


def _real(cells: Cells, index: int) -> bool:
    return not cells.is_padding(index) and (cells.source.kind != "computed" or cells.derive is not None)


def _part(cells: Cells, index: int) -> Leaf | Inner:
    leaf = cells.leaf(index)
    return leaf if cells.derive is None else Inner(leaf.label, cells.derive(index))
