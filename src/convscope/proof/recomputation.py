"""Recomputation: what the NumPy reference says about a recorded step, recomputed when first asked and kept for a while.

Uses traces and the reference; nothing of rules and expressions.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from convscope.errors import ConvscopeError, PluginError
from convscope.proof.calls import LAID_OUT, STRIDED, layout_of, memory_of, multiplies_padding
from convscope.proof.tolerance import agree
from convscope.reference.operation import Arguments, Operation
from convscope.reference.partition import parts_of
from convscope.reference.parts import CELLS, Box
from convscope.reference.precision import wrapped
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array

Cell = tuple[int, ...]

ROUNDOFF = {
    "float64": (2.0**-53, 0.0),
    "float32": (2.0**-24, 0.0),
    "bfloat16": (2.0**-24, 2.0**-8),
    "float16": (2.0**-24, 2.0**-11),
}
"""Recorded type -> the unit roundoffs of its kernel's sums and of its result (see `reference.precision`)."""
RANKED = frozenset({"kthvalue", "max", "median", "min", "mode", "nanmedian", "sort", "topk"})
"""Operations whose second result says where the first one's numbers were; equal numbers compete for a place."""
KEPT = 4
"""Recomputed steps that are kept for each trace: who explains one cell often explains its neighbour."""
KEPT_BYTES = 64_000_000
"""Their memory, beyond which only the last is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Recomputation:
    """One result of a step, recomputed from the step's recorded inputs."""

    values: Array
    """float64, in the shape of the result."""
    bounds: Array
    """Bound of |recorded - values|; broadcasts to `values`."""

    def bound(self, cell: Cell) -> float:
        """How much a recorded number may differ from this one."""
        return float(np.broadcast_to(self.bounds, self.values.shape)[cell])

    def agrees(self, cell: Cell, recorded: float, dtype: str) -> bool:
        """Whether a recorded number of this type is within its bound; nan agrees with nan."""
        return bool(agree(float(self.values[cell]), recorded, self.bound(cell), dtype))


class RecomputedPart(NamedTuple):
    """Some cells of a step's results."""

    box: Box | None
    """Where they are in the first result; None for all of it."""
    others: Box | None
    """Where they are in the other results."""
    results: dict[int, Recomputation]
    """Result -> what the reference gives for them."""

    def box_in(self, output: int, axes: int) -> Box:
        """Where they are in a result with this number of axes."""
        box = self.others if output else self.box
        return (slice(None),) * axes if box is None else box[:axes]


def recomputed(
    trace: Trace,
    step: Step,
    output: int = 0,
    *,
    normwise: bool = False,
    references: Mapping[str, Operation] = OPERATIONS,
) -> Recomputation | None:
    """The reference's result for a step; None if it lacks the operation, or this form of it.

    Args:
        output: Which result, of a step that has several.
        normwise: With the bounds of kernels that mix whole planes, where the operation has such.
        references: Another table of definitions.
    """
    key = (step.id, normwise, references.get(step.op))
    with _KEEPING:
        cache = _KEPT.setdefault(trace, OrderedDict())
        results = cache.get(key)
    if results is None:  # in several threads, each recomputes
        results = recompute(trace, step, normwise=normwise, references=references)
    with _KEEPING:
        cache[key] = results
        cache.move_to_end(key)
        while len(cache) > KEPT or (len(cache) > 1 and sum(map(_bytes, cache.values())) > KEPT_BYTES):
            cache.popitem(last=False)
    return results.get(output)


def recomputed_result(trace: Trace, step: Step, output: int = 0) -> Recomputation | None:
    """As `recomputed`, but of a large step this result alone, some cells at a time, and not kept."""
    if not is_large(step):
        return recomputed(trace, step, output)
    shape = step.results[output].shape
    values, bounds, known = np.zeros(0), np.zeros(()), False
    try:
        for part in recompute_in_parts(trace, step):
            result = part.results.get(output)
            if result is None:
                continue
            box = part.box_in(output, len(shape))
            if result.values.shape == shape:
                return result
            if not known:
                values, known = np.zeros(shape, result.values.dtype), True
            values[box] = result.values
            if result.bounds.any():
                bounds = bounds if bounds.ndim else np.zeros(shape)
                bounds[box] = result.bounds
    except ConvscopeError:
        return None
    return Recomputation(values, bounds) if known else None


def _bytes(results: dict[int, Recomputation]) -> int:
    return sum(result.values.nbytes + result.bounds.nbytes for result in results.values())


_KEEPING = Lock()
_KEPT: WeakKeyDictionary[Trace, OrderedDict[tuple[int, bool, Operation | None], dict[int, Recomputation]]] = (
    WeakKeyDictionary()
)


def recompute(
    trace: Trace, step: Step, *, normwise: bool = False, references: Mapping[str, Operation] = OPERATIONS
) -> dict[int, Recomputation]:
    """Result -> the reference's recomputation; empty if it lacks the operation, or this form of it.

    It has none of complex numbers.
    """
    operation = _operation(step, references)
    if operation is None:
        return {}
    arguments = arguments_of(trace, step)
    try:
        return _settled_ranks(step, _evaluate(operation, step, arguments, normwise=normwise), arguments)
    except ConvscopeError:
        return {}


def recompute_in_parts(
    trace: Trace,
    step: Step,
    *,
    normwise: bool = False,
    cells: int = CELLS,
    references: Mapping[str, Operation] = OPERATIONS,
) -> Iterator[RecomputedPart]:
    """As `recompute`, some cells at a time, so that little memory is needed; nothing where the reference has nothing.

    Raises:
        ConvscopeError: the reference cannot compute one of the parts.
    """
    operation = _operation(step, references)
    if operation is None:
        return
    if not any(math.prod(ref.shape) for ref in step.results):  # nothing to compute
        nothing = {output: Recomputation(np.zeros(ref.shape), np.zeros(())) for output, ref in enumerate(step.results)}
        yield RecomputedPart(None, None, nothing)
        return
    arguments = arguments_of(trace, step)
    if not is_large(step, cells):
        results = _evaluate(operation, step, arguments, normwise=normwise, lean=True)
        yield RecomputedPart(None, None, _settled_ranks(step, results, arguments))
        return
    for part in parts_of(step.op, arguments, step.shape, cells, normwise=normwise):
        results = _evaluate(operation, step, part.arguments, normwise=normwise, lean=True, outputs=part.outputs)
        others = part.box if part.others is None else part.others
        results = _settled_ranks(step, results, part.arguments, others)
        yield RecomputedPart(part.box, others, results)


def is_large(step: Step, cells: int = CELLS) -> bool:
    """Whether a step reads or makes a tensor of more cells than are computed at a time."""
    return any(math.prod(ref.shape) > cells for ref in (*step.results, *(ref for _, _, ref in step.refs())))


def _settled_ranks(
    step: Step, results: dict[int, Recomputation], arguments: Arguments, box: Box | None = None
) -> dict[int, Recomputation]:
    if step.op in RANKED and 1 in results:
        recorded = step.outputs[1] if box is None else step.outputs[1][box]
        results[1] = _settled(results[1], results[0].values, recorded, arguments)
    return results


def _operation(step: Step, references: Mapping[str, Operation]) -> Operation | None:
    return None if step.is_complex else references.get(step.op)


def arguments_of(trace: Trace, step: Step) -> dict[str, Any]:
    """The arguments of the reference: the step's operands, and what its arguments do not contain."""
    arguments = trace.operands(step)
    if step.op == "native_dropout" and arguments["train"]:
        arguments["mask"] = step.outputs[1]  # drawn at random: recorded, not calculated
    if step.op == "mkldnn_rnn_layer":
        arguments["states"] = step.outputs[0]  # each step of a sequence is recomputed from the recorded one before it
    if step.op in LAID_OUT:
        arguments["layout"] = layout_of(step.arguments["input"])
    if step.op in STRIDED:
        arguments["memory"] = memory_of(step.arguments["self"])
    if step.op == "nan_to_num":
        arguments["result_type"] = step.dtype  # its largest number takes the place of an infinity
    if not multiplies_padding(trace, step, arguments):
        arguments["multiplies_padding"] = False
    return arguments


def _evaluate(
    operation: Operation,
    step: Step,
    arguments: Arguments,
    *,
    normwise: bool,
    lean: bool = False,
    outputs: tuple[int, ...] | None = None,
) -> dict[int, Recomputation]:
    outputs = tuple(range(len(step.results))) if outputs is None else outputs
    roundoffs = [ROUNDOFF.get(step.results[output].dtype, (2.0**-24, 0.0)) for output in outputs]
    before = roundoffs[:1] * step.position  # results that are other steps
    made = operation.evaluate(before + roundoffs, normwise=normwise, lean=lean, **arguments)
    if "::" in step.op:
        _check_own(step, outputs, made[step.position :])
    return {
        output: Recomputation(wrapped(one[0], step.results[output].dtype), one[1])
        for output, one in zip(outputs, made[step.position :], strict=False)
        if one is not None
    }


def _check_own(step: Step, outputs: Sequence[int], made: Sequence[tuple[Array, Array] | None]) -> None:
    """Refuse what a definition from elsewhere gives in another shape, or as complex numbers of real ones.

    Raises:
        PluginError: naming both.
    """
    for output, one in zip(outputs, made, strict=False):
        ref = step.results[output]
        if one is not None and one[0].shape != ref.shape:
            raise PluginError(f"the reference of {step.op!r} gives the shape {one[0].shape}; PyTorch gave {ref.shape}.")
        if one is not None and one[0].dtype.kind == "c" and "complex" not in ref.dtype:
            raise PluginError(f"the reference of {step.op!r} gives complex numbers; PyTorch gave {ref.dtype}.")


def _settled(indices: Recomputation, chosen: Array, recorded: Array, arguments: Arguments) -> Recomputation:
    """Indices that the reference leaves open, because equal numbers compete, decided by what they point at.

    A recorded index is right where it points at the number that was chosen and no other index of its row points there
    too. Where it is, it is taken over; elsewhere the reference's own stands, and nothing else will do.

    Args:
        indices: The reference's, with an infinite bound where they are open.
        chosen: The numbers they belong to.
        recorded: The recorded indices, of the same shape.
        arguments: The step's own.
    """
    x, dim = np.asarray(arguments["self"]), arguments.get("dim", -1)
    if not x.ndim or dim is None or recorded.shape != indices.values.shape or recorded.dtype.kind != "i":
        return Recomputation(indices.values, np.zeros(())) if not x.ndim else indices
    dropped = recorded.ndim < x.ndim
    indexed, number = (np.expand_dims(a, dim) if dropped else a for a in (recorded, chosen))
    pointed = np.take_along_axis(x, np.clip(indexed, 0, x.shape[dim] - 1), dim)
    right = (indexed >= 0) & (indexed < x.shape[dim]) & ((pointed == number) | (np.isnan(pointed) & np.isnan(number)))
    row = np.sort(indexed, dim)
    is_repeated = (np.diff(row, axis=dim) == 0).any(dim, keepdims=True)
    right = (right & ~is_repeated).squeeze(dim) if dropped else right & ~is_repeated
    open_ = np.isinf(np.broadcast_to(indices.bounds, recorded.shape))
    return Recomputation(np.where(open_ & right, recorded, indices.values), np.zeros(()))
