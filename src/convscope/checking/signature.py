"""How a function is called: which of its parameters is the image, the kernel, the stride.

Parameters are recognised by the names used in PyTorch, NumPy code and courses (`conv_param`, `hparameters`, `cache`),
those with other names by their order. Uses NumPy; uses torch only if the function's file imported it.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.checking.operation import CheckedOperation, Form, Values, names, pair
from convscope.errors import UsageError
from convscope.typing import Array

INPUT = names("x input inputs image images img im a a_prev input_data data array matrix arr xs values z feature_map")
GRADIENT = names("dout grad grad_output grad_out upstream dy da dz delta g grad_y dl_dy output_gradient d_out")
WEIGHT = names("w weight weights kernel kernels filter filters filt k")
BIAS = names("b bias biases")
STRIDE = names("stride strides s step")
PADDING = names("pad padding p pads")
DILATION = names("dilation dilate d")
SIZE = names("kernel_size pool_size size k f window ksize kernel window_size pool filter_size field")
BUNDLES = names(
    "conv_param conv_params pool_param pool_params bn_param bn_params param params hparameters hparams hyperparameters"
)
PARTS: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(names("pool_height pool_h filter_h filter_height field_height kernel_h kernel_height kh fh hh ph"),
                    ("kernel_size", 0)),
    **dict.fromkeys(names("pool_width pool_w filter_w filter_width field_width kernel_w kernel_width kw fw ww pw"),
                    ("kernel_size", 1)),
}  # fmt: skip
SHAPES = names("x_shape input_shape shape in_shape original_shape")
ABSENT: Mapping[str, Callable[[Array], Array]] = {"gamma": np.ones_like, "beta": np.zeros_like}
"""The default of an array that a function has no parameter for; others are left out."""
KEYS: Mapping[str, tuple[str, ...]] = {
    "stride": ("stride",),
    "padding": ("pad", "padding"),
    "kernel_size": ("f", "kernel_size", "pool_size"),
    "eps": ("eps",),
}
"""Setting -> its keys in the dictionaries of courses."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter and the argument it receives."""

    name: str
    role: str
    """array, setting, part, shape, settings, cache or constant."""
    target: str
    axis: int = 0
    keyword: bool = False
    pairs: bool = False
    """Whether it takes rows and columns as a tuple, as its default is one."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How one function is called."""

    operation: CheckedOperation
    slots: tuple[Slot, ...]
    kinds: tuple[str, ...]
    """Kinds of arrays to try, the likeliest first: numpy, torch, lists."""

    @property
    def words(self) -> frozenset[str]:
        """The names of its parameters in lower case."""
        return frozenset(slot.name.lower() for slot in self.slots)

    def forms(self, layout: str | None) -> list[Form]:
        """The layouts to try, the most likely first.

        Raises:
            UsageError: the operation has no such layout.
        """
        layouts = sorted({form.layout for form in self.operation.forms if form.layout})
        if layout is not None and layout not in layouts:
            choices = f"its layouts are {', '.join(layouts)}" if layouts else "it has only one; leave --layout out"
            raise UsageError(f"{self.operation.name} has no layout {layout!r}; {choices}.")
        if layout is not None:
            return [form for form in self.operation.forms if form.layout == layout]
        return [
            form for form in self.operation.forms
            if (not form.only_named or form.only_named & self.words) and not form.never_named & self.words
        ]  # fmt: skip

    def usable(self, values: Values) -> Values | None:
        """The values that this function has parameters for; None if it cannot express the case."""
        has = {slot.target for slot in self.slots}
        bundled = any(slot.role in {"settings", "cache"} for slot in self.slots)
        accepted = has | (self.operation.bundled if bundled else frozenset())
        cached = set(self.operation.cache) if any(slot.role == "cache" for slot in self.slots) else set()
        defaults = self.operation.defaults(values)
        out = dict(values)
        for name in self.operation.settings:
            if name in values and name not in accepted:
                if name in defaults and values[name] != defaults[name]:
                    return None
                out[name] = defaults.get(name, values[name])
        for name in self.operation.optional & values.keys() - has - cached:
            if name not in {"x", "weight"}:
                out[name] = ABSENT[name](values[name]) if name in ABSENT else None
        return out

    def arguments(self, values: Values, form: Form, kind: str, dtype: str) -> tuple[list[object], dict[str, object]]:
        """Positional and keyword arguments; arrays are copies."""
        mapping = {
            name: convert(form.give[name](array) if name in form.give else array, kind, dtype)
            for name, array in values.items()
            if name in self.operation.arrays and array is not None
        }
        settings = _bundle(values, self.operation)
        positional: list[object] = []
        keywords: dict[str, object] = {}
        for slot in self.slots:
            argument = self._argument(slot, values, mapping, settings)
            if slot.keyword:
                keywords[slot.name] = argument
            else:
                positional.append(argument)
        return positional, keywords

    def _argument(
        self, slot: Slot, values: Values, arrays: Mapping[str, Any], settings: Mapping[str, object]
    ) -> object:
        match slot.role:
            case "array":
                argument: object = arrays.get(slot.target)
            case "settings":
                argument = dict(settings)
            case "shape":
                argument = tuple(np.shape(arrays["x"]))
            case "constant":
                argument = self._constant(slot.target, values)
            case "cache":
                parts = [dict(settings) if name == "settings" else arrays.get(name) for name in self.operation.cache]
                argument = parts[0] if len(parts) == 1 else tuple(parts)
            case "part":
                argument = pair(values[slot.target])[slot.axis]
            case _:
                argument = pair(values[slot.target]) if slot.pairs else values[slot.target]
        return argument

    def _constant(self, name: str, values: Values) -> object:
        constant = self.operation.constants[name]
        make = {"zeros": np.zeros, "ones": np.ones}.get(str(constant))
        return make(values["x"].shape[1]) if make else constant


def plan(function: Callable[..., object], operation: CheckedOperation) -> CallPlan:
    """Find out how a function is called.

    >>> from convscope.checking.convolution import CONV2D
    >>> [slot.target for slot in plan(lambda image, kernel, s=1: None, CONV2D).slots]
    ['x', 'weight', 'stride']

    Raises:
        UsageError: a required parameter that is not recognised.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise UsageError(
            f"{name_of(function)} does not list its parameters; wrap it in a function that does."
        ) from None
    parameters = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    roles = _by_name(parameters, operation)
    _by_order(parameters, roles, operation, name_of(function))
    slots = []
    keyword = False
    for p in parameters:
        keyword = keyword or p.kind is p.KEYWORD_ONLY or p.name not in roles  # after one left out, by name
        if p.name in roles:
            role, target, axis = roles[p.name]
            slots.append(Slot(p.name, role, target, axis, keyword, isinstance(p.default, tuple)))
    return CallPlan(operation, tuple(slots), _kinds(function))


def name_of(function: Callable[..., object]) -> str:
    """A function's name for messages."""
    return str(getattr(function, "__name__", type(function).__name__))


def _by_name(parameters: list[inspect.Parameter], operation: CheckedOperation) -> dict[str, tuple[str, str, int]]:
    roles: dict[str, tuple[str, str, int]] = {}
    assigned: set[str] = set()
    for p in parameters:
        role = _role(p.name.lower(), operation, assigned)
        if role is not None:
            roles[p.name] = role
            assigned.add(role[1])
    return roles


def _role(word: str, operation: CheckedOperation, assigned: set[str]) -> tuple[str, str, int] | None:
    if word == "cache" and operation.cache:
        return "cache", "cache", 0
    if word in BUNDLES:
        return "settings", "settings", 0
    if word in PARTS and PARTS[word][0] in operation.settings:
        return "part", *PARTS[word]
    if word in operation.constants:
        return "constant", word, 0
    for role, table in (("array", operation.arrays), ("setting", operation.settings)):
        for name, spellings in table.items():
            if word in spellings and name not in assigned:
                return role, name, 0
    return ("shape", "shape", 0) if word in SHAPES and "x" in operation.arrays else None


def _by_order(
    parameters: list[inspect.Parameter],
    roles: dict[str, tuple[str, str, int]],
    operation: CheckedOperation,
    function: str,
) -> None:
    """Assign the remaining arrays and settings, in their usual order, to the parameters without a role."""
    required = [p.name for p in parameters if p.default is p.empty]
    cached = any(role == "cache" for role, _, _ in roles.values())
    assigned = {target for _, target, _ in roles.values()}
    needed = [a for a in operation.arrays if a not in operation.optional and not (cached and a in operation.cache)]
    unknown = [name for name in required if name not in roles]
    if len(unknown) < sum(a not in assigned for a in needed) and len(required) >= len(needed):
        roles.clear()  # the names mislead: take all by their order
        unknown, assigned = required, set()
    usual = [*((("array", a)) for a in operation.arrays), *((("setting", s)) for s in operation.settings)]
    remaining = [(role, name) for role, name in usual if name not in assigned]
    if len(unknown) > len(remaining):
        raise UsageError(
            f"the parameter {unknown[len(remaining)]!r} of {function} is not one of {operation.name}'s: "
            f"{', '.join(name for _, name in usual)}. Rename it, or give it a default."
        )
    for name, (role, target) in zip(unknown, remaining, strict=False):
        roles[name] = (role, target, 0)
    missing = [a for a in needed if a not in {target for _, target, _ in roles.values()}]
    if missing and not any(role == "shape" for role, _, _ in roles.values()):
        raise UsageError(
            f"{function} has no parameter for {' and '.join(missing)}; {operation.name} takes "
            f"{', '.join(name for _, name in usual)}."
        )


def _bundle(values: Values, operation: CheckedOperation) -> dict[str, object]:
    """The dictionary of a course: conv_param, pool_param, bn_param, hparameters."""
    out: dict[str, object] = {"mode": "train"} if "eps" in operation.bundled else {}
    for name in operation.bundled:
        value = values[name] if name in values else operation.defaults(values)[name]
        out |= dict.fromkeys(KEYS[name], value)
        if name == "kernel_size":
            out |= {"pool_height": pair(value)[0], "pool_width": pair(value)[1]}
    return out


def _kinds(function: Callable[..., object]) -> tuple[str, ...]:
    """numpy, torch or lists first, by what the function's code and annotations name."""
    code = getattr(function, "__code__", None)
    scope = getattr(function, "__globals__", {})
    used = [scope.get(name) for name in getattr(code, "co_names", ())]
    homes = {str(getattr(value, "__name__", "")).partition(".")[0] for value in used if inspect.ismodule(value)}
    noted = " ".join(map(str, getattr(function, "__annotations__", {}).values())).lower()
    first = ["torch"] if "torch" in homes or "tensor" in noted else ["lists"] if "list" in noted else []
    return tuple(dict.fromkeys([*first, "numpy", *(["torch"] if "torch" in sys.modules else []), "lists"]))


def convert(value: object, kind: str, dtype: str) -> object:
    """A copy of an array in the type that the function expects; scalars are returned unchanged."""
    if not isinstance(value, np.ndarray):
        return value
    array = np.array(value, dtype if value.dtype.kind == "f" else value.dtype)
    if kind == "lists":
        return array.tolist()
    if kind == "torch":
        return sys.modules["torch"].from_numpy(array)
    return array
