"""Indexing backward: the gradient goes to the cell that was read; cells that were not read get 0."""

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import leaf
from convscope.expr.expr import Cells, Dot, Leaf, number


def part_backward(call: Call, cell: Cell) -> Leaf:
    """select_backward and slice_backward: the gradient inside the selected part, 0 outside it.

    >>> grad = Operand.of(np.array([0.5, 0.25]), "slice.grad")
    >>> settings = dict(grad_output=grad, input_sizes=[4], dim=0, start=1, end=4, step=2)
    >>> [part_backward(Call("slice_backward", settings, (4,)), (at,)).value() for at in range(4)]
    [0.0, 0.5, 0.0, 0.25]
    """
    grad: Operand = call["grad_output"]
    axis = call["dim"] % len(cell)
    length = call.shape[axis]
    if call.op == "select_backward":
        taken = cell[axis] == call["index"] % length
        return leaf(grad, cell[:axis] + cell[axis + 1 :]) if taken else number(0, "outside the selected part")
    at, rest = divmod(cell[axis] - slice(call["start"], call["end"]).indices(length)[0], call["step"])
    if rest or not 0 <= at < grad.shape[axis]:
        return number(0, "outside the selected part")
    return leaf(grad, (*cell[:axis], at, *cell[axis + 1 :]))


def unfold_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of all overlapping slices that contain this cell."""
    grad: Operand = call["grad_in"]
    axis, size, step = call["dim"] % len(cell), call["size"], call["step"]
    pieces = np.arange(grad.shape[axis])
    holding = pieces[(pieces * step <= cell[axis]) & (cell[axis] < pieces * step + size)]
    places = [(*cell[:axis], int(piece), *cell[axis + 1 :], cell[axis] - int(piece) * step) for piece in holding]
    return _added(grad, places, f"the gradients of the {len(places)} slices that contain this cell")


def embedding_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradients at all indices that read this row of the table.

    Raises:
        UsageError: gradients are scaled by the row's frequency.
    """
    if call["scale_grad_by_freq"]:
        raise UsageError("no rule explains gradients of an embedding that are scaled by frequency.")
    row, unit = cell
    if row == call["padding_idx"]:
        return number(0, "the padding row")
    reads = np.argwhere(call["indices"].array == row)
    places = [(*map(int, index), unit) for index in reads]
    return _added(call["grad_output"], places, f"the gradients at the {len(places)} indices that read this row")


def _added(operand: Operand, places: list[Cell], note: str) -> Dot:
    """The sum of some cells."""
    cells = np.array(places, np.int64).reshape(len(places), len(operand.shape))
    values = operand.array[tuple(cells.T)].astype(np.float64)
    return Dot(Cells(values, operand.source, cells, (len(places),)), note=note)
