"""The commands that list data sets and models."""

import convscope as cs
from convscope.cli.console import say, show_json, show_table
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


COMMANDS: Commands = {"datasets": datasets, "models": models}
