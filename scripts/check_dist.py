"""Check what `make dist` built: `python scripts/check_dist.py dist` installs wheel and sdist and runs convscope.

Each goes into an empty environment, without its dependencies, which come from the environment that runs this script,
and on a PATH without node, as a user may have none. The page must be inside.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

PAGE = "convscope/server/static/index.html"
WITHOUT = ("node", "npm", "make", "gcc", "cc")
"""Programs that an installation must not need."""


def bare_path(folder: Path) -> str:
    """A PATH with links to all programs of this one, but for those that an installation must not need."""
    folder.mkdir()
    for directory in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in directory.iterdir() if directory.is_dir() else ():
            if program.name not in WITHOUT and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program.resolve())
    return str(folder)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that must not fail."""
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", check=False
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def version_of(package: Path) -> str:
    """The version in the name of a wheel or an sdist."""
    return package.name.removesuffix(".tar.gz").split("-")[1]


def check(package: Path, folder: Path, path: str) -> None:
    """Install a package into an environment of its own, and run the demo there."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    binaries = environment / ("Scripts" if sys.platform == "win32" else "bin")
    python = binaries / "python"
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    clean = {"PYTHONPATH": "", "PATH": path}
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", package, cwd=folder, **clean)
    Path(own, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    where = run(python, "-c", "import convscope; print(convscope.__file__)", cwd=folder, **clean).strip()
    if not Path(where).is_relative_to(Path(own).resolve()):
        raise SystemExit(f"{package.name}: convscope is imported from {where}, not from where it was installed.")
    if not Path(own, PAGE).is_file():
        raise SystemExit(f"{package.name} installs no explorer: {PAGE} is missing.")
    said = run(binaries / "convscope", "--version", cwd=folder, **clean).split()
    if said != ["convscope", version_of(package)]:
        raise SystemExit(f"{package.name} calls itself {' '.join(said)}.")
    run(binaries / "convscope", "demo", cwd=folder, OPEN="0", **clean)
    if not (folder / "demo" / "run" / "weights.safetensors").is_file():
        raise SystemExit(f"{package.name}: the demo has trained no network.")


def main() -> None:
    """Check the one wheel and the one sdist of a folder."""
    folder = Path(sys.argv[1]).resolve()
    wheels, archives = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(archives) != 1:
        raise SystemExit(f"{folder} must hold one wheel and one sdist, and has {len(wheels)} and {len(archives)}.")
    with zipfile.ZipFile(wheels[0]) as wheel:
        if PAGE not in wheel.namelist():
            raise SystemExit(f"{wheels[0].name} has no explorer: {PAGE} is missing.")
    with tempfile.TemporaryDirectory() as temporary:
        path = bare_path(Path(temporary, "programs"))
        for package in (*wheels, *archives):
            place = Path(temporary, package.suffix[1:])
            place.mkdir()
            check(package, place, path)
            print(f"{package.name} ({package.stat().st_size / 1e6:.1f} MB): installed without node, the demo runs")


if __name__ == "__main__":
    main()
