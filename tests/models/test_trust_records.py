"""Records of trust: one that cannot be relied on, or lies where a run could bring it along, trusts nothing."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from convscope.errors import TrustError
from convscope.models import trust as records
from untrusted_runs import forget, instead, own_state, write_net


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield own_state(tmp_path, monkeypatch)
    forget()


@pytest.fixture
def net() -> Path:
    return write_net()


@pytest.fixture
def own(net: Path) -> Path:
    """A run of it that was trained here."""
    return cs.train("shapes", f"{net.name}:Net", epochs=1, out="own").path


BAD_RECORDS: Mapping[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_text(""),
    "no JSON": lambda file: file.write_bytes(b"\xff\0{"),
    "nested": lambda file: file.write_text("[" * 200_000),
    "a list": lambda file: file.write_text("[]"),
    "of another run": lambda file: edit(file, run="elsewhere"),
    "no files": lambda file: edit(file, files=None),
    "files that are a list": lambda file: edit(file, files=["net.py"]),
    "no model": lambda file: edit(file, model=None),
    "another digest": lambda file: edit(file, model="0" * 64),
    "fewer files": lambda file: edit(file, files={}),
    "others can write it": lambda file: file.chmod(0o666),
    "its group can write it": lambda file: file.chmod(0o660),
    "others can write the folder": lambda file: file.parent.chmod(0o777),
    "a link": lambda file: file.symlink_to(file.rename(file.with_suffix(".moved"))),
    "a pipe": lambda file: instead(file, os.mkfifo),
    "a folder": lambda file: instead(file, Path.mkdir),
    "gone": Path.unlink,
}


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("damage", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_record_that_cannot_be_relied_on_trusts_nothing(
    own: Path, state: Path, damage: Callable[[Path], object]
) -> None:
    assert cs.load_model(own)
    (file,) = (state / "trust").iterdir()
    damage(file)
    with pytest.raises(TrustError):
        cs.load_model(own)


def test_a_record_of_another_user_trusts_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(TrustError):
        cs.load_model(own)


@pytest.mark.parametrize("kind", ["relative", "in the run"])
def test_a_state_folder_that_a_run_could_bring_along_is_not_read(
    own: Path, state: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    shutil.copytree(state, own / "state")
    monkeypatch.setenv(records.STATE, "own/state" if kind == "relative" else str(own.resolve() / "state"))
    with pytest.raises(TrustError):
        cs.load_model(own)


@pytest.mark.parametrize("kind", ["a file", "relative"])
def test_a_state_folder_that_cannot_be_written_is_said_and_ends_no_training(
    net: Path, state: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "relative":
        monkeypatch.setenv(records.STATE, "elsewhere")
    else:
        state.write_text("")
    events: list[Mapping[str, Any]] = []
    run = cs.train("shapes", "net.py:Net", epochs=1, out="own", watch=events.append)
    (note,) = (note for note in events[0]["notes"] if "trust" in note)
    assert "cannot be remembered" in note
    assert records.STATE in note
    assert cs.load_model(run.path)  # in this process it holds
    shutil.copytree(run.path, "copied")
    with pytest.warns(UserWarning, match="cannot be remembered"):
        cs.load_model("copied", trust=True)
    monkeypatch.setattr(records, "_IN_PROCESS", {})
    with pytest.raises(TrustError):
        cs.load_model(run.path)
