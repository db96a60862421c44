"""Health: mistakes found in a model's code and data, units that are dead, and the gradient's norm at every layer."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.plot.canvas.sheet import FOOT, LABEL, SMALL, Sheet, snap
from convscope.plot.canvas.style import ACCENT, DPI, INK, LINE, MUTED, PAGE, shorten, styled, width
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.dead import Dead, StepUnits
    from convscope.probe.gradients import Gradients
    from convscope.probe.linting.findings import Lint

LETTERS = 100  # in a line of text
WRONG = "#b2182b"


@takes(found="Lint")
@styled()
def lint(found: "Lint") -> Figure:
    """Write out each mistake with what was seen, why it matters and what to do; and what was looked for.

    >>> import numpy as np, convscope as cs
    >>> figure = lint(cs.probe.lint(kernels={"horizontal": np.array([[-1, 0, 1]] * 3)}))
    >>> "kernel-title" in [t.get_text() for t in figure.axes[0].texts]
    True

    Args:
        found: The result of `cs.probe.lint`.
    """
    sheet = Sheet()
    on = f" · run on {found.images:,} images" if found.images else ""
    title = f"{found.subject}: {_mistake_count(len(found.findings))}"
    y = sheet.header(title, f"{_count(len(found.looked_for), 'check')}{on}") + 0.2
    for finding in found.findings:
        sheet.text(0, y, finding.check, points=LABEL, bold=True, color=WRONG)
        y += 0.17
        parts = (
            ("seen", finding.evidence, INK),
            ("why", finding.lesson.why, MUTED),
            ("do", finding.lesson.remedy, MUTED),
        )
        for word, text, color in parts:
            sheet.text(0, y, word, points=SMALL, color=MUTED)
            for line in textwrap.wrap(text, LETTERS, break_on_hyphens=False):
                sheet.text(0.4, y, line, points=SMALL, color=color)
                y += 0.15
        y += 0.14
    for mark, names, color in (("not found", _clean(found), ACCENT), ("not looked for", list(found.skipped), MUTED)):
        if names:
            sheet.text(0, y, mark, points=SMALL, color=color, bold=True)
            for line in textwrap.wrap(", ".join(names), LETTERS - 10, break_on_hyphens=False):
                sheet.text(0.9, y, line, points=SMALL, color=MUTED)
                y += 0.15
            y += 0.08
    return sheet.finish()


def _clean(lint: "Lint") -> list[str]:
    wrong = {finding.check for finding in lint.findings}
    return [name for name in lint.looked_for if name not in wrong]


def _mistake_count(count: int) -> str:
    return f"{_count(count, 'mistake')} found" if count else "no mistake found"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


COLORS: Mapping[str, str] = {"alive": "#cfe3da", "dead": INK, "saturated": "#d6604d", "duplicate": "#4393c3"}
SIDE, GAP = 0.1, 0.02  # inches, of the squares that say what colours mean


@dataclass(frozen=True, slots=True)
class Squares:
    """How the units of a step are laid out, in pixels of the figure."""

    side: int
    gap: int
    row: int
    """Units in a line."""

    @property
    def pitch(self) -> float:
        """From one unit to the next, in inches."""
        return (self.side + self.gap) / DPI


LARGE, SMALLER = Squares(20, 4, 40), Squares(6, 2, 128)
MANY = 256
"""Where a step has more units than this, the squares of all are small."""


@takes(found="Dead")
@styled()
def dead(found: "Dead") -> Figure:
    """Draw which units are dead, saturated or duplicates of an earlier one: a square for each.

    >>> import convscope as cs
    >>> result = cs.probe.dead(cs.load_model("shapes-cnn"), cs.load_dataset("shapes", split="test"))
    >>> dead(result).axes[0].texts[0].get_text()
    'Dead, saturated and duplicate units of shapes-cnn'

    Args:
        found: The result of `cs.probe.dead`.
    """
    squares = SMALLER if max(len(step.low) for step in found.steps) > MANY else LARGE
    sheet = Sheet()
    facts = f"{found.dataset} · {found.images:,} images · {squares.row} units to a line, unit 0 first"
    y = sheet.header(f"Dead, saturated and duplicate units of {found.model}", facts) + 0.2
    x = 0.0
    for name, color in COLORS.items():
        sheet.fill(x, y - 0.08, SIDE, SIDE, color)
        sheet.text(x + SIDE + 0.05, y, name, points=SMALL)
        x += SIDE + 0.25 + width(name, SMALL)
    left = snap(max(width(shorten(step.step, LABEL, 2.2), LABEL) for step in found.steps) + 0.2)
    y += 0.25
    for step in found.steps:
        y = _row(sheet, step, squares, left, snap(y)) + 0.14
    return sheet.finish()


def _row(sheet: Sheet, step: "StepUnits", squares: Squares, left: float, y: float) -> float:
    """One step; returns where it ends."""
    states = np.zeros(len(step.low), np.intp)
    states[[pair.other for pair in step.duplicates]] = 3
    states[step.saturated], states[step.dead] = 2, 1
    across, down = min(squares.row, len(states)), -(-len(states) // squares.row)
    wide, high = across * squares.pitch, down * squares.pitch
    sheet.text(0, y + 0.085, shorten(step.step, LABEL, 2.2))
    sheet.colors(_squares(states, squares), (left, y + snap(max(0, SIDE - high) / 2), wide, high), step.step)
    counts = [
        f"{n:,} {name}{'s' * (name == 'duplicate' and n > 1)}"
        for name, n in zip(COLORS, np.bincount(states).tolist(), strict=False)
        if n
    ]
    x = left + wide + 0.1
    sheet.text(x, y + 0.08, ", ".join(counts), points=FOOT, color=MUTED)
    bottom = y + max(high, 0.12)
    sheet.line((0, x), (bottom + 0.06, bottom + 0.06), LINE, 0.3)
    return bottom


def _squares(states: NDArray[np.intp], squares: Squares) -> NDArray[np.float64]:
    """The colours of units that are `states` of COLORS, pixel by pixel: shape (height, width, 3)."""
    across = min(squares.row, len(states))
    padded = np.full(-(-len(states) // across) * across, len(COLORS))
    padded[: len(states)] = states
    colors = np.array([to_rgb(color) for color in (*COLORS.values(), PAGE)])[padded.reshape(-1, across)]
    cells = np.full((len(colors), squares.side + squares.gap, across, squares.side + squares.gap, 3), to_rgb(PAGE))
    cells[:, : squares.side, :, : squares.side] = colors[:, None, :, None]
    return cells.reshape(cells.shape[0] * cells.shape[1], -1, 3)


HIGH = 2.6  # of the graph of gradients, in inches
STEP, WIDEST = 0.85, 6.4  # from one layer to the next, and of the graph
LEFT = 0.55


@takes(found="Gradients")
@styled()
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
    measure = "norm of the gradient of an image's loss at a layer's outputs: median, and from 10 % to 90 % now"
    top = sheet.header(f"Gradients of {found.model}", facts, measure, found.verdict) + 0.2
    medians = np.array([[np.median(layer.outputs) for layer in point.layers] for point in found.points])
    quantiles = np.array([np.quantile(layer.outputs, (0.1, 0.9)) for layer in found.points[-1].layers])  # (layers, 2)
    norms = np.concatenate([medians.ravel(), quantiles.ravel()])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    low, high = (math.floor(np.log10(norms.min())), math.ceil(np.log10(norms.max()))) if len(norms) else (-1, 0)
    high = max(high, low + 1)
    pitch = min(STEP, WIDEST / max(len(medians[0]) - 1, 1))
    xs = [LEFT + 0.2 + pitch * k for k in range(len(medians[0]))]
    right = xs[-1] + 0.2

    def height(norm: float) -> float:
        """Where a norm is drawn; 0, which has no logarithm, on the lowest line."""
        part = (math.log10(norm) - low) / (high - low) if norm > 0 and math.isfinite(norm) else 0.0
        return top + HIGH * (1 - min(max(part, 0.0), 1.0))

    _grid(sheet, low, high, top, right)
    for k, (x, (lower, upper)) in enumerate(zip(xs, quantiles.tolist(), strict=True)):
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
    light, dark = np.array(to_rgb(LINE)), np.array(to_rgb(MUTED))
    return str(to_hex(tuple(light + (dark - light) * part)))
