"""What functions of installed packages may return: anything else is one sentence that names function and package."""

import importlib
import sys
from collections.abc import Iterator
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
from convscope.expr.call import Source
from convscope.expr.expr import Apply, Cells, Dot, Leaf
from convscope.ops import Op
from convscope.ops.vjp import VJP

PACKAGE = Path(__file__).parent / "own_package"
NAME = "soft_clip::soft_clip"
X = Source("x", "step", (1, 12))


class Clipped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from soft_clip import soft_clip

        clipped: torch.Tensor = soft_clip(x, 0.7)
        return clipped


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def cells(count: int) -> Cells:
    return Cells(np.ones(count), X, np.zeros((count, 2), np.int64), (count,))


def speechless(*_: object, **__: object) -> None:
    raise Speechless


ODD: Any = {"text": "text", "int": 5, "none": None, "list": [1.0]}
"""Values whose types no function asks for."""
RETURNED: dict[str, list[Any]] = {
    "rule": [
        *(5.0, Leaf(ODD["list"], X), Leaf(10**400, X), Leaf(np.ones(3), X), Apply("no_such_function", {})),
        *(Apply("tanh", {}), Apply("tanh", {"x": ODD["int"]}), Dot(cells(3), cells(4)), Dot(ODD["none"]), speechless),
    ],
    "vjp": [
        *(VJP({"x": np.ones(3)}), VJP({"nope": np.ones((1, 12))}), VJP({"x": ODD["text"]}), VJP({"x": ODD["none"]})),
        *(VJP(ODD["int"]), VJP({"x": np.ones((1, 12), complex)}), VJP({}, ODD["text"]), {}, speechless),
    ],
    "dependencies": [
        *(
            {"x": np.ones(3)},
            {"nope": np.ones((1, 12))},
            {"x": "text"},
            {"x": None},
            {"x": [[1.0] * 12]},
            7,
            speechless,
        ),
    ],
    "title": [None, 7, b"text", speechless],
    "forward": [np.ones(3), 5, "text", None, [[1.0] * 12], np.ones((1, 12), complex), torch.ones(1, 12), speechless],
    "error": ["text", None, -1.0, np.ones(3), (1.0, 2.0), [1.0], 1j, speechless],
}
REFERENCE = ("forward", "error")
"""The functions of an operation of the reference; the others are those of an Op."""
CASES = [(field, place) for field, values in RETURNED.items() for place in range(len(values))]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An installed package whose rows a test replaces."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    module = type(sys)("hostile_package")
    own = importlib.import_module("convscope_soft_clip")
    module.OPS, module.REFERENCES = dict(own.OPS), dict(own.REFERENCES)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hostile_package", module)
    points = {"convscope.ops": "OPS", "convscope.reference": "REFERENCES"}
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda *, group: [EntryPoint("mine", f"hostile_package:{points[group]}", group)] if group in points else [],
    )
    plugins.rows_of.cache_clear()
    yield module
    plugins.rows_of.cache_clear()


def used(trace: cs.Trace, field: str) -> object:
    """What a function of the operation's row is needed for."""
    if field == "title":
        return str(trace)
    if field == "dependencies":
        return cs.probe.receptive_field(trace, 0, (0, 7))
    if field in REFERENCE:
        return cs.explain(trace, 0, (7,)).status
    why = cs.explain(trace, 0, (7,))
    return why.to_input() if field == "vjp" else str(why)


def with_function(package: Any, field: str, returned: Any) -> None:
    """Give the package's row a function that returns something, or that fails."""

    def function(x: object, limit: object = None, *_: object, **__: object) -> object:
        if returned is speechless:
            speechless()
        return returned

    rows = package.REFERENCES if field in REFERENCE else package.OPS
    rows[NAME] = replace(rows[NAME], **{field: function})


@pytest.mark.parametrize(("field", "place"), [case for case in CASES if case[0] not in REFERENCE])
def test_what_a_package_returns_is_checked(package: Any, field: str, place: int) -> None:
    with_function(package, field, RETURNED[field][place])
    with pytest.raises(PluginError) as refused:
        used(cs.trace(Clipped(), torch.linspace(-3, 3, 12)[None]), field)
    assert NAME in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize(("field", "place"), [case for case in CASES if case[0] in REFERENCE])
def test_what_a_definition_cannot_return_proves_nothing(package: Any, field: str, place: int) -> None:
    with_function(package, field, RETURNED[field][place])
    trace = cs.trace(Clipped(), torch.linspace(-3, 3, 12)[None])
    assert cs.explain(trace, 0, (7,)).status == "not recomputed"
    assert cs.explain(trace, 0, (7,)).to_input().value == float(trace.steps[0].output[0, 7])
    try:
        assert not cs.verify(trace).proved
    except PluginError as refused:
        assert NAME in str(refused)  # noqa: PT017 - either will do


def test_what_a_package_should_return_is_used(package: Any) -> None:
    trace = cs.trace(Clipped(), torch.linspace(-3, 3, 12)[None])
    assert cs.verify(trace).proved
    for field in RETURNED:
        assert used(trace, field) is not None


def test_words_that_mean_nothing_are_refused(package: Any) -> None:
    row = package.OPS[NAME]
    for field, word in (("role", "clipping"), ("role", ["view"]), ("rounding", 5), ("selected_by", "self")):
        with pytest.raises(cs.UsageError, match=f"{field} of an Op is"):
            replace(row, **{field: word})


def test_entry_points_that_cannot_be_read_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "odd-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: odd\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_bytes(b"[convscope.ops]\nodd = \xff\xfe:ROWS\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.rows_of.cache_clear()
    with pytest.raises(PluginError, match="entry points of installed packages cannot be read: UnicodeDecodeError"):
        plugins.PluginTable[Op]({}, "convscope.ops", Op).get("odd::odd")
    plugins.rows_of.cache_clear()
