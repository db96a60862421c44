"""Gradients: the gradient's norm at every layer on a logarithmic scale, a line for each measured step of a training."""

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, Sheet
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED, shorten, width
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:
    from convscope.probe.gradients import Gradients

HIGH = 2.6  # of the graph, in inches
STEP, WIDEST = 0.85, 6.4  # from one layer to the next, and of the graph
LEFT = 0.55


@takes(found="Gradients")
def gradients(found: "Gradients") -> Figure:
    """Draw the norm of the gradient of each layer's outputs, from the first layer to the last.

    >>> import convscope as cs
    >>> result = cs.probe.gradients(cs.load_model("mnist-convnet"), cs.load_dataset("shapes"), images=64)
    >>> gradients(result).axes[0].texts[0].get_text()
    'Gradients of mnist-convnet'

    Args:
        found: The result of `cs.probe.gradients`.
    """
    sheet = Sheet()
    facts = f"{found.dataset} · {found.images:,} images in batches of {found.batch} · {found.loss}"
    what = "norm of the gradient of an image's loss at a layer's outputs: median, and from 10 % to 90 % now"
    top = sheet.header(f"Gradients of {found.model}", facts, what, found.verdict) + 0.2
    medians = np.array([[np.median(layer.outputs) for layer in point.layers] for point in found.points])
    now = np.array([np.quantile(layer.outputs, (0.1, 0.9)) for layer in found.points[-1].layers])  # (layers, 2)
    seen = np.concatenate([medians.ravel(), now.ravel()])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    low, high = (math.floor(np.log10(seen.min())), math.ceil(np.log10(seen.max()))) if len(seen) else (-1, 0)
    high = max(high, low + 1)
    pitch = min(STEP, WIDEST / max(len(medians[0]) - 1, 1))
    xs = [LEFT + 0.2 + pitch * k for k in range(len(medians[0]))]
    right = xs[-1] + 0.2

    def height(norm: float) -> float:
        """Where a norm is drawn; 0, which has no logarithm, on the lowest line."""
        part = (math.log10(norm) - low) / (high - low) if norm > 0 and math.isfinite(norm) else 0.0
        return top + HIGH * (1 - min(max(part, 0.0), 1.0))

    _grid(sheet, low, high, top, right)
    for k, (x, (lower, upper)) in enumerate(zip(xs, now.tolist(), strict=True)):
        sheet.line((x, x), (height(lower), height(upper)), LINE, 2.5)
        _layer_name(sheet, found.points[-1].layers[k].layer, x, top + HIGH, pitch)
    for number, (point, line) in enumerate(zip(found.points, medians.tolist(), strict=True)):
        last = number == len(found.points) - 1
        color = ACCENT if last else _shade((number + 1) / len(found.points))
        sheet.line(xs, [height(norm) for norm in line], color, 1.4 if last else 0.8)
        for x, norm in zip(xs, line, strict=True):
            sheet.point(x, height(norm), "o" if norm > 0 else "x", color)
        text = ("now" if point.step is None else f"step {point.step:,}") + f", loss {compact(point.loss, 3)}"
        if len(found.points) > 1:
            y = top + 0.1 + 0.17 * number
            sheet.line((right + 0.2, right + 0.42), (y, y), color, 1.2)
            sheet.text(right + 0.5, y, text, points=SMALL, color=INK if last else MUTED, middle=True)
    return sheet.finish()


def _grid(sheet: Sheet, low: int, high: int, top: float, right: float) -> None:
    """Lines at powers of ten, at most eight of them named."""
    every = math.ceil((high - low) / 8)
    for power in range(low, high + 1):
        y = top + HIGH * (high - power) / (high - low)
        if (power - low) % every == 0:
            sheet.line((LEFT, right), (y, y), LINE)
            sheet.text(
                LEFT - 0.08, y, compact(10.0**power), points=FOOT, mono=True, color=MUTED, align="right", middle=True
            )


def _layer_name(sheet: Sheet, name: str, x: float, bottom: float, pitch: float) -> None:
    """A layer's name under its points, turned where it is wider than its place."""
    if width(name, LABEL) < pitch - 0.06:
        sheet.text(x, bottom + 0.2, name, align="center")
        return
    short = shorten(name, SMALL, 1.2)
    sheet.text(x + 0.04, bottom + 0.12 + width(short, SMALL), short, points=SMALL, turn=90)
    sheet.reach(x, bottom + 0.2 + width(short, SMALL))


def _shade(part: float) -> str:
    """From the colour of lines to that of grey text, the later the darker."""
    one, other = np.array(to_rgb(LINE)), np.array(to_rgb(MUTED))
    return str(to_hex(tuple(one + (other - one) * part)))
