"""Summary: every layer of a model with its output size, parameters, multiply-adds, receptive field and memory as sums.

It reads a recorded trace, so functional operations are listed like modules, and a model that fails halfway shows the
steps that ran. Uses traces and how to record one; no torch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convscope.capture.shape_trials import ShapeFailure, shape_failure
from convscope.capture.tracing import trace as record
from convscope.cards.card import Card
from convscope.cards.card_inference import card_of, vector_length
from convscope.errors import TraceError, UsageError
from convscope.escaping import joined
from convscope.export.layer_sums import FieldSum, MemoryUse, field_sums, memory_use, multiply_adds, size_sums
from convscope.inputs.model_inputs import random_inputs
from convscope.layer_arithmetic import AxisSums, Sum, parameter_sum, sum_texts
from convscope.render.numbers import table
from convscope.rich_display import RichDisplay
from convscope.traces.trace import Trace
from convscope.training.runs import Model, as_model
from convscope.type_checks import kind_of, takes
from convscope.typing import Array

MOST = 10**8
"""Numbers that an input may hold."""
Size = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One step of the forward pass, as arithmetic."""

    name: str
    op: str
    """ATen name: `convolution`, `addmm`."""
    operation: str
    """A description: `convolution 3x3, padding 1`."""
    module_type: str
    shape: tuple[int, ...]
    """Shape of the result, with the batch axis."""
    size: AxisSums
    """How lengths of the result's axes follow from the input, where an operation changes them."""
    parameters: Sum
    """The parameters that no earlier layer has counted."""
    shared: tuple[str, ...]
    """Its parameters that an earlier layer has counted."""
    multiply_adds: Sum
    field: FieldSum | None
    """The receptive field; None if window arithmetic does not determine it."""
    bytes: int
    """Memory of its result; 0 for a view and in place."""

    @property
    def consistent(self) -> bool:
        """Whether every calculated length is the recorded one."""
        return all(self.shape[axis] == total.value for axis, total in self.size)

    def sums(self) -> Iterator[tuple[str, str]]:
        """Its sums as text: the name and the calculation."""
        yield from sum_texts(self.shape, self.size, self.parameters, self.multiply_adds, self.shared)
        if self.field is not None and self.field.changes:
            yield "field", str(self.field)

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {
            "name": self.name,
            "op": self.op,
            "operation": self.operation,
            "module_type": self.module_type,
            "shape": list(self.shape),
            "size": [{"axis": axis, **total.to_json()} for axis, total in self.size],
            "parameters": self.parameters.to_json(),
            "shared": list(self.shared),
            "multiply_adds": self.multiply_adds.to_json(),
            "field": None if self.field is None else self.field.to_json(),
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Summary(RichDisplay):
    """A model's layers and their totals, for one size of input.

    >>> import convscope as cs
    >>> result = cs.summary(cs.load_model("simple-cnn"))
    >>> result.parameters, result.layers[0].multiply_adds.text
    (13610, '26·26·8 · 3·3·1')
    """

    model: str
    input: Mapping[str, tuple[int, ...]]
    """Name of each input -> its shape, with the batch axis."""
    layers: tuple[LayerSummary, ...]
    parameters: int
    """Parameters of the whole model, shared ones counted once: the sum of `numel()`."""
    unread: Mapping[str, int]
    """Parameters that no layer of this pass reads, and their counts."""
    weight_bytes: int
    """Bytes of all parameters and buffers."""
    memory: MemoryUse
    failure: ShapeFailure | None = None
    """The failure and its possible repairs; None if the model ran."""
    notes: tuple[str, ...] = field(default=())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all layers that ran."""
        return sum(layer.multiply_adds.value for layer in self.layers)

    def __str__(self) -> str:
        return self.to_text()

    @takes()
    def to_text(self, *, short: bool = False) -> str:
        """As text: each layer with its sums, or in one line each; then the totals."""
        shapes = " and ".join(_shape(shape[1:]) for shape in self.input.values())
        head = [f"{self.model} on {shapes or 'its input'}", ""]
        body = (_short(self.layers) if short else _long(self.layers)) if self.layers else []
        return joined([*head, *body, *([""] if body else []), *self._failed(), *self._totals()])

    def _failed(self) -> list[str]:
        return [] if self.failure is None else [*self.failure.lines(), ""]

    def _totals(self) -> list[str]:
        ran = "" if self.failure is None else " (of the steps that ran)"
        lines = [f"parameters     {self.parameters:,}, {_bytes(self.weight_bytes)} with buffers"]
        if self.unread and self.failure is None:
            names = ", ".join(list(self.unread)[:3]) + ", ..." * (len(self.unread) > 3)
            lines.append(f"               {sum(self.unread.values()):,} of them are not read: {names}")
        lines.append(f"multiply-adds  {self.multiply_adds:,}{ran}: convolutions, matrix products, attention")
        lines.append(
            f"memory         {_bytes(self.memory.total)} for all results{ran}; at most {_bytes(self.memory.peak)} "
            "in use at once in evaluation" + f", at step {self.memory.peak_at}" * bool(self.memory.peak_at)
        )
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {
            "model": self.model,
            "input": {name: list(shape) for name, shape in self.input.items()},
            "layers": [layer.to_json() for layer in self.layers],
            "parameters": self.parameters,
            "unread": dict(self.unread),
            "weight_bytes": self.weight_bytes,
            "multiply_adds": self.multiply_adds,
            "result_bytes": self.memory.total,
            "peak_bytes": self.memory.peak,
            "failure": None if self.failure is None else self.failure.to_json(),
            "notes": list(self.notes),
        }


@takes(model="Module | Run | str | Path", size="Any")
def summary(model: Model, size: Size | Mapping[str, Size] | None = None) -> Summary:
    """Every layer of a model with its size, parameters, multiply-adds, receptive field and memory as arithmetic.

    >>> import torch, convscope as cs
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU())
    >>> layer = cs.summary(net, size=(8, 28, 28)).layers[0]
    >>> print(layer.parameters, layer.size[0][1], sep=", ")
    (3·3·8 + 1)·16 = 1,168, (28 + 2·1 - 3) / 1 + 1 = 28

    Args:
        model: Any `nn.Module`, or a run, a name or a path, as `cs.trace` takes them; it is run once on noise, in
            evaluation mode, and left unchanged.
        size: The shape of one input without its batch axis, such as (3, 224, 224); 224 or (224, 224) use the model's
            channels; for a model that begins with a linear layer of 784 numbers, 784 is a vector. A mapping has the
            size of each named input. None: the size that the model expects.

    Returns:
        The layers in the order of execution. If the model cannot run at this size, `.failure` has the calculation that
        failed and the sizes or settings that would fit; the layers are those that ran.

    Raises:
        UsageError: an impossible size, or no size for a model without a known input size.
        ModelError: a model that cannot be traced, such as TorchScript.

    Source: PyTorch documentation of each layer for the sizes; multiply-adds as torch.utils.flop_counter.FlopCounterMode
    counts them, two operations per multiply-add.
    """
    model = as_model(model)
    if isinstance(size, int) and not isinstance(size, bool) and size == vector_length(model):
        size = (size,)
    inputs = _noise(card_of(model), size) if size is not None else random_inputs(model)
    try:
        trace = record(model, inputs, keep=0, batched=False)
    except TraceError as error:
        if not isinstance(error.trace, Trace) or isinstance(error.__cause__, TypeError):  # called with other inputs
            raise
        return _summary(model, error.trace, shape_failure(model, inputs, error))
    return _summary(model, trace, None)


def _summary(model: Any, trace: Trace, failure: ShapeFailure | None) -> Summary:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    counted = _counted(trace, shapes)
    memory, fields = memory_use(trace), field_sums(trace)
    layers = []
    for step in trace.steps:
        fresh, shared = counted[step.id]
        layers.append(
            LayerSummary(
                step.name,
                step.op,
                step.says,
                step.module_type,
                step.shape,
                size_sums(step),
                parameter_sum(sorted((shapes[name] for name in fresh), key=len, reverse=True)),
                tuple(shared),
                multiply_adds(step),
                fields[step.id],
                memory.by_step[step.id],
            )
        )
    read_names = {name for fresh, _ in counted.values() for name in fresh}
    return Summary(
        trace.card.name,
        {name: ref.shape for ref in trace.outside.values() if ref.kind == "input" for name in [ref.name]},
        tuple(layers),
        sum(map(math.prod, shapes.values())),
        {name: math.prod(shape) for name, shape in shapes.items() if name not in read_names},
        sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        memory,
        failure,
        _notes(trace),
    )


def _counted(trace: Trace, parameters: Mapping[str, object]) -> dict[int, tuple[list[str], list[str]]]:
    """For each visible step, the parameters that it reads first, and those counted before.

    A parameter that only hidden steps prepare is counted where a visible step reads the result.
    """
    carried, counted, result = dict[int, list[str]](), set[str](), {}
    for step in trace.all_steps:
        names = list[str]()
        for _, _, ref in step.refs():
            if ref.kind == "parameter" and ref.name in parameters:
                names.append(ref.name)
            elif ref.kind == "step" and trace.all_steps[ref.id].hidden:
                names += carried[ref.id]
        carried[step.id] = names = list(dict.fromkeys(names))
        if not step.hidden:
            result[step.id] = [n for n in names if n not in counted], [n for n in names if n in counted]
            counted.update(names)
    return result


def _notes(trace: Trace) -> tuple[str, ...]:
    """The trace's notes on its chain; notes on memory are left out."""
    rows = {ref.shape[0] for ref in trace.returned or () if ref.shape}
    if rows and 1 not in rows and trace.input.shape[:1] == (1,) and trace.card.form == "picture":
        row_count = next(iter(rows))
        return (f"one image gives {row_count:,} rows of output: a reshape mixes the images of a batch",)
    return ()


def _noise(card: Card, size: Size | Mapping[str, Size]) -> Array | dict[str, Array]:
    """Random inputs of a size, or a sentence that says why they cannot be made."""
    if isinstance(size, Mapping):
        return {str(name): _random_input(card, part) for name, part in size.items()}
    if len(card.inputs) > 1:
        sizes = ", ".join(f"{name!r}: (3, 64, 64)" for name in card.inputs)
        raise UsageError(f"{card.name} takes several inputs; give the size of each: size={{{sizes}}}.")
    return _random_input(card, size)


def _random_input(card: Card, size: Size) -> Array:
    shape = _whole(card, size)
    if card.form == "tokens":
        return np.zeros(shape, np.int64)
    return np.random.default_rng(0).random(shape, np.float32)


def _whole(card: Card, size: Size) -> tuple[int, ...]:
    """A size with its channels: 224 and (224, 224) take those that the model expects."""
    value: object = size
    if isinstance(value, str) or not isinstance(value, int | np.integer | Sequence | np.ndarray):
        raise UsageError(f"a size has integers above 0, such as (3, 224, 224); it is not {kind_of(value)}.")
    size = int(value) if isinstance(value, np.integer) else size
    shown = size if isinstance(size, int) else tuple(size)
    numbers = (size,) if isinstance(size, int) else tuple(size)
    if not numbers or not all(isinstance(n, int | np.integer) and n is not True and n > 0 for n in numbers):
        raise UsageError(f"a size has integers above 0, such as (3, 224, 224), not {shown!r}.")
    axes, channels = {"picture": 2, "signal": 1, "volume": 3}.get(card.form, 0), card.preprocess.channels or 3
    if axes > 1 and isinstance(size, int):
        numbers = (*numbers * axes,)
    if (axes and len(numbers) == axes and card.preprocess.channels is not None) or (
        card.form == "picture" and len(numbers) == 2
    ):
        numbers = (channels, *numbers)
    if math.prod(numbers) > MOST:
        raise UsageError(f"a size of {_shape(numbers)} has {math.prod(numbers):,} numbers; at most {MOST:,} are run.")
    return numbers


def _long(layers: Sequence[LayerSummary]) -> list[str]:
    """A line for each layer, and one for each of its sums below."""
    rows = [(layer.name, layer.operation, _shape(_without_batch(layer.shape)), _memory(layer)) for layer in layers]
    lines = list[str]()
    for layer, line in zip(layers, table(rows, "<<<>"), strict=True):
        lines.append(line.rstrip())
        lines += [f"    {heading:<14} {text}" for heading, text in layer.sums()]
    return lines


def _short(layers: Sequence[LayerSummary]) -> list[str]:
    """One line for each layer, numbers alone."""
    header = ("layer", "operation", "output", "parameters", "multiply-adds", "field", "memory")
    rows = [
        (
            layer.name,
            layer.operation,
            _shape(_without_batch(layer.shape)),
            f"{layer.parameters.value:,}" if layer.parameters.value else "",
            f"{layer.multiply_adds.value:,}" if layer.multiply_adds.value else "",
            "" if layer.field is None else layer.field.extent,
            _memory(layer),
        )
        for layer in layers
    ]
    return [line.rstrip() for line in table([header, *rows], "<<<>>>>")]


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape[:1] == (1,) else shape


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _memory(layer: LayerSummary) -> str:
    return _bytes(layer.bytes) if layer.bytes else ""


def _bytes(count: int) -> str:
    """Bytes with a unit: 3,136 B, 50.2 KB, 1.3 GB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= 10 * factor or (factor > 10**3 and count >= factor):
            return f"{count / factor:,.1f} {unit}"
    return f"{count:,} B"
