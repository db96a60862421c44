"""Probes: questions about a model and its data, answered by measurement.

    found = cs.probe.receptive_field(trace, "conv2", (0, 5, 5))
    print(found)
    cs.plot.receptive_field(found)

A probe is a function that gives a frozen dataclass: printed it is what a person reads, `to_json()` is what a script
reads. It never prints and never draws; `cs.plot` has a picture of the same name.
`PROBES` has one record for each question: commands, the page's form and the server's catalogue are derived from it.
Importing this package loads no torch: the names in `public.py` are imported when the first of them is used.
Uses torch, traces, data and trainings; no pictures, no command line.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convscope.probe.public import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(f"convscope.probe has no {name!r}.")
        value = getattr(importlib.import_module("convscope.probe.public"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        public = importlib.import_module("convscope.probe.public")
        return sorted({*globals(), *(name for name in vars(public) if not name.startswith("_"))})


class _ProbePackage(ModuleType):
    """A probe's function has the name of its file: importing the file must not take the function's place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _FUNCTIONS):
            super().__setattr__(name, value)


# below, since the functions of the records look theirs up in this module
from convscope.probe.records import PROBES as PROBES  # noqa: E402
from convscope.probe.support.probe_record import Argument as Argument  # noqa: E402
from convscope.probe.support.probe_record import Field as Field  # noqa: E402
from convscope.probe.support.probe_record import Probe as Probe  # noqa: E402
from convscope.probe.support.probe_record import Result as Result  # noqa: E402
from convscope.probe.support.probe_record import Setting as Setting  # noqa: E402
from convscope.probe.support.probe_record import Subject as Subject  # noqa: E402

_FUNCTIONS = frozenset(probe.function for probe in PROBES.values())
sys.modules[__name__].__class__ = _ProbePackage
