"""Type checks: whether an argument has a type that a function takes; a refusal is one sentence.

Kinds are named by class, so that nothing but NumPy is imported to ask. Imports nothing of convscope but its errors.
"""

import inspect
import operator
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from numpy.typing import ArrayLike

from convscope.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")


def _is_index(value: object) -> bool:
    try:
        operator.index(value)  # type: ignore[arg-type]  # whether it can be one is the question
    except Exception:  # as of an array of two numbers, or whatever a class of the user raises
        return False
    return True


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]  # whether it can be one is the question
    except Exception:  # as of an array of two numbers, or of a class
        return False
    return True


def _is_array(value: object) -> bool:
    """Whether it is an array of numbers, NumPy's or one that NumPy can read."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and _is_array_like(value)


def _is_array_like(value: object) -> bool:
    """Whether NumPy makes an array of numbers of it, as of a list, a number or a tensor on the CPU."""
    try:
        return np.asarray(value).dtype.kind in "biufc"
    except Exception:  # whatever the conversion of some object raises, it makes no array
        return False


def _is_names(value: object) -> bool:
    return _is_sequence(value) and all(isinstance(item, str) for item in value)  # type: ignore[attr-defined]


def _is_sequence(value: object) -> bool:
    """Whether it is a list or serves as one: an array or a set, say, but not a text."""
    if hasattr(value, "__array__"):
        return getattr(value, "ndim", 1) != 0 and hasattr(value, "__iter__")
    return isinstance(value, Collection) and not isinstance(value, str | Mapping)


WHERE_FROM: Mapping[str, str] = {
    "Trace": "cs.trace(model, image) makes one",
    "Explanation": "cs.explain(trace, step, cell) makes one",
    "Contributions": "cs.explain(trace, step, cell).to_input() makes one",
    "Dataset": "cs.load_dataset(name) loads one",
    "Run": "cs.train makes one, cs.load_run(folder) reads one",
    "Module": "cs.load_model(name) makes one",
}
"""Class -> how to get an object of it."""
RESULTS = frozenset(
    {"Attribution", "Compare", "Dead", "Gradients", "Lint", "Patches", "ReceptiveField", "Shift", "Shortcut"}
)
"""Results of probes; each comes from the function of its name, such as cs.probe.receptive_field."""
ARTICLES: Mapping[str, str] = {
    "Module": "a torch.nn.Module",
    "str": "a name",
    "Path": "a path",
    "int": "an integer",
    "float": "a number",
    "bool": "True or False",
    "Callable": "a function",
    "Mapping": "a mapping",
    "ndarray": "an array of numbers",
    "array": "an array or a list of numbers",
    "names": "a list of names",
}
PLAIN: Mapping[str, Callable[[object], bool]] = {
    "int": _is_index,
    "float": lambda value: _is_index(value) or (hasattr(value, "__float__") and _is_number(value)),
    "bool": lambda value: isinstance(value, int) or type(value).__name__ == "bool",  # NumPy's is a bool too
    "str": lambda value: isinstance(value, str),
    "Path": lambda value: isinstance(value, str | PathLike),
    "Mapping": lambda value: isinstance(value, Mapping),
    "ndarray": _is_array,
    "array": _is_array_like,
    "names": _is_names,
    "Sequence": _is_sequence,
    "tuple": _is_sequence,
    "Callable": callable,
}
"""Kind -> whether an object passes as one."""
CONTAINERS = frozenset({"Sequence", "dict", "list", "tuple"})


def takes(**kinds: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function refuse objects of other kinds than it takes, before it begins.

    Parameters annotated with numbers, texts, paths, mappings, sequences or functions are checked by their annotation:
    an object that Python or NumPy would convert (an index for an int, a list for a sequence) is let through.

    >>> @takes(trace="Trace", step="Step | str | int")
    ... def look(trace, step, depth: int = 1):
    ...     return step
    >>> look("dog.jpg", 3)
    Traceback (most recent call last):
    convscope.errors.UsageError: look takes a Trace as its trace, not a str; cs.trace(model, image) makes one.

    Args:
        kinds: Parameter -> the names of the classes that it may have, parted by `|` as in an annotation; for those
            whose annotation says more or less than this, "Any" for those that the function checks itself. None is let
            through where it is the default.
    """
    named = {name: tuple(kind.strip() for kind in values.split("|")) for name, values in kinds.items()}

    def checked(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        order = tuple(signature.parameters)
        kinds = {**_annotated(signature), **named}
        allowed = {name: kinds[name] for name in order if name in kinds}
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        starred = next((n for n, p in signature.parameters.items() if p.kind is p.VAR_POSITIONAL), None)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            # too many positional arguments are Python's to refuse
            values: dict[str, object] = {**dict(zip(order, args, strict=False)), **kwargs}
            for name, value in values.items():
                if isinstance(value, HOLDS_INTEGERS):
                    refuse_huge(function.__name__, name, value)
            for name, kind in allowed.items():
                if name in values and name != starred and not _is(values[name], kind, defaults[name]):
                    raise UsageError(_refusal(function.__name__, name, values, allowed))
            for name, value in values.items():
                if problem := _out_of_range(name, value, allowed.get(name, ())):
                    raise UsageError(f"{problem}.")
            return function(*args, **kwargs)

        return call

    return checked


def _annotated(signature: inspect.Signature) -> dict[str, tuple[str, ...]]:
    """The parameters whose annotation names plain kinds alone -> these kinds."""
    kinds = dict[str, tuple[str, ...]]()
    for name, parameter in signature.parameters.items():
        annotation = parameter.annotation
        if annotation == ArrayLike:
            kinds[name] = ("array",)
            continue
        members = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
        names = [_kind_of_annotation(member) for member in members if member is not type(None)]
        if names and all(names):
            kinds[name] = tuple(name for name in names if name is not None)
    return kinds


def _kind_of_annotation(annotation: object) -> str | None:
    """The kind that an annotation such as `int` or `Mapping[str, Op]` names; None if it is not a plain kind."""
    if get_origin(annotation) is Literal:  # the function itself asks which of them it is
        types = {type(option).__name__ for option in get_args(annotation)}
        return types.pop() if len(types) == 1 else None
    name = getattr(get_origin(annotation) or annotation, "__name__", None)
    if name == "Sequence" and get_args(annotation) == (str,):
        return "names"
    return name if name in PLAIN else None


def check_kind(function: str, name: str, value: object, kind: str) -> None:
    """Refuse an argument that is not of this kind, after names were resolved.

    >>> check_kind("maps", "trace", 3, "Trace")
    Traceback (most recent call last):
    convscope.errors.UsageError: maps takes a Trace as its trace, not an int; cs.trace(model, image) makes one.
    """
    refuse_huge(function, name, value)
    if not _is(value, (kind,)):
        raise UsageError(_refusal(function, name, {name: value}, {name: (kind,)}))


def refuse_huge(function: str, name: str, value: object) -> None:
    """Refuse an integer that no argument can be, before a message tries to write it.

    >>> refuse_huge("trace", "step", 10**5000)
    Traceback (most recent call last):
    convscope.errors.UsageError: trace takes no integer of 16,610 bits as its step.
    """
    if bits := huge(value):
        raise UsageError(f"{function} takes no integer of {bits:,} bits as its {name}.")


def _is(value: object, kinds: tuple[str, ...], default: object = inspect.Parameter.empty) -> bool:
    if value is None and default is None:
        return True
    if "Any" in kinds:
        return True
    has_name = any(base.__name__ in kinds for base in type(value).__mro__)
    return has_name or any(PLAIN[kind](value) for kind in kinds if kind in PLAIN)


def huge(value: object, depth: int = 3) -> int:
    """The bits of an integer too large for any argument, also in a list or a mapping; 0 without one.

    >>> huge((1, 10**5000)), huge(10**30)
    (16610, 0)
    """
    if type(value) is int:
        bits = value.bit_length()
        return bits if bits > LONGEST_INT else 0
    if isinstance(value, list | tuple | set | frozenset) and depth and len(value) <= SCANNED:
        return max((huge(part, depth - 1) for part in value if not isinstance(part, dict)), default=0)
    if isinstance(value, dict) and len(value) <= SCANNED:
        return max((huge(part, 0) for pair in value.items() for part in pair), default=0)
    if isinstance(value, np.ndarray) and value.dtype == object and depth and value.size <= SCANNED:
        return huge(value.ravel().tolist(), depth)
    return 0


PATHS = frozenset({"data", "data_dir", "dataset", "image", "model", "name", "source", "spec", "weights"})
"""Parameters that take a path or something else, a name or an array."""
UNUSUAL = frozenset("\0~")
"""Characters that make a path of few bytes impossible: null, and a home folder that may not exist."""
HOLDS_INTEGERS = (int, list, tuple, set, frozenset, dict, np.ndarray)
"""Types that `huge` looks into."""
LONGEST_INT = 256
"""Bits of the largest integer of any argument; Python refuses to format integers of thousands of digits."""
SCANNED = 100
"""Longest list or mapping that is searched for such numbers."""
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a name and of a whole path that file systems take."""


def _out_of_range(name: str, value: object, kinds: tuple[str, ...]) -> str:
    """Why a function cannot use a value that is of the right kind, or ""."""
    if name == "seed" and isinstance(value, int) and value < 0:
        return f"seed must be an integer from 0, not {value}"
    if isinstance(value, str | PathLike) and ("Path" in kinds or name in PATHS):
        path = os.fspath(value)
        if len(path) <= LONGEST_NAME and path.isascii() and UNUSUAL.isdisjoint(str(path)):
            return ""  # as nearly always: found in a tenth of the time
        problem = _path_problem(path)
        return problem and f"{str(value)[:40]!r} cannot be a path: {problem}"
    return ""


def _path_problem(path: str | bytes) -> str:
    """Why a text names no file on any system, or ""; with or without `folder:` in front.

    >>> _path_problem("a" * 300)
    'it has a name of 300 bytes, and 255 is the most'
    """
    try:
        text = os.fsencode(path)
    except UnicodeEncodeError:
        return "it has characters that cannot be part of one"
    if b"\0" in text:
        return "it has a null character"
    longest = max((len(os.fsencode(part)) for part in Path(os.fsdecode(text)).parts), default=0)
    if longest > LONGEST_NAME:
        return f"it has a name of {longest:,} bytes, and {LONGEST_NAME} is the most"
    if len(text) > LONGEST_PATH:
        return f"it has {len(text):,} bytes, and {LONGEST_PATH:,} is the most"
    for part in (text, text.partition(b":")[2]):
        location = Path(os.fsdecode(part))
        try:
            location.expanduser()
        except RuntimeError:
            return f"there is no home folder {location.parts[0]}"
    return ""


def _refusal(function: str, name: str, arguments: Mapping[str, object], allowed: Mapping[str, tuple[str, ...]]) -> str:
    """The error message: what was expected, what was passed, what to do."""
    value, kinds = arguments[name], allowed[name]
    kinds = ("Path",) if set(kinds) == {"str", "Path"} else kinds
    named = [ARTICLES.get(kind, _article(kind)) for kind in kinds if kind not in {*CONTAINERS, "integer"}]
    expected = " or ".join([*named, *(["a list"] if CONTAINERS.intersection(kinds) else [])])
    received = repr(value) if isinstance(value, int | float | str) and kinds[0] in PLAIN else kind_of(value)
    received = received if len(received) < 60 else kind_of(value)
    for other_name, other_kinds in allowed.items():
        # not for names and numbers, which fit each other's parameters by chance
        swapped = other_name != name and PLAIN.keys().isdisjoint({kinds[0], other_kinds[0]})
        if swapped and other_name in arguments and _is(arguments[other_name], kinds) and _is(value, other_kinds):
            order = f"{function}({', '.join(parameter for parameter in allowed if parameter in {name, other_name})})"
            return f"{function} takes {expected} as its {name}, not {received}; the arguments are exchanged: {order}."
    remedy = f"; {_where_from(kinds[0])}" if kinds[0] in {*WHERE_FROM, *RESULTS} else ""
    return f"{function} takes {expected} as its {name}, not {received}{remedy}."


def _where_from(kind: str) -> str:
    return WHERE_FROM.get(kind) or f"cs.probe.{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', kind).lower()} makes one"


def check_rows(function: str, name: str, rows: object, row: str) -> None:
    """Refuse what is not a mapping from names of operations to rows of this class.

    >>> check_rows("explain", "ops", {"mylib::swirl": 3}, "Op")
    Traceback (most recent call last):
    convscope.errors.UsageError: explain takes an Op as a row of its ops, not an int for 'mylib::swirl'.
    """
    if not isinstance(rows, Mapping):
        raise UsageError(f"{function} takes a mapping from names of operations as its {name}, not {kind_of(rows)}.")
    for operation, value in rows.items():
        if not _is(value, (row,)):
            raise UsageError(
                f"{function} takes {_article(row)} as a row of its {name}, not {kind_of(value)} for {operation!r}."
            )


def kind_of(value: object) -> str:
    """What an object is, with its article, for a message.

    >>> kind_of(3), kind_of(None), kind_of(int), kind_of([])
    ('an int', 'None', 'the class int', 'a list')
    """
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else _article(type(value).__name__)


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
