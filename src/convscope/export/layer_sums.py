"""Layer sums: the output size, multiply-adds, memory and receptive field of a recorded step, each as a formula.

The formulas are PyTorch's documented ones, computed from a step's arguments alone, so that a size can be compared with
the recorded one. A receptive field is carried forward from the image: along an axis of it, each number sees the cells
from `jump·position + first` to `jump·position + last`, and a window of k cells widens that by (k - 1)·jump. What this
does not describe (an up-sampling, a shuffle) has no field here; the probe `receptive_field` follows the exact cells
instead. Uses traces; no torch, no numbers of tensors.

Source: A. Araujo, W. Norris, J. Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill, 2019.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convscope.export.field_rules import FieldReach, State, rule_of
from convscope.layer_arithmetic import (
    NOTHING,
    AxisSums,
    Shape,
    Sum,
    convolution_cost,
    multiplied,
    product,
    product_cost,
    reshape_sums,
    transposed_size,
    window_size,
)
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace


def size_sums(step: Step) -> AxisSums:
    """How the size of a step's result follows from its input; empty if it is the input's size or a layer's setting."""
    rule = SIZES.get(step.op)
    return rule(step) if rule is not None and step.arguments else ()


def _convolution(step: Step) -> AxisSums:
    shape, kernel = _shape(step, "input"), _shape(step, "weight")[2:]
    stride, padding, dilation = (_per_axis(step, name, len(kernel)) for name in ("stride", "padding", "dilation"))
    spatial = zip(shape[-len(kernel) :], kernel, stride, padding, dilation, strict=True)
    first = len(shape) - len(kernel)
    if step.arguments.get("transposed"):
        more = _per_axis(step, "output_padding", len(kernel))
        sums = [transposed_size(*numbers, more=extra) for numbers, extra in zip(spatial, more, strict=True)]
    else:
        sums = [window_size(*numbers) for numbers in spatial]
    return tuple(enumerate(sums, first))


def _pooling(step: Step) -> AxisSums:
    shape, axes = _shape(step, "self"), int(step.op.partition("d")[0][-1])
    kernel = _per_axis(step, "kernel_size", axes)
    stride = _per_axis(step, "stride", axes) if step.arguments.get("stride") else kernel
    padding, dilation = (_per_axis(step, name, axes) for name in ("padding", "dilation"))
    ceil = bool(step.arguments.get("ceil_mode"))
    numbers = zip(shape[-axes:], kernel, stride, padding, dilation, strict=True)
    return tuple((len(shape) - axes + i, window_size(*n, ceil=ceil)) for i, n in enumerate(numbers))


def _reshape(step: Step) -> AxisSums:
    return reshape_sums(_shape(step, "self"), step.shape)


def _concatenation(step: Step) -> AxisSums:
    parts = [ref.shape for _, _, ref in step.refs() if ref.shape != (0,)]
    if not parts:
        return ()
    axis = int(step.arguments.get("dim") or 0) % len(parts[0])
    lengths = [part[axis] for part in parts]
    return ((axis, Sum(" + ".join(map(str, lengths)), sum(lengths))),)


def _padding(step: Step) -> AxisSums:
    shape, pad = _shape(step, "self"), list(step.arguments.get("pad") or step.arguments.get("padding") or ())
    pairs = list(zip(pad[::2], pad[1::2], strict=False))  # the last axis first
    sums = []
    for back, (left, right) in enumerate(pairs, 1):
        if left or right:
            n = shape[-back]
            text = "".join(f" {'-' if edge < 0 else '+'} {abs(edge)}" for edge in (left, right))
            sums.append((len(shape) - back, Sum(f"{n}{text}", n + left + right)))
    return tuple(reversed(sums))


def _upsampling(step: Step) -> AxisSums:
    before, after = _shape(step, "self"), step.shape
    grown = [(axis, n) for axis, n in enumerate(before) if axis > 1 and n and after[axis] % n == 0]
    return tuple((axis, Sum(f"{n}·{after[axis] // n}", after[axis])) for axis, n in grown)


def _shuffle(step: Step) -> AxisSums:
    before, r = _shape(step, "self"), int(step.arguments["upscale_factor"])
    channels, rows, columns = before[-3:]
    first = len(before) - 3
    return (
        (first, Sum(f"{channels} / {r}²", channels // r**2)),
        (first + 1, Sum(f"{rows}·{r}", rows * r)),
        (first + 2, Sum(f"{columns}·{r}", columns * r)),
    )


_POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
SIZES: Mapping[str, Callable[[Step], AxisSums]] = {
    "convolution": _convolution,
    **dict.fromkeys(_POOLS, _pooling),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "_reshape_alias"), _reshape),
    "cat": _concatenation,
    **dict.fromkeys(
        ("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"), _padding
    ),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _upsampling),
    "pixel_shuffle": _shuffle,
}
"""Operation -> the calculation of its output size."""


def multiply_adds(step: Step) -> Sum:
    """The multiply-adds of a convolution, matrix product, attention or recurrent layer; 0 for any other operation.

    Each is one multiplication and one addition: PyTorch's FlopCounterMode counts two per multiply-add. Additions of a
    bias are not counted, as there.
    """
    rule = COSTS.get(step.op)
    return rule(step) if rule is not None and step.arguments else NOTHING


def _convolution_cost(step: Step) -> Sum:
    weight, shape = _shape(step, "weight"), step.shape
    if step.arguments.get("transposed"):  # each input cell is spread by a whole kernel
        input_shape = _shape(step, "input")
        per_cell = (*weight[2:], weight[1])
        return multiplied(
            input_shape[len(input_shape) - len(weight) + 1 :],
            per_cell,
            input_shape[: len(input_shape) - len(weight) + 1],
        )
    return convolution_cost(shape, weight)


def _product_cost(left: str) -> Callable[[Step], Sum]:
    """Each cell of a matrix product adds as many products as the left operand is wide."""

    def cost(step: Step) -> Sum:
        return product_cost(step.shape, _shape(step, left)[-1:])

    return cost


def _attention_cost(step: Step) -> Sum:
    query, key, value = (_shape(step, name) for name in ("query", "key", "value"))
    pairs = (*query[:-1], key[-2])
    numbers = query[-1] + value[-1]
    return Sum(f"{product(n for n in pairs if n != 1)} · ({query[-1]} + {value[-1]})", math.prod(pairs) * numbers)


def _recurrent_cost(step: Step) -> Sum:
    weights = [ref.shape for _, _, ref in step.refs() if len(ref.shape) == 2 and ref.kind == "parameter"]
    places = math.prod(step.shape[:-1])
    inside = " + ".join(map(product, weights))
    return Sum(f"{places} · ({inside})", places * sum(map(math.prod, weights)))


COSTS: Mapping[str, Callable[[Step], Sum]] = {
    "convolution": _convolution_cost,
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _product_cost("self")),
    "addmm": _product_cost("mat1"),
    "baddbmm": _product_cost("batch1"),
    "addmv": _product_cost("mat"),
    "linear": _product_cost("input"),
    "_scaled_dot_product_flash_attention_for_cpu": _attention_cost,
    "_scaled_dot_product_flash_attention": _attention_cost,
    "_scaled_dot_product_efficient_attention": _attention_cost,
    "_scaled_dot_product_cudnn_attention": _attention_cost,
    "mkldnn_rnn_layer": _recurrent_cost,
}
"""Operation -> the calculation of its multiply-adds."""


def _shape(step: Step, name: str) -> Shape:
    value = step.arguments.get(name)
    return value.shape if isinstance(value, Ref) else ()


def _per_axis(step: Step, name: str, axes: int) -> list[int]:
    """A setting per axis: one number serves for all."""
    value = step.arguments.get(name)
    usual = {"padding": 0, "output_padding": 0}.get(name, 1)
    listed = value if isinstance(value, list | tuple) else [value]
    numbers = [usual if n is None else int(n) for n in listed] or [usual]
    return numbers * axes if len(numbers) == 1 else numbers


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a forward pass; a view or an in-place operation allocates none."""

    by_step: tuple[int, ...]
    """Bytes of the results that each step allocated, hidden steps included."""
    peak: int
    """The most that is in use at once in evaluation, where a tensor is freed after its last use; weights excluded."""
    peak_at: str
    """The step at which this peak occurs."""

    @property
    def total(self) -> int:
        """Bytes of all results together: the most that training keeps for the backward pass."""
        return sum(self.by_step)


def bytes_of(ref: Ref) -> int:
    """Bytes of a tensor.

    >>> bytes_of(Ref("step", 0, "conv1", shape=(1, 8, 4, 4), dtype="bfloat16"))
    256
    """
    bits = re.search(r"\d+", ref.dtype)
    return math.prod(ref.shape) * (1 if bits is None else max(1, int(bits.group()) // 8))  # bool has one byte


def memory_use(trace: Trace) -> MemoryUse:
    """The memory that the steps of a trace allocate, and how much of it is in use at once."""
    sizes = {ref.memory: bytes_of(ref) for (kind, _), ref in trace.outside.items() if kind == "input"}
    born, last, by_step = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0), []
    elsewhere = {ref.memory for ref in trace.outside.values()} - set(sizes)
    for step in trace.all_steps:
        fresh = {r.memory: bytes_of(r) for r in step.results if r.memory not in sizes and r.memory not in elsewhere}
        sizes |= fresh
        born |= dict.fromkeys(fresh, step.id)
        by_step.append(sum(fresh.values()))
        for ref in (*step.results, *(ref for _, _, ref in step.refs())):
            if ref.memory in sizes:
                last[ref.memory] = step.id
    for ref in trace.returned or ():
        last[ref.memory] = len(trace.all_steps)
    changes = [0] * (len(trace.all_steps) + 2)
    for memory, size in sizes.items():
        changes[born[memory]] += size
        changes[last[memory] + 1] -= size
    peak, peak_at, used = 0, "", 0
    for step in trace.all_steps:
        used += changes[step.id]
        if used > peak:
            peak, peak_at = used, step.name
    return MemoryUse(tuple(by_step), peak, peak_at)


@dataclass(frozen=True, slots=True)
class FieldSum:
    """A receptive field."""

    size: tuple[int, ...]
    """Cells along each spatial axis of the image, including those beyond its border."""
    whole: bool
    """Whether every number sees the whole image."""
    changes: bool
    """Whether this step widens it."""
    text: str
    """How, such as `3 + (3 - 1)·2`."""

    @property
    def extent(self) -> str:
        """A short form: `7x7`, or `whole image`."""
        return "whole image" if self.whole else "x".join(map(str, self.size))

    def __str__(self) -> str:
        if self.whole or not self.text:
            return self.extent
        return f"{self.text} = {self.size[0]}" if len(set(self.size)) == 1 else f"{self.text}: {self.extent}"

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {"size": list(self.size), "whole": self.whole, "text": self.text}


def field_sums(trace: Trace) -> dict[int, FieldSum | None]:
    """The receptive field of each step by its id; None where window arithmetic does not describe it."""
    inputs = [ref for ref in trace.outside.values() if ref.kind == "input"]
    spatial = inputs[0].shape[2:] if len(inputs) == 1 else ()
    start = tuple(FieldReach(0, 0, 1, n, axis, n) for axis, n in enumerate(spatial, 2))
    states, result = dict[int, State | None](), dict[int, FieldSum | None]()
    for step in trace.all_steps:
        before = [(ref, _state(ref, states, start)) for _, _, ref in step.refs()]
        known_states = [state for _, state in before if state not in (None, ())]
        is_unknown = any(state is None for _, state in before)
        state = None if not start or is_unknown or not step.arguments else _after(step, before) if known_states else ()
        states[step.id] = state
        loose = any(reach.loose for reach in state or ())
        result[step.id] = _field(state, known_states) if state and not loose else None
    return result


def _state(ref: Ref, states: Mapping[int, State | None], start: State) -> State | None:
    """The reach of an argument's cells: () for a parameter, None if unknown."""
    if ref.rewritten or ref.output:
        return None
    return start if ref.kind == "input" else states[ref.id] if ref.kind == "step" else ()


def _field(state: State, before: Sequence[State]) -> FieldSum:
    widened = [reach for reach in state if reach.sum]
    sees_all = all(reach.whole for reach in state)
    sizes = tuple(reach.size for reach in state)
    same = any(sizes == tuple(reach.size for reach in earlier_state) for earlier_state in before)
    changes = not same and not (
        sees_all and any(all(reach.whole for reach in earlier_state) for earlier_state in before)
    )
    return FieldSum(sizes, sees_all, changes, widened[0].sum if widened and changes else "")


def _after(step: Step, before: Sequence[tuple[Ref, State | None]]) -> State | None:
    rule = rule_of(step.op)
    states = [(ref, tuple(replace(reach, sum="") for reach in state or ())) for ref, state in before]
    return rule(step, states) if rule is not None else None
