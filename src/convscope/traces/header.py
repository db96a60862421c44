"""Header: everything in a trace except its arrays, as JSON, and the memory that recomputing a call needs. No torch.

Recomputing a genuine call needs about as much memory as its recorded tensors. A forged call may request any size, and
recomputing it would allocate that much.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from convscope.traces.step import Ref, Step
from convscope.typing import Array

FACTOR = 16
"""Intermediate cells that a call may need, as a multiple of its largest tensor: a padded input, for example."""
ROOM = 2**16
"""Cells that any call may need."""
SIZES = ("size", "output_size", "repeats", "steps")
"""Arguments that determine the size of the result."""


def modest(step: Step) -> bool:
    """Whether a step's arguments request no more cells than its tensors suggest."""
    tensors = (*step.results, *(ref for _, _, ref in step.refs()))
    max_cells = FACTOR * (max(math.prod(ref.shape) for ref in tensors) + ROOM)
    return all(cells <= max_cells for cells in _cells(step))


def _cells(step: Step) -> Iterator[float]:
    """The numbers of cells that the arguments request, one for each kind of argument."""
    arguments = step.arguments
    shape = next((ref.shape for _, _, ref in step.refs()), ())
    for name in SIZES:
        yield math.prod(abs(n) or 1 for n in _numbers(arguments.get(name)))
    padding = _numbers(arguments.get("padding"))
    yield _product(n + 2 * abs(p) for n, p in zip(_last(shape, padding), padding, strict=False))
    pad = _numbers(arguments.get("pad"))
    yield _product(n + abs(a) + abs(b) for n, a, b in zip(reversed(shape), pad[::2], pad[1::2], strict=False))
    for name in ("scale_factors", "scale_factor"):
        factors = _numbers(arguments.get(name))
        yield _product(n * abs(f) for n, f in zip(_last(shape, factors), factors, strict=False))
    yield from _counted(step)
    if arguments.get("transposed"):
        stride, dilation, more = (_numbers(arguments.get(n)) for n in ("stride", "dilation", "output_padding"))
        kernel = [ref.shape[2:] for name, _, ref in step.refs() if name == "weight"][:1] or [()]
        axes = zip(_last(shape, stride), stride, dilation, more, kernel[0], strict=False)
        yield _product(n * abs(s) + abs(d) * k + abs(o) for n, s, d, o, k in axes)


def _counted(step: Step) -> Iterator[float]:
    """The numbers of cells requested by `arange`-like operations, and by those that make a square."""
    arguments = step.arguments
    if step.op in {"arange", "range"}:
        start, end, step_size = (
            _number(arguments.get(name), usual) for name, usual in (("start", 0), ("end", 0), ("step", 1))
        )
        yield abs((end - start) / step_size) if step_size else math.inf
    if step.op == "eye":
        rows = _number(arguments.get("n"), 1)
        yield abs(rows * _number(arguments.get("m"), rows))


def _product(numbers: Iterator[float]) -> float:
    return math.prod(map(float, numbers))


def _last(shape: tuple[int, ...], numbers: list[float]) -> tuple[int, ...]:
    """The last axes, one for each of `numbers`."""
    return shape[len(shape) - len(numbers) :] if 0 < len(numbers) <= len(shape) else ()


def _numbers(value: object) -> list[float]:
    """The numbers of an argument that is a number or a list of numbers."""
    listed = value if isinstance(value, list) else [value]
    return [number for number in listed if isinstance(number, int | float)]


def _number(value: object, usual: float) -> float:
    return value if isinstance(value, int | float) else usual


REF = [f.name for f in fields(Ref)]
DEEPEST = 64
"""Maximum nesting depth of values; arguments of operations are at most lists of lists."""


def pack(value: object) -> object:
    """A value as JSON; types that JSON lacks become an object with one key."""
    if isinstance(value, Ref):
        return {"ref": [pack(getattr(value, name)) for name in REF]}
    if isinstance(value, tuple):
        return {"tuple": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, Mapping):
        return {"map": {name: pack(item) for name, item in value.items()}}
    needs_text = isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value))
    return {type(value).__name__: [repr(value)]} if needs_text else value


def unpack(value: object, depth: int = 0) -> Any:
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
    kind, content = _only(value)
    if kind not in UNPACK:
        raise ValueError(f"an unknown kind of value, {kind!r}")
    return UNPACK[kind](content, depth + 1)


def _only(value: Mapping[str, object]) -> tuple[str, object]:
    """The only key of an object, and its value."""
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} keys instead of one")
    return next(iter(value.items()))


def _list(content: object, depth: int) -> list[Any]:
    if not isinstance(content, list):
        raise ValueError(f"{type(content).__name__} instead of a list")  # noqa: TRY004 - one kind of error for all damage
    return [unpack(item, depth) for item in content]


def _map(content: object, depth: int) -> dict[str, object]:
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__} instead of an object")  # noqa: TRY004
    return {name: unpack(item, depth) for name, item in content.items()}


def _ref(content: object, depth: int) -> Ref:
    values = _list(content, depth)
    if len(values) != len(REF):
        raise ValueError(f"a reference of {len(values)} values instead of {len(REF)}")
    return Ref(**dict(zip(REF, values, strict=True)))


def _odd(kind: type[float] | type[complex]) -> Callable[[object, int], complex]:
    def number(content: object, _depth: int) -> complex:
        if (
            not isinstance(content, list)
            or len(content) != 1
            or not isinstance(content[0], str)
            or len(content[0]) > 99
        ):
            raise ValueError(f"a {kind.__name__} that is not written as one")
        return kind(content[0])

    return number


UNPACK: Mapping[str, Callable[[object, int], object]] = {
    "ref": _ref,
    "tuple": lambda content, depth: tuple(_list(content, depth)),
    "map": _map,
    "complex": _odd(complex),
    "float": _odd(float),
}


def pack_result(value: object, arrays: dict[str, Array]) -> object:
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


def unpack_result(value: object, read: Callable[[str], object], depth: int = 0) -> object:
    """The inverse of `pack_result`; `read` returns an array by name.

    Raises:
        ValueError: `pack_result` cannot have returned this value.
    """
    if depth > DEEPEST:
        raise ValueError(f"the result is nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        kind, content = _only(value)
        if kind == "array" and isinstance(content, str):
            return read(content)
        if kind == "map" and isinstance(content, dict):
            return {name: unpack_result(item, read, depth + 1) for name, item in content.items()}
        if kind == "tuple" and isinstance(content, list):
            return tuple(unpack_result(item, read, depth + 1) for item in content)
    plain = unpack(value, depth)
    if plain is not None and not isinstance(plain, bool | int | float | complex | str):
        raise ValueError(f"a result that holds {type(plain).__name__}")
    return plain
