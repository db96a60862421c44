"""Operations of one's own: passed in a call, or offered by an installed package, whose code the page of rules shows."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope import plugins
from convscope.errors import PluginError
from convscope.ops import OPS
from convscope.plugins import PluginTable

PACKAGE = Path(__file__).parent / "own_package"
ROOT = Path(__file__).parents[2]
NAME = "soft_clip::soft_clip"
SCRIPT = """
import torch, convscope as cs
from soft_clip import soft_clip

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
    def forward(self, x):
        return soft_clip(self.conv(x), 0.7)

torch.manual_seed(0)
trace = cs.trace(Net(), torch.randn(1, 1, 5, 5))
why = cs.explain(trace, 1, (1, 2, 0))
print(why.status, cs.verify(trace).proved, trace.steps[1].role, why.to_input().checks)
print(why)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example package is installed into, by pip."""
    pytest.importorskip("setuptools", reason="builds the example package")
    source, folder = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("installed")
    source.mkdir()
    for file in PACKAGE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(source)], check=True, capture_output=True)
    return folder


def output_of(script: str, *folders: Path) -> str:
    path = os.pathsep.join([*map(str, folders), str(ROOT / "src")])
    command, environment = [sys.executable, "-W", "error", "-c", script], {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_an_installed_package_teaches_its_operation(installed: Path) -> None:
    first, *page = output_of(SCRIPT, installed).splitlines()
    assert first == "proved True activation True"
    assert any("x × y" in line for line in page)
    assert any("tanh" in line for line in page)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.syspath_prepend(str(PACKAGE))
    from convscope_soft_clip import OPS as ROWS
    from convscope_soft_clip import REFERENCES

    return {"ops": OPS | ROWS, "references": cs.reference.OPERATIONS | REFERENCES}


class Clipped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from soft_clip import soft_clip

        clipped: torch.Tensor = soft_clip(x, 0.7)
        return clipped


def test_tables_are_passed_in_a_call(tables: dict[str, object]) -> None:
    trace = cs.trace(Clipped(), torch.linspace(-3, 3, 12)[None])
    assert [step.finding for step in cs.verify(trace).steps] == ["unsupported"]
    assert f"no rule explains '{NAME}'" in str(cs.explain(trace, 0, (0, 7)))
    assert cs.verify(trace, **tables).proved  # type: ignore[arg-type]
    why = cs.explain(trace, 0, (0, 7), **tables)  # type: ignore[arg-type]
    assert why.status == "proved"
    assert cs.explain(trace, 0, (0, 7), ops=tables["ops"]).status == "not recomputed"  # type: ignore[arg-type]


def test_a_wrong_rule_and_a_wrong_definition_are_seen(tables: dict[str, object]) -> None:
    from convscope_soft_clip import soft_clip_error

    trace = cs.trace(Clipped(), torch.linspace(-3, 3, 12)[None])
    other = cs.reference.Operation(lambda x, limit: 1.0001 * limit * np.tanh(x / limit), soft_clip_error)
    wrong = {**tables, "references": cs.reference.OPERATIONS | {NAME: other}}
    assert [step.finding for step in cs.verify(trace, **wrong).steps] == ["mismatch"]  # type: ignore[arg-type]
    relu = {**tables, "ops": OPS | {NAME: cs.ops.OPS["relu"]}}
    assert cs.verify(trace, **tables).proved  # type: ignore[arg-type]
    assert not cs.verify(trace, **relu).proved  # type: ignore[arg-type]


def offered(monkeypatch: pytest.MonkeyPatch, value: str, *more: str) -> PluginTable[int]:
    points = [EntryPoint("mine", each, "convscope.test") for each in (value, *more)]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points if group else [])
    plugins.rows_of.cache_clear()
    return PluginTable({"relu": 1}, "convscope.test", int)


NONSENSE = """
from collections.abc import Mapping

class Unreadable(Mapping):
    def __getitem__(self, key): raise RuntimeError("no row")
    def __iter__(self): raise RuntimeError("no keys")
    def __len__(self): return 1

UNREADABLE = Unreadable()
INTEGER_NAME = {7: 1}
NO_ROW = {"a::b": "row"}
"""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:ROWS", "cannot be imported: ModuleNotFoundError"),
        ("math:pi", "through convscope.test as math:pi, which is a float, not a mapping"),
        ("convscope.data.catalog:DATASETS", "the name of an operation needs a namespace"),
        ("nonsense:INTEGER_NAME", "offers 7 through convscope.test, but the name of an operation needs a namespace"),
        ("nonsense:NO_ROW", "offers 'a::b' through convscope.test, but its row is a str, and must be of the type int"),
        ("nonsense:UNREADABLE", "cannot be imported: RuntimeError: no keys"),
        ("leaves:ROWS", "cannot be imported: SystemExit: 0. Repair or uninstall it"),
        ("breaks:ROWS", "cannot be imported: Own: x"),
    ],
)
def test_a_package_that_offers_nonsense_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, message: str
) -> None:
    (tmp_path / "nonsense.py").write_text(NONSENSE)
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "breaks.py").write_text("class Own(BaseException): pass\nraise Own('x')")
    monkeypatch.syspath_prepend(tmp_path)
    table = offered(monkeypatch, value)
    assert "relu" in table
    assert "tanh" not in table  # PyTorch's own operations ask no package
    with pytest.raises(PluginError, match=message):
        "mylib::swirl" in table  # noqa: B015 - looking is enough
    plugins.rows_of.cache_clear()


FAILING = {
    "raises": ("raise ZeroDivisionError('no')", "fails: ZeroDivisionError: no."),
    "leaves": ("raise SystemExit(0)", "fails: SystemExit: 0."),
    "takes nothing": (None, "takes 0 positional arguments"),
    "returns nothing": ("return None", ""),
    "returns a text": ("return 'text'", ""),
}


def test_a_row_of_a_package_without_functions_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "unable_package.py").write_text("from convscope.ops import Op\nROWS = {'a::b': Op(7, 7)}\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("mine", "unable_package:ROWS", "convscope.ops")]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points if group else [])
    plugins.rows_of.cache_clear()
    with pytest.raises(
        PluginError, match=r"offers 'a::b' through convscope.ops, but its rule is an int, not a function"
    ):
        OPS.get("a::b")
    plugins.rows_of.cache_clear()


FIELDS = ("rule", "dependencies", "vjp", "title")
"""The functions of an Op."""


def _asks(trace: cs.Trace, function: str) -> object:
    """What a function of the operation's row is needed for."""
    if function == "title":
        return str(trace)
    if function == "dependencies":
        return cs.probe.receptive_field(trace, 0, (0, 7))
    why = cs.explain(trace, 0, (0, 7))
    return why.to_input() if function == "vjp" else str(why)


@pytest.mark.parametrize("function", FIELDS)
@pytest.mark.parametrize("kind", FAILING)
def test_a_function_of_a_package_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tables: dict[str, Any], kind: str, function: str
) -> None:
    body, message = FAILING[kind]
    text = "def failing(): pass" if body is None else f"def failing(*_, **__): {body}"
    (tmp_path / "failing_package.py").write_text(f"{text}\nROWS = {{}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_package", raising=False)
    package = importlib.import_module("failing_package")
    package.ROWS[NAME] = replace(tables["ops"][NAME], **{function: package.failing})
    points = {"convscope.ops": [EntryPoint("mine", "failing_package:ROWS", "convscope.ops")]}
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: points.get(group, []))
    plugins.rows_of.cache_clear()
    try:
        _asks(cs.trace(Clipped(), torch.linspace(-3, 3, 12)[None]), function)
    except cs.ConvscopeError as error:
        assert message in str(error)  # noqa: PT017 - some results need no such function
    else:
        assert kind.startswith("returns")
    finally:
        plugins.rows_of.cache_clear()


def test_pytorch_s_own_operations_import_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to look: what an aten operation means cannot be changed by what is installed."""
    table = offered(monkeypatch, "no_such_module:ROWS")
    assert table["relu"] == table.get("relu") == 1
    assert table.get("tanh") is None
    assert (table | {"tanh": 2})["tanh"] == 2
    with pytest.raises(KeyError, match="tanh"):
        table["tanh"]


def test_the_page_shows_this_package() -> None:
    section = (
        (ROOT / "docs" / "how-to" / "own-operation.md")
        .read_text()
        .split("## An operation of your own", 1)[1]
        .split("\n## ", 1)[0]
    )
    sources = "\n".join(file.read_text() for file in sorted(PACKAGE.glob("*.*")))
    blocks = [block.split("\n", 1)[1] for block in section.split("```")[1::2]]
    shown = [block for block in blocks if "cs.verify" not in block]
    assert len(shown) >= 3
    for block in shown:
        assert block.split("\n", 1)[1].strip() in sources if block.startswith("#") else block.strip() in sources, block
