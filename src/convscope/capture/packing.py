"""Packing: what a trace holds besides arrays, as JSON and back. Knows steps; no files, no torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from convscope.capture.step import Array, Ref

REF = [f.name for f in fields(Ref)]


def pack(value: Any) -> Any:
    """As JSON: what JSON has no word for is an object with one key."""
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


def unpack(value: Any) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, held = next(iter(value.items()))
    return UNPACK[kind](held)


UNPACK: Mapping[str, Callable[[Any], Any]] = {
    "ref": lambda held: Ref(**dict(zip(REF, map(unpack, held), strict=True))),
    "tuple": lambda held: tuple(map(unpack, held)),
    "map": lambda held: {name: unpack(item) for name, item in held.items()},
    "complex": lambda held: complex(held[0]),
    "float": lambda held: float(held[0]),
}


def pack_result(value: Any, arrays: dict[str, Array]) -> Any:
    """What a model returned as JSON, its arrays among the others."""
    if isinstance(value, np.ndarray):
        name = f"result/{sum(key.startswith('result/') for key in arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Mapping):
        return {"map": {name: pack_result(item, arrays) for name, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [pack_result(item, arrays) for item in value]}
    return pack(value) if isinstance(value, bool | int | float | complex | str | None) else None


def unpack_result(value: Any, read: Callable[[str], Array]) -> Any:
    """What `pack_result` was given."""
    if isinstance(value, dict) and "array" in value:
        return read(value["array"])
    if isinstance(value, dict) and "map" in value:
        return {name: unpack_result(item, read) for name, item in value["map"].items()}
    if isinstance(value, dict) and "tuple" in value:
        return tuple(unpack_result(item, read) for item in value["tuple"])
    return unpack(value)
