"""What `pip install convscope` costs: packages, megabytes and import seconds of each dependency, as a table.

Measured in the environment that runs it. A package is counted with the first dependency that needs it.
"""

import resource
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

import convscope

IMPORTED = {
    "pillow": "PIL.Image", "matplotlib": "matplotlib.figure", "rich": "rich.table", "safetensors": "safetensors.numpy",
    "lightning-fabric": "lightning_fabric", "markdown-it-py": "markdown_it", "pyyaml": "yaml",
}  # fmt: skip
RUNS = 7
FIRST = ["torch", "numpy", "pillow"]
"""Counted first, since most others need them too."""


def needed(package: Distribution, extra: str = "") -> list[str]:
    """The names of what a package needs here, with an extra of it; without one, only what it needs in any case."""
    requirements = map(Requirement, package.requires or [])
    wanted = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": extra})]
    always = [] if not extra else needed(package)
    return [one.name.lower() for one in wanted if one.name.lower() not in always]


def with_needs(name: str, counted: set[str]) -> list[Distribution]:
    """A package and what it needs, without what is counted already."""
    name = name.lower().replace("_", "-")
    if name in counted:
        return []
    counted.add(name)
    package = distribution(name)
    return [package, *(one for other in needed(package) for one in with_needs(other, counted))]


def megabytes(package: Distribution) -> float:
    """The size of its files on the disk, compiled ones not counted."""
    files = [file for file in package.files or [] if not str(file).endswith(".pyc")]
    return sum(path.stat().st_size for file in files if (path := file.locate()).is_file()) / 1e6  # type: ignore[attr-defined]


def seconds(module: str) -> float:
    """Processor seconds that a new process takes longer with the import than without, at least."""

    def run(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return max(0.0, min(run(f"import {module}") for _ in range(RUNS)) - min(run("pass") for _ in range(RUNS)))


def row(label: str, names: list[str], counted: set[str]) -> None:
    """Print one line of the table."""
    packages = [package for name in names for package in with_needs(name, counted)]
    size = sum(map(megabytes, packages))
    taken = sum(seconds(IMPORTED.get(name, name)) for name in names)
    print(f"| {label} | {len(packages)} | {size:,.1f} | {taken:.2f} |", flush=True)


def main() -> None:
    """Print the table: the dependencies in the order in which they are counted, then each extra beyond them."""
    package = distribution("convscope")
    names = needed(package)
    print("| | packages | MB | import in s |\n|---|---|---|---|")
    counted: set[str] = {"convscope"}
    own = [path for path in Path(convscope.__file__).parent.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    size = sum(path.stat().st_size for path in own) / 1e6
    print(f"| `convscope` itself | 1 | {size:,.1f} | {seconds('convscope'):.2f} |")
    for name in sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        row(f"`{name}`", [name], counted)
    for extra in ("attribution", "distributed", "hub", "notebook", "workbook"):
        row(f"extra `{extra}`", needed(package, extra), set(counted))


if __name__ == "__main__":
    main()
