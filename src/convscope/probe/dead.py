"""Dead: the units of a network that do nothing, can do nothing more, or do what another one does already.

Measured over a data set: what is dead on one may be alive on another. Uses scans and watched steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convscope.capture.activations import ActivationWatch
from convscope.capture.tracing import trace
from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.errors import UsageError
from convscope.probe.support.batching import as_data, first_of
from convscope.probe.support.dependency_walk import axes_of, ranges
from convscope.probe.support.report import Z95, ProbeReport, Proportion, Table, sample_size
from convscope.probe.support.scan import READ, Batch, BatchResult, scan
from convscope.progress import Progress, silent
from convscope.rich_display import RichDisplay
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.training.runs import Model, as_model
from convscope.type_checks import takes

RESTING = frozenset({"relu", "threshold", "hardtanh", "clamp", "clamp_min", "hardswish"})
"""Activations that give exactly 0 when they are off."""
FLAT = 0.01
"""A value is saturated where the activation's slope is below this share of its largest."""
COLUMNS = 2048
"""The most values of a unit that are used for a batch's correlations, spread evenly over images and places."""
MOST_UNITS = 1024
"""Steps with more units are not searched for duplicates."""
SATURATED = 0.95
"""A unit is saturated where all its values are flat in this share of the images."""
ALIKE = 0.999
"""Two units are duplicates from this correlation on, of either sign."""
UNITS = ("convolution", "addmm", "mm")
"""The operations examined in a network without activations."""
HEAD = ("step", "operation", "units", "dead", "saturated", "duplicates")


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two units of a step, one of which is redundant."""

    unit: int
    other: int
    correlation: float
    low: float
    """Lower end of the 95 % interval of its magnitude (Fisher), as if each image were one independent value."""
    factor: float
    """other is about factor x unit, plus a constant."""


@dataclass(frozen=True, eq=False)
class StepUnits:
    """The units of one step over a data set."""

    step: str
    op: str
    images: int
    low: NDArray[np.float64] = field(repr=False)
    """The smallest number of each unit over all images and places, shape (U,)."""
    high: NDArray[np.float64] = field(repr=False)
    """The largest, shape (U,)."""
    active: NDArray[np.int64] | None = field(repr=False)
    """Images in which the unit is not 0 everywhere, shape (U,); None where the activation does not rest at 0."""
    flat: NDArray[np.int64] | None = field(repr=False)
    """Images in which all values of the unit are saturated, shape (U,); None where the activation has no flat end."""
    bad: NDArray[np.int64] = field(repr=False)
    """Images in which the unit has numbers that are not finite, shape (U,)."""
    duplicates: tuple[Duplicate, ...] = ()
    searched: bool = True
    """Whether duplicates were looked for: not among more than 1,024 units."""

    @cached_property
    def dead(self) -> NDArray[np.int64]:
        """The units that give one and the same number for every image and place."""
        return np.flatnonzero(self.high - self.low <= 1e-6 * np.maximum(abs(self.high), abs(self.low)))

    @cached_property
    def saturated(self) -> NDArray[np.int64]:
        """The units all of whose values are flat in at least 95 % of the images, dead ones left out."""
        if self.flat is None:
            return np.array([], np.int64)
        return np.setdiff1d(np.flatnonzero(self.flat >= SATURATED * self.images), self.dead)

    def share_active(self, unit: int) -> Proportion:
        """In how many images the unit changes anything.

        Raises:
            UsageError: the activation does not rest at 0.
        """
        if self.active is None:
            raise UsageError(f"{self.step} ({self.op}) does not rest at 0, so nothing says when a unit is inactive.")
        return Proportion(int(self.active[unit]), self.images)


@dataclass(frozen=True, slots=True, eq=False)
class Dead(RichDisplay):
    """The dead, saturated and duplicate units of a model."""

    model: str
    dataset: str
    """Name and split."""
    images: int
    """The number of images."""
    skipped: int
    """The number of images that could not be read."""
    steps: tuple[StepUnits, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "images": self.images,
            "skipped": self.skipped,
            "steps": [_plain(step) for step in self.steps],
        }

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        rows = []
        for step in self.steps:
            saturated = "–" if step.flat is None else str(len(step.saturated))
            doubled = str(len({pair.other for pair in step.duplicates})) if step.searched else "–"
            rows.append((step.step, step.op, f"{len(step.low):,}", str(len(step.dead)), saturated, doubled))
        head = f"{self.model} on {self.dataset}: {sample_size(self.images, self.skipped)}"
        message = [line for step in self.steps for line in _findings(step)]
        return ProbeReport.of(head, Table(HEAD, rows, right=(2, 3, 4, 5)), message)


@takes(model="Module | Run | str | Path", data="Dataset | str")
def dead(
    model: Model,
    data: Dataset | str,
    steps: Sequence[str] = (),
    *,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> Dead:
    """Which units of a model are dead, saturated or duplicates, over a data set.

    >>> import torch, convscope as cs
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].bias.copy_(torch.tensor([-99.0, 0.5, 0.5]))
    ...     _ = model[0].weight[2].copy_(model[0].weight[1])
    >>> result = dead(model, cs.load_dataset("shapes", split="test")).steps[0]
    >>> result.dead.tolist(), [(pair.unit, pair.other) for pair in result.duplicates]
    ([0], [(1, 2)])

    Args:
        model: Any model, a run folder, or a name; it is left as it was.
        data: The images, or the name of a data set: then its training images.
        steps: Names of steps; by default all activations, in a network without any all convolutions and linear layers.
        folder: Where an interrupted scan keeps what it has found, so that it goes on.
        progress: Receives how many images are done.

    Raises:
        UnknownName: the model has no such step.
        UsageError: a step has no units.
        ShapeError: the model cannot take these images.
    """
    model, data = as_model(model), as_data(data, "train")
    sketch = trace(model, first_of(data, model), keep=0)
    chosen = [sketch[name] for name in steps] or _activations(sketch)
    watch = ActivationWatch(model, [step.name for step in chosen])
    numbers = {step.name: number for number, step in enumerate(chosen)}

    def work(batch: Batch) -> BatchResult:
        def read(step: Step, result: Tensor) -> BatchResult:
            return {f"{numbers[step.name]} {name}": array for name, array in counted(step, result).items()}

        return {name: array for part in watch(batch.images, read).values() for name, array in part.items()}

    settings = {"steps": list(numbers)}
    results = scan(data, [model], work, added, what="dead units", settings=settings, folder=folder, progress=progress)
    counts_of = [
        {name.partition(" ")[2]: a for name, a in results.items() if name.startswith(f"{k} ")}
        for k in range(len(chosen))
    ]
    images = int(results[READ])
    units = tuple(_units(step, part, images) for step, part in zip(chosen, counts_of, strict=True))
    return Dead(card_of(model).name, f"{data.name}:{data.split}", images, data.listed - images, units)


def _activations(sketch: Trace) -> list[Step]:
    shown = [step for step in sketch.steps if len(step.shape) > 1]
    return (
        [step for step in shown if step.role == "activation"] or [step for step in shown if step.op in UNITS] or shown
    )


def _units(step: Step, batch: BatchResult, images: int) -> StepUnits:
    """The state of a step's units, from its counts."""
    low, high, searched = batch["low"], batch["high"], "products" in batch
    units = StepUnits(
        step.name, step.op, images, low, high, batch.get("active"), batch.get("flat"), batch["bad"], (), searched
    )
    usable = searched and bool(np.isfinite(batch["products"]).all())
    return replace(units, duplicates=_duplicates(batch, units.dead, images)) if usable else units


def _duplicates(batch: BatchResult, constant: NDArray[np.int64], images: int) -> tuple[Duplicate, ...]:
    """Pairs of units with a correlation of almost 1, each unit with the first one that it doubles."""
    n, mean = float(batch["columns"]), batch["sum"] / batch["columns"]
    covariance = batch["products"] / n - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.clip(np.nan_to_num(covariance / np.outer(spread, spread)), -1, 1)
    correlation[constant] = correlation[:, constant] = 0.0
    pairs, matched = [], set[int]()
    for first, second in np.argwhere(np.triu(np.abs(correlation) >= ALIKE, 1)).tolist():
        if first not in matched and second not in matched:
            matched.add(second)
            r = float(correlation[first, second])
            factor = float(covariance[first, second] / covariance[first, first])
            pairs.append(Duplicate(first, second, r, _least(abs(r), images), factor))
    return tuple(pairs)


def _least(correlation: float, n: int) -> float:
    """The lower end of Fisher's 95 % interval of a correlation over n values.

    Source: R. A. Fisher, On the probable error of a coefficient of correlation, 1921.
    """
    if n < 4 or correlation >= 1:
        return correlation if n >= 4 else -1.0
    return float(np.tanh(np.arctanh(correlation) - Z95 / np.sqrt(n - 3)))


def _findings(step: StepUnits) -> list[str]:
    lines = []
    if len(step.dead):
        percent = 100 * Proportion(0, step.images).interval[1]
        lines.append(
            f"{step.step}: dead, the same number for all {step.images:,} images: {ranges(step.dead)}; at most "
            f"{percent:.2g} % of such images would change one of them (Wilson 95 %)"
        )
    if len(step.saturated) and step.flat is not None:
        least = Proportion(int(step.flat[step.saturated].min()), step.images)
        lines.append(
            f"{step.step}: saturated, a slope below {100 * FLAT:.0f} % of its largest at every place: "
            f"{ranges(step.saturated)}; in {least} of the images or more"
        )
    for pair in step.duplicates:
        sign = "the same as" if pair.factor > 0 else "the negative of"
        lines.append(
            f"{step.step}: {pair.other} is {sign} {pair.unit}, times {abs(pair.factor):.4g}; correlation "
            f"{pair.correlation:.6f} (at least {pair.low:.4f} in magnitude, Fisher 95 %, n = {step.images:,})"
        )
    if step.bad.any():
        lines.append(f"{step.step}: numbers that are not finite, in up to {int(step.bad.max()):,} images")
    return lines


def _plain(step: StepUnits) -> dict[str, object]:
    none = Proportion(0, step.images).to_json()
    return {
        "step": step.step,
        "op": step.op,
        "units": len(step.low),
        "dead": [{"unit": int(unit), "changed": none} for unit in step.dead],
        "saturated": [
            {"unit": int(unit), "images": Proportion(int(step.flat[unit]), step.images).to_json()}
            for unit in step.saturated
            if step.flat is not None
        ],
        "duplicates": [
            {"unit": p.unit, "other": p.other, "correlation": p.correlation, "low": p.low, "factor": p.factor}
            for p in step.duplicates
        ],
        "searched": step.searched,
        "active": None if step.active is None else step.active.tolist(),
        "low": step.low.tolist(),
        "high": step.high.tolist(),
        "not_finite": step.bad.tolist(),
    }


# What is counted of a step's units, batch by batch

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


def added(first: BatchResult, second: BatchResult) -> BatchResult:
    """The counts of two parts of a data set together."""
    merges = {"low": np.fmin, "high": np.fmax}
    return {name: merges.get(name.rpartition(" ")[2], np.add)(first[name], second[name]) for name in first}
