"""Files of weights that an attacker wrote: no name in them is imported or called, however the pickle spells it."""

import io
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from convscope.errors import WeightsError
from convscope.models.weights import load_weights

CANARY = "canary"


def text(value: str) -> bytes:
    """A string as protocol 2 writes it."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


SHELL = text(f"touch {CANARY}")
CODE = text(f"open({CANARY!r}, 'w')")
NESTED = pickle.dumps(type("Nested", (), {"__reduce__": lambda _self: (eval, (f"open({CANARY!r}, 'w')",))})())
OBJECTS = call(named("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
ENCODED = call(named("_codecs", "encode"), text(NESTED.decode("latin1")), text("latin1"))
SPACE = call(named("argparse", "Namespace"))
SETSTATE = b"}" + text("__setstate__")

REFUSED: Mapping[str, bytes] = {
    "os.system": call(named("os", "system"), SHELL),
    "posix.system": call(named("posix", "system"), SHELL),
    "eval": call(named("builtins", "eval"), CODE),
    "eval of Python 2": call(named("__builtin__", "eval"), CODE),
    "INST": b"(" + SHELL + b"ios\nsystem\n",
    "OBJ": b"(" + named("os", "system") + SHELL + b"o",
    "NEWOBJ": named("subprocess", "Popen") + b"(" + SHELL + b"t\x81",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93" + SHELL + b"\x85R",
    "EXT1": b"\x82\x01",
    "a persistent id": text("os.system") + b"Q",
    "a dotted name": call(named("argparse", "Namespace.__init__.__globals__"), CODE),
    "getattr": call(named("builtins", "getattr"), named("argparse", "Namespace"), text("__init__")),
    "partial": call(named("functools", "partial"), named("builtins", "print")),
    "a factory": call(named("collections", "defaultdict"), named("os", "getcwd")),
    "a state that is a function": SPACE + SETSTATE + named("builtins", "exec") + b"sb" + CODE + b"b",
    "a stand-in's instance called": b"(" + SPACE + CODE + b"\x85R",
    "a module that runs when imported": call(named("convscope_hostile", "Thing")),
    "an object array's state": call(
        named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", text("b")
    )
    + b"(K\x01K\x01\x85"
    + OBJECTS
    + b"\x89]"
    + call(named("builtins", "eval"), CODE)
    + b"atb",
    "a tensor rebuilt by a stand-in": call(
        named("torch._tensor", "_rebuild_from_type_v2"), SPACE, named("torch", "Tensor"), CODE + b"\x85", b"}"
    ),
}
"""Pickles that name or call code; each is refused."""
INERT: Mapping[str, bytes] = {
    "a scalar of objects": call(named("numpy.core.multiarray", "scalar"), OBJECTS, ENCODED),
    "a scalar of objects, NumPy 2": call(named("numpy._core.multiarray", "scalar"), OBJECTS, ENCODED),
    "a type that is not here": call(named("easydict", "EasyDict")),
    "attributes of a stand-in": SPACE + b"}" + text("__class__") + named("builtins", "dict") + b"sb",
    "a dict whose methods are hidden": call(named("collections", "OrderedDict")) + b"}" + text("items") + b"K\x01sb",
}
"""Pickles of stand-ins alone, whose contents could do harm in the types that they name."""


def zipped(payload: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def legacy(payload: bytes, path: Path) -> None:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [0x1950A86A20F9469CFC6C, 1001, system]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + payload + pickle.dumps([], 2))


def tar(payload: bytes, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = payload if name == "pickle" else pickle.dumps(0, 2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def bare(payload: bytes, path: Path) -> None:
    path.write_bytes(payload)


CONTAINERS: Mapping[str, Callable[[bytes, Path], None]] = {"zip": zipped, "legacy": legacy, "tar": tar, "bare": bare}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose modules leave a file when they are imported."""
    for name in ("convscope_hostile", "easydict"):
        (tmp_path / f"{name}.py").write_text(f"open({CANARY!r}, 'w')\nclass EasyDict(dict): ...\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / CANARY


def test_the_table_can_fail(trap: Path) -> None:
    """What the pickles would do, where Python's own unpickler opens them."""
    for payload in ("a module that runs when imported", "eval", "INST"):
        with suppress(AttributeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the file that is left open
            pickle.loads(b"\x80\x02" + REFUSED[payload] + b".")
        assert trap.exists(), payload
        trap.unlink()


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED)
def test_no_pickle_runs_code(trap: Path, payload: bytes, container: Callable[[bytes, Path], None]) -> None:
    file = trap.parent / "w.pt"
    for protocol in (b"\x80\x02", b"\x80\x04"):
        container(protocol + payload + b".", file)
        with pytest.raises(WeightsError):
            load_weights(nn.Linear(1, 1), file)
        assert not trap.exists()


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("payload", INERT.values(), ids=INERT)
def test_no_stand_in_runs_code(trap: Path, payload: bytes, container: Callable[[bytes, Path], None]) -> None:
    file = trap.parent / "w.pt"
    container(b"\x80\x02}" + text("more") + payload + b"s.", file)
    with pytest.raises(WeightsError):
        load_weights(nn.Linear(1, 1), file)
    assert not trap.exists()


def test_a_dict_whose_methods_are_hidden_is_read_as_a_dict(tmp_path: Path) -> None:
    hidden = torch.nn.Linear(1, 1).state_dict()
    hidden.__dict__["items_"] = 3
    torch.save({"net": hidden}, tmp_path / "there.pt")
    with zipfile.ZipFile(tmp_path / "there.pt") as archive, zipfile.ZipFile(tmp_path / "w.pt", "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, archive.read(name).replace(text("items_"), text("items")))
    assert load_weights(nn.Linear(1, 1), tmp_path / "w.pt") == ("took the weights from 'net'",)


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(100, 1000).state_dict(), tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as archive,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, bytes(len(archive.read(name))) if "/data/" in name else archive.read(name))
    with pytest.raises(WeightsError, match="claims to unpack to"):
        load_weights(nn.Linear(100, 1000), tmp_path / "bomb.pt")


def test_containers_within_each_other_end(tmp_path: Path) -> None:
    layer: object = nn.Linear(1, 1).state_dict()
    for _ in range(60):
        layer = [layer, layer, {"a": layer, "b": layer}]
    torch.save(layer, tmp_path / "deep.pt")
    with pytest.raises(WeightsError):
        load_weights(nn.Linear(1, 1), tmp_path / "deep.pt")
    ring: dict[str, object] = {"net": nn.Linear(1, 1).state_dict()}
    ring["self"] = ring
    torch.save(ring, tmp_path / "ring.pt")
    assert load_weights(nn.Linear(1, 1), tmp_path / "ring.pt") == ("took the weights from 'net'",)


def test_damage_anywhere_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    for new in (True, False):
        torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "epoch": 3}, file, _use_new_zipfile_serialization=new)
        whole = file.read_bytes()
        for path in range(0, len(whole), max(1, len(whole) // 200)):
            for damaged in (whole[:path], whole[:path] + bytes([whole[path] ^ 0xFF]) + whole[path + 1 :]):
                file.write_bytes(damaged)
                try:
                    load_weights(nn.Linear(2, 2), file)
                except WeightsError:
                    continue
