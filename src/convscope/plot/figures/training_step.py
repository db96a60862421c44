"""Training step: the batch with the loss of each image, and kernels as before − learning rate × direction = after."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.plot.canvas.sheet import FOOT, SMALL, TINY, Sheet, snap, tile
from convscope.plot.canvas.style import INK, MUTED, ColorScale, shorten, styled, width
from convscope.proof.step_effect import image_losses, step_effect, update_direction
from convscope.render.numbers import aligned, compact, decimal, short
from convscope.type_checks import takes

if TYPE_CHECKING:
    from convscope.traces.trace import Trace

Numbers = NDArray[np.float64]
IMAGES, KERNELS = 12, 8
WRITTEN = 25
"""Planes of at most that many numbers are written out."""
PLANE, GAP = 1.35, 0.5  # inches: the longest side of a plane, and the place of a sign between two
LEFT = 1.1  # inches, for the names of kernels
STRIP = 40
"""Numbers in a row of a linear layer's weights."""


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One column of grids: its title, its numbers and the text before it."""

    title: str
    values: Numbers
    scale: ColorScale
    sign: str = ""
    decimals: int | None = None
    """Decimals of its numbers; None: as many as their size needs."""


@takes(trace="Trace")
@styled()
def training_step(trace: "Trace", parameter: str | None = None, *, most: int = KERNELS) -> Figure:
    """Draw a recorded training step: the batch with its losses, and how a parameter changes.

    >>> import convscope as cs
    >>> data = cs.load_dataset("shapes", split="test").part(slice(8))
    >>> step = cs.trace(cs.load_model("simple-cnn"), data.scaled(), target=data.labels, optimizer="sgd", lr=0.1)
    >>> training_step(step).axes[0].texts[0].get_text()
    'One training step: conv1.weight'

    Args:
        trace: Of a training step, `cs.trace(model, images, target=labels, ...)`.
        parameter: Its name; by default the first with kernels, else the first.
        most: How many kernels at most; of more, those with the largest gradients.

    Raises:
        UsageError: the trace has no loss, the parameter has no gradient, or `most` is not a positive number.
    """
    step = trace.training_step
    if step is None:
        raise UsageError("this trace has no loss; record one with cs.trace(model, images, target=labels).")
    if most < 1:
        raise UsageError(f"most must be 1 or more kernels, not {most}.")
    name = _parameter(trace, parameter)
    sheet = Sheet()
    y = sheet.header(f"One training step: {name}", step.says, _sentence(trace)) + 0.1
    y = _batch(sheet, y, trace) + 0.2
    columns = _columns(trace, name)
    gradient = next(column for column in columns if column.title == "gradient").values
    kernels = _largest(gradient, most)
    for k, plane in enumerate(kernels):
        y = _row(sheet, y, columns, plane, titled=k == 0) + 0.14
    if len(kernels) < gradient.shape[0] * gradient.shape[1]:
        total = gradient.shape[0] * gradient.shape[1]
        sheet.text(
            0, y + 0.05, f"{len(kernels)} of {total:,}, those with the largest gradients", points=SMALL, color=MUTED
        )
        y += 0.15
    weights = columns[-1].scale
    sheet.legend(0, y + 0.12, 2.2, weights)
    sheet.text(2.3, y + 0.12, "weights", points=FOOT, color=MUTED, middle=True)
    return sheet.finish()


def _parameter(trace: "Trace", parameter: str | None) -> str:
    step = trace.training_step
    assert step is not None
    names = [name for name in step.gradients if name in trace.parameters]
    if parameter is None:
        with_kernels = [name for name in names if np.ndim(trace.parameters[name]) == 4]
        return next(iter(with_kernels or names))
    if parameter not in names:
        raise UsageError(f"the step has no gradient of {parameter!r}; it has those of {', '.join(names)}.")
    return parameter


def _sentence(trace: "Trace") -> str:
    step = trace.training_step
    assert step is not None
    loss = float(trace.all_steps[step.loss.id].outputs[step.loss.output])
    losses = image_losses(trace)
    start = f"loss {compact(loss, 4)}" + ("" if losses is None else f", the mean of {len(losses):,} losses")
    if not step.updated:
        return start
    effect = step_effect(trace)
    return f"{start}; after the step {compact(effect.after, 4)} on the same batch"


def _batch(sheet: Sheet, y: float, trace: "Trace") -> float:
    """The images with their losses, the largest first; returns where they end."""
    images, target = trace.input, trace.inputs.get("target")
    if images.ndim != 4 or images.shape[1] not in {1, 3}:
        return y
    losses = image_losses(trace)
    order = np.arange(len(images)) if losses is None else np.argsort(-losses, kind="stable")
    texts = None if losses is None else aligned(losses)
    w, h = tile(images.shape, 0.55)
    classes = trace.card.classes
    for column, index in enumerate(order[:IMAGES].tolist()):
        x = (w + 0.14) * column
        picture = np.clip(trace.card.preprocess.restore(images[index]), 0, 1)
        sheet.picture(picture, (x, y, w, h), f"image {index}")
        if texts is not None:
            sheet.text(x + w / 2, y + h + 0.12, str(texts[index]), points=FOOT, mono=True, align="center")
        if target is not None and target.ndim == 1 and target.dtype.kind in "iu":
            label = int(target[index])
            word = shorten(classes[label] if label < len(classes) else str(label), TINY, w + 0.1)
            sheet.text(x + w / 2, y + h + 0.24, word, points=TINY, color=MUTED, align="center")
    if len(order) > IMAGES:
        sheet.text(
            (w + 0.14) * IMAGES, y + h / 2, f"{len(order) - IMAGES:,} more", points=SMALL, color=MUTED, middle=True
        )
    return y + h + 0.26


def _columns(trace: "Trace", name: str) -> list[_Column]:
    """The grids of each kernel: the gradient alone, or before − learning rate × direction = after."""
    step = trace.training_step
    assert step is not None
    before = _planes(trace.parameters[name])
    gradient = _planes(trace.all_steps[step.gradients[name].id].output.reshape(trace.parameters[name].shape))
    slope = ColorScale.of(_filled(gradient))
    if name not in step.updated:
        return [_Column("weight", before, ColorScale.of(_filled(before))), _Column("gradient", gradient, slope)]
    after = _planes(trace.all_steps[step.updated[name].id].output)
    weights = ColorScale.of(_filled(before), _filled(after))
    decimals = _decimals(float(np.nanmax(np.abs(after - before))))
    along, rate = update_direction(trace, name)
    direction = _planes(along)
    factor = f"− {short(rate)} ×"
    ends = [_Column("before", before, weights, "", decimals), _Column("after", after, weights, "=", decimals)]
    if np.allclose(_filled(direction), _filled(gradient), rtol=1e-5, atol=0):
        return [ends[0], _Column("gradient", gradient, slope, factor), ends[1]]
    optimizer = step.optimizer.partition(" ")[0]
    direction_column = _Column(f"direction of {optimizer}", direction, ColorScale.of(_filled(direction)), factor)
    return [_Column("gradient", gradient, slope), ends[0], direction_column, ends[1]]


def _planes(weights: NDArray[np.generic]) -> Numbers:
    """Weights as planes (kernels, inputs, rows, columns); a vector or matrix as rows of some numbers."""
    array = np.asarray(weights, np.float64)
    if array.ndim == 4:
        return array
    if array.ndim < 2:
        return array.reshape(1, 1, 1, -1)
    flat = array.reshape(len(array), -1)
    columns = min(STRIP, flat.shape[1])
    padded = np.full((len(flat), -(-flat.shape[1] // columns) * columns), np.nan)
    padded[:, : flat.shape[1]] = flat
    return padded.reshape(len(flat), 1, -1, columns)


def _filled(planes: Numbers) -> Numbers:
    """The planes with 0 for the cells after the last weight."""
    return np.where(np.isnan(planes), 0.0, planes)


def _decimals(change: float) -> int:
    """Decimals that show the largest change of a parameter with two digits: four to seven."""
    return min(max(4, 1 - math.floor(math.log10(change))), 7) if 0 < change < math.inf else 4


def _largest(gradient: Numbers, limit: int) -> list[tuple[int, int]]:
    """Kernel and input channel of the planes with the largest gradients, in their order."""
    sizes = np.nan_to_num(np.abs(gradient)).max(axis=(2, 3))
    best = np.argsort(-sizes.ravel(), kind="stable")[:limit]
    return [(int(index) // gradient.shape[1], int(index) % gradient.shape[1]) for index in np.sort(best)]


def _written(values: Numbers, decimals: int) -> NDArray[np.str_]:
    texts = [decimal(value, decimals) for value in values.ravel().tolist()]
    return np.array(texts, np.str_).reshape(values.shape)


def _row(sheet: Sheet, y: float, columns: list[_Column], plane: tuple[int, int], *, titled: bool) -> float:
    """One kernel; returns where it ends."""
    shape = columns[0].values.shape
    w, h = tile(shape, PLANE)
    y = snap(y + 0.2) if titled else y
    unit = "unit" if shape[2] == 1 or shape[3] == STRIP else "kernel"
    name = f"{unit} {plane[0]}" if shape[1] == 1 else f"{unit} {plane[0]}, input {plane[1]}"
    sheet.text(0, y + h / 2, name, points=SMALL, bold=True, middle=True)
    x = LEFT
    for number, column in enumerate(columns):
        if number:
            sign_width = max(GAP, width(column.sign, SMALL, mono=True) + 0.2)
            sheet.text(
                x + sign_width / 2,
                y + h / 2,
                column.sign,
                points=SMALL,
                mono=True,
                color=INK,
                align="center",
                middle=True,
            )
            x += sign_width
        area = (snap(x), y, w, h)
        values = column.values[plane]
        sheet.map(_filled(values), area, column.scale, f"{column.title} {plane[0]} {plane[1]}")
        if values.size <= WRITTEN:
            sheet.grid(area, *values.shape)
            texts = aligned(values) if column.decimals is None else _written(values, column.decimals)
            sheet.write(texts, column.scale.colors(_filled(values)), area)
        if titled:
            sheet.text(x, y - 0.07, column.title, points=FOOT, color=MUTED)
        x += w
    return y + h
