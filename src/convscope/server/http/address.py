"""Network address: bind the server's socket, and detect whether a browser can be opened on this machine.

Knows sockets and environment variables; nothing about what is served.
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
"""Number of consecutive ports to try, starting at the requested one."""
ANYWHERE = frozenset({"0.0.0.0", "::"})
"""Addresses that listen on every network interface."""


def bind(host: str = HOST, port: int | None = None) -> socket.socket:
    """A socket that listens on `host`: on `port`, or else the next free one; 0 picks any free port.

    Raises:
        UsageError: `host` is not an address of this machine, or none of the ports is free.
    """
    first = PORT if port is None else port
    if not 0 <= first < 65536:
        raise cs.UsageError(f"a port is a number from 0 (any free one) to 65535, not {first}.")
    family, address = _resolved(host)
    tried = range(first, min(first + TRIED, 65536)) if first else range(1)
    for number in tried:
        # asyncio sets TCP_NODELAY only if the protocol is given as TCP; without it each small response takes 40 ms
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # reuse a port that was just closed; on Windows this would share a port in use
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
    """The address that a name resolves to, IPv4 if there is a choice."""
    try:
        candidates = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _no_address(host) from None
    family, *_, address = min(candidates, key=lambda candidate: candidate[0] != socket.AF_INET)
    return family, str(address[0])


def _no_address(host: str) -> cs.UsageError:
    return cs.UsageError(f"{host!r} is not an address of this machine; omit --host, or give one that is.")


def address_of(listening: socket.socket) -> str:
    """The page's URL, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    here = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)
    return f"http://{f'[{here}]' if ':' in here else here}:{port}/"


def has_browser() -> bool:
    """Whether a graphical browser can be opened for the user: not over SSH, and not one that runs in the terminal."""
    if "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
