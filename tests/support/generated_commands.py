"""Generated command lines, about the files of `generated_files`. Seeded."""

import random
from collections.abc import Iterator, Sequence

from typer.main import get_command

from convscope.cli import app
from convscope.cli.reference import commands

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
    "net.py:Volume",
    "net.py:Complex",
    "net.py:Strange",
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
    "net.json",
    "wrong.json",
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
    "one.npy",
    "objects.npy",
    "crosses:train/0-3",
    "crosses:train/3-0",
    "crosses:train/0-999",
    "folder:pets:train/0-1",
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
FUNCTIONS = (
    "mine.py:relu",
    "mine.py:conv2d",
    "mine.py:softmax",
    "mine.py:linear",
    "mine.py:relu6",
    "mine.py:no",
    "wrong.py:relu",
    "no.py:relu",
    "mine.py",
    "os:system",
    "nobody:relu",
    "pipe.png:relu",
)
LESSONS = ("mine.md", "broken.md", "cut.md", "pipe.md", "nobody", "net.py", "no.md", "Crosses", "run/config.json")
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
    "conv1.weight.grad:0,0,0,0",
    "loss:",
    "conv1.weight.new:0,0,0,0",
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
    "--input": ("x=one.npy", "x=photo.jpg", "y=one.npy", "x", "=", "x=pipe.npz", "x=objects.npy"),
    "--target": ("0", "1", "0,1", "0,1,0,1", "7", "x", ","),
    "--at-step": NUMBERS,
    "--limit": ("1", "0", "-1", "nan", "x", "0.001"),
    "--as": ("relu", "conv2d", "no", "linear"),
    "--layout": ("nhwc", "nchw", "no"),
    "--seconds": ("1", "0", "-1", "nan", "x"),
    "--points": NUMBERS,
    "--weights-key": ("state_dict", "no"),
    "--book": ("a.xlsx", "a.txt", "no/a.xlsx", "nobody", "pipe.npz"),
    "--file": ("a.html", "a.txt", "no/a.html", "nobody"),
    "--number": NUMBERS,
    "--python": (),
    "--batched": (),
    "--unbatched": (),
    "--text": (),
    "--teacher": (),
    "--run": (),
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
SIZES = ("1x8x8", "3x8x8", "8", "0", "1x1x1", "x", "1x1000000x1000000", "-1x3")
SHOW = ("--json", "--weights", "--model-arg", "--preprocess", "--classes", "--data-dir")
STEP = ("--target", "--loss", "--optimizer", "--lr", "--at-step", "--input", "--batched", "--unbatched")
DRAW = ("--out", "--data-dir", "--step", "--shared", "--most", "--weights", "--preprocess")
PROBE = ("--json", "--out", "--step", "--split", "--images", "--size", "--grey", "--resume-from", "--weights")
FITTING: dict[str, tuple[Sequence[Sequence[str]], Sequence[str]]] = {
    "train": (
        [DATA],
        ("--epochs", "--batch-size", "--lr", "--optimizer", "--loss", "--seed", "--size", "--precision", "--resume"),
    ),
    "evaluate": ([MODELS, DATA], ("--split", "--json", "--strict", "--data-dir")),
    "predict": ([MODELS, IMAGES, IMAGES], ("--top", *SHOW)),
    "trace": ([MODELS, IMAGES], ("--hidden", *SHOW, *STEP)),
    "explain": ([MODELS, IMAGES], ("--at", "--depth", "--all", "--short", "--to-input", *SHOW, *STEP)),
    "verify": ([MODELS, IMAGES], ("--cells", *SHOW, *STEP)),
    "summary": ([MODELS, SIZES], ("--short", *SHOW)),
    "workbook": ([MODELS, IMAGES], ("--at", "--book", "--weights", "--input", "--model-arg", "--preprocess")),
    "report": ([MODELS, IMAGES, IMAGES], ("--file", "--limit", "--weights", "--preprocess", "--classes")),
    "check": ([FUNCTIONS], ("--as", "--layout", "--seconds", "--json")),
    "lesson": ([LESSONS], ("--text", "--teacher", "--run", "--short", "--json")),
    "notebook": ([("books", "photo.jpg", "run"), LESSONS], ()),
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
    "blocks": ([("crosses", "detector", "net.json", "wrong.json", *MODELS), SIZES], ("--json", "--python", "--number")),
    "demo": ([], ()),
    "nonsense": ([], ()),
}
"""Command -> what its arguments may be, and options that make sense more often than others."""


def _all_commands() -> Iterator[tuple[str, tuple[Sequence[Sequence[str]], Sequence[str]]]]:
    """Every command of the command line, also those that `FITTING` does not have, with all options that have values."""
    yield "nonsense", ([], ())
    for path, command in commands(get_command(app)):
        name = " ".join(path)
        arguments = [part for part in command.params if part.param_type_name == "argument"]
        pools, fitting = FITTING.get(name, ([(*MODELS, *IMAGES, *DATA)] * len(arguments), ()))
        own = {option for part in command.params for option in part.opts if option in OPTIONS}
        yield name, (pools, (*fitting, *sorted(own - {*fitting, "--out"} - {"--help"})))


COMMANDS = dict(_all_commands())


SPELLED = {"--book": "--out", "--file": "--out", "--number": "--classes"}


def invocation(command: str, number: int) -> list[str]:
    """A command line: mostly as it is meant, with options that fit, and now and then something odd."""
    rng = random.Random(f"{command} {number}")
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
        words.append(SPELLED.get(option, option))
        values = OPTIONS[option]
        if values:
            value = rng.choice(ODD if rng.random() < 0.1 else values)
            words += value.split() if option == "--crop" else [value]
    if command == "train":  # short, and each into a folder of its own
        words += ["--epochs", "1", "--out", f"trained-{number}"]
    if command == "demo":
        words += ["--out", rng.choice(["photo.jpg", "pets", "run", "demo", "no/demo", "loop", *ODD])]
    if command in {"open", "serve", "lesson"}:
        words += ["--no-browser", "--port", "0"]
    return words
