"""One command that begins a training or goes on with it, wherever an earlier one was ended."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from commands import Commands
from convscope.errors import RunError, UsageError
from run_folders import SMALL, killed_at, same_weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train(**SMALL, out=tmp_path_factory.mktemp("whole") / "run").path


# One command that begins and goes on


def leave(path: Path, *names: str, part: bytes = b"{") -> None:
    """What a training leaves that ends early."""
    path.mkdir()
    for name in ("snapshots", "history"):
        (path / name).mkdir()
    for name in ("lock", "metrics.jsonl", *names):
        (path / name).write_bytes(b"" if name[0] != "." else part)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "files", "files and a part", "an empty part"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_training_begins_where_none_has_begun(tmp_path: Path, whole: Path, left: str, resume: bool) -> None:
    out = tmp_path / "run"
    if left == "an empty folder":
        out.mkdir()
    elif left != "nothing":
        part = () if left == "files" else (".config.json.part",)
        leave(out, *part, part=b"" if left == "an empty part" else b"{")
    events: list[Mapping[str, Any]] = []
    cs.train(**SMALL, out=out, resume=resume, watch=events.append)
    assert same_weights(out, whole)
    notes = " ".join(events[0]["notes"])
    assert ("a new training starts." in notes) == (resume and left in {"nothing", "an empty folder"})
    assert ("it starts again." in notes) == (left not in {"nothing", "an empty folder"})
    assert not events[0]["resumed"]


def test_the_same_command_begins_goes_on_and_has_finished(tmp_path: Path, convscope: Commands) -> None:
    command = [
        "train",
        "shapes",
        "--model",
        "shapes-cnn",
        "--model-arg",
        "kernels=[4, 6]",
        "--epochs",
        "2",
        "--seed",
        "5",
    ]
    command += ["--images", "100", "--device", "cpu", "--batch-size", "10", "--resume", "--out", str(tmp_path / "run")]
    first, second = convscope(*command), convscope(*command)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "holds no run to resume yet, so a new training starts" in first.err
    assert "is already finished" in second.out
    with pytest.raises(UsageError, match=r"was started with shapes-cnn\(kernels=\[4, 6\]\), not \[2, 2\]"):
        cs.train(resume=True, out=tmp_path / "run", model_args={"kernels": [2, 2]})


def test_without_data_nothing_begins(tmp_path: Path) -> None:
    leave(tmp_path / "run", ".config.json.part")
    with pytest.raises(RunError, match=r"holds no run yet: .* convscope train DATASET --resume --out .*run"):
        cs.train(resume=True, out=tmp_path / "run")
    with pytest.raises(RunError, match="never does not exist"):
        cs.train(resume=True, out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("name", ["notes.txt", "history/000000001.safetensors", "snapshots/x", "metrics.jsonl"])
def test_a_folder_with_anything_else_is_not_begun_in(tmp_path: Path, name: str) -> None:
    leave(tmp_path / "run")
    (tmp_path / "run" / name).write_text("mine")
    for resume in (True, False):
        with pytest.raises(RunError, match=r"is not a run folder|exists and is not empty"):
            cs.train(**SMALL, out=tmp_path / "run", resume=resume)
    assert (tmp_path / "run" / name).read_text() == "mine"


@pytest.mark.parametrize("step", range(1, 14))
def test_a_full_disk_at_any_early_write_leaves_a_folder_to_begin_in(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Every fsync and rename up to the second snapshot fails once; the same command then ends in the same weights."""
    calls = iter(range(1, 1000))

    def failing(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if next(calls) == step:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(Path, "replace", failing(Path.replace))
        with pytest.raises(cs.ConvscopeError, match="No space left on device"):
            cs.train(**SMALL, out=tmp_path / "run", resume=True)
    cs.train(**SMALL, out=tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "run", whole)


def assert_a_kill_costs_nothing(whole: Path, folder: Path, numbers: range) -> None:
    for number in numbers:
        out = folder / str(number)
        if not killed_at(out, number):
            assert number > 100
            return
        if number % 2:  # and once more, while it goes on
            killed_at(out, 2 + number % 7)
        if number % 3 == 0 and (out / "config.json").exists() and not cs.load_run(out).finished:
            with (out / "metrics.jsonl").open("ab") as file:
                file.write(b"damaged\n")
            killed_at(out, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cs.train(**SMALL, out=out, resume=True)
        assert same_weights(out, whole), number
        assert cs.load_run(out).steps == cs.load_run(whole).steps, number
        epochs = [event["step"] for event in cs.load_run(out).history if event["event"] == "epoch"]
        assert epochs == list(range(1, 13)), number
        assert not list(out.rglob("*.part")) + list(out.rglob("*.old")), number


def test_a_kill_at_a_change_of_the_disk_costs_nothing(whole: Path, tmp_path: Path) -> None:
    assert_a_kill_costs_nothing(whole, tmp_path, range(1, 120, 7))


@pytest.mark.study
def test_a_kill_at_any_change_of_the_disk_costs_nothing(whole: Path, tmp_path: Path) -> None:
    assert_a_kill_costs_nothing(whole, tmp_path, range(1, 1000))
