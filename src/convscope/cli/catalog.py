"""The commands that list data sets and models, and show networks of blocks."""

from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import say, show_json, show_table, show_text
from convscope.cli.inspection import parse_shape
from convscope.cli.options import Commands, Json


def datasets(as_json: Json = False) -> None:
    """List the data sets with shapes, sizes and sources."""
    entries = cs.DATASETS
    if as_json:
        show_json([entry.to_json() for entry in entries.values()])
        return
    rows = [
        (
            e.name,
            "x".join(map(str, e.shape)),
            *(f"{e.sizes[s]:,}" for s in ("train", "test", "all")),
            str(len(e.classes)),
            e.summary,
        )
        for e in entries.values()
    ]
    show_table(
        ["name", "image", "train", "test", "all", "classes", "description"],
        rows,
        right=["image", "train", "test", "all", "classes"],
    )
    say()
    for kind in cs.PLACES.values():
        say(f"{kind.name:<12} {kind.summary}")
    say()
    for source in dict.fromkeys(e.source for e in entries.values()):
        say(f"{', '.join(e.name for e in entries.values() if e.source == source)}: {source}")


def models(as_json: Json = False) -> None:
    """List the built-in networks: tutorial, input, parameters."""
    entries = cs.MODELS
    if as_json:
        show_json([entry.to_json() for entry in entries.values()])
        return
    rows = [(e.name, str(e.tutorial or "–"), e.input, f"{e.parameters:,}", e.summary) for e in entries.values()]
    show_table(
        ["name", "tutorial", "input", "parameters", "description"], rows, right=["tutorial", "input", "parameters"]
    )
    say()
    say("A model can also be file.py:Class, package.module:factory, a file of blocks (net.json) or a run folder.")


def blocks(
    network: Annotated[str, typer.Argument(help="A built-in network, detector, or a file of blocks (net.json).")],
    size: Annotated[
        str | None,
        typer.Argument(metavar="[SIZE]", help="Size of the images, such as 3x32x32; by default the network's own."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes: the units of a linear layer without a number.")
    ] = None,
    python: Annotated[bool, typer.Option("--python", help="Print the network as Python code.")] = False,
    as_json: Json = False,
) -> None:
    """Show a network of blocks as arithmetic, as JSON to edit, or as code; exit status 1 if it cannot be built.

    `convscope blocks shapes-cnn --json > net.json`, then `convscope train shapes --model net.json`
    """
    arguments = {**_usual(network), **cs.blocks.read(network)}
    shape = parse_shape(size) or arguments["shape"]
    shape_and_classes: tuple[Any, Any] = shape, arguments["classes"] if classes is None else classes
    if python:
        show_text(cs.blocks.code(arguments["blocks"], *shape_and_classes).rstrip("\n"))
        return
    result = cs.blocks.plan(arguments["blocks"], *shape_and_classes)
    if as_json:
        show_json({"blocks": arguments["blocks"], "shape": list(result.shape), "classes": result.classes})
    else:
        show_text(str(result))
    if result.problem:
        raise typer.Exit(1)


def _usual(network: str) -> dict[str, Any]:
    """The images and classes that a network is made for."""
    entry = cs.MODELS.get(network)
    if entry is None:
        return {"shape": (1, 28, 28), "classes": 10}
    channels, height, width = entry.shape
    classes = len(cs.DATASETS[entry.data[0]].classes) if entry.data else 10
    return {"shape": (channels, height or 28, width or 28), "classes": classes}


COMMANDS: Commands = {"datasets": datasets, "models": models, "blocks": blocks}
