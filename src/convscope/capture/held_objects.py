"""Held objects: save the state of a model's containers and objects before a pass, and restore it afterwards.

Uses Python's containers and NumPy's arrays; runs no code of the model: attribute access bypasses its methods.
"""

import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import TypeAlias

import numpy as np
from torch import Tensor, nn

from convscope.typing import Array

MOST = 10_000
"""Maximum number of objects to visit: a model may hold a whole data set."""
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
OTHERS = frozenset({"convscope", "torch", "numpy", *sys.stdlib_module_names})
"""Packages whose objects are not inspected."""
_NEITHER = (nn.Module, Tensor, type, types.ModuleType, types.FunctionType, types.MethodType)
_SIMPLE = {str, bool, int, float, complex, bytes, type(None)}


Restore: TypeAlias = Callable[[], None]
"""Restores the saved content of a container, an array or an object; unchanged parts are left alone."""


def saved_states(roots: Iterable[object]) -> list[Restore]:
    """Save all containers, arrays and model objects that are reachable from `roots`; what is returned restores them."""
    results: list[Restore] = []
    for value in reached(roots):
        if isinstance(value, dict):
            results.append(partial(_restore_dict, value, dict(value)))
        elif isinstance(value, list):
            results.append(partial(list.__setitem__, value, slice(None), list(value)))
        elif isinstance(value, set | deque):
            results.append(partial(_restore_items, value, list(value)))
        elif isinstance(value, np.ndarray):
            if value.flags.writeable and value.flags.c_contiguous and not value.dtype.hasobject and value.ndim:
                results.append(partial(_restore_array, value, value.copy()))
        elif is_own(value):
            results.append(partial(_restore_attributes, value, attributes_of(value)))
    return results


def _restore_dict(holder: dict[object, object], saved: dict[object, object]) -> None:
    kind = OrderedDict if isinstance(holder, OrderedDict) else dict  # it has an order of its own
    if not _same([*kind.items(holder)], [*saved.items()]):
        kind.clear(holder)
        kind.update(holder, saved)


def _restore_items(holder: set[object] | deque[object], saved: list[object]) -> None:
    if not _same(holder, saved):
        holder.clear()
        (holder.update if isinstance(holder, set) else holder.extend)(saved)


def _restore_array(holder: Array, saved: Array) -> None:
    if not np.array_equal(holder.view(np.uint8), saved.view(np.uint8)):
        holder[...] = saved


def reached(roots: Iterable[object], more: Callable[[object], Iterable[object]] = lambda _: ()) -> Iterator[object]:
    """Every reachable object, each once; modules, tensors and classes are not entered.

    Args:
        roots: Objects to start from.
        more: Returns additional objects that an object refers to.
    """
    visited: set[int] = set()
    pending = deque(roots)
    while pending and len(visited) < MOST:
        value = pending.popleft()
        if id(value) in visited:
            continue
        if type(value) not in _SIMPLE:
            visited.add(id(value))
        yield value
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, CONTAINERS):
            pending.extend(value)
        elif is_own(value):
            pending.extend(attributes_of(value).values())
        pending.extend(more(value))


def is_own(value: object) -> bool:
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


def attributes_of(value: object) -> dict[str, object]:
    """The attributes of an object, including those in slots."""
    attributes = dict(_dict_of(value))
    for name, member in _slots_of(value):
        try:
            attributes[name] = member.__get__(value)
        except AttributeError:  # not set
            continue
    return attributes


def _restore_attributes(holder: object, saved: dict[str, object]) -> None:
    attributes, slots = _dict_of(holder), dict(_slots_of(holder))
    for name, member in slots.items():
        if name in saved:
            member.__set__(holder, saved[name])
        else:
            try:
                member.__delete__(holder)
            except AttributeError:  # still not set
                continue
    for name in [name for name in attributes if name not in saved]:
        del attributes[name]
    attributes.update({name: value for name, value in saved.items() if name not in slots})


def _dict_of(value: object) -> dict[str, object]:
    try:
        result = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return result if isinstance(result, dict) else {}


def _slots_of(value: object) -> Iterator[tuple[str, types.MemberDescriptorType]]:
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                yield name, member


def _same(current: Iterable[object], before: Iterable[object]) -> bool:
    """Whether both hold identical objects in the same order; pairs are compared item by item."""
    current_items, earlier_items = [*current], [*before]
    return len(current_items) == len(earlier_items) and all(
        a is b or (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(map(_is, a, b)))
        for a, b in zip(current_items, earlier_items, strict=True)
    )


def _is(a: object, b: object) -> bool:
    return a is b
