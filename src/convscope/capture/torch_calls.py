"""Torch calls: the calls of torch's functions in a forward pass, with their arguments by name.

`CallLog` lists them while a model runs, and can change the arguments of chosen ones. Uses torch's functions and the
names of their arguments; why a call fails is for `shape_repairs` to say.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convscope.cards.trial_copy import CountingMode

Arguments = dict[str, Any]
Change = Callable[[Arguments], Arguments]

BINARY = ("add", "sub", "mul", "div")
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
PARAMETERS: Mapping[str, Sequence[str]] = {
    "linear": ("input", "weight", "bias"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _CONVOLUTION),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _TRANSPOSED),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    **dict.fromkeys(BINARY, ("input", "other")),
    "matmul": ("input", "other"),
    "cat": ("tensors", "dim"),
    **dict.fromkeys(("view", "reshape"), ("input", "size")),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), ("input", "kernel_size", "stride", "padding")),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), ("input", "kernel_size", "stride", "padding")),
}
"""Function -> the names of its arguments, in order."""
ALIASES: Mapping[str, str] = {
    **{
        f"{prefix}{name}{suffix}": name
        for name in BINARY
        for prefix in ("", "__", "__i", "__r")
        for suffix in ("", "_", "__")
    },
    **dict.fromkeys(("__truediv__", "true_divide"), "div"),
    **dict.fromkeys(("__matmul__", "__rmatmul__", "mm", "bmm"), "matmul"),
    **dict.fromkeys(("concat", "concatenate"), "cat"),
    **{
        f"{kind}_pool{n}d{end}": f"{kind}_pool{n}d"
        for kind in ("max", "avg")
        for n in "123"
        for end in ("", "_with_indices")
    },
    **{f"_max_pool{n}d": f"max_pool{n}d" for n in "123"},
}
"""Other names of these functions."""


@dataclass(slots=True, eq=False)
class TorchCall:
    """A call of one of torch's functions in a forward pass."""

    index: int
    name: str
    arguments: Arguments
    """The arguments, by the names in `PARAMETERS`."""
    parameter: str
    """The name of the weight, or of the operand that is a parameter."""
    passed_as: str = ""
    """The argument through which that parameter was passed."""
    bare: bool = False
    """Whether the model is itself one of torch's layers, which has no name."""
    shape: tuple[int, ...] = ()
    """Shape of the result; () if the call failed."""

    @property
    def layer(self) -> str:
        """The layer that owns the weight; the function's name where none does."""
        owner, _, _ = self.parameter.rpartition(".")
        if not owner and self.bare:
            return "the layer"
        return owner or (self.parameter if self.parameter not in {"weight", ""} else self.name)

    @property
    def title(self) -> str:
        """The layer in a sentence."""
        return layer_title(self.layer)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its tensors, including those in a list."""
        values = [
            item
            for value in self.arguments.values()
            for item in (value if isinstance(value, list | tuple) else [value])
        ]
        return [tuple(value.shape) for value in values if isinstance(value, Tensor)]

    @property
    def weight_is_own(self) -> bool:
        """Whether the weight is that of a layer, rather than a parameter that `forward` uses directly."""
        owner, _, name = self.parameter.rpartition(".")
        return name == "weight" and (bool(owner) or self.bare)

    def tensor(self, name: str) -> Tensor | None:
        """A tensor argument."""
        value = self.arguments.get(name)
        return value if isinstance(value, Tensor) else None


def layer_title(layer: str) -> str:
    """`fc1`, but `layer 3` for a number, as in nn.Sequential."""
    return f"layer {layer}" if layer.isdigit() else layer


class CallLog(CountingMode):
    """Changes the arguments of chosen calls; lists all calls; remembers the one that failed."""

    def __init__(self, names: Mapping[int, str], changes: Mapping[int, Change], *, bare: bool = False) -> None:
        super().__init__(names)
        self.changes = changes
        self.bare = bare
        self.log: list[TorchCall] = []
        self.failed: TorchCall | None = None

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "")
        name = ALIASES.get(name, name)
        arguments = _bound(name, args, kwargs or {})
        passed_as = self._parameter(arguments)
        parameter = self.names[id(arguments[passed_as])] if passed_as else ""
        call = TorchCall(self.calls, name, arguments, parameter, passed_as, self.bare)
        self.calls += 1
        change = self.changes.get(call.index)
        try:
            if change is None:
                result = func(*args, **(kwargs or {}))
            else:
                call.arguments = change(call.arguments)
                result = _called(func, call)
        except Exception:
            self.failed = call
            raise
        call.shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        self.log.append(call)
        return result

    def _parameter(self, arguments: Arguments) -> str:
        """The argument that is a parameter of the model, or an empty text."""
        return next((name for name in ("weight", "other", "input") if id(arguments.get(name)) in self.names), "")


def _bound(name: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Arguments:
    """Arguments by name; of functions that are not known the first tensor, as `input`."""
    if name in {"view", "reshape"}:
        size = args[1] if len(args) == 2 and not isinstance(args[1], int) else args[1:]
        return {"input": args[0], "size": kwargs.get("size", kwargs.get("shape", size))} if args else dict(kwargs)
    names = PARAMETERS.get(name, ("input",))
    renamed = {"self": "input", "axis": "dim"}
    return {**dict(zip(names, args, strict=False)), **{renamed.get(key, key): value for key, value in kwargs.items()}}


def _called(func: Callable[..., object], call: TorchCall) -> object:
    """Call a function with changed arguments."""
    if call.name in {"view", "reshape"}:
        return func(call.arguments["input"], tuple(call.arguments["size"]))
    names = PARAMETERS[call.name]
    positional = list(itertools.takewhile(call.arguments.__contains__, names))
    keywords = {name: value for name, value in call.arguments.items() if name not in positional}
    return func(*(call.arguments[name] for name in positional), **keywords)
