"""Extremes: where each channel of a step is largest and smallest over a data set, and the image crops that it sees."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.capture.activations import ActivationWatch
from convscope.data.dataset import Dataset
from convscope.errors import UsageError
from convscope.probe.support.dependency_walk import DependencyWalk, axes_of
from convscope.probe.support.scan import Batch, BatchResult, scan
from convscope.progress import Progress
from convscope.traces.step import Step

OUTSIDE, UNREAD, READ = 0, 1, 2
"""What a cell of a frame is: outside the image; in it, but not in the field; in the field."""
Box = tuple[tuple[int, int], tuple[int, int]]


@dataclass(slots=True, eq=False)
class Cropper:
    """Cuts receptive fields of one step out of images; each place's field is found once."""

    follow: DependencyWalk
    """Of the trace of any image of the data set: fields depend on its shape alone."""
    step: Step
    pictures: Callable[[int], NDArray[np.float32]]
    """An image by its index, from 0 to 1, shape (C, H, W)."""
    _fields: dict[tuple[int, tuple[int, ...]], NDArray[np.bool_]] = field(default_factory=dict)

    def field_at(self, unit: int, place: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which pixels one number can depend on, in any channel of the image: (H, W).

        Raises:
            UsageError: the model's input is not an image.
        """
        if (unit, place) not in self._fields:
            axes = axes_of(self.step)
            cell = [0] * len(self.step.shape)
            cell[axes.unit] = unit
            for axis, at in zip(axes.places, place, strict=True):
                cell[axis] = at
            marks = np.zeros(self.step.shape, np.float32)
            marks[tuple(cell)] = 1.0
            met = self.follow(self.step, marks)
            seen = next(iter(met.inputs.values()))[0]
            if met.broken:  # through numbers that left PyTorch it may depend on any cell
                seen = np.ones_like(seen)
            if seen.ndim != 3:
                raise UsageError(f"patches are cut out of pictures (C, H, W); this model's input is {seen.shape}.")
            self._fields[unit, place] = seen.any(axis=0)
        return self._fields[unit, place]

    def box_at(self, unit: int, place: tuple[int, ...]) -> Box:
        """First and last row and column of the field; (0, -1) where nothing is read."""
        seen = self.field_at(unit, place)
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        if not len(rows):
            return (0, -1), (0, -1)
        return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))

    def cut(
        self, image: int, unit: int, place: tuple[int, ...], frame: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The pixels of a field in the frame, (C, h, w), and what each cell of the frame is, (h, w).

        A field that is cut off by the image's border is placed in the frame as if it were whole.
        """
        seen, picture, box = self.field_at(unit, place), self.pictures(image), self.box_at(unit, place)
        shown = np.zeros((len(picture), *frame), np.float32)
        kind = np.full(frame, OUTSIDE, np.uint8)
        target: list[slice] = []
        for (first, last), length in zip(box, frame, strict=True):
            size = last - first + 1
            start = length - size if first == 0 else 0
            target.append(slice(start, start + size))
        source = tuple(slice(first, last + 1) for first, last in box)
        kind[tuple(target)] = np.where(seen[source], READ, UNREAD)
        shown[(slice(None), *target)] = picture[(slice(None), *source)]
        return shown, kind


def frame_of(boxes: Any) -> tuple[int, int]:
    """The height and width that all these boxes fit into.

    >>> frame_of([((0, 4), (2, 3)), ((1, 2), (0, 5))])
    (5, 6)
    """
    heights, widths = zip(
        *((rows[1] - rows[0] + 1, columns[1] - columns[0] + 1) for rows, columns in boxes), strict=True
    )
    return max(1, *heights), max(1, *widths)


KINDS = ("most", "least")


def extremes(
    model: nn.Module,
    data: Dataset,
    step: Step,
    *,
    count: int,
    units: int,
    folder: str | Path | None,
    progress: Progress,
) -> BatchResult:
    """The largest and the smallest numbers of each channel.

    Args:
        step: The step, as a trace has it.
        count: How many of each.
        units: How many channels, from the first on.
        folder: As for `scan`.
        progress: As for `scan`.

    Returns:
        `most`, `least`: the numbers, (count, units), the most extreme first; `most image`, ...: indices in the data
        set; `most place`, ...: where in the channel, counted row by row.
    """
    watch, axes = ActivationWatch(model, [step.name]), axes_of(step)

    def work(batch: Batch) -> BatchResult:
        def read(_step: Step, result: Tensor) -> BatchResult:
            flat = torch.movedim(result, axes.unit, 1).flatten(2) if axes.places else result[:, :, None]
            return _ranked(_of_batch(flat[:, :units], batch.indices), count)

        results: BatchResult = watch(batch.images, read)[step.name]
        return results

    def merge(one: BatchResult, two: BatchResult) -> BatchResult:
        return _ranked({name: np.concatenate([one[name], two[name]]) for name in one}, count)

    settings = {"step": step.name, "count": count, "units": units}
    what = f"patches of {step.name}"
    return scan(data, [model], work, merge, what=what, settings=settings, folder=folder, progress=progress)


def _of_batch(maps: Tensor, indices: NDArray[np.intp]) -> BatchResult:
    """From (N, U, P): for each image and channel the extreme numbers and their places; NaN is never one of them."""
    images = np.broadcast_to(indices[:, None], maps.shape[:2])
    result: dict[str, NDArray[np.generic]] = {}
    for kind in KINDS:
        worst = -torch.inf if kind == "most" else torch.inf
        values = maps.float().nan_to_num(worst, torch.inf, -torch.inf)
        extreme, places = values.max(dim=2) if kind == "most" else values.min(dim=2)
        result |= {kind: extreme.cpu().numpy(), f"{kind} image": images, f"{kind} place": places.cpu().numpy()}
    return result


def _ranked(found: BatchResult, count: int) -> BatchResult:
    """The `count` most extreme of each channel; of equal ones the earlier image."""
    ranked: BatchResult = {}
    for kind in KINDS:
        values = found[kind]
        order = np.argsort(-values if kind == "most" else values, axis=0, kind="stable")[:count]
        for name in (kind, f"{kind} image", f"{kind} place"):
            ranked[name] = np.take_along_axis(found[name], order, axis=0)
    return ranked
