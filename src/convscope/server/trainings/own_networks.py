"""The user's own networks that can be trained from the page: those that were named when the server was started.

The page chooses among them by name; it cannot name code.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import convscope as cs
from convscope.server.session.schema import SourceInfo

Networks = Mapping[str, Mapping[str, Any]]
"""`file.py:Class` or `package.module:factory` -> its keyword arguments."""


def names_code(source: str) -> bool:
    """Whether a model's source is code, rather than a built-in network, a file of blocks or a run folder.

    >>> names_code("net.py:Net"), names_code("shapes-cnn"), names_code("runs/shapes-cnn")
    (True, False, False)
    """
    return ":" in os.path.splitdrive(source)[1] and not Path(source).exists()


class OwnNetworks:
    """Networks named by the user, by the name that the page shows.

    >>> list(OwnNetworks({"/home/ada/net.py:Net": {}}).networks)
    ['net.py:Net']
    """

    def __init__(self, networks: Networks) -> None:
        self.networks: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for source, args in networks.items():
            location, _, name = source.rpartition(":")
            short = f"{Path(location).name}:{name}"
            self.networks[source if short in self.networks else short] = (source, args)
        self._known: dict[tuple[str, tuple[int, ...], int], str] = {}

    def problem(self, name: str, source: SourceInfo) -> str:
        """Why a network cannot be trained on a data source, as a sentence; empty if it can.

        The network is built and run once on zeros, and the answer is remembered.
        """
        shape, classes = (source.channels, source.height, source.width), len(source.classes)
        key = name, shape, classes
        if key not in self._known:
            self._known[key] = self._tried(name, shape, classes)
        return self._known[key]

    def _tried(self, name: str, shape: tuple[int, int, int], classes: int) -> str:
        location, args = self.networks[name]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about layers with zero elements; such networks then fail
                trace = cs.trace(cs.load_model(location, args=args), np.zeros(shape, np.float32))
        except cs.ConvscopeError as error:
            return str(error)
        made = trace.steps[-1].shape
        if made != (1, classes):
            shown = "x".join(map(str, made[1:])) or "1"
            return f"it gives {shown} number{'s' * (shown != '1')} for an image, but there are {classes} classes."
        return ""
