"""Explanation: why one number is what it is, as a picture: the window, the kernel, the products and their sum.

Uses expressions and how they are written; no trace but through the explanation, no torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.plot.canvas.calculation import (
    SLIM,
    WIDE,
    WRITTEN,
    Grey,
    Window,
    badge,
    draw_graph,
    draw_products,
    ledger,
)
from convscope.plot.canvas.sheet import SMALL, Area, Sheet, snap, tile
from convscope.plot.canvas.step_maps import choose
from convscope.plot.canvas.style import ACCENT, INK, MUTED, PAGE, ColorScale, styled
from convscope.proof.explanation import Explanation
from convscope.proof.status import PROVED, STATUSES, Status, Tone
from convscope.render.drawing import compared, draw, headline, result
from convscope.render.numbers import decimal, short
from convscope.render.sums import BLANK, RULE, Detail, Row, chosen, closing, region, scale_of
from convscope.render.worksheet import Channel, channels_of
from convscope.type_checks import takes

MOST_PARTS, PARTS_ACROSS = 12, 4
EXTREMES = frozenset({"max", "min", "argmax", "argmin"})
WRONG = "#b2182b"
_COLORS: Mapping[Tone, str] = {"good": ACCENT, "bad": WRONG, "open": MUTED, "neutral": MUTED}
"""The badge's colour."""


@takes(why="Explanation")
@styled()
def explanation(why: Explanation, *, most: int = 4, depth: int = 1) -> Figure:
    """Why one number is what it is: window × kernel = products and their sum, or the calculation that made it.

    A long sum shows its largest terms as bars and the total of the others, a maximum its candidates with the winner
    framed, any other function its formula with the numbers put in (and its curve, if it is one of one number), a move
    the cell that it came from.

    >>> import torch, convscope as cs
    >>> why = cs.explain(cs.trace(torch.nn.Conv2d(1, 1, 2), torch.ones(1, 2, 2)), "conv2d", (0, 0, 0))
    >>> [str(image.get_label()) for image in explanation(why).axes[0].images]
    ['window', 'kernel', 'products', 'legend']

    Args:
        why: What `cs.explain` gave.
        most: How many channels of a window to draw; half as many again where that is all of them.
        depth: 2 also draws the windows behind the numbers that this one is made of, such as the nine window sums
            behind a mean; at most 12 of them, each of one channel.

    Raises:
        UsageError: `most` is less than 1, or `depth` is neither 1 nor 2.
    """
    if depth not in {1, 2}:
        raise UsageError(f"depth is 1, or 2 to draw the numbers behind this one too, not {depth}.")
    if most < 1:
        raise UsageError(f"at least one channel is drawn, so most must be 1 or more, not {most}.")
    sheet = Sheet()
    expr = why.expr
    if expr is None:
        y = sheet.header(f"{why.name} = {short(why.recorded)}", *why.notes)
        _verdict(sheet, y + 0.1, why.status)
        return sheet.finish()
    y = sheet.header(f"{why.name} = {result(expr)}", *_wrapped(headline(expr)), *why.notes)
    y, rows, bars = _body(sheet, y + 0.12, why, expr, most)
    y = ledger(sheet, y + 0.2, [*rows, RULE, Row("calculated", result(expr)), *_compared(why, expr)], bars)
    _verdict(sheet, y + 0.18, why.status)
    if depth == 2:
        _draw_parts(sheet, y + 0.75, why)
    return sheet.finish()


def _draw_parts(sheet: Sheet, y: float, explained: Explanation) -> None:
    """The products of the windows behind the numbers that this one is made of, in the order of their cells."""
    leaves = [leaf for leaf in explained.parts(all=True) if isinstance(leaf, Leaf)]
    parts = [part for leaf in leaves if (part := explained.follow(leaf)) is not None]
    windows = [
        (part, Window(part.expr, channels[0]))
        for part in parts
        if isinstance(part.expr, Dot) and len(channels := channels_of(part.expr)) == 1
    ]
    windows = sorted(windows[:MOST_PARTS], key=lambda window: window[0].cell)
    if not windows:
        sheet.text(0, y, "no number behind it is a sum over a window of one channel", points=SMALL, color=MUTED)
        return
    scale = ColorScale.of(*(window.products for _, window in windows), *(window.weights for _, window in windows))
    cell = SLIM if max(max(window.products.shape) for _, window in windows) > 3 else WIDE
    left_out = f", {len(windows)} of {len(parts)}" if len(windows) < len(parts) else ""
    y = _draw_kernel(sheet, y, [window for _, window in windows], cell, scale)
    caption = f"the windows behind it: each cell times the kernel's weight at its place{left_out}"
    sheet.text(0, y, caption, points=SMALL, color=INK)
    across = min(len({part.cell[-1] for part, _ in windows}), PARTS_ACROSS)
    for index, (part, window) in enumerate(windows):
        w, h = (snap(side) * count for side, count in zip(cell, window.products.shape[::-1], strict=True))
        x, top = snap(index % across * (w + 0.35)), snap(y + 0.4 + index // across * (h + 0.62))
        sheet.text(x, top - 0.08, part.name, points=SMALL, color=MUTED)
        window.draw(sheet, (x, top, w, h), scale, f"products of {part.name}")
        dot = window.dot
        bias = f" + {decimal(dot.bias.value())}" if dot.bias is not None else ""
        sheet.text(x, top + h + 0.14, f"{decimal(dot.total())}{bias} = {result(dot)}", points=SMALL)


def _draw_kernel(sheet: Sheet, y: float, windows: list[Window], cell: tuple[float, float], scale: ColorScale) -> float:
    """The kernel and the bias, if all windows have the same; returns where the windows begin."""
    window = windows[0]
    biases = {each.dot.bias.value() if each.dot.bias is not None else None for each in windows}
    if not window.kernel or len({each.kernel for each in windows}) > 1 or len(biases) > 1:
        return y
    w, h = (snap(side) * count for side, count in zip(cell, window.weights.shape[::-1], strict=True))
    top = snap(y + 0.12)
    sheet.text(0, y, window.kernel, bold=True)
    sheet.numbers(window.weights, (0.0, top, w, h), scale, "kernel")
    bias = biases.pop()
    if bias is not None:
        sheet.text(0, top + h + 0.14, f"bias {decimal(bias)}", points=SMALL, color=MUTED)
    return float(top + h + 0.6)


def _verdict(sheet: Sheet, y: float, status: Status) -> None:
    """The badge, its upper edge at y; below it what it means, unless the number is proved."""
    text = STATUSES[status]
    badge(sheet, y, text.word, _COLORS[text.tone])
    if status not in PROVED:
        sheet.text(0, y + 0.4, text.sentence, points=SMALL, color=MUTED)


Body = tuple[float, list[Row | str], frozenset[int]]
"""Where the drawing ends, the lines below it, and which of these have a bar."""


def _body(sheet: Sheet, y: float, explained: Explanation, expr: Expr, limit: int) -> Body:
    """What is drawn, and the lines that lead from it to the result."""
    if isinstance(expr, Dot):
        channels = channels_of(expr)
        return _window(sheet, y, explained, expr, channels, limit=limit) if channels else _terms(y, expr)
    if isinstance(expr, Leaf):
        return _moved(sheet, y, explained, expr), draw(expr), frozenset()
    cells = next((a for a in expr.arguments.values() if isinstance(a, Cells)), None)
    if expr.function in EXTREMES and cells is not None and _is_plane(cells):
        y = _candidates(sheet, y, explained, expr, cells)
        lines: list[Row | str] = [row for row in draw(expr) if isinstance(row, Row)]
        return y, lines[1:] if lines[0] is BLANK else lines, frozenset()
    y = draw_graph(sheet, y + 0.08, expr)
    rows = draw(expr)
    terms = [i for i, row in enumerate(rows) if isinstance(row, Row) and "exp(" in row.label and cells is not None]
    return y - 0.12, rows, frozenset(terms)


def _window(sheet: Sheet, y: float, explained: Explanation, dot: Dot, channels: list[Channel], *, limit: int) -> Body:
    """The channels with the largest sums, each drawn; one line for the others, so that it adds up."""
    scale = scale_of(dot)
    totals = np.array([channel.total for channel in channels])
    choice = choose(totals, limit if len(channels) > 1.5 * limit else len(channels), "channels")
    shown = [channels[k] for k in choice.shown]
    if choice.summary:
        caption = f"{limit:,} of {len(channels):,} channels, those whose products sum to the most"
        sheet.text(0, y + 0.08, caption, points=SMALL, color=INK)
        y += 0.2
    y = draw_products(sheet, y, dot, shown, digits=scale, grey=_grey(explained, dot.left))
    if not np.isfinite([*dot.products, dot.value()]).all():
        return y, [Row(f"sum of the {len(dot.left):,} products", short(dot.total()))], frozenset()
    units = [sum(scale.units(float(p)) for p in dot.products[c.terms].ravel()) for c in shown]
    rows: list[Row | str] = []
    if len(channels) > 1:
        rows = [
            Row(f"{dot.left.source.name} channel {c.number}, sum of {c.terms.size:,}", scale.text(u))
            for c, u in zip(shown, units, strict=True)
        ]
    if choice.summary:
        others = len(channels) - len(shown)
        remainder = dot.total() - float(totals[list(choice.shown)].sum())
        units.append(scale.units(remainder))
        rows.append(
            Row(f"the other {others:,} channels, sum of {others * shown[0].terms.size:,}", scale.text(units[-1]))
        )
    bars = frozenset(range(len(rows)))
    return y, [*rows, *([RULE] if rows else []), *closing(dot, scale, sum(units), drawn=True)], bars


def _terms(y: float, dot: Dot) -> Body:
    """The largest terms of a sum without a window, as lines with bars."""
    rows = [row for row in draw(dot) if row is not BLANK]
    shown = min(len(chosen(dot, Detail())) + 1, len(dot.left))
    return y - 0.24, rows, frozenset(range(shown))


def _candidates(sheet: Sheet, y: float, explained: Explanation, apply: Apply, cells: Cells) -> float:
    """The cells that a maximum chose from, the winner framed."""
    shape = cells.grid
    values = cells.values.reshape(shape)
    written = max(shape) <= WRITTEN
    cell = WIDE if max(shape) <= 5 else SLIM
    w, h = (snap(cell[0]) * shape[1], snap(cell[1]) * shape[0]) if written else tile(shape, 2.4)
    area = (0.0, snap(y + 0.2), w, h)
    sheet.text(0, area[1] - 0.07, region(cells, np.arange(len(cells)).reshape(shape)), points=SMALL, color=MUTED)
    grey = _grey(explained, cells)
    scale = ColorScale.of(values)
    if grey is not None:
        sheet.picture(grey(cells.values, cells.cells).reshape(shape)[None], area, "candidates")
    elif written:
        sheet.numbers(values, area, scale, "candidates")
    else:
        sheet.map(values, area, scale, "candidates")
    pick = np.argmin if apply.function.endswith("min") else np.argmax
    _frame(sheet, area, shape, divmod(int(pick(cells.values)), shape[1]))
    if grey is None:
        sheet.legend(0, area[1] + h + 0.16, max(w, 1.35), scale)
        return area[1] + h + 0.26
    return area[1] + h + 0.1


def _moved(sheet: Sheet, y: float, explained: Explanation, leaf: Leaf) -> float:
    """The plane that a moved number came from, its cell framed; nothing where there is no plane."""
    source = leaf.source
    arrays = explained.trace.inputs if source.kind == "input" else {}
    if source.kind == "step":
        arrays = {source.name: explained.trace[source.name].outputs[source.output]}
    array = arrays.get(source.name)
    if array is None or array.ndim < 3 or min(array.shape[-2:]) < 2 or len(leaf.cell) != array.ndim:
        return y - 0.24
    plane = np.asarray(array[leaf.cell[:-2]], np.float64)
    area = (0.0, snap(y + 0.2), *tile(plane.shape, 2.2))
    channel = f" channel {leaf.cell[-3]}" if array.shape[-3] > 1 else ""
    sheet.text(0, area[1] - 0.07, f"{source.name}{channel}, the cell framed", points=SMALL, color=MUTED)
    scale = ColorScale.of(plane)
    sheet.map(plane, area, scale, "source")
    _frame(sheet, area, plane.shape, (leaf.cell[-2], leaf.cell[-1]))
    sheet.legend(0, area[1] + area[3] + 0.16, max(area[2], 1.35), scale)
    return area[1] + area[3] + 0.26


def _frame(sheet: Sheet, area: Area, shape: Sequence[int], cell: tuple[int, int]) -> None:
    """A frame around one cell, seen on dark and on light."""
    w, h = area[2] / shape[1], area[3] / shape[0]
    x, y = area[0] + w * cell[1], area[1] + h * cell[0]
    sheet.frame(x, y, w, h, color=PAGE, weight=3.2)
    sheet.frame(x, y, w, h, color=INK, weight=1.6)


def _compared(explained: Explanation, expr: Expr) -> list[Row | str]:
    """Recorded and difference, with PyTorch named."""
    return [
        Row("recorded by PyTorch", row.number, row.after) if isinstance(row, Row) and row.label == "recorded" else row
        for row in compared(expr, explained.recorded, explained.bound)
    ]


def _grey(explained: Explanation, cells: Cells) -> Grey | None:
    """How bright the pixels of the image are, where these cells are such and can be shown."""
    if cells.source.kind != "input":
        return None
    expected = explained.trace.card.preprocess
    mean, std = np.asarray(expected.mean), np.asarray(expected.std)

    def bright(values: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
        channel = np.clip(indices[:, -3], 0, None) if indices.shape[1] > 2 else np.zeros(len(indices), int)
        level = values * std[channel % len(std)] + mean[channel % len(mean)]
        return np.asarray(np.clip(level, 0, 1))

    pixels = np.asarray(explained.trace.inputs[cells.source.name], np.float64)
    levels = pixels if pixels.ndim < 3 else pixels * std.reshape(-1, 1, 1) + mean.reshape(-1, 1, 1)
    return bright if levels.min() >= -1e-6 and levels.max() <= 1 + 1e-6 else None


def _is_plane(cells: Cells) -> bool:
    return len(cells.grid) == 2 and len(cells.source.shape) >= 3 and 2 <= len(cells) <= 4096


def _wrapped(text: str, longest: int = 110) -> list[str]:
    """A long sentence as several lines."""
    lines = [""]
    for word in text.split(" "):
        lines = [*lines[:-1], f"{lines[-1]} {word}"] if len(lines[-1]) + len(word) < longest else [*lines, word]
    return [line.strip() for line in lines]
