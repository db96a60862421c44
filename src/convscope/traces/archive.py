"""Archive: a trace in one safetensors file, with everything but the arrays as JSON in its header; nothing is pickled.

Arrays are named `output/STEP/RESULT`, `input/NAME`, `parameter/NAME`, `constant/INDEX`, `result/INDEX`, and
`operand/STEP/ARGUMENT/ITEM` for arguments that equal none of these. Uses NumPy and files; no torch.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from convscope.cards.card import Card
from convscope.errors import DataError, TraceError, UsageError
from convscope.escaping import brief
from convscope.files import is_there, replace_file
from convscope.memory import available
from convscope.traces.header import pack, pack_result, unpack_result
from convscope.traces.header_check import NARROW, STEP, HeaderContents, Outside, check, derivable, fits, parse
from convscope.traces.step import Kind, Ref, Step, TrainingStep, Values, frozen, weights_digest
from convscope.traces.training_header import pack_training
from convscope.typing import Array

FORMAT = "convscope-trace-2"
STEP_FORMAT = "convscope-trace-3"
"""The format of a training step: that of a forward pass, and what `traces.training_header` adds."""
FORMER = "convscope-trace-1"
"""The first format, which lacks the references of the returned tensors; it can still be read."""
FAMILY = "convscope-trace-"
QUOTED = 240
"""Characters of the reason for which a file is refused; it may quote what the file holds."""
NUMPY = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool", "C64": "complex64",
    **{f"{sign}{bits}": f"{'u' * (sign == 'U')}int{bits}" for sign in "IU" for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""Type name of safetensors -> NumPy's type name."""


class ArchiveSource(Values, Protocol):
    """The data source of a trace: a recording or an archive."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters and buffers."""

    @property
    def constants(self) -> int:
        """Number of other tensors that the pass read."""

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
        """Notes on where the numbers are stored."""

    @property
    def card(self) -> Card:
        """The model's card."""

    def steps(self) -> tuple[Step, ...]:
        """All steps."""

    def outside(self) -> Outside:
        """The tensors that existed before the pass."""

    def input(self, name: str) -> Array:
        """An input."""

    def parameter(self, name: str) -> Array:
        """A parameter or buffer."""

    def constant(self, place: int) -> Array:
        """A constant."""

    def result(self) -> Any:
        """The model's return value."""

    def returned(self) -> tuple[Ref, ...] | None:
        """The reference of each tensor in the result; None if unknown."""

    def changed(self) -> tuple[str, ...]:
        """Parameters that changed since the trace."""

    @property
    def training_step(self) -> TrainingStep | None:
        """Loss, gradients and update; None for a forward pass alone."""

    @property
    def saved(self) -> bool:
        """Whether the numbers come from a file instead of a pass in this process."""


def write(path: str | Path, source: ArchiveSource) -> None:
    """Write a trace to a file atomically.

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
    arrays |= {f"constant/{index}": source.constant(index) for index in range(source.constants)}
    for step in steps:
        arrays |= {f"output/{step.id}/{i}": output for i, output in enumerate(step.outputs)}
        for name, item, ref in step.refs():
            if not derivable(ref, outside, steps):
                arrays[f"operand/{step.id}/{name}/{item}"] = source.operand(step.id, name, item)
    training = source.training_step
    header = {
        "format": FORMAT if training is None else STEP_FORMAT,
        "model_type": source.model_type,
        "weights": source.weights,
        "card": source.card.to_json(),
        "modules": dict(source.modules),
        "outside": [pack(ref) for ref in outside.values()],
        "steps": [[pack(getattr(step, name)) for name in STEP] for step in steps],
        "broken": {str(step.id): list(step.broken) for step in steps if step.broken},
        "result": pack_result(source.result(), arrays),
    }
    returned = source.returned()
    if returned is not None:
        header["returned"] = [pack(ref) for ref in returned]
    if training is not None:
        header["training"] = pack_training(training, steps)
    _save(Path(path), arrays, {str(header["format"]): json.dumps(header, allow_nan=False)})


def _save(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    if not path.name:
        raise UsageError(f"the trace cannot be written to {path}: it is a folder; name a file.")
    if is_there(path) and not path.is_file() and not path.is_dir():  # renaming would remove the device or the pipe
        raise UsageError(f"the trace cannot be written to {path}: it is not a regular file; choose another path.")
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file(
            {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()},
            temporary,
            dict(metadata),
        )
        replace_file(temporary, target)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"the trace cannot be written to {path}: {error}.") from None


class _TooLarge(DataError):
    """An archive that may be sound, but is too large for this machine."""


class Archive:
    """A trace in a file, checked on opening; arrays are read on demand."""

    saved = True

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.exists():
            raise DataError(f"there is no file {path}; trace.save(path) writes one.")
        if not self._path.is_file():
            raise DataError(f"{path} is not a file; trace.save(path) writes one.")
        try:
            self._contents = self._checked()
        except _TooLarge:
            raise
        except _DAMAGE as error:
            deep = isinstance(error, RecursionError)
            reason = "its header is nested too deeply" if deep else brief(str(error), QUOTED)
            raise DataError(f"{path} is not a trace saved by convscope, or is damaged ({reason}).") from None

    def _checked(self) -> HeaderContents:
        """Open the file, check its whole header, and whatever can be checked about its arrays at this point."""
        self._file = _open(self._path)
        metadata = self._file.metadata() or {}
        format_ = next((name for name in (STEP_FORMAT, FORMAT, FORMER) if name in metadata), None)
        if format_ is None:
            newer = sorted(name for name in metadata if name.startswith(FAMILY))
            raise ValueError(f"its format, {newer[0]}, belongs to another version" if newer else "it has no header")
        slices = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118 - not a mapping
        shapes = {name: tuple(map(int, part.get_shape())) for name, part in slices.items()}
        types = {name: NUMPY.get(str(part.get_dtype()), "") for name, part in slices.items()}
        largest = max((math.prod(shapes[name]) * np.dtype(types[name] or "u1").itemsize for name in slices), default=0)
        if largest > available():
            raise _TooLarge(f"{self._path} has an array of {largest:,} bytes, more than the free memory.")
        header = parse(metadata[format_])
        contents = check(header, {name: (types[name], shapes[name]) for name in slices}, self)
        if header.get("format") != format_:
            raise ValueError(f"its header names the format {header.get('format')!r}")
        if (contents.training is not None) != (format_ == STEP_FORMAT):
            raise ValueError(f"the format {format_} does not match its contents")
        for name, ref in _stored(contents):
            if (ref.dtype in NARROW or ref.dtype == "bool") and not fits(ref.dtype, self._read(name)):
                raise ValueError(f"the array {name} has numbers that {ref.dtype} cannot represent")
        state = () if contents.training is None else contents.training.state
        weights = (
            (r.name, r.dtype, self.parameter(r.name))
            for (kind, _), r in contents.outside.items()
            if kind == "parameter" and r.name not in state
        )
        if weights_digest(weights) != contents.weights:
            raise ValueError("the weights differ from those that the trace was made with")
        return contents

    def _read(self, name: str) -> Array:
        return frozen(self._file.get_tensor(name))

    def output(self, step: int, index: int) -> Array:
        """Result `index` of a step."""
        return self._read(f"output/{step}/{index}")

    def operand(self, step: int, name: str, item: int) -> Array:
        """The value of an argument when the step ran."""
        steps, outside = self._contents.steps, self._contents.outside
        ref = next(r for n, i, r in steps[step].refs() if (n, i) == (name, item))
        if not derivable(ref, outside, steps):
            return self._read(f"operand/{step}/{name}/{item}")
        if ref.kind == "step":
            return self.output(ref.id, ref.output)
        if ref.kind != "parameter":
            return self.constant(ref.id) if ref.kind == "constant" else self.input(ref.name)
        flat = self.parameter(ref.name).reshape(-1)[ref.offset - outside[ref.kind, ref.id].offset :]
        stride = [n * flat.itemsize for n in ref.stride]  # stays inside the array, as header_check has made sure
        return np.lib.stride_tricks.as_strided(flat, ref.shape, stride, writeable=False)

    def steps(self) -> tuple[Step, ...]:
        """All steps."""
        return self._contents.steps

    def outside(self) -> Outside:
        """The tensors that existed before the pass."""
        return self._contents.outside

    def _names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(ref.name for ref in self._contents.outside.values() if ref.kind == kind)

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
        """Number of constants."""
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

    def result(self) -> object:
        """The model's return value."""
        return unpack_result(self._contents.result, self._read)

    def returned(self) -> tuple[Ref, ...] | None:
        """The reference of each tensor in the result; None in files of the first format, which lack it."""
        return self._contents.returned

    @property
    def training_step(self) -> TrainingStep | None:
        """Loss, gradients and update; None for a forward pass alone."""
        return self._contents.training

    @property
    def notes(self) -> tuple[str, ...]:
        """Empty: a file holds all numbers."""
        return ()

    def changed(self) -> tuple[str, ...]:
        """Empty: a file holds its own weights."""
        return ()

    @property
    def card(self) -> Card:
        """The model's card."""
        return self._contents.card

    @property
    def modules(self) -> Mapping[str, str]:
        """Module path -> class name."""
        return self._contents.modules

    @property
    def model_type(self) -> str:
        """The model's class."""
        return self._contents.model_type

    @property
    def weights(self) -> str:
        """A digest of all parameters and buffers."""
        return self._contents.weights


_DAMAGE = (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, MemoryError)
"""Errors that reading a damaged file can raise; `check` itself raises ValueError."""


def _open(path: Path) -> Any:
    return safe_open(path, framework="numpy")


def _stored(contents: HeaderContents) -> list[tuple[str, Ref]]:
    """Every array that a header names, with its reference."""
    outside, steps = contents.outside, contents.steps
    results = [(f"{r.kind}/{r.id if r.kind == 'constant' else r.name}", r) for r in outside.values()]
    for step in steps:
        results += [(f"output/{step.id}/{ref.output}", ref) for ref in step.results]
        results += [(f"operand/{step.id}/{n}/{i}", r) for n, i, r in step.refs() if not derivable(r, outside, steps)]
    names = list[str]()
    unpack_result(contents.result, names.append)
    return results + list(zip(names, contents.returned or (), strict=False))
