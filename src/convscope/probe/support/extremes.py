"""Extremes: over a data set, where each channel of a step is largest and smallest; one place of each image counts."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.capture.activations import ActivationWatch
from convscope.data.dataset import Dataset
from convscope.probe.support.axes import axes_of
from convscope.probe.support.scan import Batch, BatchResult, scan
from convscope.progress import Progress
from convscope.traces.step import Step

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

        found: BatchResult = watch(batch.images, read)[step.name]
        return found

    def merge(one: BatchResult, two: BatchResult) -> BatchResult:
        return _ranked({name: np.concatenate([one[name], two[name]]) for name in one}, count)

    settings = {"step": step.name, "count": count, "units": units}
    what = f"patches of {step.name}"
    return scan(data, [model], work, merge, what=what, settings=settings, folder=folder, progress=progress)


def _of_batch(maps: Tensor, indices: NDArray[np.intp]) -> BatchResult:
    """From (N, U, P): for each image and channel the extreme numbers and their places; NaN is never one of them."""
    images = np.broadcast_to(indices[:, None], maps.shape[:2])
    found: dict[str, NDArray[np.generic]] = {}
    for kind in KINDS:
        worst = -torch.inf if kind == "most" else torch.inf
        values = maps.float().nan_to_num(worst, torch.inf, -torch.inf)
        extreme, places = values.max(dim=2) if kind == "most" else values.min(dim=2)
        found |= {kind: extreme.cpu().numpy(), f"{kind} image": images, f"{kind} place": places.cpu().numpy()}
    return found


def _ranked(found: BatchResult, count: int) -> BatchResult:
    """The `count` most extreme of each channel; of equal ones the earlier image."""
    ranked: BatchResult = {}
    for kind in KINDS:
        values = found[kind]
        order = np.argsort(-values if kind == "most" else values, axis=0, kind="stable")[:count]
        for name in (kind, f"{kind} image", f"{kind} place"):
            ranked[name] = np.take_along_axis(found[name], order, axis=0)
    return ranked
