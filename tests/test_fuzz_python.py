"""Public functions with arguments of the wrong kind, in the wrong place or of no use: a result or one sentence.

Seeded by the function's name and a number, so that a new function leaves the calls of the others as they are. A short
run is part of every test run, the long one of `make fuzz`.
Left out are functions that serve, and the constructors of results, which people do not call.
"""

import inspect
import io
import itertools
import json
import os
import random
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from sound_calls import sound_calls

SHORT, LONG = 4, 60
"""Calls of each function."""
ROOMS = ("blocks", "filters", "lessons", "plot", "probe", "reference")
"""The rooms that users import."""
SERVING = {"launch", "open", "serve", "serve_lesson"}
BUILT = ("Card", "Dataset", "Preprocess")
"""Classes whose constructors people call."""


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Undecided:
    def __bool__(self) -> bool:
        raise RuntimeError("neither")


class NoIndex:
    def __index__(self) -> int:
        raise RuntimeError("no index")


class NoArray:
    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("no array")


HUGE = 10**5000
HOSTILE: Mapping[str, Any] = {
    "huge": HUGE, "negative": -HUGE, "in a list": [HUGE], "nested": [[HUGE]], "in a tuple": (HUGE,), "in a set": {HUGE},
    "as a value": {"a": HUGE}, "as a key": {HUGE: 1}, "in an array": np.array([HUGE], object), "no index": NoIndex(),
    "no array": NoArray(), "undecided": Undecided(), "null": "a\0b", "surrogate": "\udcff", "text": np.str_("conv"),
    "date": np.datetime64("2020"), "complex": 1j, "half": torch.zeros(2, dtype=torch.float16), "empty": [[[[]]]],
    "ragged": [[1], [1, 2]], "bytes": b"\xff" * 9, "function": lambda: 0,
}  # fmt: skip
"""Values that break what formats, converts or compares them."""


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
        why = cs.explain(trace, "3", (1,))
        blocks = cs.blocks.template("shapes-cnn")
        Path("net.json").write_text(json.dumps(blocks))
        Path("mine.py").write_text("import numpy as np\ndef relu(x): return np.maximum(x, 0)\n")
        updated = cs.trace(net, np.stack([image, image]), target=[0, 1], optimizer="adam")
        objects = {
            "Trace": trace, "Run": run, "Dataset": data, "Explanation": why, "Card": cs.card_of(net),
            "Verification": cs.verify(trace), "Summary": cs.summary(net), "Step": trace.steps[0],
            "Plan": cs.blocks.plan(blocks), "Block": cs.blocks.read_block(blocks[0]), "Updated": updated,
            "Difference": cs.difference(trace, trace), "StepEffect": cs.step_effect(updated),
            "Contributions": why.to_input(), "Prediction": cs.predict(run, image[:, :3, :3])[0],
            "Evaluation": cs.evaluate(run), "Check": cs.check(cs.reference.relu, as_="relu"),
            "Gradient": cs.explain(updated, "0.weight.grad", (0, 0, 1, 1)),
            "ReceptiveField": cs.probe.receptive_field(trace, "0", (0, 1, 1)),
        }  # fmt: skip
        self.functions = {**_functions(), **_methods(objects)}
        self.sound = sound_calls(net, image, trace=trace, step=updated, data=data, run=run)
        self.good: Mapping[str, list[Any]] = {
            "trace": [trace, step], "model": [net, "crosses", "run"], "image": [image, "crosses:plus"],
            "step": ["0", 1], "dataset": ["crosses", data], "cell": [(0, 1, 1), 0], "run": [run, "run"],
            "out": ["o.png", "o.xlsx", "o.html"], "epochs": [1], "size": [8, None], "name": ["crosses", "shapes"],
            "kernel": ["blur"], "picture": [image], "path": ["t.safetensors", "run"], "spec": ["crosses", net],
            "source": ["a.png", image], "like": [net, None], "x": [image], "grad": [image],
            "weight": [np.ones((1, 1, 2, 2))], "layers": [[cs.reference.Layer("relu")]],
            "blocks": [blocks, blocks[:2]], "shape": [(1, 28, 28)], "classes": [2, ["a", "b"]],
            "network": ["net.json", "crosses"],
            "optimizer": ["adam", "sgd"], "target": [[0, 1], 1], "loss": ["cross-entropy", "mse"],
            "function": [cs.reference.relu, "mine.py:relu"],
            "as_": ["relu"], "images": [image, "crosses:train/0-1"], "block": [blocks[0]],
            "model_a": [net], "model_b": [net],
        }  # fmt: skip
        self.near = [
            *(image[0], image[None], image[:, :0], image * np.nan, image * np.inf, -image, image.astype(np.float16)),
            *(np.zeros((1, 8, 8), bool), np.full((1, 8, 8), 2**62), np.zeros((2, 0)), np.ones((1, 2, 3, 4, 5))),
            *(2, 3, 99, 0.5, -0.5, 1e300, float("inf"), np.int64(1), np.float32(0.5), np.bool_(True), 2**63, False),
            *((), (1, 2), (0, 99, 0), (-1, -1, -1), (1.5,), [(0, 1)], [[]], ["a", "a"], ["a", 1], {"a": np.nan}),
            *("a", "relu", "2", "grad", "0.weight", "same", "test", "cpu", "é" * 40, "=HYPERLINK()", "nobody.npz"),
        ]
        self.any = [
            *(
                None,
                True,
                0,
                1,
                -1,
                7,
                10**30,
                10**5000,
                1.5,
                float("nan"),
                1j,
                "",
                "conv",
                "0",
                "a.png",
                "run",
                "crosses:plus",
            ),
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

    def call(self, name: str, number: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of a function: most of a kind that it takes, some of any other."""
        rng = random.Random(f"{name} {number}")
        if number % 2 == 0:
            return self._nearly_sound(name, rng)
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
            named = {"epochs": 1, "out": f"trained-{number}", **named}
        return tuple(args), named

    def places(self, name: str) -> list[int | str]:
        """Every argument that a function can be given: those of its sound call, and the optional ones."""
        args, named = self.sound.get(name, ((), {}))
        parameters = inspect.signature(self.functions[name]).parameters.values()
        optional = [each.name for each in parameters if each.default is not each.empty and each.name not in named]
        return [*range(len(args)), *named, *optional]

    def with_one(self, name: str, place: int | str, value: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A sound call but for one argument."""
        args, named = self.sound.get(name, ((), {}))
        if isinstance(place, int):
            return (*args[:place], value, *args[place + 1 :]), dict(named)
        return args, {**named, place: value}

    def _nearly_sound(self, name: str, rng: random.Random) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call that would give a result, but for one or two arguments."""
        positional, named = self.sound.get(name, ((), {}))
        args, named = [*positional], {**named}
        optional = [
            each.name
            for each in inspect.signature(self.functions[name]).parameters.values()
            if each.default is not each.empty and each.name not in named and each.name != "progress"
        ][len(args) and 1 :]
        places: list[int | str] = [*range(len(args)), *named, *rng.sample(optional, min(2, len(optional)))]
        for place in rng.sample(places, min(len(places), rng.choice([1, 1, 1, 2]))):
            former = args[place] if isinstance(place, int) else named.get(place)
            alike = [each for each in (*self.any, *self.near) if type(each) is type(former)]
            value = rng.choice(alike if alike and rng.random() < 0.6 else [*self.any, *self.near])
            if isinstance(place, int):
                args[place] = value
            else:
                named[place] = value
        return tuple(args), named


def _functions() -> dict[str, Callable[..., Any]]:
    """The public functions, also those of the rooms that users import, and constructors that people call."""
    found: dict[str, Callable[..., Any]] = {}
    for prefix, room in (("", cs), *((f"{name}.", getattr(cs, name)) for name in ROOMS)):
        for name in dir(room) if room is cs else _exported(room):
            value = getattr(room, name)
            if (inspect.isfunction(value) and name not in SERVING) or name in BUILT:
                found[prefix + name] = value
    found |= {f"{name}.from_json": getattr(cs, name).from_json for name in ("Card", "Preprocess")}
    return found | {"Trace.load": cs.Trace.load}


def _exported(room: Any) -> list[str]:
    own = [name for name in dir(room) if str(getattr(getattr(room, name), "__module__", "")).startswith(room.__name__)]
    return [name for name in getattr(room, "__all__", own) if not name.startswith("_")]


def _methods(objects: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    pairs = (
        (kind, name, getattr(value, name)) for kind, value in objects.items() for name in dir(value) if name[0] != "_"
    )
    return {f"{kind.lower()}.{name}": method for kind, name, method in pairs if inspect.ismethod(method)}


def wrong(things: Things, name: str, number: int) -> str:
    """What is wrong with how a call ended; nothing where it is as it should be."""
    return wrong_call(things, name, number, *things.call(name, number))


def wrong_call(things: Things, name: str, number: int, args: tuple[Any, ...], named: dict[str, Any]) -> str:
    """What is wrong with how one call ended."""
    try:
        result = things.functions[name](*args, **named)
        if inspect.isgenerator(result):
            list(result)
        "" if name in BUILT else str(result)
    except ConvscopeError as error:
        message = str(error)
        if STEERING.search(message) or len(message) > LONGEST or not message.strip():
            return f"{name} {number}: no sentence: {message!r}"
    except TypeError as error:
        if len(traceback.extract_tb(error.__traceback__)) > 2 and "argument" not in str(error):
            return _told(name, number, args, named, error)
    except BaseException as error:  # whatever it is, a person would see a traceback
        return _told(name, number, args, named, error)
    return ""


def _told(name: str, number: int, args: tuple[Any, ...], named: Mapping[str, Any], error: BaseException) -> str:
    shown = [type(value).__name__ for value in args] + [f"{n}: {type(value).__name__}" for n, value in named.items()]
    return f"{number}: {name}({', '.join(shown)})\n  {''.join(traceback.format_exception(error)[-2:])}"


@pytest.mark.filterwarnings("ignore")
def test_public_functions_answer_any_arguments_in_a_sentence(things: Things) -> None:
    calls = itertools.product(sorted(things.functions), range(SHORT))
    messages = [message for name, number in calls if (message := wrong(things, name, number))]
    assert not messages, "\n".join(messages)


def hostile(things: Things, kinds: Callable[[str], Iterable[str]]) -> list[str]:
    """What is wrong with calls that are sound but for one hostile argument."""
    messages = []
    for name in sorted(things.functions):
        for place in things.places(name):
            for kind in kinds(f"{name} {place}"):
                args, named = things.with_one(name, place, HOSTILE[kind])
                if name == "train":
                    named = {"epochs": 1, "out": "trained", "resume": False, **named}
                if message := wrong_call(things, name, 0, args, named):
                    messages.append(f"{place} {kind}: {message}")
    return messages


@pytest.mark.filterwarnings("ignore")
def test_no_argument_can_break_the_refusal_of_it(things: Things) -> None:
    messages = hostile(things, lambda place: random.Random(place).sample([*HOSTILE], 2))
    assert not messages, "\n".join(messages)


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
def test_every_argument_of_every_function_is_hostile_once(things: Things) -> None:
    messages = hostile(things, lambda _: HOSTILE)
    assert not messages, "\n".join(messages)


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(SHORT, SHORT + LONG))
def test_thousands_of_calls(things: Things, number: int) -> None:
    messages = [message for name in sorted(things.functions) if (message := wrong(things, name, number))]
    assert not messages, "\n".join(messages)


def test_every_sound_call_gives_a_result(things: Things) -> None:
    without = {f"gradient.{name}" for name in ("to_input", "to_paths", "to_walk")}  # a gradient cannot be followed
    for name, function in things.functions.items():
        if name in without:
            continue
        args, named = things.sound.get(name, ((), {}))
        function(*args, **named)


def test_no_room_is_forgotten(things: Things) -> None:
    public = {name for name in dir(cs) if inspect.ismodule(getattr(cs, name))}
    assert public == set(ROOMS)
    rooms = {name.partition(".")[0] for name in things.functions if "." in name}
    assert public <= rooms


def test_a_planted_error_is_seen(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("planted")

    assert not wrong(things, "reference.lookup", 0)
    monkeypatch.setitem(things.functions, "reference.lookup", broken)
    assert "KeyError: 'planted'" in wrong(things, "reference.lookup", 0)
