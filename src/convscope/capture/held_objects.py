"""Held objects: save the state of a model's containers and objects before a pass, and restore it afterwards.

Knows Python's containers and NumPy's arrays; runs no code of the model: attribute access bypasses its methods.
"""

import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor, nn

MOST = 10_000
"""Maximum number of objects to visit: a model may hold a whole data set."""
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
OTHERS = frozenset({"convscope", "torch", "numpy", *sys.stdlib_module_names})
"""Packages whose objects are not inspected."""
_NEITHER = (nn.Module, Tensor, type, types.ModuleType, types.FunctionType, types.MethodType)
_SIMPLE = {str, bool, int, float, complex, bytes, type(None)}


@dataclass(frozen=True, slots=True, eq=False)
class HeldState:
    """A container, an array or an object, and its saved content."""

    holder: Any
    held: Any

    def put_back(self) -> None:
        """Restore the saved content; unchanged parts are left alone."""
        holder, held = self.holder, self.held
        if isinstance(holder, np.ndarray):
            if not np.array_equal(holder.view(np.uint8), held.view(np.uint8)):
                holder[...] = held
        elif isinstance(holder, dict):
            kind = OrderedDict if isinstance(holder, OrderedDict) else dict  # it has an order of its own
            if not _same([*kind.items(holder)], [*held.items()]):
                kind.clear(holder)
                kind.update(holder, held)
        elif isinstance(holder, list):
            list.__setitem__(holder, slice(None), held)
        elif isinstance(holder, set | deque):
            if not _same(holder, held):
                holder.clear()
                (holder.update if isinstance(holder, set) else holder.extend)(held)
        else:
            _put_back_attributes(holder, held)


def states_of(roots: Iterable[Any]) -> list[HeldState]:
    """The states of all containers, arrays and model objects that are reachable from `roots`."""
    results = []
    for value in reached(roots):
        if isinstance(value, dict):
            results.append(HeldState(value, dict(value)))
        elif isinstance(value, list | set | deque):
            results.append(HeldState(value, list(value)))
        elif isinstance(value, np.ndarray):
            if value.flags.writeable and value.flags.c_contiguous and not value.dtype.hasobject and value.ndim:
                results.append(HeldState(value, value.copy()))
        elif is_own(value):
            results.append(HeldState(value, attributes_of(value)))
    return results


def reached(roots: Iterable[Any], more: Callable[[Any], Iterable[Any]] = lambda _: ()) -> Iterator[Any]:
    """Every reachable object, each once; modules, tensors and classes are not entered.

    Args:
        roots: Objects to start from.
        more: Returns additional objects that an object refers to.
    """
    seen: set[int] = set()
    left = deque(roots)
    while left and len(seen) < MOST:
        value = left.popleft()
        if id(value) in seen:
            continue
        if type(value) not in _SIMPLE:
            seen.add(id(value))
        yield value
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, CONTAINERS):
            left.extend(value)
        elif is_own(value):
            left.extend(attributes_of(value).values())
        left.extend(more(value))


def is_own(value: Any) -> bool:
    """Whether this is an object of the user's code, whose attributes are its state."""
    return _is_own_kind(type(value))  # type: ignore[arg-type]  # a class is hashable


@cache
def _is_own_kind(kind: type) -> bool:
    if kind in _SIMPLE or issubclass(kind, (*_NEITHER, *CONTAINERS)):
        return False
    return kind.__module__.partition(".")[0] not in OTHERS


@cache
def holds(kind: type) -> bool:
    """Whether objects of a class may have state that `states_of` saves."""
    return issubclass(kind, (*CONTAINERS, np.ndarray)) or _is_own_kind(kind)  # type: ignore[arg-type]  # a class is hashable


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, including those in slots."""
    attributes = dict(_dict_of(value))
    for name, member in _slots_of(value):
        try:
            attributes[name] = member.__get__(value)
        except AttributeError:  # not set
            continue
    return attributes


def _put_back_attributes(holder: Any, held: dict[str, Any]) -> None:
    attributes, slots = _dict_of(holder), dict(_slots_of(holder))
    for name, member in slots.items():
        if name in held:
            member.__set__(holder, held[name])
        else:
            try:
                member.__delete__(holder)
            except AttributeError:  # still not set
                continue
    for name in [name for name in attributes if name not in held]:
        del attributes[name]
    attributes.update({name: value for name, value in held.items() if name not in slots})


def _dict_of(value: Any) -> dict[str, Any]:
    try:
        result = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return result if isinstance(result, dict) else {}


def _slots_of(value: Any) -> Iterator[tuple[str, Any]]:
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                yield name, member


def _same(now: Iterable[Any], before: Iterable[Any]) -> bool:
    """Whether both hold identical objects in the same order; pairs are compared item by item."""
    ours, theirs = [*now], [*before]
    return len(ours) == len(theirs) and all(
        a is b or (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(map(_is, a, b)))
        for a, b in zip(ours, theirs, strict=True)
    )


def _is(a: Any, b: Any) -> bool:
    return a is b
