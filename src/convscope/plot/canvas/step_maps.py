"""Step maps: how steps become maps or units that can be drawn, which channels fit, and how a long trace is folded."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convscope.errors import ShapeError, UnknownName
from convscope.plot.canvas.sheet import FOOT, TINY, Area, Sheet, snap, tile
from convscope.plot.canvas.style import MUTED, ColorScale, abridge, size
from convscope.render.numbers import compact, short
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array


@dataclass(frozen=True, slots=True)
class Choice:
    """Indices along the first axis, in their own order, and what to say where they are not all."""

    count: int
    """How many entries there are."""
    shown: tuple[int, ...]
    summary: str
    """Such as `24 of 512 channels, those with the largest range`; empty where all are shown."""


def choose(values: Array, limit: int, noun: str) -> Choice:
    """The `limit` entries along the first axis whose numbers reach furthest from their smallest to their largest.

    >>> choose(np.array([[0, 1], [0, 9], [3, 3], [0, 2]]), 2, "channels")
    Choice(count=4, shown=(1, 3), summary='2 of 4 channels, those with the largest range')

    Args:
        values: Any array, shape (N, ...).
        limit: How many there is room for.
        noun: What the entries are called, in the plural.
    """
    count = len(values)
    if count <= limit:
        return Choice(count, tuple(range(count)), "")
    flat = np.nan_to_num(np.asarray(values, np.float64).reshape(count, -1))
    reach = np.ptp(flat, axis=1) if flat.shape[1] > 1 else np.abs(flat).max(axis=1, initial=0)
    result = np.sort(np.argsort(-reach, kind="stable")[:limit])
    criterion = "the largest range" if flat.shape[1] > 1 else "the largest magnitude"
    return Choice(count, tuple(map(int, result)), f"{limit:,} of {count:,} {noun}, those with {criterion}")


WRITTEN = 4  # maps up to 4x4 are written out in numbers, where there is room for all
FEW_LINES, MOST_LINES = 2, 4
"""How many lines maps may take that are written out: among all steps, and of steps that were asked for by name."""
WRITTEN_UNITS = 16
MOST_UNITS = 1024
CELL = (0.48, 0.3)  # inches
GAP = 0.08  # inches between maps
MIXING = ("conv", "linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "einsum", "attention", "scaled", "cat", "stack")
"""Beginnings of the operations whose output channels are not their input channels."""
COPIES = ("alias", "clone", "contiguous", "detach", "dropout", "native_dropout", "feature_dropout", "_to_copy")


def picture_of(trace: Trace) -> NDArray[np.float32]:
    """The first image as a person sees it: shape (C, H, W), from 0 to 1; values outside are clipped."""
    image = np.asarray(trace.input[0], np.float32)
    return np.clip(trace.card.preprocess.restore(image), 0, 1)


def beyond_picture(trace: Trace) -> str:
    """A remark if the first image has values outside [0, 1], which a picture cannot show; else empty."""
    image = trace.card.preprocess.restore(np.asarray(trace.input[0], np.float32))
    smallest, largest = float(image.min(initial=0)), float(image.max(initial=0))
    inside = smallest > -0.01 and largest < 1.01  # a resized picture overshoots a little
    return "" if inside else f"from {short(smallest)} to {short(largest)}, drawn from 0 to 1"


def pick(trace: Trace, names: Iterable[str]) -> list[Step]:
    """Steps by name.

    Raises:
        UnknownName: no step has one of the names.
    """
    results = {step.name: step for step in trace.steps}
    for name in names:
        if name not in results:
            raise UnknownName("step", name, results)
    return [results[name] for name in names]


def numbers(step: Step, image: int = 0) -> NDArray[np.float64]:
    """What a step made of one image: maps (K, P, Q), or units (U,).

    Token sequences (N, D) are one map; what has more than three axes is laid out as maps of its last two; of complex
    numbers these are the magnitudes. A number without axes is one unit; without numbers there are no maps, or units.
    """
    output = np.atleast_1d(np.asarray(step.output))
    if not len(output) and not image:
        return np.zeros((0, *output.shape[2:][-2:]) if output.ndim > 3 else 0)
    output = np.abs(output) if np.iscomplexobj(output) else output
    if not -len(output) <= image < len(output):
        raise ShapeError(f"{step.name} holds {len(output)} images; there is no image {image}.")
    values = np.asarray(output[image], np.float64)
    if values.ndim <= 1 or values.shape[1:] == (1, 1):
        return values.reshape(-1)
    return values.reshape(math.prod(values.shape[:-2]), *values.shape[-2:]) if values.ndim > 2 else values[None]


def extent(step: Step) -> str:
    """The shape of what a step made of one image, and what of it is drawn where its numbers are complex."""
    output = np.asarray(step.output)
    return size(output.shape[1:]) + (", magnitudes" if np.iscomplexobj(output) else "")


def reads_image(step: Step) -> bool:
    """Whether a step reads the image itself."""
    return not step.inputs or any(ref.kind == "input" for _, _, ref in step.refs())


def repeats(step: Step, by_id: Mapping[int, Step]) -> bool:
    """Whether a step only reshapes its input, as flatten does, or passes it on, as dropout does."""
    sources = [by_id[i] for i in step.inputs if i in by_id]
    if len(sources) != 1:
        return False
    before, after = np.asarray(sources[0].output), np.asarray(step.output)
    if before.size != after.size or (before.shape == after.shape and step.op not in COPIES):
        return False
    return np.array_equal(before.ravel(), after.ravel(), equal_nan=True)


def pick_channels(step: Step, values: NDArray[np.float64], before: Mapping[int, Choice], limit: int) -> Choice:
    """Which channels of a step to draw: those chosen for its input, if the step keeps the channels."""
    source_choice = next((before[i] for i in step.inputs if i in before), None)
    keeps = source_choice is not None and not step.op.startswith(MIXING) and source_choice.count == len(values)
    if source_choice is None or not keeps:
        return choose(values, limit, "channels")
    summary = source_choice.summary
    return replace(source_choice, summary=f"{summary.partition(',')[0]}, the same as above" if summary else "")


def draw_maps(
    sheet: Sheet,
    values: Array,
    chosen: Choice,
    area: Area,
    *,
    scale: ColorScale,
    name: str,
    written_lines: int = FEW_LINES,
) -> float:
    """Maps (K, P, Q) in lines of tiles within x, y, width, each at most `area[3]` long; returns the height.

    Small ones are written out in numbers, where that takes no more than `written_lines`.
    """
    x, y, max_width, longest = area
    if not values.size:
        sheet.text(x, y + 0.2, f"{size(values.shape)}: no numbers", color=MUTED)
        return 0.3
    count = len(chosen.shown)
    w, h = snap(CELL[0] * values.shape[2]), snap(CELL[1] * values.shape[1])
    written = max(values.shape[1:]) <= WRITTEN and count <= written_lines * _fitting(w, max_width)
    if not written:
        w, h = tile(values.shape, longest)
    lines = -(-count // _fitting(w, max_width))
    across = -(-count // lines)  # lines of equal length
    step = max(w, 0.3) + GAP
    high = h + 0.15
    for column, k in enumerate(chosen.shown):
        left, top = snap(x + step * (column % across)), snap(y + 0.1 + high * (column // across))
        sheet.text(left, top - 0.03, str(k), points=TINY, mono=True, color=MUTED)
        (sheet.numbers if written else sheet.map)(values[k], (left, top, w, h), scale, f"{name}[{k}]")
    return 0.1 + high * lines


def _fitting(w: float, max_width: float) -> int:
    """How many maps of this width fit beside each other, one at least."""
    return max(1, int((max_width + GAP) / (max(w, 0.3) + GAP)))


def draw_units(
    sheet: Sheet, values: Array, area: Area, *, scale: ColorScale, name: str, called: Sequence[str] = ()
) -> tuple[float, str]:
    """Units (U,): few as cells with their numbers, many as small coloured cells, row by row.

    Args:
        sheet: Where to draw.
        values: Shape (U,).
        area: x, y and width to keep within; the last number is not used.
        scale: The colours.
        name: What the numbers are.
        called: A name for each unit, by default its index.

    Returns:
        The height, and what to say of the layout.
    """
    x, y, max_width, _ = area
    if len(values) <= WRITTEN_UNITS:
        across = max(1, min(len(values), int(max_width / 0.56)))
        for start in range(0, len(values), across):
            part = values[start : start + across]
            for column, _ in enumerate(part):
                label = called[start + column] if start + column < len(called) else str(start + column)
                label = abridge(label, FOOT, 0.52)
                sheet.text(x + 0.56 * column + 0.28, y + 0.08, label, points=FOOT, color=MUTED, align="center")
            sheet.numbers(part[None], (x, snap(y + 0.13), snap(0.56 * len(part)), 0.3), scale, f"{name}[{start}]")
            y += 0.52
        return 0.52 * -(-len(values) // across), ""
    chosen = choose(values, MOST_UNITS, "units")
    top = (
        "largest: " + ", ".join(f"{called[k]} {compact(values[k])}" for k in np.argsort(-values)[:5]) if called else ""
    )
    shown = values[list(chosen.shown)]
    cell = 0.12
    across = min(len(shown), 64, int(max_width / cell))
    full_rows = len(shown) // across * across
    sheet.map(
        shown[:full_rows].reshape(-1, across),
        (x, y + 0.1, snap(cell * across), snap(cell * full_rows / across)),
        scale,
        name,
    )
    if full_rows < len(shown):
        last_row = shown[None, full_rows:]
        sheet.map(
            last_row,
            (x, snap(y + 0.1 + cell * full_rows / across), snap(cell * last_row.size), cell),
            scale,
            f"{name}, rest",
        )
    high = 0.1 + cell * -(-len(shown) // across)
    if top:
        sheet.text(x, y + high + 0.16, top, points=FOOT, color=MUTED)
        high += 0.2
    return high + 0.06, chosen.summary or f"row by row, {across} to a row"


@dataclass(frozen=True, slots=True)
class FoldedPart:
    """One step, or consecutive steps of one module, drawn as one."""

    name: str
    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    """Places of the parts whose output it reads; -1 is the image."""

    @property
    def last(self) -> Step:
        """The step whose output is the part's."""
        return self.steps[-1]


def fold(trace: Trace, limit: int, depth: int | None = None) -> tuple[list[FoldedPart], int]:
    """A trace as at most `limit` parts: all steps where they are few, else modules as deep as there is room.

    Args:
        trace: The steps.
        limit: How many parts at most, where `depth` does not say otherwise.
        depth: How many levels of modules to open: 1 folds each child of the model to one part.

    Returns:
        The parts in order, and how many steps were left out because they only reshape.
    """
    by_id = {step.id: step for step in trace.steps}
    source: dict[int, int] = {}
    kept: list[Step] = []
    for step in trace.steps:
        if repeats(step, by_id):
            source[step.id] = next(source[i] for i in step.inputs if i in by_id)
        else:
            source[step.id] = step.id
            kept.append(step)
    return _parts(_groups(kept, limit, depth), source), len(trace.steps) - len(kept)


def _groups(steps: Sequence[Step], limit: int, depth: int | None) -> list[list[Step]]:
    """Runs of steps that become one part each."""
    if depth is not None:
        return _at_depth(steps, depth)
    if len(steps) <= limit:
        return [[step] for step in steps]
    deepest = max(step.module.count(".") + 1 for step in steps)
    results = [groups for d in range(1, deepest + 1) if len(groups := _at_depth(steps, d)) <= limit]
    if results and len(results[-1]) > 1:
        return results[-1]
    size = -(-len(steps) // limit)  # no modules to go by: equal runs
    return [list(steps[i : i + size]) for i in range(0, len(steps), size)]


def _at_depth(steps: Sequence[Step], depth: int) -> list[list[Step]]:
    groups: list[list[Step]] = []
    last: tuple[str, ...] | int | None = None
    for step in steps:
        path = step.module.split(".") if step.module else []
        key = tuple(path[:depth]) if len(path) >= depth else step.id
        if groups and key == last:
            groups[-1].append(step)
        else:
            groups.append([step])
        last = key
    return groups


def _parts(groups: Sequence[Sequence[Step]], source: dict[int, int]) -> list[FoldedPart]:
    column = {step.id: i for i, group in enumerate(groups) for step in group}
    parts = []
    for i, group in enumerate(groups):
        reads = {column[source[input_id]] for step in group for input_id in step.inputs if input_id in source} - {i}
        reads |= {-1} if any(reads_image(step) for step in group) else set()
        parts.append(FoldedPart(_name(group), tuple(group), tuple(sorted(reads))))
    return parts


def _name(group: Sequence[Step]) -> str:
    if len(group) == 1:
        return group[0].name
    paths = [step.module.split(".") for step in group]
    shared = [names[0] for names in zip(*paths, strict=False) if len(set(names)) == 1]
    return ".".join(shared) or f"{group[0].name} … {group[-1].name}"
