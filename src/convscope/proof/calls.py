"""Calls: a recorded step as the rules see it. Knows traces, rules and what kernels do with padding."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from convscope.expr.call import Call, Operand, Source
from convscope.ops import OPS
from convscope.proof.padding import multiplies_padding
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace

DRAWN = frozenset(
    {
        "bernoulli", "cauchy", "empty", "empty_like", "empty_strided", "exponential", "geometric", "log_normal",
        "multinomial", "new_empty", "new_empty_strided", "normal", "normal_functional", "poisson", "rand", "rand_like",
        "randint", "randint_like", "randn", "randn_like", "random", "randperm", "uniform",
    }
)  # fmt: skip
"""Operations whose numbers are drawn at random, or were never written: recorded, not calculated."""

LAID_OUT = frozenset({"batch_norm", "native_batch_norm", "_native_batch_norm_legit", "group_norm", "native_group_norm"})
"""Operations whose kernels add in an order that depends on the memory layout of their input, not on an argument."""


def call_of(trace: Trace, step: Step, output: int = 0) -> Call:
    """A step as a `Call`: its arguments with their numbers as they were when it ran.

    Args:
        output: Which result, of a step that has several.
    """
    arguments = {name: _argument(trace, step, name, value) for name, value in step.arguments.items()}
    made = step.results[output]
    rounding = OPS[step.op].rounding if step.op in OPS else "wide"
    return Call(step.op, arguments, made.shape, made.dtype, step.position + output, _extra(trace, step), rounding)


def _argument(trace: Trace, step: Step, name: str, value: Any) -> Any:
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


def _dense(axes: tuple[tuple[int, int], ...]) -> bool:
    """Whether these axes, the fastest last, leave no gap."""
    size, dense = 1, True
    for n, stride in reversed(axes):
        dense, size = dense and (stride == size or n == 1), size * n
    return dense


def _extra(trace: Trace, step: Step) -> Mapping[str, Any]:
    """What no argument says: random numbers, the memory layout of the input, whether a kernel left padding out."""
    if not multiplies_padding(trace, step):
        return {"multiplies padding": False}
    if step.op == "native_dropout":
        return {"mask": Operand.of(step.outputs[1], f"{step.name}, mask", "constant", "bool")}
    if step.op in LAID_OUT:
        return {"layout": layout_of(step.arguments["input"])}
    return MappingProxyType({})
