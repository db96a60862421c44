"""Calls: a recorded step as the rules see it. Knows traces, rules and what kernels do with padding."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from convscope.capture import Ref, Step, Trace
from convscope.proof.padding import multiplies_padding
from convscope.rules import Call, Operand, Source

DRAWN = frozenset(
    {
        "bernoulli", "cauchy", "empty", "empty_like", "empty_strided", "exponential", "geometric", "log_normal",
        "multinomial", "new_empty", "new_empty_strided", "normal", "normal_functional", "poisson", "rand", "rand_like",
        "randint", "randint_like", "randn", "randn_like", "random", "randperm", "uniform",
    }
)  # fmt: skip
"""Operations whose numbers are drawn at random, or were never written: recorded, not calculated."""


def call_of(trace: Trace, step: Step, output: int = 0) -> Call:
    """A step as a `Call`: its arguments with their numbers as they were when it ran.

    Args:
        output: Which result, of a step that has several.
    """
    arguments = {name: _argument(trace, step, name, value) for name, value in step.arguments.items()}
    made = step.results[output]
    return Call(step.op, arguments, made.shape, made.dtype, output, _extra(trace, step))


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


def _extra(trace: Trace, step: Step) -> Mapping[str, Any]:
    """The numbers that were drawn at random; whether a kernel left padding out."""
    if not multiplies_padding(trace, step):
        return {"multiplies padding": False}
    if step.op == "native_dropout":
        return {"mask": Operand.of(step.outputs[1], f"{step.name}, mask", "constant", "bool")}
    return MappingProxyType({})
