"""Recorder: writes every ATen call of a forward pass onto a tape, those of common layers without torch's dispatch.

The recorder does as little as possible while the model runs: calls are interpreted later, from the tape. Torch's
dispatch to Python takes as long as a small layer, so common layers have shortcuts. Each makes exactly the calls of its
layer, so numbers and record are the same; a test compares them. Any unusual configuration is left to the layer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.capture.tape import Call, Departure, Operator, Tape, memory, tensors_in
from convscope.progress import Progress
from convscope.typing import Array


class Overload(Operator, Protocol):
    """An ATen overload as torch dispatches it."""

    @property
    def tags(self) -> Collection[torch.Tag]:
        """What it does besides computing its result."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the operation."""


Made: TypeAlias = tuple[Tensor, tuple[tuple[Operator, tuple[object, ...], object], ...]]
"""A shortcut's result: the layer's output, and (function, arguments, result) of each ATen call."""

Shortcut: TypeAlias = Callable[[Any, Tensor], Made | None]
"""(layer, input) -> result; None if the layer itself must run. Each takes layers of its own class."""


def _convolution(layer: nn.Conv2d, x: Tensor) -> Made | None:
    axes, padding, parameters = len(layer.kernel_size) + 2, layer.padding, layer._parameters
    weight = parameters.get("weight")
    if layer.padding_mode != "zeros" or x.dim() != axes or isinstance(padding, str) or not _plain(weight):
        return None
    args = (
        x,
        weight,
        parameters["bias"],
        layer.stride,
        padding,
        layer.dilation,
        False,
        (0,) * (axes - 2),
        layer.groups,
    )
    out = torch.convolution(*args)
    return out, ((_CONVOLUTION, args, out),)


def _linear(layer: nn.Linear, x: Tensor) -> Made | None:
    parameters = layer._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if x.dim() != 2 or not _plain(weight) or bias is None:
        return None
    turned = weight.t()
    out = torch.addmm(bias, x, turned)
    return out, ((_T, (weight,), turned), (_ADDMM, (bias, x, turned), out))


def _max_pool(layer: nn.MaxPool2d, x: Tensor) -> Made | None:
    if layer.return_indices or x.dim() != 4 or not x.is_cpu:
        return None
    args = (x, _two(layer.kernel_size), _two(layer.stride), _two(layer.padding), _two(layer.dilation), layer.ceil_mode)
    results = torch._C._nn.max_pool2d_with_indices(*args)
    return results[0], ((_MAX_POOL, args, results),)


def _relu(layer: nn.ReLU, x: Tensor) -> Made | None:
    if layer.inplace:
        return None
    out = torch.relu(x)
    return out, ((_RELU, (x,), out),)


def _two(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else size


def _plain(weight: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a weight is an ordinary CPU tensor."""
    return type(weight) is nn.Parameter and weight.dtype is torch.float32 and weight.is_cpu


_CONVOLUTION = torch.ops.aten.convolution.default
_T = torch.ops.aten.t.default
_ADDMM = torch.ops.aten.addmm.default
_MAX_POOL = torch.ops.aten.max_pool2d_with_indices.default
_RELU = torch.ops.aten.relu.default
_DROPOUT = torch.ops.aten.dropout.default

SHORTCUTS: Mapping[type[nn.Module], Shortcut] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: _relu,
}


UNDECLARED = {  # operations that write into arguments when `training` is set, although their schema does not say so
    "aten::native_batch_norm": ("running_mean", "running_var"),
    "aten::cudnn_batch_norm": ("running_mean", "running_var"),
    "aten::miopen_batch_norm": ("running_mean", "running_var"),
}


class StopRecording(BaseException):
    """Ends a pass early; a BaseException, so that a model's `except Exception` does not catch it."""


class OpTraits(NamedTuple):
    """An operation's side effects."""

    function: Operator | None
    writes: tuple[tuple[int, str], ...]
    """Index and name of the arguments that it writes into."""
    moves: bool
    """Whether it changes the shape of its first argument in place."""
    draws: bool
    """Whether it draws random numbers."""
    training: int = -1
    """Index of the flag without which it writes nothing, or -1."""
    reads: bool = False
    """Whether it returns a number of its first argument to Python."""
    resizes: tuple[str, ...] = ()
    """Names of the arguments that take the result's shape: `out=`."""

    def written(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[Tensor]:
        """The tensors that a call with these arguments writes into."""
        if self.training < 0 or args[self.training]:
            for index, name in self.writes:
                yield from tensors_in(args[index] if index < len(args) else kwargs.get(name))


_TRAITS: dict[int, OpTraits | None] = {}  # by id(function); None without any traits
_HELD: list[Operator] = []


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Keeps every call with its tensors on `tape`; while it is entered, torch dispatches every operation to it."""

    def __init__(self, replace: Mapping[int, Array] | None = None) -> None:
        self.tape = Tape()
        self.visit = 0
        self.failed: tuple[BaseException, str, tuple[object, ...]] | None = None
        """The last exception, the innermost module that raised it, and that module's arguments."""
        self.born: set[int] | None = None
        """Memories allocated by the pass; only for a recorder that does not keep every call."""
        self.replaces = replace or {}
        """Time -> array that replaces the first result of a call."""
        self.drawing: Callable[[torch.Generator | None], None] | None = None
        """Called before random numbers are drawn, with the generator unless it is the default one."""
        self.progress: Progress | None = None
        """Called when a module starts."""

    def __enter__(self) -> Self:
        """Start recording, without the base class's flags for torch.compile, which is off here."""
        torch._C._push_on_torch_dispatch_stack(self)
        return self

    def __exit__(self, *_: object) -> None:
        torch._C._pop_torch_dispatch_stack(None)

    @property
    def phase(self) -> str:
        """The part of a training step that runs, if it is not the model's forward pass."""
        return ""

    def begin(self) -> None:
        """Called when parameters and inputs are in place, before the first call."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise each call would go through torch.compile's guard, whose import takes a second

    def __torch_dispatch__(
        self, func: Overload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        traits = _TRAITS.get(id(func), _UNSEEN)
        if traits is not None:
            self._before(func, args, kwargs or {}, traits)
        result = func(*args, **kwargs) if kwargs else func(*args)
        if self.replaces:
            result = self._replaced(result, args)
        if traits is not None and func is _ITEM:
            (tensor,) = tensors_in(args)
            assert isinstance(result, complex | float | int)
            self.departs(tensor, "item()", result)
        self._note((func, args, kwargs, result, self.visit))
        return result

    def _before(self, func: Overload, args: tuple[object, ...], kwargs: dict[str, object], traits: OpTraits) -> None:
        if traits is _UNSEEN:
            first_seen = _TRAITS[id(func)] = _traits(func)
            _HELD.append(func)
            if first_seen is None:
                return
            traits = first_seen
        time = len(self.tape.calls)
        for tensor in traits.written(args, kwargs):
            self.about_to_write(tensor, time)
        if traits.moves:
            self.tape.save_shape(next(tensors_in(args)), time)
        for name in traits.resizes:
            for tensor in tensors_in(kwargs.get(name)):
                self.tape.save_shape(tensor, time)
        if traits.draws and self.drawing is not None:
            generator = kwargs.get("generator")
            assert generator is None or isinstance(generator, torch.Generator)
            self.drawing(generator)

    def _note(self, call: Call) -> None:
        self.tape.calls.append(call)

    def about_to_write(self, tensor: Tensor, time: int) -> None:
        """Copy the memory that is about to be overwritten."""
        self.tape.save_memory(tensor, time)

    def departs(self, tensor: Tensor, way: str, number: complex | None = None) -> None:
        """Called when numbers of a tensor leave PyTorch: one by `item()`, or all of them by `numpy()` and the like."""
        self.tape.departures.append(Departure(len(self.tape.calls), tensor, way, number))

    def shares(self, tensor: Tensor, way: str) -> None:
        """Called when other code gets a tensor's memory and may write into it: copies the memory."""
        time = len(self.tape.calls)
        with torch._C._DisableTorchDispatch():
            self.tape.save_memory(tensor, time)
        self.tape.shared[len(self.tape.departures)] = memory(tensor)
        self.departs(tensor, way)
        self.tape.undispatched.append(time)
        self.tape.calls.append(None)  # takes a time step of its own, to separate before from after

    def assigns(self, tensor: Tensor, source: Tensor, assign: Callable[[Tensor, Tensor], None]) -> None:
        """`tensor.data = source`, which torch does not dispatch: `tensor` becomes a view of other memory."""
        with torch._C._DisableTorchDispatch():
            self.tape.save_shape(tensor, len(self.tape.calls))
            assign(tensor, source)
            self.tape.undispatched.append(len(self.tape.calls))
            self._note((_DETACH, (source,), None, tensor, self.visit))

    def idles(self, p: float, x: Tensor) -> Tensor:
        """An inactive dropout returned its input, which torch does not dispatch: record it as a call."""
        self.tape.undispatched.append(len(self.tape.calls))
        result = self._replaced(x, ()) if self.replaces else x
        assert isinstance(result, Tensor)
        self._note((_DROPOUT, (x, p, False), None, result, self.visit))
        return result

    def _replaced(self, result: object, args: tuple[object, ...]) -> object:
        """The result, or its override; an in-place operation stays in place."""
        array = self.replaces.get(len(self.tape.calls))
        if array is None:
            return result
        first = next(tensors_in(result))
        override = torch.as_tensor(array).to(first.device, first.dtype)
        if any(first is argument for argument in args):
            first.copy_(override)
            return result
        if isinstance(result, Tensor):
            return override.clone()
        assert isinstance(result, tuple | list)
        return type(result)([override.clone(), *result[1:]])

    def follow(self, module: nn.Module, path: str, shortcuts: Mapping[type[nn.Module], Shortcut]) -> None:
        """Record each run of `module`, through an instance attribute `forward` that shadows its method.

        A hook would work too, but modules with hooks leave torch's fused paths, which changes the last bits.
        """
        short = shortcuts.get(type(module)) if "forward" not in module.__dict__ else None
        dropout = module if isinstance(module, _DropoutNd) else None
        forward = module.forward
        visits = self.tape.visits

        def followed(*args: object, **kwargs: object) -> object:
            if self.progress is not None:
                self.progress("tracing", len(visits), 0)
            if short is not None and not kwargs and len(args) == 1 and type(args[0]) is Tensor:
                shortened = self._shortened(short, module, args[0])
                if shortened is not None:
                    for function, arguments, result in shortened[1]:
                        self._note((function, arguments, None, result, len(visits)))
                    visits.append((path, self.visit))
                    return shortened[0]
            outer = self.visit
            self.visit = len(visits)
            visits.append((path, outer))
            before = len(self.tape.calls)
            try:
                result = forward(*args, **kwargs)
            except Exception as error:
                if self.failed is None or self.failed[0] is not error:
                    self.failed = (error, path, (*args, *kwargs.values()))
                raise
            else:
                if dropout is None or len(self.tape.calls) > before:  # in place, an active layer returns its input too
                    return result
                same = any(result is argument for argument in (*args, *kwargs.values()))
                return self.idles(dropout.p, result) if same else result
            finally:
                self.visit = outer

        followed.__wrapped__ = forward  # type: ignore[attr-defined]  # what inspect.signature looks for
        module.__dict__["forward"] = followed

    def _shortened(self, short: Shortcut, module: nn.Module, x: Tensor) -> Made | None:
        """The result of a shortcut, computed while this recorder is off."""
        torch._C._pop_torch_dispatch_stack(None)
        try:
            return short(module, x)
        except Exception:  # let the layer itself raise the error
            return None
        finally:
            torch._C._push_on_torch_dispatch_stack(self)


def writes_of(call: Call) -> list[Tensor]:
    """The tensors that a call wrote into."""
    func, args, kwargs, _, _ = call
    traits = _TRAITS.get(id(func))
    return list(traits.written(args, kwargs or {})) if traits else []


def _traits(func: Overload) -> OpTraits | None:
    schema = func._schema
    undeclared = UNDECLARED.get(schema.name, ())
    writes = tuple(
        (index, argument.name)
        for index, argument in enumerate(schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in undeclared
    )
    resizes = tuple(argument.name for argument in schema.arguments if argument.is_out)
    moves = torch.Tag.inplace_view in func.tags
    draws = torch.Tag.nondeterministic_seeded in func.tags
    training = next((i for i, a in enumerate(schema.arguments) if undeclared and a.name == "training"), -1)
    reads = func is _ITEM
    return OpTraits(func, writes, moves, draws, training, reads, resizes) if writes or moves or draws or reads else None


_ITEM = torch.ops.aten._local_scalar_dense.default
_DETACH = torch.ops.aten.detach.default
_UNSEEN = OpTraits(None, (), False, False)
