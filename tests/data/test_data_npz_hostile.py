"""NumPy archives that are damaged or hostile: refused in a sentence, without taking memory or running code."""

import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from archives import IMAGES, LABELS, hostile, load, raw, write
from convscope.errors import DataError
from convscope.typing import Array


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path, x=IMAGES, y=LABELS).read_bytes()
    np.save(tmp_path / "one.npy", IMAGES)
    contents = {
        "text": b"no archive",
        "empty": b"",
        "pickle": pickle.dumps([IMAGES, LABELS]),
        "cut off": whole[: len(whole) // 2],
        "one byte changed": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
        "one array": (tmp_path / "one.npy").read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(DataError, match=re.escape(f"{name}.npz")):
            load(tmp_path / f"{name}.npz")


HEADERS = {
    "brackets": ("'|u1'", "(" * 5000 + ")" * 5000),
    "brackets of lists": ("[" * 4000, "(1,)"),
    "negative": ("'|u1'", "(-10, 4, 5)"),
    "boolean": ("'|u1'", "(True, 4, 5)"),
    "floating": ("'|u1'", "(10.0, 4, 5)"),
    "beyond all numbers": ("'|u1'", f"({'9' * 4000}, 4, 5)"),
    "more than it holds": ("'|u1'", "(10**0, 4, 5)"),
    "less than it holds": ("'|u1'", "(9, 4, 5)"),
    "unknown type": ("'<q99'", "(10, 4, 5)"),
    "no type": ("None", "(10, 4, 5)"),
    "objects": ("'|O'", "(10, 4, 5)"),
    "objects inside": ("[('a', '|O')]", "(10, 4, 5)"),
    "nothing": ("'|V0'", "(10, 4, 5)"),
    "a call": ("__import__('os').system('touch called')", "(10, 4, 5)"),
    "not closed": ("'|u1", "(10, 4, 5)"),
}


@pytest.mark.parametrize(("descr", "shape"), HEADERS.values(), ids=HEADERS)
def test_a_hostile_header_is_one_sentence(tmp_path: Path, descr: str, shape: str) -> None:
    with pytest.raises(DataError, match=r"hostile\.npz cannot be read as an \.npz file of arrays: .*\. Write it with"):
        load(hostile(tmp_path, raw(descr, shape)))


CHANGES: dict[str, tuple[bytes, bytes]] = {  # in the directory: what is changed into what
    "another compression": (
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00",
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x09\x00",
    ),
    "encrypted": (b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00\x08\x00"),
    "bzip2 that is none": (
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00",
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x0c\x00",
    ),
    "lzma that is none": (b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x0e\x00"),
}


@pytest.mark.parametrize(("former", "changed"), CHANGES.values(), ids=CHANGES)
def test_a_hostile_directory_is_one_sentence(tmp_path: Path, former: bytes, changed: bytes) -> None:
    path = hostile(tmp_path, raw())
    content = path.read_bytes()
    assert former in content
    path.write_bytes(content.replace(former, changed))
    with pytest.raises(DataError, match=r"hostile\.npz cannot be read as an \.npz file of arrays"):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = hostile(tmp_path, raw())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("images.npy", raw())
    with pytest.raises(DataError, match="it has the array images twice"):
        load(path)


def no_numbers(*_: object) -> Array:
    raise AssertionError("the numbers were read")


def test_what_does_not_fit_is_refused_by_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.data.npz.numbers", no_numbers)
    with pytest.raises(DataError, match=r"labels of .* have the shape \(9,\) for 10 images"):
        load(hostile(tmp_path, raw(), LABELS[:9]))
    with pytest.raises(DataError, match="names 1,000,000 classes in up to 1 characters; at most 100,000 classes"):
        load(hostile(tmp_path, raw(), classes=np.full(1_000_000, "a")))
    with pytest.raises(DataError, match="in up to 100,000 characters"):
        load(hostile(tmp_path, raw(), classes=np.array(["a" * 100_000])))


def test_more_than_the_memory_is_refused_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.data.npz.numbers", no_numbers)
    monkeypatch.setattr("convscope.data.options.available", lambda: 500_000_000)
    path = tmp_path / "large.npz"
    count = 4_000_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("images.npy", "w") as images:
            images.write(raw(shape=f"({count}, 8, 8)", content=b""))
            for _ in range(count * 64 // (1 << 22)):
                images.write(bytes(1 << 22))
            images.write(bytes(count * 64 % (1 << 22)))
        with file.open("labels.npy", "w") as labels:
            labels.write(raw(shape=f"({count},)", content=bytes(count)))
    with pytest.raises(
        DataError, match=r"the arrays of .*large\.npz need about 1 GB of memory, and 0 GB are free here"
    ):
        load(path)


def test_a_header_that_claims_more_than_is_there_takes_no_memory(tmp_path: Path) -> None:
    """The directory says so too: the claim is believed by neither."""
    content = bytearray(hostile(tmp_path, raw(shape="(10000000, 99, 99)")).read_bytes())
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(b"labels.npy") - 46)
    header = len(raw(shape="(10000000, 99, 99)", content=b""))
    size = 3_000_000_000
    content[directory + 24 : directory + 28] = size.to_bytes(4, "little")
    (tmp_path / "hostile.npz").write_bytes(content)
    with pytest.raises(DataError, match=rf"says 98,010,000,000 bytes and the archive has {size - header:,}"):
        load(tmp_path / "hostile.npz")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(DataError, match=r"pipe\.npz is not a regular file"):
        load(tmp_path / "pipe.npz")


def test_an_object_array_beside_the_data_is_never_loaded(tmp_path: Path) -> None:
    assert len(load(write(tmp_path, x=IMAGES, y=LABELS, meta=np.array([{}], object)))) == 10
