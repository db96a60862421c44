"""Check of one result of a step against its two witnesses: the reference for every number, the rule for a sample.

Where a rule is vectorized, it explains many cells at once. Uses rules and calls; no traces.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from convscope.errors import ConvscopeError
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.ops import convolution
from convscope.ops.op import Rule, Vectorized
from convscope.proof.channel_bias import ChannelErrors, has_channel_means, offset
from convscope.proof.recomputation import Recomputation
from convscope.proof.tolerance import Reach, agree, reach_of, resolution_of, undecided, whole_bound, within_reach
from convscope.proof.verification_report import Mismatch, Witness
from convscope.reference.parts import Box, boxes
from convscope.typing import Array


class StepCheck:
    """One result of a step against its two witnesses."""

    def __init__(self, call: Call, recorded: Array, *, normwise: bool = False) -> None:
        self.call, self.recorded, self.normwise = call, recorded, normwise
        self.explained = 0
        self.unbounded = 0
        self.worst = 0.0
        self.worst_cell: Cell | None = None
        self.mismatch: Mismatch | None = None
        self.resolution = 0.0
        """The median bound over the output's root mean square, of the numbers that are finite."""
        self._bounds: Array = np.zeros(())
        self._worst = (-1.0, 0)  # the largest share of a bound, and minus the place of its cell
        self._expected = (np.nan, 0.0)
        self._means = ChannelErrors(recorded.shape[1], call.dtype) if has_channel_means(call.op, recorded) else None

    def compare(self, box: Box, part: Recomputation) -> bool:
        """Compare the numbers in a box with the reference's; whether the shapes allow it."""
        recorded = self.recorded[box]
        if part.values.shape != recorded.shape:
            self.worst = np.inf
            self.mismatch = Mismatch((), np.nan, np.nan, 0.0, "shape", self.call.output, (part.values.shape,))
            return False
        self._keep(box, part.bounds)
        bounds = np.broadcast_to(part.bounds, recorded.shape)
        if recorded.size and self._means is not None:
            self._means.add(part.values, bounds, recorded)
        for inner in boxes(recorded.shape, range(recorded.ndim)):
            self._compare(box, inner, recorded[inner], part.values[inner], bounds[inner])
        return True

    def conclude(self, again: Callable[[], Iterable[tuple[Box, Recomputation]]]) -> None:
        """Judge what all parts gave: the worst number, then every channel's mean, then the resolution.

        Args:
            again: The parts once more, in which a channel is looked at whose mean is suspect.
        """
        if self.recorded.size and self.mismatch is None:
            self.worst = self._worst[0]
            self.worst_cell = tuple(int(i) for i in np.unravel_index(-self._worst[1], self.recorded.shape))
            if self.worst > 1:
                self._contradict(self.worst_cell, *self._expected, "reference")
            elif self.worst > 0 and self._means is not None:
                self._judge_means(self._means.suspects(), again)
        self.resolution = resolution_of(self.recorded, self._bounds, spend=True)
        self._bounds = np.zeros(())

    def _keep(self, box: Box, bounds: Array) -> None:
        """Keep the bounds of a box until the end: their median is asked for."""
        if bounds.shape == self.recorded.shape or all(part == slice(None) for part in box):
            self._bounds = bounds
        elif bounds.any() or self._bounds.ndim:
            if not self._bounds.ndim:
                self._bounds = np.zeros(self.recorded.shape)
            self._bounds[box] = bounds

    def _compare(self, box: Box, inner: Box, recorded: Array, expected: Array, bounds: Array) -> None:
        if not recorded.size:
            return
        ratio = self._ratio(recorded, expected, bounds)
        cell = np.unravel_index(int(ratio.argmax()), ratio.shape)
        starts = ((o.start or 0) + (i.start or 0) for o, i in zip(box, inner, strict=True))
        full_cell = tuple(int(start + inner_offset) for start, inner_offset in zip(starts, cell, strict=True))
        share = float(ratio[cell]), -int(np.ravel_multi_index(full_cell, self.recorded.shape)) if full_cell else 0
        if share > self._worst:
            self._worst, self._expected = share, (float(expected[cell]), float(bounds[cell]))

    def _ratio(self, recorded: Array, expected: Array, bounds: Array) -> Array:
        """Every number's error as a fraction of its bound; nan agrees with nan, infinities with their like.

        A bound that is infinite or no number excludes nothing, so a number that is not exactly the reference's is
        counted in `unbounded` there instead of as an error.
        """
        if np.array_equal(recorded, expected):
            return np.zeros(recorded.shape)
        if recorded.dtype.kind == "f":  # finite numbers and bounds, as nearly all are, need no more than a quotient
            with np.errstate(all="ignore"):
                ratio = np.abs(recorded - expected) / bounds
            if bounds.max() < np.inf and ratio.max() < np.inf:
                return np.asarray(ratio)
        with np.errstate(all="ignore"):
            error = (recorded != expected).astype(float) if recorded.dtype == bool else np.abs(recorded - expected)
            ratio = np.atleast_1d(error / bounds).reshape(recorded.shape)
        exact = (recorded == expected) | (np.isnan(recorded) & np.isnan(expected))
        open_ = ~np.isfinite(bounds) | ((recorded.dtype == bool) & (bounds >= 1))
        if np.isinf(recorded).any():
            beyond, perhaps = within_reach(recorded, expected, bounds, self.call.dtype)
            exact, open_ = exact | beyond, open_ | perhaps
        open_ = (open_ | self._undecided(expected, recorded)) & ~exact
        self.unbounded += int(np.count_nonzero(open_))
        ratio[exact | open_] = 0.0
        ratio[np.isnan(ratio)] = np.inf
        return ratio

    def _judge_means(self, suspects: Iterable[int], again: Callable[[], Iterable[tuple[Box, Recomputation]]]) -> None:
        arguments = {name: v.array if isinstance(v, Operand) else v for name, v in self.call.arguments.items()}
        for channel in suspects:
            values, bounds = np.zeros((2, len(self.recorded), *self.recorded.shape[2:]))
            for box, part in again():
                image_box = (box[0], *box[2:])
                values[image_box] = part.values[:, channel]
                bounds[image_box] = np.broadcast_to(part.bounds, part.values.shape)[:, channel]
            bias = offset(
                self.call.op,
                arguments,
                channel,
                values=values,
                bounds=bounds,
                recorded=self.recorded[:, channel],
                dtype=self.call.dtype,
            )
            if bias is not None:
                self.worst = max(self.worst, abs(bias.mean) / bias.allowed)
                shown, output = bias.expected + bias.mean, self.call.output
                self.mismatch = Mismatch((channel,), shown, bias.expected, bias.allowed, "channel mean", output)
                return

    def explain(self, rule: Rule | None, count: int, random: np.random.Generator) -> bool:
        """Explain a sample of cells, and compare with the recorded numbers; whether the rule could."""
        if rule is None:
            return False
        precision = self.call.precision
        cells = self._sample(count, random)
        values, errors, able = results_of(rule, self.call, cells)
        recorded = np.asarray(self.recorded[tuple(cells.T)], float).reshape(len(cells))
        bounds = whole_bound(values, errors, precision)
        if self.normwise:
            bounds = np.maximum(bounds, [convolution.normwise(self.call, tuple(map(int, cell))) for cell in cells])
        able &= self._bounded(values, recorded, bounds)
        count = len(cells) if able.all() else int(np.argmin(able))  # up to the first that the rule leaves open
        self.explained += count
        for index in np.flatnonzero(~agree(values, recorded, bounds, self.call.dtype)[:count]):
            value, bound = float(values[index]), float(bounds[index])
            share = abs(value - recorded[index]) / bound if bound else np.inf
            if self.mismatch is None or share > self.worst:
                self._contradict(tuple(map(int, cells[index])), value, bound, "expression")
            self.worst = max(self.worst, 1.0 if np.isnan(share) else float(share))
        return count == len(cells)

    def _bounded(self, values: Array, recorded: Array, bounds: Array) -> Array:
        """Whether a rule's bounds say anything: that of an index is open where equal numbers compete, no other."""
        if self.recorded.dtype.kind != "f":
            return np.ones(len(values), bool)
        closed = np.isfinite(bounds)
        if np.isinf(recorded).any():
            closed = np.where(np.isinf(recorded), ~within_reach(recorded, values, bounds, self.call.dtype)[1], closed)
        return np.asarray((closed | (values == recorded) | np.isnan(values)) & ~self._undecided(values, recorded))

    def _undecided(self, values: Array, recorded: Array) -> Array:
        """For which numbers neither is settled."""
        if np.isfinite(values).all() and np.isfinite(recorded).all():
            return np.zeros(recorded.shape, bool)
        return np.asarray(undecided(self.call, values, recorded, self._reach))

    @cached_property
    def _reach(self) -> Reach:
        return reach_of(self.call)

    def _sample(self, count: int, random: np.random.Generator) -> Array:
        """Corners and middles of borders, first and last channel, the worst cell, and random ones; each once.

        Returns:
            int64, shape (n, axes).
        """
        shape = self.recorded.shape
        size = int(np.prod(shape))
        if size <= count:
            return np.argwhere(np.ones(shape, bool)).astype(np.int64)
        landmarks = {*map(int, np.ravel_multi_index(tuple(_landmarks(shape).T), shape))}
        worst = () if self.worst_cell is None else (int(np.ravel_multi_index(self.worst_cell, shape)),)
        marked = np.array(sorted(landmarks.union(worst)))
        random_indices = random.choice(size, min(size, count + len(marked)), replace=False)
        unmarked = random_indices[~(random_indices[:, None] == marked).any(1)][: max(0, count - len(marked))]
        return np.stack(np.unravel_index(np.concatenate([marked, unmarked]), shape), -1).astype(np.int64)

    def _contradict(self, cell: Cell, expected: float, allowed: float, witness: Witness) -> None:
        self.mismatch = Mismatch(cell, float(self.recorded[cell]), expected, allowed, witness, self.call.output)


def _landmarks(shape: tuple[int, ...]) -> Array:
    """First, middle and last of up to the last three axes, the first of all before."""
    axes = [sorted({0, n // 2, n - 1}) if len(shape) - k <= 3 else [0] for k, n in enumerate(shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))


# What a rule gives for many cells of one result.


UNABLE = (
    ConvscopeError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip
"""Exceptions of a witness for a call that it cannot evaluate, such as one that no kernel would accept."""
TERMS = 2**17
"""Numbers of the cells that are explained together, at most: 1 MB of float64, which a processor's cache holds."""


class Results(NamedTuple):
    """What a rule gives for n cells."""

    values: Array
    """float64, shape (n,)."""
    errors: Array
    """How far a kernel's number may be from each, shape (n,)."""
    able: NDArray[np.bool_]
    """Whether the rule could explain the cell, shape (n,)."""


def results_of(rule: Rule, call: Call, cells: Array) -> Results:
    """The values and errors of cells, the same bits as of each cell by itself.

    >>> from convscope.expr.call import Operand
    >>> from convscope.ops import OPS
    >>> call = Call("relu", {"self": Operand.of(np.array([-1.0, 2.0, 3.0]), "x")}, (3,))
    >>> results_of(OPS["relu"].rule, call, np.array([[0], [2]])).values.tolist()
    [0.0, 3.0]

    Args:
        rule: Explains a cell, or many where it is `Vectorized`.
        call: The operation.
        cells: int64, shape (n, axes).
    """
    results = Results(np.zeros(len(cells)), np.zeros(len(cells)), np.zeros(len(cells), bool))
    every = np.arange(len(cells))
    try:
        together = groups(rule, call, cells)
    except UNABLE:  # the rule explains one of the cells at most, or none
        together = None
    for rows in [every] if together is None else together:
        if together is None or len(rows) == 1 or not _explain(rule, call, cells, rows, results):
            for row in rows.tolist():
                if not _explain(rule, call, cells, row, results):
                    break  # the first that the rule leaves open decides
    return results


def groups(rule: Rule, call: Call, cells: Array) -> list[Array] | None:
    """Which cells are explained at once: rows of `cells`, a few MB at a time; None for one after the other."""
    keys = rule.alike(call, _columns(cells)) if isinstance(rule, Vectorized) and cells.size else None
    if keys is None or len(cells) == 1:
        return None
    group = np.zeros(len(cells), np.int64)
    if keys.shape[1]:
        group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    parts = []
    for number in range(int(group.max()) + 1):
        members = np.flatnonzero(group == number)
        cells_per_group = max(1, TERMS // max(1, _terms(rule(call, _cell(cells[members[0]])))))
        parts += [members[start : start + cells_per_group] for start in range(0, len(members), cells_per_group)]
    return parts


def _explain(rule: Rule, call: Call, cells: Array, rows: Array | int, results: Results) -> bool:
    """Store the rule's values for some cells, or for one; returns whether it could explain them."""
    try:
        expr = rule(call, _cell(cells[rows]) if isinstance(rows, int) else _columns(cells[rows]))
        results.values[rows], results.errors[rows] = expr.result(call.precision)
    except UNABLE:
        return False
    results.able[rows] = True
    return True


def _cell(cell: Array) -> Cell:
    return tuple(map(int, cell))


def _columns(cells: Array) -> Cell:
    """Cells as one whose indices are arrays of shape (n,)."""
    return cast("Cell", tuple(np.ascontiguousarray(cells.T)))


def _terms(expr: Expr | Cells) -> int:
    """How many numbers an expression reads."""
    match expr:
        case Leaf():
            return 1
        case Cells():
            return len(expr)
        case Dot():
            return len(expr.left)
        case Apply():
            return sum(map(_terms, expr.arguments.values()))
