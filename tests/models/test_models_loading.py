"""Models: loading any network from code, weights and run folders, and its arguments."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import convscope as cs
from convscope.cards.card import Card
from convscope.cards.card_inference import card_of
from convscope.errors import ModelError, RunError, UnknownName, UsageError
from convscope.models.catalog import MODELS
from convscope.models.loading import load_model
from convscope.models.network_arguments import parse_model_args
from convscope.preprocess import Preprocess

NET = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Settings:
    kernels: int = 2

class Net(nn.Module):
    def __init__(self, kernels: int = 2, classes: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(1, Settings(kernels).kernels, 3)
        self.fc = nn.Linear(kernels * 4, classes)

    def forward(self, x):
        return self.fc(self.conv1(x).flatten(1))

def small(**options):
    return Net(kernels=1, **options)

ready = Net(kernels=4)
number = 7

def nothing():
    return {"weights": 1}

def fails(size):
    return Net(kernels=-size)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True),
        st.one_of(
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.none(),
            st.text(),
            st.lists(st.integers()),
            st.tuples(st.integers(), st.text()),
        ),
        max_size=4,
    )
)
def test_model_arguments_are_read_as_python_writes_them(values: dict[str, Any]) -> None:
    assert parse_model_args([f"{name}={value!r}" for name, value in values.items()]) == values


@given(
    st.from_regex(r"[A-Za-z/.\-][A-Za-z/.\- =]{0,9}", fullmatch=True).filter(
        lambda t: t.strip().lower() not in {"true", "false", "none", "null"}
    )
)
def test_other_text_stays_text(text: str) -> None:
    parsed = parse_model_args([f"name={text}"])["name"]
    assert parsed == text or parsed is Ellipsis


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("none", None), ("null", None)])
def test_the_words_of_other_languages_for_true_false_and_none_are_understood(text: str, value: object) -> None:
    assert parse_model_args([f"bias={text}"]) == {"bias": value}


def test_a_hint_narrower_than_the_code_refuses_nothing_that_works(tmp_path: Path) -> None:
    """Only text is refused before it is tried; `None`, fractions and lists go to the network itself."""
    code = "from torch import nn\ndef net(p: int = 0, kernel: tuple[int, int] = (3, 3), pad: int = None):\n"
    (tmp_path / "loose.py").write_text(code + "    return nn.Sequential(nn.Dropout(p), nn.Conv2d(1, 1, kernel))\n")
    model = load_model(f"{tmp_path / 'loose.py'}:net", args={"p": 0.5, "kernel": [3, 5], "pad": None})
    assert model.get_parameter("1.weight").shape == (1, 1, 3, 5)


@pytest.mark.parametrize("argument", ["kernels", "=3", "two words=3", ""])
def test_an_argument_without_name_and_value_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="written name=value, such as kernels=4, not "):
        parse_model_args([argument])


@pytest.mark.parametrize(
    ("name", "args", "kind", "conv"),
    [("Net", {"kernels": 5}, "Net", 5), ("small", {"classes": 2}, "Net", 1), ("ready", {}, "Net", 4)],
)
def test_a_network_from_a_file(net: Path, name: str, args: dict[str, Any], kind: str, conv: int) -> None:
    before = set(sys.modules), list(sys.path)
    model = load_model(f"{net}:{name}", args=args)
    assert type(model).__name__ == kind
    assert model.get_parameter("conv1.weight").shape == (conv, 1, 3, 3)
    assert not model.training
    card = card_of(model)
    assert card.source == f"{net}:{name}"
    assert card.preprocess == Preprocess(size=(4, 4), channels=1), "conv1 makes 2x2 of it, and fc takes four of each"
    added = {module for module in set(sys.modules) - before[0] if "net" in module}
    assert all(module.startswith("convscope_user_net_") for module in added)
    assert sys.path == before[1]


def test_a_card_can_be_given(net: Path) -> None:
    model = load_model(f"{net}:Net", preprocess={"size": (4, 4), "std": (0.5,)}, classes=["a", "b", "c"])
    assert card_of(model).preprocess == Preprocess(size=(4, 4), channels=1, std=(0.5,))
    assert card_of(model).classes == ("a", "b", "c")
    whole = Preprocess(size=(9, 9))
    assert card_of(load_model(model, preprocess=whole)).preprocess == whole
    assert card_of(load_model("simple-cnn", preprocess={"std": (0.5,)})).fixed_size
    assert not card_of(load_model("simple-cnn", preprocess={"size": None})).fixed_size
    with pytest.raises(UnknownName, match="no field of Preprocess is called 'sise'; did you mean 'size'"):
        load_model("crosses", preprocess={"sise": 3})


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ({"sise": 3}, "no field of Preprocess is called 'sise'; did you mean 'size'"),
        (
            {"fit": "croop"},
            "fit of Preprocess must be 'stretch' or 'crop' or 'pad' or 'mnist', such as its default 'stretch'",
        ),
        ({"channels": "three"}, "channels of Preprocess must be an integer or None, .* not 'three'"),
        ({"mean": 0.5}, "mean of Preprocess must be several values, each a number, such as its default"),
        ({"std": (0.0,)}, "scale and std must be positive"),
    ],
)
def test_what_a_model_cannot_expect_of_a_picture_is_refused(preprocess: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model("stripes", preprocess=preprocess)


def test_a_module_is_given_a_card_and_eval_mode() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout())
    assert load_model(module) is module
    assert not module.training
    assert card_of(module) == Card("Sequential", Preprocess(channels=3))
    with pytest.raises(UsageError, match="Sequential is a module that is already built; it takes no arguments"):
        load_model(module, args={"size": 3})


def test_files_import_their_neighbours_and_leave_others_theirs(tmp_path: Path) -> None:
    for folder, kernels in {"one": 3, "two": 5}.items():
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "blocks_here.py").write_text(f"KERNELS = {kernels}")
        (tmp_path / folder / "parts" / "__init__.py").write_text("from blocks_here import KERNELS")
        (tmp_path / folder / "net.py").write_text(
            "import blocks_here\nfrom torch import nn\ndef make():\n    import parts\n"
            "    return nn.Conv2d(1, parts.KERNELS, blocks_here.KERNELS)"
        )
    try:
        load_model(f"{tmp_path / 'one' / 'net.py'}:make")
        first = sys.modules["blocks_here"]
        for folder, kernels in (("two", 5), ("one", 3)):
            model = load_model(f"{tmp_path / folder / 'net.py'}:make")
            assert model.get_parameter("weight").shape == (kernels, 1, kernels, kernels)
            assert sys.modules["blocks_here"] is first
    finally:
        for name in ("blocks_here", "parts"):
            sys.modules.pop(name, None)


def test_a_file_never_hides_a_library(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('a file of the user, not NumPy')")
    (tmp_path / "net.py").write_text("import numpy\nfrom torch import nn\nmake = lambda: nn.Conv2d(1, 2, 3)")
    load_model(f"{tmp_path / 'net.py'}:make")
    assert sys.modules["numpy"] is np


def test_a_network_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here" / "nets.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    assert parameters(load_model("package_here.nets:Net", args={"kernels": 1})) == 10 + 15
    assert parameters(load_model("torch.nn:Linear", args={"in_features": 4, "out_features": 2})) == 10
    sys.modules.pop("package_here.nets")
    sys.modules.pop("package_here")


BROKEN: Mapping[str, tuple[str, str]] = {
    "raises": ("import torch\nx = 1 / 0", r"bad\.py fails: ZeroDivisionError: division by zero \(.*bad\.py, line 2\)"),
    "no Python": ("def broken(:\n    pass", r"is not valid Python: .* \(.*bad\.py, line 1\)"),
    "missing import": ("import nothing_of_this_name", r"ModuleNotFoundError: No module named .* \(.*bad\.py, line 1\)"),
    "exits": ("raise SystemExit('bye')", r"SystemExit: bye \(.*bad\.py, line 1\)"),
}


@pytest.mark.parametrize(("code", "message"), BROKEN.values(), ids=BROKEN)
def test_code_that_fails_is_one_sentence_with_file_and_line(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    before = set(sys.modules)
    with pytest.raises(ModelError, match=message):
        load_model(f"{tmp_path / 'bad.py'}:Net")
    assert not any("bad" in module for module in set(sys.modules) - before)


def test_a_file_with_relative_imports_is_named_as_part_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "relative_package"
    package.mkdir()
    (package / "parts.py").write_text("from torch import nn\n\n\nclass Part(nn.Linear):\n    pass\n")
    (package / "nets.py").write_text("from .parts import Part\n\n\ndef net():\n    return Part(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"; name the network as relative_package\.nets:NAME, or import"):
        load_model("relative_package/nets.py:net")
    assert parameters(load_model("relative_package.nets:net")) == 6
    monkeypatch.chdir(package)
    with pytest.raises(ModelError, match=r"in the folder above, name the network as relative_package\.nets:NAME"):
        load_model("nets.py:net")
    for name in [name for name in sys.modules if name.startswith("relative_package")]:
        sys.modules.pop(name)


REFUSED: Mapping[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "a misspelt name": ("shape-cnn", {}, UnknownName, "no model is called 'shape-cnn'; did you mean 'shapes-cnn'"),
    "a misspelt argument": ("simple-cnn", {"kernel": 3}, UnknownName, "did you mean 'kernels'"),
    "an argument of none": ("stripes", {"kernels": 3}, UnknownName, "no argument of stripes is called .* takes none"),
    "text for a number": (
        "simple-cnn",
        {"kernels": "many"},
        UsageError,
        "kernels of simple-cnn must be an integer, such as its default 8, not 'many'",
    ),
    "a fraction of a kernel": ("simple-cnn", {"kernels": 4.5}, UsageError, r"an integer, .* not 4\.5"),
    "one number for two": (
        "shapes-cnn",
        {"kernels": 8},
        UsageError,
        r"kernels of shapes-cnn must be 2 values, each an integer, such as its default \(8, 16\), not 8\. "
        "shapes-cnn with kernels=8 fails: TypeError",
    ),
    "text that would pass for true": (
        "shapes-cnn",
        {"softmax": "perhaps"},
        UsageError,
        "softmax of shapes-cnn must be True or False, such as its default False, not 'perhaps'",
    ),
    "no kernels": ("simple-cnn", {"kernels": 0}, UsageError, "kernels of simple-cnn must be at least 1, not 0"),
    "text where hints are strings": (
        "FILE:Net",
        {"classes": "x"},
        UsageError,
        "classes of .*Net must be an integer",
    ),
    "a number that fails": (
        "FILE:Net",
        {"kernels": -2},
        ModelError,
        r"Net with kernels=-2 fails: RuntimeError: .*net\.py",
    ),
    "no such file": ("FOLDER/nets.py:Net", {}, UsageError, r"there is no file .*nets\.py; check the path"),
    "no such class": ("FILE:Nett", {}, UnknownName, "no network in .*net.py is called 'Nett'; did you mean 'Net'"),
    "no such module": ("nothing.here:Net", {}, UsageError, "no module 'nothing.here'; .* file: nothing/here.py:NAME"),
    "a file alone": ("FILE", {}, UsageError, r"is a file; name the network in it: .*net\.py:Net\."),
    "a number": ("FILE:number", {}, ModelError, "is of type int, neither an nn.Module nor something that makes one"),
    "makes something else": ("FILE:nothing", {}, ModelError, "makes a dict, not an nn.Module"),
    "needs an argument": ("FILE:fails", {}, UsageError, r"needs size; .*--model-arg size=VALUE"),
    "fails while it is built": ("FILE:fails", {"size": 2}, ModelError, r"RuntimeError: .*\(.*net\.py, line 13\)"),
    "made already": ("FILE:ready", {"kernels": 2}, UsageError, "already built; it takes no arguments"),
    "weights alone": ("FOLDER/w.pt", {}, UsageError, "weights do not say the network; name it, and give weights="),
    "a folder": ("FOLDER", {}, RunError, "is not a run folder: it has no config.json"),
    "a colon and nothing": ("FILE:", {}, UsageError, "names no network; write file.py:Class"),
}


@pytest.mark.parametrize(("spec", "args", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_loaded_gets_a_sentence(
    net: Path, spec: str, args: dict[str, Any], error: type[Exception], message: str
) -> None:
    (net.parent / "w.pt").touch()
    with pytest.raises(error, match=message):
        load_model(spec.replace("FOLDER", str(net.parent)).replace("FILE", str(net)), args=args)


def write_run(folder: Path, source: str | None, args: Mapping[str, Any], model: nn.Module, **card: Any) -> Path:
    folder.mkdir(exist_ok=True)
    message = Card("net", Preprocess((6, 6), 1, background="dark"), ("a", "b", "c"), **card).to_json()
    config = {"model": {"name": "net", "source": source, "args": dict(args)}, "card": message}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize("source", ["simple-cnn", "FILE:Net", "FILE:small"])
def test_a_run_folder_gives_the_trained_model_and_its_card(net: Path, tmp_path: Path, source: str) -> None:
    source = source.replace("FILE", str(net))
    args = {"classes": 3} | ({"size": 6} if source in MODELS else {})
    trained = load_model(source, args=args, seed=5)
    run = write_run(tmp_path / "run", source, args, trained)
    loaded = load_model(run, trust=True)
    image = torch.rand(1, 1, 6 if source in MODELS else 4, 6 if source in MODELS else 4)
    assert torch.equal(loaded(image), trained(image))
    card = card_of(loaded)
    assert card.classes == ("a", "b", "c")
    assert card.preprocess == Preprocess((6, 6), 1, background="dark")
    assert card.source == str(run)
    assert card.fixed_size == (source in MODELS)
    other = load_model(source, args=args, seed=6)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    assert torch.equal(load_model(run, weights=tmp_path / "other.safetensors")(image), other(image))
    with pytest.raises(UsageError, match="leave args out"):
        load_model(run, args={"classes": 3})


def test_a_run_of_a_module_by_hand_says_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None, {}, nn.Linear(4, 2))
    with pytest.raises(RunError, match=r"build it yourself and load its weights into it: load_model\(module, weights="):
        load_model(run)
    assert isinstance(load_model(nn.Linear(4, 2), weights=run / "weights.safetensors"), nn.Linear)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model": {}}', '{"model": {"source": "crosses", "args": {}}, "card": {"name": 3}}']
)
def test_a_damaged_run_is_named(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path / "run", "crosses", {}, load_model("crosses"))
    (run / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json is damaged, or not written by a training of convscope"):
        load_model(run)


def test_a_run_without_weights_or_code_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "gone.py:Net", {}, nn.Linear(4, 2))
    with pytest.raises(RunError, match=r"trained on gone\.py:Net, which cannot be built here: there is no file gone"):
        load_model(run)
    (run / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no weights\.safetensors: its training has not saved any weights yet"):
        load_model(run)


def test_a_run_that_is_called_like_a_built_in_network_is_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = cs.train("crosses", epochs=1, out="crosses")
    trained = run.model.get_parameter("conv1.weight")
    again = cs.load_run("crosses").model.get_parameter("conv1.weight")
    assert torch.equal(again, trained)
    for named in (Path("crosses"), "crosses"):
        assert torch.equal(cs.load_model(named).get_parameter("conv1.weight"), trained)
    (note,) = card_of(cs.load_model("crosses")).notes
    assert note == f"crosses is the run in {tmp_path / 'crosses'}, not the built-in network of that name."
    assert torch.equal(cs.load_model(card_of(cs.load_model("crosses")).source).get_parameter("conv1.weight"), trained)
    assert not torch.equal(cs.load_model("crosses", args={}).get_parameter("conv1.weight"), trained)
    second = cs.train("crosses", "crosses", epochs=1, out="second")
    assert second.config["model"]["source"] == "crosses"
    Path("shapes-cnn").mkdir()
    assert card_of(cs.load_model("shapes-cnn")).notes == ()


def test_an_exported_program_is_traced_and_its_file_says_how(tmp_path: Path) -> None:
    image = torch.ones(1, 1, 4, 4)
    program = torch.export.export(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), (image,))
    anything: Any = program
    trace = cs.trace(anything, image)
    assert cs.verify(trace).proved
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(cs.UsageError, match=r"net.pt2 is an exported program, .* cs.trace\(torch.export.load"):
        cs.load_model(tmp_path / "net.pt2")
