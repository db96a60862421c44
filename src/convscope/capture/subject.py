"""Subject: the model that is traced, and how it is left exactly as found.

Knows torch's modules; no operations, no steps.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import ModelError, UnknownName, UsageError

_MAIN = torch.device("cpu")
_TRACEABLE = {kind.__module__ for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
_UNINITIALISED = {nn.UninitializedParameter, nn.UninitializedBuffer}
REGISTRIES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")


_Copied = tuple[dict[str, Any], dict[str, Any]]


@dataclass(slots=True, eq=False)
class Subject:
    """A model, its modules by path, its parameters and buffers by name."""

    model: nn.Module
    modules: Mapping[str, nn.Module]
    parameters: Mapping[str, Tensor]
    """Parameters and buffers, each once, by reference."""
    device: torch.device
    dtype: torch.dtype
    """Of the first parameter that holds fractions; float32 where there is none."""
    compiled: bool
    """Whether it came through torch.compile; then the model inside is traced, uncompiled."""

    @classmethod
    def of(cls, model: Any) -> "Subject":
        """Look at a model.

        Raises:
            UsageError: it is no `nn.Module`.
            ModelError: it is of a kind that cannot be traced: TorchScript, quantised, without weights.
        """
        if not isinstance(model, nn.Module):
            given = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
            raise UsageError(
                f"a model is a torch.nn.Module, not {given}; give cs.trace an instance, or let cs.load_model make one."
            )
        found = _Found()
        found.visit(model, "")
        _refuse(found.parameters)
        first = next((p for p in found.parameters.values() if p.dtype.is_floating_point), None)
        device = next((p.device for p in found.parameters.values()), _MAIN) if first is None else first.device
        dtype = torch.float32 if first is None else first.dtype
        return cls(found.modules[""], found.modules, found.parameters, device, dtype, found.compiled)

    @contextmanager
    def left_as_found(self) -> Iterator[None]:
        """What happens to the modules' attributes inside is undone: flags, hooks, registries, caches, `forward`."""
        kept, empty, lists = self._attributes()
        grads = [(tensor, tensor.grad) for tensor in self.parameters.values()]
        try:
            yield
        finally:
            for now, before in kept:
                now.update(before)
                if len(now) != len(before):
                    _remove_new(now, before)
            for now in empty:
                now.clear()
            for held, items in lists:
                held[:] = items
            for tensor, grad in grads:
                if tensor.grad is not grad:
                    tensor.grad = grad

    def _attributes(self) -> tuple[list[_Copied], list[dict[str, Any]], list[tuple[list[Any], list[Any]]]]:
        """What a pass may change of the modules: mappings with copies, empty registries, lists with copies."""
        kept: list[_Copied] = []
        empty: list[dict[str, Any]] = []
        lists: list[tuple[list[Any], list[Any]]] = []
        for module in self.modules.values():
            attributes = module.__dict__
            kept.append((attributes, attributes.copy()))
            for name in REGISTRIES:
                registry = attributes[name]
                if registry:
                    kept.append((registry, dict(registry)))
                else:
                    empty.append(registry)
            if type(module).__module__ not in _TRACEABLE:
                kept += [(value, value.copy()) for value in attributes.values() if type(value) is dict]
                lists += [(value, value.copy()) for value in attributes.values() if type(value) is list]
        return kept, empty, lists

    def evaluate(self) -> None:
        """Set every module to evaluation, without `eval`, which some models override to change their weights."""
        for module in self.modules.values():
            module.__dict__["training"] = False

    def uncompiled(self) -> Any:
        """A context in which nothing runs compiled; to be entered inside `left_as_found`."""
        if not self.compiled:
            return nullcontext()
        for module in self.modules.values():
            module.__dict__["_compiled_call_impl"] = None
        return torch.compiler.set_stance("force_eager")

    def put(self, name: str, value: Tensor) -> Tensor:
        """Let `value` be the parameter `name`, wherever the model holds it; to be entered inside `left_as_found`."""
        before = self.parameters[name]
        after = nn.Parameter(value, requires_grad=False) if isinstance(before, nn.Parameter) else value
        for module in self.modules.values():
            for registry in (module._parameters, module._buffers):
                for key, held in registry.items():
                    if held is before:
                        registry[key] = after  # type: ignore[assignment]  # a parameter stays one, a buffer too
        return after

    def parameters_now(self) -> dict[str, Tensor]:
        """Parameters and buffers as the model holds them at this moment."""
        found = _Found()
        found.visit(self.model, "")
        return found.parameters

    def named(self, name: str) -> Tensor:
        """A parameter or buffer by name.

        Raises:
            UnknownName: there is none of that name.
        """
        if name not in self.parameters:
            raise UnknownName("parameter", name, self.parameters)
        return self.parameters[name]


def version(tensor: Tensor) -> int:
    """How often a tensor was written into, as torch counts; 0 for one that does not count."""
    return 0 if tensor.is_inference() else tensor._version


class _Found:
    """Modules by path and tensors by name, each once, in the order of definition; without torch.compile's wrappers."""

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.parameters: dict[str, Tensor] = {}
        self.compiled = False
        self._seen: set[int] = set()

    def visit(self, module: nn.Module, path: str) -> None:
        """Find what is in a module.

        Raises:
            ModelError: it cannot be traced.
        """
        if type(module).__module__ not in _TRACEABLE:
            _refuse_module(module, f"its module {path!r}" if path else "it")
            inner = module._modules.get("_orig_mod")
            if inner is not None:
                self.compiled = True
                self.visit(inner, path)
                return
        seen, attributes = self._seen, module.__dict__
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
        for name, child in attributes["_modules"].items():
            if child is not None:
                self.visit(child, prefix + name)


def _remove_new(now: dict[str, Any], before: Mapping[str, Any]) -> None:
    if "forward" not in before:
        now.pop("forward", None)  # mostly the only one
    if len(now) != len(before):
        for name in now.keys() - before.keys():
            del now[name]


def _refuse(parameters: Mapping[str, Tensor]) -> None:
    """Raise for parameters without numbers."""
    for name, tensor in parameters.items():
        if type(tensor) in _UNINITIALISED:
            raise ModelError(
                f"the model cannot be traced: its parameter {name!r} gets its shape from the first input; "
                "run the model once before."
            )
        if tensor.is_meta:
            raise ModelError(
                f"the model cannot be traced: its parameter {name!r} is on the meta device and has no numbers; "
                "load the weights, or call model.to_empty(device='cpu') and initialise them."
            )


def _refuse_module(module: nn.Module, where: str) -> None:
    home = type(module).__module__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"the model cannot be traced: {where} is TorchScript, which has no Python forward to follow; "
            "trace the Python model that it was made from."
        )
    if ".quantized" in home and home.startswith(("torch.ao.nn", "torch.nn")):
        raise ModelError(
            f"the model cannot be traced: {where} is quantised ({type(module).__name__}), whose integer "
            "arithmetic is not followed here; trace the model as it was before quantisation."
        )
