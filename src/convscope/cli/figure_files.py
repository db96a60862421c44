"""Figures: where a command writes its picture, and what it says of it. Knows no torch, no data, no models."""

import os
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import hushed, say

TIMELESS: Mapping[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""The formats, and what their writers are told so that the same figure gives the same file."""

Out = Annotated[
    Path | None, typer.Option(help="The file to write: .png, .svg or .pdf. By default a PNG in the working folder.")
]


def target(out: Path | None, *words: str | None) -> Path:
    """Where the figure goes; refused before any work where it could not be written there."""
    path = out or Path("-".join(_short(word) for word in words if word) + ".png")
    if path.suffix.lower().lstrip(".") not in TIMELESS:
        raise cs.UsageError(f"{path} does not say a format that figures have; end it in .png, .svg or .pdf.")
    if not path.parent.is_dir():
        raise cs.UsageError(f"{path.parent} is no folder; make it first, or give --out another place.")
    return path


def _short(word: str) -> str:
    """A model, image or layer as a part of a file's name."""
    path = Path(word)
    name = (
        path.stem if path.is_file() else word if ":" in word else Path(os.path.realpath(path)).name
    )  # not resolve(), which raises for a link to itself
    return re.sub(r"[^\w.]+", "-", name).strip("-.")


def save(figure: Any, path: Path) -> None:
    """Save the figure, the same file for the same figure; drawn in memory first, as a disk may be full."""
    if hushed():
        return
    form, drawn = path.suffix.lower().lstrip("."), BytesIO()
    figure.savefig(drawn, format=form, metadata=TIMELESS[form])
    try:
        cs.write_whole(path, drawn.getvalue())
    except OSError as error:
        raise cs.ConvscopeError(f"{path} cannot be written: {error.strerror or error}.") from None


def write(figure: Any, path: Path) -> None:
    """Save the figure and say so in one line."""
    save(figure, path)
    if hushed():
        return
    width, height = figure.get_size_inches()
    pixels = path.suffix.lower() == ".png"
    across, down = (round(side * figure.dpi) if pixels else round(side, 1) for side in (width, height))
    size = f"{across}x{down} {'pixels' if pixels else 'inches'}"
    say(f"wrote {path} ({size}, {max(1, round(path.stat().st_size / 1000)):,} kB)")
