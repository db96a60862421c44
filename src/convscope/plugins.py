"""Plugins: rows that installed packages add to a table through an entry point group. Uses errors and importlib.

A package offers a mapping from names of operations to their rows, in its `pyproject.toml`:

    [project.entry-points."convscope.ops"]
    swirl = "convscope_swirl:OPS"
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from convscope.errors import PluginError
from convscope.type_checks import kind_of

Row = TypeVar("Row")


class PluginTable(dict[str, Row], Generic[Row]):
    """A table of operations whose rows installed packages complete.

    Packages are asked only for a name with a namespace (`swirl::swirl`) that the table lacks, so none of PyTorch's own
    operations can be changed unnoticed, and nothing is imported until a model calls such an operation. Iteration and
    length are of the table's own rows. `table | {...}` is such a table too.

    >>> table = PluginTable({"relu": 1}, "convscope.nothing") | {"tanh": 2}
    >>> table["tanh"], "swirl::swirl" in table, table.get("swirl::swirl", 0)
    (2, False, 0)
    """

    def __init__(self, rows: Mapping[str, Row], group: str) -> None:
        super().__init__(rows)
        self.group = group

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
        return PluginTable({**self, **other}, self.group)

    def _offered(self, name: str) -> Mapping[str, Row]:
        return rows_of(self.group) if "::" in name else {}


@cache
def rows_of(group: str) -> Mapping[str, Any]:
    """The rows that all installed packages offer in a group.

    Raises:
        PluginError: a package cannot be imported, or registers something other than a mapping from names to rows.
    """
    rows: dict[str, Any] = {}
    for point in entry_points(group=group):
        offered = _loaded(point)
        for name in offered:
            if name in rows or "::" not in name:
                package = point.dist.name if point.dist else point.value
                reason = "another package offers it too" if name in rows else "a name needs a namespace: 'mylib::swirl'"
                raise PluginError(f"the package {package} offers the operation {name!r} through {group}, but {reason}.")
        rows |= offered
    return rows


def _loaded(point: EntryPoint) -> Mapping[str, Any]:
    package = point.dist.name if point.dist else point.value
    try:
        offered = point.load()
    except Exception as error:
        raise PluginError(
            f"the package {package} offers operations through {point.group} as {point.value}, which cannot be "
            f"imported: {type(error).__name__}: {error}. Repair or uninstall it."
        ) from error
    if not isinstance(offered, Mapping):
        raise PluginError(
            f"the package {package} offers {point.value} through {point.group}, which is {kind_of(offered)}, "
            "not a mapping from names to rows."
        )
    return offered
