"""Plugins: rows that installed packages add to a table through an entry point group. Uses errors and importlib.

A package offers a mapping from names of operations to their rows, in its `pyproject.toml`:

    [project.entry-points."convscope.ops"]
    swirl = "convscope_swirl:OPS"
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache, wraps
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeAlias, TypeVar

from convscope.errors import ConvscopeError, PluginError
from convscope.type_checks import kind_of

Row = TypeVar("Row")
Check: TypeAlias = Callable[..., str]
"""(what a function returned, its positional arguments) -> what is wrong with it, or ""."""
Checks: TypeAlias = Mapping[str, Check]
"""By the field of a row that holds the function."""


class PluginTable(dict[str, Row], Generic[Row]):
    """A table of operations whose rows installed packages complete.

    Packages are asked only for a name with a namespace (`swirl::swirl`) that the table lacks, so none of PyTorch's own
    operations can be changed unnoticed, and nothing is imported until a model calls such an operation. Iteration and
    length are of the table's own rows. `table | {...}` is such a table too.

    >>> table = PluginTable({"relu": 1}, "convscope.nothing") | {"tanh": 2}
    >>> table["tanh"], "swirl::swirl" in table, table.get("swirl::swirl", 0)
    (2, False, 0)
    """

    def __init__(self, rows: Mapping[str, Row], group: str, kind: type = object, checks: Checks | None = None) -> None:
        """Set the table's own rows, and what is asked of those of packages.

        Args:
            group: The entry points' group.
            kind: The type of a row.
            checks: For fields of a row that are functions, what is asked of a result: see `Check`.
        """
        super().__init__(rows)
        self.group, self.kind, self.checks = group, kind, checks or {}

    def __missing__(self, name: str) -> Row:
        return self._offered(name)[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name in self._offered(name))

    def get(self, name: str, default: Any = None) -> Any:
        """The row of an operation, or `default`."""
        try:
            return self[name]
        except KeyError:
            return default

    def __or__(self, other: Mapping[str, Row]) -> "PluginTable[Row]":  # type: ignore[override]  # any mapping will do
        return PluginTable({**self, **other}, self.group, self.kind, self.checks)

    def _offered(self, name: str) -> Mapping[str, Row]:
        return rows_of(self.group, self.kind, tuple(self.checks.items())) if "::" in name else {}


@cache
def rows_of(group: str, kind: type = object, checks: tuple[tuple[str, Check], ...] = ()) -> Mapping[str, Any]:
    """The rows that all installed packages offer in a group, each a `kind`.

    Raises:
        PluginError: a package cannot be imported, or registers something other than a mapping from names to rows.
    """
    rows: dict[str, Any] = {}
    for point in _points(group):
        for name, row in _loaded(point).items():
            if why := _problem(name, row, rows, kind):
                offered = repr(name) if type(name) in {str, int, float, bytes} else kind_of(name)
                raise PluginError(f"the package {_package(point)} offers {offered} through {group}, but {why}.")
            rows[name] = _guarded(row, f"of {name!r} in the package {_package(point)}", dict(checks))
    return rows


def _points(group: str) -> Iterable[EntryPoint]:
    """The entry points of a group.

    Raises:
        PluginError: those of some package cannot be read.
    """
    try:
        return tuple(entry_points(group=group))
    except Exception as error:  # whatever damaged metadata lead to
        raise PluginError(
            f"the entry points of installed packages cannot be read: {_said(error)}. Repair or uninstall the package."
        ) from error


def _problem(name: object, row: object, rows: Mapping[str, object], kind: type) -> str:
    """Why a package's row cannot be used, or ""."""
    if type(name) is not str or "::" not in name:
        return "the name of an operation needs a namespace: 'mylib::swirl'"
    if name in rows:
        return "another package offers it too"
    if not isinstance(row, kind):
        return f"its row is {kind_of(row)}, and must be of the type {kind.__name__}"
    for each in fields(row) if is_dataclass(row) else ():
        if each.default is MISSING and not callable(getattr(row, each.name)):
            return f"its {each.name} is {kind_of(getattr(row, each.name))}, not a function"
    return ""


def _said(error: BaseException) -> str:
    """The kind of an error and its message, if it has one that can be read."""
    try:
        return f"{type(error).__name__}: {error}".rstrip(". ")
    except Exception:  # an error of a package may fail at that, too
        return type(error).__name__


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _loaded(point: EntryPoint) -> Mapping[Any, Any]:
    offers = f"the package {_package(point)} offers operations through {point.group} as {point.value}, which"
    try:
        offered = point.load()
        rows = dict(offered) if isinstance(offered, Mapping) else None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, which would end the process without a word
        raise PluginError(f"{offers} cannot be imported: {_said(error)}. Repair or uninstall it.") from error
    if rows is None:
        raise PluginError(f"{offers} is {kind_of(offered)}, not a mapping from names to rows.")
    return rows


def _guarded(row: Any, owner: str, checks: Checks) -> Any:
    """A row whose functions raise a PluginError that names them and the package, whatever they raise or return."""
    if not is_dataclass(row) or isinstance(row, type):
        return row
    changed = dict[str, Any]()
    for each in fields(row):
        value = getattr(row, each.name)
        if is_dataclass(value) and not isinstance(value, type):
            changed[each.name] = _guarded(value, owner, checks)
        elif callable(value) and not str(getattr(value, "__module__", "")).startswith("convscope."):
            changed[each.name] = _guarded_function(value, f"the {each.name} {owner}", checks.get(each.name))
    return replace(row, **changed)


def _guarded_function(function: Callable[..., Any], name: str, check: Check | None) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            result = function(*args, **keywords)
            why = "" if check is None else check(result, *args)
        except (ConvscopeError, KeyboardInterrupt):
            raise
        except BaseException as error:  # also SystemExit, which would end the process without a word
            raise PluginError(f"{name} fails: {_said(error)}.") from error
        if why:
            raise PluginError(f"{name} returns {why}.")
        return result

    return call
