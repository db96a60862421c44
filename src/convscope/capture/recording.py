"""Recording: a lazy source of steps and numbers, from the tape of a pass; tensors as NumPy arrays."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property

import torch
from torch import Tensor

from convscope.capture.call_records import CallRecord, TensorIds, TensorMeta, argument_of, describe, results_of
from convscope.capture.dataflow import LinkedCall, Linker, OutsideTensors
from convscope.capture.model_state import PLAIN
from convscope.capture.recorder import Recorder
from convscope.capture.session import TracingSession
from convscope.capture.step_builder import (
    Before,
    Left,
    RecordedPass,
    breaks_of,
    build_steps,
    outside_refs,
    returned_refs,
)
from convscope.capture.tape import Call, Departure, Tape
from convscope.cards.card import Card
from convscope.cards.card_inference import card_of
from convscope.errors import TraceError
from convscope.traces.step import Kind, Ref, Step, TrainingStep, frozen, weights_digest
from convscope.typing import Array

NARROW = {torch.bfloat16, torch.float16}


def array_of(tensor: Tensor) -> Array:
    """A tensor as a read-only array, without a copy for CPU tensors; bfloat16 and half are widened to float32.

    Raises:
        TraceError: The tensor is on the meta device, so it has no numbers.
    """
    if tensor.is_meta:
        raise TraceError("a result of this pass is on the meta device and has no numbers.")
    tensor = tensor.detach()
    if tensor.is_nested:
        tensor = tensor.to_padded_tensor(0.0)
    elif tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor._is_zerotensor():  # which PyTorch 2.6 would read from memory that nothing wrote
        tensor = tensor.clone()
    if tensor.dtype in NARROW or str(tensor.dtype).startswith("torch.float8"):
        tensor = tensor.float()
    if tensor.dtype == torch.complex32:  # NumPy lacks this type
        tensor = tensor.to(torch.complex64)
    return frozen(tensor.numpy(force=True))  # also where it is lazily conjugated or negated


def in_structure(value: object, change: Callable[[Tensor], object]) -> object:
    """A model's output with `change` applied to each tensor; mappings and dataclasses become dict, sequences tuple."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {str(name): in_structure(item, change) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: in_structure(getattr(value, field.name), change) for field in fields(value)}
    if isinstance(value, list | tuple):
        return tuple(in_structure(item, change) for item in value)
    return value


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors of a model's output, in order."""
    results: list[Tensor] = []
    in_structure(value, results.append)
    return iter(results)


class Recording:
    """A pass of which every call was kept."""

    saved = False
    labels: Collection[str] = ()
    """Inputs that are not images: numbers of theirs that leave PyTorch break no chain to the image."""

    def __init__(self, session: TracingSession, recorder: Recorder, result: object) -> None:
        self.session = session
        self.tape = recorder.tape
        self._result = result

    @cached_property
    def _census(self) -> TensorIds:
        return TensorIds()

    @cached_property
    def entries(self) -> Sequence[CallRecord]:
        """Every call that made a tensor, described."""
        return tuple(self._described())

    def _described(self) -> Iterator[CallRecord]:
        return (
            describe(call, time, self.tape, self._census)
            for time, call in enumerate(self.tape.calls)
            if call is not None and results_of(call)
        )

    @cached_property
    def linked(self) -> RecordedPass:
        """The pass with the source of everything that each call read."""
        return self._link()

    def _link(self) -> RecordedPass:
        slots = self._slots_outside()
        outside = OutsideTensors(*slots)
        linker = Linker(outside)
        rows, left = self._rows(linker)
        end = len(self.tape.calls)
        returned = [linker.link(slot, end, "", i) for i, slot in enumerate(self._slots_returned())]
        types = {path: type(module).__name__ for path, module in self.session.subject.modules.items()}
        replaced = {number for number, entry in enumerate(self.entries) if entry.time in self.session.results}
        images = {slot.memory for name, slot in slots[1].items() if name not in self.labels}
        broken = breaks_of(rows, left, images, self._before(outside))
        return RecordedPass(rows, outside, self.tape.visits, types, returned, replaced, broken)

    def _rows(self, linker: Linker) -> tuple[list[LinkedCall], list[Left]]:
        """Every record linked, and the departures of numbers in between."""
        rows: list[LinkedCall] = []
        left: list[Left] = []
        waiting = list(enumerate(self.tape.departures))
        for number, entry in enumerate(self.entries):
            while waiting and waiting[0][1].time <= entry.time:
                position, departure = waiting.pop(0)
                link = linker.link_if_known(self._slot_of(departure))
                if link is not None:
                    left.append(
                        Left(departure.time, link, departure.way, departure.number, position in self.tape.changed)
                    )
            rows.append(linker.row(entry, number))
        return rows, left

    def _slot_of(self, departure: Departure) -> TensorMeta:
        assert isinstance(departure.tensor, Tensor)
        return self._census.slot(departure.tensor, self.tape.shaped(departure.tensor, departure.time))

    def _before(self, outside: OutsideTensors) -> Before:
        """Tensors and numbers known before the pass; needed only if numbers left during it."""
        earlier = self.session.earlier
        if earlier is None:
            return Before()
        memories = {self._census.slot(tensor).memory for tensor in earlier.tensors}
        modules, visits = self.session.subject.modules, self.tape.visits
        return Before(
            memories,
            earlier.numbers,
            lambda constant: self._scalar(outside.constants[constant]),
            lambda visit: type(modules[visits[visit][0]]) in PLAIN,
        )

    def _scalar(self, use: tuple[int, TensorMeta, str, int]) -> complex | None:
        """The value of a single-number constant, by its first use."""
        time, slot, name, item = use
        return None if slot.shape else self._argument(time, name, item).item()

    def _slots_outside(self) -> tuple[dict[str, TensorMeta], dict[str, TensorMeta]]:
        """The slots of parameters and of inputs as they were at the start."""
        session, slot = self.session, self._census.slot
        parameters = {name: slot(tensor) for name, tensor in session.tensors.items()}
        inputs = {name: slot(t, self.tape.shaped(t, 0)) for name, t in session.intake.tensors.items()}
        return parameters, inputs

    def _slots_returned(self) -> list[TensorMeta]:
        return [self._census.slot(tensor) for tensor in tensors_of(self._result)]

    @property
    def notes(self) -> tuple[str, ...]:
        """Further notes on the pass."""
        return ()

    @property
    def training_step(self) -> TrainingStep | None:
        """Loss, gradients and update, of a training step."""
        return None

    def steps(self) -> tuple[Step, ...]:
        """All steps in order, hidden ones included."""
        return build_steps(self.linked, self)

    def outside(self) -> Mapping[tuple[Kind, int], Ref]:
        """The tensors that existed before the pass, as a whole."""
        return outside_refs(self.linked)

    def fetch(self, time: int) -> tuple[Tape, Call]:
        """A call with its tensors."""
        call = self.tape.calls[time]
        assert call is not None
        return self.tape, call

    def output(self, step: int, index: int) -> Array:
        """Result `index` of a step."""
        time = self.entries[step].time
        tape, call = self.fetch(time)
        return array_of(tape.numbers_at(results_of(call)[index], time + 1))

    def operand(self, step: int, name: str, item: int) -> Array:
        """The value of an argument when the step ran."""
        return self._argument(self.entries[step].time, name, item)

    def _argument(self, time: int, name: str, item: int) -> Array:
        tape, call = self.fetch(time)
        return array_of(tape.numbers_at(argument_of(call, name, item), time))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(self.session.intake.tensors)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters and buffers."""
        return tuple(self.session.tensors)

    @property
    def constants(self) -> int:
        """Number of other tensors that the pass read."""
        return len(self.linked.outside.constants)

    def input(self, name: str) -> Array:
        """An input as the model received it."""
        return array_of(self.tape.numbers_at(self.session.intake.tensors[name], 0))

    def parameter(self, name: str) -> Array:
        """A parameter or buffer: its current numbers, or its override."""
        return array_of(self.session.tensors[name])

    def constant(self, number: int) -> Array:
        """A constant, as it was when it was first read."""
        time, _, name, item = self.linked.outside.constants[number]
        if time < len(self.tape.calls):
            return self._argument(time, name, item)
        return array_of(self.tape.numbers_at(list(tensors_of(self._result))[item], time))  # returned but never read

    def result(self) -> object:
        """The model's return value, with tensors as arrays."""
        end = len(self.tape.calls)
        return in_structure(self._result, lambda tensor: array_of(self.tape.numbers_at(tensor, end)))

    def returned(self) -> tuple[Ref, ...]:
        """The reference of each tensor in the result."""
        return returned_refs(self.linked)

    def changed(self) -> tuple[str, ...]:
        """Parameters and buffers that changed since."""
        return self.session.changed()

    @cached_property
    def card(self) -> Card:
        """The model's card."""
        return card_of(self.session.subject.model)

    @property
    def model_type(self) -> str:
        """The model's class."""
        kind = type(self.session.subject.model)
        return f"{kind.__module__}.{kind.__qualname__}"

    @cached_property
    def weights(self) -> str:
        """A digest of all parameters and buffers."""
        tensors = self.session.tensors.items()
        return weights_digest((n, str(t.dtype).removeprefix("torch."), array_of(t)) for n, t in tensors)

    @property
    def modules(self) -> Mapping[str, str]:
        """Module path -> class name, including modules that never ran."""
        return self.linked.types
