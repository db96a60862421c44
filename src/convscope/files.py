"""Files that may come from elsewhere: nothing but regular files is opened, a write replaces as a whole or does nothing.

Imports errors alone of convscope. Every refusal is an OSError whose `strerror` says why; `check_destination` raises a
UsageError. Windows differs in three ways that are handled here alone: a file that another program has open cannot be
replaced, a folder cannot be synced, and files opened by number would have their newlines translated.
"""

import errno
import os
import stat
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from convscope.errors import UsageError

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # or opening a named pipe waits for its other end
_BINARY = getattr(os, "O_BINARY", 0)
_IN_USE = 1.0 if sys.platform == "win32" else 0.0
"""Seconds to wait for a file that cannot be replaced as another program, such as a virus scanner, has it open."""
_LINK = "it is a link, which is not followed"
_NOT_REGULAR = "it is not a regular file"
WHOLE = 1 << 28
"""Bytes of the largest file that is read as a whole unless its reader says otherwise: 256 MB.

A sparse file of terabytes takes a few bytes on a disk, but reading it would use up the memory before
any error could be reported.
"""
_PIECE = 1 << 20
LFS = b"version https://git-lfs.github.com/spec/"
"""The first bytes of the pointer file that Git LFS leaves if the file itself was not fetched."""


def open_to_read(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a file for reading; a link to one is followed by default, a pipe or a device is refused.

    >>> open_to_read(Path("/dev/zero"))
    Traceback (most recent call last):
    OSError: [Errno 22] it is not a regular file: '/dev/zero'
    """
    if not follow:
        refuse_link(path)
    return _regular(os.open(path, os.O_RDONLY | _BINARY | _NO_WAIT | (0 if follow else _NO_LINK)), path, "rb")


def read_file(path: Path, *, limit: int = WHOLE) -> bytes:
    """The content of a file of at most `limit` bytes, opened as `open_to_read` does; a larger one is refused unread."""
    with open_to_read(path) as file:
        return read_opened(file, path, limit=limit)


def read_opened(file: BinaryIO, path: Path, *, limit: int = WHOLE) -> bytes:
    """The rest of an open file, if that is at most `limit` bytes.

    Its size is not relied on: files grow while they are read, and those of /proc and some file systems report 0.
    """
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {limit:,} are read", str(path))
    pieces, remaining = [file.read(size)], limit - size
    while piece := file.read(min(_PIECE, remaining + 1)):
        pieces.append(piece)
        remaining -= len(piece)
        if remaining < 0:
            raise OSError(errno.EFBIG, f"it has more bytes than the {limit:,} that are read", str(path))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_there(name: str | Path) -> bool:
    """Whether a path exists; False also for text that cannot be one, where `Path.exists` raises an error."""
    return os.path.exists(name)  # noqa: PTH110


def open_own(path: Path) -> BinaryIO:
    """Open a file of one's own for appending, made where it is missing and never emptied; a link is refused."""
    refuse_link(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY | _NO_LINK | _NO_WAIT
    return _regular(os.open(path, flags, 0o666), path, "a+b")


def make_folder(path: Path) -> None:
    """Make a folder of one's own where it is missing; a link to one is refused."""
    refuse_link(path)
    path.mkdir(parents=True, exist_ok=True)


def refuse_link(path: Path) -> None:
    """Raise an OSError where a name is a link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, _LINK, str(path))


def write_file(path: Path, content: bytes, *, durably: bool = True) -> None:
    """Write a file so that it is there whole, or as it was before; `durably`: after a crash of the machine too.

    Whatever had the name is replaced, not written into: a file that shares its content by a hard link keeps it.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _NO_LINK, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        if durably:
            os.fsync(file.fileno())
    replace_file(part, path)
    if durably:
        sync_folder(path.parent)


def replace_file(part: Path, path: Path) -> None:
    """Give a finished file its name, replacing what had it.

    Raises:
        PermissionError: on Windows, another program still has the former file open after a second.
    """
    until = time.monotonic() + _IN_USE
    while True:
        try:
            part.replace(path)
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)
        else:
            return


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; Windows opens no folder, and journals names by itself."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _regular(handle: int, path: Path, mode: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
    return os.fdopen(handle, mode)  # type: ignore[return-value]  # the modes are binary


def check_destination(path: str | Path) -> None:
    """Refuse a path to which no file can be written, before the work whose result it shall hold.

    >>> check_destination("/dev/null")

    Raises:
        UsageError: it is a folder, is in no folder, or may not be written.
    """
    result = Path(path)
    try:
        former = _status(result)
    except (OSError, ValueError) as error:  # too long, a link to itself, a null character
        raise UsageError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from None
    if former is not None and stat.S_ISDIR(former.st_mode):
        raise UsageError(f"{path} is a folder; name a file in it, or choose another path.")
    if former is None and not result.parent.is_dir():
        raise UsageError(f"{result.parent} is not a folder; create it first, or choose another path.")
    if not os.access(result.parent if former is None else result, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied; choose another path.")


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file where a user says, beside its place and renamed, so that a full disk leaves what was there before.

    A symbolic link stays one: the file that it names is replaced, with its permissions. What is not a regular file,
    such as /dev/stdout or a named pipe, is written to as it is.

    >>> write_whole("/dev/null", b"anything")

    Raises:
        OSError: it cannot be written; the former file is unharmed and nothing is left beside it.
    """
    former = _status(Path(path))
    if former is not None and not stat.S_ISREG(former.st_mode):
        Path(path).write_bytes(content)  # by the given name: the real one of /dev/stdout may not be a path, as pipe:[7]
        return
    target = Path(os.path.realpath(path))
    try:
        handle, name = tempfile.mkstemp(prefix=".convscope-", suffix=".part", dir=target.parent)
    except PermissionError:
        if former is None:
            raise
        _overwrite(target, content)  # a file that may be written in a folder that may not
        return
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        _like(part, former)
        replace_file(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _status(path: Path) -> os.stat_result | None:
    """The status of a path, following links; None if it does not exist. A link to itself raises an OSError."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _like(part: Path, former: os.stat_result | None) -> None:
    """The permissions of the file that is replaced; else those of any new file."""
    if former is None:
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        return
    if sys.platform != "win32":
        with suppress(OSError):  # only root may give files away
            os.chown(part, former.st_uid, former.st_gid)
    part.chmod(stat.S_IMODE(former.st_mode))


def _overwrite(target: Path, content: bytes) -> None:
    """Replace a file's content in place, once its room on the disk is certain."""
    with target.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if len(content) > size:
            try:
                _reserve(file, size, len(content))
            except OSError:
                file.truncate(size)
                raise
        file.write(content)
        file.truncate()


def _reserve(file: BinaryIO, size: int, needed: int) -> None:
    """Make sure that a file of `size` bytes can hold `needed`; its content and position do not change."""
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), 0, needed)
    else:
        file.seek(size)
        file.write(bytes(needed - size))
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)


def unsuitable(path: Path) -> str:
    """Why a path that exists should not be opened and read to its end, in words; nothing for an ordinary file.

    >>> unsuitable(Path("/dev/zero"))
    'is not a regular file, and reading a pipe or a device may never end; save its content as a file'
    """
    if not path.is_file():
        return "is not a regular file, and reading a pipe or a device may never end; save its content as a file"
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            return "is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`"
    return ""
