"""User code: a network defined by the user, as `file.py:Class` or `package.module:factory`.

Uses importing and nothing of the built-in networks; imports.py checks the files. Whatever the user's code raises
becomes one sentence with its file and line.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convscope.errors import ModelError, UnknownName, UsageError
from convscope.models.checked_imports import check_loaded, checked, is_library, locate, look_in, reachable, statements
from convscope.models.network_arguments import check_arguments, unfit
from convscope.type_checks import kind_of


def find(spec: str) -> tuple[Any, Path | None]:
    """The object that `file.py:Name` or `package.module:Name` names, and its file if any; called within `watching`.

    Raises:
        UsageError: no such file, module or name in it.
        ModelError: the code fails when it is imported.
    """
    location, name, path = split(spec)
    if path is not None and not path.is_file():
        raise UsageError(f"there is no file {location}; check the path.")
    module = _module(location) if path is None else _module_of_file(path)
    try:
        return reduce(getattr, name.split("."), module), path
    except AttributeError:
        raise UnknownName(f"network in {location}", name, _networks_in(module)) from None


def split(spec: str) -> tuple[str, str, Path | None]:
    """The file or module in a network's name, the name in it, and the file's path; nothing is imported.

    >>> split("torch.nn:Linear")
    ('torch.nn', 'Linear', None)

    Raises:
        UsageError: it has another form.
    """
    location, _, name = spec.rpartition(":")
    if not location or not name:
        raise UsageError(f"{spec!r} names no network; write file.py:Class or package.module:factory.")
    if not location.endswith(".py"):
        return location, name, None
    try:
        path = Path(os.path.realpath(Path(location).expanduser()))
        path.is_file()  # which refuses a name that is too long, for instance
    except (ValueError, RuntimeError, OSError) as error:  # a character or a user that does not exist, links in a circle
        raise UsageError(f"{location!r} cannot be the path of a file: {error}.") from None
    return location, name, path


def check_exists(spec: str) -> None:
    """Reject a network whose file is missing or, judging by its text, does not define it.

    Nothing is imported, so a module that is not found here may still be imported.

    Raises:
        UsageError: no such file, or nothing in it has this name.
    """
    location, name, path = split(spec)
    if path is None:
        return
    if not path.is_file():
        raise UsageError(f"there is no file {location}; check the path.")
    names = _names_in_file(path)
    if names is not None and name.partition(".")[0] not in names:
        raise UnknownName(f"network in {location}", name, networks_in_file(path))


def files_of(spec: str) -> list[str]:
    """The user's files that a network comes from: its own and those in its import statements.

    >>> files_of("torch.nn:Linear")
    []

    Nothing is imported; names that are computed when the code runs are not seen.

    Args:
        spec: `file.py:Class` or `package.module:factory`.

    Raises:
        UsageError: it has another form.
    """
    location, _, path = split(spec)
    if path is not None:
        module_spec = importlib.util.spec_from_file_location(_name_of(path), path)
        return [] if module_spec is None else reachable([module_spec], [str(path.parent), *sys.path])
    if not _is_dotted_name(location):
        return []
    folder = _working_folder_of(location)
    folders = [*([] if folder is None else [str(folder)]), *sys.path]
    return reachable(locate(location, folders), folders)


def build(name: str, factory: object, args: Mapping[str, object], path: Path | None = None) -> nn.Module:
    """Call a class or factory with keyword arguments that were checked against its signature.

    Args:
        name: Its name in messages.
        factory: A class, a function, or an nn.Module that is already built.
        args: Keyword arguments.
        path: The file it comes from.

    Raises:
        UsageError: an argument it does not take, or one that it needs.
        ModelError: it fails, or makes no nn.Module.
    """
    factory = as_module(factory)
    if isinstance(factory, nn.Module):
        if args:
            raise UsageError(f"{name} is a module that is already built; it takes no arguments.")
        return _complete(name, factory)
    if not callable(factory):
        raise ModelError(
            f"{name} is of type {type(factory).__name__}, neither an nn.Module nor something that makes one."
        )
    check_arguments(name, factory, args)
    with _isolated(path and path.parent):
        try:
            module = as_module(_call(_called(name, args), lambda: factory(**args)))
        except ModelError as error:
            message = unfit(name, factory, args, guess=True)
            raise UsageError(f"{'; '.join(message)}. {error}") if message else error from error.__cause__
    if not isinstance(module, nn.Module):
        raise ModelError(f"{name} makes {kind_of(module)}, not an nn.Module; name the class or function that does.")
    return _complete(name, module)


def _complete(name: str, module: nn.Module) -> nn.Module:
    """A module that has called nn.Module's `__init__`."""
    if "_modules" not in module.__dict__:
        raise ModelError(f"{name} is not a complete nn.Module: its __init__ does not call super().__init__() first.")
    return module


def as_module(value: Any) -> Any:
    """The module of an exported program of torch.export; anything else unchanged."""
    return value.module() if isinstance(value, torch.export.ExportedProgram) else value


def _is_module_class(factory: object) -> bool:
    return inspect.isclass(factory) and issubclass(factory, nn.Module)


def _name_of(path: Path) -> str:
    """A unique module name, so that no module of the same name is replaced."""
    return f"convscope_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _module_of_file(path: Path) -> ModuleType:
    """Import a file."""
    name = _name_of(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise UsageError(f"{path} cannot be imported as Python code.")
    look_in(path.parent)
    with _isolated(path.parent):
        loader = checked(spec).loader
        assert loader is not None, "a file's module has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and type hints look their module up there
        try:
            _call(str(path), lambda: loader.exec_module(module))
        except ModelError as error:
            del sys.modules[name]
            if isinstance(error.__cause__, ImportError) and "no known parent package" in str(error.__cause__):
                raise ModelError(_in_a_package(path, error)) from None
            raise
    return module


def _in_a_package(path: Path, error: ModelError) -> str:
    """What to do about a file that imports its neighbours by `from .name import`, which only works in a package."""
    package = path.parent
    folder = package.parent if Path.cwd() == package else Path.cwd()
    dotted = ".".join(path.with_suffix("").relative_to(folder).parts) if path.is_relative_to(folder) else ""
    remedy = "import its neighbours without the dot, as in `from name import ...`"
    if _is_dotted_name(dotted):
        where = "in the folder above, " if Path.cwd() == package else ""
        remedy = f"{where}name the network as {dotted}:NAME, or {remedy}"
    return f"{str(error).rstrip('.')}: a file with relative imports is part of a package; {remedy}."


def _module(name: str) -> ModuleType:
    """Import a module like Python, also from the current folder if only that has it."""
    missing = f"there is no module {name!r}; check the name, or write it as a file: {name.replace('.', '/')}.py:NAME."
    if not _is_dotted_name(name):
        raise UsageError(missing)
    folder = _working_folder_of(name)
    if folder is not None:
        look_in(folder)
    with _isolated(folder):
        try:
            imported: ModuleType = _call(name, lambda: importlib.import_module(name))
        except ModelError as error:
            cause = error.__cause__
            if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
                raise UsageError(missing) from None
            raise
    check_loaded(imported)
    return imported


def _is_dotted_name(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _working_folder_of(name: str) -> Path | None:
    """The working folder if a module comes from there; None if Python finds it elsewhere.

    Files in the working folder must not shadow an installed package that is named.

    Raises:
        UsageError: both have it.
    """
    local_specs, installed_specs = locate(name, [str(Path.cwd())]), locate(name, sys.path)
    if not local_specs:
        return None
    local, installed = local_specs[-1].origin, installed_specs[-1].origin if installed_specs else None
    if local and installed and Path(local).resolve() != Path(installed).resolve():
        raise UsageError(
            f"both {installed} and {local} are the module {name}; name the second by its file: {local}:NAME."
        )
    return Path.cwd() if local or not installed else None


@contextmanager
def _isolated(folder: Path | None) -> Iterator[None]:
    """Make the modules of a folder importable even if others of the same name are already imported."""
    if folder is None:
        yield
        return
    siblings = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    conflicting = {name for name in siblings & sys.modules.keys() if _of_another_user(sys.modules[name], str(folder))}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in conflicting}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in conflicting]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _of_another_user(module: ModuleType, folder: str) -> bool:
    """Whether a module is user code from elsewhere: not a library, not convscope, not from this folder."""
    file = getattr(module, "__file__", None)
    return file is not None and not is_library(file) and not Path(file).is_relative_to(folder)


def _called(callee: str, args: Mapping[str, object]) -> str:
    call = ", ".join(f"{name}={value!r}" for name, value in args.items())
    return f"{callee} with {call}" if args else callee


def _call(callee: str, action: Callable[[], Any]) -> Any:
    """Run the user's code; an exception becomes one sentence that names its file and line."""
    try:
        return action()
    except SyntaxError as error:
        raise ModelError(
            f"{callee} is not valid Python: {error.msg} ({error.filename}, line {error.lineno})."
        ) from error
    except (Exception, SystemExit) as error:
        raise failed(callee, error) from error


def failed(callee: str, error: BaseException) -> ModelError:
    """An exception of the user's code as one sentence, with the last of their files and lines in its traceback."""
    message = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return ModelError(f"{callee} fails: {type(error).__name__}: {message}{line_of(error)}.")


def line_of(error: BaseException) -> str:
    """The last file and line of the user's code in a traceback, in brackets; "" if there is none."""
    user_frames = [f for f in traceback.extract_tb(error.__traceback__) if _by_user(f.filename)]
    return f" ({user_frames[-1].filename}, line {user_frames[-1].lineno})" if user_frames else ""


def _by_user(file: str) -> bool:
    return not file.startswith("<") and not is_library(file)


def networks_in_file(path: Path) -> list[str]:
    """The classes and functions that a Python file defines, without running it."""
    module = next((node for node in statements(path) if isinstance(node, ast.Module)), ast.Module([], []))
    classes = [node.name for node in module.body if isinstance(node, ast.ClassDef) and node.bases]
    return classes or [node.name for node in module.body if isinstance(node, ast.FunctionDef)]


def _names_in_file(path: Path) -> set[str] | None:
    """The names that a Python file binds anywhere, without running it; None if its text does not determine them."""
    nodes = statements(path)
    names: set[str] = set()
    for node in nodes:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.alias():
                names.add(node.asname or node.name.partition(".")[0])
            case ast.Call(func=ast.Name(id="globals" | "exec" | "vars" | "setattr")):
                return None
    return names if nodes and not names & {"*", "__getattr__"} else None


def _networks_in(module: ModuleType) -> list[str]:
    """The networks that a module defines or, if there are none, all of its functions."""
    members = {
        name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    }
    classes = [name for name, value in members.items() if _is_module_class(value)]
    return classes or [name for name, value in members.items() if inspect.isfunction(value)]
