"""The demo's folder: it replaces a former demo and nothing else, also when it is killed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import Commands
from convscope.cli import explorer as demo_command
from convscope.cli.explorer import put_in_place, staged
from convscope.errors import UsageError
from run_folders import untouched


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A user's folder outside the run."""
    (tmp_path / "victim").mkdir()
    for name in ("thesis.tex", "000000099.safetensors", "keys"):
        (tmp_path / "victim" / name).write_text("precious")
    return tmp_path / "victim"


# The demo


NAMES = ("run", "maps.png")


def fake_demo(out: Path, text: str) -> None:
    with staged(out, NAMES) as stage:
        (stage / "run" / "history").mkdir(parents=True)
        for name in ("run/config.json", "run/history/1.safetensors", "maps.png"):
            (stage / name).write_text(text)
        put_in_place(stage, out, NAMES)


def interrupted_demo(out: Path) -> None:
    with staged(out, NAMES) as stage:
        (stage / "maps.png").write_text("half")
        raise KeyboardInterrupt


def content(out: Path) -> dict[str, str]:
    return {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}


def test_a_demo_replaces_a_former_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    fake_demo(out, "one")
    (out / "notes.txt").write_text("mine")
    fake_demo(out, "two")
    assert content(out).pop("notes.txt") == "mine"
    assert {text for name, text in content(out).items() if name not in {"demo.json", "notes.txt"}} == {"two"}
    assert len(content(out)) == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run/more.txt", r"run/more\.txt was not written by a demo"),
        ("run/config.json", r"run/config\.json has been changed since a demo wrote it"),
        ("run/history/best/w.txt", "was not written by a demo"),
        ("maps.png", "has been changed since"),
    ],
)
def test_a_demo_refuses_to_remove_what_it_did_not_make(tmp_path: Path, name: str, message: str) -> None:
    out = tmp_path / "demo"
    fake_demo(out, "one")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = content(out)
    with pytest.raises(UsageError, match=message):
        fake_demo(out, "two")
    assert content(out) == before


@pytest.mark.parametrize(
    "mark", ["{}", "[]", "null", "{", "[" * 200_000, '{"files": {"../victim": ["x"], "/etc": []}}']
)
def test_a_list_that_names_nothing_makes_nothing_the_demo_s(tmp_path: Path, mark: str, convscope: Commands) -> None:
    out = tmp_path / "mine"
    (out / "run").mkdir(parents=True)
    (tmp_path / "victim").write_text("precious")
    for name, text in {"demo.json": mark, "notes.txt": "notes", "run/more.txt": "more"}.items():
        (out / name).write_text(text)
    before = content(out)
    answer = convscope("demo", "--out", out)
    assert (answer.status, "more.txt was not written by a demo" in answer.err) == (2, True)
    assert content(out) == before
    shutil.rmtree(out / "run")
    fake_demo(out, "two")
    assert content(out)["notes.txt"] == "notes"
    assert (tmp_path / "victim").read_text() == "precious"


def test_links_in_a_demo_are_not_followed(tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "demo"
    fake_demo(out, "one")
    shutil.rmtree(out / "run")
    (out / "run").symlink_to(victim)
    with pytest.raises(UsageError, match="run was not written by a demo"):
        fake_demo(out, "two")
    assert untouched(victim)


def test_an_interrupted_demo_leaves_the_former_one(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    fake_demo(out, "one")
    before = content(out)
    with pytest.raises(KeyboardInterrupt):
        interrupted_demo(out)
    assert content(out) == before
    with pytest.raises(KeyboardInterrupt):
        interrupted_demo(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("killed_at", range(1, 8))
def test_a_demo_killed_while_it_takes_its_place_loses_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    out = tmp_path / "demo"
    fake_demo(out, "one")
    calls = iter(range(1, 100))

    def killed(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if next(calls) == killed_at:
                os._exit(9)
            return real(*arguments)

        return call

    child = os.fork()
    if child == 0:
        Path.rename = killed(Path.rename)  # type: ignore[method-assign]
        Path.replace = killed(Path.replace)  # type: ignore[method-assign]
        fake_demo(out, "two")
        os._exit(0)
    os.waitpid(child, 0)
    texts = sorted(
        text for name, text in content(out).items() if not name.endswith((".json", ".part")) or "config" in name
    )
    assert texts in (["one"] * 3 + ["two"] * 3, ["two"] * 3)
    fake_demo(out, "three")
    assert {content(out)[name] for name in ("run/config.json", "maps.png")} == {"three"}


def test_the_demo_makes_all_that_it_lists() -> None:
    assert set(demo_command.MADE) == {"run", *(f"{name}.png" for name in demo_command.PICTURES)}
    assert json.dumps(demo_command.MADE)


def test_a_folder_that_cannot_be_made_or_written_is_one_sentence(tmp_path: Path, convscope: Commands) -> None:
    (tmp_path / "file").touch()
    result = convscope("demo", "--out", tmp_path / "file" / "demo")
    assert result.status == 2
    assert "cannot be written: Not a directory; choose another --out" in result.err.replace("\n", " ")
