"""The command demo: train, evaluate and visualize a network in one go."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import convscope as cs
from convscope.cli.console import duration, out_is_terminal, remark, say
from convscope.cli.demo_folder import left_over, put_in_place, staged
from convscope.cli.explorer import give_way, stay
from convscope.cli.training_progress import training_progress
from convscope.render.numbers import percent

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
    why = cs.explain(trace, "conv1", _brightest(trace["conv1"].output))
    for line in str(why).splitlines():
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
    for name, (what, draw) in PICTURES.items():
        draw(run).savefig(stage / f"{name}.png", dpi=150)
        say(f"   {out / name}.png: {what}")


def _open(run: Any) -> None:
    try:
        explorer = cs.open(run.path, IMAGE)
    except cs.UsageError as error:  # the page is not built; the rest of the demo still works
        remark(f"   {error}")
    else:
        stay(explorer)


def _trace(run: Any) -> Any:
    return cs.trace(run.model, cs.load_image(IMAGE, like=run.model))


def _brightest(output: Any) -> tuple[int, ...]:
    """The cell with the largest number of a feature map (1, C, H, W)."""
    return tuple(int(i) for i in np.unravel_index(int(output.argmax()), output.shape))


def _samples(_run: Any) -> Any:
    return cs.plot.samples(cs.load_dataset("shapes", seed=0))


PICTURES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
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


def _confusion(result: Any) -> Any:
    return cs.plot.confusion(result.confusion, result.classes)
