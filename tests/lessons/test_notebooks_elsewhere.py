"""The lessons' notebooks in programs that people use (a study): a Jupyter kernel by nbclient, and marimo.

`make notebooks` installs both beside the environment; in the suite itself, test_lessons.py runs every cell in IPython.
"""

import os
from pathlib import Path

import pytest

from convscope.lessons import LESSONS, write_notebook
from documents import ROOT
from launching import environment, run

PYTHON = Path(os.environ.get("CONVSCOPE_NOTEBOOKS", ROOT / "build/notebooks/bin")) / "python"
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
for path in sys.argv[1:]:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    replies = [cell.outputs[-1].data["text/markdown"] for cell in notebook.cells if "lesson.answer(" in cell.source]
    assert replies and all(reply.startswith("Not answered yet") for reply in replies), replies
"""


@pytest.fixture
def lessons(tmp_path: Path, shared_data: Path) -> list[Path]:  # some lessons train on MNIST
    """All notebooks, in a folder of their own."""
    if not PYTHON.is_file():
        pytest.skip("needs Jupyter and marimo: make notebooks")
    return [write_notebook(tmp_path / "lessons", name) for name in LESSONS]


def short() -> dict[str, str]:
    return environment(CONVSCOPE_LESSON_SHORT="1")


@pytest.mark.study
def test_every_notebook_runs_in_a_jupyter_kernel(lessons: list[Path]) -> None:
    done = run(str(PYTHON), "-c", EXECUTE, *map(str, lessons), cwd=lessons[0].parent, env=short())
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.study
def test_every_notebook_runs_as_one_of_marimo(lessons: list[Path]) -> None:
    for path in lessons:
        converted = str(path.with_suffix(".py"))
        for command in (["-m", "marimo", "convert", str(path), "-o", converted], [converted]):
            done = run(str(PYTHON), *command, cwd=path.parent, env=short())
            assert done.returncode == 0, done.stderr[-3000:]
