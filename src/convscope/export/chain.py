"""Chain: all numbers that some numbers of a trace depend on, recalculated from the image, with propagated bounds.

`explain` uses the recorded inputs of a step; here every number is calculated from calculated numbers, in float64, as a
spreadsheet does. It may then differ from the recorded number by its own bound plus the propagated differences of its
inputs: the *propagated* bound.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from convscope.errors import ConvscopeError, UsageError
from convscope.export.chain_numbers import (
    Key,
    Numbers,
    StepReader,
    cells_at,
    derived_from,
    parts_read,
    settings_read,
    unwritable,
)
from convscope.expr.call import Call
from convscope.expr.expr import Apply, BoundedResult, Cells, Dot, Expr, Leaf
from convscope.expr.precision import Precision, exact_sum
from convscope.expr.primitives import PRIMITIVES
from convscope.ops import convolution
from convscope.proof.provenance import provenance
from convscope.proof.tolerance import agree, mixes, whole_bound
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

CHOICES = frozenset({"clamp_max", "clamp_min", "max", "maximum", "min", "minimum", "relu"})
"""Primitives that choose one of several numbers, so that a small difference may change the choice."""
JUMPS: Mapping[str, str] = {"pass_above": "threshold", "pass_from": "threshold", "leaky_relu_backward": ""}
"""Slopes that jump where x crosses this argument (0 without a name): another x may pass another gradient."""
ALIKE = 2.0**-44
"""Relative difference up to which a spreadsheet may treat numbers as equal, or order them differently."""
KEPT = 2_000_000
"""Expressions with up to this many numbers are cached, about 200 MB; others are rebuilt when needed."""


class Located(NamedTuple):
    """Numbers of an expression: their tensor and their positions in it; -1 is padding."""

    numbers: Numbers
    places: Array


@dataclass(frozen=True, slots=True)
class NearTie:
    """A choice that the calculation from the image may make differently than the recorded pass."""

    name: str
    """The number that is chosen: `pool (3, 5, 5)`."""
    apart: float
    """The recorded distance of the two candidates."""
    allowed: float
    """How far their bounds let them move."""


class Chain:
    """Everything that some numbers depend on, in the order of the pass."""

    def __init__(self, trace: Trace, tensors: Mapping[Key, Numbers], steps: Mapping[int, StepReader]) -> None:
        self.trace, self._steps = trace, steps
        self.tensors = dict(tensors)
        self.settings = self._settings()
        """Name and value of a setting of the optimizer -> where it is."""
        self.tensors |= {numbers.key: numbers for numbers in self.settings.values()}
        trained = trace.training_step.gradients if trace.training_step is not None else {}
        gradients = {ref.name for name, ref in trained.items() if name not in trace.inputs}
        for numbers in self.tensors.values():
            key = numbers.key
            numbers.of_parameter = key.kind == "parameter" or bool(numbers.updated) or key.name in gradients
        self.ties: list[NearTie] = []
        self.finished = False
        """Whether `calculate` has calculated every number."""
        self._located: dict[int, tuple[Leaf | Cells, Located]] = {}  # of one expression, by the identity of its parts

    @property
    def size(self) -> int:
        """How many numbers it has, given ones included."""
        return sum(map(len, self.tensors.values()))

    @property
    def calculated(self) -> list[Numbers]:
        """The tensors with formulas, in the order of the pass."""
        return [numbers for numbers in self.tensors.values() if numbers.calculated]

    def expression(self, numbers: Numbers, index: int) -> Expr:
        """The expression of a calculated number, as its rule gives it."""
        assert numbers.step is not None
        return self._steps[numbers.step.id].expression(numbers, index)

    def _settings(self) -> dict[tuple[str, float], Numbers]:
        """The settings that updates read; those of parameter groups with different values are different tensors."""
        settings: dict[tuple[str, float], Numbers] = {}
        for numbers in self.calculated:
            if numbers.updated and numbers.step is not None:
                for leaf in settings_read(self.expression(numbers, 0), numbers.step):
                    name, value = leaf.source.name, float(leaf.number)
                    key = Key("number", name, sum(setting_name == name for setting_name, _ in settings))
                    settings.setdefault((name, value), Numbers(key, (), np.zeros(1, np.int64), np.array([value])))
        return settings

    def setting(self, numbers: Numbers, leaf: Leaf) -> Numbers | None:
        """Where a number of an update that is not from a tensor is, if it is a setting."""
        return self.settings.get((leaf.source.name, float(leaf.number))) if numbers.updated else None

    def locate(self, numbers: Numbers, part: Leaf | Cells) -> Located:
        """Where the numbers of a part of an expression are."""
        cached = self._located.get(id(part))
        if cached is not None and cached[0] is part:
            return cached[1]
        located = self._locate(numbers, part)
        self._located[id(part)] = part, located
        return located

    def _locate(self, numbers: Numbers, part: Leaf | Cells) -> Located:
        assert numbers.step is not None
        reader = self._steps[numbers.step.id]
        inside = None if not isinstance(part, Cells) else part.inside
        index = np.full(len(part) if isinstance(part, Cells) else 1, -1)
        for key, part_indices, flat in reader.origins(part):
            result = self.tensors[key]
            index[part_indices] = np.searchsorted(result.flat, flat)
            if inside is None or len(part_indices) == int(inside.sum()):
                return Located(result, index)
        raise UsageError("it reads one row of numbers from several tensors.")

    def sources(self, numbers: Numbers, ref: Ref) -> list[Key]:
        """The tensors of the chain that an argument of a calculated number's step was made in."""
        assert numbers.step is not None
        return [key for key in self._steps[numbers.step.id].origin_keys(ref) if key in self.tensors]

    def made(self, ref: Ref) -> tuple[Numbers, Array]:
        """The tensor of the chain that an operand's numbers come from, and the index of each in it."""
        size = math.prod(ref.shape)
        part = provenance(self.trace, ref, cells_at(np.arange(size), ref.shape))[0]
        numbers = self.tensors[Key(part.source.kind, part.source.name, part.source.output)]
        flat = np.ravel_multi_index(tuple(part.cells.T), part.source.shape) if part.source.shape else np.zeros(1, int)
        return numbers, np.searchsorted(numbers.flat, flat)

    def calculate(self, visit: Callable[[Numbers, int, Expr], None] = lambda *_: None) -> None:
        """Calculate every number from the image, with its bound; `visit` is called with each expression on the way."""
        self.ties.clear()
        for numbers in self.calculated:
            assert numbers.step is not None
            call = self._steps[numbers.step.id].calls[numbers.key.output]
            for index in range(len(numbers)):
                expr = self.expression(numbers, index)
                self._located.clear()
                try:
                    self._calculate(numbers, index, expr, call)
                    visit(numbers, index, expr)
                except UsageError as error:
                    raise unwritable(numbers, index, error) from None
        self.finished = True

    def _calculate(self, numbers: Numbers, index: int, expr: Expr, call: Call) -> None:
        walk = _Walk(self, numbers, numbers.label(index), call.precision)
        numbers.live[index] = walk.value(expr)
        value, error = map(float, walk.result(expr))
        bound = whole_bound(value, error, call.precision)
        if mixes(call):
            exact, exact_error = map(float, expr.result(call.precision))
            exact_bound = whole_bound(exact, exact_error, call.precision)
            cell = tuple(map(int, numbers.cells[index]))
            if not agree(value, float(numbers.recorded[index]), exact_bound, call.dtype):
                bound += convolution.normwise(call, cell)
        numbers.bound[index] = math.inf if math.isnan(bound) else bound  # 0 times an input without a bound
        tie = walk.tie(expr) if isinstance(expr, Apply) and expr.function in CHOICES else walk.jumped
        self.ties += [] if tie is None else [tie]


class _Walk:
    """One expression, with calculated numbers instead of recorded ones, or with their errors."""

    def __init__(self, chain: Chain, numbers: Numbers, label: str, precision: Precision) -> None:
        self.chain, self.numbers, self.label, self.precision = chain, numbers, label, precision
        self.jumped: NearTie | None = None
        """The condition under which a gradient is passed, if it may hold in only one of the two calculations."""

    def value(self, expr: Expr) -> float:
        """The value from calculated numbers, in float64."""
        match expr:
            case Leaf():
                return float(self._live(expr)[0])
            case Dot():
                products = self._live(expr.left)
                products = products if expr.right is None else products * self._live(expr.right)
                total = exact_sum(products) * expr.scale / expr.divisor
                return total if expr.bias is None else total + self.value(expr.bias)
            case Apply():
                values = [self._live(a) if isinstance(a, Cells) else self.value(a) for a in expr.arguments.values()]
                with np.errstate(all="ignore"):
                    return float(PRIMITIVES[expr.function].value(*values))

    def result(self, expr: Expr) -> BoundedResult:
        """The value from recorded numbers, and its bound, including the errors of its inputs."""
        match expr:
            case Leaf():
                value, error = expr.result(self.precision)
                return BoundedResult(value, error + float(self._errors(expr)[0]))
            case Dot():
                left = replace(expr.left, errors=self._errors(expr.left))
                right = None if expr.right is None else replace(expr.right, errors=self._errors(expr.right))
                with np.errstate(all="ignore"):
                    value, error = replace(expr, left=left, right=right).result(self.precision)
                if expr.bias is not None:
                    error += self.result(expr.bias).error - expr.bias.result(self.precision).error
                return BoundedResult(value, error)
            case Apply():
                return self._applied(expr)

    def _applied(self, expr: Apply) -> BoundedResult:
        values: list[float | Array] = []
        errors: list[float | Array] = []
        for argument in expr.arguments.values():
            if isinstance(argument, Cells):
                values.append(argument.values.astype(np.float64))
                errors.append(self._errors(argument))
            else:
                value, error = self.result(argument)
                values.append(value)
                errors.append(error)
        primitive = PRIMITIVES[expr.function]
        with np.errstate(all="ignore"):
            result = float(primitive.value(*values))
            try:
                error = float(primitive.error(self.precision, result, values, errors))
                return BoundedResult(
                    result, error + (self._jump(expr, values, errors) if expr.function in JUMPS else 0.0)
                )
            except AssertionError:  # it jumps, as a comparison does, so that no bound follows from inexact arguments
                return BoundedResult(result, math.inf)

    def _jump(self, expr: Apply, values: list[float | Array], errors: list[float | Array]) -> float:
        """Added to the bound where a gradient may be passed in only one of the two calculations: the whole gradient."""
        names = [*expr.arguments]
        position, limit = names.index("x"), names.index(JUMPS[expr.function]) if JUMPS[expr.function] else None
        recorded = float(values[position]) - (0.0 if limit is None else float(values[limit]))
        allowed = float(errors[position]) + (0.0 if limit is None else float(errors[limit]))
        candidates = [self._single(expr.arguments[name]) for name in ("x", JUMPS[expr.function]) if name]
        live = candidates[0] - sum(candidates[1:])
        near = 0 < abs(live) <= ALIKE * max(map(abs, candidates))
        if abs(recorded) > allowed or (not near and np.sign(recorded) == np.sign(live)):
            return 0.0
        self.jumped = NearTie(self.label, abs(recorded), allowed)
        grad = names.index("grad")
        return abs(float(values[grad])) + float(errors[grad])

    def _single(self, part: Leaf | Dot | Apply | Cells) -> float:
        assert not isinstance(part, Cells)
        return self.value(part)

    def tie(self, expr: Apply) -> NearTie | None:
        """The choice of this expression, if other numbers within the bounds may decide it differently."""
        values: list[float] = []
        errors: list[float] = []
        for argument in expr.arguments.values():
            if isinstance(argument, Cells):
                values += argument.values.tolist()
                errors += self._errors(argument).tolist()
            else:
                value, error = map(float, self.result(argument))
                values, errors = [*values, value], [*errors, error]
        values, errors = ([*values, 0.0], [*errors, 0.0]) if expr.function == "relu" else (values, errors)
        sign = -1.0 if expr.function in {"min", "minimum"} else 1.0
        order = sorted(range(len(values)), key=lambda i: -sign * values[i])
        best = order[0]
        for candidate in order[1:]:
            distance, allowed = abs(values[best] - values[candidate]), errors[best] + errors[candidate]
            if 0 < distance <= allowed:  # equal numbers may change places without a difference
                return NearTie(self.label, distance, allowed)
        return None

    def _live(self, part: Leaf | Cells) -> Array:
        if isinstance(part, Cells) and part.derive is not None:
            return np.array([self.value(derived) for derived in derived_from(part)])
        if part.source.kind == "number":
            return np.asarray([part.number]) if isinstance(part, Leaf) else part.values
        located = self.chain.locate(self.numbers, part)
        return np.where(located.places < 0, 0.0, located.numbers.live[located.places])

    def _errors(self, part: Leaf | Cells) -> Array:
        if isinstance(part, Cells) and part.derive is not None:
            return np.array([self.result(derived).error for derived in derived_from(part)])
        if part.source.kind == "number":
            return np.zeros(1 if isinstance(part, Leaf) else len(part))
        located = self.chain.locate(self.numbers, part)
        return np.where(located.places < 0, 0.0, located.numbers.bound[located.places])


def below(trace: Trace, roots: Iterable[tuple[Key, Array]], limit: int, *, everything: bool = False) -> Chain:
    """Everything that some numbers depend on, down to pixels and parameters.

    Args:
        everything: Take all numbers of each step and input involved, including those that nothing reads.
        roots: Tensors, each with the places of some of its numbers in the flattened tensor.
        limit: The maximum number of numbers.

    Raises:
        TooLarge: there are more.
        UsageError: an operation that cannot be explained, or a number that is not finite.
    """
    search = _Search(trace, limit, everything)
    for key, flat in roots:
        search.wanted.setdefault(key, []).append((flat, None))
    tensors = [numbers for step in reversed(trace.all_steps) for numbers in search.step(step)]
    inputs = [numbers for key in [*search.wanted] if (numbers := search.gathered(key)) is not None]
    order = ("input", "parameter", "constant")
    inputs.sort(key=lambda numbers: order.index(numbers.key.kind))
    return Chain(trace, {numbers.key: numbers for numbers in [*inputs, *reversed(tensors)]}, search.readers)


class _Search:
    """The search for everything that some numbers depend on, from the last step to the first."""

    def __init__(self, trace: Trace, limit: int, everything: bool) -> None:
        self.trace, self.limit, self.everything, self.count, self.room = trace, limit, everything, 0, [KEPT]
        self.wanted: dict[Key, list[tuple[Array, Array | None]]] = {}  # places, and their numbers where they were read
        self.readers: dict[int, StepReader] = {}

    def step(self, step: Step) -> Iterator[Numbers]:
        """Collect the needed numbers of a step's results, and mark their inputs as needed."""
        for output in range(len(step.results)):
            numbers = self.gathered(Key("step", step.name, output))
            if numbers is not None:
                yield numbers
                if numbers.calculated:
                    self._read(step, numbers)

    def _read(self, step: Step, numbers: Numbers) -> None:
        reader = self.readers.setdefault(step.id, StepReader(self.trace, step, self.room))
        for index in range(len(numbers)):
            try:
                parts = [*parts_read(reader.expression(numbers, index))]
            except UsageError as error:
                raise unwritable(numbers, index, error) from None
            for part in parts:
                values = np.asarray([part.number]) if isinstance(part, Leaf) else part.values
                for key, part_indices, flat in reader.origins(part):
                    self.wanted.setdefault(key, []).append((flat, values[part_indices]))
        self._count()

    def _count(self) -> None:
        """Join the lists of needed numbers; fail as soon as there are too many."""
        for key, lists in self.wanted.items():
            flat, first = np.unique(np.concatenate([flat for flat, _ in lists]), return_index=True)
            values = [values for _, values in lists if values is not None]  # fewer than lists for a root, a step
            self.wanted[key] = [(flat, np.concatenate(values)[first] if len(values) == len(lists) else None)]
        count = self.count + sum(len(flat) for lists in self.wanted.values() for flat, _ in lists)
        if count > self.limit:
            raise TooLarge(count)

    def gathered(self, key: Key) -> Numbers | None:
        """The numbers of one tensor that are needed so far; they are taken off the list."""
        lists = self.wanted.pop(key, [])
        if not lists:
            return None
        flat, first = np.unique(np.concatenate([flat for flat, _ in lists]), return_index=True)
        step = self.trace[key.name] if key.kind == "step" else None
        if step is not None and step.is_complex:
            raise UsageError(f"{step.name} contains complex numbers, which a spreadsheet cannot represent.")
        if step is not None or (self.everything and key.kind == "input"):
            array = self.trace.inputs[key.name] if step is None else step.outputs[key.output]
            flat = np.arange(array.size) if self.everything else flat
            shape, recorded = array.shape, array.reshape(-1)[flat].astype(np.float64)
        else:
            shape = _outside(self.trace, key)
            recorded = np.concatenate([values for _, values in lists if values is not None])[first].astype(np.float64)
        self.count += len(flat)
        if self.count > self.limit:
            raise TooLarge(self.count)
        if not np.isfinite(recorded).all():
            raise UsageError(f"{key.name} contains nan or infinity, which spreadsheets lack; choose another step.")
        return Numbers(key, shape, flat, recorded, step)


class TooLarge(ConvscopeError):
    """More numbers are needed than allowed."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"at least {count:,} numbers are needed.")


def _outside(trace: Trace, key: Key) -> tuple[int, ...]:
    """The shape of a parameter, a constant or an input."""
    return next(ref.shape for (kind, _), ref in trace.outside.items() if (kind, ref.name) == (key.kind, key.name))
