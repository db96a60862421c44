"""Grids: the window, the kernel and the products of a small sum, drawn as aligned numbers."""

import numpy as np

from convscope.expr.call import Array
from convscope.expr.expr import Cells, Dot
from convscope.render.numbers import NumberScale, beside, right

WIDTH = 98
PADDING = "·"
CHANNELS = 4


def grids(dot: Dot, scale: NumberScale, everything: bool = False) -> list[str]:
    """The lines of the drawing; empty if the sum has no plane, or one too large to display.

    Args:
        dot: A convolution, a pooling, an interpolation, a mean over planes.
        scale: How its products are shown.
        everything: Draw all channels, however many.
    """
    planes = _planes(dot)
    if planes is None or (len(planes) > CHANNELS and not everything):
        return []
    columns = [dot.left.values, *([] if dot.right is None else [dot.right.values])]
    scales = [NumberScale.of(map(float, column)) for column in columns]
    for gap in ("  ", " "):
        blocks = [_block(dot, plane, scales, scale, gap) for plane in planes]
        if max(len(line) for block in blocks for line in block[1:]) <= WIDTH:
            return [line for block in blocks for line in ("", *block)][1:]
    return []


def _planes(dot: Dot) -> Array | None:
    """Which terms form which plane, (channels, rows, columns); None where there are no planes."""
    grid = dot.left.grid
    convolution = dot.right is not None and dot.right.source.kind != "computed"
    spatial = len(grid) - convolution
    if spatial != 2 or len(dot.left.source.shape) < 3 or grid[-2] > 8 or grid[-2] * grid[-1] < 2:
        return None
    return np.arange(len(dot.left)).reshape(-1, *grid[-2:])


def _block(dot: Dot, plane: Array, scales: list[NumberScale], scale: NumberScale, gap: str) -> list[str]:
    window = _numbers(dot.left.values, plane, scales[0], dot.left, gap)
    if dot.right is None:
        return [region(dot.left, plane), *window]
    kernel = _numbers(dot.right.values, plane, scales[1], None, gap)
    products = _numbers(dot.products, plane, scale, dot.left, gap)
    head = f"{region(dot.left, plane)}  ×  {_place(dot.right, plane)}  =  products"
    return [head, *beside([window, kernel, products], ["  ×  ", "  =  "])]


def _numbers(values: Array, plane: Array, scale: NumberScale, window: Cells | None, gap: str) -> list[str]:
    def shown(index: int) -> str:
        return PADDING if window is not None and window.is_padding(index) else scale.show(float(values[index]))

    texts = right([shown(int(i)) for i in plane.ravel()])
    width = plane.shape[1]
    return [gap.join(texts[start : start + width]) for start in range(0, len(texts), width)]


def region(cells: Cells, plane: Array) -> str:
    """The region of a plane of cells: `conv1 channel 3, rows 0 to 2, columns 4 to 6`."""
    where = cells.cells[plane]
    spans = [_span(name, where[..., axis]) for name, axis in (("row", -2), ("column", -1))]
    many = len(cells.source.shape) > 2 and cells.source.shape[-3] > 1
    channel = f" channel {where[0, 0, -3]}" if many else ""
    return f"{cells.source.name}{channel}, {', '.join(spans)}"


def _span(name: str, positions: Array) -> str:
    result = np.unique(positions)
    texts = [str(p).replace("-", "−") for p in result]
    if len(result) == 1:
        return f"{name} {texts[0]}"
    steps = np.diff(result)
    if (steps == 1).all():
        return f"{name}s {texts[0]} to {texts[-1]}"
    return f"{name}s {', '.join(texts)}"


def _place(cells: Cells, plane: Array) -> str:
    if cells.source.kind == "computed":
        return cells.source.name
    lead = cells.cells[plane[0, 0]][:-2]
    return f"{cells.source.name}[{', '.join(map(str, lead))}]"
