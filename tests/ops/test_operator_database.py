"""PyTorch's own samples of all its operations: no traceback, and no number called wrong that PyTorch is right about."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("expecttest", reason="the operator database of PyTorch's tests imports it")
SCRIPT = Path(__file__).parents[1] / "support" / "operator_database.py"
TYPES = ("float32", "float64", "bfloat16", "float16")


def studied(share: float, *dtypes: str) -> list[dict[str, Any]]:
    """The results for each type, from one process."""
    command = [sys.executable, str(SCRIPT), ",".join(dtypes), str(share), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_sample_of_the_operator_database_ends_in_a_finding() -> None:
    results = studied(0.02, *TYPES)
    assert len(results) == len(TYPES)
    for result in results:
        assert result["lines"] == []
        assert result["excluded without samples"] == []
        assert result["counts"]["proved"] > 50


def followed(share: float, seed: int) -> dict[str, Any]:
    """The study of contributions and receptive fields."""
    command = [sys.executable, str(SCRIPT.with_name("operator_following.py")), str(share), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_numbers_of_some_operations_are_what_the_image_adds_up_to() -> None:
    result = followed(0.05, 7)
    assert result["lines"] == []
    assert result["counts"]["numbers"] > 50


@pytest.mark.study
@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_all_operations_are_what_the_image_adds_up_to(seed: int) -> None:
    result = followed(1.0, seed)
    assert result["lines"] == []
    assert result["counts"]["numbers"] > 2000


@pytest.mark.study
def test_most_of_the_operator_database_is_proved() -> None:
    """Of the samples that are not excluded and make PyTorch record an operation; the rest is named when this fails."""
    (found,) = studied(1.0, "float32")
    proved, unproved = found["counts"]["proved"], found["counts"]["unproved"]
    assert proved >= 0.85 * (proved + unproved), found["unproved"]


@pytest.mark.study
@pytest.mark.parametrize("dtype", TYPES)
def test_all_of_the_operator_database_ends_in_a_finding(dtype: str) -> None:
    (found,) = studied(1.0, dtype)
    assert found["lines"] == []
    assert found["counts"]["proved"] > 6000
