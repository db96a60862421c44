"""The study of `summary`: a line for each model, kept whatever ends it, and a wrong count is seen."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.layer_arithmetic import Sum

SCRIPTS = Path(__file__).parents[1] / "scripts"
SMALL = "zoo/ConvNeXt"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    loaded = {}
    for name in ("summary_study", "summary_model"):
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    return loaded


def test_a_model_is_studied_once_and_an_unknown_one_reported(tmp_path: Path) -> None:
    file = tmp_path / "summary.jsonl"
    command = [sys.executable, str(SCRIPTS / "summary_study.py"), "--out", str(file), "--only", "zoo/Zebra", SMALL]
    for left in (2, 0):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        assert f"{left} of 2 models to do" in done.stdout
    unknown, record = map(json.loads, file.read_text().splitlines())
    assert (unknown["model"], unknown["outcome"]) == ("zoo/Zebra", "not built")
    assert (record["model"], record["outcome"], record["error"]) == (SMALL, "equal", "")
    assert min(record[key] for key in ("parameters", "multiply_adds", "layers", "sizes", "fields")) > 0


CHILD = """
import json, os, sys, time
for name in sys.argv[3:]:
    if name == "bad":
        os._exit(3)
    if name == "slow":
        time.sleep(60)
    print(json.dumps({"model": name, "outcome": "equal"}), flush=True)
"""


def test_what_ends_its_process_does_not_end_the_study(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = scripts["summary_study"]
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setattr(study, "CHILD", tmp_path / "child.py")
    records = list(study.answers(["one", "bad", "slow", "two", "bad"], 5, 8))
    assert [record["model"] for record in records] == ["one", "bad", "slow", "two", "bad"]
    assert [record["outcome"] for record in records] == ["equal", "died", "out of time", "equal", "died"]
    assert "| timm | 1 | 1 |" in "\n".join(study.table({"timm/x:y": {"model": "timm/x:y", "outcome": "died"}}))


@pytest.mark.parametrize("wrong", ["parameters", "multiply_adds", "size"])
def test_a_wrong_count_is_seen(scripts: dict[str, ModuleType], wrong: str) -> None:
    model = scripts["summary_model"]
    net, image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.zeros(1, 1, 6, 6)
    result, counted = cs.summary(net, (1, 6, 6)), model.operations(net, image)
    assert model.compared(net, result, counted) == []
    layer = result.layers[0]
    value: Any = ((2, Sum("6 - 3", 3)),) if wrong == "size" else Sum("1", 1)
    planted = replace(result, layers=(replace(layer, **{wrong: value}), *result.layers[1:]))
    assert model.compared(net, planted, counted)
