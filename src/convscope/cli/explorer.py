"""The commands that open the explorer: open, serve, demo."""

import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import convscope as cs
from convscope.cli.console import duration, out_is_terminal, remark, say
from convscope.cli.inspection import Model
from convscope.cli.options import Commands, DataDir, Inputs, Loading, spread
from convscope.cli.training import training_progress
from convscope.json_values import parse_json
from convscope.render.numbers import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convscope.typing import Array

Port = Annotated[int | None, typer.Option(help="Port to listen on, or the next free one; 0 chooses any.")]
Host = Annotated[str, typer.Option(help="Address to listen on; other than loopback, others can reach it.")]
AllowHost = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Another host name by which browsers reach it; repeatable.")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]


@spread
def open_model(
    model: Model,
    *,
    image: Annotated[
        str | None, typer.Option(help="A picture, an array (.npy), or dataset:split/index such as mnist:test/7.")
    ] = None,
    inputs: Inputs,
    loading: Loading,
    port: Port = None,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
    no_browser: NoBrowser = False,
    data_dir: DataDir = None,
) -> None:
    """Open the explorer on a model: a page where every number can be clicked."""
    give_way()
    loaded = loading.load(model)
    browser = out_is_terminal() and not no_browser
    model_input = inputs.source(loaded, image) if image is not None or inputs.named else None
    args = cs.parse_model_args(loading.model_arg or [])
    stay(
        cs.open(
            loaded, model_input, host=host, port=port, allow_hosts=allow_host or (), browser=browser, data_dir=data_dir,
            model_args=args,
        )
    )  # fmt: skip


def serve(
    folder: Annotated[Path, typer.Argument(help="The folder of the runs; it need not exist yet.")] = Path("runs"),
    port: Port = None,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
    no_browser: NoBrowser = False,
    data_dir: DataDir = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py:CLASS", help="A network of yours that Train offers too; repeatable."),
    ] = None,
) -> None:
    """Open the explorer on all runs of a folder."""
    give_way()
    browser = out_is_terminal() and not no_browser
    stay(
        cs.serve(
            folder, host=host, port=port, allow_hosts=allow_host or (), browser=browser, data_dir=data_dir,
            networks=model or (),
        )
    )  # fmt: skip


def give_way() -> None:
    """Let waiting threads sleep instead of spin, so that the browser gets its share of the processors.

    OpenMP reads this when torch loads it; spinning threads made small passes up to ten times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def stay(explorer: "cs.Explorer") -> None:
    """Print the address of the page, and serve it until Ctrl-C."""
    for note in explorer.notes:
        remark(f"note: {note}")
    say(f"the explorer: {explorer.url}")
    say("press Ctrl-C to stop")
    explorer.wait()


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
        UsageError: a demo in `out` would remove files that no demo wrote, or that have been changed since; or `out`
            cannot be written.
    """
    _replaceable(out, names)
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=STAGE, dir=out))
    except OSError as error:
        raise cs.UsageError(f"{out} cannot be written: {error.strerror or error}; choose another --out.") from None
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
    new_files = {name: {_digest(path)} for name, path in _entries(stage, [path.name for path in stage.iterdir()])}
    _write_list(out, {name: {*former.get(name, ()), *new_files.get(name, ())} for name in {*former, *new_files}})
    aside = Path(tempfile.mkdtemp(dir=stage))
    for name in {Path(file).parts[0] for file in former}:
        if (out / name).exists():
            (out / name).rename(aside / name)
    for name in {Path(file).parts[0] for file in new_files}:
        (stage / name).rename(out / name)
    _write_list(out, new_files)


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
            reason = "was not written by a demo"
        elif _digest(path) not in former[name]:
            reason = "has been changed since a demo wrote it"
        else:
            continue
        raise cs.UsageError(f"{path} {reason}, and a new demo would replace it; choose another folder with --out.")
    return former


def _entries(folder: Path, names: Collection[str]) -> Iterator[tuple[str, Path]]:
    """The files at these names of a folder, files in subfolders, and empty subfolders."""
    for name in sorted(names):
        top = folder / name
        if top.is_dir() and not top.is_symlink():
            for parent, inner, files in os.walk(top):
                links = [entry for entry in inner if Path(parent, entry).is_symlink()]
                for path in (Path(parent, entry) for entry in [*files, *links]):
                    yield path.relative_to(folder).as_posix(), path
                if not inner and not files:
                    yield Path(parent).relative_to(folder).as_posix(), Path(parent)
        elif top.exists() or top.is_symlink():
            yield name, top


def _listed(mark: Path) -> Files:
    """The files in the manifest of an earlier demo; empty if there is no valid manifest."""
    try:
        files = parse_json(cs.read_file(mark))["files"]
        listed = {str(name): tuple(map(str, digests)) for name, digests in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: digests for name, digests in listed.items() if _is_inside(name)}


def _is_inside(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts and parts[0] != MARK


def _write_list(out: Path, files: Files) -> None:
    text = json.dumps({"convscope": cs.__version__, "files": {name: sorted(files[name]) for name in sorted(files)}})
    part = out / f".{MARK}.part"
    part.unlink(missing_ok=True)
    part.write_text(text, encoding="utf-8")
    part.replace(out / MARK)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


IMAGE = "shapes:test/3"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for run and figures; replaces an earlier demo's.")] = Path("demo"),
) -> None:
    """Train the shapes network, evaluate it, draw its figures, explain one of its numbers, and open the explorer."""
    give_way()
    for path in left_over(out):
        remark(f"note: {path} is left over from a demo that was killed; you can remove it.")
    with staged(out, MADE) as stage:
        _make(stage, out)
        put_in_place(stage, out, MADE)
    run = cs.load_run(out / "run")
    say()
    say("3. Why is this number this number?")
    say()
    trace = _trace(run)
    explanation = cs.explain(trace, "conv1", _brightest(trace["conv1"].output))
    for line in str(explanation).splitlines():
        say(f"   {line}")
    say()
    say(f"   All of them: {cs.verify(trace).summary()}")
    say()
    say("Try next:")
    if shutil.which("convscope") is None:
        say(f"   source {shlex.quote(os.path.relpath(Path(sys.prefix, 'bin', 'activate')))}")
    for line in NEXT:
        say("   " + line.format(run=shlex.quote(str(run.path))))
    if out_is_terminal() and os.environ.get("OPEN", "1") != "0":
        say()
        say("4. Every number can be clicked")
        _open(run)


def _make(stage: Path, out: Path) -> None:
    """Train and draw in a folder that will replace `out`."""
    say("1. A network learns to tell squares from circles")
    with training_progress() as watcher:
        try:
            run = cs.train("shapes", seed=0, out=stage / "run", watch=watcher.tell)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; {out} is unchanged.") from None
    result = cs.evaluate(run)
    took = duration(run.metrics["seconds"])
    say(f"   {percent(result.accuracy)} of {result.confusion.sum()} test images right, after {took} of training")
    say()
    say("2. Its pictures")
    for name, (caption, draw) in PICTURES.items():
        draw(run).savefig(stage / f"{name}.png", dpi=150)
        say(f"   {out / name}.png: {caption}")


def _open(run: "cs.Run") -> None:
    try:
        explorer = cs.open(run.path, IMAGE)
    except cs.UsageError as error:  # the page is not built; the rest of the demo still works
        remark(f"   {error}")
    else:
        stay(explorer)


def _trace(run: "cs.Run") -> "cs.Trace":
    return cs.trace(run.model, cs.load_image(IMAGE, like=run.model))


def _brightest(output: "Array") -> tuple[int, ...]:
    """The cell with the largest number of a feature map (1, C, H, W)."""
    return tuple(int(axis[0]) for axis in (output == output.max()).nonzero())


def _samples(_run: "cs.Run") -> "Figure":
    return cs.plot.samples(cs.load_dataset("shapes", seed=0))


PICTURES: Mapping[str, tuple[str, Callable[["cs.Run"], "Figure"]]] = {
    "samples": ("training images", _samples),
    "history": ("loss and accuracy", lambda run: cs.plot.history(run)),  # noqa: PLW0108  # loads matplotlib when called
    "kernels": ("the eight kernels of conv1, with their numbers", lambda run: cs.plot.kernels(run.model, "conv1")),
    "maps": ("every feature map of one image", lambda run: cs.plot.maps(_trace(run))),
    "network": ("the network, from the image to the output", lambda run: cs.plot.network(_trace(run))),
    "confusion": ("confusion matrix", lambda run: _confusion(cs.evaluate(run))),
}
MADE = ("run", *(f"{name}.png" for name in PICTURES))
"""Names of everything that a demo writes into its folder."""
NEXT = (
    "convscope open {run} --image shapes:test/3",
    "convscope explain {run} shapes:test/3 --at fc:0",
    "convscope verify {run} shapes:test/3",
    "convscope plot maps {run} shapes:test/7",
    "convscope train mnist --model mnist-small",
    "convscope filter PHOTO --kernel sobel-x",
)


def _confusion(result: "cs.Evaluation") -> "Figure":
    return cs.plot.confusion(result.confusion, result.classes)


COMMANDS: Commands = {"demo": demo, "open": open_model, "serve": serve}
