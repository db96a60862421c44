"""How a step calculates, as data: what a page needs to explain each of its numbers without Python.

The page's own rules (web/src/standalone/arithmetic) cover the operations of small image networks. A step is described
here only if it is one of these, if its operands are embedded tensors, and if all its numbers are finite. What the
NumPy reference says about each number goes with it: a page cannot recompute a step.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from convscope.expr.call import Kind, Source
from convscope.expr.cells import pair
from convscope.expr.expr import number
from convscope.expr.precision import Precision
from convscope.proof.calls import call_of
from convscope.proof.provenance import provenance
from convscope.proof.recomputation import Recomputation, recomputed
from convscope.proof.tolerance import mixes, root_mean_square
from convscope.proof.verification_report import RESOLVED
from convscope.traces.notation import pytorch_code
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

Find = Callable[[Source], "int | None"]
"""A tensor's number among those that are embedded; None if it was left out."""
TYPES = {"float32": np.float32, "float64": np.float64}


class StoredOperand(TypedDict):
    """A tensor that a step reads: where its numbers were made, and in which order they are read."""

    name: str
    kind: Kind
    output: int
    shape: list[int]
    made: list[int]
    """The shape in which they were made."""
    tensor: int
    """Its number among the tensors that are embedded."""
    transposed: bool


Rule = dict[str, object]
"""How a step calculates: the name of the page's rule, its operands and settings."""


class NotEmbedded(Exception):
    """The page cannot calculate this step."""


def arithmetic_of(trace: Trace, step: Step, find: Find) -> dict[str, object] | None:
    """The description of a step; None if the page cannot calculate it.

    Args:
        trace: The pass.
        step: One of its visible steps.
        find: Looks up an embedded tensor.
    """
    if step.dtype not in TYPES or step.overridden or step.broken or step.op not in RULES or trace.changed():
        return None
    output = find(Source(step.name, "step", step.shape, step.dtype))
    if output is None or not np.isfinite(step.output).all():
        return None
    try:
        rule = RULES[step.op](_Operands(trace, step, find), step)
        witness = _witness(trace, step)
    except NotEmbedded:
        return None
    code = pytorch_code(step, ())
    return {"rule": rule, "output": output, "code": code, "size": root_mean_square(step.output), **witness}


class _Operands:
    """The tensors that a step reads, as the page names them."""

    def __init__(self, trace: Trace, step: Step, find: Find) -> None:
        self._trace, self._step, self._find = trace, step, find

    def __call__(self, name: str) -> StoredOperand:
        """A tensor argument: where its numbers were made, and in which order they are read.

        Raises:
            NotEmbedded: they are of several tensors, in another order, not finite, or left out.
        """
        ref = self._step.arguments[name]
        if not isinstance(ref, Ref) or ref.dtype not in TYPES or not math.prod(ref.shape):
            raise NotEmbedded
        source = provenance(self._trace, ref, np.zeros((1, len(ref.shape)), np.int64))[0].source
        tensor_index = self._find(source)
        if tensor_index is None:
            raise NotEmbedded
        array = self._trace.operand(self._step, name)
        made_array = self._made(source)
        parts = provenance(self._trace, ref, np.indices(ref.shape).reshape(len(ref.shape), -1).T)
        if len(parts) != 1 or made_array.size != array.size or not np.isfinite(array).all():
            raise NotEmbedded
        flat = np.ravel_multi_index(tuple(parts[0].cells.T), source.shape)
        transposed = self._transposed(ref, flat)
        if not np.array_equal((made_array.T if transposed else made_array).ravel(), array.ravel()):  # overwritten since
            raise NotEmbedded
        return {
            "name": source.name, "kind": source.kind, "output": source.output, "shape": list(ref.shape),
            "made": list(source.shape), "tensor": tensor_index, "transposed": transposed,
        }  # fmt: skip

    def _made(self, source: Source) -> Array:
        """The numbers of a tensor as they are embedded."""
        if source.kind == "parameter":
            return np.asarray(self._trace.parameters[source.name])
        return self._trace[source.name].output if source.kind == "step" else self._trace.inputs[source.name]

    def _transposed(self, ref: Ref, flat: Array) -> bool:
        """Whether the numbers are read as the transpose of a matrix, and not in their own order."""
        order = np.arange(len(flat))
        if np.array_equal(flat, order):
            return False
        if len(ref.shape) == 2 and np.array_equal(flat.reshape(ref.shape).T.ravel(), order):
            return True
        raise NotEmbedded

    def optional(self, name: str) -> StoredOperand | None:
        """A tensor argument that may be None."""
        return None if self._step.arguments.get(name) is None else self(name)


def _witness(trace: Trace, step: Step) -> dict[str, str | None]:
    """For each number, whether the reference agrees with it within its bound, and whether that bound is narrow.

    Raises:
        NotEmbedded: the reference has no such operation, or the kernel may mix whole planes, which has other bounds.
    """
    recomputation = None if mixes(call_of(trace, step)) else recomputed(trace, step)
    if recomputation is None:
        raise NotEmbedded
    recorded = step.output.astype(np.float64)
    bounds = np.broadcast_to(recomputation.bounds, recorded.shape)
    agrees = ~(np.abs(recomputation.values - recorded) > bounds)
    return {"agrees": _bits(agrees), "resolves": _bits(_narrow(recomputation, recorded, bounds))}


def _narrow(recomputation: Recomputation, recorded: Array, bounds: Array) -> Array:
    exact = (recomputation.values == recorded) & (bounds == 0)
    narrow: Array = exact | (bounds <= RESOLVED * root_mean_square(recorded))
    return narrow


def _bits(mask: Array) -> str | None:
    """One digit for each number; None if all are true."""
    return None if mask.all() else "".join("1" if is_set else "0" for is_set in mask.ravel())


def _convolution(operand: _Operands, step: Step) -> Rule:
    arguments = step.arguments
    axes = len(arguments["stride"])
    return {
        "rule": "transposed" if arguments["transposed"] else "convolution",
        "input": operand("input"), "weight": operand("weight"),
        "bias": operand.optional("bias"), "groups": arguments["groups"], **_sliding(step, axes),
    }  # fmt: skip


def _sliding(step: Step, axes: int, size: tuple[int, ...] | None = None) -> dict[str, list[int]]:
    arguments = step.arguments
    settings = {"stride": arguments["stride"] or size, "padding": arguments["padding"]}
    settings["dilation"] = arguments.get("dilation", 1)
    return {name: list(pair(value, axes)) for name, value in settings.items()}


def _pooling(operand: _Operands, step: Step) -> Rule:
    axes = int(step.op.split("pool")[1][0])
    size = pair(step.arguments["kernel_size"], axes)
    return {"input": operand("self"), "size": list(size), **_sliding(step, axes, size)}


def _largest(operand: _Operands, step: Step) -> Rule:
    return {"rule": "max", **_pooling(operand, step)}


def _mean(operand: _Operands, step: Step) -> Rule:
    counted, divisor = step.arguments["count_include_pad"], step.arguments.get("divisor_override")
    return {"rule": "mean", "counted": counted, "divisor": divisor, **_pooling(operand, step)}


def _linear(operand: _Operands, step: Step) -> Rule:
    if (step.arguments["alpha"], step.arguments["beta"]) != (1, 1):
        raise NotEmbedded
    bias = operand("self")
    if len(bias["shape"]) != 1:
        raise NotEmbedded
    return {"rule": "product", "left": operand("mat1"), "right": operand("mat2"), "bias": bias}


def _product(operand: _Operands, _: Step) -> Rule:
    return {"rule": "product", "left": operand("self"), "right": operand("mat2"), "bias": None}


def _function(operand: _Operands, step: Step) -> Rule:
    return {"rule": "function", "function": step.op, "input": operand("self")}


def _pair(operand: _Operands, step: Step) -> Rule:
    if step.arguments.get("alpha", 1) != 1:
        raise NotEmbedded
    return {"rule": "pair", "function": step.op, "x": operand("self"), "y": operand("other")}


def _whole(operand: _Operands, step: Step) -> Rule:
    image, arguments = operand("self"), step.arguments
    axes = [axis % len(image["shape"]) for axis in arguments["dim"] or range(len(image["shape"]))]
    if arguments["dtype"] is not None:
        raise NotEmbedded
    return {"rule": "whole", "input": image, "axes": axes, "kept": bool(arguments["keepdim"])}


def _normalized(operand: _Operands, step: Step) -> Rule:
    """Batch norm with its running statistics; in training it uses those of a whole batch."""
    arguments = step.arguments
    if arguments["training"] or arguments["running_mean"] is None:
        raise NotEmbedded
    eps = number(arguments["eps"], "eps")
    return {
        "rule": "normalized", "x": operand("input"), "mean": operand("running_mean"), "var": operand("running_var"),
        "weight": operand.optional("weight"), "bias": operand.optional("bias"),
        "eps": eps.value(), "off": float(eps.result(Precision.of(step.dtype)).error),
    }  # fmt: skip


def _moved(operand: _Operands, step: Step) -> Rule:
    return {"rule": "moved", "input": operand("input" if step.op == "dropout" else "self"), "shape": list(step.shape)}


IN_ORDER = frozenset({"view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze"})
"""Operations that give the same numbers in the same order another shape."""
RULES: Mapping[str, Callable[[_Operands, Step], Rule]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _largest,
    "avg_pool2d": _mean,
    "addmm": _linear,
    "mm": _product,
    "mean": _whole,
    "native_batch_norm": _normalized,
    **dict.fromkeys(("add", "sub", "mul"), _pair),
    **dict.fromkeys(("relu", "tanh", "sigmoid"), _function),
    **dict.fromkeys((*IN_ORDER, "dropout"), _moved),
}
"""The operations that the page calculates."""
