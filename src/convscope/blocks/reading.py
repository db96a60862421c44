"""Reading: a network of blocks from a JSON file or plain values, which may be untrusted, checked one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from convscope.blocks.kinds import KINDS, Kind, KindSetting, SettingValue
from convscope.blocks.templates import template
from convscope.errors import UnknownName, UsageError
from convscope.files import read_file
from convscope.json_values import parse_json
from convscope.type_checks import takes

LONGEST = 64
"""Largest number of blocks: more than any network that is read block by block has."""
BY_HAND = 50_000
"""Largest number of weights given by hand: as text of 20 characters each they take 1 MB."""
DEEPEST = 4
"""Axes of the largest weight: (kernel, channel, row, column)."""
HUGE = 256
"""Numbers of more bits are not quoted in a message; Python refuses to write those of many thousands."""
LARGEST = 3.4e38
"""Beyond it float32 is infinite."""


@dataclass(frozen=True, slots=True)
class GivenValues:
    """The numbers of a weight or bias, given by hand.

    >>> values = read_values([[1, 2, 3], [4, 5, 6]])
    >>> values.shape, values.numbers
    ((2, 3), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    """

    shape: tuple[int, ...]
    numbers: tuple[float, ...]
    """In row-major order."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether they are the numbers of a parameter: in its shape, or all in one row."""
        return self.shape in {shape, (prod(shape),)}

    def nested(self, shape: tuple[int, ...] | None = None) -> Any:
        """As nested lists, of their own shape or of a parameter's that they fit."""
        part: list[Any] = list(self.numbers)
        for length in reversed((shape or self.shape)[1:]):
            part = [part[start : start + length] for start in range(0, len(part), length)]
        return part


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a network.

    >>> read_block({"block": "conv", "kernels": 4})["size"]
    3
    """

    kind: Kind
    settings: Mapping[str, SettingValue]
    """Every setting of its kind."""
    values: Mapping[str, GivenValues] = field(default_factory=dict)
    """Its weight and bias, where they are given by hand."""

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    def changed(self, **settings: SettingValue) -> dict[str, Any]:
        """Its plain values with other settings, and without values by hand."""
        return read_block({"block": self.kind.name, **self.settings, **settings}).to_json()

    def to_json(self, *, flat: bool = False) -> dict[str, Any]:
        """As plain values, settings at their defaults left out.

        Args:
            flat: Whether weights set by hand are written as one flat list instead of nested lists.
        """
        changed = {s.name: self[s.name] for s in self.kind.settings if self[s.name] != s.default}
        values = {name: [*values.numbers] if flat else values.nested() for name, values in self.values.items()}
        return {"block": self.kind.name, **changed, **({"values": values} if values else {})}


def listed(blocks: object) -> Sequence[object]:
    """The items of a list of blocks, of any content.

    Raises:
        UsageError: it is not a list, or is longer than `LONGEST`.
    """
    if not isinstance(blocks, list | tuple):
        raise UsageError(f"blocks is a list such as [{{'block': 'conv'}}, ...], not {shown(blocks)}.")
    if len(blocks) > LONGEST:
        raise UsageError(f"a network has at most {LONGEST} blocks, not {len(blocks):,}.")
    return blocks


def read_block(value: object) -> Block:
    """A block from plain values.

    >>> read_block({"block": "max-pool", "size": 3}).to_json()
    {'block': 'max-pool', 'size': 3}

    Args:
        value: A mapping with the name of its kind as "block", settings by name, and for a convolution or linear layer
            perhaps "values": {"weight": ..., "bias": ...}, each as nested lists or with all numbers in one list.

    Raises:
        UsageError: another form, an unknown name, or a value of the wrong type or beyond its bounds.
    """
    if isinstance(value, Block):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(f"a block is written as {{'block': 'relu'}}, not as {shown(value)}.")
    name = value.get("block")
    if not isinstance(name, str) or name not in KINDS:
        raise UnknownName("block", _shortened(name), KINDS)
    kind = KINDS[name]
    settings: dict[str, SettingValue] = {setting.name: setting.default for setting in kind.settings}
    kind_settings = {setting.name: setting for setting in kind.settings}
    for key, argument in value.items():
        if key in {"block", "values"}:
            continue
        if key not in kind_settings:
            raise UnknownName(
                f"setting of {name}", _shortened(key), kind_settings, "" if kind_settings else "It has none."
            )
        settings[key] = _setting(kind, kind_settings[key], argument)
    return Block(kind, settings, _values(kind, value.get("values"), bias=bool(settings.get("bias"))))


def read_values(value: object) -> GivenValues:
    """Numbers of a weight or bias from nested lists.

    Raises:
        UsageError: rows of different lengths, too many numbers, or something other than a finite number.
    """
    numbers: list[float] = []
    return GivenValues(_collect(value, numbers, 0), tuple(numbers))


def _setting(kind: Kind, setting: KindSetting, argument: Any) -> SettingValue:
    """The value of a setting, checked."""
    if argument is None and setting.unset:
        return None
    if setting.kind == "flag":
        if isinstance(argument, bool):
            return argument
    elif (
        _is_number(argument, Integral if setting.kind == "whole" else Real) and setting.low <= argument <= setting.high
    ):
        return int(argument) if setting.kind == "whole" else float(argument)
    raise UsageError(f"{setting.name} of {kind.name} must be {setting.wanted}, not {shown(argument)}.")


def _values(kind: Kind, arguments: object, *, bias: bool) -> dict[str, GivenValues]:
    if arguments is None:
        return {}
    names = (["weight"] + ["bias"] * bias) if kind.written else []
    if not isinstance(arguments, Mapping) or not names:
        problem = "values is a mapping with a weight" if names else "it has no weights, so leave values out"
        raise UsageError(f"{kind.name}: {problem}{' and a bias' * bias}.")
    for name, part in arguments.items():
        if part is not None and name not in names:
            raise UnknownName(f"parameter of {kind.name}", _shortened(name), names)
    return {name: read_values(part) for name, part in arguments.items() if part is not None}


def _collect(value: Any, numbers: list[float], depth: int) -> tuple[int, ...]:
    """Append the numbers of nested lists; returns their shape."""
    if _is_number(value, Real):
        if not abs(value) <= LARGEST:  # also true for NaN
            raise UsageError(f"a weight is a finite number of float32, not {shown(value)}.")
        if len(numbers) >= BY_HAND:
            raise UsageError(f"at most {BY_HAND:,} weights can be given by hand; leave the others random.")
        numbers.append(float(value))
        return ()
    if not isinstance(value, list | tuple) or not value or depth == DEEPEST:
        raise UsageError(f"weights are nested lists of numbers, not {shown(value)}.")
    shapes = {_collect(part, numbers, depth + 1) for part in value}
    if len(shapes) > 1:
        raise UsageError("the rows of the weights differ in length; give every row the same number of columns.")
    return (len(value), *shapes.pop())


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A value as a message quotes it."""
    if isinstance(value, int) and value.bit_length() > HUGE:
        return "a huge number"
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:40]}.."


def _shortened(value: object) -> object:
    return shown(value) if not isinstance(value, str) or len(value) > 40 else value


SUFFIX = ".json"
BYTES = 4_000_000
"""Largest file: `reading.BY_HAND` weights of 20 characters take 1 MB, and a few times that with white space."""
KEYS = ("blocks", "shape", "classes")


def is_network_file(spec: object) -> bool:
    """Whether the name of a model is the path of a file of blocks.

    >>> is_network_file("shapes-cnn")
    False
    """
    try:
        return isinstance(spec, str | Path) and Path(spec).suffix == SUFFIX and Path(spec).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # not a valid file name
        return False


@takes()
def read(network: str | Path) -> dict[str, Any]:
    """The blocks of a template, or the content of a file of blocks.

    >>> read("crosses")["blocks"][1]
    {'block': 'avg-pool', 'size': 3}

    Args:
        network: A name of `TEMPLATES`, or the path of a JSON file.

    Returns:
        The arguments of the network `blocks`: its blocks, and its shape and classes where the file has them.

    Raises:
        UnknownName: neither a template nor a file.
        UsageError: a file that cannot be read, or is not one of blocks.
    """
    if is_network_file(network):
        return read_network_file(network)
    return {"blocks": template(str(network))}


def read_network_file(path: str | Path) -> dict[str, Any]:
    """The arguments of the network `blocks` that a file describes; its blocks are not checked yet.

    Args:
        path: A list of blocks as JSON, or an object {"blocks": [...], "shape": [1, 28, 28], "classes": 10}, of which
            the last two may be left out.

    Raises:
        UsageError: it cannot be read, or is neither.
    """
    file = Path(path).expanduser()
    try:
        content = parse_json(read_file(file, limit=BYTES))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {str(error).rstrip('.')}.") from None
    arguments = {"blocks": content} if isinstance(content, list) else content
    if not isinstance(arguments, dict) or not isinstance(arguments.get("blocks"), list):
        raise UsageError(
            f'{path} does not describe a network; write a list such as [{{"block": "conv"}}, ...], or an object with '
            'this list as "blocks".'
        )
    for name in arguments:
        if name not in KEYS:
            raise UnknownName(f"part of {path}", name, KEYS)
    return arguments
