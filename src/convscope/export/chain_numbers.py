"""The numbers of a chain: those of each tensor that are needed, and those that the expressions of a step read.

Uses traces, rules and where numbers were made (`proof.provenance`); nothing of bounds and spreadsheets.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.export.selections import FOLLOWING
from convscope.expr.call import Call, Cell, Kind, cell_label
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.ops import OPS
from convscope.proof.calls import call_of
from convscope.proof.provenance import provenance
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

UPDATE = "convscope::"
"""The beginning of the name of every optimizer's operation."""
TABLED = 1_000_000
"""Cells of an operand up to which the origin of all of them is looked up at once."""


class Key(NamedTuple):
    """A tensor of the trace: a result of a step, a parameter, a constant, an input, or a setting of an optimizer."""

    kind: Kind
    name: str
    output: int = 0


@dataclass(eq=False)
class Numbers:
    """The numbers of one tensor that are needed."""

    key: Key
    shape: tuple[int, ...]
    flat: Array
    """Their places in the flattened tensor, ascending, int64, (n,)."""
    recorded: Array
    """float64, (n,)."""
    step: Step | None = None
    of_parameter: bool = False
    """Whether they belong to a parameter: its own, its gradient, its new value, the optimizer's state of it."""
    live: Array = field(default_factory=lambda: np.empty(0))
    """Calculated from the image in float64, (n,)."""
    bound: Array = field(default_factory=lambda: np.empty(0))
    """How far `live` may be from `recorded`, (n,); 0 for inputs."""

    def __post_init__(self) -> None:
        self.live, self.bound = self.recorded.copy(), np.zeros(len(self.flat))

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def calculated(self) -> bool:
        """Whether they are formulas; otherwise they are inputs, and can be changed."""
        return self.step is not None and not self.step.overridden and self.step.role != "random"

    @cached_property
    def cells(self) -> Array:
        """Their cells, (n, axes)."""
        return cells_at(self.flat, self.shape)

    @property
    def updated(self) -> str:
        """The parameter whose update they are a result of, including the optimizer's state; else empty."""
        return self.step.arguments["param"].name if self.step is not None and self.step.op.startswith(UPDATE) else ""

    def label(self, index: int) -> str:
        """The label of one of them: `conv1 (3, 10, 12)`."""
        cell = tuple(map(int, self.cells[index]))
        return f"{self.key.name} {cell_label(cell, self.shape)}" if cell else self.key.name


def cells_at(flat: Array, shape: tuple[int, ...]) -> Array:
    """Places in a flattened tensor as cells, (n, axes); a tensor without axes has one, ().

    >>> cells_at(np.array([5]), (2, 3)).tolist(), cells_at(np.array([0]), ()).shape
    ([[1, 2]], (1, 0))
    """
    return np.stack(np.unravel_index(flat, shape), axis=-1) if shape else np.empty((len(flat), 0), np.int64)


class StepReader:
    """One step's expressions, and the origins of their inputs."""

    def __init__(self, trace: Trace, step: Step, budget: list[int]) -> None:
        self.trace, self.step = trace, step
        self._room = budget  # how many more numbers may be kept, shared by all steps
        self._kept: dict[tuple[int, int], Expr] = {}
        self.calls: dict[int, Call] = {}
        self.refs: dict[str, Ref] = {
            name if step.arguments[name] is ref else f"{name}.{position}": ref for name, position, ref in step.refs()
        }
        self._tables: dict[str, tuple[Key, Array] | None] = {}
        self._strides = {
            name: np.array([math.prod(ref.shape[axis + 1 :]) for axis in range(len(ref.shape))], np.int64)
            for name, ref in self.refs.items()
        }
        self._read: dict[Ref, dict[Key, None]] = {}

    def expression(self, numbers: Numbers, index: int) -> Expr:
        """The expression of a calculated number, as its rule gives it."""
        key = numbers.key.output, index
        if key not in self._kept:
            expr = self._rule(numbers.key.output, tuple(map(int, numbers.cells[index])))
            self._room[0] -= sum(1 if isinstance(part, Leaf) else len(part) for part in parts_read(expr))
            if self._room[0] < 0:
                return expr
            self._kept[key] = expr
        return self._kept[key]

    def _rule(self, output: int, cell: Cell) -> Expr:
        step = self.step
        if step.op not in OPS:
            raise UsageError(f"no rule explains {step.op!r}.")
        rule = FOLLOWING.get(step.op, OPS[step.op].rule)
        for name in OPS[step.op].selected_by if step.op not in FOLLOWING else ():
            ref = step.arguments.get(name)
            if isinstance(ref, Ref) and (ref.kind == "step" or name == "target"):
                raise UsageError(f"it selects numbers by {ref.name}, and a formula would not follow another selection.")
        if output not in self.calls:
            self.calls[output] = call_of(self.trace, step, output)
        return rule(self.calls[output], cell)

    def origin_keys(self, ref: Ref) -> list[Key]:
        """The tensors that an argument was made in, as far as expressions have read it."""
        return [*self._read.get(ref, {})]

    def origins(self, part: Leaf | Cells) -> Iterator[tuple[Key, Array, Array]]:
        """The origins of a part of an expression: tensor, which of its numbers, and their flat positions."""
        ref = self.refs.get(part.source.argument)
        if ref is None:
            raise UsageError(f"it reads {part.source.name}, which has no cells.")
        if isinstance(part, Leaf):
            cells, part_indices = np.asarray([part.cell], np.int64).reshape(1, -1), np.arange(1)
        else:
            part_indices = np.arange(len(part)) if part.inside is None else np.flatnonzero(part.inside)
            cells = part.cells[part_indices]
        table = self._table(part.source.argument, ref)
        if table is not None:
            flat = cells @ self._strides[part.source.argument]
            self._read.setdefault(ref, {})[table[0]] = None
            yield table[0], part_indices, table[1][flat]
            return
        for key, among, flat in _origins(self.trace, ref, cells):
            self._read.setdefault(ref, {})[key] = None
            yield key, part_indices[among], flat

    def _table(self, argument: str, ref: Ref) -> tuple[Key, Array] | None:
        """The origin of every cell of an operand, where that is one tensor and not too large."""
        if argument not in self._tables:
            self._tables[argument] = None
            size = math.prod(ref.shape)
            if 0 < size <= TABLED:
                cells = cells_at(np.arange(size), ref.shape)
                parts = [*_origins(self.trace, ref, cells)]
                if len(parts) == 1:
                    self._tables[argument] = parts[0][0], parts[0][2][np.argsort(parts[0][1])]
        return self._tables[argument]


def _origins(trace: Trace, ref: Ref, cells: Array) -> Iterator[tuple[Key, Array, Array]]:
    for part in provenance(trace, ref, cells):
        source, source_cells = part.source, part.cells
        if source.kind not in {"step", "parameter", "constant", "input"}:
            raise UsageError(f"{source.name} has no cells.")
        flat = (
            np.ravel_multi_index(tuple(source_cells.T), source.shape)
            if source_cells.shape[1]
            else np.zeros(len(source_cells), np.int64)
        )
        yield Key(source.kind, source.name, source.output), part.which, flat


def parts_read(expr: Expr) -> Iterator[Leaf | Cells]:
    """The numbers that an expression reads from tensors."""
    match expr:
        case Leaf():
            inner: Iterable[Any] = ()
            if expr.source.kind != "number":
                yield expr
        case Dot():
            inner = [part for part in (expr.left, expr.right, expr.bias) if part is not None]
        case Apply():
            inner = expr.arguments.values()
    for part in inner:
        if not isinstance(part, Cells):
            yield from parts_read(part)
        elif part.derive is not None:
            for derived in derived_from(part):
                yield from parts_read(derived)
        elif part.source.kind != "number":
            yield part


def derived_from(cells: Cells) -> list[Expr]:
    """The expressions of intermediate numbers, such as the losses of pairs that a loss adds.

    Raises:
        UsageError: they depend on other intermediate numbers.
    """
    assert cells.derive is not None
    derived = [cells.derive(index) for index in range(len(cells))]
    if any(_derives(expr) for expr in derived):
        raise UsageError("it depends on intermediate numbers that have no cell.")
    return derived


def _derives(expr: Expr) -> bool:
    """Whether an expression reads intermediate numbers."""
    match expr:
        case Leaf():
            return False
        case Dot():
            parts: Iterable[Any] = [expr.left, expr.right, expr.bias]
        case Apply():
            parts = expr.arguments.values()
    return any(
        part.derive is not None if isinstance(part, Cells) else part is not None and _derives(part) for part in parts
    )


def settings_read(expr: Expr, step: Step) -> Iterator[Leaf]:
    """The optimizer's settings that an update reads: its learning rate, its momentum, ..."""
    match expr:
        case Leaf():
            if expr.source.kind == "number" and expr.source.name in step.arguments:
                yield expr
        case Apply():
            for part in expr.arguments.values():
                if not isinstance(part, Cells):
                    yield from settings_read(part, step)


def unwritable(numbers: Numbers, index: int, error: UsageError) -> UsageError:
    """Why a number cannot be written, with its name and its operation."""
    assert numbers.step is not None
    return UsageError(f"{numbers.label(index)} ({numbers.step.op}) cannot be written as a formula: {error}")
