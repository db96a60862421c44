"""Trust: of what a run folder names, nothing but built-in networks is executed before the user has said so."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import convscope as cs
from asking import opened
from commands import Commands
from convscope.errors import ModelError, RunError, TrustError
from convscope.models import trust as records
from convscope.models.checked_imports import is_library
from convscope.server.session.workspace import Workspace

IMAGE = "shapes:test/3"
NET = """
import blocks
from torch import nn

class Net(nn.Module):
    def __init__(self, kernels: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, kernels, 3, stride=3)
        self.fc = nn.Linear(kernels * 81, blocks.CLASSES)

    def forward(self, x):
        return self.fc(self.conv1(x).flatten(1))
"""
BLOCKS = "import deeper\nCLASSES = deeper.CLASSES"
DEEPER = "CLASSES = 2"

COMMANDS: Mapping[str, list[str]] = {
    "predict": ["predict", "RUN", IMAGE],
    "evaluate": ["evaluate", "RUN"],
    "trace": ["trace", "RUN", IMAGE],
    "explain": ["explain", "RUN", IMAGE, "--at", "conv1:0,0,0"],
    "verify": ["verify", "RUN", IMAGE],
    "summary": ["summary", "RUN"],
    "report": ["report", "RUN", IMAGE],
    "workbook": ["workbook", "RUN", IMAGE, "-o", "net.xlsx"],
    "open": ["open", "RUN", "--no-browser", "--port", "0"],
    "plot kernels": ["plot", "kernels", "RUN"],
    "plot maps": ["plot", "maps", "RUN", IMAGE],
    "plot network": ["plot", "network", "RUN", IMAGE],
    "plot number": ["plot", "number", "RUN", IMAGE, "--at", "conv1:0,0,0"],
    "plot confusion": ["plot", "confusion", "RUN"],
    "probe lint": ["probe", "lint", "RUN"],
    "probe gradients": ["probe", "gradients", "RUN"],
    "probe dead": ["probe", "dead", "RUN"],
    "probe patches": ["probe", "patches", "RUN"],
    "probe compare": ["probe", "compare", "RUN", "RUN"],
    "probe shift": ["probe", "shift", "shapes", "RUN"],
    "probe receptive-field": ["probe", "receptive-field", "RUN"],
    "probe attribution": ["probe", "attribution", "RUN", IMAGE],
    "train --resume": ["train", "--resume", "--out", "RUN"],
}
"""Every command that loads the network of a run; its options are those of `test_no_command_is_forgotten`."""

ACT = "__import__('pathlib').Path('CANARY').touch()"
"""What harmful code does."""
TOUCH = f"{ACT}\n"
HARMFUL: Mapping[str, str] = {
    "deploy.py": f"def publish(**_):\n    {ACT}\n",
    "module_here.py": TOUCH + "from torch import nn\nclass Net(nn.Module): pass",
    "package_here/__init__.py": TOUCH,
    "package_here/net.py": "from torch import nn\nclass Net(nn.Module): pass",
    "meta.py": (
        f"from torch import nn\nclass Meta(type(nn.Module)):\n    def __init__(cls, *a): {ACT}\n"
        "class Net(nn.Module, metaclass=Meta): pass"
    ),
    "annotated.py": f"from torch import nn\ndef net(**_) -> nn.Module:\n    {ACT}\n    return nn.Linear(1, 1)",
    "hubconf.py": TOUCH + "def net(): pass",
    "evil/own.py": TOUCH + "from torch import nn\nclass Net(nn.Module): pass",
    "evil/__init__.py": TOUCH,
    "evil/site-packages/hidden.py": TOUCH + "from torch import nn\nclass Net(nn.Module): pass",
}
"""Files that leave a canary when they are imported or called."""

COMMAND = {"command": "touch CANARY"}
SOURCES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "load_model": ("convscope:load_model", {"spec": "os:system", "args": COMMAND}),
    "load_model of a file": ("convscope:load_model", {"spec": "evil/own.py:Net"}),
    "load_model that trusts": ("convscope.models.loading:load_model", {"spec": "evil", "trust": True}),
    "build": ("convscope.models.user_code:find", {"spec": "evil/own.py:Net"}),
    "an exec of torch": (
        "torch.fx.graph_module:reduce_graph_module",
        {
            "body": {"_code": "\ndef forward(self, x):\n    return x\n"},
            "import_block": f"{ACT}\n",
        },
    ),
    "a hub of files": ("torch.hub:load", {"repo_or_dir": ".", "model": "net", "source": "local"}),
    "a function of Python": ("os:system", COMMAND),
    "a chain": ("convscope.server.trainings.training:subprocess.os.system", COMMAND),
    "a global of a method": ("torch.nn:Module.__init__.__globals__", {}),
    "an installed class": ("torch.nn:Linear", {"in_features": 4, "out_features": 2}),
    "a module that acts": ("antigravity:x", {}),
    "a main": ("unittest.__main__:main", {}),
    "a function of a file": ("deploy.py:publish", {"target": "chosen by the run"}),
    "an annotated function": ("annotated.py:net", {}),
    "a metaclass": ("meta.py:Net", {}),
    "a module": ("module_here:Net", {}),
    "a package": ("package_here.net:Net", {}),
    "a file of the run": ("evil/own.py:Net", {}),
    "a package that is the run": ("evil.own:Net", {}),
    "a path with ..": ("package_here/../evil/own.py:Net", {}),
    "an absolute path": ("HERE/evil/own.py:Net", {}),
    "a file that is called installed": ("evil/site-packages/hidden.py:Net", {}),
    "a link": ("link.py:Net", {}),
    "an address": ("file://HERE/evil/own.py:Net", {}),
    "a missing class": ("evil/own.py:Other", {}),
    "a missing file": ("nothing.py:Net", {}),
    "no place": (":Net", {}),
    "no name": ("deploy.py:", {}),
    "dots": ("...:x", {}),
    "empty": ("", {}),
    "a zero character": ("evil\0.py:Net", {}),
    "nobody's home": ("~nobody_of_this_name/net.py:Net", {}),
    "a long name": ("a" * 5000 + ".py:Net", {}),
    "a list": (["os:system"], {}),
    "a number": (3, {}),
    "an object": ({"source": "os:system"}, {}),
    "arguments that are pairs": ("os:system", [["command", "touch CANARY"]]),  # type: ignore[dict-item]
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, and a working folder."""
    monkeypatch.setenv(records.STATE, str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "state"


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a built-in network."""
    return cs.train("shapes", seed=1, epochs=1, out=tmp_path_factory.mktemp("built-in") / "run").path


@pytest.fixture
def net() -> Path:
    """A network of the user's in three files."""
    for name, text in {"net.py": NET, "blocks.py": BLOCKS, "deeper.py": DEEPER}.items():
        Path(name).write_text(text)
    return Path("net.py").resolve()


@pytest.fixture
def own(net: Path) -> Path:
    """A run of it that was trained here."""
    return cs.train("shapes", f"{net.name}:Net", epochs=1, out="own").path


def names(run: Path, source: Any, args: Any) -> None:
    """Let a run name another network."""
    config = json.loads((run / "config.json").read_text())
    config.pop("sha256", None)  # as an attacker would
    config["model"] |= {"source": source, "args": args}
    (run / "config.json").write_text(json.dumps(config))


@pytest.fixture
def evil(built_in: Path) -> Path:
    """A run folder from elsewhere beside files that must not be executed."""
    here = Path.cwd()
    shutil.copytree(built_in, "evil")
    for name, text in HARMFUL.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text.replace("CANARY", str(here / "CANARY")))
    Path("link.py").symlink_to(here / "evil" / "own.py")
    return Path("evil")


ACTING = ("a function of Python", "an exec of torch", "a package", "a file of the run")
"""Of the sources above those whose code acts most easily: by a call, from text, by an import, by a path."""
EVERYTHING = ("evaluate", "train --resume")
"""Commands that are tried on all sources in every run; all others are in the long run."""


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_executes_what_a_run_folder_names(convscope: Commands, evil: Path, name: str) -> None:
    assert_nothing_is_executed(convscope, evil, COMMANDS[name], SOURCES if name in EVERYTHING else ACTING)


@pytest.mark.study
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in EVERYTHING])
def test_no_command_executes_anything_that_a_run_folder_can_name(convscope: Commands, evil: Path, name: str) -> None:
    assert_nothing_is_executed(convscope, evil, COMMANDS[name], SOURCES)


def assert_nothing_is_executed(convscope: Commands, evil: Path, command: list[str], kinds: Iterable[str]) -> None:
    canary, here = Path("CANARY").resolve(), str(Path.cwd())
    before = set(sys.modules)
    for kind in kinds:
        source, args = SOURCES[kind]
        named = source.replace("HERE", here) if isinstance(source, str) else source
        names(evil, named, json.loads(json.dumps(args).replace("CANARY", str(canary))))
        message = convscope(*[word.replace("RUN", "evil") for word in command])
        assert message.status == 1, (kind, message)
        assert "error: " in message.err, (kind, message.err)
        assert "Traceback" not in message.err, (kind, message.err)
        assert not canary.exists(), kind
    added = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not added & {"antigravity", "deploy", "annotated", "module_here", "package_here", "evil"}
    assert "unittest.__main__" not in sys.modules
    assert not [name for name in added if name.startswith("convscope_user_")]


def test_no_command_is_forgotten() -> None:
    """Whatever has --trust is in the table above, and whatever takes --weights or a run has --trust."""
    from convscope.cli.reference import page

    pages = page().split("\n## convscope ")[1:]
    with_trust = {text.partition("\n")[0] for text in pages if "`--trust`" in text}
    assert with_trust == {name.replace("train --resume", "train") for name in COMMANDS}
    assert {text.partition("\n")[0] for text in pages if "--weights" in text} <= with_trust


@pytest.mark.parametrize("kind", SOURCES)
def test_python_executes_nothing_that_a_run_folder_names(evil: Path, kind: str) -> None:
    source, args = SOURCES[kind]
    names(evil, source.replace("HERE", str(Path.cwd())) if isinstance(source, str) else source, args)
    ways: list[Callable[[], Any]] = [
        lambda: cs.load_model("evil"),
        lambda: cs.load_model(Path("evil"), weights=evil / "weights.safetensors"),
        lambda: cs.load_run("evil").model,
        lambda: cs.evaluate("evil"),
        lambda: cs.predict("evil", IMAGE),
        lambda: cs.train(resume=True, out="evil"),
        lambda: cs.open("evil", port=0, browser=False),
        lambda: cs.trace(cs.load_run("evil"), IMAGE, target=0),
        lambda: cs.plot.kernels("evil"),
        lambda: cs.plot.confusion(Path("evil")),
        lambda: cs.probe.lint("evil"),
        lambda: cs.probe.shift(["evil"], cs.load_dataset("shapes", split="test")),
    ]
    for way in ways:
        with pytest.raises(RunError):
            way()
    assert not Path("CANARY").exists()


def test_the_page_executes_nothing_that_a_run_folder_names(built_in: Path, evil: Path) -> None:
    here = Path.cwd()
    for number, (source, args) in enumerate(SOURCES.values()):
        run = here / "runs" / f"evil{number}"
        shutil.copytree(built_in, run)
        names(run, source, json.loads(json.dumps(args).replace("CANARY", str(here / "CANARY"))))
    image = {"kind": "sample", "source": "shapes", "split": "test", "index": 0}
    with opened(Workspace.of_folder(here / "runs")) as page:
        models = {model["id"] for model in page.get("session")["models"]}
        answers = {name: str(page.trace(image, 400, model=name)) for name in models}
    assert len(models) >= len(SOURCES) - 5  # a source that is a list, or arguments without names, are damage
    assert "which you have not trusted" in answers["evil0"]
    assert f"convscope open {here / 'runs' / 'evil0'} --trust" in answers["evil0"]
    assert not Path("CANARY").exists()


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


def instead(path: Path, make: Callable[[Path], None]) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    make(path)


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
    with pytest.raises(TrustError, match=r"^copied runs the code .*net\.py:Net', which you have not trusted; read it"):
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
    assert "which you have not trusted; read it, then trust this run once with --trust" in refused.err
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


def test_a_module_of_the_working_folder_never_stands_in_for_an_installed_one(evil: Path) -> None:
    Path("captum").mkdir()
    Path("captum/__init__.py").write_text(ACT)
    Path("wave.py").write_text(ACT)
    with pytest.raises(cs.UsageError, match=r"both .*wave\.py and .*wave\.py are the module wave; name the second"):
        cs.load_model("wave:Net")
    cs.load_model("torch.nn:Linear", args={"in_features": 1, "out_features": 1})
    assert not Path("CANARY").exists()


@pytest.mark.parametrize("how", [["-m", "convscope"], ["-c", "from convscope.cli import main; main()"]])
def test_the_command_imports_nothing_from_the_working_folder(how: list[str]) -> None:
    if how[0] == "-c":
        how = ["-P", *how]  # as the installed command, whose folder is bin
    for name in ("torch", "numpy", "PIL", "typer", "safetensors", "rich", "json", "platformdirs", "click"):
        Path(f"{name}.py").write_text(ACT)
    command = [sys.executable, *how, "trace", "crosses", "crosses:plus"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "conv1" in result.stdout
    assert not Path("CANARY").exists()


def test_a_message_shows_a_run_s_words_as_words(evil: Path) -> None:
    names(evil, "x\x1b[2J\u202e\n.py:N", {"a\nerror: b": "\x1b]52;c;QQ==\x07", "c": "d" * 5000})
    Path("x\x1b[2J\u202e\n.py").write_text("class N: pass")
    with pytest.raises(TrustError) as caught:
        cs.load_model(evil)
    assert str(caught.value).isprintable()
    assert "letters more in its config.json" in str(caught.value)


def test_what_cannot_be_built_is_said_before_anybody_is_asked(evil: Path) -> None:
    names(evil, "meta.py:Nett", {})
    with pytest.raises(
        RunError, match=r"cannot be built here: no network in meta\.py is called 'Nett'; did you mean 'N"
    ):
        cs.load_model(evil)
    names(evil, "gone.py:Net", {})
    with pytest.raises(RunError, match=r"trained on gone\.py:Net, which cannot be built here: there is no file gone"):
        cs.load_model(evil)


@pytest.mark.parametrize(
    "args",
    [
        {"kernels": [10**6, 10**6]},
        {"kernels": [300, 40_000]},
        {"size": 10**9},
        {"classes": 10**10},
        {"kernels": 10**30},
        {"kernels": "many"},
        {"kernels": {"a": 1}},
        {"kernel": 1},
        {"size": -1},
        {"softmax": "x"},
        {"classes": 2.5},
    ],
    ids=str,
)
def test_arguments_of_a_built_in_network_take_no_memory_and_run_nothing(evil: Path, args: dict[str, Any]) -> None:
    import resource

    names(evil, "shapes-cnn", args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(cs.ConvscopeError):
        cs.load_model(evil)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_data_set_that_a_run_names_is_not_fetched_when_it_is_listed(evil: Path) -> None:
    config = json.loads((evil / "config.json").read_text())
    config.pop("sha256", None)
    config["dataset"]["source"] = "hub:owner/name"
    (evil / "config.json").write_text(json.dumps(config))
    assert not cs.at_hand("hub:owner/name")
    with opened(Workspace.of_folder(evil)) as page:
        assert [model["source"] for model in page.get("session")["models"]] == [None]


def test_a_script_in_a_folder_of_data_is_not_executed(evil: Path) -> None:
    pytest.importorskip("datasets", reason="hub: data need Hugging Face datasets")
    Path("data_here").mkdir()
    Path("data_here/data_here.py").write_text(ACT)
    with pytest.raises(cs.ConvscopeError):
        cs.load_dataset("hub:data_here")
    assert not Path("CANARY").exists()


def test_what_is_installed_is_told_by_where_it_is_not_by_its_name() -> None:
    assert is_library(np.__file__)
    assert is_library(torch.__file__)
    assert is_library(json.__file__)
    assert is_library(cs.__file__)
    assert not is_library("evil/site-packages/net.py")
    assert not is_library(Path(np.__file__).parent / ".." / ".." / ".." / ".." / ".." / "net.py")
    assert not is_library(f"{sys.prefix}-of-others/lib/net.py")


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


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    """The networks' modules have the same names in every test."""
    yield
    forget()


def forget() -> None:
    for name in ("blocks", "deeper", "chosen", "extra", "later"):
        sys.modules.pop(name, None)
