"""Files that take no room on the disk and all of the memory: refused in a sentence, before they are read."""

import io
import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.cli.explorer import _replaceable
from convscope.errors import ConvscopeError
from convscope.files import read_file

HUGE = 1 << 40


@pytest.fixture(autouse=True)
def _a_machine_of_64_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that follow the memory are the same on each machine that runs the tests."""
    monkeypatch.setattr("convscope.memory._machine", lambda _: 1 << 36)
    monkeypatch.setattr("convscope.memory._groups", lambda *_: iter(()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train("crosses", epochs=2, out=tmp_path_factory.mktemp("huge") / "run").path


def _image(kind: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, kind)
    return content.getvalue()


FILES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "a.jpg": (_image("JPEG"), cs.read_image),
    "a.webp": (_image("WEBP"), cs.read_image),
    "lesson.md": (b"---\ntitle: T\n", lambda path: cs.lessons.find_lesson(str(path))),
    "net.py": (b"class Net: pass\n", lambda path: cs.load_model(f"{path}:Net")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_size_is_refused_before_it_takes_memory(tmp_path: Path, name: str) -> None:
    content, read = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    os.truncate(path, HUGE)
    with pytest.raises(ConvscopeError, match=r"1,099,511,627,776 bytes"):
        read(path)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "weights.safetensors", "snapshot"])
def test_a_run_with_a_huge_file_is_refused_or_read_without_it(
    tmp_path: Path, run: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for file in run.rglob("*.*"):
        (path / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
        (path / file.relative_to(run)).write_bytes(file.read_bytes())
    for changed in path.glob("snapshots/*/weights.safetensors" if name == "snapshot" else name):
        os.truncate(changed, HUGE)
    with pytest.raises(ConvscopeError, match=r"1,099,511,627,776 bytes") if name == "config.json" else nullcontext():
        cs.predict(path, "crosses:plus")
    if name == "weights.safetensors":  # those of the snapshot are taken
        assert any("its size is not the one that its header gives" in str(warning.message) for warning in recwarn)
    if name == "metrics.jsonl":
        with pytest.raises(ConvscopeError, match=r"1,099,511,627,776 bytes"):
            cs.plot.history(path)
    if name == "snapshot":
        config = json.loads((path / "config.json").read_text())
        config["recipe"]["epochs"] = 3
        config.pop("sha256")
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConvscopeError, match=r"1,099,511,627,776 bytes"):
            cs.train(resume=True, out=path)


def test_a_trace_that_memory_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    cs.trace(torch.nn.ReLU(), torch.ones(1, 1, 8, 8)).save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    cells = HUGE // 4
    for name in ("output/0/0", "input/x"):
        start = header.get(name, {}).get("data_offsets", [0])[0]
        if name in header:
            header[name] |= {"shape": [1, 1, 8, cells // 8], "data_offsets": [start, start + HUGE]}
    names = [name for name in header if name != "__metadata__"]
    at = 0
    for name in names:
        size = int(np.prod(header[name]["shape"])) * 4
        header[name]["data_offsets"] = [at, at + size]
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + at)
    with pytest.raises(ConvscopeError, match=r"has an array of 1,099,511,627,776 bytes, more than the free memory"):
        cs.Trace.load(path)


def test_a_file_up_to_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    assert read_file(path, limit=4) == b"1234"
    with pytest.raises(OSError, match=re.escape("it has 4 bytes, and at most 3 are read")):
        read_file(path, limit=3)
    os.truncate(path, (1 << 28) + 1)
    with pytest.raises(OSError, match="at most 268,435,456 are read"):
        read_file(path)


@pytest.mark.parametrize("name", ["net.json", "config.json", "demo.json"])
def test_a_number_of_thousands_of_digits_is_refused_in_our_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"epochs": %s}' % ("9" * 5000))
    if name == "demo.json":
        (tmp_path / "run").mkdir()
        with pytest.raises(ConvscopeError, match="was not written by a demo"):
            _replaceable(tmp_path, {"run"})
        return
    with pytest.raises(ConvscopeError, match="it has a number of 5,000 digits"):
        cs.load_model(tmp_path if name == "config.json" else tmp_path / name)
