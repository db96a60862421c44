"""Figure files: where and how a command writes its figure. Knows no torch, no data, no models."""

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
"""Format -> options of its writer, so that the same figure gives the same file."""

Out = Annotated[
    Path | None, typer.Option(help="Output file: .png, .svg or .pdf. By default a PNG in the current folder.")
]


def target(out: Path | None, *words: str | None) -> Path:
    """The figure's path; raises before any work is done if it cannot be written."""
    path = out or Path("-".join(_short(word) for word in words if word) + ".png")
    if path.suffix.lower().lstrip(".") not in TIMELESS:
        raise cs.UsageError(f"unsupported figure format {path.suffix!r} of {path}; use .png, .svg or .pdf.")
    if not path.parent.is_dir():
        raise cs.UsageError(f"{path.parent} is not a folder; create it first, or choose another --out.")
    return path


def _short(word: str) -> str:
    """A model, image or layer as part of a file name."""
    path = Path(word)
    name = (
        path.stem if path.is_file() else word if ":" in word else Path(os.path.realpath(path)).name
    )  # not resolve(), which raises for a link to itself
    return re.sub(r"[^\w.]+", "-", name).strip("-.")


def save(figure: Any, path: Path) -> None:
    """Save the figure reproducibly; it is drawn in memory first, because the disk may be full."""
    if hushed():
        return
    form, drawn = path.suffix.lower().lstrip("."), BytesIO()
    figure.savefig(drawn, format=form, metadata=TIMELESS[form])
    try:
        cs.write_whole(path, drawn.getvalue())
    except OSError as error:
        raise cs.ConvscopeError(f"{path} cannot be written: {error.strerror or error}.") from None


def write(figure: Any, path: Path) -> None:
    """Save the figure and print its path and size."""
    save(figure, path)
    if hushed():
        return
    width, height = figure.get_size_inches()
    pixels = path.suffix.lower() == ".png"
    across, down = (round(side * figure.dpi) if pixels else round(side, 1) for side in (width, height))
    size = f"{across}x{down} {'pixels' if pixels else 'inches'}"
    say(f"wrote {path} ({size}, {max(1, round(path.stat().st_size / 1000)):,} kB)")
