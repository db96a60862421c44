"""The command demo: a network trained, scored and shown, in one go."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import duration, percent, say
from convscope.cli.watching import watching

MARK = "demo.json"


def demo(
    out: Annotated[Path, typer.Option(help="Where run and pictures go; a former demo there is replaced.")] = Path(
        "demo"
    ),
) -> None:
    """Train the shapes network, score it, write its pictures, and say what to try next."""
    _clear(out)
    say("1. Training a network to tell squares from circles")
    with watching() as watch:
        run = cs.train("shapes", seed=0, out=out / "run", watch=watch)
    result = cs.evaluate(run)
    say(
        f"   trained in {duration(run.metrics['seconds'])}; {percent(result.accuracy)} of {result.confusion.sum()} test images right"
    )
    say()
    say("2. Its pictures")
    for path, what in _pictures(run, result, out):
        say(f"   {path}  {what}")
    say()
    say("Try next:")
    for line in (
        f"convscope predict {run.path} shapes:test/3",
        f"convscope plot maps {run.path} shapes:test/7",
        "convscope train mnist --model mnist-small",
        "convscope filter PHOTO --kernel sobel-x",
    ):
        say(f"   {line}")


def _clear(out: Path) -> None:
    """Make room: a former demo goes, anything else stays and is an error."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise cs.UsageError(f"{out} exists and is no former demo; choose another folder with --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).write_text(json.dumps({"convscope": cs.__version__}))
