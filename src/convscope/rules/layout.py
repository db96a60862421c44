"""Layout: operations that move numbers without changing them, join tensors, or fill in constants."""

import math

import numpy as np

from convscope.errors import UsageError
from convscope.rules.call import Array, Call, Cell, Operand, broadcast_cell
from convscope.rules.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.rules.gather import broadcast, leaf, outer, pair
from convscope.rules.moves import MOVES, SOURCES
from convscope.rules.precision import Precision
from convscope.rules.whole import BITS, widened, wrapped


def moved(call: Call, cell: Cell) -> Leaf | Apply:
    """The cell of the input that stands here now, unchanged unless the type is a coarser one.

    >>> x = Operand.of(np.arange(6.0).reshape(2, 3), "x")
    >>> moved(Call("t", {"self": x}, (3, 2), "float64"), (2, 1)).label
    'x (1, 2)'
    """
    operand: Operand = call[SOURCES.get(call.op, "self")]
    found = MOVES[call.op](call, np.array([cell], np.int64).reshape(1, len(cell)))[0]
    return _as_type(leaf(operand, tuple(map(int, found))), call.dtype)


def converted(call: Call, cell: Cell) -> Leaf | Apply:
    """Another type: rounded to a coarser one, cut to an integer, exact otherwise."""
    return _as_type(leaf(call["self"], cell), call.dtype)


def cat(call: Call, cell: Cell) -> Leaf | Apply:
    """The tensor along the axis that this cell lies in."""
    axis, at = call["dim"], 0
    tensors = [t for t in call["tensors"] if t.shape != (0,)]
    axis %= len(cell)
    for operand in tensors:
        if cell[axis] < at + operand.shape[axis]:
            return _as_type(leaf(operand, tuple(i - at if a == axis else i for a, i in enumerate(cell))), call.dtype)
        at += operand.shape[axis]
    raise AssertionError("the cell lies in none of the tensors")


def stack(call: Call, cell: Cell) -> Leaf | Apply:
    """The tensor that this index of the new axis names."""
    axis = call["dim"] % len(cell)
    operand = call["tensors"][cell[axis]]
    return _as_type(leaf(operand, cell[:axis] + cell[axis + 1 :]), call.dtype)


def constant_pad(call: Call, cell: Cell) -> Leaf:
    """The image inside, a constant around it; negative padding crops."""
    operand: Operand = call["self"]
    place = list(cell)
    for back, before in enumerate(call["pad"][::2]):
        place[-1 - back] -= before
    inside = all(0 <= i < n for i, n in zip(place, operand.shape, strict=True))
    return leaf(operand, tuple(place)) if inside else number(call["value"], "padding")


def im2col(call: Call, cell: Cell) -> Leaf:
    """Windows as columns: each row is one place in the window, each column one window."""
    operand: Operand = call["self"]
    *lead, row, column = cell
    sizes, dilations, paddings, strides = (pair(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride"))
    across = _windows(operand.shape[-1], sizes[1], dilations[1], paddings[1], strides[1])
    channel, tap = divmod(row, sizes[0] * sizes[1])
    taps, windows = divmod(tap, sizes[1]), divmod(column, across)
    place = [
        window * stride - padding + dilation * at
        for window, stride, padding, dilation, at in zip(windows, strides, paddings, dilations, taps, strict=True)
    ]
    inside = all(0 <= i < n for i, n in zip(place, operand.shape[-2:], strict=True))
    return leaf(operand, (*lead, channel, *place)) if inside else number(0, "padding")


def col2im(call: Call, cell: Cell) -> Dot:
    """The sum of all window cells that lie on this pixel."""
    *lead, channel, _, _ = cell
    sizes, dilations, paddings, strides = (pair(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride"))
    axes = []
    for axis, at in enumerate(cell[-2:]):
        count = _windows(call["output_size"][axis], sizes[axis], dilations[axis], paddings[axis], strides[axis])
        start = at + paddings[axis] - dilations[axis] * np.arange(sizes[axis])
        hit = (start % strides[axis] == 0) & (start >= 0) & (start // strides[axis] < count)
        axes.append((np.flatnonzero(hit), start[hit] // strides[axis], count))
    (rows, tops, _), (columns, lefts, across) = axes
    taps = (channel * sizes[0] + rows[:, None]) * sizes[1] + columns
    windows = tops[:, None] * across + lefts
    return _scattered(call["self"], tuple(lead), taps.reshape(-1), windows.reshape(-1))


def _scattered(operand: Operand, lead: Cell, rows: Array, columns: Array) -> Dot:
    cells = np.column_stack([np.tile(np.array(lead, np.int64), (len(rows), 1)), rows, columns]).astype(np.int64)
    values = operand.array[tuple(cells.T)].astype(np.float64)
    note = f"the sum of the {len(rows)} window cells that lie here"
    return Dot(Cells(values, operand.source, cells, (len(rows),)), note=note)


def triangle(call: Call, cell: Cell) -> Leaf:
    """tril and triu: one side of a diagonal kept, 0 on the other."""
    row, column = cell[-2:]
    distance = column - row - call["diagonal"]
    kept = distance <= 0 if call.op == "tril" else distance >= 0
    return leaf(call["self"], cell) if kept else number(0, "outside the triangle")


def scattered_slice(call: Call, cell: Cell) -> Leaf | Apply:
    """slice_scatter and select_scatter: a part of a tensor replaced by another tensor."""
    whole, part = call["self"], call["src"]
    axis = call["dim"] % len(cell)
    if call.op == "select_scatter":
        if cell[axis] != call["index"] % whole.shape[axis]:
            return leaf(whole, cell)
        return _as_type(leaf(part, cell[:axis] + cell[axis + 1 :]), call.dtype)
    length, step = whole.shape[axis], call["step"]
    start = call.get("start") or 0
    start = max(start + length, 0) if start < 0 else min(start, length)
    at, rest = divmod(cell[axis] - start, step)
    if rest or not 0 <= at < part.shape[axis]:
        return leaf(whole, cell)
    return _as_type(leaf(part, tuple(at if a == axis else i for a, i in enumerate(cell))), call.dtype)


def scatter(call: Call, cell: Cell) -> Expr:
    """scatter and scatter_add: along one axis, numbers put where a tensor says, the last one, or all added."""
    whole, index = call["self"], call["index"]
    if call.get("reduce") is not None:
        raise UsageError(f"no rule explains scatter with reduce={call['reduce']!r}.")
    full = cell or (0,)  # a number counts as a vector of one
    named: Array = index.array if index.shape else index.array.reshape(1)
    axis = call["dim"] % len(full)
    line = tuple(slice(None) if a == axis else i for a, i in enumerate(full))
    reached = all(i < n for a, (i, n) in enumerate(zip(full, named.shape, strict=True)) if a != axis)
    hits = np.flatnonzero(named[line] == full[axis]) if reached else np.empty(0, np.int64)
    if not len(hits):
        return leaf(whole, cell)
    source = call.get("src", call.get("value"))
    if call.op == "scatter_add":
        added = outer(source, [hits if a == axis else i for a, i in enumerate(full)] if source.shape else [])
        note = f"what was here, plus the {len(hits)} numbers sent here"
        return Dot(added, bias=leaf(whole, cell), note=note, kind=call.kind)
    if not isinstance(source, Operand):
        return number(int(source) if call.kind else source, "value")
    last = tuple(int(hits[-1]) if a == axis else i for a, i in enumerate(full))
    return leaf(source, last if source.shape else ())


def index_put(call: Call, cell: Cell) -> Expr:
    """Values written to the cells that indices name, the last one where several are; or all of them added."""
    whole, values = call["self"], call["values"]
    index = tuple(slice(None) if i is None else i.array for i in call["indices"])
    probe = np.arange(int(np.prod(whole.shape))).reshape(whole.shape)
    hits = np.argwhere(probe[index] == probe[cell])
    if not len(hits):
        return leaf(whole, cell)
    places = [broadcast_cell(tuple(map(int, hit)), values.shape) for hit in hits]
    if not call["accumulate"]:
        return _as_type(leaf(values, places[-1]), call.dtype)
    cells = np.array(places, np.int64).reshape(len(places), len(values.shape))
    numbers = widened(np.asarray(values.array[tuple(cells.T)])).reshape(len(places))
    note = f"what was here, plus the {len(places)} numbers written here"
    return Dot(Cells(numbers, values.source, cells, (len(places),)), bias=leaf(whole, cell), note=note, kind=call.kind)


def filled(call: Call, cell: Cell) -> Leaf:
    """A constant everywhere: zeros, ones, full, fill."""
    if call.op in {"zeros", "zeros_like", "zero", "new_zeros"}:
        return number(0, "zero")
    if call.op in {"ones", "ones_like", "new_ones"}:
        return number(1, "one")
    name = {"scalar_tensor": "s", "fill": "value"}.get(call.op, "fill_value")
    return broadcast(call[name], cell, "value")


def counted(call: Call, cell: Cell) -> Expr:
    """arange, linspace, eye: a number that follows from its index."""
    if call.op == "eye":
        return number(float(cell[-1] == cell[-2]), "one on the diagonal")
    index = number(cell[0], "index")
    if call.op == "linspace":
        ends: dict[str, Expr] = {name: broadcast(call[name], (), name) for name in ("start", "end")}
        if call.kind:
            ends = {name: Apply("trunc", {"x": end}) if end.value() % 1 else end for name, end in ends.items()}
        even = Apply("evenly", {**ends, "index": index, "last": number(max(call["steps"] - 1, 1), "last")})
        return Apply("cut", {"x": even}) if call.kind else even
    start, step = call.get("start") or 0, call.get("step")
    return Apply(
        "add_scaled", {"x": number(start, "start"), "alpha": number(1 if step is None else step, "step"), "y": index}
    )


def _windows(length: int, size: int, dilation: int, padding: int, stride: int) -> int:
    return (length + 2 * padding - dilation * (size - 1) - 1) // stride + 1


def _as_type(found: Leaf, dtype: str) -> Leaf | Apply:
    """The number in the type of the result, with the rounding that this costs."""
    source = found.source.dtype
    if source == dtype:
        return found
    if dtype == "bool":
        return Apply("ne", {"x": found, "y": number(0, "zero")})
    if dtype in BITS:
        return _as_integer(found, dtype)
    into = Precision.of(dtype)
    coarse = max(into.stored, into.sum) > max(Precision.of(source).stored, Precision.of(source).sum)
    return Apply(f"to_{dtype}", {"x": found}) if coarse or source in BITS else found


def _as_integer(found: Leaf, dtype: str) -> Leaf | Apply:
    """A number cut to an integer; one of a wider integer type modulo 2**bits.

    Raises:
        UsageError: C leaves open what becomes of nan, infinities and fractions beyond the type, and so does PyTorch.
            Into uint8 they go by way of int64.
    """
    if found.source.dtype in BITS or found.source.dtype == "bool":
        fits = wrapped(int(found.number), dtype) == found.number
        return found if fits else Apply("identity", {"x": found}, f"held by {dtype}, which counts around", dtype)
    if not math.isfinite(found.number) or not _holds(int(found.number), "int64" if dtype == "uint8" else dtype):
        raise UsageError(f"what {found.number:g} becomes in {dtype} is left open by the C standard.")
    cut = Apply("trunc", {"x": found})
    return cut if _holds(int(found.number), dtype) else Apply("identity", {"x": cut}, kind=dtype)


def _holds(value: int, dtype: str) -> bool:
    return wrapped(value, dtype) == value
