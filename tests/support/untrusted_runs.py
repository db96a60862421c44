"""Runs whose folders name code: a network of the user's own, and files that leave a canary when they are executed."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from convscope.models import trust as records

IMAGE = "shapes:test/3"
NET = """
import blocks
from torch import nn

class Net(nn.Module):
    def __init__(self, kernels: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, kernels, 3, stride=3)
        self.fc = nn.Linear(kernels * 81, blocks.CLASSES)

    def forward(self, x):
        return self.fc(self.conv1(x).flatten(1))
"""
BLOCKS = "import deeper\nCLASSES = deeper.CLASSES"
DEEPER = "CLASSES = 2"

COMMANDS: Mapping[str, list[str]] = {
    "predict": ["predict", "RUN", IMAGE],
    "evaluate": ["evaluate", "RUN"],
    "trace": ["trace", "RUN", IMAGE],
    "explain": ["explain", "RUN", IMAGE, "--at", "conv1:0,0,0"],
    "verify": ["verify", "RUN", IMAGE],
    "summary": ["summary", "RUN"],
    "report": ["report", "RUN", IMAGE],
    "workbook": ["workbook", "RUN", IMAGE, "-o", "net.xlsx"],
    "open": ["open", "RUN", "--no-browser", "--port", "0"],
    "plot kernels": ["plot", "kernels", "RUN"],
    "plot maps": ["plot", "maps", "RUN", IMAGE],
    "plot network": ["plot", "network", "RUN", IMAGE],
    "plot number": ["plot", "number", "RUN", IMAGE, "--at", "conv1:0,0,0"],
    "plot confusion": ["plot", "confusion", "RUN"],
    "probe lint": ["probe", "lint", "RUN"],
    "probe gradients": ["probe", "gradients", "RUN"],
    "probe dead": ["probe", "dead", "RUN"],
    "probe patches": ["probe", "patches", "RUN"],
    "probe compare": ["probe", "compare", "RUN", "RUN"],
    "probe shift": ["probe", "shift", "shapes", "RUN"],
    "probe receptive-field": ["probe", "receptive-field", "RUN"],
    "probe attribution": ["probe", "attribution", "RUN", IMAGE],
    "train --resume": ["train", "--resume", "--out", "RUN"],
}
"""Every command that loads the network of a run; its options are those of `test_no_command_is_forgotten`."""

ACT = "__import__('pathlib').Path('CANARY').touch()"
"""What harmful code does."""
TOUCH = f"{ACT}\n"
HARMFUL: Mapping[str, str] = {
    "deploy.py": f"def publish(**_):\n    {ACT}\n",
    "module_here.py": TOUCH + "from torch import nn\nclass Net(nn.Module): pass",
    "package_here/__init__.py": TOUCH,
    "package_here/net.py": "from torch import nn\nclass Net(nn.Module): pass",
    "meta.py": (
        f"from torch import nn\nclass Meta(type(nn.Module)):\n    def __init__(cls, *a): {ACT}\n"
        "class Net(nn.Module, metaclass=Meta): pass"
    ),
    "annotated.py": f"from torch import nn\ndef net(**_) -> nn.Module:\n    {ACT}\n    return nn.Linear(1, 1)",
    "hubconf.py": TOUCH + "def net(): pass",
    "evil/own.py": TOUCH + "from torch import nn\nclass Net(nn.Module): pass",
    "evil/__init__.py": TOUCH,
    "evil/site-packages/hidden.py": TOUCH + "from torch import nn\nclass Net(nn.Module): pass",
}
"""Files that leave a canary when they are imported or called."""

COMMAND = {"command": "touch CANARY"}
SOURCES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "load_model": ("convscope:load_model", {"spec": "os:system", "args": COMMAND}),
    "load_model of a file": ("convscope:load_model", {"spec": "evil/own.py:Net"}),
    "load_model that trusts": ("convscope.models.loading:load_model", {"spec": "evil", "trust": True}),
    "build": ("convscope.models.user_code:find", {"spec": "evil/own.py:Net"}),
    "an exec of torch": (
        "torch.fx.graph_module:reduce_graph_module",
        {
            "body": {"_code": "\ndef forward(self, x):\n    return x\n"},
            "import_block": f"{ACT}\n",
        },
    ),
    "a hub of files": ("torch.hub:load", {"repo_or_dir": ".", "model": "net", "source": "local"}),
    "a function of Python": ("os:system", COMMAND),
    "a chain": ("convscope.server.trainings.training:subprocess.os.system", COMMAND),
    "a global of a method": ("torch.nn:Module.__init__.__globals__", {}),
    "an installed class": ("torch.nn:Linear", {"in_features": 4, "out_features": 2}),
    "a module that acts": ("antigravity:x", {}),
    "a main": ("unittest.__main__:main", {}),
    "a function of a file": ("deploy.py:publish", {"target": "chosen by the run"}),
    "an annotated function": ("annotated.py:net", {}),
    "a metaclass": ("meta.py:Net", {}),
    "a module": ("module_here:Net", {}),
    "a package": ("package_here.net:Net", {}),
    "a file of the run": ("evil/own.py:Net", {}),
    "a package that is the run": ("evil.own:Net", {}),
    "a path with ..": ("package_here/../evil/own.py:Net", {}),
    "an absolute path": ("HERE/evil/own.py:Net", {}),
    "a file that is called installed": ("evil/site-packages/hidden.py:Net", {}),
    "a link": ("link.py:Net", {}),
    "an address": ("file://HERE/evil/own.py:Net", {}),
    "a missing class": ("evil/own.py:Other", {}),
    "a missing file": ("nothing.py:Net", {}),
    "no place": (":Net", {}),
    "no name": ("deploy.py:", {}),
    "dots": ("...:x", {}),
    "empty": ("", {}),
    "a zero character": ("evil\0.py:Net", {}),
    "nobody's home": ("~nobody_of_this_name/net.py:Net", {}),
    "a long name": ("a" * 5000 + ".py:Net", {}),
    "a list": (["os:system"], {}),
    "a number": (3, {}),
    "an object": ({"source": "os:system"}, {}),
    "arguments that are pairs": ("os:system", [["command", "touch CANARY"]]),  # type: ignore[dict-item]
}


def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own; the working folder is an empty one."""
    monkeypatch.setenv(records.STATE, str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "state"


def write_net() -> Path:
    """A network of the user's in three files of the working folder."""
    for name, text in {"net.py": NET, "blocks.py": BLOCKS, "deeper.py": DEEPER}.items():
        Path(name).write_text(text)
    return Path("net.py").resolve()


def names(run: Path, source: Any, args: Any) -> None:
    """Let a run name another network."""
    config = json.loads((run / "config.json").read_text())
    config.pop("sha256", None)  # as an attacker would
    config["model"] |= {"source": source, "args": args}
    (run / "config.json").write_text(json.dumps(config))


def run_from_elsewhere(built_in: Path) -> Path:
    """A copy of a run in the working folder, beside files that must not be executed."""
    here = Path.cwd()
    shutil.copytree(built_in, "evil")
    for name, text in HARMFUL.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text.replace("CANARY", str(here / "CANARY")))
    Path("link.py").symlink_to(here / "evil" / "own.py")
    return Path("evil")


def instead(path: Path, make: Callable[[Path], None]) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    make(path)


def forget() -> None:
    """The networks' modules have the same names in every test."""
    for name in ("blocks", "deeper", "chosen", "extra", "later"):
        sys.modules.pop(name, None)
