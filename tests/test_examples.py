"""Every example runs, and says what its docstring promises."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import convscope as cs

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "mlp_or_cnn.py": ["shapes: 20 test images", "15,742", "all moved"],
    "by_hand.py": ["pool (0, 0, 0) = 0.3760", "pool (0, 0, 0) = 1.1387", "2.4405"],
    "own_network.py": ["fc (0) = ", "100 % recomputed, 100 % proved"],
    "borders.py": ["The borders of red squares vanish in ", "of 2", "With the red channel black"],
    "what_if.py": ["conv1", "✓ proved"],
}
ARGUMENTS = {
    "mlp_or_cnn.py": ["shapes", "1", "1"],
    "borders.py": ["FOLDER", "--trainings", "2", "--epochs", "1"],
}
"""Of the examples that would take long without."""
IMAGES = 20
"""So many test images are moved to each of 441 places, instead of all."""


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example(
    name: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def few(*names: str, **options: Any) -> cs.Dataset:
        return load(*names, **options).part(slice(0, IMAGES))

    load = cs.load_dataset
    monkeypatch.setattr(cs, "load_dataset", few)
    folder = str(tmp_path_factory.mktemp("runs"))
    arguments = [folder if word == "FOLDER" else word for word in ARGUMENTS.get(name, [])]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    message = capsys.readouterr().out
    for words in SAYS[name]:
        assert words in message
    assert not list(tmp_path.iterdir())


def test_an_example_is_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "by_hand.py")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    for words in SAYS["by_hand.py"]:
        assert words in result.stdout
