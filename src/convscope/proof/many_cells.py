"""Many cells: what a rule gives for a sample of one result's cells, together where the rule is vectorized.

Knows rules, calls and expressions; no traces, no reference.
"""

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from convscope.errors import ConvscopeError
from convscope.expr.call import Call, Cell
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.ops.op import Rule, Vectorized
from convscope.typing import Array

UNABLE = (
    ConvscopeError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip
"""Exceptions of a witness for a call that it cannot evaluate, such as one that no kernel would accept."""
TERMS = 2**17
"""Numbers of the cells that are explained together, at most: 1 MB of float64, which a processor's cache holds."""


class Results(NamedTuple):
    """What a rule gives for n cells."""

    values: Array
    """float64, shape (n,)."""
    errors: Array
    """How far a kernel's number may lie from each, shape (n,)."""
    able: NDArray[np.bool_]
    """Whether the rule could explain the cell, shape (n,)."""


def results_of(rule: Rule, call: Call, cells: Array) -> Results:
    """The values and errors of cells, the same bits as of each cell by itself.

    >>> from convscope.expr.call import Operand
    >>> from convscope.ops import OPS
    >>> call = Call("relu", {"self": Operand.of(np.array([-1.0, 2.0, 3.0]), "x")}, (3,))
    >>> results_of(OPS["relu"].rule, call, np.array([[0], [2]])).values.tolist()
    [0.0, 3.0]

    Args:
        rule: Explains a cell, or many where it is `Vectorized`.
        call: The operation.
        cells: int64, shape (n, axes).
    """
    results = Results(np.zeros(len(cells)), np.zeros(len(cells)), np.zeros(len(cells), bool))
    every = np.arange(len(cells))
    try:
        together = groups(rule, call, cells)
    except UNABLE:  # the rule explains one of the cells at most, or none
        together = None
    for rows in [every] if together is None else together:
        if together is None or len(rows) == 1 or not _explain(rule, call, cells, rows, results):
            for row in rows.tolist():
                if not _explain(rule, call, cells, row, results):
                    break  # the first that the rule leaves open decides
    return results


def groups(rule: Rule, call: Call, cells: Array) -> list[Array] | None:
    """Which cells are explained at once: rows of `cells`, a few MB at a time; None for one after the other."""
    keys = rule.alike(call, _columns(cells)) if isinstance(rule, Vectorized) and cells.size else None
    if keys is None or len(cells) == 1:
        return None
    group = np.zeros(len(cells), np.int64)
    if keys.shape[1]:
        group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    parts = []
    for number in range(int(group.max()) + 1):
        members = np.flatnonzero(group == number)
        each = max(1, TERMS // max(1, _terms(rule(call, _cell(cells[members[0]])))))
        parts += [members[start : start + each] for start in range(0, len(members), each)]
    return parts


def _explain(rule: Rule, call: Call, cells: Array, rows: Array | int, results: Results) -> bool:
    """Put down what the rule gives for some cells, or for one; whether it could."""
    try:
        expr = rule(call, _cell(cells[rows]) if isinstance(rows, int) else _columns(cells[rows]))
        results.values[rows], results.errors[rows] = expr.result(call.precision)
    except UNABLE:
        return False
    results.able[rows] = True
    return True


def _cell(cell: Array) -> Cell:
    return tuple(map(int, cell))


def _columns(cells: Array) -> Cell:
    """Cells as one whose indices are arrays of shape (n,)."""
    return cast("Cell", tuple(np.ascontiguousarray(cells.T)))


def _terms(expr: Expr | Cells) -> int:
    """How many numbers an expression reads."""
    match expr:
        case Leaf():
            return 1
        case Cells():
            return len(expr)
        case Dot():
            return len(expr.left)
        case Apply():
            return sum(map(_terms, expr.arguments.values()))
