"""Operands: the numbers in an expression that can be explained next, the most important first."""

from dataclasses import dataclass

import numpy as np

from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.render.detail import Detail
from convscope.render.series import best
from convscope.render.sums import chosen


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
