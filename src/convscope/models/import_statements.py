"""Import statements: what Python files define and import, from their text; nothing is imported or executed."""

import ast
import os
import pkgutil
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from itertools import accumulate
from pathlib import Path

from convscope.models.checked_imports import is_library


def locate(name: str, folders: Sequence[str]) -> list[ModuleSpec]:
    """The files that importing a dotted name would execute, packages first, without importing; empty if none exist.

    >>> import sys
    >>> [spec.name for spec in locate("json.decoder", sys.path)]
    ['json', 'json.decoder']

    Args:
        name: A module's full name.
        folders: Where its first part is looked for, as in sys.path.
    """
    specs = []
    for part in accumulate(name.split("."), "{}.{}".format):
        spec = _first(part, folders)
        if spec is None:
            return []
        specs.append(spec)
        folders = list(spec.submodule_search_locations or ())
    return specs


def _first(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """A module in the first folder that has it; a folder without `__init__.py` only as a last resort."""
    spaces = []
    for folder in folders:
        finder = pkgutil.get_importer(folder or str(Path.cwd()))
        spec = None if finder is None else finder.find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        spaces += [] if spec is None else list(spec.submodule_search_locations or ())
    if not spaces:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = spaces
    return spec


def statements(file: Path) -> list[ast.AST]:
    """The syntax tree of a Python file as a list, without running it; empty if it is invalid or too deep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about escapes in strings, for instance; reported when the file is imported
            return list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def reachable(start: Sequence[ModuleSpec], folders: Sequence[str]) -> list[str]:
    """The files of user code that modules import, themselves included, according to their import statements.

    Nothing is executed. Statements within functions count too; names that are computed are not seen.

    Args:
        start: Modules, packages first, as `locate` gives them.
        folders: Where their imports are looked for.
    """
    files: list[str] = []
    waiting = list(start)
    while waiting:
        spec = waiting.pop(0)
        file = os.path.abspath(spec.origin) if spec.has_location and spec.origin else ""  # noqa: PTH100
        if not file or file in files or is_library(file) or not Path(file).is_file():
            continue
        files.append(file)
        for name in _imported_names(spec, Path(file)):
            waiting += locate(name, folders)
    return files


def _imported_names(spec: ModuleSpec, file: Path) -> Iterator[str]:
    """The modules that a file's import statements may refer to; `from a import b` may mean `a.b`."""
    package = spec.name if spec.submodule_search_locations is not None else spec.name.rpartition(".")[0]
    for node in statements(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, above), *filter(None, [node.module])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
