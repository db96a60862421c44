"""Notation: the calculation of one number as a formula, and as PyTorch code that computes it.

One entry per operation in `CALLS` and `FORMULAS`; tests run every entry. Other operations have no formula and no code.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convscope.traces.step import Ref, Step

Arguments = Mapping[str, Any]
"""Those of a step by name: a `Ref` for a tensor, numbers, lists and texts as the operation's schema in ATen says."""
Cell = Sequence[int]
Call = Callable[[Arguments], "tuple[dict[str, str], str] | None"]
"""Arguments -> the operands by the variable that holds each, and the call; None where this form has no short one."""


def pytorch_code(step: Step, cell: Cell) -> str | None:
    """Code that computes the number, given `trace`; None if the operation has no short call.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(1, 2, 3, padding=1), torch.ones(1, 4, 5))
    >>> print(pytorch_code(trace["conv2d"], (0, 1, 2, 3)))
    step = trace["conv2d"]
    x = torch.tensor(trace.operand(step, "input"))
    weight = torch.tensor(trace.operand(step, "weight"))
    bias = torch.tensor(trace.operand(step, "bias"))
    F.conv2d(x, weight, bias, padding=1)[0, 1, 2, 3]
    """
    notation = CALLS[step.op](step.arguments) if step.op in CALLS else None
    if notation is None or (len(step.results) != 1 and step.op not in FIRST_RESULT):
        return None
    operands, call = notation
    lines = [f"step = trace[{step.name!r}]".replace("'", '"')]
    lines += [f'{name} = torch.tensor(trace.operand(step, "{argument}"))' for name, argument in operands.items()]
    index_text = f"[{', '.join(map(str, cell))}]" if len(cell) else ""
    return "\n".join([*lines, call + index_text])


def formula(step: Step, cell: Cell) -> str | None:
    """The number as a formula with its indices filled in; None if the operation has no formula.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(2, 2, 3, padding=1), torch.ones(2, 4, 5))
    >>> print(formula(trace["conv2d"], (0, 1, 2, 3)))
    out[1, 2, 3] = Σ over c, r, s of in[c, 1 + r, 2 + s] · weight[1, c, r, s] + bias[1]
    """
    write = FORMULAS.get(step.op)
    inner = tuple(cell[1:]) if len(cell) > 1 and step.shape[0] == 1 else tuple(cell)
    text = None if write is None else write(step.arguments, inner)
    return None if text is None else f"out[{', '.join(map(str, inner))}] = {text}"


# Calls


def _short(values: object) -> object:
    """(1, 1) as 1, other lists as tuples."""
    if not isinstance(values, list | tuple):
        return values
    return values[0] if len(set(values)) == 1 else tuple(values)


def _options(arguments: Arguments, defaults: Mapping[str, object]) -> str:
    """The settings that differ from their defaults, as keyword arguments."""
    settings = {name: _short(arguments.get(name, default)) for name, default in defaults.items()}
    return "".join(f", {name}={value}" for name, value in settings.items() if value != defaults[name])


def _present(arguments: Arguments, names: Mapping[str, str]) -> dict[str, str]:
    """The operands that are tensors: variable -> argument."""
    return {name: argument for name, argument in names.items() if isinstance(arguments.get(argument), Ref)}


def _convolution(arguments: Arguments) -> tuple[dict[str, str], str]:
    operands = _present(arguments, {"x": "input", "weight": "weight", "bias": "bias"})
    plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    kind = "conv_transpose" if arguments["transposed"] else "conv"
    options = _options(arguments, plain | ({"output_padding": 0} if arguments["transposed"] else {}))
    return operands, f"F.{kind}{len(arguments['stride'])}d({', '.join(operands)}{options})"


def _pooling(name: str, defaults: Mapping[str, object]) -> Call:
    def call(arguments: Arguments) -> tuple[dict[str, str], str]:
        size = _short(arguments["kernel_size"])
        stride = _short(arguments.get("stride") or size)
        more = "" if stride == size else f", stride={stride}"
        return {"x": "self"}, f"F.{name}(x, {size}{more}{_options(arguments, defaults)})"

    return call


def _batch_norm(arguments: Arguments) -> tuple[dict[str, str], str] | None:
    if arguments["training"]:
        return None
    names = {"x": "input", "mean": "running_mean", "var": "running_var", "weight": "weight", "bias": "bias"}
    operands = _present(arguments, names)
    if {"mean", "var"} - operands.keys():
        return None
    affine = "".join(f", {name}={name}" for name in ("weight", "bias") if name in operands)
    return operands, f"F.batch_norm(x, mean, var{affine}, eps={arguments['eps']})"


def _addmm(arguments: Arguments) -> tuple[dict[str, str], str] | None:
    if (arguments.get("beta", 1), arguments.get("alpha", 1)) != (1, 1):
        return None
    return {"bias": "self", "x": "mat1", "weight": "mat2"}, "torch.addmm(bias, x, weight)"


def _one(call: str) -> Call:
    return lambda _: ({"x": "self"}, call)


def _two(sign: str, second_name: str) -> Call:
    def call(arguments: Arguments) -> tuple[dict[str, str], str] | None:
        operands = {"x": "self", "y": second_name}
        is_plain = _present(arguments, operands) == operands and arguments.get("alpha", 1) == 1
        return (operands, f"(x {sign} y)") if is_plain else None

    return call


def _softmax(arguments: Arguments) -> tuple[dict[str, str], str]:
    return {"x": "self"}, f"torch.softmax(x, {arguments['dim']})"


def _reshape(arguments: Arguments) -> tuple[dict[str, str], str]:
    return {"x": "self"}, f"x.reshape({', '.join(map(str, arguments['size']))})"


AVERAGE = {"padding": 0, "ceil_mode": False, "count_include_pad": True, "divisor_override": None}
LARGEST = {"padding": 0, "dilation": 1, "ceil_mode": False}
CALLS: Mapping[str, Call] = {
    "convolution": _convolution,
    "addmm": _addmm,
    "mm": _two("@", "mat2"),
    "bmm": _two("@", "mat2"),
    "max_pool2d_with_indices": _pooling("max_pool2d", LARGEST),
    "max_pool3d_with_indices": _pooling("max_pool3d", LARGEST),
    "avg_pool2d": _pooling("avg_pool2d", AVERAGE),
    "avg_pool3d": _pooling("avg_pool3d", AVERAGE),
    "native_batch_norm": _batch_norm,
    "relu": _one("torch.relu(x)"),
    "tanh": _one("torch.tanh(x)"),
    "sigmoid": _one("torch.sigmoid(x)"),
    "silu": _one("F.silu(x)"),
    "exp": _one("torch.exp(x)"),
    "_softmax": _softmax,
    "view": _reshape,
    "add": _two("+", "other"),
    "mul": _two("*", "other"),
}
FIRST_RESULT = frozenset({"max_pool2d_with_indices", "max_pool3d_with_indices", "native_batch_norm"})
"""Operations of several results whose call gives the first."""


# Formulas


def _plus(start: int, step: int, letter: str) -> str:
    """The position of number `letter` of a window: `1 + 2r`."""
    moving = letter if step == 1 else f"{step}{letter}"
    return moving if start == 0 else f"{start} + {moving}".replace("-", "−")


def _window(arguments: Arguments, places: Cell, size: Sequence[int] | None = None) -> str:
    """The row and column of a window's numbers in the input."""
    count = len(places)
    lists = [arguments.get("stride") or size, arguments.get("padding", 0), arguments.get("dilation", 1)]
    stride, padding, dilation = ([v] * count if isinstance(v, int) else list(v) * (count // len(v)) for v in lists)
    starts = [p * s - q for p, s, q in zip(places, stride, padding, strict=True)]
    return ", ".join(_plus(start, step, letter) for start, step, letter in zip(starts, dilation, "rst", strict=False))


def _convolution_formula(arguments: Arguments, cell: Cell) -> str | None:
    if arguments["transposed"] or arguments["groups"] != 1 or len(cell) != 1 + len(arguments["stride"]):
        return None
    letters = ", ".join("rst"[: len(cell) - 1])
    bias = f" + bias[{cell[0]}]" if isinstance(arguments["bias"], Ref) else ""
    window_text = _window(arguments, cell[1:])
    return f"Σ over c, {letters} of in[c, {window_text}] · weight[{cell[0]}, c, {letters}]{bias}"


def _pool_formula(word: str) -> Callable[[Arguments, Cell], str | None]:
    def write(arguments: Arguments, cell: Cell) -> str | None:
        size = arguments["kernel_size"]
        if len(cell) != 3 or arguments.get("divisor_override"):
            return None
        return f"{word} over r, s of in[{cell[0]}, {_window(arguments, cell[1:], size)}]"

    return write


def _linear_formula(_: Arguments, cell: Cell) -> str | None:
    return f"Σ over i of in[i] · weight[i, {cell[0]}] + bias[{cell[0]}]" if len(cell) == 1 else None


def _norm_formula(arguments: Arguments, cell: Cell) -> str | None:
    if arguments["training"]:
        return None
    c, indices = cell[0], ", ".join(map(str, cell))
    scale_text = f" · weight[{c}]" if isinstance(arguments["weight"], Ref) else ""
    shift_text = f" + bias[{c}]" if isinstance(arguments["bias"], Ref) else ""
    return f"(in[{indices}] − mean[{c}]) / √(var[{c}] + {arguments['eps']:g}){scale_text}{shift_text}".replace(
        "e-", "e−"
    )


def _pointwise(text: str) -> Callable[[Arguments, Cell], str | None]:
    return lambda _, cell: re.sub(r"\bx\b", f"in[{', '.join(map(str, cell))}]", text)


FORMULAS: Mapping[str, Callable[[Arguments, Cell], str | None]] = {
    "convolution": _convolution_formula,
    "addmm": _linear_formula,
    "max_pool2d_with_indices": _pool_formula("the largest"),
    "avg_pool2d": _pool_formula("the mean"),
    "native_batch_norm": _norm_formula,
    "relu": _pointwise("max(0, x)"),
    "tanh": _pointwise("(e^z − e^−z) / (e^z + e^−z), where z = x"),
    "sigmoid": _pointwise("1 / (1 + e^−z), where z = x"),
}
