"""The folder of a run: what is in it of others stays, no link is followed, and one command begins it or goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import convscope as cs
from commands import Commands
from convscope.cli import explorer as demo_command
from convscope.cli.explorer import put_in_place, staged
from convscope.errors import RunError, UsageError
from convscope.files import open_own, open_to_read, write_file
from damage import within

SMALL: Mapping[str, Any] = {"dataset": "crosses", "epochs": 12, "seed": 3}
PATIENCE = 300


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


def untouched(victim: Path) -> bool:
    return sorted(path.name for path in victim.iterdir()) == ["000000099.safetensors", "keys", "thesis.tex"] and all(
        path.read_text() == "precious" for path in victim.iterdir()
    )


def same_weights(a: Path, b: Path) -> bool:
    one, two = (load_file(path / "weights.safetensors") for path in (a, b))
    return one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)


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


CALLS = ((os, "fsync"), (os, "ftruncate"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "rmdir"))


def killed_at(out: Path, number: int) -> bool:
    """Train in a child that is killed before its `number`-th change of the disk; whether it came that far."""
    child = os.fork()
    if child == 0:
        calls = iter(range(1, 100_000))

        def killing(real: Any) -> Any:
            def call(*arguments: Any, **more: Any) -> Any:
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)

            return call

        for owner, name in CALLS:
            setattr(owner, name, killing(getattr(owner, name)))
        cs.train(**SMALL, out=out, resume=True, snapshot_seconds=0)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


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


# Signals, and a standard output that is gone


SLOW = """
import time
from convscope.cli import main
from convscope.training.loop import Loop
report = Loop._report
Loop._report = lambda self: [report(self), time.sleep(0.02)][0]
main()
"""


def start(out: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, "train", "shapes", "--model", "shapes-mlp", "--epochs", "4", "--seed", "1"]
    return subprocess.Popen([*command, "--out", str(out), *more], stderr=subprocess.PIPE, text=True, **options)


def wait_for_snapshot(run: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not list(run.glob("snapshots/[0-9]*")):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_saves_as_a_polite_kill_does(tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    process = start(run, stdout=subprocess.DEVNULL)
    wait_for_snapshot(run, process)
    time.sleep(0.3)
    process.send_signal(number)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130
    assert "everything is saved; continue with" in errors
    assert max(int(path.name) for path in run.glob("snapshots/[0-9]*")) > 0


def test_nohup_stays_in_force(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, stdout=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for_snapshot(run, process)
    process.send_signal(signal.SIGHUP)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, errors
    assert cs.load_run(run).finished


def test_a_training_continues_if_its_output_is_not_read(tmp_path: Path) -> None:
    process = start(tmp_path / "run", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, errors
    assert "note: standard output: Broken pipe; the training continues without it." in errors
    assert "Exception ignored" not in errors
    assert cs.load_run(tmp_path / "run").finished


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_named(tmp_path: Path, whole: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(tmp_path / "run", stdout=full)
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0
        assert "note: standard output: No space left on device; the training continues without it." in errors
        for more in ([], ["--json"]):
            command = [sys.executable, "-m", "convscope", "predict", str(whole), "crosses:plus", *more]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device.\n")


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
