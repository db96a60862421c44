"""Files of a folder that may come from elsewhere: nothing but regular files is opened, a write replaces as a whole.

Imports nothing of convscope. Every refusal is an OSError whose `strerror` says why.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # or opening a named pipe waits for its other end
_LINK = "it is a link, which is not followed"
_NOT_REGULAR = "it is not a regular file"


def open_to_read(path: Path) -> BinaryIO:
    """Open a file for reading; a link to one is followed, a pipe or a device is refused.

    >>> open_to_read(Path("/dev/zero"))
    Traceback (most recent call last):
    OSError: [Errno 22] it is not a regular file: '/dev/zero'
    """
    return _regular(os.open(path, os.O_RDONLY | _NO_WAIT), path, "rb")


def read_file(path: Path) -> bytes:
    """The content of a file, opened as `open_to_read` does."""
    with open_to_read(path) as file:
        return file.read()


def open_own(path: Path) -> BinaryIO:
    """Open a file of one's own for appending, made where it is missing and never emptied; a link is refused."""
    refuse_link(path)
    return _regular(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK | _NO_WAIT, 0o666), path, "a+b")


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
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        if durably:
            os.fsync(file.fileno())
        part.replace(path)
    if durably:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
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
