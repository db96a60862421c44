"""Attribution: the exact contributions of pixels, and Captum's maps beside them, all in one scale."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.plot.canvas.sheet import FOOT, SMALL, Sheet, tile
from convscope.plot.canvas.style import ACCENT, MUTED, ColorScale, shorten
from convscope.render.numbers import compact
from convscope.type_checks import takes

if TYPE_CHECKING:  # probes know torch, and pictures do without
    from convscope.probe.attribution import Attribution

LONGEST, GAP, ACROSS = 1.5, 0.3, 4  # inches, inches, maps in a row
CELLS = 75  # of a map along an axis, at most: more would be smaller than a dot, and single pixels of a photo are noise


@takes(found="Attribution")
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
                at = x + method.apart[1] * cell[0], top + method.apart[0] * cell[1]
                sheet.frame(*at, *cell, color=ACCENT, weight=1.0)
            caption = f"correlation {method.correlation:.2f}, shared {100 * method.shared:.0f} %"
            sheet.text(x, top + h + 0.13, caption, points=FOOT, color=MUTED)
    sheet.legend(0, sheet.bottom + 0.25, 2.4, scale)
    return sheet.finish()


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map (H, W) whose magnitudes add up to 1."""
    plane: NDArray[np.float64] = values.sum(axis=0)
    whole = float(np.abs(plane).sum())
    return plane / whole if whole else plane


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
