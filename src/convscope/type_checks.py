"""Arguments: whether an object is of the kind that a function takes, said in one sentence where it is not.

Kinds are named by class, so that nothing is imported to ask. Imports nothing of convscope but its errors.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from convscope.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")

WHERE_FROM: Mapping[str, str] = {
    "Trace": "cs.trace(model, image) makes one",
    "Explanation": "cs.explain(trace, step, cell) makes one",
    "Contributions": "cs.explain(trace, step, cell).to_input() makes one",
    "Dataset": "cs.load_dataset(name) loads one",
    "Run": "cs.train makes one, cs.load_run(folder) reads one",
    "Module": "cs.load_model(name) makes one",
}
"""Class -> how to get an object of it; a result of a probe comes from the probe of the same name."""
ARTICLES: Mapping[str, str] = {"Module": "a torch.nn.Module", "str": "a name", "Path": "a path", "int": "an index"}
CONTAINERS = frozenset({"Mapping", "Sequence", "dict", "list", "ndarray", "tuple"})


def takes(**kinds: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function refuse objects of other kinds than these, before it begins.

    >>> @takes(trace="Trace", step="Step | str | int")
    ... def look(trace, step):
    ...     return step
    >>> look("dog.jpg", 3)
    Traceback (most recent call last):
    convscope.errors.UsageError: look takes a Trace as its trace, not a str; cs.trace(model, image) makes one.

    Args:
        kinds: Parameter -> the names of the classes that it may have, parted by `|` as in an annotation. None is let
            through where it is the default.
    """
    allowed = {name: tuple(kind.strip() for kind in values.split("|")) for name, values in kinds.items()}

    def checked(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            values = {
                **dict(zip(signature.parameters, args, strict=False)),
                **kwargs,
            }  # too many are Python's to refuse
            for name, kind in allowed.items():
                if name in values and not _is(values[name], kind, signature.parameters[name].default):
                    raise UsageError(_refusal(function.__name__, name, values, allowed))
            return function(*args, **kwargs)

        return call

    return checked


def check_kind(function: str, name: str, value: object, kind: str) -> None:
    """Refuse an argument that is not of this kind, after names were resolved.

    >>> check_kind("maps", "trace", 3, "Trace")
    Traceback (most recent call last):
    convscope.errors.UsageError: maps takes a Trace as its trace, not an int; cs.trace(model, image) makes one.
    """
    if not _is(value, (kind,)):
        raise UsageError(_refusal(function, name, {name: value}, {name: (kind,)}))


def _is(value: Any, kinds: tuple[str, ...], default: Any = inspect.Parameter.empty) -> bool:
    if value is None and default is None:
        return True
    return not {base.__name__ for base in type(value).__mro__}.isdisjoint(kinds)


def _refusal(function: str, name: str, given: Mapping[str, Any], allowed: Mapping[str, tuple[str, ...]]) -> str:
    """What was wanted, what was given, what to do."""
    value, kinds = given[name], allowed[name]
    named = [ARTICLES.get(kind, _article(kind)) for kind in kinds if kind not in {*CONTAINERS, "integer"}]
    wanted = " or ".join([*named, *(["a list"] if CONTAINERS.intersection(kinds) else [])])
    what = f"the class {value.__name__}" if isinstance(value, type) else _article(type(value).__name__)
    for other, theirs in allowed.items():
        if other != name and other in given and _is(given[other], kinds) and _is(value, theirs):
            order = f"{function}({', '.join(allowed)})"
            return f"{function} takes {wanted} as its {name}, not {what}; the arguments are exchanged: {order}."
    remedy = WHERE_FROM.get(kinds[0], f"cs.probe.{kinds[0].lower()} makes one")
    return f"{function} takes {wanted} as its {name}, not {what}; {remedy}."


def _article(noun: str) -> str:
    if noun == "NoneType":
        return "None"
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
