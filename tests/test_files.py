"""Files: whole or as they were, whatever happens while they are written."""

import errno
import os
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from convscope.files import read_file, write_whole
from full_disk import largest_file

FORMER = b"the former picture"


def beside(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


def test_a_file_is_written_with_the_permissions_of_the_former_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_whole(path, b"one")
    umask = os.umask(0)
    os.umask(umask)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"one", 0o666 & ~umask)
    path.chmod(0o640)
    write_whole(path, b"two")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o640)
    assert beside(tmp_path) == ["a.png"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.png").write_bytes(FORMER)
    link = tmp_path / "link.png"
    link.symlink_to("there/real.png")
    write_whole(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.png").read_bytes() == b"new"
    dangling = tmp_path / "dangling.png"
    dangling.symlink_to("there/other.png")
    write_whole(dangling, b"made")
    assert (tmp_path / "there" / "other.png").read_bytes() == b"made"
    loop = tmp_path / "loop.png"
    loop.symlink_to("loop.png")
    with pytest.raises(OSError, match="symbolic links"):  # as writing to it says
        write_whole(loop, b"new")


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_is_written_to() -> None:
    code = "from convscope.files import write_whole; write_whole('/dev/stdout', b'picture')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"picture"


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_what_was_there_survives_any_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(FORMER)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif failing == "replace":
        monkeypatch.setattr(Path, "replace", full)
    with (
        largest_file(4096) if failing == "write" else nullcontext(),
        pytest.raises(OSError, match=r"No space left|File too large"),
    ):
        write_whole(path, bytes(100_000))
    assert path.read_bytes() == FORMER
    assert beside(tmp_path) == ["a.png"]


@pytest.mark.parametrize("room", [True, False])
def test_in_a_folder_that_may_not_be_written_a_file_is_replaced_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(FORMER)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    if room:
        write_whole(path, bytes(100_000))
        assert path.read_bytes() == bytes(100_000)
        write_whole(path, b"short")
        assert path.read_bytes() == b"short"
        return

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, bytes(100_000))
    assert path.read_bytes() == FORMER
    with pytest.raises(PermissionError):
        write_whole(tmp_path / "new.png", b"new")


def test_a_file_that_grows_while_it_is_read_is_read_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "growing", os.fstat
    path.write_bytes(b"123456789")

    def earlier(handle: int) -> os.stat_result:
        values = list(real(handle))
        values[stat.ST_SIZE] = 4
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", earlier)
    monkeypatch.setattr("convscope.files._PIECE", 2)
    assert read_file(path, limit=9) == b"123456789"
    for most in (4, 8):
        with pytest.raises(OSError, match=f"it has more bytes than the {most} that are read"):
            read_file(path, limit=most)


@pytest.mark.skipif(sys.platform != "linux", reason="files of /proc report a size of 0")
def test_a_file_without_a_size_is_read_up_to_the_limit() -> None:
    assert read_file(Path("/proc/self/status")).startswith(b"Name:")
    with pytest.raises(OSError, match="it has more bytes than the 5 that are read"):
        read_file(Path("/proc/self/status"), limit=5)
