"""Public functions with arguments of the wrong kind, in the wrong place or of no use: a result or one sentence.

Seeded: the same number gives the same call. A short run is part of every test run, the long one of `make fuzz`.
Left out are functions that serve, and the constructors of results, which people do not call.
"""

import inspect
import io
import os
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope as cs
from convscope.errors import ConvscopeError
from convscope.escaping import LONGEST, STEERING

SHORT, LONG, CHUNK = 250, 4000, 500
SERVING = {"launch", "open", "serve", "serve_lesson"}
BUILT = ("Card", "Dataset", "Preprocess")
"""Classes whose constructors people call."""


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Undecided:
    def __bool__(self) -> bool:
        raise RuntimeError("neither")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Things"]:
    root, before = tmp_path_factory.mktemp("python"), Path.cwd()
    os.chdir(root)
    yield Things()
    os.chdir(before)


class Things:
    """What calls are made of: functions, good values by the name of a parameter, and any values."""

    def __init__(self) -> None:
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
        image = np.random.default_rng(0).random((1, 8, 8), np.float32)
        trace = cs.trace(net, image)
        step = cs.trace(net, np.stack([image, image]), target=[0, 1])
        data = cs.load_dataset("shapes", size=40)
        run = cs.train("crosses", epochs=2, out="run")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save("a.png")
        trace.save("t.safetensors")
        why = cs.explain(trace, "0", (0, 1, 1))
        objects = {
            "Trace": trace, "Run": run, "Dataset": data, "Explanation": why, "Card": cs.card_of(net),
            "Verification": cs.verify(trace), "Summary": cs.summary(net), "Step": trace.steps[0],
        }  # fmt: skip
        self.functions = {**_functions(), **_methods(objects)}
        self.good: Mapping[str, list[Any]] = {
            "trace": [trace, step], "model": [net, "crosses", "run"], "image": [image, "crosses:plus"],
            "step": ["0", 1], "dataset": ["crosses", data], "cell": [(0, 1, 1), 0], "run": [run, "run"],
            "out": ["o.png", "o.xlsx", "o.html"], "epochs": [1], "size": [8, None], "name": ["crosses", "shapes"],
            "kernel": ["blur"], "picture": [image], "path": ["t.safetensors", "run"], "spec": ["crosses", net],
            "source": ["a.png", image], "like": [net, None], "x": [image], "grad": [image],
            "weight": [np.ones((1, 1, 2, 2))], "layers": [[cs.reference.Layer("relu")]],
        }  # fmt: skip
        self.any = [
            *(None, True, 0, 1, -1, 7, 10**30, 1.5, float("nan"), 1j, "", "conv", "0", "a.png", "run", "crosses:plus"),
            *("/dev/zero", "a\0b", "x" * 3000, "\x1b[31mé\u202e", b"x", Path("a.png"), Path(), [], [1], [None], (0,)),
            *((0, 1, 1), ("0", (0, 1, 1)), {}, {"a": 1}, {1: 2}, set(), range(3), slice(0, 1), ..., object(), int, np),
            *(
                net,
                trace,
                step,
                data,
                run,
                why,
                image,
                nn.ReLU(),
                nn.Conv2d,
                print,
                Unprintable(),
                Undecided(),
                cs.Card,
            ),
            *(
                torch.tensor(image),
                torch.zeros(0),
                torch.zeros(2, 1, 8, 8),
                torch.zeros(3, device="meta"),
                torch.float16,
            ),
            *(torch.eye(3).to_sparse(), nn.Parameter(torch.zeros(3)), np.zeros(0), np.array(3), np.array("x")),
            *(np.array([{}], object), np.zeros((1, 8, 8), complex), np.zeros((1, 8, 8), ">f4"), np.ma.array([1, 2])),
            *(np.zeros((2, 2, 2), np.float16), np.array(["2020"], "M8[Y]"), ValueError("e"), io.BytesIO(b"x")),
        ]

    def call(self, seed: int) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """A function's name with arguments: most of a kind that it takes, some of any other."""
        rng = random.Random(seed)
        name = rng.choice(sorted(self.functions))
        args, named = list[Any](), dict[str, Any]()
        for parameter in inspect.signature(self.functions[name]).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD or (
                parameter.default is not parameter.empty and rng.random() < 0.65
            ):
                continue
            value = rng.choice(self.good.get(parameter.name, self.any) if rng.random() < 0.6 else self.any)
            if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty:
                named[parameter.name] = value
            else:
                args.append(value)
        if rng.random() < 0.15:
            rng.shuffle(args)
        if name == "train":
            named = {"epochs": 1, "out": f"trained-{seed}", **named}
        return name, tuple(args), named


def _functions() -> dict[str, Callable[..., Any]]:
    """The public functions, also those of the rooms that users import, and constructors that people call."""
    found: dict[str, Callable[..., Any]] = {}
    for prefix, room, names in (
        ("", cs, dir(cs)),
        *((f"{name}.", getattr(cs, name), _exported(getattr(cs, name))) for name in ("plot", "probe", "lessons")),
        *((f"{name}.", getattr(cs, name), _exported(getattr(cs, name))) for name in ("filters", "reference")),
    ):
        for name in names:
            value = getattr(room, name)
            if (inspect.isfunction(value) and name not in SERVING) or name in BUILT:
                found[prefix + name] = value
    found |= {f"{name}.from_json": getattr(cs, name).from_json for name in ("Card", "Preprocess")}
    return found | {"Trace.load": cs.Trace.load}


def _exported(room: Any) -> list[str]:
    own = [n for n, value in vars(room).items() if str(getattr(value, "__module__", "")).startswith(room.__name__)]
    return [name for name in getattr(room, "__all__", own) if not name.startswith("_")]


def _methods(objects: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    pairs = (
        (kind, name, getattr(value, name)) for kind, value in objects.items() for name in dir(value) if name[0] != "_"
    )
    return {f"{kind.lower()}.{name}": method for kind, name, method in pairs if inspect.ismethod(method)}


def wrong(things: Things, seed: int) -> str:
    """What is wrong with how a call ended; nothing where it is as it should be."""
    name, args, named = things.call(seed)
    try:
        result = things.functions[name](*args, **named)
        if inspect.isgenerator(result):
            list(result)
        "" if name in BUILT else str(result)
    except ConvscopeError as error:
        message = str(error)
        if STEERING.search(message) or len(message) > LONGEST or not message.strip():
            return f"{seed}: {name}: no sentence: {message!r}"
    except TypeError as error:
        if len(traceback.extract_tb(error.__traceback__)) > 2 and "argument" not in str(error):
            return _told(seed, name, args, named, error)
    except BaseException as error:  # whatever it is, a person would see a traceback
        return _told(seed, name, args, named, error)
    return ""


def _told(seed: int, name: str, args: tuple[Any, ...], named: Mapping[str, Any], error: BaseException) -> str:
    shown = [type(value).__name__ for value in args] + [f"{n}: {type(value).__name__}" for n, value in named.items()]
    return f"{seed}: {name}({', '.join(shown)})\n  {''.join(traceback.format_exception(error)[-2:])}"


@pytest.mark.filterwarnings("ignore")
def test_public_functions_answer_any_arguments_in_a_sentence(things: Things) -> None:
    messages = [message for seed in range(SHORT) if (message := wrong(things, seed))]
    assert not messages, "\n".join(messages)


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(SHORT, SHORT + LONG, CHUNK))
def test_thousands_of_calls(things: Things, start: int) -> None:
    messages = [message for seed in range(start, start + CHUNK) if (message := wrong(things, seed))]
    assert not messages, "\n".join(messages)


def test_a_planted_error_is_seen(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("planted")

    seed = next(seed for seed in range(10**6) if things.call(seed)[0] == "reference.lookup")
    assert not wrong(things, seed)
    monkeypatch.setitem(things.functions, "reference.lookup", broken)
    assert "KeyError: 'planted'" in wrong(things, seed)
