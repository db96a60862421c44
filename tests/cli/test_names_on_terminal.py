"""Names that would steer a terminal: escapes, newlines, right-to-left overrides and markup, through every command."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from commands import Commands
from convscope.escaping import STEERING, joined, spelled

EVIL = "\x1b]0;title\x07\x1b[35mE\nerror: forged\u202e\u2028\x9b31m\x7f[red]"
"""A title, a colour, a forged line, a right-to-left override, a C1 control sequence and Rich's markup."""
SHOWN = r"\x1b]0;title\x07\x1b[35mE\nerror: forged\u202e\u2028\x9b31m\x7f[red]"
NET = f"""
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module({EVIL!r}, nn.Conv2d(1, 4, 3, padding=1))
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 8 * 8, 2)

    def forward(self, x):
        return self.fc(self.relu(getattr(self, {EVIL!r})(x)).flatten(1))
"""


def harmless(text: str) -> None:
    """Only newlines that the program wrote, and no line that a name forged."""
    assert not STEERING.search(text.replace("\n", "")), text.encode("unicode_escape")
    assert not any(line.startswith("error: forged") for line in text.splitlines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data set, a network and a trained run, all with such names; the working folder."""
    try:
        EVIL.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
    except UnicodeEncodeError:
        pytest.skip("files cannot have such names in this locale")
    root = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for name in (EVIL, "plain"):
        (root / "pets" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(root / "pets" / name / f"{EVIL}{number}.png")
    (root / "net.py").write_text(NET)
    (root / "damaged.png").write_bytes(b"no picture")
    (root / f"{EVIL}.png").write_bytes((root / "pets" / "plain" / f"{EVIL}0.png").read_bytes())
    before = Path.cwd()
    os.chdir(root)
    cs.train("folder:pets", "net.py:Net", epochs=2, out=f"run {EVIL}")
    yield root
    os.chdir(before)


RUN, FILE, NUMBER = f"run {EVIL}", f"{EVIL}.png", f"{EVIL}:0,1,1"
COMMANDS: dict[str, list[str]] = {
    "train": ["train", "folder:pets", "--model", "net.py:Net", "--epochs", "1", "--out", f"new {EVIL}"],
    "train that exists": ["train", "folder:pets", "--out", RUN],
    "resume": ["train", "--resume", "--out", RUN],
    "evaluate": ["evaluate", RUN],
    "evaluate others": ["evaluate", RUN, "shapes"],
    "predict": ["predict", RUN, FILE, "folder:pets:test/0"],
    "predict unknown": ["predict", RUN, f"no {EVIL}"],
    "trace": ["trace", RUN, FILE],
    "explain": ["explain", RUN, FILE, "--at", NUMBER],
    "explain depth": ["explain", RUN, FILE, "--at", "fc:0", "--depth", "3"],
    "explain to input": ["explain", RUN, FILE, "--at", "fc:0", "--to-input"],
    "explain unknown": ["explain", RUN, FILE, "--at", f"no{EVIL}:0"],
    "explain no cell": ["explain", RUN, FILE, "--at", EVIL],
    "verify": ["verify", RUN, FILE],
    "samples": ["plot", "samples", "folder:pets", "--out", f"new {EVIL}.png"],
    "pixels": ["plot", "pixels", FILE, "--out", "x.png"],
    "kernels": ["plot", "kernels", RUN, "--out", "x.svg"],
    "maps": ["plot", "maps", RUN, FILE, "--out", "x.svg"],
    "confusion": ["plot", "confusion", RUN, "--out", "x.svg"],
    "history": ["plot", "history", RUN, "--out", "x.svg"],
    "filter": ["filter", FILE, "--kernel", "blur", "--out", "x.png"],
    "filter unknown": ["filter", FILE, "--kernel", EVIL],
    "lint": ["probe", "lint", RUN],
    "dead": ["probe", "dead", RUN, "--out", "x.svg"],
    "receptive field": ["probe", "receptive-field", RUN, FILE],
    "patches": ["probe", "patches", RUN, "--step", EVIL],
    "compare": ["probe", "compare", RUN, RUN],
    "shift": ["probe", "shift", "folder:pets", RUN],
    "attribution": ["probe", "attribution", RUN, FILE],
    "unknown command": [EVIL],
    "unknown option": ["train", f"--{EVIL}"],
    "no integer": ["train", "shapes", "--epochs", EVIL],
    "unknown folder": ["train", f"folder:{EVIL}/none"],
    "unknown data set": ["train", EVIL],
    "unknown model": ["trace", EVIL, FILE],
    "unknown module": ["trace", f"net.py:{EVIL}", FILE],
    "no size": ["plot", "samples", "folder:pets", "--size", EVIL],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_no_command_passes_on_what_steers_a_terminal(convscope: Commands, folder: Path, arguments: list[str]) -> None:
    message = convscope(*arguments)
    harmless(message.out)
    harmless(message.err)
    assert "Traceback" not in message.err
    assert message.out + message.err


def test_names_stay_recognizable(convscope: Commands, folder: Path) -> None:
    assert SHOWN in convscope.said("evaluate", RUN)
    assert SHOWN in convscope.said("trace", RUN, FILE)
    assert SHOWN in convscope.said("explain", RUN, FILE, "--at", NUMBER)


@pytest.mark.parametrize(
    "arguments",
    [["trace", RUN, FILE], ["evaluate", RUN], ["predict", RUN, FILE], ["explain", RUN, FILE, "--at", NUMBER]],
    ids=lambda arguments: arguments[0],
)
def test_json_is_escaped_and_says_the_same(convscope: Commands, folder: Path, arguments: list[str]) -> None:
    out = convscope.said(*arguments, "--json")
    harmless(out)
    assert EVIL in json.dumps(json.loads(out), ensure_ascii=False).encode().decode() or EVIL in str(
        _texts(json.loads(out))
    )


def _texts(value: object) -> str:
    if isinstance(value, dict):
        return "".join(_texts(part) for pair in value.items() for part in pair)
    return "".join(map(_texts, value)) if isinstance(value, list) else str(value)


def test_what_python_prints_steers_nothing_either(folder: Path) -> None:
    model = cs.load_run(RUN).model
    trace = cs.trace(model, cs.load_image(FILE, like=model))
    why = cs.explain(trace, "fc", (0,))
    results = [why, why.to_text(depth=3), why.to_input(), cs.difference(trace, trace), trace, trace[EVIL]]
    results += [
        cs.probe.receptive_fields(trace),
        cs.probe.receptive_field(trace, EVIL),
        cs.probe.dead(model, "folder:pets"),
    ]
    for result in results:
        harmless(str(result))
    with pytest.raises(cs.ConvscopeError) as error:
        cs.load_image(f"none {EVIL}")
    harmless(str(error.value))


TERMINAL = """
import sys
from convscope.cli import main
for command in {commands!r}:
    sys.argv = ["convscope", *command]
    try:
        main()
    except SystemExit:
        pass
"""
OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AK]|2K)")
"""Of Rich: styles, the cursor, and lines that are drawn again."""


def test_on_a_terminal_the_only_escapes_are_our_own(folder: Path) -> None:
    commands = [COMMANDS[name] for name in ("evaluate", "trace", "train", "unknown option", "samples", "explain depth")]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL.format(commands=commands)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        process.wait(60)
        os.close(ours)
    text = b"".join(parts).decode()
    assert "title" in text
    assert "\x1b]" not in text
    assert "\x1b[35m" not in text
    rest = OWN.sub("", text).replace("\r", "").replace("\n", "")
    assert not STEERING.search(rest), rest.encode("unicode_escape")


def test_a_summary_spells_the_names_of_layers() -> None:
    net = torch.nn.Sequential()
    net.add_module(EVIL.replace(".", ""), torch.nn.Conv2d(1, 1, 2))
    text = str(cs.summary(net, (1, 3, 3)))
    assert "convolution 2x2" in text
    assert not STEERING.search(text.replace("\n", ""))


def test_what_is_spelled_out_and_what_is_not() -> None:
    assert spelled("Käse 東京 \N{FAMILY} می\u200cخواهم") == "Käse 東京 \N{FAMILY} می\u200cخواهم"
    assert spelled(EVIL) == SHOWN
    assert spelled("\udcff\r\t\x00\u2066\ufeff") == r"\udcff\r\t\x00\u2066\ufeff"
    assert joined(["a\nb", "c"]) == "a\\nb\nc"


def test_a_message_is_short_whatever_names_it_quotes(convscope: Commands) -> None:
    path = "/".join(["a" * 200] * 15)
    for words in (
        ["trace", path, "crosses:plus"],
        ["trace", "crosses", f"{path}.png"],
        ["plot", "maps", "crosses", path],
    ):
        message = convscope(*words)
        assert message.status in {1, 2}
        assert len(message.err) < 2_200
        assert re.search(r"a{50} … a{50}", message.err)
    error = cs.ConvscopeError("two words " * 1000 + "the end.")
    assert str(error).startswith("two words two")
    assert str(error).endswith("the end.")
    assert len(str(error)) <= 2_000
