"""Call sizes: whether recomputing a recorded call needs about as much memory as its recorded tensors.

A genuine call does, because its result was recorded. A forged one may request any size, and recomputing it would
allocate that much. Knows steps; no NumPy, no torch.
"""

import math
from collections.abc import Iterator
from typing import Any

from convscope.traces.step import Step

FACTOR = 16
"""Intermediate cells that a call may need, as a multiple of its largest tensor: a padded input, for example."""
ROOM = 2**16
"""Cells that any call may need."""
SIZES = ("size", "output_size", "repeats", "steps")
"""Arguments that determine the size of the result."""


def modest(step: Step) -> bool:
    """Whether a step's arguments request no more cells than its tensors suggest."""
    tensors = (*step.results, *(ref for _, _, ref in step.refs()))
    room = FACTOR * (max(math.prod(ref.shape) for ref in tensors) + ROOM)
    return all(cells <= room for cells in _cells(step))


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
        start, end, by = (
            _number(arguments.get(name), usual) for name, usual in (("start", 0), ("end", 0), ("step", 1))
        )
        yield abs((end - start) / by) if by else math.inf
    if step.op == "eye":
        rows = _number(arguments.get("n"), 1)
        yield abs(rows * _number(arguments.get("m"), rows))


def _product(numbers: Iterator[float]) -> float:
    return math.prod(map(float, numbers))


def _last(shape: tuple[int, ...], numbers: list[float]) -> tuple[int, ...]:
    """The last axes, one for each of `numbers`."""
    return shape[len(shape) - len(numbers) :] if 0 < len(numbers) <= len(shape) else ()


def _numbers(value: Any) -> list[float]:
    """The numbers of an argument that is a number or a list of numbers."""
    listed = value if isinstance(value, list) else [value]
    return [number for number in listed if isinstance(number, int | float)]


def _number(value: Any, usual: float) -> float:
    return value if isinstance(value, int | float) else usual
