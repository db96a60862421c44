"""Patches: what of the images excites each channel of a step most, and least, over a whole data set.

Of each image the place where the channel is largest counts, and the one where it is smallest; the images are ranked by
these numbers, and the exact receptive field of the place is cut out. Knows models, data and receptive fields.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.capture.tracing import trace
from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.displayed import Displayed
from convscope.errors import UsageError
from convscope.probe.support.batching import Model, as_data, as_model, first_of, pictures
from convscope.probe.support.dependency_walk import DependencyWalk, axes_of
from convscope.probe.support.extremes import KINDS, Box, Cropper, extremes, frame_of
from convscope.probe.support.report import Report, Table, sample_size
from convscope.probe.support.scan import READ, BatchResult
from convscope.progress import Progress, silent
from convscope.traces.step import Step
from convscope.type_checks import takes

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
class Patches(Displayed):
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

    def to_json(self) -> dict[str, Any]:
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

    def report(self) -> Report:
        """The result as sentences and tables."""
        size, sample = f"{self.frame[0]}x{self.frame[1]}", sample_size(self.images, self.skipped)
        head = f"{self.step} of {self.model} on {self.dataset}: {sample}, patches of {size} pixels"
        rows = []
        for unit, result in self.most.items():
            one, other = result[0], self.least[unit][0]
            ends = [(f"{patch.value:.4g}", str(patch.image), _at(patch)) for patch in (one, other)]
            rows.append((str(unit), *ends[0], *ends[1]))
        shown = len(self.most)
        rest = f"and {self.units - shown:,} more channels" if shown < self.units else ""
        return Report.of(head, Table(HEAD, rows, right=(0, 1, 2, 4, 5)), rest)


@takes(model="Module | str | Path", data="Dataset | str", step="str")
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
        progress: Told how many images are done.

    Raises:
        UnknownName: the model has no such step.
        UsageError: the step has no channels, or a count is not positive.
        ShapeError: the model cannot take these images.
    """
    if count < 1 or channels < 1:
        raise UsageError(f"count and channels must be 1 or more, not {count} and {channels}.")
    model, data = as_model(model), as_data(data, "test")
    sketch = trace(model, first_of(data, model), keep=0)
    here = sketch[last_convolution(sketch.steps) if step is None else step]
    units = here.shape[axes_of(here).unit]
    shown = min(channels, units)
    result = extremes(model, data, here, count=count, units=shown, folder=folder, progress=progress)
    frame, cuts = _cut(Cropper(DependencyWalk(sketch), here, pictures(data, model)), result)
    name, dataset = card_of(model).name, f"{data.name}:{data.split}"
    images = int(result[READ])
    skipped = data.listed - images
    return Patches(name, dataset, here.name, images, skipped, units, frame, cuts["most"], cuts["least"])


def _cut(cutter: Cropper, found: BatchResult) -> tuple[tuple[int, int], dict[str, dict[int, tuple[Patch, ...]]]]:
    """The frame that all patches fit into, and by kind and channel the patches in it."""
    shape = tuple(cutter.step.shape[axis] for axis in axes_of(cutter.step).places)
    places = {kind: np.stack(np.unravel_index(found[f"{kind} place"], shape or (1,)), -1) for kind in KINDS}

    def place(kind: str, rank: int, unit: int) -> tuple[int, ...]:
        return tuple(map(int, places[kind][rank, unit][: len(shape)]))

    ranks, units = found["most"].shape
    every = [(kind, rank, unit) for kind in KINDS for unit in range(units) for rank in range(ranks)]
    frame = frame_of([cutter.box_at(unit, place(kind, rank, unit)) for kind, rank, unit in every])

    def patch(kind: str, rank: int, unit: int) -> Patch:
        image, at = int(found[f"{kind} image"][rank, unit]), place(kind, rank, unit)
        value = float(found[kind][rank, unit])
        return Patch(image, value, at, cutter.box_at(unit, at), *cutter.cut(image, unit, at, frame))

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


def _plain(patch: Patch) -> dict[str, Any]:
    return {
        "image": patch.image,
        "value": patch.value,
        "place": list(patch.place),
        "box": [list(ends) for ends in patch.box],
    }


def _at(patch: Patch) -> str:
    return f"({', '.join(map(str, patch.place))})" if patch.place else ""
