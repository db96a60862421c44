"""Titles: what an operation is called, with its settings. Uses the arguments of a step and nothing else of it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class TitledStep(Protocol):
    """The part of a step that a title depends on."""

    @property
    def name(self) -> str:
        """Its name in the trace."""

    @property
    def op(self) -> str:
        """The ATen name."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments by the names of ATen's schema."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """Argument name -> parameter name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""

    @property
    def module_type(self) -> str:
        """Class of the module that ran it."""


Title = Callable[[TitledStep], str]


def plain_title(step: TitledStep) -> str:
    """The ATen name as words: `upsample nearest2d`."""
    return str(step.op.rpartition("::")[2].strip("_").replace("_", " "))


def named(name: str) -> Title:
    """A fixed title."""
    return lambda _step: name


def convolution(step: TitledStep) -> str:
    """`convolution 3x3, stride 2, padding 1`."""
    kernel = "x".join(map(str, _shape_of(step, "weight")[2:]))
    kind = "transposed convolution" if step.arguments.get("transposed") else "convolution"
    return f"{kind} {kernel}" + _settings(step, {"stride": 1, "padding": 0, "dilation": 1, "groups": 1})


def backward(forward: Title) -> Title:
    """`convolution 3x3, backward`: the forward operation's title, which has the same arguments."""
    return lambda step: f"{forward(step)}, backward"


def pooling(kind: str) -> Title:
    """`max pooling 2x2`; the stride only where it differs from the kernel size."""

    def title(step: TitledStep) -> str:
        kernel = list(step.arguments.get("kernel_size") or ())
        size = "x".join(map(str, kernel if len(kernel) != 1 else kernel * 2))
        stride = list(step.arguments.get("stride") or ())
        usual = {"stride": _size(kernel) if stride else "", "padding": 0, "dilation": 1}
        return f"{kind} {size}" + _settings(step, usual)

    return title


def linear(argument: str) -> Title:
    """`linear 72 to 10` with the weights of a layer, `matrix product` of two results."""

    def title(step: TitledStep) -> str:
        inside = _shape_of(step, argument)
        return f"linear {inside[-1]:,} to {step.shape[-1]:,}" if inside and step.parameters else "matrix product"

    return title


def dropout(step: TitledStep) -> str:
    """`dropout 0.2, inactive in evaluation mode`, or `dropout 0.2`."""
    inactive = "" if step.arguments.get("train", True) else ", inactive in evaluation mode"
    return f"dropout {step.arguments['p']:g}{inactive}"


def product(step: TitledStep) -> str:
    """`product`; on the CPU, an active dropout multiplies its input by a random mask."""
    drops = "Dropout" in step.module_type or any(
        getattr(value, "name", "") == f"{step.name}.mask" for value in step.arguments.values()
    )
    return "dropout, input × mask" if drops else "product"


def quotient(step: TitledStep) -> str:
    """`div`; on the CPU, an active dropout divides its Bernoulli draws by 1 - p."""
    is_mask = getattr(step.arguments.get("self"), "name", "").rpartition(".")[2].startswith("bernoulli")
    return "dropout mask: 0 or 1 ÷ (1 − p)" if is_mask and step.name.endswith(".mask") else "div"


def to_size(kind: str) -> Title:
    """`average pooling to 1x1`: the kind, and the shape of the result without the batch axis."""
    return lambda step: f"{kind} to {'x'.join(map(str, step.shape[1:])) or '1'}"


def reshape(step: TitledStep) -> str:
    """`flatten to 72` where each image becomes a vector, else `reshape to 8x9`."""
    flattens = len(step.shape) == 2 and len(_shape_of(step, "self")) > 2
    return to_size("flatten" if flattens else "reshape")(step)


def over_axes(kind: str) -> Title:
    """`mean over rows and columns`, `softmax over axis 1`."""

    def title(step: TitledStep) -> str:
        axes = step.arguments.get("dim")
        listed = axes if isinstance(axes, list | tuple) else [axes]
        rank = len(_shape_of(step, "self") or step.shape)
        spatial = sorted(int(a) % rank for a in listed if a is not None) == [2, 3] if rank == 4 else False
        if spatial:
            return f"{kind} over rows and columns"
        return kind if axes is None else f"{kind} over axis {', '.join(map(str, listed))}"

    return title


def _settings(step: TitledStep, defaults: Mapping[str, object]) -> str:
    """The arguments that differ from their usual values: `, stride 2, padding 1`."""
    text = ""
    for name, usual in defaults.items():
        value = step.arguments.get(name)
        short = _size(value)
        if value not in (None, [], ()) and short != str(usual):
            text += f", {name.replace('_', ' ')} {short}"
    return text


def _size(value: object) -> str:
    """1 for [1, 1], 3x5 for [3, 5]."""
    if isinstance(value, list | tuple):
        return str(value[0]) if value and len(set(value)) == 1 else "x".join(map(str, value))
    return str(value)


def _shape_of(step: TitledStep, argument: str) -> tuple[int, ...]:
    value = step.arguments.get(argument)
    return tuple(getattr(value, "shape", ()))


def update(step: TitledStep) -> str:
    """`update by adam, learning rate 0.001`."""
    return f"update by {step.op.rpartition('::')[2]}, learning rate {step.arguments.get('lr', 0):g}"


def running_statistic(step: TitledStep) -> str:
    """`update of a running mean, momentum 0.1`."""
    statistic = "mean" if step.op.endswith("mean") else "variance"
    return f"update of a running {statistic}, momentum {step.arguments.get('momentum', 0):g}"


_BATCH = ("", "batch mean", "1 ÷ √(var + eps)")
_NORM = ("", "mean", "1 ÷ √(var + eps)")
_RANKED = ("", "indices")
RESULTS: Mapping[str, tuple[str, ...]] = {
    "native_batch_norm": _BATCH,
    "_native_batch_norm_legit": _BATCH,
    "native_layer_norm": _NORM,
    "native_group_norm": _NORM,
    "var_mean": ("", "mean"),
    "std_mean": ("", "mean"),
    **dict.fromkeys(("max", "min", "median", "nanmedian", "kthvalue", "mode", "sort", "topk", "cummax"), _RANKED),
    **dict.fromkeys(("cummin", "max_pool2d_with_indices", "max_pool3d_with_indices"), _RANKED),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), _RANKED),
    **dict.fromkeys(("fractional_max_pool2d", "fractional_max_pool3d"), _RANKED),
    "aminmax": ("smallest", "largest"),
    "frexp": ("mantissa", "exponent"),
    "native_dropout": ("", "mask"),
    "mkldnn_rnn_layer": ("", "last hidden state", "last cell state", "workspace"),
    "_scaled_dot_product_flash_attention_for_cpu": ("", "log of the summed exponentials"),
    "_weight_norm_interface": ("", "norms"),
    "nll_loss_forward": ("", "total weight"),
    "nll_loss2d_forward": ("", "total weight"),
    "histogram": ("", "bin edges"),
}
"""What the results of an operation with several are called, by its ATen name; an empty text for its main result."""


def result_name(op: str, index: int) -> str:
    """What a result is called beside the others of its operation.

    >>> result_name("aten::native_batch_norm", 1), result_name("aten::relu", 0)
    ('batch mean', '')
    """
    names = RESULTS.get(op.rpartition("::")[2].partition(".")[0], ())
    return names[index] if index < len(names) else ""
