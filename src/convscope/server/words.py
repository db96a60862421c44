"""Words: what an operation is called, and how a cell and a sum are read aloud. Knows steps and explanations as given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

AXES: Mapping[int, tuple[str, ...]] = {
    1: ("unit",),
    2: ("token", "feature"),
    3: ("channel", "row", "column"),
}
"""What the axes of a result are, by how many there are without the batch."""
MINUS = "−"


def says(step: Any) -> str:
    """An operation in words: `convolution 3x3, padding 1`."""
    words = OPERATIONS.get(step.op)
    if words is not None:
        return words(step)
    return str(step.op.rpartition("::")[2].strip("_").replace("_", " "))


def _settings(step: Any, plain: Mapping[str, Any]) -> str:
    """The arguments that are not what they are mostly: `, stride 2, padding 1`."""
    said = ""
    for name, usual in plain.items():
        value = step.arguments.get(name)
        short = _size(value)
        if value not in (None, [], ()) and short != str(usual):
            said += f", {name.replace('_', ' ')} {short}"
    return said


def _size(value: Any) -> str:
    """3x3 as it is; 1 for what is the same along both axes, unless it is a kernel."""
    if isinstance(value, list | tuple):
        return str(value[0]) if value and len(set(value)) == 1 else "x".join(map(str, value))
    return str(value)


def _shape_of(step: Any, argument: str) -> tuple[int, ...]:
    value = step.arguments.get(argument)
    return tuple(getattr(value, "shape", ()))


def _convolution(step: Any) -> str:
    kernel = "x".join(map(str, _shape_of(step, "weight")[2:]))
    kind = "transposed convolution" if step.arguments.get("transposed") else "convolution"
    return f"{kind} {kernel}" + _settings(step, {"stride": 1, "padding": 0, "dilation": 1, "groups": 1})


def _pooling(kind: str) -> Callable[[Any], str]:
    def said(step: Any) -> str:
        kernel = list(step.arguments.get("kernel_size") or ())
        size = "x".join(map(str, kernel if len(kernel) != 1 else kernel * 2))
        stride = list(step.arguments.get("stride") or ())
        return f"{kind} {size}" + _settings(
            step, {"stride": _size(kernel) if stride else "", "padding": 0, "dilation": 1}
        )

    return said


def _linear(argument: str) -> Callable[[Any], str]:
    def said(step: Any) -> str:
        inside = _shape_of(step, argument)
        return f"linear {inside[-1]:,} to {step.shape[-1]:,}" if inside and step.parameters else "matrix product"

    return said


def _to(kind: str) -> Callable[[Any], str]:
    return lambda step: f"{kind} to {'x'.join(map(str, step.shape[1:])) or '1'}"


def _over(kind: str) -> Callable[[Any], str]:
    def said(step: Any) -> str:
        axes = step.arguments.get("dim")
        listed = axes if isinstance(axes, list | tuple) else [axes]
        rank = len(_shape_of(step, "self"))
        spatial = sorted(int(a) % rank for a in listed if a is not None) == [2, 3] if rank == 4 else False
        if spatial:
            return f"{kind} over rows and columns"
        return kind if axes is None else f"{kind} over axis {', '.join(map(str, listed))}"

    return said


def _named(name: str) -> Callable[[Any], str]:
    return lambda _step: name


OPERATIONS: Mapping[str, Callable[[Any], str]] = {
    "convolution": _convolution,
    "addmm": _linear("mat1"),
    "mm": _linear("self"),
    "linear": _linear("input"),
    "max_pool2d_with_indices": _pooling("max pooling"),
    "avg_pool2d": _pooling("mean pooling"),
    "adaptive_avg_pool2d": _to("mean pooling"),
    "_adaptive_avg_pool2d": _to("mean pooling"),
    "view": _to("laid out"),
    "_unsafe_view": _to("laid out"),
    "reshape": _to("laid out"),
    "mean": _over("mean"),
    "_softmax": _over("softmax"),
    "_log_softmax": _over("logarithm of softmax"),
    "native_batch_norm": _named("batch norm"),
    "cudnn_batch_norm": _named("batch norm"),
    "_native_batch_norm_legit_no_training": _named("batch norm"),
    "native_layer_norm": _named("layer norm"),
    "native_group_norm": _named("group norm"),
    "native_dropout": _named("dropout"),
    "add": _named("sum"),
    "mul": _named("product"),
    "cat": _named("joined"),
}
"""ATen's name -> what is said; whatever is not here is called by its own name."""


def cell_words(cell: Sequence[int], shape: Sequence[int]) -> str:
    """A cell as it is read aloud.

    >>> cell_words((0, 3, 10, 12), (1, 8, 28, 28)), cell_words((0, 1), (1, 2))
    ('channel 3, row 10, column 12', 'unit 1')
    """
    shown = list(cell[1:]) if len(cell) > 1 and shape[0] == 1 else list(cell)
    names = AXES.get(len(shown))
    if names is None or len(shown) == len(cell) > 1:
        return "cell " + ", ".join(map(str, shown)) if shown else "its only cell"
    return ", ".join(f"{name} {index}" for name, index in zip(names, shown, strict=True))


def aloud(value: float | str) -> str:
    """A number for a sentence, six digits.

    >>> aloud(-0.8692831), aloud("nan")
    ('−0.869283', 'nan')
    """
    text = value if isinstance(value, str) else f"{value:.6g}"
    return text.replace("-", MINUS)


def sentence(found: Mapping[str, Any]) -> str:
    """An explanation in one sentence for a screen reader, from its JSON, not yet cut."""
    where = cell_words(found["cell"], found["shape"])
    head = f"{found['step']['name']}, {where}, is {aloud(found['recorded'])}"
    expr = found["expr"]
    if expr is None:
        return f"{head}; no rule explains it."
    return f"{head}: {_because(expr)}."


def _because(expr: Mapping[str, Any]) -> str:
    if expr["type"] == "leaf":
        return f"the number {aloud(expr['value'])} of {expr['name']}, passed on"
    if expr["type"] == "apply":
        note = expr["note"]
        return f"{note}: {expr['formula']}" if note else str(expr["formula"])
    left, right, bias = expr["left"], expr["right"], expr["bias"]
    count = len(left["values"])
    if count == 0:
        said = "nothing is added"
    elif right is None:
        said = f"the sum of {count:,} {_plural('number', count)} of {left['name']}"
    else:
        said = f"the sum of {count:,} {_plural('product', count)} of {left['name']} and {right['name']}"
    if expr["divisor"] != 1:
        said += f", divided by {aloud(expr['divisor'])}"
    if expr["scale"] != 1:
        said += f", times {aloud(expr['scale'])}"
    return said + (f", plus {aloud(bias['value'])}" if bias is not None else "")


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
