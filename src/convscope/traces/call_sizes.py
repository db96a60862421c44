"""Sizes: whether a recorded call could be made again in about the memory that its recorded tensors take.

An honest call can: its result is recorded. A forged one may ask for any size, and recomputing it would take that much.
Knows steps; no NumPy, no torch.
"""

import math
from collections.abc import Iterator
from typing import Any

from convscope.traces.step import Step

FACTOR = 16
"""How many times as many cells as a call's largest tensor it may handle in between: a padded input, for one."""
ROOM = 2**16
"""Cells that any call may handle."""
SIZES = ("size", "output_size", "repeats", "steps")
"""Arguments that say how large a result is."""


def modest(step: Step) -> bool:
    """Whether a step's arguments ask for no more cells than its tensors lead to expect."""
    tensors = (*step.results, *(ref for _, _, ref in step.refs()))
    room = FACTOR * (max(math.prod(ref.shape) for ref in tensors) + ROOM)
    return all(cells <= room for cells in _cells(step))


def _cells(step: Step) -> Iterator[float]:
    """How many cells the arguments ask for, each in its way."""
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
    """Of operations that count up, or make a square."""
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
    """As many axes as there are numbers, the last ones."""
    return shape[len(shape) - len(numbers) :] if 0 < len(numbers) <= len(shape) else ()


def _numbers(value: Any) -> list[float]:
    """The numbers of an argument that is one, or a list of them."""
    listed = value if isinstance(value, list) else [value]
    return [number for number in listed if isinstance(number, int | float)]


def _number(value: Any, usual: float) -> float:
    return value if isinstance(value, int | float) else usual
