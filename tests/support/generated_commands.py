"""Generated command lines, and the good, odd and damaged files that they are about. Seeded."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import convscope as cs

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


def make_files(root: Path) -> None:
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
