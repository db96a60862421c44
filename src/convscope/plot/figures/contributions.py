"""Contributions: what each pixel of the image adds to one number, and the constant that is left when all are 0."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.plot.canvas.calculation import badge, ledger
from convscope.plot.canvas.sheet import SMALL, Sheet, snap, tile
from convscope.plot.canvas.style import ACCENT, MUTED, ColorScale, size
from convscope.render.numbers import NumberScale as Digits
from convscope.render.numbers import short, small
from convscope.render.sums import RULE, Row
from convscope.type_checks import takes

if TYPE_CHECKING:  # proof knows torch, and pictures do without
    from convscope.proof.contributions import Contributions

WRONG = "#b2182b"
LONGEST = 2.6  # inches, a map
COLORS = ("red", "green", "blue")


@takes(found="Contributions")
def contributions(found: "Contributions") -> Figure:
    """What each cell of the input adds to one number and what it is multiplied by; below, how it adds up.

    Zero is the middle of both colour scales; channels share one scale.

    >>> import torch, convscope as cs
    >>> why = cs.explain(cs.trace(torch.nn.Conv2d(1, 1, 2), torch.ones(1, 4, 4)), "conv2d", (0, 1, 1))
    >>> [str(image.get_label()) for image in contributions(why.to_input()).axes[0].images]
    ['contributions', 'legend', 'weights', 'legend']

    Args:
        found: What `why.to_input()` gave.
    """
    sheet = Sheet()
    y = sheet.header(f"{found.name} = {short(found.value)}, followed back to the input", _kind(found)) + 0.1
    for name, added in found.pixels.items():
        for word, values in (("contributions", added), ("weights", found.weights[name])):
            y = _maps(sheet, y, name, word, _planes(values)) + 0.16
    y = ledger(sheet, y, _rows(found), frozenset(range(3)))
    caption, color = ("✓ adds up, within the bound", ACCENT) if found.checks else ("✗ does not add up", WRONG)
    if np.isnan(found.bound):
        caption, color = "adds up to this; no bound is known", MUTED
    badge(sheet, y + 0.18, caption, color)
    return sheet.finish()


SAYS = {"contributions": "what each cell adds", "weights": "what each cell is multiplied by"}


def _maps(sheet: Sheet, top: float, name: str, word: str, planes: NDArray[np.float64]) -> float:
    """One map for each channel, side by side, and their legend; returns where it ends."""
    scale = ColorScale.of(planes)
    sheet.text(0, top + 0.12, SAYS[word], bold=True)
    sheet.text(0, top + 0.26, f"{name}, {size(planes.shape)}", points=SMALL, color=MUTED)
    w, h = tile(planes.shape, LONGEST if len(planes) == 1 else 1.9)
    y = snap(top + (0.34 if len(planes) == 1 else 0.48))
    for k, plane in enumerate(planes):
        x = snap((w + 0.2) * k)
        if len(planes) > 1:
            called = COLORS[k] if len(planes) == 3 else f"channel {k}"
            sheet.text(x, y - 0.06, called, points=SMALL, color=MUTED)
        sheet.map(plane, (x, y, w, h), scale, word)
    sheet.legend(0, y + h + 0.16, max(w, 1.8), scale)
    return y + h + 0.28


def _planes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Any input as planes (C, H, W): the first image of a batch, a row of numbers as a strip."""
    array = values[0] if values.ndim == 4 else values
    return array if array.ndim == 3 else array.reshape(1, -1, array.shape[-1] if array.ndim else 1)


def _rows(found: "Contributions") -> list[Row | str]:
    """What is added, taken away and constant; the sum, beside the number as recorded."""
    every = np.concatenate([pixels.reshape(-1) for pixels in found.pixels.values()])
    parts = [float(every[every > 0].sum()), float(every[every < 0].sum()), found.constant]
    digits = Digits.of([*parts, found.value])
    shown = sum(map(digits.units, parts)) if np.isfinite([*parts, found.total]).all() else 0
    rest = digits.units(found.total) - shown if shown else 0
    return [
        Row(f"{np.count_nonzero(every > 0):,} cells that add", digits.show(parts[0])),
        Row(f"{np.count_nonzero(every < 0):,} cells that take away", digits.show(parts[1])),
        Row("constant: biases and shifts", digits.show(parts[2])),
        *([Row("rounding of the numbers shown", digits.text(rest))] if rest else []),
        RULE,
        Row("calculated", digits.show(found.total)),
        Row("recorded by PyTorch", digits.show(found.value)),
        Row("difference", small(found.residual), f"allowed ± {small(found.bound)}"),
    ]


def _kind(found: "Contributions") -> str:
    if found.broken:
        steps = ", ".join(found.broken[:3])
        return f"unknown: the chain to the image is broken at {steps}; what goes through that is not shown"
    if found.linear:
        return "exact: every step on the way is piecewise linear"
    named = ", ".join(found.bent[:3]) + (f" and {len(found.bent) - 3} more" if len(found.bent) > 3 else "")
    return f"the tangent at this input, because these steps are not piecewise linear: {named}"
