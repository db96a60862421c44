"""The parts of a check's text: small arrays side by side, and two sums next to each other."""

from collections.abc import Sequence

import numpy as np

from convscope.checking.comparison import Term
from convscope.render.numbers import aligned, beside, right, short, signed
from convscope.typing import Array

CELLS = 64
"""Arrays with more cells are described by their shape."""
ROWS = 20
"""Terms of a sum that are shown; the others are counted."""
WRONG = "*"


def plural(count: int, word: str) -> str:
    """A number and its noun.

    >>> plural(1, "case"), plural(3, "case")
    ('1 case', '3 cases')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def label(name: str, cell: Sequence[int], shape: Sequence[int]) -> str:
    """A cell of an array, without the leading axes that have one entry.

    >>> label("x", (0, 0, 1, 2), (1, 1, 3, 3)), label("x", (0, 1), (1, 2)), label("loss", (), ())
    ('x[1, 2]', 'x[1]', 'loss')
    """
    if not len(cell):
        return name
    lead = next((i for i, n in enumerate(shape) if n != 1), len(shape) - 1)
    return f"{name}[{', '.join(str(int(i)) for i in cell[lead:])}]"


def array_lines(arrays: dict[str, Array], marks: dict[str, Array] | None = None) -> list[str]:
    """Small arrays next to each other, plane by plane, each under its name; wrong cells are marked with a star."""
    blocks = []
    for name, array in arrays.items():
        texts = _texts(array)
        star = np.where((marks or {}).get(name, np.zeros(array.shape, bool)), WRONG, "")
        shown = np.char.add(texts, star) if star.any() else texts
        if star.any():
            shown = np.where(star == WRONG, shown, np.char.add(shown, " "))
        if not array.size:
            blocks.append([name, f"empty, of shape {array.shape}"])
            continue
        planes = shown.reshape(-1, *shown.shape[-2:]) if array.ndim > 2 else shown.reshape(1, 1, -1) \
            if array.ndim < 2 else shown[None]  # fmt: skip
        for index, plane in zip(np.ndindex(*array.shape[:-2]), planes, strict=True):
            head = label(name, [*index, -1, -1], array.shape).replace(", -1", "").replace("[-1]", "")
            head = name if head.endswith("[-1]") or len(planes) == 1 else head
            blocks.append([head, *_rows(plane)])
    return _wrapped([_padded(block) for block in blocks])


def _texts(array: Array) -> Array:
    """Numbers with as few decimals as all of them need, at most four."""
    if array.dtype.kind == "f" and np.isfinite(array).all() and np.abs(array).max(initial=0) < 1e5:
        exact = [d for d in range(4) if np.allclose(array, array.round(d), rtol=0, atol=1e-9)]
        if exact:
            texts = [signed(f"{number:.{exact[0]}f}") for number in (array + 0.0).ravel()]
            return np.array(texts, np.str_).reshape(array.shape)
    return aligned(array)


def _rows(plane: Array) -> list[str]:
    texts = right([str(text) for text in plane.ravel()])
    width = plane.shape[-1]
    return ["  ".join(texts[i : i + width]) for i in range(0, len(texts), width)] if width else []


def _padded(block: list[str]) -> list[str]:
    width = max(map(len, block))
    return [line.ljust(width) for line in block]


def _wrapped(blocks: list[list[str]], width: int = 92) -> list[str]:
    """Blocks side by side, as many as fit, then the next row of them."""
    lines: list[str] = []
    row: list[list[str]] = []
    for block in blocks:
        if row and sum(len(b[0]) + 4 for b in row) + len(block[0]) > width:
            lines += [*_side_by_side(row), ""]
            row = []
        row.append(block)
    return [*lines, *_side_by_side(row)]


def _side_by_side(blocks: list[list[str]]) -> list[str]:
    height = max(map(len, blocks), default=0)
    full = [[*block, *[" " * len(block[0])] * (height - len(block))] for block in blocks]
    return ["    ".join(parts).rstrip() for parts in zip(*full, strict=True)]


def side_by_side(left: Sequence[str], right_lines: Sequence[str], heads: tuple[str, str]) -> list[str]:
    """Two calculations next to each other, each under its heading."""
    first, second = [heads[0], *left], [heads[1], *right_lines]
    height = max(len(first), len(second))
    first += [""] * (height - len(first))
    second += [""] * (height - len(second))
    return beside([first, second], ["     "]) if height else []


def sum_lines(
    terms: Sequence[Term], total: float, shapes: dict[str, tuple[int, ...]], order: Sequence[tuple[object, ...]], *,
    picks: bool = False,
) -> list[str]:  # fmt: skip
    """The terms of one sum as lines, the total below.

    Args:
        order: The first factors of both sums, so that the same cell is on the same line in both.
        picks: Whether the total is the largest of them.
    """
    by_first: dict[tuple[object, ...], list[Term]] = {}
    for term in terms:
        by_first.setdefault(term.factors[0], []).append(term)
    rows: list[list[str]] = []
    for first in order:
        rows += [_row(term, shapes) for term in by_first.get(first, [])] or [[""] * 3]
    rows = rows if len(rows) <= ROWS else [*rows[:ROWS], [f"... {plural(len(rows) - ROWS, 'more line')}", "", ""]]
    is_term = any(abs(term.value - total) < 1e-6 for term in terms)
    rows.append([("largest of these" if is_term else "result, none of these") if picks else "sum", "", short(total)])
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [f"{a.ljust(widths[0])}   {b.ljust(widths[1])} {c.rjust(widths[2])}".rstrip() for a, b, c in rows]


def _row(term: Term, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    names = [label(name, cell, shapes[name]) for name, cell in term.factors]
    numbers = [short(number) for number in term.numbers]
    share = "" if term.times == 1 else f" × {_share(term.times)}"
    formula = " · ".join(names)
    product = " × ".join(f"({n})" if n.startswith("−") and i else n for i, n in enumerate(numbers))
    is_single = len(numbers) == 1 and not share
    return [formula, "" if is_single else f"{product}{share} =", short(term.value)]


def _share(times: float) -> str:
    """A share as a fraction where it is one.

    >>> _share(0.25), _share(2.0)
    ('1/4', '2')
    """
    if 0 < times < 1 and abs(1 / times - round(1 / times)) < 1e-6:
        return f"1/{round(1 / times)}"
    return short(times)
