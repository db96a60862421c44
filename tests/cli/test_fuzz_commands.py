"""The command line under generated invocations: every one ends, by a result or a sentence, and never in a traceback.

Seeded: the same number gives the same command line. A short run is part of every test run, the long one of `make fuzz`.
"""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from convscope.cli import main
from convscope.escaping import STEERING

SHORT, LONG, CHUNK = 60, 1000, 50
SECONDS = 120
"""Until a command counts as hanging: the slowest takes about five on an idle machine."""

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

class Empty(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.head(y.mean((2, 3))) + y[:, :, :0].relu().sum()

class Nothing(Net):
    def forward(self, x):
        return self.conv(x)[:, :0]

class One(Net):
    def forward(self, x):
        return self.conv(x).mean()

class Maps(Net):
    def forward(self, x):
        return self.conv(x)

class Broken(nn.Module):
    def forward(self, x):
        raise KeyError("broken")

def fails():
    raise OSError("fails")

Number = 7
"""


def _files(root: Path) -> None:
    """What commands are about: good files, odd ones and damaged ones."""
    rng = np.random.default_rng(0)
    for name, size in (
        ("pets/cat", 6),
        ("pets/dog", 6),
        ("split/train/cat", 4),
        ("split/train/dog", 4),
        ("split/test", 3),
    ):
        (root / name).mkdir(parents=True)
        for number in range(size):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(root / name / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(root / "photo.jpg")
    Image.fromarray(rng.random((8, 8), np.float32)).save(root / "float.tif")
    Image.fromarray(rng.random((8, 8), np.float32) * 7).save(root / "unclear.tif")
    Image.new("RGBA", (5, 3), (1, 2, 3, 4)).save(root / "clear.png")
    Image.new("L", (1, 1)).save(root / "dot.png")
    (root / "ünïcode ☃ \x1b[31m.png").write_bytes((root / "dot.png").read_bytes())
    (root / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    (root / "empty.png").touch()
    (root / "cut.png").write_bytes((root / "photo.jpg").read_bytes()[:300])
    (root / "net.py").write_text(NET)
    (root / "wrong.py").write_text("class Net(:\n")
    np.savez(root / "data.npz", images=rng.integers(0, 256, (12, 8, 8), np.uint8), labels=np.arange(12) % 2)
    np.savez(root / "bands.npz", images=np.zeros((12, 8, 8, 13), np.uint8), labels=np.arange(12) % 2)
    np.savez(root / "unclear.npz", images=np.full((12, 8, 8), 3.5), labels=np.arange(12) % 2)
    (root / "cut.npz").write_bytes((root / "data.npz").read_bytes()[:200])
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe.npz")
    (root / "loop").symlink_to("loop")
    (root / "nobody").mkdir()
    cs.train("crosses", epochs=2, out=root / "run")
    cs.train("folder:pets", "net.py:Net", epochs=1, out=root / "own")
    whole = (root / "run" / "config.json").read_text()
    for name, config in (("torn", whole[:200]), ("odd", whole.replace('"plus"', '"\\u001b[31m"'))):
        (root / name).mkdir()
        for file in ("config.json", "weights.safetensors", "metrics.jsonl"):
            (root / name / file).write_bytes((root / "run" / file).read_bytes())
        (root / name / "config.json").write_text(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root, before = tmp_path_factory.mktemp("fuzz"), Path.cwd()
    os.chdir(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        patch.setenv("CONVSCOPE_DATA", str(root))
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing is downloaded
        _files(root)
        yield root
    os.chdir(before)


ODD = (
    "",
    " ",
    "-",
    "--",
    "0",
    "-1",
    "nan",
    "1e999",
    "9" * 40,
    "\x1b]0;t\x07",
    "[red]",
    "é☃",
    "a\nb",
    "../..",
    "/",
    "~",
    "%s",
    "None",
    "a:b:c",
    ":",
    "?",
    "x" * 5000,
    "\udcff",
)
MODELS = (
    "run",
    "own",
    "crosses",
    "shapes-cnn",
    "net.py:Net",
    "net.py:Empty",
    "net.py:Nothing",
    "net.py:One",
    "net.py:Maps",
    "net.py:Broken",
    "net.py:fails",
    "net.py:Number",
    "net.py:No",
    "wrong.py:Net",
    "no.py:Net",
    "torn",
    "odd",
    "loop",
    "nobody",
    "os:system",
    "torch.nn:Identity",
    "photo.jpg",
)
IMAGES = (
    "photo.jpg",
    "float.tif",
    "unclear.tif",
    "clear.png",
    "dot.png",
    "ünïcode ☃ \x1b[31m.png",
    "pointer.png",
    "empty.png",
    "cut.png",
    "pipe.png",
    "loop",
    "nobody",
    "no.png",
    "crosses:plus",
    "crosses:test/1",
    "shapes:test/3",
    "shapes:9/9",
    "folder:pets:test/0",
    "folder:split:test/1",
    "npz:data.npz:3",
    "npz:cut.npz:0",
    "npz:pipe.npz:0",
    "mnist:test/0",
    "square:0",
    "http://a.b/c.png",
    "/dev/zero",
)
DATA = (
    "crosses",
    "square",
    "shapes",
    "folder:pets",
    "folder:split",
    "folder:pets?train=cat",
    "folder:pets?splits=none",
    "folder:loop",
    "folder:nobody",
    "folder:.",
    "npz:data.npz",
    "npz:bands.npz",
    "npz:bands.npz?layout=nchw",
    "npz:unclear.npz",
    "npz:unclear.npz?white=255",
    "npz:cut.npz",
    "npz:pipe.npz",
    "npz:net.py",
    "npz:",
    "mnist",
    "hub:nobody",
    "hub:",
    "folder:",
)
STEPS = ("conv", "conv1", "fc", "relu", "head", "input", "add", "0", "conv:0")
CELLS = (
    "conv:0,1,1",
    "fc:0",
    "conv1:0,0,0",
    "head:1",
    "conv:0",
    "conv:9,9,9",
    "conv:-1,0,0",
    "conv:a",
    "fc",
    ":",
    "conv:1,",
)
NUMBERS = ("0", "1", "2", "3", "7", "-1", "99", "1.5", "x")
OUTS = ("a.png", "a.svg", "a.pdf", "a.gif", "no/a.png", "loop.png", "nobody", ".png", "a.PNG")
KERNELS = ("blur", "sobel-x", "1 0; 0 1", "1", "a", "1 2; 3", ";", "1/0", "1e400", "nan", "0 0; 0 0")
OPTIONS: dict[str, Sequence[str]] = {
    "--at": CELLS,
    "--out": OUTS,
    "--step": STEPS,
    "--kernel": KERNELS,
    "--split": ("train", "test", "all", "tset"),
    "--size": ("8", "8x6", "0", "x", "1x1"),
    "--top": NUMBERS,
    "--depth": NUMBERS,
    "--most": NUMBERS,
    "--cells": ("1", "3", "0"),
    "--images": ("2", "8", "0", "x"),
    "--seed": ("0", "5", "-1", str(2**64)),
    "--weights": ("run/weights.safetensors", "no.pt", "net.py"),
    "--model-arg": ("a=1", "kernels=1", "=", "x"),
    "--preprocess": ("size=8", "size=0", "mean=x", "channels=3", "scale=0", "no=1"),
    "--classes": ("a,b", "a,a", ",", "a"),
    "--per-class": NUMBERS,
    "--dataset": DATA,
    "--data-dir": (".", "no", "photo.jpg"),
    "--layer": STEPS,
    "--loss": ("mse", "nll", "x"),
    "--epochs": ("1", "0", "x"),
    "--batch-size": ("4", "0", "x"),
    "--lr": ("0.01", "0", "nan", "x"),
    "--optimizer": ("adam", "sgd", "x"),
    "--precision": ("float32", "float64", "x"),
    "--on": DATA,
    "--reach": ("1", "0", "-1"),
    "--resume-from": ("parts", "photo.jpg"),
    "--crop": ("0 0 3 3", "0 0 99 99"),
    "--unit": (),
    "--json": (),
    "--all": (),
    "--short": (),
    "--to-input": (),
    "--hidden": (),
    "--same": (),
    "--per-channel": (),
    "--shared": (),
    "--grey": (),
    "--strict": (),
    "--resume": (),
    "--help": (),
    "--nonsense": (),
}
SHOW = ("--json", "--weights", "--model-arg", "--preprocess", "--classes", "--data-dir")
DRAW = ("--out", "--data-dir", "--step", "--shared", "--most", "--weights", "--preprocess")
PROBE = ("--json", "--out", "--step", "--split", "--images", "--size", "--grey", "--resume-from", "--weights")
COMMANDS: dict[str, tuple[Sequence[Sequence[str]], Sequence[str]]] = {
    "train": (
        [DATA],
        ("--epochs", "--batch-size", "--lr", "--optimizer", "--loss", "--seed", "--size", "--precision", "--resume"),
    ),
    "evaluate": ([MODELS, DATA], ("--split", "--json", "--strict", "--data-dir")),
    "predict": ([MODELS, IMAGES, IMAGES], ("--top", *SHOW)),
    "trace": ([MODELS, IMAGES], ("--hidden", *SHOW)),
    "explain": ([MODELS, IMAGES], ("--at", "--depth", "--all", "--short", "--to-input", *SHOW)),
    "verify": ([MODELS, IMAGES], ("--cells", *SHOW)),
    "filter": ([IMAGES], ("--kernel", "--out", "--same", "--per-channel", "--json")),
    "plot samples": ([DATA], ("--split", "--per-class", "--seed", "--size", "--grey", "--out")),
    "plot pixels": ([IMAGES], ("--crop", "--unit", "--out")),
    "plot kernels": ([MODELS], ("--layer", *DRAW)),
    "plot maps": ([MODELS, IMAGES], (*DRAW, "--dataset", "--per-class")),
    "plot network": ([MODELS, IMAGES], (*DRAW, "--depth")),
    "plot number": ([MODELS, IMAGES], (*DRAW, "--at", "--to-input")),
    "plot history": ([MODELS], ("--out",)),
    "plot confusion": ([MODELS], ("--out", "--split")),
    "probe lint": ([MODELS, DATA], ("--loss", *PROBE)),
    "probe receptive-field": ([MODELS, IMAGES], ("--at", *PROBE)),
    "probe gradients": ([MODELS, DATA], ("--loss", "--points", *PROBE)),
    "probe dead": ([MODELS, DATA], PROBE),
    "probe patches": ([MODELS, DATA], PROBE),
    "probe shortcut": ([DATA], ("--json", "--out")),
    "probe compare": ([MODELS, MODELS], ("--on", *PROBE)),
    "probe shift": ([DATA, MODELS], ("--reach", *PROBE)),
    "probe attribution": ([MODELS, IMAGES], ("--at", *PROBE)),
    "datasets": ([], ("--json",)),
    "models": ([], ("--json",)),
    "open": ([("nowhere", "no.py:Net", "torn", "run")], ("--weights",)),
    "serve": ([("photo.jpg", ".", "no")], ()),
    "nonsense": ([], ()),
}


def invocation(seed: int) -> list[str]:
    """A command line: mostly as it is meant, with options that fit, and now and then something odd."""
    rng = random.Random(seed)
    command = rng.choice([*COMMANDS])
    arguments, fitting = COMMANDS[command]
    words = command.split()
    for pool in arguments:
        if rng.random() < 0.9:
            words.append(rng.choice(ODD if rng.random() < 0.07 else pool))
    wanted = [option for option in ("--at", "--kernel") if option in fitting and rng.random() < 0.9]
    wanted += rng.sample(fitting, min(len(fitting), rng.choice([0, 0, 1, 2, 3])))
    if rng.random() < 0.05:
        wanted.append(rng.choice([*OPTIONS]))
    for option in wanted:
        words.append(option)
        values = OPTIONS[option]
        if values:
            value = rng.choice(ODD if rng.random() < 0.1 else values)
            words += value.split() if option == "--crop" else [value]
    if command == "train":  # short, and each into a folder of its own
        words += ["--epochs", "1", "--out", f"trained-{seed}"]
    if command in {"open", "serve"}:
        words += ["--no-browser", "--port", "0"]
    return words


class HangError(BaseException):
    """A command that does not end; no OSError as TimeoutError is, which commands answer with a sentence."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"not done within {seconds} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def run(seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how a command ended; nothing where it is as it should be."""
    words = invocation(seed)
    monkeypatch.setattr(sys, "argv", ["convscope", *words])
    monkeypatch.setattr("convscope.server.launch.Explorer.wait", lambda explorer: explorer.close())  # Ctrl-C at once
    message, status = "", 0
    try:
        with within(SECONDS):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException as error:  # whatever it is, a person would see a traceback
        message = f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error)[-3:])}"
    out, err = capsys.readouterr()
    if not message and status not in {0, 1, 2}:
        message = f"status {status}"
    if not message and status and not (out + err).strip():
        message = "no word of why"
    if not message and STEERING.search((out + err).replace("\n", "")):
        message = f"steers the terminal: {STEERING.search((out + err).replace(chr(10), ''))}"
    return message and f"{seed}: {words!r}\n  {message}"


@pytest.mark.filterwarnings("ignore")
def test_generated_commands_end_in_results_and_sentences(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [message for seed in range(SHORT) if (message := run(seed, monkeypatch, capsys))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(SHORT, SHORT + LONG, CHUNK))
def test_a_thousand_generated_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start: int
) -> None:
    wrong = [message for seed in range(start, start + CHUNK) if (message := run(seed, monkeypatch, capsys))]
    assert not wrong, "\n".join(wrong)


def test_a_planted_error_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("planted")

    seed = next(seed for seed in range(1000) if invocation(seed) == ["models"])
    assert not run(seed, monkeypatch, capsys)
    monkeypatch.setattr("convscope.cli.catalog.show_table", broken)
    assert "IndexError: planted" in run(seed, monkeypatch, capsys)


def test_a_command_that_hangs_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = next(seed for seed in range(1000) if invocation(seed) == ["models"])
    monkeypatch.setattr(f"{__name__}.SECONDS", 1)
    monkeypatch.setattr("convscope.cli.catalog.show_table", lambda *_, **__: time.sleep(30))
    assert "HangError" in run(seed, monkeypatch, capsys)
