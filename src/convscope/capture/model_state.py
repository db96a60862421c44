"""Model state: the model to be traced and the random generators, and how to restore both exactly after a pass.

Runs may overlap in several threads. The state to restore is that from before the first of them. The last run to end
restores it, and so does a run that drew numbers, which only one run at a time may do.
"""

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from convscope.capture.held_objects import Restore, holds, saved_states
from convscope.errors import ModelError, UnknownName, UsageError
from convscope.type_checks import kind_of

_MAIN = torch.device("cpu")
PLAIN = {kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
"""torch's own layers, which hold no references to their inputs."""
OF_MODULES = frozenset(nn.Module().__dict__)
"""The attributes that every module has."""
_UNINITIALISED = {nn.UninitializedParameter, nn.UninitializedBuffer}
REGISTRIES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")


class Unshaped(ModelError):
    """A model whose parameters get their shapes from the first input."""


@dataclass(slots=True, eq=False)
class SavedState:
    """Saved attributes of modules."""

    grads: list[tuple[Tensor, Tensor | None]]
    mappings: list[tuple[dict[str, object], dict[str, object]]] = field(default_factory=list)
    """Each dictionary with its copy."""
    empty: list[dict[str, object]] = field(default_factory=list)
    """Registries that were empty."""
    restorers: list[Restore] = field(default_factory=list)
    """Restore the containers and objects that modules hold."""


@dataclass(slots=True, eq=False)
class ModelState:
    """A model, its modules by path, its parameters and buffers by name."""

    model: nn.Module
    modules: Mapping[str, nn.Module]
    parameters: Mapping[str, Tensor]
    """Parameters and buffers by name, each once, by reference."""
    device: torch.device
    dtype: torch.dtype | None
    """dtype of the first floating-point parameter; None if there is none: inputs then keep their own."""
    compiled: bool
    """Whether the model was wrapped by torch.compile; then the original model is traced, uncompiled."""

    @classmethod
    def of(cls, model: object) -> "ModelState":
        """Inspect a model.

        Raises:
            UsageError: it is not an `nn.Module`.
            ModelError: it cannot be traced: TorchScript, quantized, without weights.
        """
        if not isinstance(model, nn.Module):
            raise UsageError(
                f"a model is a torch.nn.Module, not {kind_of(model)}; pass an instance, or load one with cs.load_model."
            )
        walk = _Walk()
        walk.visit(model, "")
        first = next((p for p in walk.parameters.values() if p.dtype.is_floating_point), None)
        device = next((p.device for p in walk.parameters.values()), _MAIN) if first is None else first.device
        dtype = None if first is None else first.dtype
        return cls(walk.modules[""], walk.modules, walk.parameters, device, dtype, walk.compiled)

    @classmethod
    def unshaped(cls, model: nn.Module) -> "ModelState":
        """A model whose parameters get their shapes from its first input; usable only to convert that input."""
        return cls(model, dict(model.named_modules()), {}, _MAIN, torch.float32, False)

    def save(self) -> "SavedState":
        """Save everything that a pass may change in the modules, for `restore` to restore."""
        saved = SavedState([(tensor, tensor.grad) for tensor in self.parameters.values()])
        objects: list[object] = []
        for module in self.modules.values():
            attributes = module.__dict__
            saved.mappings.append((attributes, attributes.copy()))
            for name in REGISTRIES:
                registry = attributes[name]
                if registry:
                    saved.mappings.append((registry, dict(registry)))
                else:
                    saved.empty.append(registry)
            if type(module) not in PLAIN:
                saved.mappings += [(value, value.copy()) for value in attributes.values() if type(value) is dict]
                if len(attributes) > len(OF_MODULES):
                    own_attributes = [value for name, value in attributes.items() if name not in OF_MODULES]
                    objects += [value for value in own_attributes if holds(type(value))]  # type: ignore[arg-type]  # classes hash
        if objects:
            saved.restorers = saved_states(objects)
        return saved

    def restore(self, saved: "SavedState") -> None:
        """Restore the modules' attributes: flags, hooks, registries, caches, gradients, `forward`."""
        for mapping, contents in saved.mappings:
            mapping.update(contents)
            if len(mapping) != len(contents):
                _remove_new(mapping, contents)
        for registry in saved.empty:
            if registry:
                registry.clear()
        for restore in saved.restorers:
            restore()
        for tensor, grad in saved.grads:
            if tensor.grad is not grad:
                tensor.grad = grad

    def evaluate(self) -> None:
        """Set every module to eval mode without calling `eval`, which some models override to change their weights."""
        for module in self.modules.values():
            module.__dict__["training"] = False

    def uncompile(self) -> None:
        """Disable compiled forwards of all modules; call between `save` and `restore`."""
        for module in self.modules.values():
            module.__dict__["_compiled_call_impl"] = None

    def put(self, name: str, value: Tensor) -> Tensor:
        """Replace the parameter `name` by `value` wherever the model holds it; call between `save` and `restore`."""
        before = self.parameters[name]
        after = nn.Parameter(value, requires_grad=False) if isinstance(before, nn.Parameter) else value
        for module in self.modules.values():
            for registry in (module._parameters, module._buffers):
                for key, tensor in registry.items():
                    if tensor is before:
                        registry[key] = after  # type: ignore[assignment]  # a parameter stays one, a buffer too
        return after

    def parameters_now(self) -> dict[str, Tensor]:
        """The model's current parameters and buffers."""
        walk = _Walk()
        walk.visit(self.model, "")
        return walk.parameters

    def named(self, name: str) -> Tensor:
        """A parameter or buffer by name.

        Raises:
            UnknownName: the model has no parameter or buffer of that name.
        """
        if name not in self.parameters:
            raise UnknownName("parameter", name, self.parameters)
        return self.parameters[name]


def version(tensor: Tensor) -> int:
    """torch's count of in-place writes to a tensor; 0 if it does not count them."""
    return 0 if tensor.is_inference() else tensor._version


def set_version(tensor: Tensor, count: int) -> None:
    """Set torch's count of in-place writes to a tensor, whose former numbers have been restored."""
    setter = torch._C._autograd._unsafe_set_version_counter
    try:
        setter((tensor,), (count,))
    except TypeError:  # torch 2.6 takes one tensor
        setter(tensor, count)  # type: ignore[arg-type]


class _Walk:
    """Collects modules by path and tensors by name, in the order of definition, without torch.compile's wrappers."""

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.parameters: dict[str, Tensor] = {}
        self.compiled = False
        self._seen: set[int] = set()

    def visit(self, module: nn.Module, path: str) -> None:
        """Collect a module's submodules and tensors.

        Raises:
            ModelError: it cannot be traced.
        """
        if type(module) not in PLAIN and self._stands_for_another(module, path):
            return
        visited, attributes = self._seen, module.__dict__
        if "_parameters" not in attributes:
            raise ModelError(
                f"the model cannot be traced: {type(module).__name__}.__init__ does not call super().__init__(), which "
                "every torch.nn.Module needs first."
            )
        if id(module) in visited:
            return
        visited.add(id(module))
        self.modules[path] = module
        self.compiled = self.compiled or attributes.get("_compiled_call_impl") is not None
        prefix = f"{path}." if path else ""
        for registry in (attributes["_parameters"], attributes["_buffers"]):
            for name, tensor in registry.items():
                if tensor is not None and id(tensor) not in visited:
                    visited.add(id(tensor))
                    self.parameters[prefix + name] = tensor
                    if type(tensor) in _UNINITIALISED or tensor.is_meta:
                        _refuse_parameter(tensor, prefix + name)
        for name, child in attributes["_modules"].items():
            if child is not None:
                self.visit(child, prefix + name)

    def _stands_for_another(self, module: nn.Module, path: str) -> bool:
        """Whether a module only is torch.compile's wrapper of another one, which is then visited."""
        reason = _unfollowable(type(module))  # type: ignore[arg-type]  # a class is hashable
        if reason:
            subject = f"its module {path!r}" if path else "it"
            raise ModelError(f"the model cannot be traced: {subject} {reason}.")
        inner = getattr(module, "_modules", {}).get("_orig_mod")
        if inner is not None:
            self.compiled = True
            self.visit(inner, path)
        return inner is not None


def _remove_new(mapping: dict[str, object], contents: Mapping[str, object]) -> None:
    if "forward" not in contents:
        mapping.pop("forward", None)  # usually the only new attribute
    if len(mapping) != len(contents):
        for name in mapping.keys() - contents.keys():
            del mapping[name]


def _refuse_parameter(tensor: Tensor, name: str) -> None:
    if type(tensor) in _UNINITIALISED:
        raise Unshaped(
            f"the model cannot be traced: its parameter {name!r} gets its shape from the first input; "
            "run the model once first."
        )
    raise ModelError(
        f"the model cannot be traced: its parameter {name!r} is on the meta device and has no data; "
        "load the weights, or call model.to_empty(device='cpu') and initialize them."
    )


@cache
def _unfollowable(kind: type[nn.Module]) -> str:
    """Why modules of a class cannot be traced, or nothing."""
    if issubclass(kind, torch.jit.ScriptModule):
        return "is TorchScript, which has no Python forward to trace; trace the Python model that it was made from"
    if ".quantized" in kind.__module__ and kind.__module__.startswith(("torch.ao.nn", "torch.nn")):
        return (
            f"is quantized ({kind.__name__}), and integer arithmetic is not supported; "
            "trace the model before quantization"
        )
    return ""


T = TypeVar("T")
_COUNTING = threading.Lock()
_DRAWING = threading.RLock()
_FOUND: dict[str | torch.device, Any] = {}
"""The states from before the current, overlapping runs, by generator, each as its library represents it."""
_running = 0


class RandomState:
    """The states of torch's generators, and of Python's and NumPy's if the model may use them."""

    def __init__(self, device: torch.device, *, others: bool) -> None:
        """Save the states of torch's generators; with `others`, those of Python and NumPy too."""
        self._device = None if device.type == "cpu" else device
        self._generators: list[tuple[torch.Generator, torch.Tensor]] = []
        self._drew = False
        with _COUNTING:
            self._enter()
            self._torch = _initial_state("torch", torch.default_generator.get_state)
            self._accelerator = (
                _initial_state(device, torch.get_device_module(device).get_rng_state) if self._device else None
            )
            self._python = _initial_state("python", random.getstate) if others else None
            self._numpy = _initial_state("numpy", np.random.get_state) if others else None

    def _enter(self) -> None:
        global _running  # noqa: PLW0603
        if not _running:
            _FOUND.clear()
        _running += 1

    def drawing(self, generator: torch.Generator | None) -> None:
        """Called before numbers are drawn: from here to the end of this run no other run may draw.

        Args:
            generator: The generator about to be used, saved on its first use; None is the default generator.
        """
        if not self._drew:
            _DRAWING.acquire()
            self._drew = True
        if generator is not None and all(generator is not saved_generator for saved_generator, _ in self._generators):
            self._generators.append((generator, generator.get_state()))

    def begin_like(self, earlier: "RandomState") -> None:
        """Start drawing from the states of an earlier run."""
        self.drawing(None)
        for generator, _ in earlier._generators:
            self.drawing(generator)
        earlier._put_back()

    def restore(self) -> None:
        """Restore every state at the end of the run."""
        global _running  # noqa: PLW0603
        with _COUNTING:
            _running -= 1
            if self._drew or not _running:
                self._put_back()
        if self._drew:
            _DRAWING.release()

    def _put_back(self) -> None:
        torch.default_generator.set_state(self._torch)
        if self._device is not None:
            torch.get_device_module(self._device).set_rng_state(self._accelerator)
        for generator, state in self._generators:
            generator.set_state(state)
        if self._python is not None and self._numpy is not None:
            random.setstate(self._python)
            np.random.set_state(self._numpy)  # noqa: NPY002


def _initial_state(name: str | torch.device, state: Callable[[], T]) -> T:
    """The state of a generator from before the current, overlapping runs."""
    if name not in _FOUND:
        _FOUND[name] = state()
    first: T = _FOUND[name]
    return first
