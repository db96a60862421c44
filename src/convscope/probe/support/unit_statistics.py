"""Activity: what is counted of a step's units, batch by batch, to say which are dead, saturated or doubled.

Knows torch and what each activation does at its ends; not what is made of the counts.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from convscope.probe.support.dependency_walk import axes_of
from convscope.probe.support.scan import BatchResult
from convscope.traces.step import Step

RESTING = frozenset({"relu", "threshold", "hardtanh", "clamp", "clamp_min", "hardswish"})
"""Activations that give exactly 0 when they are off."""
FLAT = 0.01
"""A value is saturated where the activation's slope is below this share of its largest."""
COLUMNS = 2048
"""The most values of a unit that are used for a batch's correlations, spread evenly over images and places."""
MOST_UNITS = 1024
"""Steps with more units are not searched for duplicates."""
Flat = Callable[[Step, Tensor], Tensor]


def _tanh(_step: Step, values: Tensor) -> Tensor:
    return 1 - values**2 < FLAT


def _sigmoid(_step: Step, values: Tensor) -> Tensor:
    return 4 * values * (1 - values) < FLAT


def _softsign(_step: Step, values: Tensor) -> Tensor:
    return (1 - values.abs()) ** 2 < FLAT


def _hardsigmoid(_step: Step, values: Tensor) -> Tensor:
    return (values <= 0) | (values >= 1)


def _bounded(step: Step, values: Tensor) -> Tensor:
    """At the upper bound, or at a lower one that is not 0: at 0 the unit is off."""
    low = step.arguments.get("min_val", step.arguments.get("min"))
    high = step.arguments.get("max_val", step.arguments.get("max"))
    at_high = values >= high if isinstance(high, int | float) else torch.zeros_like(values, dtype=torch.bool)
    return at_high | (values <= low) if isinstance(low, int | float) and low else at_high


SATURATING: Mapping[str, Flat] = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softsign": _softsign,
    "hardsigmoid": _hardsigmoid,
    "hardtanh": _bounded,
    "clamp": _bounded,
}
"""Activations that are flat at an end, and where."""


def counted(step: Step, result: Tensor) -> BatchResult:
    """What a batch of results adds: by unit, shape (U,), and products of units, (U, U).

    `active`: images in which the unit is not 0 everywhere; `flat`: images in which all its values are saturated;
    `low`, `high`: its smallest and largest number; `bad`: images with a number that is not finite.
    """
    axes = axes_of(step)
    values = torch.movedim(result, axes.unit, 1).flatten(2) if axes.places else result[:, :, None]  # (N, U, P)
    low, high = (extreme.double().cpu().numpy() for extreme in (values.amin(dim=(0, 2)), values.amax(dim=(0, 2))))
    results: BatchResult = {"low": low, "high": high, "bad": np.zeros(len(low), np.int64)}
    if not np.isfinite(high - low).all():
        results["bad"] = (~values.isfinite()).any(dim=2).sum(dim=0).cpu().numpy()
    if step.op in RESTING:
        results["active"] = (values != 0).any(dim=2).sum(dim=0).cpu().numpy()
    if step.op in SATURATING:
        results["flat"] = SATURATING[step.op](step, values).all(dim=2).sum(dim=0).cpu().numpy()
    if values.shape[1] <= MOST_UNITS:
        results |= _moments(values)
    return results


def _moments(values: Tensor) -> BatchResult:
    """Sums and products of units over some of the values, in float64."""
    lines = values.transpose(0, 1).flatten(1)  # (U, N * P)
    picked = torch.linspace(0, lines.shape[1] - 1, min(COLUMNS, lines.shape[1]), device=lines.device).long()
    sample = lines[:, picked].double()
    return {
        "sum": sample.sum(dim=1).cpu().numpy(),
        "products": (sample @ sample.T).cpu().numpy(),
        "columns": np.array(sample.shape[1]),
    }


def added(one: BatchResult, two: BatchResult) -> BatchResult:
    """The counts of two parts of a data set together."""
    how = {"low": np.fmin, "high": np.fmax}
    return {name: how.get(name.rpartition(" ")[2], np.add)(one[name], two[name]) for name in one}
