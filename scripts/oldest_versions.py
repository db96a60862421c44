"""Print pip constraints for the oldest version of every dependency that pyproject.toml allows.

    python scripts/oldest_versions.py > build/oldest/constraints.txt

Each dependency's lower bound, of the package itself and of its extra `test`, becomes an exact version. What these
packages require in turn is left to pip, which takes the newest that fits.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def oldest_versions(requirements: list[str]) -> Iterator[str]:
    """The constraint `name==bound` of each requirement `name>=bound`.

    >>> list(oldest_versions(["numpy>=2.0", "torch>=2.6"]))
    ['numpy==2.0', 'torch==2.6']

    Raises:
        SystemExit: A requirement has no lower bound, so its oldest version is unknown.
    """
    for requirement in map(Requirement, requirements):
        bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        if len(bounds) != 1:
            sys.exit(f"pyproject.toml requires {requirement}; it needs one lower bound, as in {requirement.name}>=1.0")
        yield f"{requirement.name}=={bounds[0]}"


def main() -> None:
    """Print one constraint per line."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for constraint in sorted(set(oldest_versions([*project["dependencies"], *extras["test"]])), key=str.lower):
        print(constraint)


if __name__ == "__main__":
    main()
