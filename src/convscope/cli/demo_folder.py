"""The demo's folder: a new demo is built beside the old one, then replaces it; other files there are kept."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import convscope as cs

MARK = "demo.json"
"""Name of the manifest: the SHA-256 of each file that a demo wrote, by its path in the folder."""
STAGE = ".convscope-demo-"
"""Name prefix of the temporary folders in which a demo is built."""

Files = Mapping[str, Collection[str]]
"""Path -> the digests that the file may have; two while one demo replaces another."""


@contextmanager
def staged(out: Path, names: Collection[str]) -> Iterator[Path]:
    """A temporary folder in `out` to build a demo in; removed at the end of the block.

    Args:
        out: The demo's folder.
        names: Names of the files and folders that a demo writes.

    Raises:
        UsageError: a demo in `out` would remove files that no demo wrote, or that have been changed since.
    """
    _replaceable(out, names)
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=STAGE, dir=out))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not existed:
            with suppress(OSError):  # raised where the demo is in it
                out.rmdir()


def put_in_place(stage: Path, out: Path, names: Collection[str]) -> None:
    """Replace the old demo in `out` by the files in `stage`, each one atomically.

    The manifest is written before and after, so that the files of both demos are known even after a kill in between.

    Raises:
        UsageError: a file in `out` has been changed in the meantime.
    """
    former = _replaceable(out, names)
    made = {name: {_digest(path)} for name, path in _entries(stage, [path.name for path in stage.iterdir()])}
    _write_list(out, {name: {*former.get(name, ()), *made.get(name, ())} for name in {*former, *made}})
    aside = Path(tempfile.mkdtemp(dir=stage))
    for name in {Path(file).parts[0] for file in former}:
        if (out / name).exists():
            (out / name).rename(aside / name)
    for name in {Path(file).parts[0] for file in made}:
        (stage / name).rename(out / name)
    _write_list(out, made)


def left_over(out: Path) -> list[Path]:
    """Temporary folders of demos that were killed."""
    return sorted(out.glob(f"{STAGE}*"))


def _replaceable(out: Path, names: Collection[str]) -> Files:
    """The files of the old demo in `out`; raises if a new demo would remove anything else."""
    if out.exists() and not out.is_dir():
        raise cs.UsageError(f"{out} is a file; choose a folder with --out.")
    if not out.exists() or all(path.name.startswith(STAGE) for path in out.iterdir()):
        return {}
    if not (out / MARK).is_file():
        raise cs.UsageError(f"{out} exists and is not an earlier demo; choose another folder with --out.")
    former = _listed(out / MARK)
    folders = {str(parent) for name in former for parent in Path(name).parents}
    for name, path in _entries(out, {*names, *(Path(name).parts[0] for name in former)}):
        if path.is_dir() and not path.is_symlink() and name in folders:
            continue
        if path.is_symlink() or not path.is_file() or name not in former:
            how = "was not written by a demo"
        elif _digest(path) not in former[name]:
            how = "has been changed since a demo wrote it"
        else:
            continue
        raise cs.UsageError(f"{path} {how}, and a new demo would replace it; choose another folder with --out.")
    return former


def _entries(folder: Path, names: Collection[str]) -> Iterator[tuple[str, Path]]:
    """The files at these names of a folder, files in subfolders, and empty subfolders."""
    for name in sorted(names):
        top = folder / name
        if top.is_dir() and not top.is_symlink():
            for where, inner, files in os.walk(top):
                links = [one for one in inner if Path(where, one).is_symlink()]
                for path in (Path(where, one) for one in [*files, *links]):
                    yield path.relative_to(folder).as_posix(), path
                if not inner and not files:
                    yield Path(where).relative_to(folder).as_posix(), Path(where)
        elif top.exists() or top.is_symlink():
            yield name, top


def _listed(mark: Path) -> Files:
    """The files in the manifest of an earlier demo; empty if there is no valid manifest."""
    try:
        files = json.loads(mark.read_bytes())["files"]
        listed = {str(name): tuple(map(str, digests)) for name, digests in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: digests for name, digests in listed.items() if _is_inside(name)}


def _is_inside(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts and parts[0] != MARK


def _write_list(out: Path, files: Files) -> None:
    text = json.dumps({"convscope": cs.__version__, "files": {name: sorted(files[name]) for name in sorted(files)}})
    part = out / f".{MARK}.part"
    part.unlink(missing_ok=True)
    part.write_text(text)
    part.replace(out / MARK)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
