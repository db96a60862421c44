"""Reads of moves and joins: their adjoints carry every mark to the cell that its number came from."""

import numpy as np

from convscope.rules.adjoints import ADJOINTS
from convscope.rules.call import Array, Call
from convscope.rules.reads.mixing import marked


def moved(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cell that was moved."""
    if not varies:
        return {}
    if call.op in {"permute", "transpose", "t"}:
        return {"self": _turned_back(call, marked(marks))}
    with np.errstate(invalid="ignore"):  # constants beside it may be infinite
        pulled = ADJOINTS[call.op](call, marked(marks), varies)
    return {name: marked(gradient) for name, gradient in pulled.gradients.items()}


def _turned_back(call: Call, marks: Array) -> Array:
    """Axes in their old order."""
    if call.op == "permute":
        return np.transpose(marks, np.argsort([axis % marks.ndim for axis in call["dims"]]))
    if marks.ndim < 2:
        return marks
    return np.swapaxes(marks, *((call["dim0"], call["dim1"]) if call.op == "transpose" else (0, 1)))
