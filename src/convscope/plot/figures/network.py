"""Network: all of it at a glance, from the image to its answer, with its branches; deep ones folded by module."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from convscope.plot.arguments import picture_to_draw, trace_of
from convscope.plot.canvas.network_column import HEAD, NetworkColumn, draw_column, image_column, part_column
from convscope.plot.canvas.sheet import TINY, Sheet, snap
from convscope.plot.canvas.step_maps import Choice, FoldedPart, fold, picture_of
from convscope.plot.canvas.style import INK, MUTED, ColorScale, styled, width
from convscope.type_checks import takes
from convscope.typing import Array

MOST_PARTS = 20
GAP = 0.34  # inches between parts, for the arrow
PAGE_WIDTH = 11.5
ROOMY = 13.2
"""Page width at which the remaining parts fit on one line, so that no single part is left for the last line."""
LANE = 0.13  # inches between lines that go round


@takes()
@styled()
def network(
    trace: object,
    image: object = None,
    *,
    depth: int | None = None,
    shared: bool = False,
    picture: Array | None = None,
    name: str = "",
    classes: Sequence[str] = (),
) -> Figure:
    """The whole network on one strip: each step with its name, its shape and its maps, arrows for what reads what.

    >>> import convscope as cs
    >>> figure = cs.plot.network("crosses", "crosses:plus")
    >>> figure.savefig("crosses.svg")  # doctest: +SKIP

    Steps that only reshape are left out. More than twenty are folded by module. A line below the strip
    leads from a step to a later one that also reads it: a branch, a skip connection.

    Args:
        trace: A trace of one image (of several, the first is drawn); or a model, a run or the name of either.
        image: The image for a model: a file, an image of a data set, or an array.
        depth: How many levels of modules to open; by default all, or as many as there is room for.
        shared: One colour scale for all steps instead of one for each.
        picture: The image as a person sees it, shape (C, H, W) from 0 to 1; by default the trace's, as its card says.
        name: What the model is called, by default as its card says.
        classes: Names of the last step's units, by default those of the trace's card.
    """
    recorded, own_picture = trace_of(trace, image, "network")
    picture = own_picture if picture is None else picture_to_draw(picture, "network")
    parts, hidden = fold(recorded, MOST_PARTS, depth)
    shown = picture_of(recorded) if picture is None else picture
    columns = _columns(parts, shown, tuple(classes) or recorded.card.classes)
    common = ColorScale.of_maps(*(column.values for column in columns if column.kind != "image")) if shared else None
    some = any(column.chosen.summary for column in columns)
    sheet = Sheet()
    left_out = (
        "of many channels: those with the largest range, the same ones through steps that keep them" if some else ""
    )
    y = sheet.header(name or recorded.card.name, _facts(parts, hidden, shared), left_out) + 0.2
    if common:
        sheet.legend(0, y, 2.4, common)
        y += 0.3
    for row in _rows(columns):
        y = _draw_row(sheet, y, columns, row, common)
    return sheet.finish()


def _facts(parts: Sequence[FoldedPart], hidden: int, shared: bool) -> str:
    count = sum(len(part.steps) for part in parts)
    folded = f" in {len(parts)} part{'s' * (len(parts) != 1)}" if count > len(parts) else ""
    left = f", and {hidden} that only reshape{'s' if hidden == 1 else ''}" if hidden else ""
    scale = "one colour scale for all steps" if shared else "each in its own colour scale"
    return f"{count} step{'s' if count > 1 else ''}{folded}{left} · {scale}"


def _columns(parts: Sequence[FoldedPart], picture: Array, classes: tuple[str, ...]) -> list[NetworkColumn]:
    """The image and every part."""
    columns, chosen = [image_column(picture)], dict[int, Choice]()
    for position, part in enumerate(parts):
        reads = tuple(source + 1 for source in part.reads)
        column = part_column(part, chosen, reads=reads, classes=classes, last=position == len(parts) - 1)
        if column.kind == "maps":
            chosen[part.last.id] = column.chosen
        columns.append(column)
    return columns


def _rows(columns: Sequence[NetworkColumn]) -> list[list[int]]:
    """The parts on each line: as many as fit, broken where the fewest branches are cut."""
    rows, start = [], 0
    while start < len(columns):
        used_width, end = 0.0, start
        page = ROOMY if sum(column.room + GAP for column in columns[start:]) - GAP <= ROOMY else PAGE_WIDTH
        while end < len(columns) and (end == start or used_width + columns[end].room <= page):
            used_width += columns[end].room + GAP
            end += 1
        if end < len(columns):
            least = start + max(1, (end - start) * 3 // 5)
            end = min(range(least, end + 1), key=lambda e: (_cut(columns, e), -e))
        rows.append(list(range(start, end)))
        start = end
    return rows


def _cut(columns: Sequence[NetworkColumn], position: int) -> int:
    """How many lines that go round would be cut by ending a line before `position`."""
    return sum(source < position - 1 for column in columns[position:] for source in column.reads if source < position)


def _draw_row(
    sheet: Sheet, y: float, columns: Sequence[NetworkColumn], row: Sequence[int], common: ColorScale | None
) -> float:
    """One line of parts with its arrows; returns where the next begins."""
    x, lefts = 0.0, dict[int, float]()
    middle = y + HEAD + min(0.36, max(columns[column].block[1] for column in row) / 2)
    if row[0] > 0 and row[0] - 1 in columns[row[0]].reads:
        sheet.text(0, middle, "→", points=9, color=MUTED, middle=True)
        x = 0.24
    for column in row:
        lefts[column] = x = snap(x)
        draw_column(sheet, (x, y), columns[column], common)
        x += columns[column].room
        if column + 1 < len(columns) and column in columns[column + 1].reads:
            sheet.text(x + GAP / 2, middle, "→", points=9, color=MUTED, align="center", middle=True)
        x += GAP
    feet = {column: y + HEAD + columns[column].block[1] + columns[column].feet(common) for column in row}
    lanes = _draw_branches(sheet, feet, columns, lefts)
    return max(feet.values()) + lanes * LANE + 0.3


def _draw_branches(
    sheet: Sheet, feet: dict[int, float], columns: Sequence[NetworkColumn], lefts: dict[int, float]
) -> int:
    """Lines below the strip from a part to the later parts, beyond the next, that read it; returns how many lanes.

    If a connection leads to another line of the figure, it ends with the name of its target.
    """
    busy: list[float] = []  # how far to the right each lane is taken
    for source in range(max(lefts) + 1):
        readers = [column for column in range(source + 2, len(columns)) if source in columns[column].reads]
        drawn_readers = [column for column in readers if column in lefts]
        other_names = [columns[column].name for column in readers if column > max(lefts)] if source in lefts else []
        if not drawn_readers and not other_names:
            continue
        starts = lefts[source] + columns[source].room - 0.14 if source in lefts else 0.0
        caption = (
            f"to {', '.join(other_names)}"
            if other_names
            else f"from {columns[source].name}"
            if source not in lefts
            else ""
        )
        text_at = max([starts] + [lefts[column] + 0.12 for column in drawn_readers]) + 0.06 if other_names else 0.0
        ends = max([lefts[column] + 0.12 for column in drawn_readers], default=starts)
        ends = max(ends, text_at + width(caption, TINY)) if caption else ends
        lane = next((n for n, right_end in enumerate(busy) if right_end < starts - 0.1), len(busy))
        busy[lane : lane + 1] = [ends]
        down = max(feet.values()) + LANE * (lane + 1)
        if source in lefts:
            sheet.line((starts, starts), (feet[source], down), MUTED, 0.8)
        sheet.line((starts, ends), (down, down), MUTED, 0.8)
        for column in drawn_readers:
            into = lefts[column] + 0.12
            sheet.line((into, into), (down, feet[column] + 0.02), MUTED, 0.8)
            sheet.point(into, feet[column] + 0.02, "^", MUTED)
        if caption:
            sheet.text(text_at, down - 0.03, caption, points=TINY, color=INK)
    return len(busy)
