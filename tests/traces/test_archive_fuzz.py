"""Thousands of damaged traces: each is refused in one sentence, or its verification ends in a report."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forging import Arrays, Header, report_of, save, written, written_step

ODD: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 255, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30, 0.5, -1e308, 1e-320, True,
    False, None, "", "x", "float16", "step", "input", "parameter", "constant", "conv1", "empty", "nan", [], {}, [[]],
    [0, 0], [1] * 9, [2**40], [10**6, 10**6], {"tuple": []}, {"tuple": [1]}, {"map": {}}, {"ref": []},
    {"float": ["nan"]}, {"float": ["inf"]}, {"complex": ["1j"]}, {"array": "result/0"}, {"tuple": [2**31, 2**31]},
    {"tuple": [0, 0, 0, 0]}, {"tuple": [-1]},
)  # fmt: skip
"""What takes the place of a value."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, Header]:
    return written(tmp_path_factory.mktemp("trace") / "t")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, Header]:
    """A saved training step."""
    return written_step(tmp_path_factory.mktemp("step") / "t")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(index for key, item in items for index in places(item, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def damages(draw: st.DrawFn, header: Header) -> Header:
    """A header with up to three changes."""
    changed: Header = json.loads(json.dumps(header))
    for _ in range(draw(st.integers(1, 3))):
        result = [index for index in places(changed) if index]
        path = draw(st.sampled_from(result))
        parent, key = at(changed, path[:-1]), path[-1]
        kind = draw(st.sampled_from(["replace", "replace", "delete", "double", "move", "nudge"]))
        if kind == "replace":
            parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))  # a later change may be inside it
        elif kind == "delete":
            del parent[key]
        elif kind == "double" and isinstance(parent, list):
            parent.insert(key, parent[key])
        elif kind == "move":
            parent[key] = json.loads(json.dumps(at(changed, draw(st.sampled_from(result)))))
        elif isinstance(parent[key], int) and not isinstance(parent[key], bool):
            parent[key] += draw(st.sampled_from([-1, 1, 2, 100]))
    return changed


def outcome(arrays: Arrays, text: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        save(arrays, path, text)
        report = report_of(path)
        return "refused" if report is None else "proved" if report.proved else "loaded"


def every_header(original: tuple[Arrays, Header], data: st.DataObject) -> None:
    header = data.draw(damages(original[1]))
    outcome(original[0], json.dumps(header))


@pytest.mark.parametrize("path", [("format",), ("weights",), ("card", "name")])
def test_a_refusal_is_short_whatever_stands_where_a_text_belongs(
    original: tuple[Arrays, Header], path: tuple[str, ...]
) -> None:
    header: Header = json.loads(json.dumps(original[1]))
    at(header, path[:-1])[path[-1]] = header["steps"]
    assert outcome(original[0], json.dumps(header)) == "refused"


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_a_damaged_header_is_refused_or_reported(original: tuple[Arrays, Header], data: st.DataObject) -> None:
    every_header(original, data)


@settings(max_examples=30, derandomize=True)
@given(data=st.data())
def test_a_damaged_header_of_a_training_step_is_refused_or_reported(
    training: tuple[Arrays, Header], data: st.DataObject
) -> None:
    every_header(training, data)


@settings(max_examples=120, derandomize=True)
@given(data=st.data())
def test_what_a_header_says_of_a_training_step_is_checked_before_a_number_is_read(
    training: tuple[Arrays, Header], data: st.DataObject
) -> None:
    """One change that a checked header cannot have: only words may differ from what the steps say."""
    header: Header = json.loads(json.dumps(training[1]))
    said = header["training"]
    path = data.draw(st.sampled_from([path for path in places(said) if path]))
    parent, key = at(said, path[:-1]), path[-1]
    value = data.draw(st.sampled_from([one for one in ODD if one != parent[key]]))
    parent[key] = value
    free = {"loss_name", "optimizer", "origin", "kind", "custom", "aliases", "operations"}
    if not (free.intersection(path) and isinstance(value, str | list | bool | int)):
        assert outcome(training[0], json.dumps(header)) != "proved", (path, value)


@pytest.mark.study
@settings(max_examples=20_000)
@given(data=st.data())
def test_thousands_of_damaged_headers(original: tuple[Arrays, Header], data: st.DataObject) -> None:
    every_header(original, data)


@pytest.mark.study
@settings(max_examples=5_000)
@given(data=st.data())
def test_thousands_of_damaged_headers_of_a_training_step(training: tuple[Arrays, Header], data: st.DataObject) -> None:
    every_header(training, data)


def every_byte(original: bytes, data: st.DataObject) -> None:
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["flip", "flip", "cut", "insert", "zero"]))
        if kind == "flip":
            content[index] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            content = content[: max(1, index)]
        elif kind == "insert":
            content[index:index] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            content[index : index + 16] = bytes(len(content[index : index + 16]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_bytes(content)
        report_of(path)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("trace") / "t"
    written(path)
    return path.read_bytes()


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_reported(content: bytes, data: st.DataObject) -> None:
    every_byte(content, data)


@pytest.mark.study
@settings(max_examples=20_000)
@given(data=st.data())
def test_thousands_of_damaged_files(content: bytes, data: st.DataObject) -> None:
    every_byte(content, data)


def every_number(original: tuple[Arrays, Header], data: st.DataObject) -> None:
    """One number of a step or of the answer, changed by more than the resolution of its step, is never proved."""
    whole = {name: array for name, array in original[0].items() if name.startswith(("output/", "result/"))}
    names = sorted(name for name, array in whole.items() if array.size and array.dtype.kind == "f")
    name = data.draw(st.sampled_from(names))
    array = original[0][name].copy()
    index = data.draw(st.integers(0, array.size - 1))
    array.reshape(-1)[index] += np.float32(data.draw(st.sampled_from([-1, 0.01, 1e30, np.nan, np.inf])))
    assert outcome({**original[0], name: array}, json.dumps(original[1])) == "loaded"


@settings(max_examples=40, derandomize=True)
@given(data=st.data())
def test_a_changed_number_is_never_proved(original: tuple[Arrays, Header], data: st.DataObject) -> None:
    every_number(original, data)


@settings(max_examples=15, derandomize=True)
@given(data=st.data())
def test_a_changed_number_of_a_training_step_is_never_proved(
    training: tuple[Arrays, Header], data: st.DataObject
) -> None:
    every_number(training, data)
