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


NOT_JSON, OF_NO_RUN, OF_OTHERS = "Expecting value", "not a record of this run", "another user owns it"
BAD_RECORDS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_text(""), NOT_JSON),
    "no JSON": (lambda file: file.write_bytes(b"\xff\0{"), "can't decode"),
    "nested": (lambda file: file.write_text("[" * 200_000), "nested too deeply"),
    "a long number": (lambda file: file.write_text("9" * 5000), "a number of 5,000 digits"),
    "of 1 TB": (lambda file: os.truncate(file, 1 << 40), "it has 1,099,511,627,776 bytes"),
    "a list": (lambda file: file.write_text("[]"), OF_NO_RUN),
    "of another run": (lambda file: edit(file, run="elsewhere"), OF_NO_RUN),
    "no files": (lambda file: edit(file, files=None), OF_NO_RUN),
    "files that are a list": (lambda file: edit(file, files=["net.py"]), OF_NO_RUN),
    "no model": (lambda file: edit(file, model=None), OF_NO_RUN),
    "another digest": (lambda file: edit(file, model="0" * 64), "other code"),
    "fewer files": (lambda file: edit(file, files={}), "new or changed since you trusted it"),
    "others can write it": (lambda file: file.chmod(0o666), OF_OTHERS),
    "its group can write it": (lambda file: file.chmod(0o660), OF_OTHERS),
    "others can write the folder": (lambda file: file.parent.chmod(0o777), OF_OTHERS),
    "a link": (lambda file: file.symlink_to(file.rename(file.with_suffix(".moved"))), "it is a link"),
    "a pipe": (lambda file: instead(file, os.mkfifo), "not a regular file"),
    "a folder": (lambda file: instead(file, Path.mkdir), "not a regular file"),
    "gone": (Path.unlink, "which you have not trusted"),
}


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(("damage", "reason"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_record_that_cannot_be_relied_on_trusts_nothing(
    own: Path, state: Path, damage: Callable[[Path], object], reason: str
) -> None:
    assert cs.load_model(own)
    (file,) = (state / "trust").iterdir()
    damage(file)
    with pytest.raises(TrustError, match=reason):
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
