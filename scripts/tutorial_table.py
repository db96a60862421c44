"""The five tutorials repeated, as a page of the site: `python scripts/tutorial_table.py FOLDER [--short]`.

Runs every command and all Python of `tutorial_rows.ROWS` in an empty folder and writes FOLDER/repeated.md with what
they print, and FOLDER/images/ with what they draw. A row whose output lacks what it must show ends it with status 1.
"""

import argparse
import ast
import gzip
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib.cbook import get_sample_data
from tutorial_rows import ROWS, TITLES, Row

import convscope as cs
from convscope.cli import main as command_line
from convscope.data.idx import to_idx
from convscope.lessons.values import fenced

HEAD = """# The tutorials, repeated

What the five tutorials print and draw, in {count} items, and the commands that do it here. The build of these pages ran
every command below, compared its output with what the item needs, and would have failed if something were missing. Long
outputs are shortened in the middle. {setting}

"""
SHORT_SETTING = "This build used the first {train:,} training and {test:,} test images of MNIST."
TRAIN, TEST = 6000, 500
"""Images of MNIST in the short setting."""
FOREIGN = re.compile(r"^warning: .* is not the published file of mnist .*\n", re.MULTILINE)
"""What is printed only because the short setting has files of its own."""
FIRST, LAST = 14, 8
"""Number of lines that are shown of a longer output."""
WROTE = re.compile(r"^wrote (\S+\.(?:png|svg)) \(.*\)$", re.MULTILINE)


class RowError(Exception):
    """A row does not show what it must."""


@dataclass(slots=True)
class Shown:
    """A row and what it made."""

    row: Row
    parts: list[tuple[str, str, str]] = field(default_factory=list)
    """Source, its language, and its output."""
    pictures: list[Path] = field(default_factory=list)

    def check(self) -> None:
        """Compare with what the row must show.

        Raises:
            RowError: it lacks something.
        """
        printed = "\n".join(output for _, _, output in self.parts)
        missing = [each for each in self.row.shows if each not in printed]
        if missing:
            raise RowError(f"{self.row.item!r} does not show {', '.join(map(repr, missing))}; it prints:\n{printed}")
        if len(self.pictures) != self.row.draws:
            raise RowError(f"{self.row.item!r} draws {len(self.pictures)} pictures instead of {self.row.draws}.")


def run(row: Row, names: dict[str, Any]) -> Shown:
    """Run a row in the working folder."""
    shown = Shown(row)
    for source in row.does:
        output = of_command(source) if source.startswith("convscope ") else of_python(source, names)
        shown.parts.append((source, "sh" if source.startswith("convscope ") else "python", output))
        shown.pictures += [Path(name).resolve() for name in WROTE.findall(output)]
    shown.check()
    return shown


def of_command(line: str) -> str:
    """What a command prints, including errors and notes.

    Raises:
        RowError: its exit status is not 0 or, for a probe with findings, 1.
    """
    arguments = shlex.split(line)
    out = io.StringIO()
    status: Any = 0
    with patch.object(sys, "argv", arguments), redirect_stdout(out), redirect_stderr(out):
        try:
            command_line()
        except SystemExit as end:
            status = end.code or 0
    if status not in ({0, 1} if "probe lint" in line else {0}):
        raise RowError(f"{line!r} ends with status {status}:\n{out.getvalue()}")
    return FOREIGN.sub("", out.getvalue()).rstrip()


def of_python(source: str, names: dict[str, Any]) -> str:
    """What Python prints, including the value of the last expression, as in a notebook."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(tree, "row", "exec"), names)  # our own rows
        if isinstance(last, ast.Expr):
            print(repr(eval(compile(ast.Expression(last.value), "row", "eval"), names)))
    return out.getvalue().rstrip()


def shortened(output: str) -> str:
    """An output, without its middle lines if there are many."""
    lines = output.split("\n")
    left = len(lines) - FIRST - LAST
    return output if left < 2 else "\n".join([*lines[:FIRST], f"… {left:,} lines …", *lines[-LAST:]])


def page(shown: list[Shown], folder: Path, setting: str) -> str:
    """The page; pictures are moved into the folder."""
    table = ["| tutorial | item | shown by |", "|---|---|---|"]
    body: list[str] = []
    for number, each in enumerate(shown, 1):
        row = each.row
        if number == 1 or shown[number - 2].row.tutorial != row.tutorial:
            body.append(f"## {row.tutorial}. {TITLES[row.tutorial - 1]}")
        command = row.does[0].split("\n")[-1]
        table.append(f"| {row.tutorial} | [{row.item}](#item-{number}) | `{command}` |")
        body.append(f"### {row.item} {{ #item-{number} }}")
        for source, language, output in each.parts:
            body.append(fenced(source, language))
            said = WROTE.sub("", output).strip("\n")
            if said:
                body.append(fenced(shortened(said)))
        for place, picture in enumerate(each.pictures, 1):
            name = f"images/item-{number}-{place}{picture.suffix}"
            shutil.move(picture, folder / name)
            body.append(f"![{row.item}]({name})")
    return HEAD.format(count=len(shown), setting=setting) + "\n".join(table) + "\n\n" + "\n\n".join(body) + "\n"


def shorter_mnist(folder: Path) -> None:
    """The first images of MNIST, as files of their own."""
    for split, count, prefix in (("train", TRAIN, "train"), ("test", TEST, "t10k")):
        data = cs.load_dataset("mnist", split=split)
        for array, kind in ((data.images[:count, 0], "images-idx3"), (data.labels[:count], "labels-idx1")):
            content = to_idx(np.asarray(array, np.uint8))
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


def write(folder: Path, *, short: bool) -> Path:
    """Run all rows and write the page."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, patch.dict(os.environ):
        setting = ""
        if short:
            data = Path(work) / "data" / "mnist"
            data.mkdir(parents=True)
            shorter_mnist(data)
            os.environ["CONVSCOPE_DATA"] = str(data.parent)
            setting = SHORT_SETTING.format(train=TRAIN, test=TEST)
        here = Path(work) / "here"
        here.mkdir()
        shutil.copyfile(get_sample_data("grace_hopper.jpg", asfileobj=False), here / "photo.jpg")
        with chdir(here):
            names: dict[str, Any] = {"cs": cs, "np": np}
            shown = [run(row, names) for row in ROWS]
            path = folder / "repeated.md"
            path.write_text(page(shown, folder, setting), encoding="utf-8")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Repeat the tutorials and write what convscope shows as a page.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--short", action="store_true", help="train on the first images of MNIST")
    options = parser.parse_args()
    try:
        print(write(options.folder.resolve(), short=options.short))
    except RowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
