"""Feature maps: of every step for one image, or of one step for many images, class beside class."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.data.lazy_images import places
from convscope.errors import ShapeError
from convscope.plot.arguments import picture_to_draw, trace_of
from convscope.plot.canvas.sheet import LABEL, SMALL, TINY, Sheet, snap, tile
from convscope.plot.canvas.step_maps import (
    FEW_LINES,
    GAP,
    MOST_LINES,
    Choice,
    beyond_picture,
    choose,
    draw_maps,
    draw_units,
    extent,
    numbers,
    pick,
    pick_channels,
    picture_of,
    repeats,
)
from convscope.plot.canvas.style import LINE, MUTED, ColorScale, abridge, shorten, size, styled, width
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.type_checks import takes
from convscope.typing import Array

MOST_STEPS, MOST_CHANNELS, MOST_ROWS = 24, 24, 16
LEFT = 1.75  # inches, for the labels of one step
ROOM = 8.8  # inches, for its maps
SMALLEST, LARGEST = 0.46, 1.4  # inches, one map: 16 fit in a line


@takes()
@styled()
def maps(
    trace: object,
    image: object = None,
    *,
    steps: Sequence[str] = (),
    shared: bool = False,
    picture: Array | None = None,
    name: str = "",
    classes: Sequence[str] = (),
    most: int = MOST_CHANNELS,
) -> Figure:
    """The feature maps of every step for one image, each step in one colour scale over all of its channels.

    >>> import convscope as cs
    >>> figure = cs.plot.maps("crosses", "crosses:plus")
    >>> figure.savefig("crosses.svg")  # doctest: +SKIP

    Args:
        trace: A trace of one image (of several, the first is drawn); or a model, a run or the name of either.
        image: The image for a model: a file, an image of a data set, or an array.
        steps: Names of the steps to draw, by default all; more than 24 are thinned out evenly, and the figure says so.
        shared: One colour scale for all steps instead of one for each.
        picture: The image as a person sees it, shape (C, H, W) from 0 to 1; by default the trace's, as its card says.
        name: What the image is called.
        classes: Names of the last step's units, by default those of the trace's card.
        most: How many channels of a step at most; of more, those with the largest range.

    Raises:
        UnknownName: no step has one of the names.
    """
    recorded, own_picture = trace_of(trace, image, "maps")
    picture = own_picture if picture is None else picture_to_draw(picture, "maps")
    chosen, caption = _steps(recorded, steps)
    names = tuple(classes) or recorded.card.classes
    by_id = {step.id: step for step in recorded.steps}
    results = {step.id: numbers(step) for step in chosen}
    common = ColorScale.of_maps(*results.values()) if shared else None
    sheet = Sheet()
    scale_note = "one colour scale for all steps" if shared else "one colour scale per step, over all of its channels"
    y = sheet.header(f"feature maps of {name}" if name else "feature maps", scale_note, caption) + 0.1
    if common:
        sheet.legend(0, y, 2.4, common)
        y += 0.24
    channels = _channels(chosen, results, most)
    side = _side(channels)
    rules = []
    if picture is None:
        y = _image(sheet, y, picture_of(recorded), beyond_picture(recorded))
    else:
        y = _image(sheet, y, np.asarray(picture))
    rules.append(y)
    for column, step in enumerate(chosen):
        called = names if step is recorded.steps[-1] else ()
        again = column > 0 and repeats(step, by_id)
        shown = None if again else results[step.id]
        y = _row(
            sheet,
            y + 0.08,
            step,
            shown,
            common=common,
            channels=channels.get(step.id),
            side=side,
            called=called,
            written_lines=MOST_LINES if steps else FEW_LINES,
        )
        rules.append(y)
    across = sheet.right
    for rule in rules[:-1]:
        sheet.line((0, across), (rule, rule))
    return sheet.finish()


def _steps(trace: Trace, names: Sequence[str]) -> tuple[list[Step], str]:
    if names:
        return pick(trace, names), ""
    steps = trace.steps
    if len(steps) <= MOST_STEPS:
        return list(steps), ""
    indices = np.unique(np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int))
    return [steps[i] for i in indices], f"{len(indices)} of {len(steps)} steps, evenly spaced"


def _channels(steps: Sequence[Step], results: Mapping[int, NDArray[np.float64]], limit: int) -> dict[int, Choice]:
    """Which channels to draw of each step that has maps."""
    chosen: dict[int, Choice] = {}
    for step in steps:
        if results[step.id].ndim == 3:
            chosen[step.id] = pick_channels(step, results[step.id], chosen, limit)
    return chosen


def _side(channels: Mapping[int, Choice]) -> float:
    """How long a map may be, the same for all steps: the fewer channels, the longer."""
    count = max((len(choice.shown) for choice in channels.values()), default=1)
    return min(max((ROOM + GAP) / count - GAP, SMALLEST), LARGEST)


def _image(sheet: Sheet, y: float, picture: Array, remark: str = "") -> float:
    shown = picture if picture.ndim == 3 else picture[None]
    sheet.text(0, y + 0.15, "image", bold=True)
    sheet.text(0, y + 0.3, size(shown.shape), points=SMALL, mono=True, color=MUTED)
    sheet.text(0, y + 0.45, remark, points=SMALL, color=MUTED)
    w, h = tile(shown.shape, 1.3)
    sheet.picture(shown if len(shown) in {1, 3} else shown[:1], (LEFT, snap(y + 0.02), w, h), "image")
    return y + h + 0.16


def _row(
    sheet: Sheet,
    y: float,
    step: Step,
    values: NDArray[np.float64] | None,
    *,
    common: ColorScale | None,
    channels: Choice | None,
    side: float,
    called: Sequence[str],
    written_lines: int,
) -> float:
    """One step: what it is on the left, its maps on the right; returns where the next begins."""
    sheet.text(0, y + 0.13, shorten(step.name, LABEL, LEFT - 0.2, bold=True), bold=True)
    sheet.text(0, y + 0.28, _words(step.says, LEFT - 0.2), points=SMALL, color=MUTED)
    sheet.text(0, y + 0.43, extent(step), points=SMALL, mono=True, color=MUTED)
    if values is None:
        sheet.text(LEFT, y + 0.28, "the same numbers, reshaped", points=SMALL, color=MUTED)
        return y + 0.58
    scale = common or ColorScale.of_maps(values)
    if channels is None:
        high, caption = draw_units(sheet, values, (LEFT, y, ROOM, 0), scale=scale, name=step.name, called=called)
    else:
        area = (LEFT, y, ROOM, side)
        high = draw_maps(sheet, values, channels, area, scale=scale, name=step.name, written_lines=written_lines)
        caption = channels.summary
    below = y + 0.59
    if common is None:
        sheet.legend(0, below, LEFT - 0.25, scale)
        below += 0.3 if scale.strange or scale.beyond else 0.16
    for line in caption.split(", ", 1) if caption else ():
        sheet.text(0, below + 0.03, line, points=TINY + 0.5, color=MUTED)
        below += 0.12
    return max(below, y + high) + 0.08


def _words(title: str, longest: float) -> str:
    """An operation in words, with as many of its settings as there is room for.

    >>> _words("convolution 7x7, stride 2, padding 3", 0.9)
    'convolution 7x7'
    """
    while width(title, SMALL) > longest and ", " in title:
        title = title.rpartition(", ")[0]
    return shorten(title, SMALL, longest)


@takes(trace="Trace", step="str", dataset="Dataset")
@styled()
def maps_by_class(
    trace: Trace,
    step: str,
    dataset: Dataset,
    indices: Sequence[int],
    *,
    most: int = MOST_ROWS,
    name: str = "",
) -> Figure:
    """What one step makes of many images: a line for each channel, the images of a class side by side.

    >>> import convscope as cs
    >>> data = cs.load_dataset("crosses", split="train")
    >>> trace = cs.trace(cs.load_model("crosses"), data.scaled([0, 1]))
    >>> figure = cs.plot.maps_by_class(trace, "conv1", data, [0, 1])

    Args:
        trace: A trace of a batch of images.
        step: The step's name.
        dataset: Where the images come from: their pictures, labels and class names.
        indices: Which images of it the batch holds, in order.
        most: How many channels at most; of more, those with the largest range.
        name: What the model is called.

    Raises:
        UnknownName: no step has this name.
        ShapeError: the batch does not hold that many images.
    """
    (result,) = pick(trace, [step])
    indices = places(list(indices), len(dataset)).tolist()
    if len(result.output) != len(indices):
        raise ShapeError(f"the trace holds {len(result.output)} images, but {len(indices)} indices were given.")
    values = np.stack([numbers(result, i) for i in range(len(indices))])  # (N, K, P, Q) or (N, U)
    values = values[..., None, None] if values.ndim == 2 else values
    chosen = choose(values.swapaxes(0, 1), most, "channels")
    scale = ColorScale.of_maps(values)
    sheet = Sheet()
    shape = extent(result)
    title = f"{step} of {name} on {dataset.name}" if name else f"{step} on {dataset.name}"
    y = (
        sheet.header(title, f"{result.says} · {shape} · one colour scale over all channels and images", chosen.summary)
        + 0.12
    )
    order = sorted(range(len(indices)), key=lambda i: (int(dataset.labels[indices[i]]), i))
    columns = _columns(sheet, y, dataset, [indices[i] for i in order])
    y = _images(sheet, y + 0.12, dataset, [indices[i] for i in order], columns)
    w, h = tile(values.shape, 0.5)
    for k in chosen.shown:
        sheet.text(0, y + h / 2, f"channel {k}", points=SMALL, bold=True, middle=True)
        for x, column in zip(columns, order, strict=True):
            sheet.map(values[column, k], (x, snap(y), w, h), scale, f"{step}[{column}, {k}]")
        y += h + 0.07
    sheet.legend(0, y + 0.14, 2.4, scale)
    return sheet.finish()


def _images(sheet: Sheet, y: float, dataset: Dataset, indices: Sequence[int], columns: Sequence[float]) -> float:
    """The line of the images with their indices; returns where the next begins."""
    w, h = tile(dataset.shape, 0.5)
    sheet.text(0, y + h / 2, "image", points=SMALL, bold=True, middle=True)
    for x, index in zip(columns, indices, strict=True):
        picture = dataset.picture(index)
        sheet.picture(picture if len(picture) in {1, 3} else picture[:1], (x, snap(y), w, h), f"image {index}")
        sheet.text(x, y + h + 0.09, str(index), points=TINY, mono=True, color=MUTED)
    return y + h + 0.2


def _columns(sheet: Sheet, y: float, dataset: Dataset, indices: Sequence[int]) -> list[float]:
    """Where each image's column begins; a gap and the class name before each class."""
    columns, x, label = list[float](), 0.85, -1
    for index in indices:
        if int(dataset.labels[index]) != label:
            x += 0.2 if columns else 0
            label = int(dataset.labels[index])
            count = sum(int(dataset.labels[i]) == label for i in indices)
            sheet.text(x, y + 0.02, abridge(dataset.classes[label], LABEL, count * 0.56, bold=True), bold=True)
            sheet.line((x, x + count * 0.56 - 0.06), (y + 0.06, y + 0.06), LINE)
        columns.append(snap(x))
        x += 0.56
    return columns
