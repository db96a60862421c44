"""Patches: what of the images excites each channel of a step most, and least, over a whole data set.

Of each image the place where the channel is largest counts, and the one where it is smallest; the images are ranked by
these numbers, and the exact receptive field of the place is cut out. Uses models, data and receptive fields."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.capture.activations import ActivationWatch
from convscope.capture.tracing import trace
from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.errors import UsageError
from convscope.probe.support.batching import as_data, first_of, pictures
from convscope.probe.support.dependency_walk import DependencyWalk, axes_of
from convscope.probe.support.report import ProbeReport, Table, sample_size
from convscope.probe.support.scan import READ, Batch, BatchResult, scan
from convscope.progress import Progress, silent
from convscope.rich_display import RichDisplay
from convscope.traces.step import Step
from convscope.training.runs import Model, as_model
from convscope.type_checks import takes

OUTSIDE, UNREAD, INSIDE = 0, 1, 2
"""What a cell of a frame is: outside the image; in it, but not in the field; in the field."""
Box = tuple[tuple[int, int], tuple[int, int]]
KINDS = ("most", "least")
HEAD = ("channel", "most", "image", "at", "least", "image", "at")


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The part of one image that one number of a step can depend on."""

    image: int
    """Its index in the data set."""
    value: float
    """The number."""
    place: tuple[int, ...]
    """Row and column in the channel; empty for a unit of a vector."""
    box: Box
    """First and last row, first and last column of the image; (0, -1) where nothing is read."""
    picture: NDArray[np.float32] = field(repr=False)
    """The patch in the frame that all patches have, from 0 to 1: shape (C, h, w), 0 outside the image."""
    kind: NDArray[np.uint8] = field(repr=False)
    """For each cell of the frame (h, w): 0 outside the image, 1 the number cannot depend on it, 2 it can."""


@dataclass(frozen=True, slots=True, eq=False)
class Patches(RichDisplay):
    """For each channel of a step the patches that excite it most and least."""

    model: str
    dataset: str
    """Name and split."""
    step: str
    images: int
    """The number of images."""
    skipped: int
    """The number of images that could not be read."""
    units: int
    """The number of channels or units of the step; those without patches here were not requested."""
    frame: tuple[int, int]
    """(height, width) of every patch: the largest field that occurs."""
    most: Mapping[int, tuple[Patch, ...]] = field(repr=False)
    """By channel, the largest number first, one patch for an image."""
    least: Mapping[int, tuple[Patch, ...]] = field(repr=False)
    """By channel, the smallest number first."""

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON, without pixels."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "step": self.step,
            "images": self.images,
            "skipped": self.skipped,
            "units": self.units,
            "frame": list(self.frame),
            "channels": [
                {"channel": unit, "most": list(map(_plain, self.most[unit])), "least": list(map(_plain, least))}
                for unit, least in self.least.items()
            ],
        }

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        size, sample = f"{self.frame[0]}x{self.frame[1]}", sample_size(self.images, self.skipped)
        head = f"{self.step} of {self.model} on {self.dataset}: {sample}, patches of {size} pixels"
        rows = []
        for unit, result in self.most.items():
            highest, lowest = result[0], self.least[unit][0]
            ends = [(f"{patch.value:.4g}", str(patch.image), _position_text(patch)) for patch in (highest, lowest)]
            rows.append((str(unit), *ends[0], *ends[1]))
        shown = len(self.most)
        remaining = f"and {self.units - shown:,} more channels" if shown < self.units else ""
        return ProbeReport.of(head, Table(HEAD, rows, right=(0, 1, 2, 4, 5)), remaining)


@takes(model="Module | Run | str | Path", data="Dataset | str", step="str")
def patches(
    model: Model,
    data: Dataset | str,
    step: str | None = None,
    *,
    count: int = 6,
    channels: int = 64,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> Patches:
    """The image patches that excite each channel of a step most and least over a data set.

    >>> import convscope as cs
    >>> model, data = cs.load_model("crosses", args={"published": True}), cs.load_dataset("crosses")
    >>> result = patches(model, data, "conv1", count=1)
    >>> result.most[0][0].place, round(result.most[0][0].value, 4)
    ((0, 2), 2.8925)

    Args:
        model: Any model, a run folder, or a name; it runs as far as the step and is left as it was.
        data: The images, or the name of a data set: then its test images.
        step: A step as a trace names it; None: the last convolution.
        count: How many patches of each kind for a channel.
        channels: How many channels, from the first on.
        folder: Where an interrupted scan keeps what it has found, so that it goes on.
        progress: Receives how many images are done.

    Raises:
        UnknownName: the model has no such step.
        UsageError: the step has no channels, or a count is not positive.
        ShapeError: the model cannot take these images.
    """
    if count < 1 or channels < 1:
        raise UsageError(f"count and channels must be 1 or more, not {count} and {channels}.")
    model, data = as_model(model), as_data(data, "test")
    sketch = trace(model, first_of(data, model), keep=0)
    target = sketch[last_convolution(sketch.steps) if step is None else step]
    units = target.shape[axes_of(target).unit]
    shown = min(channels, units)
    result = extremes(model, data, target, count=count, units=shown, folder=folder, progress=progress)
    frame, cuts = _cut(Cropper(DependencyWalk(sketch), target, pictures(data, model)), result)
    name, dataset = card_of(model).name, f"{data.name}:{data.split}"
    images = int(result[READ])
    skipped = data.listed - images
    return Patches(name, dataset, target.name, images, skipped, units, frame, cuts["most"], cuts["least"])


@dataclass(slots=True, eq=False)
class Cropper:
    """Cuts receptive fields of one step out of images; each place's field is found once."""

    follow: DependencyWalk
    """The walk through the trace of any image of the data set: receptive fields depend only on its shape."""
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
            for axis, index in zip(axes.places, place, strict=True):
                cell[axis] = index
            marks = np.zeros(self.step.shape, np.float32)
            marks[tuple(cell)] = 1.0
            followed = self.follow(self.step, marks)
            mask = next(iter(followed.inputs.values()))[0]
            if followed.broken:  # through numbers that left PyTorch it may depend on any cell
                mask = np.ones_like(mask)
            if mask.ndim != 3:
                raise UsageError(f"patches are cut out of pictures (C, H, W); this model's input is {mask.shape}.")
            self._fields[unit, place] = mask.any(axis=0)
        return self._fields[unit, place]

    def box_at(self, unit: int, place: tuple[int, ...]) -> Box:
        """First and last row and column of the field; (0, -1) where nothing is read."""
        mask = self.field_at(unit, place)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return (0, -1), (0, -1)
        return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))

    def cut(
        self, image: int, unit: int, place: tuple[int, ...], frame: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The pixels of a field in the frame, (C, h, w), and what each cell of the frame is, (h, w).

        A field that is cut off by the image's border is placed in the frame as if it were whole.
        """
        mask, picture, box = self.field_at(unit, place), self.pictures(image), self.box_at(unit, place)
        shown = np.zeros((len(picture), *frame), np.float32)
        kind = np.full(frame, OUTSIDE, np.uint8)
        target: list[slice] = []
        for (first, last), length in zip(box, frame, strict=True):
            size = last - first + 1
            start = length - size if first == 0 else 0
            target.append(slice(start, start + size))
        source = tuple(slice(first, last + 1) for first, last in box)
        kind[tuple(target)] = np.where(mask[source], INSIDE, UNREAD)
        shown[(slice(None), *target)] = picture[(slice(None), *source)]
        return shown, kind


def _cut(cutter: Cropper, batch: BatchResult) -> tuple[tuple[int, int], dict[str, dict[int, tuple[Patch, ...]]]]:
    """The frame that all patches fit into, and by kind and channel the patches in it."""
    shape = tuple(cutter.step.shape[axis] for axis in axes_of(cutter.step).places)
    places = {kind: np.stack(np.unravel_index(batch[f"{kind} place"], shape or (1,)), -1) for kind in KINDS}

    def position_of(kind: str, rank: int, unit: int) -> tuple[int, ...]:
        return tuple(map(int, places[kind][rank, unit][: len(shape)]))

    ranks, units = batch["most"].shape
    every = [(kind, rank, unit) for kind in KINDS for unit in range(units) for rank in range(ranks)]
    frame = frame_of([cutter.box_at(unit, position_of(kind, rank, unit)) for kind, rank, unit in every])

    def patch(kind: str, rank: int, unit: int) -> Patch:
        image, position = int(batch[f"{kind} image"][rank, unit]), position_of(kind, rank, unit)
        value = float(batch[kind][rank, unit])
        return Patch(image, value, position, cutter.box_at(unit, position), *cutter.cut(image, unit, position, frame))

    return frame, {
        kind: {unit: tuple(patch(kind, rank, unit) for rank in range(ranks)) for unit in range(units)} for kind in KINDS
    }


def last_convolution(steps: Iterable[Step]) -> str:
    """The name of the last convolution; of the last step where there is none.

    Raises:
        UsageError: there are no steps at all.
    """
    listed = list(steps)
    if not listed:
        raise UsageError("the model has no step whose patches could be shown; it calculates nothing.")
    return next((step.name for step in reversed(listed) if step.op == "convolution"), listed[-1].name)


def _plain(patch: Patch) -> dict[str, object]:
    return {
        "image": patch.image,
        "value": patch.value,
        "place": list(patch.place),
        "box": [list(ends) for ends in patch.box],
    }


def _position_text(patch: Patch) -> str:
    return f"({', '.join(map(str, patch.place))})" if patch.place else ""


def frame_of(boxes: Any) -> tuple[int, int]:
    """The height and width that all these boxes fit into.

    >>> frame_of([((0, 4), (2, 3)), ((1, 2), (0, 5))])
    (5, 6)
    """
    heights, widths = zip(
        *((rows[1] - rows[0] + 1, columns[1] - columns[0] + 1) for rows, columns in boxes), strict=True
    )
    return max(1, *heights), max(1, *widths)


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

    def merge(first: BatchResult, second: BatchResult) -> BatchResult:
        return _ranked({name: np.concatenate([first[name], second[name]]) for name in first}, count)

    settings = {"step": step.name, "count": count, "units": units}
    activity = f"patches of {step.name}"
    return scan(data, [model], work, merge, what=activity, settings=settings, folder=folder, progress=progress)


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


def _ranked(batch: BatchResult, count: int) -> BatchResult:
    """The `count` most extreme of each channel; of equal ones the earlier image."""
    ranked: BatchResult = {}
    for kind in KINDS:
        values = batch[kind]
        order = np.argsort(-values if kind == "most" else values, axis=0, kind="stable")[:count]
        for name in (kind, f"{kind} image", f"{kind} place"):
            ranked[name] = np.take_along_axis(batch[name], order, axis=0)
    return ranked
