"""Archive: a trace in one file, arrays as safetensors and everything else as JSON in its header; nothing is pickled.

Arrays are called `output/STEP/RESULT`, `input/NAME`, `parameter/NAME`, `constant/PLACE`, `result/PLACE`, and
`operand/STEP/ARGUMENT/ITEM` where an argument's numbers are none of these. Knows NumPy and files; no torch.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from convscope.capture.packing import pack, pack_result, unpack, unpack_result
from convscope.capture.step import Array, Kind, Ref, Step, Values, frozen
from convscope.cards import Card
from convscope.errors import DataError, TraceError, UsageError

FORMAT = "convscope-trace-1"
STEP = [f.name for f in fields(Step) if f.name not in {"broken", "values"}]
Outside = Mapping[tuple[Kind, int], Ref]


class Source(Values, Protocol):
    """Where a trace is read from: a recording, or an archive."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters and buffers."""

    @property
    def constants(self) -> int:
        """How many tensors were read that are neither."""

    @property
    def modules(self) -> Mapping[str, str]:
        """Module path -> class name."""

    @property
    def model_type(self) -> str:
        """The model's class."""

    @property
    def weights(self) -> str:
        """A digest of all parameters and buffers."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What else there is to know of where the numbers are, in sentences."""

    @property
    def card(self) -> Card:
        """The model's card."""

    def steps(self) -> tuple[Step, ...]:
        """All steps."""

    def outside(self) -> Outside:
        """What was there before the pass."""

    def input(self, name: str) -> Array:
        """An input."""

    def parameter(self, name: str) -> Array:
        """A parameter or buffer."""

    def constant(self, place: int) -> Array:
        """A constant."""

    def result(self) -> Any:
        """What the model returned."""

    def changed(self) -> tuple[str, ...]:
        """Parameters that changed since."""


def write(path: str | Path, source: Source) -> None:
    """Write a trace to a file, whole or not at all.

    Raises:
        TraceError: the weights changed since the trace.
        UsageError: the file cannot be written.
    """
    changed = source.changed()
    if changed:
        raise TraceError(f"the trace cannot be saved: {', '.join(changed[:3])} changed since; trace again.")
    steps, outside, arrays = source.steps(), source.outside(), dict[str, Array]()
    arrays |= {f"input/{name}": source.input(name) for name in source.inputs}
    arrays |= {f"parameter/{name}": source.parameter(name) for name in source.parameters}
    arrays |= {f"constant/{place}": source.constant(place) for place in range(source.constants)}
    for step in steps:
        arrays |= {f"output/{step.id}/{i}": output for i, output in enumerate(step.outputs)}
        for name, item, ref in step.refs():
            if not _derivable(ref, outside, steps):
                arrays[f"operand/{step.id}/{name}/{item}"] = source.operand(step.id, name, item)
    header = {
        "format": FORMAT,
        "model_type": source.model_type,
        "weights": source.weights,
        "card": source.card.to_json(),
        "modules": dict(source.modules),
        "outside": [pack(ref) for ref in outside.values()],
        "steps": [[pack(getattr(step, name)) for name in STEP] for step in steps],
        "broken": {str(step.id): list(step.broken) for step in steps if step.broken},
        "result": pack_result(source.result(), arrays),
    }
    _save(Path(path), arrays, json.dumps(header, allow_nan=False))


def _save(path: Path, arrays: Mapping[str, Array], header: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(
            {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()},
            beside,
            {FORMAT: header},
        )
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise UsageError(f"the trace cannot be written to {path}: {error}.") from None


def _open(path: Path) -> Any:
    return safe_open(path, framework="numpy")


def _derivable(ref: Ref, outside: Outside, steps: tuple[Step, ...]) -> bool:
    """Whether an operand is what another stored array says."""
    if ref.rewritten:
        return False
    if ref.kind == "parameter":
        return _dense(outside[ref.kind, ref.id])
    whole = steps[ref.id].results[ref.output] if ref.kind == "step" else outside[ref.kind, ref.id]
    return (whole.shape, whole.stride, whole.offset) == (ref.shape, ref.stride, ref.offset)


def _dense(ref: Ref) -> bool:
    """Whether a tensor lies in memory row by row."""
    size, dense = 1, True
    for n, stride in zip(reversed(ref.shape), reversed(ref.stride), strict=True):
        dense, size = dense and (stride == size or n == 1), size * n
    return dense


class Archive:
    """A trace in a file; arrays are read when they are asked for."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise DataError(f"there is no file {path}; trace.save(path) writes one.")
        try:
            self._file = _open(self._path)
            self._header = json.loads(self._file.metadata()[FORMAT])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no trace saved by convscope, or is damaged ({error}).") from None
        self._outside = {(ref.kind, ref.id): ref for ref in map(unpack, self._header["outside"])}
        broken = self._header.get("broken", {})  # archives from before it was noted have none
        self._steps = tuple(
            Step(
                **{name: unpack(value) for name, value in zip(STEP, row, strict=True)},
                broken=tuple(map(str, broken.get(str(number), ()))),
                values=self,
            )
            for number, row in enumerate(self._header["steps"])
        )

    def _read(self, name: str) -> Array:
        return frozen(self._file.get_tensor(name))

    def output(self, step: int, index: int) -> Array:
        """Result `index` of a step."""
        return self._read(f"output/{step}/{index}")

    def operand(self, step: int, name: str, item: int) -> Array:
        """What an argument held when the step ran."""
        ref = next(r for n, i, r in self._steps[step].refs() if (n, i) == (name, item))
        if not _derivable(ref, self._outside, self._steps):
            return self._read(f"operand/{step}/{name}/{item}")
        if ref.kind == "step":
            return self.output(ref.id, ref.output)
        if ref.kind != "parameter":
            return self.constant(ref.id) if ref.kind == "constant" else self.input(ref.name)
        whole = self.parameter(ref.name).reshape(-1)[ref.offset - self._outside[ref.kind, ref.id].offset :]
        stride = [n * whole.itemsize for n in ref.stride]
        return np.lib.stride_tricks.as_strided(whole, ref.shape, stride, writeable=False)

    def steps(self) -> tuple[Step, ...]:
        """All steps."""
        return self._steps

    def outside(self) -> Outside:
        """What was there before the pass."""
        return self._outside

    def _names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(ref.name for ref in self._outside.values() if ref.kind == kind)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self._names("input")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters and buffers."""
        return self._names("parameter")

    @property
    def constants(self) -> int:
        """How many constants there are."""
        return len(self._names("constant"))

    def input(self, name: str) -> Array:
        """An input."""
        return self._read(f"input/{name}")

    def parameter(self, name: str) -> Array:
        """A parameter or buffer."""
        return self._read(f"parameter/{name}")

    def constant(self, place: int) -> Array:
        """A constant."""
        return self._read(f"constant/{place}")

    def result(self) -> Any:
        """What the model returned."""
        return unpack_result(self._header["result"], self._read)

    @property
    def notes(self) -> tuple[str, ...]:
        """None: a file holds all numbers."""
        return ()

    def changed(self) -> tuple[str, ...]:
        """Nothing: a file holds its own weights."""
        return ()

    @property
    def card(self) -> Card:
        """The model's card."""
        return Card.from_json(self._header["card"])

    @property
    def modules(self) -> Mapping[str, str]:
        """Module path -> class name."""
        modules: dict[str, str] = self._header["modules"]
        return modules

    @property
    def model_type(self) -> str:
        """The model's class."""
        return str(self._header["model_type"])

    @property
    def weights(self) -> str:
        """A digest of all parameters and buffers."""
        return str(self._header["weights"])
