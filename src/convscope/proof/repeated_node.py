"""Repeated node: the operations of one node of the backward pass once more, in float64.

A slope such as 1 / (1 − x²) near 1 magnifies what float32 rounds on the way, beyond any bound of the last operation. If
the same operations give the derivative in float64, they are its formula; and if each result is within its own bound,
the difference is their roundings. Uses traces and the reference.
"""

import math

import numpy as np

from convscope.errors import ConvscopeError, UsageError
from convscope.proof.backward import WRITES, operands_of
from convscope.proof.recomputation import arguments_of, recomputed_result
from convscope.proof.tolerance import agree
from convscope.reference.table import OPERATIONS
from convscope.traces.step import BackwardNode, Ref
from convscope.traces.trace import Trace
from convscope.typing import Array

BYTES = 128_000_000
"""Memory of the repeated results, beyond which a node is not repeated."""
CLOSE = 2.0**-30
"""How far float64 may be from the derivative, as a share of its size: far less than float32 rounds."""


def follows_formula(trace: Trace, node: BackwardNode, gradient: Ref, expected: Array, typical: float) -> bool:
    """Whether a node's operations, repeated in float64, give this derivative, and each is recorded within its bound.

    Args:
        trace: Of a training step.
        node: One of its backward pass.
        gradient: One that the node gave.
        expected: float64, its derivative.
        typical: The size of the derivative's numbers.
    """
    if not _is_small(trace, node, gradient):
        return False
    try:
        exact = _Repetition(trace, node).numbers(gradient)
    except (ConvscopeError, ArithmeticError, LookupError, TypeError, ValueError):
        return False
    if exact is None or exact.shape != expected.shape:
        return False
    with np.errstate(all="ignore"):
        close = np.abs(exact - expected) <= CLOSE * (np.abs(expected) + typical)
        return bool((close | (exact == expected) | (np.isnan(exact) & np.isnan(expected))).all())


def _first(node: BackwardNode) -> int:
    """The last of the steps that gave the node what it received."""
    return max((received.id for _, received in node.received), default=-1)


def _is_small(trace: Trace, node: BackwardNode, gradient: Ref) -> bool:
    steps = trace.all_steps[_first(node) + 1 : gradient.id + 1]
    cells = sum(math.prod(result.shape) for step in steps for result in step.results)
    return len(steps) > 1 and 8 * cells <= BYTES


class _Repetition:
    """The results of a node's operations, each repeated when first asked for.

    A slope may be calculated from a result of the forward pass, which is rounded: it is recalculated, too.
    """

    def __init__(self, trace: Trace, node: BackwardNode) -> None:
        self._trace, self._first = trace, _first(node)
        self._forward = {(result.id, result.output) for result, _ in node.received if result.kind == "step"}
        self._results: dict[tuple[int, int], Array] = {}

    def numbers(self, ref: Ref) -> Array | None:
        """The numbers of a tensor; None where they are the recorded ones.

        Raises:
            UsageError: an operation cannot be repeated.
        """
        key = (ref.id, ref.output)
        if ref.kind != "step" or (ref.id <= self._first and not self._is_result(ref)):
            return None
        if key not in self._results:
            self._run(ref)
        if key not in self._results or self._results[key].shape != ref.shape or ref.rewritten:
            raise UsageError(f"{ref.name} cannot be repeated.")
        return self._results[key]

    def _is_result(self, ref: Ref) -> bool:
        """Whether a tensor of the forward pass is the node's result, or the same numbers, saved for later."""
        step = self._trace.all_steps[ref.id]
        source = step.arguments.get("self") if step.op in {"alias", "detach"} else None
        return (ref.id, ref.output) in self._forward or (
            isinstance(source, Ref) and source.kind == "step" and self._is_result(source)
        )

    def _run(self, ref: Ref) -> None:
        step = self._trace.all_steps[ref.id]
        operation = OPERATIONS.get(step.op)
        witness = recomputed_result(self._trace, step, ref.output)
        if operation is None or witness is None or step.position or step.is_complex:
            return
        values, recorded = (array * 1.0 for array in (witness.values, step.outputs[ref.output]))  # also truth values
        if not np.isfinite(witness.bounds).all() or not np.all(agree(values, recorded, witness.bounds, ref.dtype)):
            return
        arguments = arguments_of(self._trace, step)
        forward = (ref.id, ref.output) in self._forward  # its operands are those of the derivative
        for name, operand in () if forward else operands_of(step):
            numbers = None if step.op in WRITES and name == "self" else self.numbers(operand)
            argument, _, position = name.partition(".")
            if numbers is not None and position:
                return
            arguments[argument] = arguments[argument] if numbers is None else numbers
        with np.errstate(all="ignore"):
            results = operation.compute(**arguments)
        for output, result in enumerate(results if isinstance(results, tuple) else (results,)):
            if result is not None:
                self._results[ref.id, output] = result
