"""Workbook: a network as a spreadsheet of live formulas, from the pixels to the answer."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from convscope.capture.call_inputs import Inputs
from convscope.capture.tracing import trace
from convscope.errors import UsageError
from convscope.escaping import spelled
from convscope.export.chain import Chain, NearTie, TooLarge, below
from convscope.export.chain_numbers import UPDATE, Key, Numbers
from convscope.export.layout import Layout
from convscope.export.sheets import draw
from convscope.export.xlsx import check_workbook_path, save, xlsxwriter
from convscope.expr.call import Cell, full_cell
from convscope.inputs.model_inputs import prepare_inputs
from convscope.traces.trace import Trace
from convscope.training.runs import Model, Run, as_model
from convscope.type_checks import kind_of, takes
from convscope.typing import Array

MOST = 125_000
"""Maximum number of numbers in a workbook, pixels and weights included: larger ones load slowly."""


@dataclass(eq=False)
class Workbook:
    """A network as a spreadsheet: `print` it to see its size, `save` it to a file.

    >>> import convscope as cs
    >>> print(workbook("crosses", "crosses:plus"))
    crosses on crosses:plus: 30 numbers on 7 sheets, 11 of them formulas
    """

    trace: Trace = field(repr=False)
    title: str
    """The model and its image."""
    roots: list[tuple[Key, Array]] = field(repr=False)
    """The numbers that the workbook explains, as tensors and flat positions."""
    chain: Chain = field(repr=False)
    """Every number that they depend on."""

    @property
    def numbers(self) -> int:
        """How many numbers it holds, without the recorded ones and the differences."""
        return self.chain.size

    @property
    def formulas(self) -> int:
        """How many of them are formulas; the others are pixels and parameters."""
        return sum(map(len, self.chain.calculated))

    @cached_property
    def layout(self) -> Layout:
        """Where each number is written."""
        return Layout(self.chain)

    @property
    def beyond(self) -> list[str]:
        """Numbers whose calculation from the image is farther from the recorded number than its bound."""
        return [
            numbers.label(index)
            for numbers in self._calculated()
            for index in np.flatnonzero(~(np.abs(numbers.live - numbers.recorded) <= numbers.bound)).tolist()
        ]

    @property
    def unbounded(self) -> int:
        """How many numbers have no bound, because a function jumps at inexact numbers."""
        return sum(int(np.isinf(numbers.bound).sum()) for numbers in self._calculated())

    @property
    def ties(self) -> list[NearTie]:
        """The choices of a maximum or ReLU that are closer than the bounds."""
        self._calculated()
        return self.chain.ties

    def _calculated(self) -> list[Numbers]:
        """The numbers with formulas, calculated from the image; `save` does that on the way."""
        if not self.chain.finished:
            self.chain.calculate()
        return self.chain.calculated

    def __str__(self) -> str:
        sheets = len(self.layout.names)
        return spelled(f"{self.title}: {self.numbers:,} numbers on {sheets} sheets, {self.formulas:,} of them formulas")

    def summary(self) -> str:
        """A sentence on how the numbers calculated from the image compare with the recorded ones."""
        beyond, counted = self.beyond, f"{self.formulas:,} numbers calculated from the image"
        if beyond:
            text = f"{len(beyond):,} of {counted} are beyond their bounds, the first is {beyond[0]}"
        elif self.unbounded:
            text = f"{self.unbounded:,} of {counted} have no bound, the others are within theirs"
        else:
            text = f"{counted}, all within their bounds"
        return text + (f"; near-ties of a maximum or ReLU: {len(self.ties):,}" if self.ties else "")

    def save(self, path: str | Path) -> None:
        """Calculate every number from the image in float64, and write the workbook.

        Raises:
            UsageError: an operation that cannot be written as a formula, or XlsxWriter is not installed.
            ConvscopeError: the file cannot be written.
        """
        content = BytesIO()
        draw(content, self.title, self.layout, self.roots)
        save(path, content.getvalue())


@takes(model="Module | Trace | Run | str | Path", at="tuple | list")
def workbook(
    model: Model | Run | Trace,
    image: Inputs | str | Path | None = None,
    *,
    target: object = None,
    loss: object = None,
    optimizer: object = None,
    lr: float | None = None,
    at: tuple[str, Cell] | None = None,
    out: str | Path | None = None,
    name: str = "",
) -> Workbook:
    """A network or its training step as a spreadsheet of live formulas: change a pixel, and the answer changes.

    Every number is a formula of its inputs, so *trace precedents* leads from the answer to the pixels. Each step has a
    sheet with its kernels and biases; two more contain the recorded numbers and the differences from them, beside the
    allowed differences. There are no macros and no links to other files.

    >>> book = workbook("crosses", "crosses:plus", at=("conv1", (0, 1, 1)))
    >>> book.numbers, book.formulas
    (20, 1)

    With a target it goes on to the loss, the backward pass and, with an optimizer, the new parameters; the label, the
    learning rate and the optimizer's state can then be changed, too:

    >>> print(workbook("crosses", "crosses:plus", target=0, loss="mse", optimizer="adadelta", lr=1.0))
    crosses on crosses:plus: 108 numbers on 19 sheets, 65 of them formulas

    Args:
        model: A module, a run, anything that `cs.load_model` takes, or a trace.
        image: What `cs.load_image` takes, or a batch as `cs.trace` takes it; not for a trace.
        target: The label of each image, as `cs.trace` takes it: writes the whole training step.
        loss: Its loss, such as "mse".
        optimizer: Its optimizer: a name, or one with its state.
        lr: The learning rate of an optimizer by name.
        at: A step and a cell, to write only the numbers that this one depends on; needed for large networks.
        out: Where to write it, a file .xlsx; None to call `save` later.
        name: The image's name on the first sheet, by default as it was loaded.

    Raises:
        UsageError: it would hold more than 125,000 numbers, a number that is not finite, or an operation that cannot
            be written as a formula; or XlsxWriter is not installed.
        ConvscopeError: as raised by `cs.trace`.
    """
    xlsxwriter()  # where it is missing, or the path is wrong, no work is done
    if out is not None:
        check_workbook_path(out)
    step = {"target": target, "loss": loss, "optimizer": optimizer, "lr": lr}
    if isinstance(model, Trace):
        if any(value is not None for value in step.values()):
            raise UsageError("a trace already contains its training step; leave out target, loss, optimizer and lr.")
        recorded, image_name = model, ""
    else:
        recorded, image_name = _traced(model, image, step)
    title = " on ".join(filter(None, (recorded.card.name, name or image_name)))
    changed = recorded.changed()
    if changed:
        raise UsageError(f"{changed[0]} changed since the trace; trace the model again.")
    roots = [_cell(recorded, at)] if at is not None else [*_returned(recorded)]
    if at is None:
        size = _size_of_all(recorded)
        if size > MOST:
            raise _too_large(title, f"{size:,}", recorded)
    name = title if at is None else f"the part of {title} below {at[0]}"
    try:
        chain = below(recorded, roots if at is not None else [*roots, *_state(recorded)], MOST, everything=at is None)
    except TooLarge as large:
        raise _too_large(name, f"{large.count:,} or more", recorded, at) from None
    book = Workbook(recorded, title, roots, chain)
    if out is not None:
        book.save(out)
    return book


def _traced(model: Model | Run, image: Inputs | str | Path | None, step: Mapping[str, Any]) -> tuple[Trace, str]:
    """The trace, and the name of the image."""
    if step["target"] is None:
        loaded = as_model(model)
        inputs = prepare_inputs(image, loaded)
        return trace(loaded, inputs.value, **step), inputs.name
    return trace(model, image, **step), image if isinstance(image, str) else ""


def _cell(trace: Trace, number: tuple[str, Cell]) -> tuple[Key, Array]:
    """One number."""
    pair: object = number
    if not isinstance(pair, tuple | list) or len(pair) != 2 or isinstance(pair[1], str):
        raise UsageError(f"at is a step and a cell, such as ('conv1', (0, 1, 1)), not {kind_of(pair)}.")
    name, cell = number
    step = trace[name]
    full = full_cell(cell, step.shape, step.name)
    flat = int(np.ravel_multi_index(full, step.shape)) if full else 0
    return Key("step", step.name), np.array([flat])


def _returned(trace: Trace) -> Iterator[tuple[Key, Array]]:
    """The model's outputs; of a training step also the loss, and the new parameters or their gradients."""
    yield from _outputs(trace)
    step = trace.training_step
    if step is not None:
        gradients = [ref for name, ref in step.gradients.items() if name not in trace.inputs]
        for ref in (step.loss, *(step.updated.values() or gradients)):
            yield Key("step", ref.name, ref.output), np.arange(math.prod(ref.shape))


def _state(trace: Trace) -> Iterator[tuple[Key, Array]]:
    """The optimizer's new state."""
    for step in trace.all_steps:
        if step.op.startswith(UPDATE):
            yield Key("step", step.name), np.arange(math.prod(step.shape))


def _outputs(trace: Trace) -> Iterator[tuple[Key, Array]]:
    refs = [ref for ref in trace.returned or () if ref.kind == "step"]
    for ref in refs:
        yield Key("step", ref.name, ref.output), np.arange(math.prod(ref.shape))
    if not refs:
        step = trace.steps[-1]
        yield Key("step", step.name), np.arange(math.prod(step.shape))


def _size_of_all(trace: Trace) -> int:
    steps = sum(math.prod(step.shape) for step in trace.steps)
    return steps + sum(math.prod(ref.shape) for (kind, _), ref in trace.outside.items() if kind != "constant")


def _too_large(name: str, size: str, trace: Trace, number: tuple[str, Cell] | None = None) -> UsageError:
    step = next((s for s in trace.steps if s.op in {"convolution", "relu"}), trace.steps[0])
    cell = ",".join("0" for _ in step.shape[1:])
    advice = "one number, to write only what it depends on" if number is None else "a number of an earlier step"
    advice = advice if trace.training_step is None else f"a smaller network, fewer images, or {advice}"
    return UsageError(
        f"{name} has {size} numbers, and a workbook holds {MOST:,}; choose {advice}: --at {step.name}:{cell}, "
        f"in Python at=({step.name!r}, ({', '.join('0' for _ in step.shape[1:])}))."
    )
