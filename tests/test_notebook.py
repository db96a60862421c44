"""What a cell of a notebook shows: asked of IPython itself, as a kernel asks it."""

import json
import sys
from importlib import import_module
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from convscope.notebook import PICTURES, WORDS
from convscope.rich_display import RichDisplay
from launching import run

pytest.importorskip("IPython", reason="notebooks need IPython")

CELLS = """
import json
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
run = shell.run_cell
run("import convscope as cs")
run("model = cs.load_model('shapes-cnn', seed=1)")
run("image = cs.load_image('shapes:test/3', like=model)")
run("trace = cs.trace(model, image)")
run("from pathlib import Path")
run("from torch import nn")
run("deep = cs.trace(nn.Sequential(*[nn.ReLU() for _ in range(61)]), image)")
run("trained = cs.train('crosses', epochs=1, out=Path('run'))")
run("step = cs.trace(model, image, target=[1], optimizer='sgd', lr=0.1)")
run("data = cs.load_dataset('shapes', split='test', size=40)")
shown = {}
for cell in CELLS:
    shown[cell] = shell.display_formatter.format(run(cell).result)[0]
print(json.dumps(shown))
"""
ASKED = {
    "trace": "svg",
    "step": "svg",
    "deep": "words",
    "data": "svg",
    "cs.explain(trace, 'conv1', (2, 10, 8))": "svg",
    "cs.explain(trace, 'fc', (0,)).to_input()": "svg",
    "cs.verify(trace)": "words",
    "cs.difference(trace, trace)": "words",
    "cs.summary(model)": "words",
    "cs.check(abs, as_='relu')": "words",
    "trained": "svg",
    "cs.evaluate(trained)": "svg",
    "cs.probe.receptive_field(trace, 'conv2', (0, 4, 4))": "svg",
    "cs.probe.shortcut(data)": "svg",
    "cs.plot.samples(data)": "svg",
    "cs.Run(Path('nowhere'))": "words",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What IPython would send to the page, for each cell."""
    program = f"CELLS = {list(ASKED)!r}\n{CELLS}"
    done = run(sys.executable, "-c", program, cwd=tmp_path_factory.mktemp("notebook"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    answer: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("cell", ASKED)
def test_a_cell_shows_the_picture_where_there_is_one(shown: dict[str, dict[str, str]], cell: str) -> None:
    result = shown[cell]
    assert ("image/svg+xml" in result) == (ASKED[cell] == "svg")
    if ASKED[cell] == "svg":
        assert ET.fromstring(result["image/svg+xml"]).tag == "{http://www.w3.org/2000/svg}svg"
    assert result["text/plain"]


def test_the_words_are_those_of_printing(shown: dict[str, dict[str, str]]) -> None:
    assert "× kernel 2 of conv1, plus its bias" in shown["cs.explain(trace, 'conv1', (2, 10, 8))"]["text/plain"]
    assert "100 % proved" in shown["cs.verify(trace)"]["text/plain"]
    assert shown["cs.difference(trace, trace)"]["text/plain"].startswith("conv1: the same\n")
    assert "parameters     1,538" in shown["cs.summary(model)"]["text/plain"]
    assert "Likely cause: absolute value" in shown["cs.check(abs, as_='relu')"]["text/plain"]
    assert " of 2 images right" in shown["cs.evaluate(trained)"]["text/plain"]


@pytest.mark.parametrize("name", sorted(PICTURES.keys() | WORDS.keys()))
def test_every_name_is_that_of_a_class(name: str) -> None:
    module, _, kind = f"convscope.{name}".rpartition(".")
    result: Any = getattr(import_module(module), kind)
    assert result.__module__ == module


@pytest.mark.parametrize("name", sorted({*PICTURES, *WORDS} - {"plot.canvas.style.StyledFigure"}))
def test_every_result_shows_itself_where_ipython_is_not(name: str) -> None:
    """Marimo, VS Code and Colab ask the result; a picture of `cs.plot` is a figure, which they show by themselves."""
    module, _, kind = f"convscope.{name}".rpartition(".")
    assert issubclass(getattr(import_module(module), kind), RichDisplay)
