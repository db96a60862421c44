"""Every example runs, and says what its docstring promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "mlp_or_cnn.py": ["shapes: 200 test images", "15,742", "all moved"],
    "by_hand.py": ["pool (0, 0, 0) = 0.3760", "pool (0, 0, 0) = 1.1387", "2.4405"],
    "own_network.py": ["fc (0) = ", "100 % recomputed, 100 % proved"],
    "what_if.py": ["conv1", "✓ proved"],
}
ARGUMENTS = {"mlp_or_cnn.py": ["shapes", "1", "1"]}
"""Of the examples that would take long without."""


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *ARGUMENTS.get(name, [])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for words in SAYS[name]:
        assert words in result.stdout
    assert not list(tmp_path.iterdir())
