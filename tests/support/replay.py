"""Replay: each recorded step run again on its recorded operands must give its recorded results, bit for bit."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace

UNDEFINED = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"}
"""What these return was never written."""
DRAWN = {"bernoulli", "rand", "rand_like", "randn", "randn_like", "normal", "uniform", "randint", "randperm"}


def assert_replays(trace: Trace) -> None:
    """Every step, from its operands alone."""
    undefined: set[int] = set()
    for step in trace.all_steps:
        if step.op in UNDEFINED or (step.view and _reads_undefined(step, undefined)):
            undefined.add(step.id)
        elif step.op not in DRAWN and not _reads_undefined(step, undefined):
            for path, (again, recorded) in enumerate(zip(_run(trace, step), step.outputs, strict=True)):
                assert same(array(again), recorded), f"{step} result {path}"


def _reads_undefined(step: Step, undefined: set[int]) -> bool:
    return any(ref.kind == "step" and ref.id in undefined and not ref.rewritten for _, _, ref in step.refs())


def _run(trace: Trace, step: Step) -> list[torch.Tensor]:
    function = function_of(step)
    arguments = {name: _tensors(step.arguments[name], value) for name, value in trace.operands(step).items()}
    for name, kind in (("dtype", str), ("layout", str), ("memory_format", str)):
        if isinstance(arguments.get(name), kind):
            arguments[name] = getattr(torch, arguments[name])
    schema = function._schema.arguments
    result = function(
        *[arguments[a.name] for a in schema if not a.kwarg_only],
        **{a.name: arguments[a.name] for a in schema if a.kwarg_only},
    )
    return [result] if isinstance(result, torch.Tensor) else [r for r in result if isinstance(r, torch.Tensor)]


def function_of(step: Step) -> Any:
    """The ATen overload that a step ran."""
    for name in (step.op, f"{step.op}_"):
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None and step.overload in packet.overloads():
            result = getattr(packet, step.overload)
            if [argument.name for argument in result._schema.arguments] == list(step.arguments):
                return result
    raise AssertionError(f"no ATen function for {step}")


def _tensors(ref: Any, value: Any) -> Any:
    if isinstance(ref, tuple):
        return [_tensors(r, v) for r, v in zip(ref, value, strict=True)]
    if not isinstance(ref, Ref):
        return value
    # kernels add in another order where numbers lie otherwise in memory
    laid = torch.empty_strided(ref.shape, ref.stride, dtype=getattr(torch, ref.dtype))
    plain = torch.from_numpy(value.copy())
    return laid.copy_(plain) if 0 not in ref.stride else plain.to(laid.dtype)


def array(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor as a trace hands it out."""
    narrow = tensor.dtype in {torch.bfloat16, torch.float16}
    result: NDArray[Any] = tensor.detach().float().numpy() if narrow else tensor.detach().numpy()
    return result


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays hold the same bits, but for a NaN's."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def assert_same_output(expected: Any, output: Any) -> None:
    """What a model returned, against what its trace says it did."""
    if isinstance(expected, torch.Tensor):
        assert same(array(expected), output)
    elif hasattr(expected, "items"):
        assert list(expected) == list(output)
        for name, value in expected.items():
            assert_same_output(value, output[name])
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(output)
        for one, other in zip(expected, output, strict=True):
            assert_same_output(one, other)
