"""To JSON: an expression as dictionaries, lists, numbers and texts; docs/reference/explanation.md has the schema."""

from typing import Any

import numpy as np

from convscope.expr.call import Source
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.json_values import plain_number
from convscope.render.drawing import formula
from convscope.typing import Array

Plain = dict[str, Any]


def plain(expr: Expr | Cells) -> Plain:
    """An expression with every number of it, in full precision.

    >>> from convscope.expr.expr import number
    >>> plain(number(0.5, "eps"))
    {'type': 'leaf', 'name': 'eps', 'kind': 'number', 'cell': [], 'value': 0.5}
    """
    match expr:
        case Leaf():
            return {"type": "leaf", **_source(expr.source), "cell": list(expr.cell), "value": plain_number(expr.scalar)}
        case Cells():
            return _cells(expr)
        case Dot():
            return {
                "type": "dot",
                "left": plain(expr.left),
                "right": None if expr.right is None else plain(expr.right),
                "bias": None if expr.bias is None else plain(expr.bias),
                "scale": expr.scale,
                "divisor": expr.divisor,
                "note": expr.note,
                "value": plain_number(expr.value()),
            }
        case Apply():
            return {
                "type": "apply",
                "function": expr.function,
                "formula": formula(expr),
                "arguments": {name: plain(argument) for name, argument in expr.arguments.items()},
                "note": expr.note,
                "value": plain_number(expr.value()),
            }


def plain_numbers(numbers: Array) -> list[float | str]:
    """Many of them, shape (T,)."""
    if np.isfinite(numbers).all():
        return [float(n) for n in numbers]
    return [plain_number(float(n)) for n in numbers]


def _source(source: Source) -> Plain:
    several = {"output": source.output} if source.output else {}
    return {"name": source.name, "kind": source.kind, **several}


def _cells(cells: Cells) -> Plain:
    padding = [] if cells.inside is None else np.flatnonzero(~cells.inside).tolist()
    return {
        "type": "cells",
        **_source(cells.source),
        "grid": list(cells.grid),
        "cells": cells.cells.tolist(),
        "values": plain_numbers(cells.values),
        "padding": padding,
    }
