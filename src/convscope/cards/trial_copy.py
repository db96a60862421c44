"""Trial copy: a copy of a model that may be run to see what it takes, and the inputs it is tried with.

Uses torch. The model itself is only read: its forward runs on the copy, never on the original.
"""

import contextlib
import copy
import inspect
import io
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from convscope.cards.card import InputLayer

SMALL = 30_000_000
"""Parameters, and numbers of the inputs, up to which a trial copy has real ones, so that forward may read them."""
NEAR = 128 * 128
"""Positions of a map up to which a trial copy with real numbers is run, whatever the work."""
WORK = 100_000_000
"""Multiplications, at most, of a convolutional network's pass up to which it is run on more places."""
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
ATTEMPT = 40
"""Calls that making an attempt is counted as, so that a forward that fails at once is not tried for long."""
_Uninitialized: Any = nn.UninitializedBuffer  # whose arguments the stubs do not know
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
M = TypeVar("M", bound="CountingMode")


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One run of a trial copy."""

    ran: bool
    calls: int
    """The number of torch functions called before it ended."""
    layers: tuple[InputLayer, ...]
    """The convolutions and linear layers that it called, in that order; the last one may have failed."""


class Unrunnable(Exception):
    """No copy of the model can be made, or nothing says how to call it."""


@dataclass(slots=True, eq=False)
class TrialCopies:
    """Copies of one model, made when they are wanted."""

    model: nn.Module
    inputs: int = field(init=False)
    """The number of inputs that forward requires."""
    calls: int = 0
    """Functions of torch that all attempts have called together, and what making them was like."""
    _kept: dict[bool, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.model, torch.jit.ScriptModule) or any("forward" in m.__dict__ for m in self.model.modules()):
            raise Unrunnable
        self.inputs = len(required_inputs(self.model))

    @property
    def lazy(self) -> bool:
        """Whether some parameters get their shapes from the first input."""
        return any(is_lazy(tensor) for tensor in _tensors(self.model))

    def attempt(self, shape: tuple[int, ...], *, integers: bool = False) -> TrialRun:
        """Run a trial copy on ones, the same for each input that forward requires.

        Args:
            shape: The shape of an input, its batch axis included.
            integers: Whether to give zeros of int64 instead, as to an embedding.
        """
        if not self.inputs:
            raise Unrunnable
        dtype = next((t.dtype for t in _tensors(self.model) if t.is_floating_point()), torch.float32)
        image = torch.zeros((), dtype=torch.int64) if integers else torch.ones((), dtype=dtype)
        return self.call([image.expand(shape)] * self.inputs, {})  # the copies take memory, not this one

    def call(self, arguments: Sequence[object], keywords: Mapping[str, object]) -> TrialRun:
        """Run a trial copy on copies of these inputs, without side effects."""
        watch, outcome = self.run_under(_Watch, arguments, keywords)
        return TrialRun(not isinstance(outcome, Exception), watch.calls, tuple(watch.layers))

    def run_under(
        self, mode_for: Callable[[Mapping[int, str]], M], arguments: Sequence[object], keywords: Mapping[str, object]
    ) -> tuple[M, object]:
        """Run a trial copy under a mode that counts its calls; return the mode, and what forward returned or raised.

        Args:
            mode_for: Makes the mode from the names of the trial copy's parameters, by their ids.
            arguments: Inputs by position; the trial copy gets copies.
            keywords: Inputs by name.
        """
        numberless = self._numberless([*arguments, *keywords.values()])
        try:
            trial_copy = self._new_copy(numberless)
        except Exception as error:
            raise Unrunnable from error
        watch = mode_for({id(p): name for name, p in trial_copy.named_parameters()})
        meta = torch.device("meta")
        device = meta if numberless else next((t.device for t in _tensors(trial_copy)), torch.device("cpu"))
        device_context: AbstractContextManager[Any] = meta if numberless else nullcontext()
        with _unseen(), device_context:
            copies = [in_structure(value, lambda t: _own(t, device)) for value in arguments]
            keyword_copies = {name: in_structure(v, lambda t: _own(t, device)) for name, v in keywords.items()}
            with watch:
                try:
                    outcome = trial_copy(*copies, **keyword_copies)
                except Exception as error:  # whatever a forward raises on an input that is not for it
                    outcome = error
        self.calls += watch.calls + ATTEMPT
        return watch, outcome

    def _numberless(self, inputs: Sequence[object]) -> bool:
        tensors = list(_tensors(self.model))
        if any(is_lazy(tensor) for tensor in tensors):
            return False
        plain = all(t.device.type == "cpu" and t.dtype in _PLAIN for t in tensors)
        largest = max((int(np.prod(t.shape[2:])) for t in inputs if isinstance(t, Tensor)), default=0)
        numbers = sum(t.numel() for t in tensors)
        input_numbers = sum(t.numel() for t in inputs if isinstance(t, Tensor))
        return not plain or numbers > SMALL or input_numbers > SMALL or (largest > NEAR and numbers * largest > WORK)

    def _new_copy(self, numberless: bool) -> nn.Module:
        if self.lazy:  # a run would give it its shapes
            return _copy(self.model, numberless=False)
        if numberless not in self._kept:
            self._kept[numberless] = _copy(self.model, numberless)
        return self._kept[numberless]


_PLAIN = {torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.uint8}


def required_inputs(model: nn.Module) -> tuple[str, ...]:
    """The inputs without which forward cannot be called, by name.

    >>> required_inputs(nn.Bilinear(2, 3, 4)), required_inputs(nn.Sequential())
    (('input1', 'input2'), ('input',))
    """
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ("input",)
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return ()
    names = tuple(p.name for p in positional if p.default is p.empty)
    return names or (positional[0].name if positional else "input",)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a tensor on this device, without numbers on `meta`."""
    if device.type == "meta":
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return tensor.detach().clone(memory_format=torch.contiguous_format).to(device)


def in_structure(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same lists, tuples and mappings, with each tensor in them changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [in_structure(item, change) for item in value]
    if type(value) is tuple:
        return tuple(in_structure(item, change) for item in value)
    if isinstance(value, dict):
        return {name: in_structure(item, change) for name, item in value.items()}
    return value


def _copy(model: nn.Module, numberless: bool) -> nn.Module:
    """A copy in evaluation mode, without hooks that would tell the user's own code of what is tried."""
    memo: dict[int, object] = {  # uninitialized buffers cannot be copied, only created again
        id(buffer): _Uninitialized(requires_grad=False, device=buffer.device, dtype=buffer.dtype)
        for buffer in model.buffers()
        if isinstance(buffer, nn.UninitializedBuffer)
    }
    if numberless:
        for tensor in [*_tensors(model), *_plain_tensors(model)]:
            bare = torch.empty_like(tensor, device="meta", requires_grad=False)
            memo[id(tensor)] = nn.Parameter(bare, requires_grad=False) if isinstance(tensor, nn.Parameter) else bare
    trial_copy = copy.deepcopy(model, memo)
    for original, module in zip(model.modules(), trial_copy.modules(), strict=True):
        module.__dict__["training"] = False
        for registry in HOOKS:
            original_hooks = getattr(original, registry)
            for key, hook in list(getattr(module, registry).items()):
                if original_hooks.get(key) is hook:  # a function, which a copy shares with the model
                    del getattr(module, registry)[key]
    return trial_copy


def _plain_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules hold outside of their registries."""
    for module in model.modules():
        for value in module.__dict__.values():
            items = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
            yield from (item for item in items if isinstance(item, Tensor))


@contextmanager
def _unseen() -> Iterator[None]:
    """Without gradients, printed lines and warnings; the states of random generators are put back."""
    numbers, python = np.random.get_state(), random.getstate()  # noqa: NPY002 - the state that a forward may draw from
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(python)


class CountingMode(TorchFunctionMode):
    """Counts the functions of torch that are called."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        """The parameters' names by their ids."""
        self.calls = 0


class _Watch(CountingMode):
    """Also lists the layers among them."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__(names)
        self.layers: list[InputLayer] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls += 1
        layer = self._layer(getattr(func, "__name__", ""), args, kwargs)
        if layer is not None:
            self.layers.append(layer)
        return func(*args, **kwargs)

    def _layer(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> InputLayer | None:
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if name not in {*CONVOLUTIONS, *TRANSPOSED, "linear"} or not isinstance(weight, Tensor) or weight.dim() < 2:
            return None
        called = self.names.get(id(weight), "").rpartition(".")[0]
        if name == "linear":
            return InputLayer(called, "numbers", weight.shape[1])
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        count = weight.shape[0] if name in TRANSPOSED else weight.shape[1] * int(groups)
        return InputLayer(called, "channels", count)
