"""Trace: the ordered steps of one forward pass. Uses NumPy; no torch: numbers come from an `ArchiveSource`."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, Self

from convscope.cards.card import Card
from convscope.errors import UnknownName, UsageError
from convscope.escaping import spelled
from convscope.expr.call import full_cell
from convscope.render.numbers import table
from convscope.rich_display import RichDisplay
from convscope.traces.archive import Archive, ArchiveSource, write
from convscope.traces.step import Cell, Kind, Origin, Ref, Step, TrainingStep, Values, notes_of
from convscope.type_checks import refuse_huge, takes
from convscope.typing import Array

__all__ = [
    "ArchiveSource",
    "Array",
    "Cell",
    "Kind",
    "Origin",
    "Parameters",
    "Ref",
    "Step",
    "Trace",
    "TrainingStep",
    "Values",
]

LISTED, TAIL = 60, 12
"""Lines of a printed trace, and those of them at its end."""


class Parameters(Mapping[str, Array]):
    """A model's parameters and buffers by name, held by reference: their current numbers, read-only."""

    def __init__(self, source: ArchiveSource) -> None:
        self._source = source

    def __getitem__(self, name: str) -> Array:
        if name not in self._source.parameters:
            raise UnknownName("parameter", name, self._source.parameters)
        return self._source.parameter(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.parameters)

    def __len__(self) -> int:
        return len(self._source.parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._source.parameters

    def changed(self) -> tuple[str, ...]:
        """Names of those that were modified or replaced since the trace."""
        return self._source.changed()


class Trace(RichDisplay):
    """Every step of one forward pass, with all its numbers.

    >>> import torch, convscope as cs
    >>> trace = cs.trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), torch.ones(1, 5, 5))
    >>> trace.steps
    (<0 0: convolution 1x2x3x3 float32>, <1 1: relu 1x2x3x3 float32>)
    >>> trace["1"].output.shape, trace.operand("1", "self").shape
    ((1, 2, 3, 3), (1, 2, 3, 3))
    """

    def __init__(self, source: ArchiveSource) -> None:
        self._source = source

    @cached_property
    def parameters(self) -> Parameters:
        """Parameters and buffers by name; `trace.parameters.changed()` names those changed since the trace."""
        return Parameters(self._source)

    @cached_property
    def all_steps(self) -> tuple[Step, ...]:
        """Every operation in order; `all_steps[i].id == i`."""
        return self._source.steps()

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The visible operations; layout and preparation are hidden."""
        return tuple(step for step in self.all_steps if not step.hidden)

    @cached_property
    def _by_name(self) -> dict[str, Step]:
        aliases = {alias: step for step in reversed(self.all_steps) for alias in step.aliases}
        return aliases | {step.name: step for step in self.all_steps}

    def __getitem__(self, key: str | int) -> Step:
        """A step by name or by id.

        Raises:
            UnknownName: unknown name; the message lists the closest ones.
            UsageError: unknown id.
        """
        if not isinstance(key, str):
            try:
                key = index(key)
            except Exception:  # whatever a class of the user raises, it names no step
                kind = type(key).__name__
                raise UsageError(f"a step is looked up by name or id, not by a {kind}.") from None
            refuse_huge("trace", "step", key)
            if not 0 <= key < len(self.all_steps):
                raise UsageError(f"the trace has steps 0 to {len(self.all_steps) - 1}, not {key}.")
            return self.all_steps[key]
        if key not in self._by_name:
            raise UnknownName("step", key, [step.name for step in self.steps], self._reason_without(key))
        return self._by_name[key]

    def _reason_without(self, key: str) -> str:
        """Why there is no gradient or new value of that name, where that is known."""
        name, _, kind = key.rpartition(".")
        if kind not in {"grad", "updated"}:
            return ""
        if self.training_step is None:
            arguments = "target=labels" + (" and optimizer='sgd'" if kind == "updated" else "")
            return f"Gradients and updates belong to a training step: pass the labels of these images, {arguments}."
        if kind == "updated" and not self.training_step.optimizer:
            return "New weights are made by an optimizer: pass optimizer='sgd', or one of your own."
        if name in self.parameters and name not in self.training_step.gradients:
            return f"{name} is frozen or a buffer: it has no gradient."
        return ""

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __repr__(self) -> str:
        plural = "s" * (len(self.steps) != 1)
        return spelled(f"<Trace of {self.card.name}: {len(self.steps)} step{plural}>")

    def __str__(self) -> str:
        """The steps as a table: name, operation, shape, parameters; the middle of a long one is left out."""
        rows = [(step.name, step.says, _size(step.shape), ", ".join(self.parameters_of(step))) for step in self.steps]
        lines = [spelled(line) for line in table([("step", "operation", "shape", "parameters"), *rows], "<<<<")]
        if len(lines) > LISTED:
            left_out = len(lines) - LISTED
            lines[LISTED - TAIL : -TAIL] = [f"... {left_out:,} more steps: trace.steps"]
        return "\n".join([repr(self), *lines, *(f"note: {note}" for note in self.notes)])

    @takes(step="Step")
    def parameters_of(self, step: Step) -> tuple[str, ...]:
        """The parameters of a step with their shapes: `conv1.weight 8x1x3x3`."""
        shapes = {ref.name: ref.shape for ref in self.outside.values() if ref.kind == "parameter"}
        names = sorted(
            step.parameters.values(), key=lambda name: -len(shapes.get(name, ()))
        )  # a weight before its bias
        return tuple(f"{name} {_size(shapes[name])}" if name in shapes else name for name in names)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Notes on the pass: what was not kept, and where the chain to the image is broken."""
        return (*self._source.notes, *notes_of(self.all_steps))

    @cached_property
    def inputs(self) -> Mapping[str, Array]:
        """The inputs by name, as the model received them: `input` for a single image, with a batch axis."""
        return {name: self._source.input(name) for name in self._source.inputs}

    @property
    def input(self) -> Array:
        """The image: the first input, with a batch axis."""
        return next(iter(self.inputs.values()))

    @cached_property
    def constants(self) -> tuple[Array, ...]:
        """Tensors that are neither inputs nor parameters but were read by the pass, indexed by the id of their Ref."""
        return tuple(self._source.constant(place) for place in range(self._source.constants))

    @cached_property
    def output(self) -> Any:
        """The model's return value: an array, or a tuple or dict of arrays."""
        return self._source.result()

    @cached_property
    def returned(self) -> tuple[Ref, ...] | None:
        """The reference of each tensor in the output, in order; None in files of the first format, which lack it."""
        return self._source.returned()

    @cached_property
    def training_step(self) -> TrainingStep | None:
        """Loss, gradients and update; None for a forward pass alone."""
        return self._source.training_step

    @property
    def saved(self) -> bool:
        """Whether the trace was read from a file, so that its numbers are only as trustworthy as the file."""
        return self._source.saved

    @property
    def card(self) -> Card:
        """The model's expected input and the meaning of its outputs."""
        return self._source.card

    @property
    def model_type(self) -> str:
        """The model's class, with its Python module."""
        return self._source.model_type

    @property
    def modules(self) -> Mapping[str, str]:
        """Module path -> class name, in the order of definition; "" is the model."""
        return self._source.modules

    @property
    def weights(self) -> str:
        """A digest of all parameters and buffers: traces of a model with the same weights have the same digest."""
        return self._source.weights

    @takes()
    def save(self, path: str | Path) -> None:
        """Write the trace to one file: numbers, image, weights and the model's description. Nothing is pickled.

        Raises:
            TraceError: the weights changed since the trace.
            UsageError: the file cannot be written.
        """
        write(path, self._source)

    @classmethod
    @takes()
    def load(cls, path: str | Path) -> Self:
        """Open a file written by `save`; numbers are read from it on demand.

        Raises:
            DataError: the file does not exist, is not a trace, or holds something impossible.
        """
        return cls(Archive(path))

    def changed(self) -> tuple[str, ...]:
        """The parameters and buffers that were modified or replaced since the trace."""
        return self._source.changed()

    @takes()
    def operand(self, step: Step | str | int, name: str) -> Any:
        """The value of a tensor argument when the step ran, even if it was overwritten later.

        Args:
            step: The step, its name or its id.
            name: Name of the argument in ATen's schema.

        Returns:
            An array; for an argument that is a list of tensors, a tuple of arrays.

        Raises:
            UnknownName: the step has no tensor argument of that name.
        """
        result = step if isinstance(step, Step) else self[step]
        value = result.arguments.get(name)
        if isinstance(value, Ref):
            return self._source.operand(result.id, name, 0)
        if isinstance(value, tuple):
            return tuple(
                self._source.operand(result.id, name, i) if isinstance(item, Ref) else item
                for i, item in enumerate(value)
            )
        raise UnknownName(
            f"tensor argument of {result.name}", name, dict.fromkeys(name for name, _, _ in result.refs())
        )

    def operands(self, step: Step | str | int) -> dict[str, Any]:
        """All arguments of a step by name, with tensors as arrays."""
        result = step if isinstance(step, Step) else self[step]
        tensors = {name for name, _, _ in result.refs()}
        return {name: self.operand(result, name) if name in tensors else v for name, v in result.arguments.items()}

    @takes()
    def origin(self, step: Step | str | int, name: str, cell: Cell, item: int = 0) -> Origin:
        """The origin of the number in a cell of an argument, through views, reshaping copies and in-place writes.

        Args:
            step: The step that read it.
            name: The argument.
            cell: A full index of the argument.
            item: Index of the tensor, if the argument is a list.

        Returns:
            The latest step that wrote the number, with the cell of its result; or the parameter, constant or input.

        Raises:
            UsageError: the step has no such argument, or this has no such cell.
        """
        reader = step if isinstance(step, Step) else self[step]
        refs = {(n, i): r for n, i, r in reader.refs()}
        if (name, item) not in refs:
            argument_names = ", ".join(dict.fromkeys(n for n, _ in refs)) or "no tensors"
            raise UsageError(
                f"{reader.name} reads no tensor {item} of an argument {name!r}; it reads {argument_names}."
            )
        ref = refs[name, item]
        return self._trace_back(ref, full_cell(cell, ref.shape, f"{name} of {reader.name}"))

    def _trace_back(self, ref: Ref, cell: Cell) -> Origin:
        """Follow the memory of `ref` back to whatever wrote `cell`."""
        address = ref.address(cell)
        for writer in reversed(ref.rewritten):
            for result in self.all_steps[writer].results:
                source_cell = result.cell_at(address) if result.memory == ref.memory else None
                if source_cell is not None:
                    return Origin("step", result.id, result.name, result.output, source_cell)
        if ref.kind != "step":
            array = self.outside[ref.kind, ref.id]
            return Origin(ref.kind, ref.id, ref.name, 0, array.cell_at(address) or cell)
        maker = self.all_steps[ref.id]
        if maker.view:
            viewed = next(r for _, _, r in maker.refs())
            source_cell = (
                viewed.cell_at(address) if viewed.dtype == ref.dtype else None
            )  # else addresses have other units
            if source_cell is not None:
                return self._trace_back(viewed, source_cell)
        return Origin("step", maker.id, maker.name, ref.output, cell)

    @cached_property
    def outside(self) -> Mapping[tuple[Kind, int], Ref]:
        """The parameters, constants and inputs with their memory layout, by kind and id."""
        return self._source.outside()


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
