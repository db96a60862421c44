"""Checkpoints as training scripts write them: read without running anything, found by what matches, said or asked."""

import argparse
import collections
import datetime as dt
import decimal
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from convscope.cards.card_inference import card_of
from convscope.errors import UnknownName, UsageError, WeightsError
from convscope.models.loading import load_model
from convscope.models.weights import load_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def weights(number: float = 7) -> dict[str, Tensor]:
    """A state dict filled with a number that no fresh network has."""
    return {name: torch.full_like(tensor, number) for name, tensor in network().state_dict().items()}


def under(prefix: str, number: float = 7) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights(number).items()}


def number_in(model: nn.Module) -> float:
    """The number that all tensors of a model are filled with."""
    values = {float(value) for tensor in model.state_dict().values() for value in tensor.flatten()}
    assert len(values) == 1, values
    return values.pop()


def loaded(path: Path, key: str | None = None) -> tuple[float, tuple[str, ...]]:
    model = network()
    notes = load_weights(model, path, key)
    return number_in(model), notes


BESIDE: Mapping[str, Callable[[], Any]] = {
    "a NumPy scalar": lambda: np.float64(0.9),
    "a NumPy integer": lambda: np.int64(3),
    "a NumPy array": lambda: np.arange(3.0),
    "a NumPy type": lambda: np.dtype("float32"),
    "the random state of NumPy": np.random.get_state,
    "arguments": lambda: argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b"), nested=argparse.Namespace()),
    "a plain namespace": lambda: types.SimpleNamespace(lr=0.1),
    "a defaultdict of lists": lambda: collections.defaultdict(list, loss=[1.0, 2.0]),
    "a defaultdict of numbers": lambda: collections.defaultdict(float, loss=0.5),
    "a Counter": lambda: collections.Counter("abca"),
    "a deque": lambda: collections.deque([1.0, 2.0], maxlen=5),
    "a date": lambda: dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
    "a path": lambda: pathlib.PurePosixPath("runs/1"),
    "a decimal": lambda: decimal.Decimal("0.1"),
    "the release of PyTorch": lambda: TorchVersion("2.6.0"),
    "a frozenset and a range": lambda: (frozenset({1, 2}), range(3)),
    "a type": lambda: {"dtype": float, "kind": torch.float16},
    "bytes": lambda: b"abc",
    "an optimizer": lambda: torch.optim.Adam(network().parameters()).state_dict(),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_scripts_keep_beside_the_tensors_is_no_obstacle(
    tmp_path: Path, beside: Callable[[], Any], legacy: bool
) -> None:
    saved = {"epoch": 3, "state_dict": weights(), "more": beside()}
    torch.save(saved, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=not legacy)
    assert loaded(tmp_path / "w.pth.tar") == (7, ("took the weights from 'state_dict'",))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt", "w.pth.tar", "w.tar", "w.weights", "w"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_is_told_by_its_content(tmp_path: Path, name: str, kind: str) -> None:
    from safetensors.torch import save_file

    if kind == "safetensors":
        save_file(weights(), tmp_path / name)
    else:
        torch.save(weights(), tmp_path / name, _use_new_zipfile_serialization=kind == "zip")
    assert loaded(tmp_path / name) == (7, ())


FOUND: Mapping[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "net": (lambda: {"net": weights(), "acc": 91.0}, ("took the weights from 'net'",)),
    "any other key": (lambda: {"params_ema": weights()}, ("took the weights from 'params_ema'",)),
    "a list": (lambda: [weights(), {"lr": 0.1}], ("took the weights from '0'",)),
    "Lightning's wrapper": (
        lambda: {"state_dict": under("net."), "hyper_parameters": {}},
        ("took the weights from 'state_dict'", "removed the prefix 'net.' from 7 names"),
    ),
    "a part of a larger network": (
        lambda: under("backbone.") | {"head.weight": torch.ones(2)},
        (
            "removed the prefix 'backbone.' from 7 names",
            "left out 1 tensor that is not the model's (head.weight)",
        ),
    ),
    "a criterion": (
        lambda: weights() | {"criterion.weight": torch.ones(2)},
        ("left out 1 tensor that is not the model's (criterion.weight)",),
    ),
    "a FLOP counter": (
        lambda: (
            weights() | {f"{name}total_{what}": torch.zeros(1) for name in ("", "0.") for what in ("ops", "params")}
        ),
        ("left out 4 tensors that are not the model's (total_ops, total_params, 0.total_ops and 1 more)",),
    ),
    "AveragedModel": (
        lambda: {"n_averaged": torch.tensor(3)} | under("module."),
        ("removed the prefix 'module.' from 7 names", "left out 1 tensor that is not the model's (n_averaged)"),
    ),
    "each part by itself": (
        lambda: {
            "0": {name[2:]: tensor for name, tensor in weights().items() if name.startswith("0.")},
            "1": {name[2:]: tensor for name, tensor in weights().items() if name.startswith("1.")},
        },
        (),
    ),
    "a wrapped part": (
        lambda: {name.replace(".", ".module._orig_mod.", 1): tensor for name, tensor in weights().items()},
        ("removed the parts that wrappers add (module, _orig_mod) from 7 names",),
    ),
}


@pytest.mark.parametrize(("saved", "notes"), FOUND.values(), ids=FOUND)
def test_the_weights_are_found_by_what_matches(
    tmp_path: Path, saved: Callable[[], Any], notes: tuple[str, ...]
) -> None:
    torch.save(saved(), tmp_path / "w.pth")
    assert loaded(tmp_path / "w.pth") == (7, notes)


def test_a_wrapped_model_takes_the_weights_of_what_it_wraps(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "w.pth")
    model = nn.ModuleDict({"net": network()})
    assert load_weights(model, tmp_path / "w.pth") == ("added the prefix 'net.' to 7 names",)
    assert number_in(model) == 7


def test_averaged_weights_are_taken_where_asked_and_named_where_not(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": weights(1), "state_dict_ema": weights(2), "ema": {"model": weights(3)}}, tmp_path / "w.pt"
    )
    number, notes = loaded(tmp_path / "w.pt")
    assert number == 1
    assert notes[1].startswith("'state_dict_ema', 'ema.model' fit too, with other numbers; 'state_dict' was taken")
    for key, expected in {"state_dict": 1, "state_dict_ema": 2, "ema": 3, "ema.model": 3}.items():
        assert loaded(tmp_path / "w.pt", key)[0] == expected, key
    with pytest.raises(UnknownName, match=r"no key of .*w\.pt is called 'stat_dict'; did you mean 'state_dict'"):
        loaded(tmp_path / "w.pt", "stat_dict")
    model = load_model(network(), weights=tmp_path / "w.pt", weights_key="ema")
    assert card_of(model).notes == ("took the weights from 'ema'", "took the weights from 'model'")


def test_the_same_weights_under_two_keys_are_one(tmp_path: Path) -> None:
    torch.save({"last": weights(), "best": weights()}, tmp_path / "w.pt")
    assert loaded(tmp_path / "w.pt")[0] == 7


@pytest.mark.parametrize(
    ("saved", "keys"),
    [
        ({"teacher": weights(1), "student": weights(2)}, "'teacher', 'student'"),
        ({"model": weights(1), "net": weights(2)}, "'model', 'net'"),
        (under("first.", 1) | under("second.", 2), "'first', 'second'"),
    ],
)
def test_several_weights_of_which_none_is_plainly_meant_are_refused_with_the_option(
    tmp_path: Path, saved: Any, keys: str
) -> None:
    torch.save(saved, tmp_path / "w.pt")
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=f"under 2 keys, with different numbers: {keys}; choose one") as caught:
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    key = re.search(r"weights_key='(\w+)'", str(caught.value))
    assert key is not None
    assert loaded(tmp_path / "w.pt", key[1])[0] == 1


def test_the_command_line_asks_for_a_key(tmp_path: Path) -> None:
    from convscope.cli.options import Loading

    code = "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))\n"
    (tmp_path / "n.py").write_text(code)
    torch.save({"state_dict": weights(1), "ema": weights(2)}, tmp_path / "w.pt")
    assert number_in(Loading(weights=tmp_path / "w.pt", weights_key="ema").load(f"{tmp_path / 'n.py'}:net")) == 2
    with pytest.raises(UsageError, match="pass weights too"):
        Loading(weights_key="ema").load(f"{tmp_path / 'n.py'}:net")


MISFITS: Mapping[str, tuple[Callable[[], Any], str]] = {
    "a longer network": (lambda: weights() | {"2.weight": torch.ones(2)}, r"1 unexpected \(2\.weight\)"),
    "a longer network in a wrapper": (
        lambda: {"state_dict": under("model.") | {"model.1.1.weight": torch.ones(2)}},
        r"1 unexpected \(model\.1\.1\.weight\)",
    ),
    "one tensor less": (
        lambda: {"net": {name: tensor for name, tensor in weights().items() if name != "1.bias"}},
        r"1 missing \(1\.bias\)\. 6 of its 7",
    ),
    "another shape": (lambda: {"net": weights() | {"0.bias": torch.ones(5)}}, r"0\.bias is 5, the model's 4"),
    "sparse": (lambda: weights() | {"1.bias": torch.ones(4).to_sparse()}, r"1\.bias is sparse or nested"),
    "without numbers": (lambda: weights() | {"1.bias": torch.ones(4, device="meta")}, "without numbers"),
    "complex": (
        lambda: weights() | {"1.bias": torch.ones(4, dtype=torch.complex64)},
        r"1\.bias is complex, the model's float32",
    ),
    "quantized": (
        lambda: weights() | {"1.bias": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)},
        r"1\.bias is quantized",
    ),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # deprecated, and still in files
@pytest.mark.parametrize(("saved", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_refused_wherever_it_was_found(
    tmp_path: Path, saved: Callable[[], Any], message: str
) -> None:
    torch.save(saved(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        loaded(tmp_path / "w.pt")


def test_a_layer_that_learns_its_shape_takes_none_that_the_file_does_not_hold(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1).expand(2, 1 << 40), "bias": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="of fewer numbers in the file"):
        load_weights(nn.LazyLinear(2), tmp_path / "w.pt")


FILES = ("checkpoint.pth.tar", "flat.pth", "whole.pt", "yolo.pt")
OWN = """
import dataclasses, torch
from torch import nn

@dataclasses.dataclass
class Config:
    lr: float = 0.1

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

FILES = {
    "checkpoint.pth.tar": lambda: {"state_dict": net().state_dict(), "config": Config()},
    "flat.pth": lambda: {**net().state_dict(), "config": Config()},
    "whole.pt": net,
    "yolo.pt": lambda: {"epoch": 3, "model": net(), "ema": None, "config": Config()},
}
"""


def test_the_advice_for_a_file_that_names_code_works_where_its_code_is(tmp_path: Path) -> None:
    """One process writes all files as training scripts do, one follows all advice, each in a folder of its own."""
    folders = [tmp_path / f"{name}-{new}" for name in FILES for new in ("zip", "legacy")]
    for folder in folders:
        folder.mkdir()
        (folder / "own.py").write_text(OWN)
    (tmp_path / "own.py").write_text(OWN)
    save = "torch.save(own.FILES[name](), f'{name}-{new}/{name}', _use_new_zipfile_serialization=new == 'zip')"
    run(tmp_path, f"import own, torch\nfor name in own.FILES:\n    for new in ('zip', 'legacy'): {save}")
    advice: dict[str, str] = {}
    for folder in folders:
        with pytest.raises(WeightsError, match=r"is a pickled object .*it names \S+; only tensors are read") as caught:
            loaded(next(path for path in folder.iterdir() if path.name != "own.py"))
        command = re.search("`(.*)`", str(caught.value))
        assert command is not None
        advice[str(folder)] = command[1]
    before = set(tmp_path.glob("*/*"))
    follow = f"for folder, code in {advice!r}.items():\n    os.chdir(folder)\n    exec('import torch; ' + code, {{}})"
    run(tmp_path, f"import os\n{follow}")
    made = {path for path in tmp_path.glob("*/*") if path.suffix in {".pth", ".safetensors"}} - before
    assert {path.parent for path in made} == {*folders}
    for path in made:
        load_weights(network(), path)


def run(folder: Path, code: str) -> None:
    """Run a program in a folder, as the user would."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (code, done.stderr)


FOREIGN: Mapping[str, tuple[bytes, str]] = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS .* `git lfs pull`"),
    "a page": (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page, not weights"),
    "nothing": (b"", r"is empty \(0 bytes\)"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(40), "compressed with gzip; unpack it first: `gunzip -k"),
    "an index": (b'{"weight_map": {}}', "is JSON text"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file"),
    "zeros": (bytes(3000), "begins with zeros only"),
}


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w"])
@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_often_found_in_the_place_of_weights_is_recognised(
    tmp_path: Path, content: bytes, message: str, name: str
) -> None:
    if name.endswith(".safetensors") and message.startswith(("damaged", "is JSON")):
        message = "is damaged or not a safetensors file"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        loaded(tmp_path / name)


def test_archives_are_named_and_the_advice_unpacks_them(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "w.pth")
    for packed, command in {"all.tar": "tar -cf all.tar w.pth", "all.zip": "zip -q all.zip w.pth"}.items():
        if subprocess.run(shlex.split(command), cwd=tmp_path, check=False, capture_output=True).returncode:
            continue  # the program is not installed here
        with pytest.raises(WeightsError, match=r"archive .*it holds w\.pth.*unpack it") as caught:
            loaded(tmp_path / packed)
        advice = re.search("`(.*)`", str(caught.value))
        assert advice is not None
        (tmp_path / packed).rename(tmp_path / f"there-{packed}")
        (tmp_path / packed).mkdir()
        (tmp_path / f"there-{packed}").rename(tmp_path / packed / packed)
        subprocess.run(shlex.split(advice[1]), cwd=tmp_path / packed, check=True, capture_output=True)
        assert loaded(tmp_path / packed / "w.pth") == (7, ())


def test_wrong_objects_get_a_sentence(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "w.pt")
    for wrong in (3, weights(), b"w.pt", ["w.pt"], network()):
        with pytest.raises(UsageError, match="weights is the path of a file, not a"):
            load_model(network(), weights=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weights_key is the name of a key"):
        load_model(network(), weights=tmp_path / "w.pt", weights_key=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"weights are loaded into an nn\.Module, not into a str"):
        load_weights("net", tmp_path / "w.pt")  # type: ignore[arg-type]
    for classes in ("cat,dog", 3, [1, 2], []):
        with pytest.raises(UsageError, match="classes is a list of names"):
            load_model(network(), classes=classes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="preprocess is a Preprocess or a dict"):
        load_model(network(), preprocess=3)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="is a device or a pipe"):
        loaded(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_may_not_be_read_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(bytes(10))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # an administrator may read all, so the mode of a file shows nothing
    with pytest.raises(WeightsError, match="cannot be read: Permission denied"):
        loaded(tmp_path / name)
