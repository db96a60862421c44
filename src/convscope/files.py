"""Files: written whole or not at all, and what is asked of a file before it is read. Knows no formats."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

LFS = b"version https://git-lfs.github.com/spec/"
"""How the small text begins that Git LFS leaves where the file itself was not fetched."""


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that a full disk leaves what was there before.

    A symbolic link stays one: the file that it names is replaced, with its permissions. What is not a regular file, such
    as /dev/stdout or a named pipe, is written to as it is.

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
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _status(path: Path) -> os.stat_result | None:
    """Of what is there, links followed; None where nothing is. A link to itself is an OSError."""
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
    with suppress(OSError):  # only root may give files away
        os.chown(part, former.st_uid, former.st_gid)
    part.chmod(stat.S_IMODE(former.st_mode))


def _overwrite(target: Path, content: bytes) -> None:
    """Replace a file's content in place, once its room on the disk is certain."""
    with target.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if len(content) > size:
            try:
                os.posix_fallocate(file.fileno(), 0, len(content))
            except OSError:
                file.truncate(size)
                raise
        file.write(content)
        file.truncate()


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
