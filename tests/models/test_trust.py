"""Trust: what a run folder names is executed once the user has said so, and asked again after any change."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

import convscope as cs
from commands import Commands
from convscope.errors import ModelError, RunError, TrustError
from convscope.models.checked_imports import is_library
from untrusted_runs import (
    ACT,
    BLOCKS,
    COMMANDS,
    DEEPER,
    IMAGE,
    NET,
    forget,
    instead,
    names,
    own_state,
    run_from_elsewhere,
    write_net,
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield own_state(tmp_path, monkeypatch)
    forget()


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a built-in network."""
    return cs.train("shapes", seed=1, epochs=1, out=tmp_path_factory.mktemp("built-in") / "run").path


@pytest.fixture
def net() -> Path:
    return write_net()


@pytest.fixture
def own(net: Path) -> Path:
    """A run of it that was trained here."""
    return cs.train("shapes", f"{net.name}:Net", epochs=1, out="own").path


@pytest.fixture
def evil(built_in: Path) -> Path:
    return run_from_elsewhere(built_in)


def test_a_run_of_a_built_in_network_needs_no_trust(built_in: Path, state: Path) -> None:
    shutil.copytree(built_in, "copied")
    assert cs.predict("copied", IMAGE)[0].classes
    assert not state.exists()


def test_a_run_that_was_trained_here_is_trusted_and_its_record_lies_outside(
    convscope: Commands, own: Path, state: Path
) -> None:
    assert "square" in convscope.said("predict", own, IMAGE)
    assert not list(own.rglob("*trust*"))
    (file,) = (state / "trust").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    record = json.loads(file.read_text())
    assert record["run"] == str(own.resolve())
    assert {Path(name).name for name in record["files"]} == {"net.py", "blocks.py", "deeper.py"}


CHANGES: Mapping[str, Callable[[], object]] = {
    "the file itself": lambda: Path("net.py").write_text(NET + f"\n{ACT}"),
    "a file that it imports": lambda: Path("blocks.py").write_text(BLOCKS + f"\n{ACT}"),
    "a file that this imports": lambda: Path("deeper.py").write_text(DEEPER + f"\n{ACT}"),
    "one byte, as long and as old as before": lambda: as_before(Path("deeper.py"), "CLASSES = 3"),
    "a file that is gone": Path("deeper.py").unlink,
    "a folder in its place": lambda: instead(Path("deeper.py"), Path.mkdir),
    "a pipe in its place": lambda: instead(Path("deeper.py"), os.mkfifo),
    "a package before it": lambda: package("deeper"),
    "an extension before it": lambda: Path(f"deeper{usercode_suffix()}").write_bytes(b"\x7fELF"),
    "other arguments": lambda: names(Path("own"), str(Path("net.py").resolve()) + ":Net", {"kernels": 2}),
    "another name": lambda: names(Path("own"), str(Path("net.py").resolve()) + ":nn.Linear", {}),
    "another source": lambda: names(Path("own"), "os:system", {"command": "touch CANARY"}),
    "a link to other code": lambda: instead(Path("deeper.py"), link_to_harm),
}


def link_to_harm(path: Path) -> None:
    Path("other.py").write_text(f"CLASSES = 2\n{ACT}")
    path.symlink_to("other.py")


def as_before(path: Path, text: str) -> None:
    """Change a file so that cached bytecode, size and time do not show it."""
    status = path.stat()
    assert status.st_size == len(text)
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def package(name: str) -> None:
    Path(name).mkdir()
    Path(name, "__init__.py").write_text(f"CLASSES = 2\n{ACT}")


def usercode_suffix() -> str:
    from importlib.machinery import EXTENSION_SUFFIXES

    return EXTENSION_SUFFIXES[0]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_any_file_or_argument_asks_again(
    convscope: Commands, own: Path, change: Callable[[], object]
) -> None:
    assert cs.load_model(own)
    forget()
    change()
    for words in (("predict", own, IMAGE), ("train", "--resume", "--out", own, "--epochs", "9")):
        message = convscope(*words)
        assert message.status in {1, 2}, message
        assert "Traceback" not in message.err
    with pytest.raises(RunError, match=r"trusted|cannot be built"):
        cs.load_model(own)
    assert not Path("CANARY").exists()


def test_a_file_that_is_only_imported_later_is_checked_then(net: Path) -> None:
    """What `forward` imports is part of the code, and found beside it."""
    net.write_text(NET.replace("    def forward(self, x):", "    def forward(self, x):\n        import later"))
    Path("later.py").write_text("x = 1")
    run = cs.train("shapes", "net.py:Net", epochs=1, out="lazy").path
    forget()
    model = cs.load_model(run)
    assert cs.predict(model, IMAGE)
    forget()
    Path("later.py").write_text(ACT)
    with pytest.raises(ModelError, match=r"later\.py' is new or has changed since its run was trusted"):
        cs.predict(model, IMAGE)
    with pytest.raises(TrustError, match=r"of which .*later\.py' has changed"):
        cs.load_model(run)
    assert not Path("CANARY").exists()


def test_other_threads_find_no_module_of_a_network(net: Path) -> None:
    """While a network is imported, its folder is searched for what its own code imports alone."""
    Path("wave.py").write_text(ACT)
    net.write_text("import time\ntime.sleep(0.5)\n" + NET)
    sys.modules.pop("wave", None)
    thread = threading.Thread(target=cs.load_model, args=("net.py:Net",))
    thread.start()
    time.sleep(0.2)
    assert is_library(str(importlib.import_module("wave").__file__))
    thread.join()
    assert not Path("CANARY").exists()


def test_a_file_that_is_imported_by_a_computed_name_is_recorded(net: Path) -> None:
    Path("chosen.py").write_text("x = 1")
    net.write_text("import importlib\nimportlib.import_module('cho' + 'sen')\n" + NET)
    run = cs.train("shapes", "net.py:Net", epochs=1, out="own").path
    assert cs.load_model(run)
    sys.modules.pop("chosen", None)
    Path("chosen.py").write_text(ACT)
    with pytest.raises(TrustError, match=r"chosen\.py' has changed since you trusted it"):
        cs.load_model(run)
    assert not Path("CANARY").exists()


@pytest.mark.parametrize("caught", ["ImportError", "Exception"])
def test_a_new_file_is_not_imported_though_the_code_would_do_without(net: Path, caught: str) -> None:
    net.write_text(f"import importlib\ntry:\n    importlib.import_module('ex' + 'tra')\nexcept {caught}: pass\n" + NET)
    run = cs.train("shapes", "net.py:Net", epochs=1, out="own").path
    assert cs.load_model(run)
    Path("extra.py").write_text(ACT)
    with pytest.raises(TrustError, match=r"which imports '.*extra\.py', new or changed since you trusted it"):
        cs.load_model(run)
    with pytest.raises(ModelError, match=r"extra\.py' is new or has changed"):
        resume_further(run)
    assert not Path("CANARY").exists()
    assert cs.load_model(run, trust=True)
    assert Path("CANARY").exists()


def resume_further(run: Path) -> None:
    """Go on with a run as if it were unfinished."""
    for folder in run.glob("snapshots/[0-9]*"):
        shutil.rmtree(folder)
    cs.train(resume=True, out=run)


def test_a_file_beside_a_network_that_is_called_like_a_library_asks_again(net: Path) -> None:
    net.write_text("import wave\n" + NET)  # of the standard library
    run = cs.train("shapes", "net.py:Net", epochs=1, out="own").path
    sys.modules.pop("wave")
    Path("wave.py").write_text(ACT)
    with pytest.raises(TrustError, match=r"wave\.py"):
        cs.load_model(run)
    assert not Path("CANARY").exists()


def test_cached_bytecode_is_never_executed(own: Path) -> None:
    import importlib.util
    import py_compile

    Path("bad.py").write_text(f"CLASSES = 2\n{ACT}")
    cache = importlib.util.cache_from_source("deeper.py")
    py_compile.compile("bad.py", cache, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    forget()
    assert cs.load_model(own)
    assert not Path("CANARY").exists()


def test_a_copied_or_moved_folder_asks_again(own: Path) -> None:
    shutil.copytree(own, "copied")
    with pytest.raises(
        TrustError, match=r"^copied runs the code .*net\.py:Net', which you have not trusted; read the code"
    ):
        cs.load_model("copied")
    own.rename("moved")
    with pytest.raises(TrustError, match="which you have not trusted"):
        cs.load_model("moved")
    Path("moved").rename(own)
    Path("linked").symlink_to(own.resolve())
    assert cs.load_model("linked")


def test_code_that_is_named_needs_no_trust(convscope: Commands, own: Path) -> None:
    shutil.copytree(own, "copied")
    message = convscope("trace", "net.py:Net", IMAGE, "--weights", "copied/weights.safetensors")
    assert message.status == 0, message.err
    assert "conv1" in message.out
    assert cs.load_model("net.py:Net", weights="copied/weights.safetensors")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_trust_is_said_once_by_an_option_of_every_command(
    convscope: Commands, own: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convscope.cli import explorer

    monkeypatch.setattr(explorer, "stay", lambda explorer: explorer.close())
    shutil.copytree(own, "copied")
    if "--resume" in command:
        shutil.rmtree("copied/snapshots")
    words = [word.replace("RUN", "copied") for word in command]
    refused = convscope(*words)
    assert refused.status == 1
    assert "which you have not trusted; read the code, then trust this run once with --trust" in refused.err
    allowed = convscope(*words, "--trust")
    assert allowed.status == 0 or "found" in allowed.out or "softmax" in allowed.out, allowed
    assert "trust" not in allowed.err
    assert cs.load_model("copied")


@pytest.mark.parametrize(("answer", "json", "asked"), [("y", False, True), ("n", False, True), ("y", True, False)])
def test_a_terminal_asks_once(
    convscope: Commands, own: Path, monkeypatch: pytest.MonkeyPatch, *, answer: str, json: bool, asked: bool
) -> None:
    """A pseudo-terminal is driven below; here the answers."""
    shutil.copytree(own, "copied")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    questions = []

    def confirm(question: str, **options: Any) -> bool:
        questions.append((question, options))
        return answer == "y"

    monkeypatch.setattr(typer, "confirm", confirm)
    message = convscope("predict", "copied", IMAGE, *(["--json"] if json else []))
    assert len(questions) == asked
    assert message.status == (0 if answer == "y" and asked else 1)
    for name in ("net.py", "blocks.py", "deeper.py"):
        assert (repr(str(Path(name).resolve())) in message.err) == asked
    again = convscope("predict", "copied", IMAGE)
    assert again.status == message.status or not asked
    assert not asked or questions[0][1] == {"default": False, "err": True}


@pytest.mark.parametrize(("typed", "status"), [(b"y\n", 0), pytest.param(b"\n", 1, marks=pytest.mark.study)])
def test_a_real_terminal_is_asked(own: Path, typed: bytes, status: int) -> None:
    import pty

    shutil.copytree(own, "copied")
    main, end = pty.openpty()
    command = [sys.executable, "-P", "-m", "convscope", "predict", "copied", IMAGE]
    process = subprocess.Popen(command, stdin=end, stderr=end, stdout=subprocess.PIPE)
    os.close(end)
    os.write(main, typed)
    out, _ = process.communicate(timeout=120)
    shown = os.read(main, 100_000).decode()
    os.close(main)
    assert process.returncode == status, shown
    assert "This code can do anything you can do. Trust it and run it? [y/N]" in shown
    assert ("square" in out.decode()) == (status == 0)


def test_a_resumed_training_trusts_what_the_first_did(convscope: Commands, net: Path) -> None:
    stop = iter([False] * 3)

    def watch(event: Mapping[str, Any]) -> None:
        if event["event"] == "progress" and next(stop, True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.train("shapes", "net.py:Net", epochs=2, out="own", watch=watch, snapshot_seconds=0)
    shutil.copytree("own", "copied")
    with pytest.raises(TrustError, match=r"copied runs the code '.*net\.py:Net'"):
        cs.train(resume=True, out="copied")
    assert cs.train(resume=True, out="copied", trust=True).finished
    assert cs.train(resume=True, out="own").finished
    assert cs.load_model("own")
    assert cs.load_model("copied")


@pytest.mark.parametrize("source", ["net.py:Net", "HERE/net.py:Net"])
def test_a_relative_source_means_the_file_that_was_trusted(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    names(own, source.replace("HERE", str(Path.cwd())), {})
    run = own.resolve()
    assert cs.load_model(run, trust=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("net.py", "blocks.py", "deeper.py"):
        shutil.copy(name, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    if source == "net.py:Net":
        Path("net.py").write_text(NET + f"\n{ACT}")
        with pytest.raises(TrustError, match=r"elsewhere/net\.py', new or changed"):
            cs.load_model(run)
    else:
        assert cs.load_model(run)
    assert not Path("CANARY").exists()


def test_what_cannot_be_built_is_said_before_anybody_is_asked(evil: Path) -> None:
    names(evil, "meta.py:Nett", {})
    with pytest.raises(
        RunError, match=r"cannot be built here: no network in meta\.py is called 'Nett'; did you mean 'N"
    ):
        cs.load_model(evil)
    names(evil, "gone.py:Net", {})
    with pytest.raises(RunError, match=r"trained on gone\.py:Net, which cannot be built here: there is no file gone"):
        cs.load_model(evil)


def test_the_security_page_names_tests_that_exist() -> None:
    folder = Path(__file__).parents[1]
    page = (folder.parent / "docs" / "explanation" / "security.md").read_text()
    tests = "".join(file.read_text() for file in folder.rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 40
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_imports_are_left_as_they_were(own: Path) -> None:
    path = list(sys.path)
    cs.load_model(own)
    assert sys.path == path
