"""Calls: a recorded step as the rules see it, and whether the kernel multiplied the zeros of its padding.

Padding matters only where a weight is infinite or NaN, since zero times such a weight is NaN. PyTorch has kernels that
multiply padding (a matrix product of unfolded windows) and kernels that leave it out (oneDNN's direct ones); which one
ran depends on shapes, types and processor, so it is inferred from the numbers that it made.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from convscope.errors import ConvscopeError
from convscope.expr.call import Call, Operand, Source
from convscope.ops import OPS, Op
from convscope.reference.operation import Arguments, Operation
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.type_checks import check_rows


def multiplies_padding(trace: Trace, step: Step, arguments: Arguments | None = None) -> bool:
    """Whether a recorded convolution holds nan wherever multiplied padding makes it; True where that shows nowhere.

    A kernel that leaves some of its padding out and multiplies the rest counts as one that leaves it out.

    Args:
        arguments: The step's, by name, where the caller has them already.
    """
    if step.op != "convolution" or step.is_complex:
        return True
    weight = trace.operand(step, "weight") if arguments is None else arguments["weight"]
    if step.arguments["transposed"] or np.isfinite(weight).all():
        return True
    values = trace.operands(step) if arguments is None else arguments
    operation = OPERATIONS[step.op]
    try:
        with_zeros = operation.compute(**values)
        without = operation.compute(**values, multiplies_padding=False)
    except ConvscopeError:
        return True
    differs = np.isnan(with_zeros) & ~np.isnan(without)  # type: ignore[arg-type]  # one result
    return not differs.any() or bool(np.isnan(step.output[differs]).all())


DRAWN = frozenset(
    {
        "bernoulli", "cauchy", "empty", "empty_like", "empty_strided", "exponential", "geometric", "log_normal",
        "multinomial", "new_empty", "new_empty_strided", "normal", "normal_functional", "poisson", "rand", "rand_like",
        "randint", "randint_like", "randn", "randn_like", "random", "randperm", "uniform",
    }
)  # fmt: skip
"""Operations whose numbers are drawn at random, or were never written: recorded, not calculated."""

LAID_OUT = frozenset(
    {
        "batch_norm", "native_batch_norm", "_native_batch_norm_legit", "native_batch_norm_backward", "group_norm",
        "native_group_norm", "native_group_norm_backward", "convscope::running_mean", "convscope::running_var",
    }
)  # fmt: skip
"""Operations whose kernels add in an order that depends on the memory layout of their input, not on an argument."""


SELECTING = frozenset({"kthvalue", "max", "median", "min", "mode", "nanmedian", "sort", "topk"})
"""Operations that select among equal numbers; the recorded index says which received the gradient."""
STRIDED = frozenset({"as_strided", "as_strided_copy", "as_strided_scatter"})
"""Operations that read or write their input's memory by strides of their own."""


def check_tables(function: str, ops: Mapping[str, Op], references: Mapping[str, Operation]) -> None:
    """Refuse tables that are not mappings from names of operations to their rows."""
    if ops is not OPS:
        check_rows(function, "ops", ops, "Op")
    if references is not OPERATIONS:
        check_rows(function, "references", references, "Operation")


def call_of(trace: Trace, step: Step, output: int = 0, ops: Mapping[str, Op] = OPS) -> Call:
    """A step as a `Call`: its arguments with their numbers as they were when it ran.

    Args:
        output: Which result, of a step that has several.
    """
    arguments = {name: _argument(trace, step, name, value) for name, value in step.arguments.items()}
    result = step.results[output]
    rounding = ops[step.op].rounding if step.op in ops else "wide"
    return Call(step.op, arguments, result.shape, result.dtype, step.position + output, _extra(trace, step), rounding)


def _argument(trace: Trace, step: Step, name: str, value: object) -> object:
    if isinstance(value, Ref):
        return Operand(trace.operand(step, name), source_of(value, name))
    if isinstance(value, tuple) and any(isinstance(item, Ref) for item in value):
        arrays = trace.operand(step, name)
        return tuple(
            Operand(array, source_of(item, f"{name}.{place}")) if isinstance(item, Ref) else item
            for place, (item, array) in enumerate(zip(value, arrays, strict=True))
        )
    return value


def source_of(ref: Ref, argument: str = "") -> Source:
    """Where a tensor's numbers are, as expressions name it."""
    return Source(ref.name, ref.kind, ref.shape, ref.dtype, ref.output, argument)


def layout_of(ref: Ref) -> str:
    """The memory layout of a tensor: "contiguous", "channels last", or "other".

    >>> layout_of(Ref("input", 0, "x", shape=(1, 3, 2, 2), stride=(12, 1, 6, 3)))
    'channels last'
    """
    axes = tuple(zip(ref.shape, ref.stride, strict=True))
    if _dense(axes):
        return "contiguous"
    return "channels last" if len(axes) in {4, 5} and _dense((axes[0], *axes[2:], axes[1])) else "other"


def memory_of(ref: Ref) -> tuple[tuple[int, ...], int]:
    """The strides of a tensor and its first cell, in the memory that it shares with others."""
    return ref.stride, ref.offset


def _dense(axes: tuple[tuple[int, int], ...]) -> bool:
    """Whether these axes, the fastest last, leave no gap."""
    size, dense = 1, True
    for n, stride in reversed(axes):
        dense, size = dense and (stride == size or n == 1), size * n
    return dense


def _extra(trace: Trace, step: Step) -> Mapping[str, object]:
    """What no argument says: random numbers, states of a recurrent layer, memory layout, padding left out."""
    if not multiplies_padding(trace, step):
        return {"multiplies padding": False}
    if step.op == "native_dropout":
        return {"mask": Operand.of(step.outputs[1], f"{step.name}, mask", "constant", "bool")}
    if step.op == "mkldnn_rnn_layer":
        return {"states": Operand.of(step.outputs[0], step.name)}
    return _choices(step)


def _choices(step: Step) -> Mapping[str, object]:
    """Memory layouts, and which of several equal numbers was selected."""
    if step.op in LAID_OUT:
        return {"layout": layout_of(step.arguments["input"])}
    if step.op in STRIDED:
        return {"memory": memory_of(step.arguments["self"])}
    if step.op in SELECTING and len(step.results) > 1:
        return {"selected": step.outputs[1]}
    return MappingProxyType({})
