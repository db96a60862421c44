"""A run's folder: links, pipes and the files of others in it are neither followed nor harmed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from convscope.errors import RunError
from convscope.files import open_own, open_to_read, write_file
from damage import within
from run_folders import SMALL, same_weights, untouched


class Stopped(Exception):
    """Ends a training as a kill does."""


def stop(event: Mapping[str, Any]) -> None:
    if event["step"] >= 6:
        raise Stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train(**SMALL, out=tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    out = tmp_path / "unfinished"
    with pytest.raises(Stopped):
        cs.train(**SMALL, out=out, watch=stop, snapshot_seconds=0)
    return out


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A user's folder outside the run."""
    (tmp_path / "victim").mkdir()
    for name in ("thesis.tex", "000000099.safetensors", "keys"):
        (tmp_path / "victim" / name).write_text("precious")
    return tmp_path / "victim"


# Links, and what is no regular file


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("history", ""),
        ("snapshots", ""),
        ("lock", "keys"),
        ("lock", "new"),
        ("metrics.jsonl", "keys"),
        ("metrics.jsonl", "new"),
        ("config.json", "config.json"),
        ("weights.safetensors", "keys"),
    ],
)
def test_going_on_follows_no_link(unfinished: Path, victim: Path, whole: Path, name: str, target: str) -> None:
    path = unfinished / name
    own = path.with_name("own-" + name)
    path.rename(own)
    path.symlink_to(own if name == target else victim / target)
    with pytest.raises(RunError, match=rf"{name}.* cannot be written: it is a link, which is not followed"):
        cs.train(resume=True, out=unfinished)
    assert untouched(victim)
    path.unlink()
    own.rename(path)
    cs.train(resume=True, out=unfinished)
    assert same_weights(unfinished, whole)


def test_links_at_the_names_of_parts_and_points_are_not_followed(unfinished: Path, victim: Path, whole: Path) -> None:
    for name in (".config.json.part", ".weights.safetensors.part", "history/.000000007.safetensors.part"):
        (unfinished / name).symlink_to(victim / "keys")
    (unfinished / "history/000000008.safetensors").unlink(missing_ok=True)
    (unfinished / "history/000000008.safetensors").symlink_to(victim / "keys")
    (unfinished / "snapshots/000000099").symlink_to(victim)
    (unfinished / "snapshots/.000000098.old").symlink_to(victim)
    cs.train(resume=True, out=unfinished)
    assert untouched(victim)
    assert same_weights(unfinished, whole)
    assert not (unfinished / "history/000000008.safetensors").is_symlink()


def test_a_snapshot_that_is_a_link_is_refused(unfinished: Path, victim: Path) -> None:
    (unfinished / "snapshots/.000000012.part").symlink_to(victim)
    with pytest.raises(cs.ConvscopeError, match="it is a link, which is not followed"):
        cs.train(resume=True, out=unfinished)
    assert untouched(victim)


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "weights.safetensors", "history/000000002.safetensors"])
def test_what_shares_its_content_by_a_hard_link_keeps_it(
    unfinished: Path, tmp_path: Path, whole: Path, name: str
) -> None:
    """A copy made by `cp -al` is a backup, and stays as it was."""
    copy = tmp_path / "copy"
    (unfinished / name).write_bytes((unfinished / name).read_bytes() or b"precious")
    os.link(unfinished / name, copy)
    before = copy.read_bytes()
    cs.train(resume=True, out=unfinished)
    assert copy.read_bytes() == before
    assert same_weights(unfinished, whole)


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "config.json", "weights.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(unfinished: Path, name: str) -> None:
    (unfinished / name).unlink()
    os.mkfifo(unfinished / name)
    with within(60):
        if name == "weights.safetensors":  # which is replaced, and never opened
            with pytest.raises(cs.ConvscopeError):
                _ = cs.load_run(unfinished).model
            with pytest.raises(RunError, match="cannot be read: it is not a regular file"):
                _ = cs.load_run(unfinished).parameters
            cs.train(resume=True, out=unfinished)
        else:
            with pytest.raises(cs.ConvscopeError, match="not a regular file"):
                cs.train(resume=True, out=unfinished)
        if name == "metrics.jsonl":
            with pytest.raises(RunError, match="not a regular file"):
                _ = cs.load_run(unfinished).history


def test_a_run_folder_that_is_itself_a_link_is_that_folder(unfinished: Path, tmp_path: Path, whole: Path) -> None:
    (tmp_path / "link").symlink_to(unfinished)
    assert cs.predict(tmp_path / "link", "crosses:plus")
    cs.train(resume=True, out=tmp_path / "link")
    assert same_weights(unfinished, whole)


def test_what_others_put_into_a_run_stays(unfinished: Path, whole: Path) -> None:
    newest = max(unfinished.glob("snapshots/[0-9]*"))
    own = [
        "notes.txt", "history/best.safetensors", "history/1.safetensors", "history/plan.part", "snapshots/2024-plan.md",
        "snapshots/000000001/notes.txt", f"snapshots/{newest.name}/notes.txt", "snapshots/.draft.old",
    ]  # fmt: skip
    for name in own:
        (unfinished / name).parent.mkdir(exist_ok=True)
        (unfinished / name).write_text("mine")
    cs.train(resume=True, out=unfinished)
    assert same_weights(unfinished, whole)
    assert {name for name in own if (unfinished / name).exists()} == set(own)
    assert cs.load_run(unfinished).steps == cs.load_run(whole).steps
    assert cs.load_run(unfinished).finished


def test_a_user_s_file_in_a_snapshot_that_is_written_anew_stays_there(tmp_path: Path) -> None:
    out = tmp_path / "run"
    cs.train("crosses", schedule="constant", epochs=5, seed=1, out=out)
    for path in out.glob("snapshots/*"):
        (path / "notes.txt").write_text("mine")
    for newest in [max(out.glob("snapshots/*"))]:
        (newest / "optimizer.pt").write_bytes(b"damaged")
    cs.train(epochs=5, resume=True, out=out)
    cs.train(epochs=6, resume=True, out=out)
    assert any((path / "notes.txt").exists() for path in out.glob("snapshots/*"))
    assert not list(out.glob("snapshots/.*"))


def test_files_are_opened_and_written_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_to_read(tmp_path / "link") as file:
        assert file.read() == b"precious"
    with pytest.raises(OSError, match="it is a link"):
        open_own(tmp_path / "link")
    for odd in (tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file"):
            open_to_read(odd)
    write_file(tmp_path / "link", b"new")
    assert ((tmp_path / "file").read_text(), (tmp_path / "link").read_text()) == ("precious", "new")
