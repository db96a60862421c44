"""Header check: validate the header of a saved trace before any of its numbers is read.

A file may be damaged or malicious. Everything that later code relies on is checked here, once: types, ids that exist
and come earlier, names, shapes, and that every view stays inside its base array.
Uses steps and JSON; no files, no torch.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn, TypeGuard, get_args

import numpy as np

from convscope.cards.card import Card
from convscope.preprocess import Fit
from convscope.traces.header import modest, unpack, unpack_result
from convscope.traces.step import Kind, Ref, Step, TrainingStep, Values
from convscope.traces.training_header import BackwardRows, checked_training
from convscope.typing import Array

STEP = [f.name for f in fields(Step) if f.name not in {"broken", "values", "position", "aliases"}]
Outside = Mapping[tuple[Kind, int], Ref]
Arrays = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> NumPy type and shape of an array in the file."""

NARROW = {  # the type's significant bits, of float32's 24
    "bfloat16": 8, "float16": 11, "float8_e4m3fn": 4, "float8_e4m3fnuz": 4, "float8_e5m2": 3, "float8_e5m2fnuz": 3,
    "float8_e8m0fnu": 1,
}  # fmt: skip
STORED = {
    **dict.fromkeys((*NARROW, "qint8", "quint8", "qint32"), "float32"),
    **{name: name for name in ("bool", "float32", "float64", "complex64")},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""Recorded type -> NumPy type of the array that holds it."""
LARGEST = 2**62
"""Limit of addresses and numbers of cells, so that none overflows an int64."""


@dataclass(frozen=True, slots=True)
class HeaderContents:
    """The checked contents of a header."""

    model_type: str
    weights: str
    card: Card
    modules: Mapping[str, str]
    outside: Outside
    steps: tuple[Step, ...]
    result: object
    """The model's return value, as packed by `pack_result`."""
    returned: tuple[Ref, ...] | None
    """The reference of each tensor in the result; None in files of the first format, which lack it."""
    training: TrainingStep | None = None
    """Loss, gradients and update, of a training step."""


def parse(text: str) -> Any:
    """Parse strict JSON, without NaN, infinities or numbers beyond 64 bits.

    Raises:
        ValueError: it is not strict JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_no_number, parse_float=_float, parse_int=_int)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError("an integer beyond 64 bits")
    return number


def check(header: object, arrays: Arrays, values: Values) -> HeaderContents:
    """A header's contents.

    Args:
        header: What `parse` returned.
        arrays: The arrays in the file.
        values: The source of the steps' numbers.

    Raises:
        ValueError: something in it is impossible; the message says what.
    """
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")  # noqa: TRY004 - one kind of error for all damage
    modules = _texts(header.get("modules"), "modules")
    outside = _outside(_items(header, "outside"), arrays)
    rows = _items(header, "steps")
    broken = _broken(header.get("broken", {}))
    backward = None if "training" not in header else BackwardRows.of(header["training"])
    steps = list[Step]()
    largest = max((math.prod(shape) for _, shape in arrays.values()), default=0)
    reader = _Reader(outside, steps, arrays, largest)
    for number, row in enumerate(rows):
        _require(isinstance(row, list) and len(row) == len(STEP), f"step {number} does not have {len(STEP)} entries")
        entries = {name: unpack(value) for name, value in zip(STEP, row, strict=True)}
        more = {} if backward is None else backward.entries(number)
        step = Step(**entries, **more, broken=broken.get(str(number), ()), values=values)
        reader.check(number, step, modules)
        steps.append(step)
    names = [step.name for step in steps]
    _require(len(set(names)) == len(names), "two steps have the same name")
    returned = None if "returned" not in header else tuple(map(unpack, _items(header, "returned")))
    _result(header.get("result"), returned, reader)
    return HeaderContents(
        _text(header.get("model_type"), "model_type"),
        _text(header.get("weights"), "weights"),
        _card(header.get("card")),
        modules,
        outside,
        tuple(steps),
        header.get("result"),
        returned,
        None if backward is None else checked_training(backward.packed, outside, steps),
    )


def _broken(header: object) -> Mapping[str, tuple[str, ...]]:
    """Step -> sentences on broken chains to the image; older archives have none."""
    if not isinstance(header, dict) or not all(isinstance(value, list) for value in header.values()):
        raise ValueError("broken is damaged")
    _require(all(isinstance(text, str) for value in header.values() for text in value), "broken is damaged")
    return {number: tuple(texts) for number, texts in header.items()}


def fits(dtype: str, array: Array) -> bool:
    """Whether the recorded type can represent all numbers of an array.

    >>> fits("bfloat16", np.float32([1.5])), fits("bfloat16", np.float32([1.001])), fits("float16", np.float32([1e6]))
    (True, False, False)
    """
    if dtype == "bool":
        return bool(array.size == 0 or array.view(np.uint8).max() <= 1)
    if dtype not in NARROW:
        return True
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return bool(((array == array.astype(np.float16)) | np.isnan(array)).all())
    return not (array.view(np.uint32) & (2 ** (24 - NARROW[dtype]) - 1)).any()


def dense(ref: Ref) -> bool:
    """Whether a tensor is contiguous, row by row."""
    size, row_by_row = 1, True
    for n, stride in zip(reversed(ref.shape), reversed(ref.stride), strict=True):
        row_by_row, size = row_by_row and (stride == size or n == 1), size * n
    return row_by_row


def derivable(ref: Ref, outside: Outside, steps: Sequence[Step]) -> bool:
    """Whether an operand's numbers can be read from another stored array."""
    if ref.rewritten:
        return False
    if ref.kind == "parameter":
        return dense(outside[ref.kind, ref.id])
    source = steps[ref.id].results[ref.output] if ref.kind == "step" else outside[ref.kind, ref.id]
    return (source.shape, source.stride, source.offset) == (ref.shape, ref.stride, ref.offset)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks steps in order; each may refer only to earlier ones."""

    outside: Outside
    steps: list[Step]
    arrays: Arrays
    largest: int
    """Number of cells of the largest array in the file."""

    def check(self, number: int, step: Step, modules: Mapping[str, str]) -> None:
        """Raise ValueError unless everything about a step is possible."""
        location = f"step {number}"
        _require(type(step.id) is int and step.id == number, f"{location} has the id {step.id!r}")
        texts = (step.name, step.module, step.module_type, step.op, step.overload)
        _require(
            all(isinstance(text, str) for text in texts) and bool(step.name and step.op), f"{location} has no name"
        )
        _require(
            modules.get(step.module) == step.module_type, f"{location} ran in a module that the model does not have"
        )
        called = step.name.partition("#")[0]
        fits_module = called == step.module or called.startswith(f"{step.module}.".lstrip("."))
        _require(fits_module, f"{location} is named {step.name!r} but ran in {step.module!r}")
        flags = (step.view, step.hidden, step.overridden)
        _require(all(isinstance(flag, bool) for flag in flags), f"{location} has a flag that is neither true nor false")
        _require(_increasing(step.inputs, number), f"{location} reads steps that do not come before it")
        _require(isinstance(step.arguments, dict), f"{location} has no arguments")
        parameters = dict[str, str]()
        for name, item, ref in step.refs():
            self.reference(ref, number, f"{name} of {location}")
            if not derivable(ref, self.outside, self.steps):
                self.stored(f"operand/{number}/{name}/{item}", ref)
            if step.arguments[name] is ref and ref.kind == "parameter":
                parameters[name] = ref.name
        _require(
            isinstance(step.parameters, dict) and step.parameters == parameters, f"{location} names other parameters"
        )
        _require(not step.view or any(True for _ in step.refs()), f"{location} is a view of nothing")
        self._results(number, step)
        _require(_describable(step), f"{location} has arguments that {step.op} cannot have")
        _require(modest(step), f"{location} asks for far more cells than its tensors have")

    def _results(self, number: int, step: Step) -> None:
        location = f"step {number}"
        _require(isinstance(step.results, tuple) and bool(step.results), f"{location} has no result")
        for index, ref in enumerate(step.results):
            _shape_of(ref, f"result {index} of {location}")
            identity = (ref.kind, ref.id, ref.name, ref.output, ref.rewritten)
            _require(
                identity == ("step", number, step.name, index, ()), f"a result of {location} belongs to another step"
            )
            self.stored(f"output/{number}/{index}", ref)

    def reference(self, ref: Ref, number: int, location: str) -> None:
        """Raise ValueError unless step `number`, or the end of the pass, can have read this tensor."""
        _shape_of(ref, location)
        if ref.kind == "step":
            _require(ref.id < number, f"{location} is a step that does not come before it")
            maker = self.steps[ref.id]
            _require(ref.output < len(maker.results), f"{location} is a result that {maker.name} does not have")
            name, since = maker.name, ref.id
        else:
            _require((ref.kind, ref.id) in self.outside, f"{location} is a {ref.kind} that the trace does not have")
            _require(ref.output == 0, f"{location} is a second result of a {ref.kind}")
            name, since = self.outside[ref.kind, ref.id].name, -1
        _require(ref.name == name, f"{location} is named {ref.name!r}, elsewhere {name!r}")
        _require(
            _increasing(ref.rewritten, number, since + 1), f"{location} was rewritten by steps that do not come between"
        )
        if ref.kind == "parameter" and not ref.rewritten:
            self._view(ref, self.outside[ref.kind, ref.id], location)

    def _view(self, ref: Ref, parameter: Ref, location: str) -> None:
        """Check that a view of a parameter stays inside it, and has no more cells than the largest array."""
        _require(ref.dtype == parameter.dtype, f"{location} has another type than the parameter")
        first, cells, size = ref.offset - parameter.offset, math.prod(ref.shape), math.prod(parameter.shape)
        inside = first + _reach(ref) < size if cells else first <= size
        _require(first >= 0 and inside, f"{location} reaches beyond the parameter {parameter.name}")
        _require(cells <= max(self.largest, size), f"{location} has more cells than any array in the file")

    def stored(self, name: str, ref: Ref) -> None:
        """Raise ValueError unless the file has an array of this name with the right type and shape."""
        result = self.arrays.get(name)
        _require(result is not None, f"the array {name} is missing")
        _require(
            result == (STORED[ref.dtype], ref.shape), f"the array {name} has another type or shape than the header says"
        )


def _describable(step: Step) -> bool:
    """Whether lists of arguments hold plain values, from which the operation's title can be written."""
    lists = [value for value in step.arguments.values() if isinstance(value, list)]
    if any(isinstance(item, list | tuple | dict) for value in lists for item in value):
        return False
    try:
        return isinstance(step.says, str)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return False


def _outside(packed: list[Any], arrays: Arrays) -> Outside:
    result = dict[tuple[Kind, int], Ref]()
    names = set[tuple[str, str]]()
    reader = _Reader({}, [], arrays, 0)
    for value in packed:
        ref = unpack(value)
        _shape_of(ref, "a tensor that the pass read")
        index = sum(kind == ref.kind for kind, _ in result)
        _require(ref.kind != "step" and ref.id == index, f"a {ref.kind} has the id {ref.id}")
        _require((ref.kind, ref.name) not in names, f"two tensors are named {ref.name!r}")
        _require(ref.output == 0 and ref.rewritten == (), f"{ref.name!r} was rewritten before the pass")
        names.add((ref.kind, ref.name))
        reader.stored(f"{ref.kind}/{ref.id if ref.kind == 'constant' else ref.name}", ref)
        result[ref.kind, ref.id] = ref
    return result


def _result(packed: object, returned: tuple[Any, ...] | None, reader: _Reader) -> None:
    """Check that the arrays of the result exist, and that their references, if present, are possible."""
    names = list[str]()
    unpack_result(packed, names.append)
    for name in names:
        _require(name.startswith("result/") and name in reader.arrays, f"the array {name} is missing")
    if returned is None:
        return
    _require(len(returned) == len(names), "the result has another number of tensors than the header says")
    for index, (name, ref) in enumerate(zip(names, returned, strict=True)):
        reader.reference(ref, len(reader.steps), f"tensor {index} of the result")
        reader.stored(name, ref)


def _shape_of(ref: object, location: str) -> None:
    """Check the types of a reference's entries, and that the addresses of its cells fit an int64."""
    if not isinstance(ref, Ref):
        raise ValueError(f"{location} is not a tensor")  # noqa: TRY004
    _require(isinstance(ref.kind, str) and ref.kind in get_args(Kind), f"{location} has the unknown kind {ref.kind!r}")
    _require(isinstance(ref.name, str) and bool(ref.name), f"{location} has no name")
    _require(isinstance(ref.dtype, str) and ref.dtype in STORED, f"{location} has the unknown type {ref.dtype!r}")
    _require(
        all(map(_count, (ref.id, ref.output, ref.offset, ref.memory))), f"{location} has a number below 0, or none"
    )
    _require(_counts(ref.shape) and _counts(ref.stride), f"{location} has no shape and strides of integers")
    _require(len(ref.shape) == len(ref.stride) <= 64, f"{location} has another number of strides than of axes")
    _require(
        math.prod(ref.shape) < LARGEST and ref.offset + _reach(ref) < LARGEST, f"{location} is larger than any memory"
    )
    _require(_counts(ref.rewritten), f"{location} was rewritten by something that is not a step")


def _reach(ref: Ref) -> int:
    """Distance from the first cell to the last, in cells."""
    return sum((n - 1) * stride for n, stride in zip(ref.shape, ref.stride, strict=True) if n)


def _card(values: Any) -> Card:
    """The model's card, each of its values of the right type."""
    try:
        card = Card.from_json(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the card is damaged, {error}") from None
    image = card.preprocess
    right = (
        all(isinstance(text, str) for text in (card.name, card.source, *card.classes))
        and isinstance(card.fixed_size, bool)
        and isinstance(image.binary, bool)
        and (image.size is None or (_counts(image.size) and len(image.size) == 2))
        and (image.channels is None or (_count(image.channels) and 1 <= image.channels < 2**31))
        and all(map(_real, (image.scale, image.crop_ratio)))
        and all(isinstance(v, tuple) and bool(v) and all(map(_real, v)) for v in (image.mean, image.std))
        and image.fit in get_args(Fit)
        and image.background in {None, "dark", "light"}
    )
    _require(right, "the card is damaged")
    return card


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: object) -> bool:
    """Whether a value is an integer of at least 0; booleans are not."""
    return type(value) is int and 0 <= value < LARGEST


def _counts(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(map(_count, values))


def _increasing(ids: object, end: int, start: int = 0) -> bool:
    """Whether these are increasing step ids, from `start` to below `end`."""
    return _counts(ids) and list(ids) == sorted(set(ids)) and all(start <= i < end for i in ids)


def _items(header: Mapping[str, object], name: str) -> list[Any]:
    value = header.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")  # noqa: TRY004 - one kind of error for all damage
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")  # noqa: TRY004
    return value


def _texts(value: object, name: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{name} is not an object of texts")
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
