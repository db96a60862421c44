"""Partial results come from a folder that may be damaged, or made by others: a sentence, and no link is followed."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from convscope.errors import DataError
from convscope.probe.support.scan import Partial

KEY = {"probe": "dead"}


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"null", b"[" * 100_000, b'{"probe": 1e999}'])
def test_a_damaged_key_is_a_sentence(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "scan.json").write_bytes(text)
    with pytest.raises(DataError, match=r"is damaged|another scan"):
        Partial(tmp_path, KEY, rank=0)


@pytest.mark.parametrize("name", ["scan.json", "part-0.bin", ""])
def test_no_link_is_written_through(tmp_path: Path, name: str) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "scan"
    if name:
        folder.mkdir()
        victim.write_bytes(b"precious" * 10)
        (folder / name).symlink_to(victim)
    else:
        victim.mkdir()
        folder.symlink_to(victim)
    with pytest.raises(DataError):
        Partial(folder, KEY, rank=0).append(0, {"sum": np.ones(2)})
    assert victim.read_bytes() == b"precious" * 10 if name else not [*victim.iterdir()]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "part-1.bin")
    with pytest.raises(DataError, match="not a regular file"):
        Partial(tmp_path, KEY, rank=0)


def test_a_file_in_the_place_of_the_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "scan").write_text("")
    with pytest.raises(DataError, match="cannot be used for partial results"):
        Partial(tmp_path / "scan", KEY, rank=0)


@pytest.mark.parametrize(("batch", "length"), [(0, -1), (0, 2**62), (-5, 4), (0, 4)])
def test_forged_records_are_left_out_or_refused(tmp_path: Path, batch: int, length: int) -> None:
    body = b"abcd"
    (tmp_path / "part-0.bin").write_bytes(struct.pack("<qqI", batch, length, zlib.crc32(body)) + body)
    partial = Partial(tmp_path, KEY, rank=0)
    if partial.batches:
        with pytest.raises(DataError, match="is damaged"):
            partial.read(0)
    else:
        assert not (tmp_path / "part-0.bin").stat().st_size
