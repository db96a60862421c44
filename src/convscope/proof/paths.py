"""Paths and walks: how the image reaches a number by way of chosen channels or chosen numbers.

A path is what the whole image adds through one channel of each convolution. The slopes that lead a number back to the
image (`backward`) are split at a convolution, and those of one channel are followed. Slopes are additive, so the paths,
and the contributions that bypass the convolutions, add up to the contributions of the pixels.

A walk is what one pixel adds by way of chosen numbers: one factor for each step of the way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Cell
from convscope.ops.source_cells import MOVES
from convscope.progress import Progress, silent
from convscope.proof.backward import Backward, Result, one_at, through, varying
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array

MOST = 1024
"""Maximum number of paths that are followed."""
LARGEST = 2_000_000
"""Maximum number of cells of all steps on the way, so that an answer takes no longer than some seconds."""


@dataclass(frozen=True, slots=True)
class Path:
    """The contribution of the image to a number through one channel of each of some convolutions.

    It includes the contributions of all pixels through these channels, but not those of the biases.
    """

    steps: tuple[Step, ...]
    """The convolutions, from the image on."""
    channels: tuple[int, ...]
    value: float
    cell: Cell
    """The cell of the last channel with the largest contribution."""


@dataclass(frozen=True, slots=True)
class Paths:
    """A number as paths, the largest first; `rest` bypasses these convolutions."""

    paths: tuple[Path, ...]
    rest: float
    constant: float
    bent: tuple[str, ...]

    @property
    def total(self) -> float:
        """The sum of paths, rest and constant: the number, up to rounding."""
        return sum(path.value for path in self.paths) + self.rest + self.constant


def paths_to(trace: Trace, step: Step, cell: Cell, minus: Cell | None = None, progress: Progress = silent) -> Paths:
    """Split the image's contribution to a number by the channels of the first and last convolution before it.

    >>> import torch, convscope as cs
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    >>> trace = cs.trace(net, torch.rand(1, 4, 4))
    >>> result = paths_to(trace, trace.steps[-1], (0, 1))
    >>> len(result.paths), bool(abs(result.total - trace.steps[-1].output[0, 1]) < 1e-5)
    (2, True)

    Args:
        trace: The pass, of one image.
        step: The step that made the number.
        cell: A full index of its result.
        minus: Another cell of the result: the paths are then those of the difference, cell - minus.
        progress: Receives how many channels of the last convolution are done.

    Raises:
        UsageError: there is no convolution before it, too many paths, or a step that cannot be followed.
    """
    first, last = _ends(trace, step)
    count = last.shape[1]
    progress("following paths", 0, count)
    start = one_at(step, cell)
    if minus is not None:
        start[minus] -= 1.0
    onto_last = _followed(trace, {(step.id, 0): start}, last)
    last_weights = onto_last.weights.pop((last.id, 0), np.zeros(last.results[0].shape))
    paths = list[Path]()
    for channel in range(count):
        paths += _through(trace, first, last, last_weights, channel)
        progress("following paths", channel + 1, count)
    to_input = _followed(trace, {(last.id, 0): last_weights})
    remainder = _added(trace, onto_last) + _added(trace, to_input) - sum(path.value for path in paths)
    nonlinear_steps = dict.fromkeys(reversed([*onto_last.bent, *to_input.bent]))
    paths.sort(key=lambda path: -abs(path.value))
    return Paths(tuple(paths), remainder, onto_last.constant + to_input.constant, tuple(nonlinear_steps))


def _ends(trace: Trace, step: Step) -> tuple[Step, Step]:
    """The first and the last convolution before a step."""
    before = [
        earlier for earlier in trace.all_steps[: step.id] if earlier.op == "convolution" and len(earlier.shape) == 4
    ]
    if not before:
        raise UsageError(f"no convolution comes before {step.name}, so there are no paths through feature maps.")
    first, last = before[0], before[-1]
    count = last.shape[1] * (1 if first is last else first.shape[1])
    cells = sum(int(np.prod(earlier.shape)) for earlier in trace.all_steps[: step.id + 1]) * last.shape[1]
    if count > MOST or cells > LARGEST * 8 or first.shape[0] != 1:
        raise UsageError(
            f"the channels of {first.name}{'' if first is last else f' and {last.name}'} make {count:,} paths through "
            f"{cells:,} cells, too many to follow; "
            "the calculation of every number shows its terms."
        )
    return first, last


def _through(trace: Trace, first: Step, last: Step, last_weights: Array, channel: int) -> list[Path]:
    """The paths through one channel of the last convolution."""
    only = np.zeros_like(last_weights)
    only[:, channel] = last_weights[:, channel]
    best = np.unravel_index(int(np.abs(only * np.nan_to_num(last.output)).argmax()), only.shape)
    best_cell = tuple(map(int, best))
    if first is last:
        return [Path((last,), (channel,), _added(trace, _followed(trace, {(last.id, 0): only})), best_cell)]
    onto_first = _followed(trace, {(last.id, 0): only}, first).weights.get((first.id, 0))
    if onto_first is None:
        return []
    values = [_added(trace, _followed(trace, {(first.id, 0): _only(onto_first, k)})) for k in range(first.shape[1])]
    return [Path((first, last), (k, channel), value, best_cell) for k, value in enumerate(values) if value != 0.0]


def _only(weights: Array, channel: int) -> Array:
    only = np.zeros_like(weights)
    only[:, channel] = weights[:, channel]
    return only


def _followed(trace: Trace, start: Mapping[Result, Array], until: Step | None = None) -> Backward:
    """Follow weights back to the inputs, or only as far as a step, whose weights then remain."""
    last = max(step for step, _ in start)
    backward = Backward(trace, varying(trace, last), weights=dict(start), counts_rounding=False)
    for step_id, index in product(range(last, -1, -1), range(8)):
        if until is not None and step_id == until.id:
            continue
        weights = backward.weights.pop((step_id, index), None)
        if weights is not None and weights.any():
            through(backward, trace.all_steps[step_id], index, weights)
    return backward


def _added(trace: Trace, flow: Backward) -> float:
    """The sum of the pixels' contributions."""
    parts = (np.where(w == 0, 0.0, w * trace.inputs[name]).sum() for name, w in flow.inputs.items())
    return float(sum(parts))


@dataclass(frozen=True, slots=True)
class Walk:
    """The product of a walk: its factors, from the number back to the pixel, times the pixel."""

    slopes: tuple[float, ...]
    """How each number changes with the next one, which it reads."""
    value: float
    """The last number of the walk: a pixel, or a number on the way."""

    @property
    def product(self) -> float:
        """What the last number adds to the first one by way of all others."""
        return float(np.prod(self.slopes)) * self.value


def walk_along(trace: Trace, places: Sequence[tuple[Step | None, Cell]]) -> Walk:
    """Multiply the slopes along a walk.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.ones(1, 2))
    >>> walk = walk_along(trace, [(trace.steps[1], (0, 2)), (trace.steps[0], (0, 2)), (None, (0, 1))])
    >>> len(walk.slopes), walk.value
    (2, 1.0)

    Args:
        trace: The pass.
        places: Numbers by their step and full index, each read by the one before it; the step None is the first input.

    Raises:
        UsageError: a number does not read the next one, or its step has no vector-Jacobian product.
    """
    slopes = [_slope(trace, *later, *earlier) for later, earlier in pairwise(places)]
    step, cell = places[-1]
    tensor = next(iter(trace.inputs.values())) if step is None else step.output
    return Walk(tuple(slopes), float(tensor[cell]))


def _slope(trace: Trace, step: Step | None, cell: Cell, earlier: Step | None, source_cell: Cell) -> float:
    """How a number changes with another that its own step reads, as it is or moved by views and copies."""
    if step is None or (earlier is not None and earlier.id >= step.id):
        raise UsageError("a walk goes from a number to one that it is calculated from; the last one may be a pixel.")
    flow = _onto_operands(trace, step, one_at(step, cell))
    if earlier is None:
        weights: Array | None = next(iter(flow.inputs.values()))
    else:
        weights = flow.weights.get((earlier.id, 0))
    if weights is None:
        source_name = "the image" if earlier is None else earlier.name
        raise UsageError(
            f"{step.name} does not read {source_name} directly, so a walk cannot go from one to the other."
        )
    return float(weights[source_cell])


def _onto_operands(trace: Trace, step: Step, start: Array) -> Backward:
    """Weights on what a step reads; numbers that were only moved are followed to where they were made."""
    first: Mapping[Result, Array] = {(step.id, 0): start}
    flow = Backward(trace, varying(trace, step.id), weights=dict(first), counts_rounding=False)
    visible = {visible_step.id for visible_step in trace.steps}
    for step_id in range(step.id, -1, -1):
        current = trace.all_steps[step_id]
        passes = step_id == step.id or step_id not in visible or current.op in MOVES
        for index in range(len(current.results) if passes else 0):
            weights = flow.weights.get((step_id, index))
            if weights is not None and weights.any():
                through(flow, current, index, weights)
    return flow
