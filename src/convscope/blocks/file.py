"""File: a network of blocks as a JSON file, net.json, which may come from an untrusted source."""

from pathlib import Path
from typing import Any

from convscope.blocks.templates import template
from convscope.errors import UnknownName, UsageError
from convscope.files import read_file
from convscope.json_values import parse_json

SUFFIX = ".json"
BYTES = 4_000_000
"""Largest file: `reading.BY_HAND` weights of 20 characters take 1 MB, and a few times that with white space."""
KEYS = ("blocks", "shape", "classes")


def is_network_file(spec: object) -> bool:
    """Whether the name of a model is the path of a file of blocks.

    >>> is_network_file("shapes-cnn")
    False
    """
    try:
        return isinstance(spec, str | Path) and Path(spec).suffix == SUFFIX and Path(spec).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # a name that cannot be a file's
        return False


def read(network: str | Path) -> dict[str, Any]:
    """A template's blocks, or what a file of blocks holds.

    >>> read("crosses")["blocks"][1]
    {'block': 'avg-pool', 'size': 3}

    Args:
        network: A name of `TEMPLATES`, or the path of a JSON file.

    Returns:
        The arguments of the network `blocks`: its blocks, and its shape and classes where the file has them.

    Raises:
        UnknownName: neither a template nor a file.
        UsageError: a file that cannot be read, or is not one of blocks.
    """
    if is_network_file(network):
        return read_network_file(network)
    return {"blocks": template(str(network))}


def read_network_file(path: str | Path) -> dict[str, Any]:
    """The arguments of the network `blocks` that a file describes; its blocks are not checked yet.

    Args:
        path: A list of blocks as JSON, or an object {"blocks": [...], "shape": [1, 28, 28], "classes": 10}, of which
            the last two may be left out.

    Raises:
        UsageError: it cannot be read, or is neither.
    """
    file = Path(path).expanduser()
    try:
        content = parse_json(read_file(file, most=BYTES))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {str(error).rstrip('.')}.") from None
    arguments = {"blocks": content} if isinstance(content, list) else content
    if not isinstance(arguments, dict) or not isinstance(arguments.get("blocks"), list):
        raise UsageError(
            f'{path} does not describe a network; write a list such as [{{"block": "conv"}}, ...], or an object with '
            'this list as "blocks".'
        )
    for name in arguments:
        if name not in KEYS:
            raise UnknownName(f"part of {path}", name, KEYS)
    return arguments
