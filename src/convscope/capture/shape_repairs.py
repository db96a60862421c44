"""Shape repairs: for a call that failed on its shapes, the calculation that went wrong and the changes that may fit.

Each rule takes one failed call and returns options: new arguments for it, or for an earlier layer, as a number that a
user would type. The options are unverified: `shape_trials` runs each of them. Uses torch's functions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from convscope.capture.torch_calls import BINARY, PARAMETERS, Arguments, Change, TorchCall, layer_title


@dataclass(frozen=True, slots=True)
class ShapeRepair:
    """One number to change.

    >>> print(ShapeRepair("fc1", "in_features", 2704))
    fc1: in_features=2704
    """

    where: str
    """A layer, a parameter, or a function such as `view`."""
    setting: str
    value: int | str | tuple[int, ...]

    def __str__(self) -> str:
        if self.setting == "flatten before":
            return f"flatten before {layer_title(self.where)}"
        if isinstance(self.value, tuple) and self.setting == "size":
            return f"{self.where}({', '.join(map(str, self.value))})"
        return f"{layer_title(self.where)}: {self.setting}={self.value}"


@dataclass(frozen=True, slots=True)
class Option:
    """Changes to try: what a user would write, and the arguments of each changed call by its index."""

    repairs: tuple[ShapeRepair, ...]
    changes: Mapping[int, Change]


@dataclass(slots=True, eq=False)
class Diagnosis:
    """The failed calculation of a call, and the changes to try."""

    sum: str
    options: list[Option] = field(default_factory=list)


def diagnosis(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    """The diagnosis of a failed call; None if there is no rule for its function.

    Args:
        call: The failed call.
        before: The calls that ran, in order.
    """
    rule = RULES.get(call.name)
    return rule(call, before) if rule is not None else None


def _linear(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    x, weight = call.tensor("input"), call.tensor("weight")
    if x is None or weight is None or weight.dim() != 2 or not x.dim():
        return None
    out, expected = weight.shape
    received, numbers = x.shape[-1], math.prod(x.shape[1:])
    if received == expected:
        return None
    if x.dim() == 4:
        maps = "·".join(map(str, x.shape[1:]))
        result = Diagnosis(
            f"{call.title} expects {expected:,} numbers; it receives maps of {_size(x)}: {maps} = {numbers:,}"
        )
        flat = (ShapeRepair(call.layer, "flatten before", numbers),)
        if numbers == expected:
            result.options.append(Option(flat, {call.index: lambda a: {**a, "input": a["input"].flatten(1)}}))
        else:
            repairs = (*flat, _weight_repair(call, "in_features", numbers, (out, numbers)))
            result.options.append(
                Option(repairs, {call.index: lambda a: {**_weights(a, (out, numbers)), "input": a["input"].flatten(1)}})
            )
        return result
    result = Diagnosis(f"{call.title} expects {expected:,} numbers, but receives {_origin(x, before)}{received:,}")
    repair = _weight_repair(call, "in_features", received, (out, received))
    result.options.append(Option((repair,), {call.index: lambda a: _weights(a, (out, received))}))
    result.options += _makers(before, "out_features", received, expected)
    return result


def _convolution(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    x, weight, groups = call.tensor("input"), call.tensor("weight"), int(call.arguments.get("groups") or 1)
    if x is None or weight is None or x.dim() < weight.dim() - 1:
        return None
    transposed = "transpose" in call.name
    expected = weight.shape[0] if transposed else weight.shape[1] * groups
    received = x.shape[1 - weight.dim()]
    if received != expected:
        result = Diagnosis(f"{call.title} expects {_channels(expected)}, but receives {received:,}: {_size(x)}")
        if received % groups == 0:
            shape = (
                (received, *weight.shape[1:])
                if transposed
                else (weight.shape[0], received // groups, *weight.shape[2:])
            )
            repair = _weight_repair(call, "in_channels", received, shape)
            result.options.append(Option((repair,), {call.index: lambda a: {**a, "weight": weight.new_zeros(shape)}}))
        result.options += _makers(before, "out_channels", received, expected)
        return result
    kernel = weight.shape[2:]
    return Diagnosis(f"{call.title} has a kernel of {_times(kernel)}, but its input is {_size(x)}")


def _batch_norm(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    names = ("running_mean", "running_var", "weight", "bias")
    return _norm(call, before, "num_features", names)


def _group_norm(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    return _norm(call, before, "num_channels", ("weight", "bias"))


def _norm(call: TorchCall, before: Sequence[TorchCall], setting: str, names: Sequence[str]) -> Diagnosis | None:
    x, setting_tensor = call.tensor("input"), next((t for n in names if (t := call.tensor(n)) is not None), None)
    if x is None or setting_tensor is None or x.dim() < 2 or x.shape[1] == setting_tensor.numel():
        return None
    received, expected = x.shape[1], setting_tensor.numel()

    def widened(arguments: Arguments) -> Arguments:
        fresh = {n: arguments[n].new_ones(received) for n in names if isinstance(arguments.get(n), Tensor)}
        return {**arguments, **fresh}

    result = Diagnosis(f"{call.title} expects {_channels(expected)}, but receives {received:,}: {_size(x)}")
    result.options.append(Option((ShapeRepair(call.layer, setting, received),), {call.index: widened}))
    result.options += _makers(before, "out_channels", received, expected)
    return result


def _layer_norm(call: TorchCall, _before: Sequence[TorchCall]) -> Diagnosis | None:
    x, expected = call.tensor("input"), tuple(call.arguments.get("normalized_shape") or ())
    if x is None or not expected or x.dim() < len(expected):
        return None
    received = tuple(x.shape[-len(expected) :])

    def resized(arguments: Arguments) -> Arguments:
        fresh = {n: arguments[n].new_ones(received) for n in ("weight", "bias") if isinstance(arguments.get(n), Tensor)}
        return {**arguments, **fresh, "normalized_shape": received}

    result = Diagnosis(f"{call.title} normalizes {_times(expected)}, but receives {_times(received)}")
    result.options.append(Option((ShapeRepair(call.layer, "normalized_shape", received),), {call.index: resized}))
    return result


def _binary(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    a, b = call.tensor("input"), call.tensor("other")
    if a is None or b is None:
        return None
    left, right = tuple(a.shape), tuple(b.shape)
    unequal = [
        i for i in range(1, min(len(left), len(right)) + 1) if left[-i] != right[-i] and 1 not in {left[-i], right[-i]}
    ]
    if not unequal:
        return None
    numbers = " and ".join(f"{left[-i]:,} against {right[-i]:,}" for i in reversed(unequal))
    sign = {"add": "+", "sub": "-", "mul": "·", "div": "/"}[call.name]
    result = Diagnosis(f"{_times(left)} {sign} {_times(right)} cannot be calculated cell by cell: {numbers}")
    if call.parameter:  # such as a position embedding
        name = call.passed_as
        parameter_shape, other_shape = (right, left) if name == "other" else (left, right)
        broadcasts = len(parameter_shape) == len(other_shape)
        shape = (
            tuple(1 if m == 1 else o for m, o in zip(parameter_shape, other_shape, strict=True))
            if broadcasts
            else other_shape
        )
        result.options.append(
            Option(
                (ShapeRepair(call.parameter, "shape", shape),),
                {call.index: lambda args: {**args, name: args[name].new_zeros(shape)}},
            )
        )
        return result
    result.options += _sizes_of_layers(before, left, right)
    return result


def _concatenation(call: TorchCall, before: Sequence[TorchCall]) -> Diagnosis | None:
    parts = [part for part in call.arguments.get("tensors") or () if isinstance(part, Tensor)]
    if len(parts) < 2:
        return None
    shapes = [tuple(part.shape) for part in parts]
    other_shape = next((shape for shape in shapes if shape != shapes[0]), shapes[1])
    result = Diagnosis(
        f"{' and '.join(map(_times, shapes))} cannot be concatenated along axis {call.arguments.get('dim') or 0}"
    )
    if len(other_shape) == len(shapes[0]):
        result.options += _sizes_of_layers(before, shapes[0], other_shape)
    return result


def _matmul(call: TorchCall, _before: Sequence[TorchCall]) -> Diagnosis | None:
    a, b = call.tensor("input"), call.tensor("other")
    if a is None or b is None or b.dim() != 2 or call.passed_as != "other" or a.shape[-1] == b.shape[0]:
        return None
    shape = (a.shape[-1], b.shape[1])
    result = Diagnosis(f"{_times(a.shape)} times {_times(b.shape)}: {a.shape[-1]:,} columns but {b.shape[0]:,} rows")
    change = {call.index: lambda args: {**args, "other": args["other"].new_zeros(shape)}}
    result.options.append(Option((ShapeRepair(call.parameter, "shape", shape),), change))
    return result


def _view(call: TorchCall, _before: Sequence[TorchCall]) -> Diagnosis | None:
    x, size = call.tensor("input"), call.arguments.get("size")
    if x is None or not isinstance(size, list | tuple) or not all(isinstance(n, int) for n in size):
        return None
    numbers, requested = x.numel(), math.prod(n for n in size if n != -1)
    shown = ", ".join(map(str, size))
    ratio = (
        f"{numbers:,} / {requested:,} = {numbers / requested:.4g}, not an integer"
        if -1 in size
        else f"{requested:,} are wanted"
    )
    result = Diagnosis(
        f"{call.name}({shown}) receives {'·'.join(map(str, x.shape[1:]))} = {numbers:,} numbers: {ratio}"
    )
    for axis in range(len(size) - 1, 0, -1):
        other_axes = math.prod(n for i, n in enumerate(size) if i != axis and n != -1)
        if other_axes and numbers % other_axes == 0 and size[axis] != -1:
            fitting = tuple(numbers // other_axes if i == axis else n for i, n in enumerate(size))
            change = {call.index: partial(_with, size=fitting)}
            result.options.append(Option((ShapeRepair(call.name, "size", fitting),), change))
    return result


def _pooling(call: TorchCall, _before: Sequence[TorchCall]) -> Diagnosis | None:
    x = call.tensor("input")
    if x is None:
        return None
    axes = int(call.name[-2])
    kernel, stride, padding = (_per_axis(call.arguments.get(n), axes) for n in ("kernel_size", "stride", "padding"))
    stride = stride or kernel
    n, k, s, p = x.shape[-1], kernel[-1], stride[-1], (padding or [0])[-1]
    size = (n + 2 * p - k) // s + 1
    return Diagnosis(f"{call.name} makes ⌊({n} + 2·{p} - {k}) / {s}⌋ + 1 = {size} columns of {_size(x)}: none remain")


RULES: Mapping[str, Callable[[TorchCall, Sequence[TorchCall]], Diagnosis | None]] = {
    "linear": _linear,
    **dict.fromkeys((name for name in PARAMETERS if name.startswith("conv")), _convolution),
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    **dict.fromkeys(BINARY, _binary),
    "matmul": _matmul,
    "cat": _concatenation,
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys((name for name in PARAMETERS if "pool" in name), _pooling),
}
"""Function -> the rule that diagnoses a failed call of it."""


def _makers(before: Sequence[TorchCall], setting: str, present: int, required: int) -> list[Option]:
    """The last layer that made this number of channels or features, changed to make the wanted number."""
    kinds = ("linear",) if setting == "out_features" else ("conv",)
    for call in reversed(before):
        weight = call.tensor("weight")
        if weight is None or not call.name.startswith(kinds):
            continue
        axis = 1 if "transpose" in call.name else 0
        groups = int(call.arguments.get("groups") or 1)
        if weight.shape[axis] * (groups if axis else 1) != present or groups > 1:
            return []
        shape = tuple(required if i == axis else n for i, n in enumerate(weight.shape))
        repair = _weight_repair(call, setting, required, shape)
        return [Option((repair,), {call.index: partial(_weights, shape=shape, out=required)})]
    return []


def _sizes_of_layers(before: Sequence[TorchCall], left: tuple[int, ...], right: tuple[int, ...]) -> Iterator[Option]:
    """Layers before a sum or a concatenation, the last first, changed so that its operands could agree."""
    channels = len(left) > 2 and len(left) == len(right) and left[1] != right[1]
    lengths = zip(reversed(left), reversed(right), strict=False)
    unequal = list(dict.fromkeys(pair for pair in lengths if pair[0] != pair[1]))
    for call in reversed(before):
        weight, groups = call.tensor("weight"), int(call.arguments.get("groups") or 1)
        if weight is None or "transpose" in call.name:
            continue
        if call.name == "linear" and weight.dim() == 2:
            yield from (_wider(call, weight, features) for features in _other_lengths(unequal, weight.shape[0]))
        if not call.name.startswith("conv"):
            continue
        if channels and groups == 1 and weight.shape[0] in {left[1], right[1]}:
            required = left[1] if weight.shape[0] == right[1] else right[1]
            shape = (required, *weight.shape[1:])
            repair = _weight_repair(call, "out_channels", required, shape)
            yield Option((repair,), {call.index: partial(_weights, shape=shape, out=required)})
        kernel = weight.shape[2:]
        padding = _per_axis(call.arguments.get("padding"), len(kernel)) or [0] * len(kernel)
        dilation = _per_axis(call.arguments.get("dilation"), len(kernel)) or [1] * len(kernel)
        same = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        if not channels and same != list(padding):
            value = same[0] if len(set(same)) == 1 else tuple(same)
            yield Option((ShapeRepair(call.layer, "padding", value),), {call.index: partial(_with, padding=same)})
        stride = _per_axis(call.arguments.get("stride"), len(kernel)) or [1] * len(kernel)
        if not channels and set(stride) == {1} and (times := _times_larger(left, right)) > 1:
            yield Option(
                (ShapeRepair(call.layer, "stride", times),), {call.index: partial(_with, stride=[times] * len(kernel))}
            )
        if not channels and set(stride) != {1}:
            yield Option(
                (ShapeRepair(call.layer, "stride", 1),), {call.index: partial(_with, stride=[1] * len(kernel))}
            )


def _wider(call: TorchCall, weight: Tensor, features: int) -> Option:
    """A linear layer that makes another number of features."""
    shape = (features, weight.shape[1])
    repair = _weight_repair(call, "out_features", features, shape)
    return Option((repair,), {call.index: partial(_weights, shape=shape, out=features)})


def _other_lengths(pairs: Iterable[tuple[int, int]], length: int) -> list[int]:
    """For each pair of unequal lengths with `length`, the other one, where broadcasting is not what was meant."""
    return [max(pair) if min(pair) == length else min(pair) for pair in pairs if length in pair and 1 not in pair]


def _times_larger(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """How many times larger one map is than the other along every axis, rounded; 1 if the axes have other ratios."""
    pairs = zip(left[2:], right[2:], strict=False)
    times = {round(max(pair) / max(min(pair), 1)) for pair in pairs}
    return times.pop() if len(times) == 1 else 1


def _weight_repair(call: TorchCall, setting: str, value: int, shape: Sequence[int]) -> ShapeRepair:
    """The setting of a layer, or the shape of a parameter that `forward` uses directly."""
    if call.weight_is_own:
        return ShapeRepair(call.layer, setting, value)
    return ShapeRepair(call.parameter or call.name, "shape", tuple(shape))


def _with(arguments: Arguments, **changed: object) -> Arguments:
    """Arguments with some replaced."""
    return {**arguments, **changed}


def _weights(arguments: Arguments, shape: Sequence[int], out: int = 0) -> Arguments:
    """Arguments with a weight of another shape, and a bias to it."""
    bias = arguments.get("bias")
    fresh = {"bias": bias.new_zeros(out)} if out and isinstance(bias, Tensor) else {}
    return {**arguments, "weight": arguments["weight"].new_zeros(tuple(shape)), **fresh}


def _origin(x: Tensor, before: Sequence[TorchCall]) -> str:
    """The shape of the maps that were flattened to this vector: `16·5·5 = `, or an empty text."""
    for call in reversed(before):
        source = call.tensor("input")
        if call.shape == tuple(x.shape) and source is not None and source.dim() > x.dim():
            lengths = source.shape[1:]
            # one step of a sequence was chosen where the product is another number: nothing was flattened
            return "·".join(map(str, lengths)) + " = " if math.prod(lengths) == x.shape[-1] else ""
        if call.shape != tuple(x.shape):
            break
    return ""


def _per_axis(value: object, axes: int) -> list[int]:
    if isinstance(value, list | tuple):
        return [int(n) for n in value] * (axes if len(value) == 1 else 1)
    return [value] * axes if isinstance(value, int) else []


def _channels(count: int) -> str:
    return f"{count:,} channel{'s' * (count != 1)}"


def _size(x: Tensor) -> str:
    return "x".join(map(str, x.shape[1:]))


def _times(shape: Sequence[int]) -> str:
    shown = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    return "x".join(map(str, shown))
