"""The sweep over architectures: one line per model, kept whatever ends it, and errors planted in it are seen."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

import convscope as cs
from convscope.reference.operation import Operation
from convscope.reference.table import OPERATIONS

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL = "zoo/TransformerEncoder"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sweep() -> ModuleType:
    return script("sweep")


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return script("sweep_model")


def test_a_model_is_swept_once(tmp_path: Path) -> None:
    file = tmp_path / "sweep.jsonl"
    file.write_text('{"model": "zoo/ResN')  # a line that a kill has cut off
    command = [sys.executable, str(SCRIPTS / "sweep.py"), "--out", str(file), "--only", SMALL]
    for left in (1, 0):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        assert f"{left} of 1 models to do" in done.stdout
        assert "| zoo | 1 | 1 |" in done.stdout
    cut, line = file.read_text().splitlines()
    record = json.loads(line)
    assert cut == '{"model": "zoo/ResN'
    assert (record["model"], record["outcome"], record["proved"]) == (SMALL, "proved", 1)
    assert record["same_bits"]
    assert record["peak_gb"] > 0.1
    assert min(record["parameters"], record["trace_s"], record["verify_s"]) > 0


@pytest.mark.parametrize(
    ("limits", "outcome"), [((0.0, 100.0), "out of time"), ((300.0, 0.0), "out of memory")], ids=["time", "memory"]
)
def test_a_model_beyond_its_limits_is_ended(sweep: ModuleType, limits: tuple[float, float], outcome: str) -> None:
    assert sweep.run(SMALL, *limits)["outcome"] == outcome


def test_what_has_no_such_name_is_reported(sweep: ModuleType) -> None:
    record = sweep.run("zoo/Zebra", 300, 100)
    assert record["outcome"] == "not built"
    assert "Zebra" in record["error"]
    assert "zoo/Zebra: not built" in "\n".join(sweep.table({"zoo/Zebra": record}))


def test_what_has_ended_without_a_report_is_tried_again_only_when_asked(
    sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[str]()

    def run(name: str, _seconds: float, _memory: float) -> dict[str, Any]:
        tried.append(name)
        return {"model": name, "outcome": "out of time", "peak_gb": 0.1}

    monkeypatch.setattr(sweep, "run", run)
    for retry in (False, False, True):
        sweep.sweep(tmp_path / "a.jsonl", ["zoo/A"], 1, 1, retry)
    assert tried == ["zoo/A", "zoo/A"]


def test_a_planted_error_is_a_mismatch(one: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(OPERATIONS["relu"], forward=lambda x: np.maximum(x, 0) + 1e-3)
    monkeypatch.setitem(cast("dict[str, Operation]", OPERATIONS), "relu", wrong)
    record = one.studied(SMALL)
    assert record["outcome"] == "mismatch"
    assert any(": relu at" in line for line in record["mismatches"])


def test_an_exception_of_verify_is_a_traceback(one: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(_trace: cs.Trace) -> Any:
        raise KeyError("planted")

    monkeypatch.setattr(cs, "verify", planted)
    record = one.studied(SMALL)
    assert record["outcome"] == "traceback"
    assert "KeyError: 'planted'" in record["error"]


def test_sixty_architectures_are_in_the_zoo(one: ModuleType) -> None:
    assert len(one.LISTS["zoo"]()) >= 60
