"""Which cells a function multiplies by each other, as formulas, where no known mistake explains its results.

A convolution and its gradients add products that link an output cell (i, j), a kernel cell (r, s) and an image cell.
The links are measured by calling the function with a one in two cells and zeros elsewhere. The image cell's row and
column are then fitted as integer formulas of i, j, r and s. They are reported only if they give every link and
the function's own numbers.
"""

from collections.abc import Sequence
from itertools import product as iterate
from typing import NamedTuple

import numpy as np

from convscope.checking.comparison import CALLS, Run, unit_array
from convscope.checking.operation import Values
from convscope.typing import Array

IMAGE, KERNEL, OUTPUT = ("x", "dx"), ("weight", "dw"), ("out", "dout")
LETTERS = "i", "j", "r", "s"

Formula = tuple[int, int, int, int, int]
"""Coefficients of i, j, r and s, then a constant."""


class Windows(NamedTuple):
    """How a function's windows differ from the correct ones."""

    cause: str
    sentence: str


def misplaced(run: Run, values: Values, result: str, product: Sequence[str], yours: Array) -> Windows | None:
    """How the windows of a function differ; None if that is not what is wrong, or cannot be measured.

    Args:
        run: Returns one result of the function.
        values: The arguments of a case with one image, one channel and one kernel.
        result: The name of the result.
        product: The two arrays that are multiplied.
        yours: The result on this case.
    """
    arrays = [yours, *(values[name] for name in product)]
    if any(array.ndim != 4 or array.shape[:2] != (1, 1) for array in arrays):
        return None
    if values[product[0]].size * values[product[1]].size > CALLS:
        return None
    links = _links(run, values, result, product)
    if not links or not _complete(links, values, result, product, yours):
        return None
    cells = np.array(links)  # (links, i j r s row column)
    step, spread, padding = (int(values.get(name, usual)) for name, usual in _USUAL)
    right: list[Formula] = [(step, 0, spread, 0, -padding), (0, step, 0, spread, -padding)]
    fits = [_fitted(cells[:, :4], cells[:, 4 + axis], right[axis]) for axis in (0, 1)]
    if fits[0] is None or fits[1] is None or fits == right:
        return None
    formulas = [fits[0], fits[1]]
    if not _all_inside(cells, formulas, arrays, (result, *product)):
        return None
    cause = _cause(formulas, right, dict(zip((result, *product), arrays, strict=True)))
    return Windows(cause, _sentence(formulas, right, result, product))


def misplaced_pool(run: Run, values: Values, yours: Array, *, largest: bool) -> Windows | None:
    """How the windows of a pooling differ; None if they are right, or not evenly spaced rectangles.

    Args:
        run: Returns the result of the function.
        values: The arguments of a case with one image and one channel.
        yours: The result on this case.
        largest: Whether the largest cell is taken, or the mean.
    """
    x = values["x"]
    if yours.ndim != 4 or yours.shape[:2] != (1, 1) or x.shape[:2] != (1, 1) or not yours.size:
        return None
    inside = np.zeros((*yours.shape[2:], *x.shape[2:]), bool)  # (P, Q, H, W): whether the cell is in the window
    for pixel in np.ndindex(*x.shape):
        answer = run(values | {"x": unit_array(x, pixel)})
        if answer is None or answer.shape != yours.shape:
            return None
        inside[:, :, pixel[2], pixel[3]] = answer[0, 0] != 0
    step, size, padding = values["stride"], values["kernel_size"], values["padding"]
    down, across = (_span(np.asarray(inside.any(axes)), step) for axes in ((1, 3), (0, 2)))
    right = AxisWindows(step, size, -padding)
    if down is None or across is None or (down, across) == (right, right):
        return None
    rows, columns = (
        span.cells(n, length) for span, n, length in zip((down, across), inside.shape, x.shape[2:], strict=False)
    )
    if not np.array_equal(rows[:, None, :, None] & columns[None, :, None, :], inside):
        return None
    cells = np.where(inside, x[0, 0], -np.inf if largest else 0.0)
    pooled = cells.max((2, 3)) if largest else cells.sum((2, 3)) / (down.size * across.size)
    if not np.allclose(pooled, yours[0, 0], rtol=1e-5, atol=1e-5):
        return None
    shape = f"{down.size} × {across.size}"
    parts = [] if down.size == across.size == size else [f"windows of {shape} cells instead of {size} × {size}"]
    for along, span in {"vertically": down, "horizontally": across}.items():
        parts += [f"stride {span.step} {along} instead of {step}"] if span.step != step else []
        parts += _late(span.start + padding, along)
    return Windows(
        _joined(parts),
        f"The window of out[i, j] begins at x[{_corner(down, across)}] and has {shape} cells; it should begin at "
        f"x[{_corner(right, right)}] and have {size} × {size}.",
    )


class AxisWindows(NamedTuple):
    """Windows along one axis."""

    step: int
    size: int
    start: int
    """Where the first one begins, in cells of the image."""

    def cells(self, windows: int, length: int) -> Array:
        """Which of `length` cells each window has, shape (windows, length)."""
        offset = np.arange(length) - (self.start + self.step * np.arange(windows))[:, None]
        return np.asarray((offset >= 0) & (offset < self.size))


def _span(inside: Array, usual: int) -> AxisWindows | None:
    """The windows with these cells, shape (windows, cells); None unless they have one size and are evenly spaced."""
    first, count = inside.argmax(1), inside.sum(1)
    full_windows = np.flatnonzero(count == count.max())  # others are cut off by the edge of the image
    step = (
        (int(first[full_windows[-1]]) - int(first[full_windows[0]])) // int(np.ptp(full_windows))
        if len(full_windows) > 1
        else usual
    )
    span = AxisWindows(step, int(count.max()), int(first[full_windows[0]]) - step * int(full_windows[0]))
    return span if span.size and np.array_equal(span.cells(*inside.shape), inside) else None


def _corner(down: AxisWindows, across: AxisWindows) -> str:
    return f"{_written((down.step, 0, 0, 0, down.start))}, {_written((0, across.step, 0, 0, across.start))}"


def _late(cells: int, along: str) -> list[str]:
    """Words for windows that start too late or too early."""
    if not cells:
        return []
    size = f"{abs(cells)} {'cell' if abs(cells) == 1 else 'cells'}"
    return [f"windows start {size} too {'late' if cells > 0 else 'early'} {along}"]


def _joined(parts: Sequence[str]) -> str:
    """Differences as one phrase; what is the same along both axes appears once.

    >>> _joined(["stride 2 vertically instead of 1", "stride 2 horizontally instead of 1"])
    'stride 2 instead of 1'
    """
    plain = [part.replace(" vertically", "").replace(" horizontally", "") for part in parts]
    common = {part for part in plain if plain.count(part) == 2}
    shown = [short if short in common else part for part, short in zip(parts, plain, strict=True)]
    return ", and ".join(dict.fromkeys(shown))


_USUAL = ("stride", 1), ("dilation", 1), ("padding", 0)


def _links(run: Run, values: Values, result: str, product: Sequence[str]) -> list[tuple[int, ...]]:
    """Each product that the function adds once, as (i, j, r, s, row, column); empty if it adds one not exactly once."""
    zeros = {n: np.zeros_like(v) for n, v in values.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
    links = []
    for first, second in iterate(*(np.ndindex(*values[name].shape) for name in product)):
        unit_arrays = {
            name: unit_array(values[name], factor) for name, factor in zip(product, (first, second), strict=True)
        }
        answer = run(values | zeros | unit_arrays)
        if answer is None or not np.isin(answer, (0, 1)).all():
            return []
        for cell in np.argwhere(answer):
            link_cells = dict(zip((result, *product), (tuple(cell), first, second), strict=True))
            links.append(tuple(int(i) for names in (OUTPUT, KERNEL, IMAGE) for i in _cell_of(link_cells, names)[2:]))
    return links


def _cell_of(cells: dict[str, tuple[int, ...]], names: Sequence[str]) -> tuple[int, ...]:
    return next(cells[name] for name in names if name in cells)


def _complete(
    links: Sequence[tuple[int, ...]], values: Values, result: str, product: Sequence[str], yours: Array
) -> bool:
    """Whether the links, and the bias, add up to the function's numbers."""
    total = np.zeros(yours.shape)
    for link in links:
        positions = {OUTPUT: link[0:2], KERNEL: link[2:4], IMAGE: link[4:6]}
        cells = {name: (0, 0, *cell) for names, cell in positions.items() for name in names}
        total[cells[result]] += float(np.prod([values[name][cells[name]] for name in product]))
    bias = values.get("bias") if result == "out" else None
    return bool(np.allclose(total + (0 if bias is None else bias[0]), yours, rtol=1e-5, atol=1e-5))


def _fitted(indices: Array, target: Array, usual: Formula) -> Formula | None:
    """Coefficients with which the indices always give the target; an index that is always 0 has the usual one."""
    varies = [k for k in range(4) if np.ptp(indices[:, k])]
    design = np.column_stack([indices[:, varies], np.ones(len(indices), int)])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    solution = np.rint(np.linalg.lstsq(design, target, rcond=None)[0]).astype(int)
    if not np.array_equal(design @ solution, target):
        return None
    numbers = dict(zip([*varies, 4], map(int, solution), strict=True))
    i, j, r, s, constant = (numbers.get(k, usual[k]) for k in range(5))
    return i, j, r, s, constant


def _all_inside(cells: Array, formulas: Sequence[Formula], arrays: Sequence[Array], names: Sequence[str]) -> bool:
    """Whether each combination of i, j, r and s whose image cell exists has its link: no product is left out."""
    sizes = dict(zip(names, (array.shape[2:] for array in arrays), strict=True))
    (p, q), (r, s), (h, w) = (next(sizes[n] for n in kind if n in sizes) for kind in (OUTPUT, KERNEL, IMAGE))
    index = np.array(list(np.ndindex(p, q, r, s)))
    rows, columns = (index @ np.array(f[:4]) + f[4] for f in formulas)
    return bool(((rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)).sum() == len(cells))


def _cause(formulas: Sequence[Formula], right: Sequence[Formula], arrays: dict[str, Array]) -> str:
    """What is different, in a few words."""
    rows, columns = formulas
    parts = []
    if not rows[0] and not columns[1] and rows[1] and columns[0]:
        parts.append("row and column of the window swapped")
        rows, columns = (rows[1], rows[0], *rows[2:]), (columns[1], columns[0], *columns[2:])
    if not rows[2] and not columns[3] and rows[3] and columns[2]:
        parts.append("kernel rows and columns swapped")
        rows, columns = (*rows[:2], rows[3], rows[2], rows[4]), (*columns[:2], columns[3], columns[2], columns[4])
    if rows[1] or columns[0] or rows[3] or columns[2]:
        return "windows at the wrong cells"
    for along, (axis, formula) in {"vertically": (0, rows), "horizontally": (1, columns)}.items():
        step, spread, start = formula[axis], formula[2 + axis], formula[4]
        if step != right[axis][axis]:
            parts.append(f"stride {step} {along} instead of {right[axis][axis]}")
        if spread == -right[axis][2 + axis]:
            start += spread * (next(arrays[n].shape[2 + axis] for n in KERNEL if n in arrays) - 1)
            parts.append("kernel flipped")
        elif spread != right[axis][2 + axis]:
            parts.append(f"dilation {spread} {along} instead of {right[axis][2 + axis]}")
        parts += _late(start - right[axis][4], along)
    return _joined(parts) or "windows at the wrong cells"


def _sentence(fitted: Sequence[Formula], right: Sequence[Formula], result: str, product: Sequence[str]) -> str:
    """The products that are added, with the formula of their cells and the correct one."""

    def cell(name: str, formulas: Sequence[Formula]) -> str:
        if name in IMAGE:
            return f"{name}[{_written(formulas[0])}, {_written(formulas[1])}]"
        return f"{name}[i, j]" if name in OUTPUT else f"{name}[r, s]"

    factors, better = (" · ".join(cell(name, formulas) for name in reversed(product)) for formulas in (fitted, right))
    if result in IMAGE:
        return f"Your function adds {factors} to {cell(result, fitted)} instead of {cell(result, right)}."
    return f"Your function adds {factors} to {cell(result, fitted)} instead of {better}."


def _written(formula: Formula) -> str:
    """A formula as text.

    >>> _written((2, 0, 1, 0, -1))
    '2·i + r − 1'
    """
    parts = [(n, letter) for n, letter in zip(formula, (*LETTERS, ""), strict=True) if n]
    text = ""
    for number, letter in parts:
        size = abs(number)
        word = letter if letter and size == 1 else f"{size}·{letter}" if letter else str(size)
        text += (f" {'−' if number < 0 else '+'} " if text else "−" if number < 0 else "") + word
    return text or "0"
