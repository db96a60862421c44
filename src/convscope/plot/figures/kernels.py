"""Kernels: those of a layer with their numbers, and the sum over each input channel.

A model is any object here, asked as PyTorch's modules are (`named_modules`, `weight`, `bias`); no torch is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.cards.card import attached
from convscope.errors import ModelError, ShapeError, UnknownName, UsageError
from convscope.plot.arguments import model_of
from convscope.plot.canvas.sheet import FOOT, SMALL, Area, Sheet, snap, tile
from convscope.plot.canvas.step_maps import Choice, choose
from convscope.plot.canvas.style import MUTED, ColorScale, shorten, size, styled
from convscope.render.numbers import aligned
from convscope.type_checks import check_kind, takes

MOST_KERNELS, MOST_INPUTS = 24, 12
WRITTEN = 5  # kernels up to 5x5 are written out in numbers,
WRITTEN_INPUTS = 8  # of up to eight input channels
GAP = 0.12  # inches
PAGE_WIDTH = 9.6  # inches
LEFT = 1.0  # inches, for the labels of one kernel


@dataclass(frozen=True, eq=False)
class _KernelLayer:
    """The kernels of one convolution, as arrays."""

    name: str
    weight: NDArray[np.float64]  # (K, C, R, S), C the channels that one kernel reads
    bias: NDArray[np.float64] | None  # (K,)
    groups: int
    others: tuple[str, ...]
    first: bool
    """Whether it is the model's first convolution, which reads the image."""

    @property
    def title(self) -> str:
        return f"kernels of {self.name}" if self.name else "kernels"

    @property
    def legend(self) -> str:
        """What the sums below the kernels are."""
        flat = self.weight.shape[1] == 1
        return "Σ is the sum of the numbers above it" if flat else "Σ is the sum over an input channel"

    @cached_property
    def sums(self) -> NDArray[np.str_]:
        """Sum of each kernel over each channel, as text of shape (K, C)."""
        return aligned(self.weight.sum(axis=(2, 3)))

    @cached_property
    def totals(self) -> NDArray[np.str_]:
        """Sum of each kernel over all of its channels, as text of shape (K,)."""
        return aligned(self.weight.sum(axis=(1, 2, 3)))

    @cached_property
    def biases(self) -> NDArray[np.str_]:
        """As text of shape (K,)."""
        return aligned(np.zeros(0) if self.bias is None else self.bias)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which input channels are drawn, and what they are called."""

    shown: tuple[int, ...]
    given: tuple[str, ...]

    def name(self, channel: int, groups: int, max_width: float) -> str:
        if channel < len(self.given):
            return self.given[channel]
        word = "input" if groups == 1 else "channel"  # of a group
        return f"{word} {channel}" if max_width >= 0.8 else str(channel)


@takes()
@styled()
def kernels(
    model: object,
    layer: str | None = None,
    *,
    most: int = MOST_KERNELS,
    inputs: Sequence[str] = (),
    name: str | None = None,
) -> Figure:
    """The kernels of one convolution: their numbers in one colour scale, the sum over each input channel, the bias.

    >>> cross = np.array([[[[0, 1, 0], [1, 1, 1], [0, 1, 0]]]])
    >>> [t.get_text() for t in kernels(cross).axes[0].texts if t.get_text().startswith("Σ ")]
    ['Σ 5']

    Args:
        model: A model, a run or the name of either, one layer, or an array of weights of shape (K, C, R, S) or (R, S).
        layer: The name of the convolution, by default the first.
        most: How many kernels at most; of more, those with the largest range are drawn, and the figure says so.
        inputs: Names of the image's channels, which the first convolution reads; else channels have numbers.
        name: The model's name in the title; by default that on its card.

    Raises:
        ModelError: the model has no convolution.
        UnknownName: no convolution has this name.
        ShapeError: the weights are not convolution kernels.
        UsageError: `most` is not a positive number.
    """
    if most < 1:
        raise UsageError(f"most must be 1 or more kernels, not {most}.")
    network = model_of(model)
    if not hasattr(network, "parameters"):  # neither a model nor one of its layers
        check_kind("kernels", "model", network, "array")
    chosen = _layer(network, layer)
    rows = choose(chosen.weight, most, "kernels")
    columns = choose(chosen.weight.swapaxes(0, 1), MOST_INPUTS, "input channels of each")
    scale = ColorScale.of(chosen.weight)
    channel_names = tuple(inputs) if chosen.first and len(inputs) == chosen.weight.shape[1] else ()
    sheet = Sheet()
    card = attached(network)
    owner = name if name is not None else card.name if card is not None else ""
    title = f"{owner}: {chosen.title}" if owner else chosen.title
    y = sheet.header(title, *_facts(chosen, rows, columns)) + 0.12
    draw = _list if chosen.weight.shape[1] == 1 else _lines
    y = draw(sheet, y, chosen, rows, _Columns(columns.shown, channel_names), scale=scale)
    sheet.legend(0, y + 0.1, min(sheet.right, 2.4), scale)
    return sheet.finish()


def _facts(layer: _KernelLayer, rows: Choice, columns: Choice) -> tuple[str, ...]:
    count = len(layer.weight)
    grouped = f", {layer.groups} groups" if layer.groups > 1 else ""
    bias = "with bias" if layer.bias is not None else "no bias"
    other_layers = f"other convolutions: {', '.join(layer.others[:6])}{', …' if len(layer.others) > 6 else ''}"
    shape = size(layer.weight.shape[1:])
    return (
        f"{count:,} kernel{'s' if count > 1 else ''} of {shape}{grouped}, {bias} · {layer.legend}",
        "; ".join(filter(None, (rows.summary, columns.summary))),
        other_layers if layer.others else "",
    )


def _list(sheet: Sheet, y: float, layer: _KernelLayer, rows: Choice, _: _Columns, *, scale: ColorScale) -> float:
    """Kernels that read one channel each, in lines of a few."""
    written = max(layer.weight.shape[2:]) <= WRITTEN
    w, h = _slice_size(layer.weight.shape[2:], written, few=True)
    step = max(w, 0.62) + 0.24
    across = max(1, min(len(rows.shown), int(PAGE_WIDTH / step)))
    high = h + 0.42 + 0.14 * (layer.bias is not None)
    for column, k in enumerate(rows.shown):
        x, top = snap(step * (column % across)), snap(y + 0.12 + high * (column // across))
        sheet.text(x, top - 0.06, f"kernel {k}", points=SMALL, bold=True)
        _slice(sheet, layer, (k, 0), (x, top, w, h), scale=scale, written=written)
        if layer.bias is not None:
            sheet.text(x, top + h + 0.27, f"bias {layer.biases[k]}", points=FOOT, mono=True, color=MUTED)
    return y + high * -(-len(rows.shown) // across)


def _lines(sheet: Sheet, y: float, layer: _KernelLayer, rows: Choice, columns: _Columns, *, scale: ColorScale) -> float:
    """A line for each kernel with a column for each channel that it reads; narrow lines side by side."""
    wide = len(columns.shown)
    written = max(layer.weight.shape[2:]) <= WRITTEN and wide <= WRITTEN_INPUTS
    w, h = _slice_size(layer.weight.shape[2:], written, few=wide * layer.weight.shape[3] <= 12)
    step = max(w, 0.52) + GAP
    block = LEFT + wide * step + 0.3
    across = max(1, min(len(rows.shown), int((PAGE_WIDTH + 0.3) / block)))
    down = -(-len(rows.shown) // across)
    high = max(h + 0.3, 0.62)
    for side in range(-(-len(rows.shown) // down)):
        for position, c in enumerate(columns.shown):
            called = shorten(columns.name(c, layer.groups, step), SMALL, step)
            sheet.text(block * side + LEFT + step * position, y + 0.06, called, points=SMALL, color=MUTED)
    for position, k in enumerate(rows.shown):
        x, top = block * (position // down), snap(y + 0.12 + high * (position % down))
        sheet.text(x, top + 0.13, f"kernel {k}", bold=True)
        sheet.text(x, top + 0.28, f"Σ    {layer.totals[k]:>7}", points=FOOT, mono=True, color=MUTED)
        if layer.bias is not None:
            sheet.text(x, top + 0.42, f"bias {layer.biases[k]:>7}", points=FOOT, mono=True, color=MUTED)
        for column, c in enumerate(columns.shown):
            area = (snap(x + LEFT + step * column), top, w, h)
            _slice(sheet, layer, (k, c), area, scale=scale, written=written)
    return y + 0.12 + high * down


def _slice(
    sheet: Sheet, layer: _KernelLayer, cell: tuple[int, int], area: Area, *, scale: ColorScale, written: bool
) -> None:
    """One kernel's numbers for one channel, and their sum below."""
    draw = sheet.numbers if written else sheet.map
    draw(layer.weight[cell], area, scale, f"{layer.name}[{cell[0]}, {cell[1]}]")
    sheet.text(area[0], area[1] + area[3] + 0.13, f"Σ {layer.sums[cell]}", points=FOOT, mono=True, color=MUTED)


def _slice_size(shape: tuple[int, ...], written: bool, few: bool) -> tuple[float, float]:
    """How large one kernel is drawn, in inches."""
    if not written:
        return tile(shape, 0.55)
    cell = (0.48, 0.3) if few else (0.38, 0.24)
    return snap(snap(cell[0]) * shape[1]), snap(snap(cell[1]) * shape[0])


def _layer(model: Any, name: str | None) -> _KernelLayer:
    """The kernels asked for, from a model, a layer, or an array."""
    if not hasattr(model, "named_modules"):
        weight = np.asarray(model, np.float64)
        weight = weight[None, None] if weight.ndim == 2 else weight
        return _KernelLayer(name or "", _checked(weight), None, 1, (), True)
    results = {path: module for path, module in model.named_modules() if _is_convolution(module)}
    if not results and any("Uninitialized" in type(weight).__name__ for weight in model.parameters()):
        raise ModelError(
            f"the kernels of {type(model).__name__} have no shapes yet: its layers are lazy; run it once, or load it "
            "with weights, or say by preprocess the size and channels of a picture."
        )
    if not results:
        raise ModelError(f"{type(model).__name__} has no convolution, so it has no kernels to draw.")
    if name is not None and name not in results:
        raise UnknownName("convolution of this model", name, results)
    path = name if name is not None else next(iter(results))
    module = results[path]
    groups = int(getattr(module, "groups", 1))
    weight = _array(module.weight)
    if getattr(module, "transposed", False):  # (C, K / groups, R, S): the channel that is read comes first
        parts = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        weight = parts.reshape(-1, *parts.shape[2:])
    weight = weight[:, :, None] if weight.ndim == 3 else weight
    bias = getattr(module, "bias", None)
    other_paths = tuple(p for p in results if p != path)
    title = path or type(module).__name__
    first = path == next(iter(results))
    return _KernelLayer(title, _checked(weight), None if bias is None else _array(bias), groups, other_paths, first)


def _is_convolution(module: object) -> bool:
    weight = getattr(module, "weight", None)
    return hasattr(module, "kernel_size") and weight is not None and weight.ndim in {3, 4}


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().double().numpy(), np.float64)


def _checked(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    if weight.ndim != 4 or weight.size == 0:
        raise ShapeError(f"kernels have the shape (K, C, R, S) or (R, S), not {weight.shape}.")
    return weight
