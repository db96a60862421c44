"""Model state: the model to be traced, and how to restore it exactly after a pass.

Knows torch's modules; no operations, no steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from convscope.capture.held_objects import HeldState, holds, states_of
from convscope.errors import ModelError, UnknownName, UsageError

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
    mappings: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    """Each dictionary with its copy."""
    empty: list[dict[str, Any]] = field(default_factory=list)
    """Registries that were empty."""
    states: list[HeldState] = field(default_factory=list)
    """Saved states of the containers and objects that modules hold."""


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
    def of(cls, model: Any) -> "ModelState":
        """Inspect a model.

        Raises:
            UsageError: it is not an `nn.Module`.
            ModelError: it cannot be traced: TorchScript, quantized, without weights.
        """
        if not isinstance(model, nn.Module):
            kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
            raise UsageError(
                f"a model is a torch.nn.Module, not {kind}; pass an instance, or load one with cs.load_model."
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

    def found(self) -> "SavedState":
        """Save everything that a pass may change in the modules, for `leave_as` to restore."""
        now = SavedState([(tensor, tensor.grad) for tensor in self.parameters.values()])
        held: list[Any] = []
        for module in self.modules.values():
            attributes = module.__dict__
            now.mappings.append((attributes, attributes.copy()))
            for name in REGISTRIES:
                registry = attributes[name]
                if registry:
                    now.mappings.append((registry, dict(registry)))
                else:
                    now.empty.append(registry)
            if type(module) not in PLAIN:
                now.mappings += [(value, value.copy()) for value in attributes.values() if type(value) is dict]
                if len(attributes) > len(OF_MODULES):
                    own = [value for name, value in attributes.items() if name not in OF_MODULES]
                    held += [value for value in own if holds(type(value))]  # type: ignore[arg-type]  # classes hash
        if held:
            now.states = states_of(held)
        return now

    def leave_as(self, found: "SavedState") -> None:
        """Restore the modules' attributes: flags, hooks, registries, caches, gradients, `forward`."""
        for now, before in found.mappings:
            now.update(before)
            if len(now) != len(before):
                _remove_new(now, before)
        for registry in found.empty:
            if registry:
                registry.clear()
        for state in found.states:
            state.put_back()
        for tensor, grad in found.grads:
            if tensor.grad is not grad:
                tensor.grad = grad

    def evaluate(self) -> None:
        """Set every module to eval mode without calling `eval`, which some models override to change their weights."""
        for module in self.modules.values():
            module.__dict__["training"] = False

    def uncompile(self) -> None:
        """Disable compiled forwards of all modules; call between `found` and `leave_as`."""
        for module in self.modules.values():
            module.__dict__["_compiled_call_impl"] = None

    def put(self, name: str, value: Tensor) -> Tensor:
        """Replace the parameter `name` by `value` wherever the model holds it; call between `found` and `leave_as`."""
        before = self.parameters[name]
        after = nn.Parameter(value, requires_grad=False) if isinstance(before, nn.Parameter) else value
        for module in self.modules.values():
            for registry in (module._parameters, module._buffers):
                for key, held in registry.items():
                    if held is before:
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
        seen, attributes = self._seen, module.__dict__
        if "_parameters" not in attributes:
            raise ModelError(
                f"the model cannot be traced: {type(module).__name__}.__init__ does not call super().__init__(), which "
                "every torch.nn.Module needs first."
            )
        if id(module) in seen:
            return
        seen.add(id(module))
        self.modules[path] = module
        self.compiled = self.compiled or attributes.get("_compiled_call_impl") is not None
        prefix = f"{path}." if path else ""
        for registry in (attributes["_parameters"], attributes["_buffers"]):
            for name, tensor in registry.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
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
            where = f"its module {path!r}" if path else "it"
            raise ModelError(f"the model cannot be traced: {where} {reason}.")
        inner = getattr(module, "_modules", {}).get("_orig_mod")
        if inner is not None:
            self.compiled = True
            self.visit(inner, path)
        return inner is not None


def _remove_new(now: dict[str, Any], before: Mapping[str, Any]) -> None:
    if "forward" not in before:
        now.pop("forward", None)  # usually the only new attribute
    if len(now) != len(before):
        for name in now.keys() - before.keys():
            del now[name]


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
