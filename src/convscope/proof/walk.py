"""Walks: how one number changes with one pixel by way of chosen numbers, one factor for each step of the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Cell
from convscope.ops.source_cells import MOVES
from convscope.proof.backward import Backward, Result, through, varying
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array


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


def _slope(trace: Trace, step: Step | None, cell: Cell, earlier: Step | None, at: Cell) -> float:
    """How a number changes with another that its own step reads, as it is or moved by views and copies."""
    if step is None or (earlier is not None and earlier.id >= step.id):
        raise UsageError("a walk goes from a number to one that it is calculated from; the last one may be a pixel.")
    start = np.zeros(step.results[0].shape)
    start[cell] = 1.0
    found = _onto_operands(trace, step, start)
    if earlier is None:
        weights: Array | None = next(iter(found.inputs.values()))
    else:
        weights = found.weights.get((earlier.id, 0))
    if weights is None:
        read = "the image" if earlier is None else earlier.name
        raise UsageError(f"{step.name} does not read {read} directly, so a walk cannot go from one to the other.")
    return float(weights[at])


def _onto_operands(trace: Trace, step: Step, start: Array) -> Backward:
    """Weights on what a step reads; numbers that were only moved are followed to where they were made."""
    first: Mapping[Result, Array] = {(step.id, 0): start}
    found = Backward(trace, varying(trace, step.id), weights=dict(first), counts_rounding=False)
    found.inputs = {name: np.zeros(array.shape) for name, array in trace.inputs.items()}
    visible = {each.id for each in trace.steps}
    for at in range(step.id, -1, -1):
        here = trace.all_steps[at]
        passes = at == step.id or at not in visible or here.op in MOVES
        for index in range(len(here.results) if passes else 0):
            weights = found.weights.get((at, index))
            if weights is not None and weights.any():
                through(found, here, index, weights)
    return found
