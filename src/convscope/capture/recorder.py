"""Recorder: writes every ATen call of a forward pass onto a tape.

Does as little as it can while the model runs: what a call means is found out later, from the tape. Knows torch's
dispatch and what each operation does besides returning a result; no names, no steps.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.capture.shortcuts import Made, Shortcut
from convscope.capture.tape import Call, Departure, Tape, memory, tensors_in
from convscope.progress import Progress
from convscope.traces.step import Array

UNDECLARED = {  # operations that write into arguments when `training` is set, although their schema does not say so
    "aten::native_batch_norm": ("running_mean", "running_var"),
    "aten::cudnn_batch_norm": ("running_mean", "running_var"),
    "aten::miopen_batch_norm": ("running_mean", "running_var"),
}


class StopRecording(BaseException):
    """Ends a pass of which no more is wanted; no model's `except Exception` stops it."""


class OpTraits(NamedTuple):
    """What an operation does besides returning a result."""

    function: Any
    writes: tuple[tuple[int, str], ...]
    """Place and name of the arguments that it writes into."""
    moves: bool
    """Whether it changes the shape of its first argument in place."""
    draws: bool
    """Whether it draws random numbers."""
    training: int = -1
    """Place of the flag without which it writes nothing, or -1."""
    reads: bool = False
    """Whether it hands a number of its first argument to Python."""

    def written(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
        """The tensors that a call with these arguments writes into."""
        if self.training < 0 or args[self.training]:
            for place, name in self.writes:
                yield from tensors_in(args[place] if place < len(args) else kwargs.get(name))


_HABITS: dict[int, OpTraits | None] = {}  # by id(function), which is held too; None is no habit at all
_HELD: list[Any] = []


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Keeps every call with its tensors on `tape`; while it is entered, torch hands it every operation."""

    def __init__(self, replace: Mapping[int, Array] | None = None) -> None:
        self.tape = Tape()
        self.visit = 0
        self.failed: tuple[BaseException, str, tuple[Any, ...]] | None = None
        """The last error, the innermost module that it left, and that module's arguments."""
        self.born: set[int] | None = None
        """Memories that the pass made, of a recorder that does not keep every call."""
        self.replaces = replace or {}
        """What stands in the place of the first result of a call, by time."""
        self.drawing: Callable[[torch.Generator | None], None] | None = None
        """Told before numbers are drawn, with the generator where it is not the default one."""
        self.progress: Progress | None = None
        """Told when a module begins."""

    def __enter__(self) -> Self:
        """Start; the flags that the base class would set are for torch.compile, which is off here."""
        torch._C._push_on_torch_dispatch_stack(self)
        return self

    def __exit__(self, *_: object) -> None:
        torch._C._pop_torch_dispatch_stack(None)

    def begin(self) -> None:
        """Told when parameters and inputs are in place, before the first call."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each call would pass through torch.compile's guard, whose import takes a second

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        habit = _HABITS.get(id(func), _UNSEEN)
        if habit is not None:
            self._before(func, args, kwargs or {}, habit)
        result = func(*args, **kwargs) if kwargs else func(*args)
        if self.replaces:
            result = self._replaced(result, args)
        if habit is not None and func is _ITEM:
            self.departs(args[0], "item()", result)
        self._note((func, args, kwargs, result, self.visit))
        return result

    def _before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], habit: OpTraits) -> None:
        if habit is _UNSEEN:
            seen = _HABITS[id(func)] = _habit(func)
            _HELD.append(func)
            if seen is None:
                return
            habit = seen
        now = len(self.tape.calls)
        for tensor in habit.written(args, kwargs):
            self.about_to_write(tensor, now)
        if habit.moves:
            self.tape.save_shape(args[0], now)
        if habit.draws and self.drawing is not None:
            self.drawing(kwargs.get("generator"))

    def _note(self, call: Call) -> None:
        self.tape.calls.append(call)

    def about_to_write(self, tensor: Tensor, now: int) -> None:
        """Copy what will be overwritten."""
        self.tape.save_memory(tensor, now)

    def departs(self, tensor: Tensor, way: str, number: Any = None) -> None:
        """Told when numbers of a tensor leave PyTorch: one by `item()`, or all of them by `numpy()` and the like."""
        self.tape.departures.append(Departure(len(self.tape.calls), tensor, way, number))

    def shares(self, tensor: Tensor, way: str) -> None:
        """Told when other code gets the memory of a tensor, which it may also write into: what it holds is copied."""
        now = len(self.tape.calls)
        with torch._C._DisableTorchDispatch():
            self.tape.save_memory(tensor, now)
        self.tape.shared[len(self.tape.departures)] = memory(tensor)
        self.departs(tensor, way)
        self.tape.undispatched.append(now)
        self.tape.calls.append(None)  # a time of its own, so that what was before is told from what is after

    def assigns(self, tensor: Tensor, source: Tensor, assign: Callable[[Tensor, Tensor], None]) -> None:
        """`tensor.data = source`, which torch does not dispatch: now `tensor` is another view of that memory."""
        with torch._C._DisableTorchDispatch():
            self.tape.save_shape(tensor, len(self.tape.calls))
            assign(tensor, source)
            self.tape.undispatched.append(len(self.tape.calls))
            self._note((_DETACH, (source,), None, tensor, self.visit))

    def _replaced(self, result: Any, args: tuple[Any, ...]) -> Any:
        """The result, or what the caller wants in its place; an operation in place stays one."""
        array = self.replaces.get(len(self.tape.calls))
        if array is None:
            return result
        first = next(tensors_in(result))
        given = torch.as_tensor(array).to(first.device, first.dtype)
        if any(first is argument for argument in args):
            first.copy_(given)
            return result
        return given.clone() if isinstance(result, Tensor) else type(result)([given.clone(), *result[1:]])

    def follow(self, module: nn.Module, path: str, shortcuts: Mapping[Any, Shortcut]) -> None:
        """Note whenever `module` runs, by an attribute `forward` that hides its method until it is removed.

        A hook would do too, but modules with hooks leave torch's fused paths, and with them the same bits.
        """
        short = shortcuts.get(type(module)) if "forward" not in module.__dict__ else None
        forward = module.forward
        visits = self.tape.visits

        def followed(*args: Any, **kwargs: Any) -> Any:
            if self.progress is not None:
                self.progress("tracing", len(visits), 0)
            if short is not None and not kwargs and len(args) == 1 and type(args[0]) is Tensor:
                made = self._shortened(short, module, args[0])
                if made is not None:
                    for function, given, result in made[1]:
                        self._note((function, given, None, result, len(visits)))
                    visits.append((path, self.visit))
                    return made[0]
            outer = self.visit
            self.visit = len(visits)
            visits.append((path, outer))
            try:
                return forward(*args, **kwargs)
            except Exception as error:
                if self.failed is None or self.failed[0] is not error:
                    self.failed = (error, path, (*args, *kwargs.values()))
                raise
            finally:
                self.visit = outer

        followed.__wrapped__ = forward  # type: ignore[attr-defined]  # what inspect.signature looks for
        module.__dict__["forward"] = followed

    def _shortened(self, short: Shortcut, module: nn.Module, x: Tensor) -> Made | None:
        """What a shortcut makes, while this recorder is off."""
        torch._C._pop_torch_dispatch_stack(None)
        try:
            return short(module, x)
        except Exception:  # then the layer itself says what is wrong
            return None
        finally:
            torch._C._push_on_torch_dispatch_stack(self)


def writes_of(call: Call) -> list[Tensor]:
    """The tensors that a call wrote into."""
    func, args, kwargs, _, _ = call
    habit = _HABITS.get(id(func))
    return list(habit.written(args, kwargs or {})) if habit else []


def _habit(func: Any) -> OpTraits | None:
    schema = func._schema
    undeclared = UNDECLARED.get(schema.name, ())
    writes = tuple(
        (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in undeclared
    )
    moves = torch.Tag.inplace_view in func.tags
    draws = torch.Tag.nondeterministic_seeded in func.tags
    training = next((i for i, a in enumerate(schema.arguments) if undeclared and a.name == "training"), -1)
    reads = func is _ITEM
    return OpTraits(func, writes, moves, draws, training, reads) if writes or moves or draws or reads else None


_ITEM = torch.ops.aten._local_scalar_dense.default
_DETACH = torch.ops.aten.detach.default
_UNSEEN = OpTraits(None, (), False, False)
