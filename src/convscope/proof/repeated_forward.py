"""Repeated forward: the forward pass of a training step once more, in float64, with some parameters changed.

Each result is dropped as soon as its last reader has used it, and large ones are computed some cells at a time, so that
the pass needs the memory of a few results at a time, not of all of them. Uses traces and the reference.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from convscope.errors import UsageError
from convscope.proof.backward import operands_of
from convscope.proof.final_numbers import final, numbers_of
from convscope.proof.gradient_propagation import addresses_of, layout_of, source_of_operand
from convscope.proof.recomputation import arguments_of, is_large
from convscope.reference.operation import Arguments, Operation
from convscope.reference.partition import CUTS, parts_of
from convscope.reference.parts import Box
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

KINKS: Mapping[str, tuple[str | float, ...]] = {
    "relu": (0.0,), "leaky_relu": (0.0,), "prelu": (0.0,), "elu": (0.0,), "abs": (0.0,), "threshold": ("threshold",),
    "hardtanh": ("min_val", "max_val"), "hardsigmoid": (-3.0, 3.0), "hardswish": (-3.0, 3.0), "clamp": ("min", "max"),
}  # fmt: skip
"""Operation -> the points at which its slope jumps: numbers, or the arguments that contain them."""
JUMPS = frozenset(
    {"round", "floor", "ceil", "trunc", "frac", "sign", "sgn", "heaviside", "fmod", "remainder", "floor_divide"}
)
"""Operations that jump, so a difference across one is not a slope; so does a division that rounds its result."""
KEPT_BYTES = 64_000_000
"""Memory of the roundings that are kept; those of later steps are calculated again for each pass."""
Result = tuple[int, int]
"""A step's id and which of its results."""


class Forward:
    """The forward pass once more, by the reference in float64, with some parameters changed."""

    def __init__(self, trace: Trace, changed: Mapping[Ref, Array], roundings: "Roundings | None" = None) -> None:
        self._trace = trace
        self._new = {ref.id: (ref, value) for ref, value in changed.items()}
        self._roundings = roundings
        self._results: dict[Result, Array] = {}
        self._state = _state_of(trace)
        self.pattern: list[bytes] = []
        """Digests of the active cells of each piecewise linear operation, and of the maxima of each pooling."""

    def loss(self) -> float:
        """The loss.

        Raises:
            UsageError: a step on the way has no reference.
        """
        step = self._trace.training_step
        assert step is not None
        last = last_readers(self._trace)
        for forward_step in self._trace.all_steps[: step.loss.id + 1]:
            changed = {name: array for name, ref in operands_of(forward_step) for array in self._changed(ref)}
            if changed and forward_step.role != "random" and forward_step.id not in self._state:
                self._run(forward_step, changed)
            del changed
            self._results = {key: array for key, array in self._results.items() if last.get(key, -1) > forward_step.id}
        if (step.loss.id, step.loss.output) not in self._results:
            return float(numbers_of(self._trace, step.loss))
        return float(self._results[step.loss.id, step.loss.output])

    def _changed(self, ref: Ref) -> Iterator[Array]:
        """An operand's numbers, if the change reaches it."""
        kind, number, output, layout = source_of_operand(self._trace, ref, partly=True)
        if kind == "step" and layout is not None:
            yield from self._assembled(ref)
        elif kind == "step" and (number, output) in self._results:
            yield self._results[number, output]
        elif kind == "parameter" and number in self._new:
            parameter, value = self._new[number]
            if layout_of(parameter) == layout_of(ref):
                yield value
                return
            memory = np.zeros(int(max(addresses_of(layout_of(tensor)).max() for tensor in (parameter, ref))) + 1)
            memory[addresses_of(layout_of(parameter))] = value
            yield memory[addresses_of(layout_of(ref))]

    def _assembled(self, ref: Ref) -> Iterator[Array]:
        """The numbers of a tensor that several steps wrote into, if the change reaches one of them.

        Raises:
            UsageError: not all of them are recorded.
        """
        writers = [(ref.id, ref.output)] if ref.kind == "step" else []
        writers += [
            (number, result.output)
            for number in ref.rewritten
            for result in self._trace.all_steps[number].results
            if result.memory == ref.memory
        ]
        if not any(writer in self._results for writer in writers):
            return
        numbers = final(self._trace, ref)
        if numbers is None:
            raise UsageError(f"{ref.name} was written into by an operation that no step records.")
        flat, addresses = numbers.astype(np.float64).reshape(-1), addresses_of(layout_of(ref)).reshape(-1)
        for number, output in writers:
            step = self._trace.all_steps[number]
            cells, inside = step.results[output].cells_at(addresses)
            values = self._results.get((number, output), step.outputs[output])
            flat[inside] = values[tuple(cells[inside].T)]
        yield flat.reshape(ref.shape)

    def _run(self, step: Step, changed: Mapping[str, Array]) -> None:
        operation = OPERATIONS.get(step.op)
        if operation is None:
            raise UsageError(f"{step.name} is a {step.op}, which has no reference.")
        arguments = arguments_of(self._trace, step)
        arguments.pop("states", None)  # an LSTM's recorded states would hide what the change does to later ones
        roundings = [] if self._roundings is None else self._roundings.of(step, operation, arguments)
        for name, array in _within_gradient(step, arguments, changed).items():
            argument, _, position = name.partition(".")
            if position:
                items = list(arguments[argument])
                items[int(position)] = array
                arguments[argument] = tuple(items)
            else:
                arguments[name] = array
        for output, (result, rounded) in enumerate(zip_longest(results_of(operation, step, arguments), roundings)):
            if result is not None:
                self._results[step.id, output] = result if rounded is None else result + rounded
                if result.dtype.kind in "iub":
                    self.pattern.append(_digest(result))
        if step.op in JUMPS or arguments.get("rounding_mode") is not None:
            self.pattern.append(_digest(_level(step.op, arguments, self._results[step.id, 0])))
        for kink in KINKS.get(step.op, ()):
            limit = arguments.get(kink) if isinstance(kink, str) else kink
            if limit is not None:
                self.pattern.append(_digest(np.asarray(arguments["self"]) > limit))


def _level(op: str, arguments: Arguments, result: Array) -> Array:
    """What stays the same between two jumps: the number of whole parts, or the result."""
    if op in {"fmod", "remainder"}:
        with np.errstate(all="ignore"):
            return np.asarray((np.asarray(arguments["self"]) - result) / arguments["other"]).round()
    return np.asarray(arguments["self"]) - result if op == "frac" else result


def _within_gradient(step: Step, arguments: Arguments, changed: Mapping[str, Array]) -> Mapping[str, Array]:
    """The changes but for those that have no gradient: the padding row of an embedding is not trained.

    Raises:
        UsageError: the gradients of an embedding are divided by how often each row is read.
    """
    if step.op not in {"embedding", "_embedding_bag"} or "weight" not in changed:
        return changed
    if arguments["scale_grad_by_freq"]:
        raise UsageError(f"{step.name} divides gradients by the frequency of its indices.")
    row, weight = arguments["padding_idx"], changed["weight"]
    if step.op == "embedding" and row >= 0:
        weight = weight.copy()
        weight[row] = arguments["weight"][row]
    return {**changed, "weight": weight}


def _digest(numbers: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).data, digest_size=16).digest()


class _Filled(NamedTuple):
    """Some cells of one result."""

    output: int
    box: Box | None
    """None for all of it."""
    values: Array


def results_of(operation: Operation, step: Step, arguments: Arguments) -> list[Array | None]:
    """What an operation makes of these arguments, which need not be the recorded ones; large results by parts."""
    results = list[Array | None]()
    for output, box, values in _filled(operation, step, arguments):
        results += [None] * (output + 1 - len(results))
        if box is None:
            results[output] = values
            continue
        array = results[output]
        if array is None:
            array = results[output] = np.zeros(step.results[output].shape, values.dtype)
        array[box] = values
    return results


def _filled(operation: Operation, step: Step, arguments: Arguments) -> Iterator[_Filled]:
    if step.position or not is_large(step):
        for output, values in enumerate(_computed(operation, arguments)):
            if values is not None:
                yield _Filled(output, None, values)
        return
    for part in parts_of(step.op, arguments, step.shape):
        outputs = part.outputs or range(len(step.results))
        for output, values in zip(outputs, _computed(operation, part.arguments), strict=False):
            if values is not None:
                box = part.others if output and part.others is not None else part.box
                inside = box[: values.ndim]
                yield _Filled(output, None if all(axis == slice(None) for axis in inside) else inside, values)


def _computed(operation: Operation, arguments: Arguments) -> tuple[Array | None, ...]:
    result = operation.compute(**arguments)
    return result if isinstance(result, tuple) else (result,)


class Roundings:
    """How much the kernels of a forward pass rounded: each recorded number minus the reference's.

    Repeated with these, the forward pass goes through the recorded numbers themselves, at which the gradients were
    calculated. Close to a minimum, or far from zero before a normalization, rounding alone would move these.
    """

    def __init__(self) -> None:
        self._known: dict[int, list[Array | None]] = {}
        self._bytes = 0

    def of(self, step: Step, operation: Operation, arguments: Arguments) -> list[Array | None]:
        """The rounding of each result of a step; None where it is unknown."""
        if step.id in self._known:
            return self._known[step.id]
        recorded, roundings = step.outputs, list[Array | None]()
        for output, box, values in _filled(operation, step, arguments):
            roundings += [None] * (output + 1 - len(roundings))
            if output < len(recorded):
                roundings[output] = _with_part(roundings[output], recorded[output], box, values)
        size = sum(rounding.nbytes for rounding in roundings if rounding is not None)
        if self._bytes + size <= KEPT_BYTES:
            self._known[step.id], self._bytes = roundings, self._bytes + size
        return roundings


def _with_part(known: Array | None, recorded: Array, box: Box | None, exact: Array) -> Array | None:
    """The roundings of a result with those of some more cells; None where they are unknown."""
    part = recorded if box is None else recorded[box]
    if exact.dtype.kind != "f" or exact.shape != part.shape:
        return None
    with np.errstate(all="ignore"):
        rounding = part - exact
    rounding = np.where(np.isfinite(rounding), rounding, 0.0).astype(np.float32)
    if box is None:
        return rounding
    whole = np.zeros(recorded.shape, np.float32) if known is None else known
    whole[box] = rounding
    return whole


# What is the same for all passes of a trace.


def last_readers(trace: Trace) -> dict[Result, int]:
    """The last step of the forward pass that reads each result; the loss is read after all of them."""
    if trace not in _LAST_READERS:
        training_step = trace.training_step
        assert training_step is not None
        loss = training_step.loss
        last: dict[Result, int] = {}
        for step in trace.all_steps[: loss.id + 1]:
            last |= dict.fromkeys(_results_read(trace, step), step.id)
        _LAST_READERS[trace] = last | {(loss.id, loss.output): loss.id + 1}
    return _LAST_READERS[trace]


_LAST_READERS: WeakKeyDictionary[Trace, dict[Result, int]] = WeakKeyDictionary()


def _results_read(trace: Trace, step: Step) -> Iterator[Result]:
    for _, ref in operands_of(step):
        try:
            kind, number, output, layout = source_of_operand(trace, ref, partly=True)
        except UsageError:  # the pass itself says so
            continue
        if kind == "step":
            yield number, output
        if layout is not None:
            yield from ((ref.id, ref.output),) if ref.kind == "step" else ()
            yield from ((writer, 0) for writer in ref.rewritten)


def memory_of(trace: Trace) -> int:
    """About how many bytes a pass takes at its peak: the results that are still to be read, and what a step works with.

    Results are float64, the roundings of a step float32; a view has the memory of what it shows. An operation that is
    not computed by parts makes about two more arrays of all that it reads and makes.
    """
    training_step = trace.training_step
    assert training_step is not None
    owner, live, peak = dict[Result, Result](), dict[Result, int](), 0
    last = dict[Result, int]()
    reads = {step.id: [*_results_read(trace, step)] for step in trace.all_steps[: training_step.loss.id + 1]}
    for step in trace.all_steps[: training_step.loss.id + 1]:
        for index in range(len(step.results)):
            first = reads[step.id][:1] if step.view else []
            owner[step.id, index] = owner.get(first[0], first[0]) if first else (step.id, index)
        last |= {owner.get(read, read): step.id for read in reads[step.id]}
    reached = set[int]()
    for step in trace.all_steps[: training_step.loss.id + 1]:
        if not any(ref.kind == "parameter" for *_, ref in step.refs()) and not reached.intersection(
            number for number, _ in reads[step.id]
        ):
            continue
        reached.add(step.id)
        cells = [math.prod(result.shape) for result in step.results]
        live |= {(step.id, i): 8 * n for i, n in enumerate(cells) if owner[step.id, i] == (step.id, i)}
        work = 4 * sum(cells)
        if step.op not in CUTS and not step.view:
            work += 16 * (sum(cells) + sum(math.prod(ref.shape) for *_, ref in step.refs()))
        peak = max(peak, sum(live.values()) + work)
        live = {key: size for key, size in live.items() if last.get(key, -1) > step.id}
    return peak


def _state_of(trace: Trace) -> frozenset[int]:
    """The steps that write the model's own state, without a gradient: spectral norm's estimates of singular vectors.

    The gradient takes a model's state as a constant, so it stays as recorded while weights change, like a mask.
    """
    step = trace.training_step
    assert step is not None
    buffers = {
        ref.memory for ref in trace.outside.values() if ref.kind == "parameter" and ref.name not in step.gradients
    }
    differentiated = {result.id for node in step.nodes for result, _ in node.received}
    return frozenset(
        forward_step.id
        for forward_step in trace.all_steps[: step.loss.id]
        if forward_step.id not in differentiated and any(result.memory in buffers for result in forward_step.results)
    )
