"""Network arguments: parse them from the command line and check their types.

Uses signatures and type hints; builds nothing.
"""

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np

from convscope.errors import UnknownName, UsageError

WORDS: Mapping[str, object] = {"true": True, "false": False, "none": None, "null": None}
"""Spellings of Python's constants, in lower case too."""

KINDS: Mapping[object, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool, np.bool_, Integral)),
    int: ("an integer", (Integral,)),
    float: ("a number", (Real,)),
    str: ("a text", (str,)),
    type(None): ("None", (type(None),)),
}
"""The type hints that are checked: description, and the accepted types."""


def parse_model_args(arguments: list[str]) -> dict[str, object]:
    """Read `name=value` as typed on a command line: Python literals, true, false and none, everything else as text.

    >>> parse_model_args(["kernels=(4, 8)", "softmax=true", "act=relu"])
    {'kernels': (4, 8), 'softmax': True, 'act': 'relu'}

    Raises:
        UsageError: an argument without a name or without `=`.
    """
    parsed: dict[str, object] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"a model argument is written name=value, such as kernels=4, not {argument!r}.")
        try:
            parsed[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parsed[name.strip()] = WORDS.get(value.strip().lower(), value)
    return parsed


def check_arguments(callee: str, factory: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Reject arguments that a class or function does not accept, or whose type does not fit its hints.

    >>> check_arguments("Net", lambda width: width, {"wdith": 3})
    Traceback (most recent call last):
    convscope.errors.UnknownName: no argument of Net is called 'wdith'; did you mean 'width'? There are: width.

    A number of another kind than the hint says is let through: hints are often narrower than the code.

    Args:
        callee: The network's name in messages.
        factory: What will be called.
        args: Keyword arguments.

    Raises:
        UnknownName: it takes no argument of this name.
        UsageError: an argument that it needs is missing, or one is text where a number is needed.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (ValueError, TypeError):  # some callables written in C have none
        return
    keyword_names = [n for n, p in parameters.items() if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in args:
            if name not in keyword_names:
                raise UnknownName(
                    f"argument of {callee}", name, keyword_names, "" if keyword_names else "It takes none."
                )
    required = [n for n in keyword_names if parameters[n].default is inspect.Parameter.empty and n not in args]
    if required:
        python = ", ".join(f"{name!r}: ..." for name in required)
        options = " ".join(f"--model-arg {name}=VALUE" for name in required)
        raise UsageError(f"{callee} needs {' and '.join(required)}; give args={{{python}}} ({options}).")
    for problem in unfit(callee, factory, {name: value for name, value in args.items() if isinstance(value, str)}):
        raise UsageError(f"{problem}.")


def unfit(callee: str, factory: Callable[..., Any], args: Mapping[str, Any], *, guess: bool = False) -> list[str]:
    """A sentence for each argument that does not fit its type hint.

    >>> def net(width: int = 8): ...
    >>> unfit("net", net, {"width": 4.5})
    ['width of net must be an integer, such as its default 8, not 4.5']

    Args:
        callee: The network's name in messages.
        factory: What will be called.
        args: Keyword arguments.
        guess: Whether a default says the kind where there is no hint.
    """
    hints, defaults = _hints(factory), _defaults(factory)
    if guess:
        hints = {name: type(value) for name, value in defaults.items() if isinstance(value, Real)} | hints
    problems: list[str] = []
    for name, value in args.items():
        hint, default = hints.get(name, Any), defaults.get(name, inspect.Parameter.empty)
        if _fits(value, hint) or value is default:
            continue
        such = "" if default is inspect.Parameter.empty else f", such as its default {default!r}"
        problems.append(f"{name} of {callee} must be {_in_words(hint)}{such}, not {value!r}")
    return problems


def _hints(factory: object) -> dict[str, object]:
    """The type hints of a callable; empty if they cannot be read."""
    called = factory.func if isinstance(factory, partial) else factory
    try:
        return typing.get_type_hints(called.__init__ if inspect.isclass(called) else called)
    except (NameError, TypeError, AttributeError):
        return {}


def _defaults(factory: Any) -> dict[str, Any]:
    try:
        return {name: p.default for name, p in inspect.signature(factory).parameters.items()}
    except (ValueError, TypeError):
        return {}


def _fits(value: object, hint: object) -> bool:
    """Whether a value may be meant for a hint; whatever is not known here may."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin in {tuple, list, Sequence}:
        return isinstance(value, tuple | list) and _all_fit(value, origin, parts)
    if hint is int and isinstance(value, bool):
        return False
    return hint not in KINDS or isinstance(value, KINDS[hint][1])


def _all_fit(values: Sequence[object], origin: object, parts: tuple[object, ...]) -> bool:
    if origin is tuple and parts[-1] is not Ellipsis:
        return len(values) == len(parts) and all(map(_fits, values, parts))
    return all(_fits(value, parts[0]) for value in values)


def _in_words(hint: object) -> str:
    """A type hint in plain words.

    >>> _in_words(tuple[int, int]), _in_words(int | None), _in_words(typing.Literal["max", "mean"])
    ('2 values, each an integer', 'an integer or None', "'max' or 'mean'")
    """
    parts = [part for part in typing.get_args(hint) if part is not Ellipsis]
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_in_words(part) for part in parts)
    if origin is typing.Literal:
        return " or ".join(map(repr, parts))
    if origin in {tuple, list, Sequence}:
        count_words = (
            f"{len(parts)} values" if origin is tuple and Ellipsis not in typing.get_args(hint) else "several values"
        )
        return f"{count_words}, each {' or '.join(dict.fromkeys(map(_in_words, parts)))}"
    return KINDS[hint][0] if hint in KINDS else str(getattr(hint, "__name__", hint))
