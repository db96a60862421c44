"""Receptive field: which cells of the image a number can depend on, exactly, by the indices that every step reads.

A question about structure: weights do not matter, the shapes of the traced image do. The cells are followed back from
step to step as `rules.reads` says; memory written in place is followed as explanations follow it. Uses traces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.expr.call import Cell, cell_label, full_cell
from convscope.probe.support.dependency_walk import DependencyWalk, Followed, Marks, axes_of, ranges
from convscope.probe.support.report import ProbeReport, Table
from convscope.progress import Progress, silent
from convscope.rich_display import RichDisplay
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.type_checks import takes

RESHAPES = {"view", "reshape", "_unsafe_view", "_reshape_alias", "flatten"}
"""Operations that keep the order of all numbers."""


@dataclass(frozen=True, eq=False)
class ReceptiveField(RichDisplay):
    """The cells of the image that a number can depend on.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(1, 1, 3, dilation=2), torch.zeros(1, 9, 9))
    >>> result = receptive_field(trace, "conv2d", (0, 1, 2))
    >>> [index.tolist() for index in result.axes], result.box
    ([[0], [1, 3, 5], [2, 4, 6]], ((0, 0), (1, 5), (2, 6)))
    """

    name: str
    """The step and cell, as a person reads them."""
    step: str
    cells: Marks = field(repr=False)
    """Mask of the cells of the image, shape (C, H, W)."""
    picture: NDArray[np.float32] = field(repr=False)
    """The image that was traced, from 0 to 1 where the model says how it was normalized."""
    whole_from: str = ""
    """The first step on the way that reads along whole axes and already sees the whole image; "" where none does."""
    chosen_by: tuple[str, ...] = ()
    """Steps on the way that choose by the numbers what they read: what they could choose is counted."""
    unknown: tuple[str, ...] = ()
    """Steps on the way whose operation is not known here: they are taken to read all they are given."""
    broken: tuple[str, ...] = ()
    """Steps on the way that take numbers which left PyTorch (`item()`, NumPy): the cells behind these are unknown and
    not counted."""
    other_images: bool = False
    """Whether it also depends on other images of the batch, as batch norm in training makes it."""
    other_inputs: Mapping[str, Marks] = field(default_factory=dict, repr=False)
    """The cells of further inputs, by name."""

    @cached_property
    def axes(self) -> tuple[NDArray[np.int64], ...]:
        """For each axis of the image the indices that occur: channels, rows, columns."""
        count = self.cells.ndim
        projections = ((self.cells, tuple(a for a in range(count) if a != axis)) for axis in range(count))
        return tuple(np.flatnonzero(cells.max(axis=other_axes, initial=False)) for cells, other_axes in projections)

    @cached_property
    def box(self) -> tuple[tuple[int, int], ...]:
        """For each axis the first and last index; empty where no cell is read."""
        return tuple((int(index[0]), int(index[-1])) for index in self.axes) if self.count else ()

    @cached_property
    def count(self) -> int:
        """The number of cells."""
        return int(np.count_nonzero(self.cells))

    @property
    def whole(self) -> bool:
        """Whether it is the whole image."""
        return self.count == self.cells.size

    @property
    def full_box(self) -> bool:
        """Whether every cell of the box belongs to it: no holes, no ragged edge."""
        return self.count == int(np.prod([last - first + 1 for first, last in self.box]))

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "step": self.step,
            "shape": list(self.cells.shape),
            "cells": self.count,
            "axes": [index.tolist() for index in self.axes],
            "box": [list(ends) for ends in self.box],
            "full_box": self.full_box,
            "whole": self.whole,
            "whole_from": self.whole_from,
            "chosen_by": list(self.chosen_by),
            "unknown": list(self.unknown),
            "broken": list(self.broken),
            "other_images": self.other_images,
            "other_inputs": {name: int(np.count_nonzero(cells)) for name, cells in self.other_inputs.items()},
        }

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        return ProbeReport.of(_lines(self))


@takes(trace="Trace", step="str | int | integer")
def receptive_field(
    trace: Trace, step: str | int, cell: Sequence[int] | int | None = None, *, progress: Progress = silent
) -> ReceptiveField:
    """Which cells of the image a cell of a step can depend on.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.MaxPool2d(2)), torch.zeros(1, 8, 8))
    >>> print(receptive_field(trace, "1", (0, 1, 1)))
    1 (0, 1, 1) can depend on 16 of the image's 64 cells (25 %): rows 2 to 5, columns 2 to 5

    Args:
        trace: A traced model; the numbers of the image do not matter, its shape does.
        step: A step's name or id.
        cell: An index of its result, without the image index; None: all channels at the place in the middle, also where
            the maps have been flattened.
        progress: Receives how many results of steps are done.

    Raises:
        UnknownName: there is no such step.
        UsageError: the step has no such cell, or no numbers.
    """
    return _field(DependencyWalk(trace, progress), trace[step], cell, {})


def _field(
    follow: DependencyWalk, target: Step, cell: Sequence[int] | int | None, seen_whole: dict[int, bool]
) -> ReceptiveField:
    """The field; `seen_whole` remembers which steps see the whole image."""
    trace = follow.trace
    marks, name = _start(trace, target, cell)
    result = follow(target, marks)
    image, *other_inputs = result.inputs
    reached, images = result.inputs[image], trace.input
    if reached.ndim == 1:  # a vector without batch axis
        reached, images = reached[np.newaxis], images[np.newaxis]
    image_index = int(np.argwhere(marks)[0][0]) if marks.ndim and len(reached) == len(marks) else 0
    spread = reached.any(axis=tuple(range(1, reached.ndim)))
    first = images[image_index]
    preprocess = trace.card.preprocess
    shown = (
        first if max(len(preprocess.mean), len(preprocess.std)) not in {1, len(first)} else preprocess.restore(first)
    )
    return ReceptiveField(
        name,
        target.name,
        reached[image_index],
        np.asarray(shown, np.float32),
        whole_from=_whole_from(follow, result, seen_whole),
        chosen_by=tuple(dict.fromkeys(reversed(result.chosen))),
        unknown=tuple(dict.fromkeys(reversed(result.unknown))),
        broken=tuple(dict.fromkeys(reversed(result.broken))),
        other_images=bool(np.delete(spread, image_index).any()),
        other_inputs={name: result.inputs[name] for name in other_inputs},
    )


@dataclass(frozen=True, slots=True, eq=False)
class ReceptiveFields(RichDisplay):
    """The receptive field of the middle of every step's result, in the order of execution."""

    fields: tuple[ReceptiveField, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"fields": [result.to_json() for result in self.fields]}

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        rows = [
            (
                result.step,
                _extent(result),
                f"{result.count:,}",
                f"{100 * result.count / result.cells.size:.1f} %",
                _remark(result),
            )
            for result in self.fields
        ]
        return ProbeReport((Table(("step", "field", "cells", "share", ""), rows, right=(1, 2, 3)),))


@takes(trace="Trace")
def receptive_fields(trace: Trace, *, progress: Progress = silent) -> ReceptiveFields:
    """The receptive field of the place in the middle of every step that has numbers, all channels together.

    >>> import torch, convscope as cs
    >>> layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.MaxPool2d(2), torch.nn.Flatten()]
    >>> print(receptive_fields(cs.trace(torch.nn.Sequential(*layers), torch.zeros(1, 8, 8))))
    step  field  cells   share
    0       3x3      9  14.1 %
    1       4x4     16  25.0 %
    2       4x4     16  25.0 %

    Args:
        trace: A traced model.
        progress: Receives how many steps are done.
    """
    follow, seen_whole = DependencyWalk(trace), dict[int, bool]()
    result = list[ReceptiveField]()
    progress("steps", 0, len(trace.steps))
    for done, step in enumerate(trace.steps, 1):
        if 0 not in step.shape:
            result.append(_field(follow, step, None, seen_whole))
        progress("steps", done, len(trace.steps))
    return ReceptiveFields(tuple(result))


def _extent(field: ReceptiveField) -> str:
    size = "x".join(str(last - first + 1) for first, last in field.box[min(1, field.cells.ndim - 1) :])
    return size or ("unknown" if field.broken else "none")


def _remark(field: ReceptiveField) -> str:
    notes = [
        f"global from {field.whole_from}" * bool(field.whole_from),
        "data-dependent" * bool(field.chosen_by),
        "unknown steps" * bool(field.unknown),
        "too small: chain broken" * bool(field.broken),
        "" if field.full_box or not field.count else "with gaps",
    ]
    return ", ".join(filter(None, notes))


def _flattened(trace: Trace, step: Step) -> Step | None:
    """The step whose maps this vector holds, number by number: the middle of a vector would be a corner of a map."""
    if step.op not in RESHAPES or len(step.shape) != 2 or len(step.inputs) != 1:
        return None
    maps = next(each for each in trace.steps if each.id == step.inputs[0])
    return maps if len(maps.shape) > 2 and maps.shape[0] == step.shape[0] else None


def _start(trace: Trace, step: Step, cell: Sequence[int] | int | None) -> tuple[NDArray[np.float32], str]:
    """The mask to start from, and its name.

    Raises:
        UsageError: the step has no such cell, or none at all.
    """
    marks = np.zeros(step.shape, np.float32)
    if not marks.size:
        raise UsageError(f"{step.name} holds no numbers, so there is none to follow; choose another step.")
    if cell is not None:
        full_index = full_cell(tuple(cell) if isinstance(cell, Sequence) else cell, step.shape, step.name)
        marks[full_index] = 1.0
        return marks, f"{step.name} {cell_label(full_index, step.shape)}"
    if len(step.shape) < 2:
        marks.reshape(-1)[:1] = 1.0
        return marks, step.name
    maps = _flattened(trace, step)
    if maps is not None:
        same, name = _start(trace, maps, None)
        return same.reshape(step.shape), name.replace(maps.name, step.name, 1)
    axes = axes_of(step)
    position: list[int | slice] = [0] * marks.ndim
    for axis in axes.places:
        position[axis] = step.shape[axis] // 2
    position[axes.unit] = slice(None) if axes.places else step.shape[axes.unit] // 2
    marks[tuple(position)] = 1.0
    middle: Cell = tuple(step.shape[axis] // 2 for axis in axes.places)
    return marks, f"{step.name}, all channels at {middle}" if middle else f"{step.name} ({position[axes.unit]})"


def _whole_from(follow: DependencyWalk, walk: Followed, seen_whole: dict[int, bool]) -> str:
    """The first step that reads along whole axes and one cell of which sees the whole image."""
    if not _sees_whole(walk):
        return ""
    for step in reversed(walk.spreading):
        if step.id not in seen_whole:
            marks = np.zeros(step.shape, np.float32)
            marks.reshape(-1)[:1] = 1.0
            seen_whole[step.id] = _sees_whole(follow(step, marks))
        if seen_whole[step.id]:
            return step.name
    return ""


def _sees_whole(walk: Followed) -> bool:
    image = next(iter(walk.inputs.values()))
    return bool(image.reshape(len(image), -1).all(axis=1).any())


def _lines(field: ReceptiveField) -> list[str]:
    lines = _extents(field)
    if field.whole_from:
        lines.append(f"global: {field.whole_from} reads along whole axes, and from there on every cell sees the image")
    for step in field.chosen_by:
        lines.append(f"data-dependent: {step} chooses by the numbers what it reads; all it could choose is counted")
    for step in field.unknown:
        lines.append(f"unknown: {step} is taken to read all that it is given")
    for step in field.broken:
        lines.append(
            f"unknown: {step} takes numbers that left PyTorch, so the chain to the image is broken there; cells that "
            "count through them are missing here"
        )
    if field.other_images:
        lines.append("it also depends on other images of the batch")
    for name, cells in field.other_inputs.items():
        lines.append(f"and on {np.count_nonzero(cells):,} of {cells.size:,} cells of {name}")
    return lines


def _extents(field: ReceptiveField) -> list[str]:
    """The number of cells of the image, and their ranges."""
    if not field.count:
        unknown = f"which cells of the image {field.name} depends on is unknown"
        return [unknown if field.broken else f"{field.name} depends on no cell of the image"]
    if field.whole:
        return [f"{field.name} can depend on the whole image: all {field.cells.size:,} cells"]
    share = 100 * field.count / field.cells.size
    words = (
        ("channels", "rows", "columns")
        if field.cells.ndim == 3
        else tuple(f"axis {axis}:" for axis in range(field.cells.ndim))
    )
    places = [
        f"{word} {ranges(index)}"
        for word, index, length in zip(words, field.axes, field.cells.shape, strict=True)
        if not (word == "channels" and len(index) == length)
    ]
    can = f"{field.name} can depend on {field.count:,} of the image's {field.cells.size:,} cells ({share:.3g} %): "
    lines = [can + ", ".join(places)]
    if not field.full_box:
        lines.append(f"the box around them has {_volume(field):,} cells: some within it are not read")
    return lines


def _volume(field: ReceptiveField) -> int:
    return int(np.prod([last - first + 1 for first, last in field.box]))
