"""config.json with any values, or without some: the run is used and resumed, or refused in one sentence. Seeded."""

import json
import random
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from convscope.errors import ConvscopeError
from convscope.escaping import LONGEST

SHORT, LONG = 60, 1500
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 10**6, 10**18, 10**30, 1.5, -0.0, 1e308, "", "x", "\x1b[31m", "../..", "\ud800"),
    *("/dev/zero", "cuda", "meta", "float64", "bfloat16", "numpy", "npz:/dev/zero", "folder:nobody", "a" * 5000),
    *("convscope:load_model", "os:system", "adam", [], [0], [[]], [1] * 1000, [None], ["a", "a"], {}, {"a": 1}),
)
REMOVED = object()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train("crosses", epochs=2, out=tmp_path_factory.mktemp("config") / "whole").path


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where every value of a config is."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _paths(part, (*path, key))


def changed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A config of which one value, or two, are others or missing."""
    rng = random.Random(seed)
    made: dict[str, Any] = json.loads(json.dumps({k: v for k, v in config.items() if k != "sha256"}))
    for _ in range(rng.choice([1, 1, 2])):
        *above, last = rng.choice(list(_paths(made)))
        value, part = rng.choice([*VALUES, *[REMOVED] * 8]), made
        for key in above:
            part = part[key]  # type: ignore[index]  # a list has its index as a key
        if value is REMOVED:
            del part[last]  # type: ignore[arg-type]
        else:
            part[last] = value  # type: ignore[index]
    return made


def wrong(whole: Path, folder: Path, seed: int) -> list[str]:
    """What is wrong with how a run with a changed config is used."""
    messages = []
    uses: Mapping[str, Callable[[], object]] = {
        "predict": lambda: cs.predict("run", "crosses:plus"),
        "evaluate": lambda: str(cs.evaluate("run")),
        "resume": lambda: cs.train(resume=True, out="run"),
        "history": lambda: cs.plot.history("run"),
    }
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.copytree(whole, folder / "run")
    (folder / "run" / "config.json").write_text(
        json.dumps(changed(json.loads((whole / "config.json").read_text()), seed))
    )
    for name, use in uses.items():
        try:
            use()
        except ConvscopeError as error:
            if "\n" in str(error) or len(str(error)) > LONGEST:
                messages.append(f"{seed} {name}: no sentence: {str(error)[:200]}")
        except Exception as error:  # whatever it is, a person would see a traceback
            messages.append(f"{seed} {name}: {''.join(traceback.format_exception(error)[-2:])}")
    return messages


@pytest.mark.filterwarnings("ignore")
def test_any_config_is_used_or_refused_in_a_sentence(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    messages = [message for seed in range(SHORT) for message in wrong(whole, tmp_path, seed)]
    assert not messages, "\n".join(messages)


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
def test_many_configs(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    messages = [message for seed in range(SHORT, SHORT + LONG) for message in wrong(whole, tmp_path, seed)]
    assert not messages, "\n".join(messages[:9])


def test_a_planted_error_is_seen(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("planted")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cs, "predict", broken)
    assert "KeyError: 'planted'" in wrong(whole, tmp_path, 0)[0]
