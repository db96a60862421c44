"""Memory: how many bytes this process can still get, and when garbage is collected.

Uses the operating systems' own counts; no torch.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNLIMITED = 1 << 60
"""Control groups without a limit report a number of this size, or the word "max"."""


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be had: of the machine, of every control group around this process, and of `ulimit -v`.

    >>> available() > 0
    True

    Args:
        proc: Where Linux describes processes.
        groups: Where Linux mounts control groups.
    """
    return max(0, min(_machine(proc), _address_space(proc), *_groups(proc, groups)))


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection within the block, for work that creates many objects and no garbage, such as imports.

    >>> with collection_paused():
    ...     gc.isenabled()
    False

    Collections visit the new objects again and again, 0.2 s for those of torch. So the block's objects are counted as
    old ones, which the next full collection visits. A collector that was off stays off.

    Source: Python documentation, `gc.freeze` and `gc.unfreeze`, which put objects into the oldest generation unvisited.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_freeze_count() == 0:  # objects that were frozen before stay so
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _machine(proc: Path) -> int:
    """The memory that the operating system can provide without swapping."""
    try:
        fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text(encoding="utf-8").splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass  # not Linux, or a /proc without this line: the system is asked in another way
    if sys.platform == "win32":
        return _windows()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _macos_percent() // 100


def _windows() -> int:
    """`ullAvailPhys` of GlobalMemoryStatusEx: two 32-bit numbers, then seven of 64 bits."""
    status = (ctypes.c_ulonglong * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_ulong))[0] = ctypes.sizeof(status)
    windll = getattr(ctypes, "windll")  # noqa: B009 - the name exists on Windows alone
    windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status[2])


def _macos_percent() -> int:
    """The memory that macOS counts as available; all of it if the kernel does not answer, or is another one."""
    level, size = ctypes.c_int(100), ctypes.c_size_t(4)
    if sys.platform == "darwin":
        ctypes.CDLL(None).sysctlbyname(b"kern.memorystatus_level", ctypes.byref(level), ctypes.byref(size), None, 0)
    return level.value


def _address_space(proc: Path) -> int:
    """The memory left below `ulimit -v`."""
    if sys.platform == "win32":
        return UNLIMITED
    import resource  # noqa: PLC0415 - exists on Unix alone

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return UNLIMITED
    try:
        used = int((proc / "self" / "statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        used = 0
    return limit - used


def _groups(proc: Path, mounted: Path) -> Iterator[int]:
    """The memory left in each control group, version 1 and 2, from this process' own up to the root.

    Pages of files that a group could drop at once count as free, as they do in MemAvailable.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(mounted, path, ("memory.max", "memory.current", "inactive_file"))
            yield from _left(mounted / "unified", path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(mounted / "memory", path, names)


def _left(mount: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    limit, usage, droppable = names
    inside = mount / path.lstrip("/")
    for folder in (inside, *inside.parents):
        try:
            allowed = int((folder / limit).read_text(encoding="utf-8"))
            used = int((folder / usage).read_text(encoding="utf-8"))
            counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError):  # no such folder here, or "max"
            allowed = UNLIMITED
        if allowed < UNLIMITED:
            yield allowed - used + int(counts.get(droppable, 0))
        if folder == mount:
            return
