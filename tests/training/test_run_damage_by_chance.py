"""Damaged runs: one byte that is not as it was written is never believed, never a traceback, never without an end."""

import json
import random
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convscope as cs
from convscope.errors import DataWarning
from damage import edit_config, flipped, within
from damaged_runs import IMAGES, SMALL, Stopped, bits, stop_after


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train(**SMALL, out=tmp_path_factory.mktemp("whole") / "run", snapshot_seconds=0).path


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(Stopped):
        cs.train(**SMALL, out=out, watch=stop_after(6), snapshot_seconds=0)
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


# Values of any kind


PATHS = [
    ("format",), ("dataset",), ("dataset", "name"), ("dataset", "source"), ("dataset", "seed"), ("dataset", "options"),
    ("dataset", "options", "size"), ("dataset", "options", "image_size"), ("test",), ("model",), ("model", "name"),
    ("model", "source"), ("model", "args"), ("model", "args", "classes"), ("card",), ("card", "name"),
    ("card", "classes"), ("card", "fixed_size"), ("card", "preprocess"), ("card", "preprocess", "size"),
    ("card", "preprocess", "channels"), ("card", "preprocess", "scale"), ("card", "preprocess", "mean"),
    ("card", "preprocess", "std"), ("card", "preprocess", "fit"), ("card", "preprocess", "crop_ratio"),
    ("card", "preprocess", "background"), ("card", "preprocess", "binary"), ("recipe",), ("recipe", "epochs"),
    ("recipe", "batch_size"), ("recipe", "lr"), ("recipe", "optimizer"), ("recipe", "loss"), ("recipe", "schedule"),
    ("recipe", "weight_decay"), ("recipe", "label_smoothing"), ("recipe", "shift"), ("recipe", "draws"),
    ("recipe", "sampling"), ("recipe", "log_every"), ("recipe", "other"), ("recipe_name",), ("seed",), ("device",),
    ("precision",), ("engine",), ("environment",), ("environment", "threads"), ("environment", "launch"),
]  # fmt: skip
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 3, 10**19, 10**400, 1e19, -0.0, float("nan"), float("inf"), "", "x", "1", "\ud800"])
    | st.integers()
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def odd(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(half, tmp_path_factory.mktemp("odd") / "run"))


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), value=ODD)
def test_any_value_of_the_settings_is_taken_or_refused_by_a_sentence(
    odd: Path, half: Path, path: tuple[str, ...], value: Any
) -> None:
    config = json.loads((half / "config.json").read_text())
    config.pop("sha256", None)
    part = config
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (odd / "config.json").write_text(json.dumps(config))
    for ask in (
        cs.load_run,
        cs.load_model,
        lambda run: cs.predict(run, IMAGES[0]),
        lambda run: cs.predict(run, torch.zeros(1, 3, 3).numpy()),
        lambda run: cs.load_run(run).history,
        lambda run: cs.load_run(run).finished,
    ):
        with within(20):
            try:
                ask(odd)
            except (cs.ConvscopeError, MemoryError):
                continue


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), value=ODD)
def test_any_value_of_the_settings_is_gone_on_with_or_refused_by_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, half: Path, path: tuple[str, ...], value: Any
) -> None:
    run = Path(shutil.copytree(half, tmp_path_factory.mktemp("odd") / "run"))

    def change(config: Any) -> None:
        for name in path[:-1]:
            config = config[name]
        config[path[-1]] = value

    edit_config(run, change)
    watched = iter(range(200))

    def watch(_event: Mapping[str, Any]) -> None:
        if next(watched, None) is None:  # more epochs, as asked for
            raise Stopped

    with within(30), suppress(cs.ConvscopeError, Stopped):
        cs.train(resume=True, out=run, watch=watch)


# One byte of any file, at random


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One byte turned, zeroed, taken out or put in, or the rest cut."""
    at = chance.randrange(len(content))
    kind = chance.choice(["bit", "bit", "bit", "bit", "zero", "out", "in", "cut"])
    changes = {
        "bit": flipped(content, at, 1 << chance.randrange(8)),
        "zero": content[:at] + b"\0" + content[at + 1 :],
        "out": content[:at] + content[at + 1 :],
        "in": content[:at] + bytes([chance.randrange(256)]) + content[at:],
        "cut": content[:at],
    }
    return changes[kind]


def answers(run: Path) -> dict[str, Any]:
    """What a run says: its predictions, score, history and kernels, each with the warnings about it, or the refusal."""
    asked: Mapping[str, Callable[[], Any]] = {
        "predict": lambda: [(p.output.tobytes(), p.classes, p.best) for p in cs.predict(run, *IMAGES)],
        "evaluate": lambda: (cs.evaluate(run).loss, cs.evaluate(run).confusion.tolist()),
        "history": lambda: cs.load_run(run).history,
        "kernels": lambda: cs.load_model(run).state_dict()["conv1.weight"].numpy().tobytes(),
        "past": lambda: bytes(cs.load_run(run).weights_at(3)["conv1.weight"]),
    }
    message: dict[str, Any] = {}
    for name, ask in asked.items():
        with within(20), warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                message[name] = ask()
            except cs.ConvscopeError as error:
                message[name] = error
        if name == "history" and any(issubclass(one.category, DataWarning) for one in seen):
            message[name] = seen  # it says which lines are left out
    return message


def assert_one_byte_is_never_believed(whole: Path, half: Path, folder: Path, seed: int, times: int) -> None:
    chance, truth = random.Random(seed), answers(whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    for turn in range(times):
        name = chance.choice(files[:2] + files)  # config.json and one other more often
        run = Path(shutil.copytree(whole, folder / f"run{turn}"))
        (run / name).write_bytes(damaged((run / name).read_bytes(), chance))
        for what, answer in answers(run).items():
            refused = isinstance(answer, cs.ConvscopeError | list) and answer != truth[what]
            assert refused or answer == truth[what], (name, what, seed, turn)
            if refused and isinstance(answer, list) and what != "history":
                raise AssertionError(name, what, seed, turn)
        shutil.rmtree(run)
        name = chance.choice(
            sorted(path.relative_to(half) for path in half.rglob("*") if path.stat().st_size and path.is_file())
        )
        run = Path(shutil.copytree(half, folder / f"half{turn}"))
        (run / name).write_bytes(damaged((run / name).read_bytes(), chance))
        with within(30), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                cs.train(resume=True, out=run)
            except cs.ConvscopeError:
                pass
            else:
                assert bits(run) == bits(whole), (name, seed, turn)
        shutil.rmtree(run)


def test_one_byte_of_a_run_is_never_believed(whole: Path, half: Path, tmp_path: Path) -> None:
    assert_one_byte_is_never_believed(whole, half, tmp_path, seed=0, times=40)


@pytest.mark.study
@pytest.mark.parametrize("seed", range(1, 21))
def test_many_bytes_of_runs_are_never_believed(whole: Path, half: Path, tmp_path: Path, seed: int) -> None:
    assert_one_byte_is_never_believed(whole, half, tmp_path, seed=seed, times=200)
