"""User code: a network written elsewhere, by `file.py:Class` or `package.module:factory`.

Knows importing and nothing of the built-in networks. Whatever the user's code raises becomes one sentence with its
file and line.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convscope.errors import ModelError, UnknownName, UsageError
from convscope.models.arguments import check_arguments, unfit


def find(spec: str) -> tuple[Any, Path | None]:
    """What `file.py:Name` or `package.module:Name` names, and the file if it is one.

    Raises:
        UsageError: no such file, module or name in it.
        ModelError: the code fails when it is imported.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UsageError(f"{spec!r} names no network; write file.py:Class or package.module:factory.")
    path = Path(place).expanduser().resolve() if place.endswith(".py") else None
    if path is not None and not path.is_file():
        raise UsageError(f"there is no file {place}; check the path.")
    module = _module(place) if path is None else _module_of_file(path)
    try:
        return reduce(getattr, name.split("."), module), path
    except AttributeError:
        raise UnknownName(f"network in {place}", name, _networks_in(module)) from None


def build(what: str, factory: Any, args: Mapping[str, Any], path: Path | None = None) -> nn.Module:
    """Call a class or factory with keyword arguments that were checked against its signature.

    Args:
        what: Its name in messages.
        factory: A class, a function, or an nn.Module that is already built.
        args: Keyword arguments.
        path: The file it comes from, whose folder can be imported from meanwhile.

    Raises:
        UsageError: an argument it does not take, or one that it needs.
        ModelError: it fails, or makes no nn.Module.
    """
    factory = as_module(factory)
    if isinstance(factory, nn.Module):
        if args:
            raise UsageError(f"{what} is a module that is already built; it takes no arguments.")
        return _complete(what, factory)
    if not callable(factory):
        raise ModelError(
            f"{what} is of type {type(factory).__name__}, neither an nn.Module nor something that makes one."
        )
    check_arguments(what, factory, args)
    with _importable(path):
        try:
            made = as_module(_call(_called(what, args), lambda: factory(**args)))
        except ModelError as error:
            said = unfit(what, factory, args, guess=True)
            raise UsageError(f"{'; '.join(said)}. {error}") if said else error from error.__cause__
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{what} makes a {type(made).__name__}, not an nn.Module; name the class or function that does."
        )
    return _complete(what, made)


def _complete(what: str, module: nn.Module) -> nn.Module:
    """A module whose own `__init__` has begun with that of nn.Module."""
    if "_modules" not in module.__dict__:
        raise ModelError(f"{what} is not a complete nn.Module: its __init__ does not call super().__init__() first.")
    return module


def as_module(value: Any) -> Any:
    """The module of a program of torch.export; anything else as it is."""
    return value.module() if isinstance(value, torch.export.ExportedProgram) else value


def trusted(factory: Any) -> bool:
    """Whether a run folder, which may come from anybody, may have this called with arguments of its choice.

    A module class may, a function that says it returns one, and any function of the user's own code; a function of
    an installed package may do anything.
    """
    if isinstance(factory, nn.Module) or _is_module_class(factory):
        return True
    if not inspect.isfunction(factory):
        return False
    try:
        if _is_module_class(typing.get_type_hints(factory).get("return")):
            return True
    except (NameError, TypeError, AttributeError):
        pass
    return not _installed(factory.__code__.co_filename)


def _installed(file: str) -> bool:
    """Whether a source file belongs to Python or to an installed package, rather than to the user."""
    path = Path(file).resolve()
    library = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(map(path.is_relative_to, library))


def _is_module_class(factory: Any) -> bool:
    return inspect.isclass(factory) and issubclass(factory, nn.Module)


def _module_of_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that no module of the same name is replaced."""
    name = f"convscope_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python code.")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader
    sys.modules[name] = module  # dataclasses and type hints look their module up there
    with _importable(path):
        try:
            _call(str(path), lambda: loader.exec_module(module))
        except ModelError:
            del sys.modules[name]
            raise
    return module


def _module(name: str) -> ModuleType:
    """Import a module as Python does, also from the current folder."""
    with _importable(Path.cwd() / "here.py"):
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise UsageError(
                f"there is no module {name!r}; check the name, or write it as a file: {name.replace('.', '/')}.py:NAME."
            )
        imported: ModuleType = _call(name, lambda: importlib.import_module(name))
    return imported


@contextmanager
def _importable(path: Path | None) -> Iterator[None]:
    """Let the modules beside a file be imported, also where another one of the same name already is."""
    if path is None:
        yield
        return
    folder = str(path.parent)
    siblings = {p.stem for p in path.parent.glob("*.py")} | {p.parent.name for p in path.parent.glob("*/__init__.py")}
    others = {name for name in siblings & sys.modules.keys() if _of_another_user(sys.modules[name], folder)}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in others}
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.partition(".")[0] in others]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _of_another_user(module: ModuleType, folder: str) -> bool:
    """Whether a module is user code from elsewhere: not a library, not convscope, not from this folder."""
    file = getattr(module, "__file__", None)
    ours = module.__name__.partition(".")[0] == __name__.partition(".")[0]
    return file is not None and not ours and not _installed(file) and not Path(file).is_relative_to(folder)


def _called(what: str, args: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in args.items())
    return f"{what} with {given}" if args else what


def _call(what: str, action: Callable[[], Any]) -> Any:
    """Do what the user's code does; what it raises becomes one sentence that names its file and line."""
    try:
        return action()
    except SyntaxError as error:
        raise ModelError(f"{what} is no valid Python: {error.msg} ({error.filename}, line {error.lineno}).") from error
    except (Exception, SystemExit) as error:
        raise failed(what, error) from error


def failed(what: str, error: BaseException) -> ModelError:
    """What the user's code raised as one sentence, with the last file and line of theirs that it went through."""
    theirs = [f for f in traceback.extract_tb(error.__traceback__) if _by_user(f.filename)]
    where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    said = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return ModelError(f"{what} fails: {type(error).__name__}: {said}{where}.")


def _by_user(file: str) -> bool:
    ours = Path(__file__).parent.parent
    return not file.startswith("<") and not _installed(file) and not Path(file).resolve().is_relative_to(ours)


def networks_in_file(path: Path) -> list[str]:
    """The classes and functions that a Python file defines, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    return classes or [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _networks_in(module: ModuleType) -> list[str]:
    """The networks that a module defines, or all of its functions where it has none."""
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    classes = [name for name, value in own.items() if _is_module_class(value)]
    return classes or [name for name, value in own.items() if inspect.isfunction(value)]
