"""Attribution: what each pixel adds to a number, exactly, and Captum's maps beside it."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.escaping import first_few
from convscope.plot.canvas.calculation import badge, ledger
from convscope.plot.canvas.sheet import FOOT, SMALL, Sheet, snap, tile
from convscope.plot.canvas.style import ACCENT, MUTED, ColorScale, shorten, size, styled
from convscope.render.numbers import NumberScale as Digits
from convscope.render.numbers import compact, short, small
from convscope.render.sums import RULE, Row
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes and contributions know torch, and pictures do without
    from convscope.probe.attribution import Attribution
    from convscope.proof.contributions import Contributions

LONGEST, GAP, ACROSS = 1.5, 0.3, 4  # inches, inches, maps in a row
CELLS = 75  # of a map along an axis, at most: more would be smaller than a dot, and single pixels of a photo are noise


@takes(found="Attribution")
@styled()
def attribution(found: "Attribution") -> Figure:
    """Draw the image, the exact contributions, and the map of each method; a square marks where it differs most.

    Each map is drawn as shares of its whole (of the sum of its magnitudes), channels added, so that all have one scale.
    Of a large image the shares of neighbouring pixels are added up: contributions may be, exactly.

    >>> import convscope as cs
    >>> asked = cs.probe.attribution(cs.load_model("simple-cnn"), "shapes:test/3", 2, methods=["saliency"])
    >>> [str(image.get_label()) for image in attribution(asked).axes[0].images]
    ['image', 'exact', 'saliency', 'legend']

    Args:
        found: The result of `cs.probe.attribution`.
    """
    sheet = Sheet()
    shown = [(method, method.map) for method in found.methods if method.map is not None]
    kind = "exact: the network is piecewise linear" if found.linear else "the tangent at this image"
    kind = "incomplete: some numbers left PyTorch on the way" if found.broken else kind
    refused = [f"{m.method}: {m.refused}" for m in found.methods if m.map is None]
    y = sheet.header(
        f"{found.output} of {found.model} for {found.image}: {compact(found.value)}",
        f"contributions of pixels add up to {compact(float(found.exact.sum()))}, biases and shifts to "
        f"{compact(found.constant)} ({kind})",
        "shares of each whole, channels added, one scale for all; a frame where one differs most from the exact",
        _blocks(found.exact.shape[1:]),
        shorten(f"does not work here: {'; '.join(refused)}", SMALL, 7.0) if refused else "",
    )
    maps = [_added(_shares(values)) for values in (found.exact, *(values for _, values in shown))]
    scale = ColorScale.of(*maps)
    w, h = tile(found.exact.shape, LONGEST)
    picture = found.picture if len(found.picture) in {1, 3} else found.picture[:1]
    y += 0.3
    sheet.text(0, y - 0.06, "image", points=SMALL, bold=True)
    sheet.picture(picture, (0, y, w, h), "image")
    for position, values in enumerate(maps, 1):
        row, column = divmod(position, ACROSS)
        x, top = column * (LONGEST + GAP), y + row * (h + 0.55)
        name = "exact" if position == 1 else shown[position - 2][0].method
        caption = "tangent" if position == 1 and not found.linear else name
        sheet.text(x, top - 0.06, caption, points=SMALL, bold=True)
        sheet.map(values, (x, top, w, h), scale, name)
        if position > 1:
            method = shown[position - 2][0]
            cell = w / found.exact.shape[2], h / found.exact.shape[1]
            if method.apart is not None:
                corner = x + method.apart[1] * cell[0], top + method.apart[0] * cell[1]
                sheet.frame(*corner, *cell, color=ACCENT, weight=1.0)
            caption = f"correlation {method.correlation:.2f}, shared {100 * method.shared:.0f} %"
            sheet.text(x, top + h + 0.13, caption, points=FOOT, color=MUTED)
    sheet.legend(0, sheet.bottom + 0.25, 2.4, scale)
    return sheet.finish()


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map (H, W) whose magnitudes add up to 1."""
    plane: NDArray[np.float64] = values.sum(axis=0)
    total = float(np.abs(plane).sum())
    return plane / total if total else plane


def _added(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map (H, W) in at most `CELLS` cells along each axis, the numbers within each added up.

    >>> _added(np.ones((75, 150))).shape, _added(np.ones((75, 150))).max()
    ((75, 75), np.float64(2.0))
    """
    for axis, length in enumerate(plane.shape):
        count = min(length, CELLS)
        plane = np.add.reduceat(plane, np.arange(count) * length // count, axis=axis)
    return plane


def _blocks(shape: tuple[int, ...]) -> str:
    """The caption of an image whose contributions are added up."""
    height, width = (min(length, CELLS) for length in shape)
    if (height, width) == shape:
        return ""
    return f"the {shape[0]}×{shape[1]} pixels are added up in {height}×{width} cells"


WRONG = "#b2182b"
LONGEST_CONTRIBUTIONS = 2.6  # inches, a map of contributions
COLORS = ("red", "green", "blue")


@takes(found="Contributions")
@styled()
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
    w, h = tile(planes.shape, LONGEST_CONTRIBUTIONS if len(planes) == 1 else 1.9)
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


def _rows(contributions: "Contributions") -> list[Row | str]:
    """What is added, taken away and constant; the sum, beside the number as recorded."""
    every = np.concatenate([pixels.reshape(-1) for pixels in contributions.pixels.values()])
    parts = [float(every[every > 0].sum()), float(every[every < 0].sum()), contributions.constant]
    digits = Digits.of([*parts, contributions.value])
    shown = sum(map(digits.units, parts)) if np.isfinite([*parts, contributions.total]).all() else 0
    rounding = digits.units(contributions.total) - shown if shown else 0
    return [
        Row(f"{np.count_nonzero(every > 0):,} cells that add", digits.show(parts[0])),
        Row(f"{np.count_nonzero(every < 0):,} cells that take away", digits.show(parts[1])),
        Row("constant: biases and shifts", digits.show(parts[2])),
        *([Row("rounding of the numbers shown", digits.text(rounding))] if rounding else []),
        RULE,
        Row("calculated", digits.show(contributions.total)),
        Row("recorded by PyTorch", digits.show(contributions.value)),
        Row("difference", small(contributions.residual), f"allowed ± {small(contributions.bound)}"),
    ]


def _kind(contributions: "Contributions") -> str:
    if contributions.broken:
        steps = ", ".join(contributions.broken[:3])
        return f"unknown: the chain to the image is broken at {steps}; what goes through that is not shown"
    if contributions.linear:
        return "exact: every step on the way is piecewise linear"
    return f"the tangent at this input, because these steps are not piecewise linear: {first_few(contributions.bent)}"
