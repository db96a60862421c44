"""Backward: following one number's weight through every step to the image. Uses traces, rules and the reference.

The vector-Jacobian products in `OPS` turn a weight on a result into weights on its operands and a constant.
Memory that was written into later is followed by address, so that views and operations in place come out right.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from convscope.errors import PluginError, UsageError
from convscope.expr.call import Cell
from convscope.expr.precision import OUR_OWN, Precision
from convscope.ops import OPS, Op
from convscope.ops.resampling import ANTIALIASING
from convscope.ops.source_cells import MOVES, SOURCES
from convscope.ops.vjp import VJP
from convscope.progress import Progress, silent
from convscope.proof.calls import call_of
from convscope.proof.recomputation import recomputed
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.type_checks import kind_of
from convscope.typing import Array

CONVERTS = frozenset({"_to_copy"})
"""Operations that round numbers to another type, as the reference does."""
WRITES = frozenset({"copy", "fill", "zero", "normal", "uniform", "exponential", "random"})
"""Operations whose first operand says only where to write."""
GIVEN = ("value", "start", "end", "mean", "std")
"""Numbers that `fill`, `linspace` and `normal` may be given as tensors."""
KERNEL_POSITIONS = frozenset(
    {"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", *ANTIALIASING}
)
"""Operations followed from where the kernel finds them in float32, while the reference calculates in float64."""
Result = tuple[int, int]
"""A step's id and which of its results."""


@dataclass(slots=True)
class Backward:
    """The weights that remain to be followed, and the contributions collected so far."""

    trace: Trace
    varies: frozenset[Result]
    ops: Mapping[str, Op] = field(default_factory=lambda: OPS)
    weights: dict[Result, Array] = field(default_factory=dict)
    """On results that are still to be followed."""
    tainted: Mapping[Result, frozenset[str]] = field(default_factory=dict)
    """The results that depend on numbers which left PyTorch, each with the steps that take those."""
    inputs: dict[str, Array] = field(init=False)
    """On the cells of each input."""
    constant: float = 0.0
    bound: float = 0.0
    """Bound of recorded minus exact results, each times its weight."""
    rounding: float = 0.0
    """Recorded minus recomputed results, each times its weight."""
    slack: float = 0.0
    """Error of that difference, because reference and vector-Jacobian products are evaluated in float64."""
    bent: list[str] = field(default_factory=list)
    counts_rounding: bool = True
    """Whether to recompute each step on the way, for `bound`, `rounding` and `slack`."""
    broken: list[str] = field(default_factory=list)
    """Steps that take numbers which left PyTorch, and on which weights fall."""

    def __post_init__(self) -> None:
        self.inputs = {name: np.zeros(array.shape) for name, array in self.trace.inputs.items()}


def backward(
    trace: Trace, step: Step, cell: Cell, output: int = 0, *, ops: Mapping[str, Op] = OPS, progress: Progress = silent
) -> Backward:
    """Follow one number of a step to the inputs.

    Args:
        cell: A full index of the step's result.
        progress: Receives how many steps are done.

    Raises:
        UsageError: a step on the way has no vector-Jacobian product, or cannot be followed.
    """
    flow = Backward(trace, varying(trace, step.id), ops)
    flow.tainted = broken_before(trace, step.id)
    flow.weights[step.id, output] = one_at(step, cell, output)
    for step_id in range(step.id, -1, -1):
        progress("following the number back", step.id - step_id, step.id + 1)
        earlier = trace.all_steps[step_id]
        for index in range(len(earlier.results)):
            weights = flow.weights.pop((step_id, index), None)
            if weights is not None and weights.any():
                through(flow, earlier, index, weights)
    progress("following the number back", step.id + 1, step.id + 1)
    return flow


def one_at(step: Step, cell: Cell, output: int = 0) -> Array:
    """Weights on a step's result: 1 on a cell, 0 on all others."""
    weights = np.zeros(step.results[output].shape)
    weights[cell] = 1.0
    return weights


def varying(trace: Trace, last: int) -> frozenset[Result]:
    """The results, up to a step, that depend on an input by more than their shape."""
    varies: set[Result] = set()
    for step in trace.all_steps[: last + 1]:
        if is_constant(step) or step.overridden:
            continue
        if any(_varies(varies, ref) for name, ref in operands_of(step) if not (step.op in WRITES and name == "self")):
            varies |= {(step.id, i) for i, result in enumerate(step.results) if _is_number(result)}
    return frozenset(varies)


def is_constant(step: Step) -> bool:
    """Whether a step's results do not depend on the numbers of its operands."""
    return step.role in {"create", "random"} and not any(isinstance(step.arguments.get(n), Ref) for n in GIVEN)


def broken_before(trace: Trace, last: int) -> dict[Result, frozenset[str]]:
    """The results, up to a step, that depend on numbers which left PyTorch, each with the steps that take those."""
    broken: dict[Result, frozenset[str]] = {}
    if not any(step.broken for step in trace.all_steps[: last + 1]):
        return broken
    for step in trace.all_steps[: last + 1]:
        if step.overridden:
            continue
        breaking = frozenset([step.name] if step.broken else [])
        for name, ref in operands_of(step):
            if not (step.op in WRITES and name == "self"):
                breaking |= broken_behind(broken, ref)
        if breaking:
            broken |= {(step.id, index): breaking for index in range(len(step.results))}
    return broken


def broken_behind(broken: Mapping[Result, frozenset[str]], ref: Ref) -> frozenset[str]:
    """The steps behind an operand that take numbers which left PyTorch."""
    writers = [(ref.id, ref.output)] if ref.kind == "step" else []
    return frozenset().union(*(broken.get(result, ()) for result in (*writers, *((w, 0) for w in ref.rewritten))))


def _varies(varies: set[Result] | frozenset[Result], ref: Ref) -> bool:
    if not _is_number(ref):
        return False
    written = any((writer, 0) in varies for writer in ref.rewritten)
    return written or ref.kind == "input" or (ref.kind == "step" and (ref.id, ref.output) in varies)


def _is_number(ref: Ref) -> bool:
    """Whether a tensor holds numbers that may change little by little: fractions, complex ones too."""
    return "float" in ref.dtype or "complex" in ref.dtype


def operands_of(step: Step) -> Iterator[tuple[str, Ref]]:
    """Tensor arguments, as `Call.operands` names them."""
    for name, place, ref in step.refs():
        yield (name if step.arguments[name] is ref else f"{name}.{place}"), ref


def through(flow: Backward, step: Step, output: int, weights: Array) -> None:
    """Propagate weights on one result of a step to its operands, or into the constant if none of them varies."""
    if (step.id, output) in flow.tainted:
        _count_broken(flow, step, output)
    if (step.id, output) not in flow.varies:
        flow.constant += _times(weights, step.outputs[output])
        return
    vjp = flow.ops[step.op].vjp if step.op in flow.ops else None
    if vjp is None or step.is_complex:
        note = " of complex numbers" if step.is_complex else ""
        raise UsageError(
            f"{step.name} is a {step.op}{note}, which has no vector-Jacobian product, so the number cannot be followed "
            "through it; explain it step by step instead."
        )
    refs = {n: r for n, r in operands_of(step) if not (step.op in WRITES and n == "self")}
    varies = frozenset(name for name, ref in refs.items() if _varies(flow.varies, ref))
    pulled = vjp(call_of(flow.trace, step, output, flow.ops), weights, varies)
    if not isinstance(pulled, VJP):
        raise PluginError(f"the vector-Jacobian product of {step.op!r} returns {kind_of(pulled)}, not a VJP.")
    flow.constant += pulled.constant
    if flow.counts_rounding:
        _count_rounding(flow, step, output, weights, pulled)
    if not pulled.linear:
        flow.bent.append(step.name)
    for name, gradient in pulled.gradients.items():
        onto(flow, step, name, refs[name], gradient)


def _count_broken(flow: Backward, step: Step, output: int) -> None:
    """The share of weights that ends here: in the step's own arguments, and in operands that do not vary."""
    if (step.id, output) not in flow.varies:
        flow.broken += sorted(flow.tainted[step.id, output])
        return
    flow.broken += [step.name] if step.broken else []
    for _, ref in operands_of(step):
        flow.broken += [] if _varies(flow.varies, ref) else sorted(broken_behind(flow.tainted, ref))


def _count_rounding(flow: Backward, step: Step, output: int, weights: Array, pulled: VJP) -> None:
    """The bound of this step's rounding in the weighted sum, and the rounding itself."""
    result, recorded = step.results[output], step.outputs[output]
    moved = step.arguments[SOURCES.get(step.op, "self")] if step.op in MOVES else None
    if isinstance(moved, Ref) and moved.dtype == result.dtype:
        return
    witness = recomputed(flow.trace, step, output)
    if witness is None:
        flow.bound = flow.rounding = flow.slack = np.nan
        return
    if step.op in CONVERTS:  # what the reference rounds, too; a recorded number that is another is left over
        lost = witness.values - flow.trace.operand(step, "self").astype(np.float64).reshape(recorded.shape)
        flow.rounding += _times(weights, lost)
        flow.bound += _times(np.abs(weights), np.abs(lost))
    bound = _times(np.abs(weights), np.broadcast_to(witness.bounds, weights.shape))
    precision = Precision.of(result.dtype)
    flow.bound += bound
    with np.errstate(invalid="ignore"):
        flow.rounding += _times(weights, np.where(recorded == witness.values, 0.0, recorded - witness.values))
    flow.slack += 8 * bound * OUR_OWN / max(precision.sum, precision.stored)
    if step.op in KERNEL_POSITIONS:
        followed = float(np.sum(pulled.gradients.get("self", 0.0) * flow.trace.operand(step, "self"))) + pulled.constant
        flow.slack += min(abs(followed - _times(weights, witness.values)), bound)


def onto(flow: Backward, step: Step, name: str, ref: Ref, gradient: Array) -> None:
    """Weights on an operand, to whatever wrote its numbers last."""
    if not ref.rewritten and ref.kind == "step":
        _add(flow.weights, (ref.id, ref.output), gradient)
        return
    cells = np.argwhere(gradient)
    numbers = gradient[tuple(cells.T)]
    addresses = ref.offset + cells @ np.array(ref.stride, np.int64).reshape(-1)
    left = np.ones(len(cells), bool)
    for writer in reversed(ref.rewritten):
        for output, result in enumerate(flow.trace.all_steps[writer].results):
            if result.memory == ref.memory:
                made_cells, hit = result.cells_at(addresses)
                hit &= left
                _add(flow.weights, (writer, output), _scattered(result.shape, made_cells[hit], numbers[hit]))
                left &= ~hit
    _onto_whole(flow, step, name, ref, (cells[left], addresses[left], numbers[left]))


def _onto_whole(flow: Backward, step: Step, name: str, ref: Ref, remaining: tuple[Array, Array, Array]) -> None:
    """The source of cells that no later write covered: the step, the input, or a constant."""
    cells, addresses, numbers = remaining
    if ref.kind == "step":
        _add(flow.weights, (ref.id, ref.output), _scattered(ref.shape, cells, numbers))
    elif ref.kind == "input":
        outside_cells, _ = flow.trace.outside[ref.kind, ref.id].cells_at(addresses)
        np.add.at(flow.inputs[ref.name], tuple(outside_cells.T), numbers)
    else:
        values = flow.trace.operand(step, name.partition(".")[0])
        array = values[int(name.partition(".")[2])] if "." in name else values
        flow.constant += float(np.sum(numbers * array[tuple(cells.T)]))


def _add(weights: dict[Result, Array], result: Result, more: Array) -> None:
    weights[result] = weights[result] + more if result in weights else more


def _scattered(shape: tuple[int, ...], cells: Array, numbers: Array) -> Array:
    if not shape:
        return np.asarray(np.sum(numbers))
    array = np.zeros(shape)
    np.add.at(array, tuple(cells.T), numbers)
    return array


def _times(weights: Array, values: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.sum(np.where(weights == 0, 0.0, weights * values)))
