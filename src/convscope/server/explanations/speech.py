"""Words: how a cell and a sum are read aloud. Knows explanations as given."""

from collections.abc import Mapping, Sequence
from typing import Any

from convscope.render.numbers import MINUS, compact

AXES: Mapping[int, tuple[str, ...]] = {
    1: ("unit",),
    2: ("token", "feature"),
    3: ("channel", "row", "column"),
}
"""What the axes of a result are, by how many there are without the batch."""


def cell_words(cell: Sequence[int], shape: Sequence[int]) -> str:
    """A cell as it is read aloud.

    >>> cell_words((0, 3, 10, 12), (1, 8, 28, 28)), cell_words((0, 1), (1, 2))
    ('channel 3, row 10, column 12', 'unit 1')
    """
    shown = list(cell[1:]) if len(cell) > 1 and shape[0] == 1 else list(cell)
    names = AXES.get(len(shown))
    if names is None or len(shown) == len(cell) > 1:
        return "cell " + ", ".join(map(str, shown)) if shown else "its only cell"
    return ", ".join(f"{name} {index}" for name, index in zip(names, shown, strict=True))


def aloud(value: float | str) -> str:
    """A number for a sentence, six digits.

    >>> aloud(-0.8692831), aloud("nan")
    ('−0.869283', 'nan')
    """
    return value.replace("-", MINUS) if isinstance(value, str) else compact(value, 6)


def spoken_sentence(found: Mapping[str, Any]) -> str:
    """An explanation in one sentence for a screen reader, from its JSON, not yet cut."""
    where = cell_words(found["cell"], found["shape"])
    head = f"{found['step']['name']}, {where}, is {aloud(found['recorded'])}"
    expr = found["expr"]
    if expr is None:
        return f"{head}; no rule explains it."
    return f"{head}: {_because(expr)}."


def _because(expr: Mapping[str, Any]) -> str:
    if expr["type"] == "leaf":
        return f"the number {aloud(expr['value'])} of {expr['name']}, passed on"
    if expr["type"] == "apply":
        note = expr["note"]
        return f"{note}: {expr['formula']}" if note else str(expr["formula"])
    left, right, bias = expr["left"], expr["right"], expr["bias"]
    count = len(left["values"])
    if count == 0:
        said = "nothing is added"
    elif right is None:
        said = f"the sum of {count:,} {_plural('number', count)} of {left['name']}"
    else:
        said = f"the sum of {count:,} {_plural('product', count)} of {left['name']} and {right['name']}"
    if expr["divisor"] != 1:
        said += f", divided by {aloud(expr['divisor'])}"
    if expr["scale"] != 1:
        said += f", times {aloud(expr['scale'])}"
    return said + (f", plus {aloud(bias['value'])}" if bias is not None else "")


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
