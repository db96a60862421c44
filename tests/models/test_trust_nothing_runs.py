"""Of what a run folder names, nothing but built-in networks is executed before the user has said so."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import convscope as cs
from asking import opened
from commands import Commands
from convscope.errors import RunError, TrustError
from convscope.models.checked_imports import is_library
from convscope.server.session.workspace import Workspace
from untrusted_runs import ACT, COMMANDS, IMAGE, SOURCES, forget, names, own_state, run_from_elsewhere, write_net


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
def evil(built_in: Path) -> Path:
    return run_from_elsewhere(built_in)


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


def test_a_file_that_torch_generated_in_its_temporary_folder_is_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older releases import such a file with torch.distributed.nn, so that runs made here would not be trusted."""
    generated = ModuleType("torch.distributed.nn.jit.instantiator")
    assert not is_library(tmp_path / "_remote_module_non_scriptable.py")
    monkeypatch.setattr(generated, "INSTANTIATED_TEMPLATE_DIR_PATH", str(tmp_path), raising=False)
    monkeypatch.setitem(sys.modules, generated.__name__, generated)
    assert is_library(tmp_path / "_remote_module_non_scriptable.py")
    assert not is_library(tmp_path / "below" / "net.py")
    assert not is_library(tmp_path.parent / "net.py")
