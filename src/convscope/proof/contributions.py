"""Contributions: one number as a sum over the pixels of the image, plus a constant. Uses traces and rules.

For a piecewise linear network the sum is exact: the weights are found by following the number back through every step,
the constant by collecting every bias and shift on the way, and the two together must give the number again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convscope.escaping import first_few, joined
from convscope.expr.call import Cell, Source
from convscope.json_values import plain_number
from convscope.ops import OPS, Op
from convscope.progress import Progress, silent
from convscope.proof.backward import backward
from convscope.render.numbers import NumberScale, short, small
from convscope.render.sums import RULE, Row, indented, render
from convscope.render.to_json import plain_numbers
from convscope.rich_display import RichDisplay
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array

OURS = 1e-12
"""Our own rounding, in float64, as a share of all that is added."""


@dataclass(frozen=True, slots=True, eq=False)
class Contributions(RichDisplay):
    """One number as contributions of input pixels plus a constant.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Conv2d(1, 1, 2), torch.ones(1, 2, 2))
    >>> answer = contributions(trace, trace["conv2d"], (0, 0, 0, 0))
    >>> bool(abs(answer.total - answer.value) <= answer.bound), answer.linear
    (True, True)
    """

    name: str
    """The step and cell, as a person reads them."""
    value: float
    """The number, as recorded."""
    pixels: Mapping[str, Array] = field(repr=False)
    """For each input what each of its cells adds, float64, in the input's shape."""
    weights: Mapping[str, Array] = field(repr=False)
    """The weight of each cell: the derivative of the number with respect to it."""
    constant: float
    """The contribution of biases, shifts and constant tensors; collected from them, not by subtraction."""
    bound: float
    """Bound of |total - value| by the rounding of all steps on the way; NaN if one is unknown."""
    rounding: float
    """The actual difference by the reference: recorded minus recomputed results of each step, times weights."""
    slack: float
    """Error of that difference by the float64 rounding of the reference and vector-Jacobian products."""
    bent: tuple[str, ...]
    """The steps on the way that are not piecewise linear: their tangent at the recorded numbers stands for them."""
    broken: tuple[str, ...] = ()
    """The steps on the way that take numbers which left PyTorch: what the image adds through these is unknown, and
    counted in the constant."""

    @property
    def linear(self) -> bool:
        """Whether every step on the way is known to be piecewise linear: then this is the number itself."""
        return not self.bent and not self.broken

    @property
    def total(self) -> float:
        """The contributions and the constant, added up."""
        return sum(float(p.sum()) for p in self.pixels.values()) + self.constant

    @property
    def residual(self) -> float:
        """value - contributions - constant: what the check leaves over."""
        return self.value - self.total

    @property
    def left(self) -> float:
        """The residual without PyTorch's rounding."""
        return self.residual - self.rounding

    @property
    def checks(self) -> bool:
        """Whether the residual is within the bound, and nothing but PyTorch's rounding."""
        return abs(self.residual) <= self.bound and abs(self.left) <= self.slack

    def to_text(self) -> str:
        """The positive and negative contributions, the constant, the check, and the largest contributions."""
        return joined(_page(self))

    def to_json(self) -> dict[str, Any]:
        """Every contribution in full precision; docs/reference/explanation.md has the schema."""
        return {
            "format": "convscope contributions 1",
            "name": self.name,
            "value": plain_number(self.value),
            "constant": plain_number(self.constant),
            "total": plain_number(self.total),
            "residual": plain_number(self.residual),
            "bound": plain_number(self.bound),
            "rounding": plain_number(self.rounding),
            "left": plain_number(self.left),
            "slack": plain_number(self.slack),
            "linear": self.linear,
            "bent": list(self.bent),
            "broken": list(self.broken),
            "inputs": {
                name: {
                    "shape": list(array.shape),
                    "contributions": plain_numbers(array.reshape(-1)),
                    "weights": plain_numbers(self.weights[name].reshape(-1)),
                }
                for name, array in self.pixels.items()
            },
        }

    def __str__(self) -> str:
        return self.to_text()


@np.errstate(all="ignore")  # numbers may be infinite
def contributions(
    trace: Trace,
    step: Step,
    cell: Cell,
    output: int = 0,
    name: str = "",
    *,
    ops: Mapping[str, Op] = OPS,
    progress: Progress = silent,
) -> Contributions:
    """Follow one number of a step back to the inputs.

    Args:
        cell: A full index of the step's result.
        name: The label of the number; by default the step's name.
        ops: Another table of operations.
        progress: Receives how many steps are done.

    Raises:
        UsageError: a step on the way has no vector-Jacobian product, or cannot be followed.
    """
    flow = backward(trace, step, cell, output, ops=ops, progress=progress)
    pixels = {n: np.where(w == 0, 0.0, w * trace.inputs[n]) for n, w in flow.inputs.items()}
    value = float(step.outputs[output][cell])
    added = sum(float(np.abs(p).sum()) for p in pixels.values()) + abs(flow.constant) + abs(value)
    return Contributions(
        name or step.name,
        value,
        pixels,
        flow.inputs,
        flow.constant,
        bound=flow.bound + OURS * added,
        rounding=flow.rounding,
        slack=flow.slack + OURS * added,
        bent=tuple(dict.fromkeys(reversed(flow.bent))),
        broken=tuple(dict.fromkeys(reversed(flow.broken))),
    )


def _page(answer: Contributions) -> list[str]:
    total = answer.total
    every = np.concatenate([p.reshape(-1) for p in answer.pixels.values()])
    parts = [float(every[every > 0].sum()), float(every[every < 0].sum()), answer.constant]
    scale = NumberScale.of([*parts, answer.value])
    rounding = scale.units(total) - sum(map(scale.units, parts)) if np.isfinite([*parts, total]).all() else 0
    rows: list[Row | str] = [
        Row(f"{np.count_nonzero(every > 0):,} cells of the input that add", scale.show(parts[0])),
        Row(f"{np.count_nonzero(every < 0):,} cells that take away", scale.show(parts[1])),
        Row("constant: biases and shifts" + ", and what is unknown" * bool(answer.broken), scale.show(parts[2])),
        *([Row("rounding of the numbers shown", scale.text(rounding))] if rounding else []),
        RULE,
        Row("added up", scale.show(total)),
        Row("recorded", scale.show(answer.value)),
        Row("difference", small(answer.residual), f"allowed ± {small(answer.bound)}"),
        Row("of it PyTorch's rounding", small(answer.rounding), "as the NumPy reference finds it"),
        Row("left over", small(answer.left), f"allowed ± {small(answer.slack)}"),
    ]
    return [f"{answer.name} = {short(answer.value)}", _kind(answer), "", *indented(render(rows)), "", *_largest(answer)]


def _kind(answer: Contributions) -> str:
    if answer.broken:
        return (
            f"unknown: the chain to the image is broken at {first_few(answer.broken)}, which takes numbers that left "
            "PyTorch; what the image adds through these is not followed"
        )
    if answer.linear:
        return "what each cell of the input adds; exact, because every step on the way is piecewise linear"
    return f"the tangent at this input, because these are not piecewise linear: {first_few(answer.bent)}"


def _largest(answer: Contributions, count: int = 8) -> list[str]:
    rows: list[Row | str] = []
    for name, pixels in answer.pixels.items():
        source = Source(name, "input", pixels.shape)
        order = np.argsort(-np.abs(pixels).reshape(-1), kind="stable")[:count]
        cells = [tuple(map(int, np.unravel_index(int(i), pixels.shape))) for i in order]
        scale = NumberScale.of([float(pixels[cell]) for cell in cells])
        rows += [
            Row(
                source.label(cell),
                scale.show(float(pixels[cell])),
                f"= weight {short(float(answer.weights[name][cell]))} × cell",
            )
            for cell in cells
            if pixels[cell]
        ]
    none = "no cell of the input is known to count" if answer.broken else "no cell of the input counts"
    return ["the cells that count most", "", *indented(render(rows))] if rows else [none]
