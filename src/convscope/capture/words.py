"""Words: what an operation is called, with its settings. Knows nothing of steps but what is said of them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Operation(Protocol):
    """What is looked at of a step."""

    @property
    def op(self) -> str:
        """The ATen name."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """By the names of ATen's schema."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """Argument -> parameter."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""


Says = Callable[[Operation], str]


def says(step: Operation) -> str:
    """An operation in words: `convolution 3x3, padding 1`."""
    words = OPERATIONS.get(step.op)
    if words is not None:
        return words(step)
    return str(step.op.rpartition("::")[2].strip("_").replace("_", " "))


def _settings(step: Operation, plain: Mapping[str, Any]) -> str:
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


def _shape_of(step: Operation, argument: str) -> tuple[int, ...]:
    value = step.arguments.get(argument)
    return tuple(getattr(value, "shape", ()))


def _convolution(step: Operation) -> str:
    kernel = "x".join(map(str, _shape_of(step, "weight")[2:]))
    kind = "transposed convolution" if step.arguments.get("transposed") else "convolution"
    return f"{kind} {kernel}" + _settings(step, {"stride": 1, "padding": 0, "dilation": 1, "groups": 1})


def _pooling(kind: str) -> Says:
    def said(step: Operation) -> str:
        kernel = list(step.arguments.get("kernel_size") or ())
        size = "x".join(map(str, kernel if len(kernel) != 1 else kernel * 2))
        stride = list(step.arguments.get("stride") or ())
        return f"{kind} {size}" + _settings(
            step, {"stride": _size(kernel) if stride else "", "padding": 0, "dilation": 1}
        )

    return said


def _linear(argument: str) -> Says:
    def said(step: Operation) -> str:
        inside = _shape_of(step, argument)
        return f"linear {inside[-1]:,} to {step.shape[-1]:,}" if inside and step.parameters else "matrix product"

    return said


def _to(kind: str) -> Says:
    return lambda step: f"{kind} to {'x'.join(map(str, step.shape[1:])) or '1'}"


def _over(kind: str) -> Says:
    def said(step: Operation) -> str:
        axes = step.arguments.get("dim")
        listed = axes if isinstance(axes, list | tuple) else [axes]
        rank = len(_shape_of(step, "self"))
        spatial = sorted(int(a) % rank for a in listed if a is not None) == [2, 3] if rank == 4 else False
        if spatial:
            return f"{kind} over rows and columns"
        return kind if axes is None else f"{kind} over axis {', '.join(map(str, listed))}"

    return said


def _named(name: str) -> Says:
    return lambda _step: name


OPERATIONS: Mapping[str, Says] = {
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
    "_scaled_dot_product_flash_attention_for_cpu": _named("attention"),
    "_scaled_dot_product_flash_attention": _named("attention"),
    "_scaled_dot_product_efficient_attention": _named("attention"),
    "_scaled_dot_product_fused_attention_overrideable": _named("attention"),
    "_scaled_dot_product_attention_math": _named("attention"),
    "add": _named("sum"),
    "mul": _named("product"),
    "cat": _named("joined"),
    "lift_fresh": _named("tensor made without PyTorch's operations"),
}
"""ATen's name -> what is said; whatever is not here is called by its own name."""
