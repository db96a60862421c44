"""Places: the address that a server listens at, and whether somebody sits in front of this machine.

Knows sockets and the environment's signs of a browser; nothing of what is served.
"""

import errno
import os
import socket
import sys
import webbrowser

import convscope as cs

HOST = "127.0.0.1"
PORT = 8765
TRIED = 50
"""Ports, from the wished one on, that are tried."""
ANYWHERE = frozenset({"0.0.0.0", "::"})


def bind(host: str = HOST, port: int | None = None) -> socket.socket:
    """A socket that listens at `host`: at `port`, or at the next free one; 0 takes any.

    Raises:
        UsageError: `host` is no address of this machine, or none of the ports is free.
    """
    first = PORT if port is None else port
    if not 0 <= first < 65536:
        raise cs.UsageError(f"a port is a number from 0 (any free one) to 65535, not {first}.")
    family, address = _resolved(host)
    tried = range(first, min(first + TRIED, 65536)) if first else range(1)
    for number in tried:
        # named as TCP, so that asyncio sends small answers at once: else each waits 40 ms for an acknowledgement
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # a port that was just in use is free again; elsewhere this would share a used one
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address, number))
            listening.listen(1024)
        except OSError as error:
            listening.close()
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise _no_address(host) from None
        else:
            return listening
    raise cs.UsageError(
        f"none of the ports {tried[0]} to {tried[-1]} is free for you at {host}; choose another with --port."
    )


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """The address that a name stands for, of the older kind where there are both."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _no_address(host) from None
    family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, str(address[0])


def _no_address(host: str) -> cs.UsageError:
    return cs.UsageError(f"{host!r} is no address of this machine; leave --host out, or name one that is.")


def address_of(listening: socket.socket) -> str:
    """The page's address, as a browser on this machine writes it."""
    host, port = listening.getsockname()[:2]
    here = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)
    return f"http://{f'[{here}]' if ':' in here else here}:{port}/"


def has_browser() -> bool:
    """Whether a window can be opened for the person who started this: not over SSH, and not in the terminal itself."""
    if "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
