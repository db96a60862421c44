"""Damaged runs: each kind of file, changed on purpose, is named, passed over or refused."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file, save_file

import convscope as cs
from commands import Commands
from convscope.errors import DataWarning, RunError, WeightsError
from convscope.models.weights import load_weights
from convscope.models.weights_files import check_seal, sealed
from convscope.training.writer import metrics_line, read_metrics
from damage import edit_config, flipped, within
from damaged_runs import IMAGES, SMALL, Stopped, bits, stop_after


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train(**SMALL, out=tmp_path_factory.mktemp("whole") / "run", snapshot_seconds=0).path


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Stopped):
        cs.train(**SMALL, out=out, watch=stop_after(6), snapshot_seconds=0)
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def unfinished(half: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(half, tmp_path / "unfinished"))


# Each kind of file, changed by one bit on purpose


def test_weights_with_a_turned_bit_are_not_used(run: Path) -> None:
    before = cs.predict(run, IMAGES[0])[0].output
    path = run / "weights.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(flipped(content, start + 3, 4))  # an exponent's bit
    with pytest.warns(DataWarning, match=r"weights\.safetensors is damaged: .* Those of .*snapshots.\d+ are used"):
        assert (cs.predict(run, IMAGES[0])[0].output == before).all()
    with pytest.raises(WeightsError, match="is damaged: its content does not match"):
        load_weights(cs.load_model("crosses", args={}), path)
    for copy in run.glob("snapshots/*/weights.safetensors"):
        copy.write_bytes(flipped(copy.read_bytes(), start + 3, 4))
    with pytest.raises(WeightsError, match="is damaged"):
        cs.load_model(run)


def test_weights_of_the_history_with_a_turned_bit_are_refused(run: Path) -> None:
    path = run / "history" / "000000003.safetensors"
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 2, 16))
    with pytest.raises(RunError, match=r"history/000000003\.safetensors is damaged"):
        cs.load_run(run).weights_at(3)
    assert cs.load_run(run).weights_at(4)


def test_a_file_without_a_seal_is_taken_as_before(run: Path) -> None:
    values = {name: value + 1 for name, value in load_file(run / "weights.safetensors").items()}
    save_file(values, run / "weights.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(cs.load_model(run).state_dict()["conv1.bias"], torch.tensor(values["conv1.bias"]))


@pytest.mark.parametrize("end", ['"4"', "4.5", "null", "[4]", "true", "1e400"])
def test_a_sealed_header_with_an_end_that_is_no_number_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / "w.safetensors"
    content = sealed({"a": torch.zeros(1)}).replace(b"[0,4]", f"[0,{end}]".encode())
    length = content.index(b"}}") + 2 - 8
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(WeightsError, match="is damaged"):
        check_seal(path)


def test_no_bit_of_a_sealed_file_can_be_turned_that_changes_a_number(tmp_path: Path) -> None:
    tensors = {"conv.weight": torch.randn(3, 2), "bias": torch.ones(1)}
    content, path = sealed(tensors), tmp_path / "w.safetensors"
    harmless = 0
    for at in range(len(content)):
        path.write_bytes(flipped(content, at, 1 << (at % 8)))
        try:
            check_seal(path)
            loaded = load_file(path)
        except Exception:
            continue
        harmless += 1
        assert {name: value.tobytes() for name, value in loaded.items()} == {
            name: value.numpy().tobytes() for name, value in tensors.items()
        }, at
    assert harmless < 80  # the name and version of the digest itself


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["card"]["preprocess"].update(mean=[4.0]),
        lambda config: config["recipe"].update(lr=0.03),
        lambda config: config["recipe"].update(epochs=7),
        lambda config: config["recipe"].update(batch_size=60),
        lambda config: config["card"].update(classes=["x", "plus"]),
        lambda config: config.update(seed=4),
        lambda config: config.update(format=1),
    ],
)
def test_settings_that_are_not_as_written_are_refused(
    unfinished: Path, convscope: Commands, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_config(unfinished, change, digest=True)
    for ask in (cs.load_run, cs.load_model, cs.evaluate, lambda path: cs.predict(path, IMAGES[0])):
        with pytest.raises(RunError, match=r'config\.json is damaged or was edited: .* remove the line "sha256"'):
            ask(unfinished)
    answer = convscope("train", "--resume", "--out", unfinished)
    assert (answer.status, "damaged or was edited" in answer.err) == (1, True)


def test_an_edit_that_is_meant_is_taken(run: Path) -> None:
    edit_config(run, lambda config: config["card"].update(classes=["one", "other"]))
    assert cs.predict(run, IMAGES[0])[0].classes == ("one", "other")


def test_a_run_of_before_digests_loads_without_a_word(run: Path, whole: Path) -> None:
    edit_config(run, lambda config: config.update(format=1))
    values = load_file(run / "weights.safetensors")
    save_file(values, run / "weights.safetensors")
    lines = [json.dumps(event) for event in cs.load_run(whole).history]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    shutil.rmtree(run / "snapshots")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cs.evaluate(run).accuracy == cs.evaluate(whole).accuracy
        assert cs.load_run(run).history == cs.load_run(whole).history


def test_a_run_of_a_newer_version_says_so(run: Path) -> None:
    edit_config(run, lambda config: config.update(format=3))
    with pytest.raises(RunError, match=r"written by a newer convscope \(format 3; this one reads 2\)"):
        cs.load_run(run)


def test_a_position_beyond_the_end_is_refused_and_not_gone_on_from_for_ever(unfinished: Path) -> None:
    edit_config(unfinished, lambda config: config["recipe"].update(epochs=1))
    with (
        within(20),
        pytest.raises(RunError, match=r"its snapshot is at step 5, .* but its settings give 1 steps in all"),
    ):
        cs.train(resume=True, out=unfinished)


def test_fewer_batches_than_the_position_has_taken_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "shapes"
    with pytest.raises(Stopped):
        cs.train("shapes", "shapes-cnn-1", epochs=3, seed=1, out=out, watch=stop_after(45), snapshot_seconds=0)
    edit_config(out, lambda config: config["recipe"].update(batch_size=600))
    with within(60), pytest.raises(RunError, match="One of them is damaged or was edited"):
        cs.train(resume=True, out=out)


# Metrics


def test_a_damaged_line_of_the_metrics_is_left_out_with_a_note(run: Path, convscope: Commands) -> None:
    before = cs.load_run(run).history
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"loss": 0', b'"loss": 9', 1)
    lines[5] = flipped(lines[5], 30, 128)
    path.write_bytes(b"\n".join(lines))
    with pytest.warns(DataWarning, match=r"metrics\.jsonl: lines 3, 6 are damaged and left out"):
        assert cs.load_run(run).history == [event for at, event in enumerate(before) if at not in {2, 5}]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        answer = convscope("plot", "history", run, "--out", run / "history.png")
    assert (answer.status, "metrics.jsonl: lines 3, 6 are damaged" in answer.err) == (0, True)


def test_lost_metrics_are_noted(run: Path) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:-4]) + b"\n")
    with pytest.warns(DataWarning, match=r"metrics\.jsonl is damaged: it has \d+ bytes of \d+ left"):
        assert len(cs.load_run(run).history) == len(lines) - 4


def test_resuming_cuts_damaged_lines_and_ends_in_the_same_weights(unfinished: Path, whole: Path) -> None:
    path = unfinished / "metrics.jsonl"
    path.write_bytes(flipped(path.read_bytes(), 30, 128) + b'{"event": "tr')
    events: list[Mapping[str, Any]] = []
    cs.train(resume=True, out=unfinished, watch=events.append)
    assert any("line 1 is damaged and left out" in note for note in events[0]["notes"])
    assert bits(unfinished) == bits(whole)
    metrics = read_metrics(unfinished)
    assert metrics.damaged == ()
    steps = [event["step"] for event in metrics.events if event["event"] == "epoch"]
    assert steps == list(range(1, 13))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cs.load_run(unfinished).history


def test_what_an_earlier_version_did_not_write_has_its_default(unfinished: Path, whole: Path) -> None:
    path = unfinished / "config.json"
    config = json.loads(path.read_text())
    for name in ("sha256", "test", "precision", "device", "recipe_name", "engine"):
        del config[name]
    del config["model"]["name"]
    path.write_text(json.dumps(config))
    cs.train(resume=True, out=unfinished)
    assert (unfinished / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_kill_after_lines_were_cut_repeats_none(unfinished: Path, whole: Path) -> None:
    path = unfinished / "metrics.jsonl"
    path.write_bytes(flipped(path.read_bytes(), 30, 128))
    with pytest.raises(Stopped):  # before the next snapshot
        cs.train(resume=True, out=unfinished, watch=stop_after(9), snapshot_seconds=1e9)
    cs.train(resume=True, out=unfinished)
    assert bits(unfinished) == bits(whole)
    steps = [(event["event"], event["step"]) for event in read_metrics(unfinished).events]
    assert len(steps) == len(set(steps))


@pytest.mark.parametrize(
    "line", ["[" * 200_000, "[1]", "3", '{"event": 3}', '{"event": "epoch", "step": "x", "epoch": 1}']
)
def test_lines_that_are_no_events_are_left_out(run: Path, line: str) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.warns(DataWarning, match="is damaged and left out"):
        assert cs.load_run(run).metrics["step"] == 12


def test_metrics_hold_any_event_and_read_it_back(tmp_path: Path) -> None:
    event = {"event": "train", "step": 3, "epoch": 1, "loss": float("nan"), "note": "“\n”"}
    (tmp_path / "metrics.jsonl").write_bytes(metrics_line(event) * 2)
    assert str(read_metrics(tmp_path).events) == str([event, event])


# Snapshots


def reseal(snapshot: Path, name: str, content: bytes) -> None:
    """Change a file of a snapshot, and its digest with it."""
    (snapshot / name).write_bytes(content)
    digests = json.loads((snapshot / "sha256.json").read_text())
    (snapshot / "sha256.json").write_text(json.dumps({**digests, name: hashlib.sha256(content).hexdigest()}))


@pytest.mark.parametrize("digests", ["null", "[]", "1e999", '"x"', "{}", "[" * 200_000, '{"../../config.json": "x"}'])
def test_a_snapshot_whose_digests_are_none_is_passed_over(unfinished: Path, whole: Path, digests: str) -> None:
    newest = max(unfinished.glob("snapshots/[0-9]*"))
    (newest / "sha256.json").write_text(digests)
    events: list[Mapping[str, Any]] = []
    cs.train(resume=True, out=unfinished, watch=events.append)
    assert any(f"{newest} is damaged and skipped" in note for note in events[0]["notes"])
    assert bits(unfinished) == bits(whole)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer.pt", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
        ("optimizer.pt", b""),
        ("position.json", b"[" * 200_000),
        ("position.json", b'{"step": 1e999}'),
        ("position.json", b'{"step": -1, "epoch": 0, "batch": 0, "seconds": 0, "metrics_bytes": 0, "sums": {}}'),
        ("weights.safetensors", b"\xff" * 64),
    ],
)
def test_a_snapshot_that_is_none_though_its_digests_are_right_is_passed_over(
    unfinished: Path, whole: Path, name: str, content: bytes
) -> None:
    newest = max(unfinished.glob("snapshots/[0-9]*"))
    reseal(newest, name, content)
    events: list[Mapping[str, Any]] = []
    cs.train(resume=True, out=unfinished, watch=events.append)
    assert any("is damaged and skipped" in note for note in events[0]["notes"])
    assert bits(unfinished) == bits(whole)


def test_a_position_with_a_turned_bit_does_not_finish_a_run(unfinished: Path, whole: Path) -> None:
    newest = max(unfinished.glob("snapshots/[0-9]*"))
    text = (newest / "position.json").read_text()
    (newest / "position.json").write_text(text.replace('"epoch": 6', '"epoch": 12'))
    assert not cs.load_run(unfinished).finished
    cs.train(resume=True, out=unfinished)
    assert bits(unfinished) == bits(whole)


# What may not be read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"config\.json cannot be read: Permission denied"),
        ("weights.safetensors", r"weights\.safetensors cannot be read: Permission denied"),
    ],
)
def test_a_file_without_permission_is_not_called_damaged_nor_replaced(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    opened = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if Path(path) == run / name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)  # permissions mean nothing to root
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != run / name)
    with pytest.raises(cs.ConvscopeError, match=message):
        cs.load_model(run)


def test_notes_that_are_null_are_none(tmp_path: Path) -> None:
    cs.train("crosses", epochs=1, out=tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in config.items() if name != "sha256"} | {"notes": None}))
    assert not cs.load_run(tmp_path / "run").config["notes"]
