"""Checked imports: the files from which a network's code is imported, read first and checked before execution.

While a network is built, and later when its code imports more, a finder reads every Python file outside the standard
library, site-packages and convscope once, compares or notes its digest, and executes exactly these bytes: cached
bytecode is never used. Uses Python's import system; nothing of runs and networks.
"""

import ast
import hashlib
import os
import pkgutil
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    SOURCE_SUFFIXES,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from itertools import accumulate
from pathlib import Path
from types import CodeType, ModuleType

from convscope.errors import ModelError
from convscope.files import read_file
from convscope.memory import available


@dataclass(eq=False)
class Imports:
    """The files that a network's code may be imported from, and those that it has been imported from.

    >>> imports = Imports()
    >>> imports.admit("/home/me/net.py", b"pass")
    >>> list(imports.files)
    ['/home/me/net.py']
    """

    allowed: Mapping[str, str] | None = None
    """Absolute path -> SHA-256 of its content; None if any file may be imported, because the user named the code."""
    files: dict[str, str] = field(default_factory=dict)
    """The imported files, in the same form."""
    folder: str = ""
    """The folder searched first for modules, like the folder of a script."""
    refused: str = ""
    """The last rejected file."""
    outer: "Imports | None" = None
    """The imports of the enclosing code that is currently being imported."""

    def admit(self, file: str, content: bytes) -> None:
        """Record a file that is about to be executed.

        Raises:
            ModelError: it is not one of the allowed files, or its content differs.
        """
        digest = hashlib.sha256(content).hexdigest()
        if self.allowed is not None and self.allowed.get(file) != digest:
            self.refused = file
            self.check()
        if self.outer is not None:
            self.outer.admit(file, content)
        self.files[file] = digest

    def check(self) -> None:
        """Raise an error if a file was rejected, even if the importing code caught the ImportError.

        Raises:
            ModelError: says which.
        """
        if self.refused:
            raise ModelError(
                f"{self.refused!r} is new or has changed since its run was trusted, so it was not imported; read it, "
                "then trust the run again with --trust."
            )


_ACTIVE: ContextVar[Imports | None] = ContextVar("imports", default=None)
_CODE_OF: dict[str, Imports] = {}
"""File -> the imports that it belongs to, which also apply to later imports of its code."""


@contextmanager
def watching(imports: Imports) -> Iterator[None]:
    """Within it, every file of user code that this thread imports is checked or recorded.

    Raises:
        ModelError: a file that is not allowed was asked for.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    outer = _current()
    if outer is not imports:
        imports.outer = outer
    token = _ACTIVE.set(imports)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
    imports.check()


def look_in(folder: Path) -> None:
    """Make the modules of a folder importable for the code that is being imported, now and later."""
    imports = _ACTIVE.get()
    if imports is not None:
        imports.folder = str(folder)


def check_loaded(module: ModuleType) -> None:
    """Check the file of a module that was imported before, as if it were imported now.

    Raises:
        ModelError: it is not allowed.
    """
    imports, file = _ACTIVE.get(), getattr(module, "__file__", None)
    if imports is not None and file is not None and not is_library(file) and Path(file).is_file():
        imports.admit(os.path.abspath(file), read_file(Path(file), limit=available()))  # noqa: PTH100


def checked(spec: ModuleSpec) -> ModuleSpec:
    """The same module, executed from the very bytes that were checked; unchanged if imports are not recorded.

    Raises:
        ModelError: its file is not allowed, or cannot be read.
    """
    imports = _current()
    if imports is None or spec.origin is None or not spec.has_location:
        return spec
    file = os.path.abspath(getattr(spec.loader, "archive", spec.origin))  # noqa: PTH100  # links stay as they are named
    if is_library(file):
        return spec
    try:
        content = read_file(Path(file), limit=available())
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from None
    imports.admit(file, content)
    _CODE_OF[spec.origin] = imports
    if file == os.path.abspath(spec.origin):  # noqa: PTH100
        if spec.origin.endswith(tuple(SOURCE_SUFFIXES)):
            spec.loader = _Source(spec.name, spec.origin, content)
        elif spec.origin.endswith(tuple(BYTECODE_SUFFIXES)):
            spec.loader = _Bytecode(spec.name, spec.origin, content)
    return spec


class _Finder(MetaPathFinder):
    """The first finder, which checks the results of all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        imports = _current()
        if imports is None:
            return None
        folders = list(_folders(imports))
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            more = [*folders, *sys.path] if path is None and folders and finder is PathFinder else path
            spec = finder.find_spec(fullname, more, target)
            if spec is not None:
                return checked(spec)
        return None


def _folders(imports: Imports | None) -> Iterator[str]:
    """Search path for user code's own modules; sys.path is left unchanged, because other threads use it."""
    while imports is not None:
        if imports.folder:
            yield imports.folder
        imports = imports.outer


_FINDER = _Finder()


class _Source(SourceFileLoader):
    """Executes the checked content; neither reads nor writes cached bytecode."""

    def __init__(self, fullname: str, path: str, content: bytes) -> None:
        super().__init__(fullname, path)
        self._content = content

    def get_data(self, path: str) -> bytes:
        return self._content if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # importlib's signature
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


class _Bytecode(SourcelessFileLoader):
    """The same for a module that exists only as bytecode."""

    def __init__(self, fullname: str, path: str, content: bytes) -> None:
        super().__init__(fullname, path)
        self._content = content

    def get_data(self, path: str) -> bytes:
        return self._content if path == self.path else super().get_data(path)


def _current() -> Imports | None:
    """The innermost active imports: of the code being loaded, or of the user code that requests an import."""
    active, callers = _ACTIVE.get(), _of_callers()
    around = callers
    while around is not None and around is not active:
        around = around.outer
    return callers if around is active else active


def _of_callers() -> Imports | None:
    """The imports of the user code that requests the current import, if any."""
    frame = sys._getframe() if _CODE_OF else None
    while frame is not None:
        if frame.f_code.co_filename in _CODE_OF:
            return _CODE_OF[frame.f_code.co_filename]
        frame = frame.f_back
    return None


def _library_folders() -> tuple[str, ...]:
    """Folders of Python, installed packages and convscope.

    A folder of sys.path counts by its name, site-packages, because clusters and tools add theirs so; the working folder
    does not, whatever it is called.
    """
    package_folder = Path(__file__).parent.parent
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [str(package_folder), *site.getsitepackages(), site.getusersitepackages()]
    package_folders = [Path(folder) for folder in sys.path if Path(folder).name in {"site-packages", "dist-packages"}]
    working_folder = os.path.realpath(Path.cwd())
    folders += [
        str(folder) for folder in package_folders if folder.is_absolute() and os.path.realpath(folder) != working_folder
    ]
    # realpath, because Path.resolve raises for a loop of links, which a home folder may be
    spellings = [path for folder in folders for path in (Path(folder), os.path.realpath(folder))]
    return tuple(dict.fromkeys(f"{path}{os.sep}" for path in spellings))


_LIBRARY = _library_folders()


def is_library(file: str | Path) -> bool:
    """Whether a file belongs to Python, an installed package or convscope rather than to the user.

    >>> is_library(os.__file__), is_library("site-packages/net.py")
    (True, False)
    """
    path = os.path.abspath(file)  # noqa: PTH100  # a link counts by where it is, not where it leads
    return path.startswith(_LIBRARY) or _written_by_torch(path)


def _written_by_torch(path: str) -> bool:
    """Whether PyTorch generated this file, as older releases do in a temporary folder of the process."""
    instantiator = sys.modules.get("torch.distributed.nn.jit.instantiator")
    folder = getattr(instantiator, "INSTANTIATED_TEMPLATE_DIR_PATH", None)
    return isinstance(folder, str) and os.path.dirname(path) == folder  # noqa: PTH120


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
            return list(ast.walk(ast.parse(read_file(file))))
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
