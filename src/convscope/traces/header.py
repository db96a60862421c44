"""Header: pack everything in a trace except its arrays as JSON, and unpack it. Knows steps; no files, no torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from convscope.traces.step import Array, Ref

REF = [f.name for f in fields(Ref)]
DEEPEST = 64
"""Maximum nesting depth of values; arguments of operations are at most lists of lists."""


def pack(value: Any) -> Any:
    """A value as JSON; types that JSON lacks become an object with one key."""
    if isinstance(value, Ref):
        return {"ref": [pack(getattr(value, name)) for name in REF]}
    if isinstance(value, tuple):
        return {"tuple": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, Mapping):
        return {"map": {name: pack(item) for name, item in value.items()}}
    odd = isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value))
    return {type(value).__name__: [repr(value)]} if odd else value


def unpack(value: Any, depth: int = 0) -> Any:
    """The inverse of `pack`.

    Raises:
        ValueError: `pack` cannot have returned this value.
    """
    if depth > DEEPEST:
        raise ValueError(f"values are nested more than {DEEPEST} deep")
    if isinstance(value, list):
        return [unpack(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind, held = _only(value)
    if kind not in UNPACK:
        raise ValueError(f"an unknown kind of value, {kind!r}")
    return UNPACK[kind](held, depth + 1)


def _only(value: Mapping[str, Any]) -> tuple[str, Any]:
    """The only key of an object, and its value."""
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} keys instead of one")
    return next(iter(value.items()))


def _list(held: Any, depth: int) -> list[Any]:
    if not isinstance(held, list):
        raise ValueError(f"{type(held).__name__} instead of a list")  # noqa: TRY004 - one kind of error for all damage
    return [unpack(item, depth) for item in held]


def _map(held: Any, depth: int) -> dict[str, Any]:
    if not isinstance(held, dict):
        raise ValueError(f"{type(held).__name__} instead of an object")  # noqa: TRY004
    return {name: unpack(item, depth) for name, item in held.items()}


def _ref(held: Any, depth: int) -> Ref:
    values = _list(held, depth)
    if len(values) != len(REF):
        raise ValueError(f"a reference of {len(values)} values instead of {len(REF)}")
    return Ref(**dict(zip(REF, values, strict=True)))


def _odd(kind: type[float] | type[complex]) -> Callable[[Any, int], Any]:
    def number(held: Any, _depth: int) -> Any:
        if not isinstance(held, list) or len(held) != 1 or not isinstance(held[0], str) or len(held[0]) > 99:
            raise ValueError(f"a {kind.__name__} that is not written as one")
        return kind(held[0])

    return number


UNPACK: Mapping[str, Callable[[Any, int], Any]] = {
    "ref": _ref,
    "tuple": lambda held, depth: tuple(_list(held, depth)),
    "map": _map,
    "complex": _odd(complex),
    "float": _odd(float),
}


def pack_result(value: Any, arrays: dict[str, Array]) -> Any:
    """A model's return value as JSON; its arrays are added to `arrays`."""
    if isinstance(value, np.ndarray):
        name = f"result/{sum(key.startswith('result/') for key in arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Mapping):
        return {"map": {name: pack_result(item, arrays) for name, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [pack_result(item, arrays) for item in value]}
    return pack(value) if isinstance(value, bool | int | float | complex | str | None) else None


def unpack_result(value: Any, read: Callable[[str], Any], depth: int = 0) -> Any:
    """The inverse of `pack_result`; `read` returns an array by name.

    Raises:
        ValueError: `pack_result` cannot have returned this value.
    """
    if depth > DEEPEST:
        raise ValueError(f"the result is nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        kind, held = _only(value)
        if kind == "array" and isinstance(held, str):
            return read(held)
        if kind == "map" and isinstance(held, dict):
            return {name: unpack_result(item, read, depth + 1) for name, item in held.items()}
        if kind == "tuple" and isinstance(held, list):
            return tuple(unpack_result(item, read, depth + 1) for item in held)
    plain = unpack(value, depth)
    if plain is not None and not isinstance(plain, bool | int | float | complex | str):
        raise ValueError(f"a result that holds {type(plain).__name__}")
    return plain
