"""Arguments that nothing can be done with: one sentence from whatever takes a path, a seed or a count."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import convscope as cs
from convscope.errors import ConvscopeError

PATHS = {
    "null": "a\0b",
    "long name": "y" * 3000,
    "long path": "a/" * 3000,
    "no such user": "~nobody_of_this_name/x",
    "no such user here": "./~nobody_of_this_name/x",
    "not encodable": "a\ud800b",
}
TRACE = cs.trace(torch.nn.ReLU(), torch.ones(1, 1, 2, 2))
TAKES: dict[str, Callable[[str], object]] = {
    "load_image": cs.load_image,
    "load_image of an array": lambda path: cs.load_image(f"{path}.npy"),
    "load_image of a folder": lambda path: cs.load_image(f"folder:{path}:test/1"),
    "load_model": cs.load_model,
    "load_model of a file": lambda path: cs.load_model(f"{path}.py:Net"),
    "weights": lambda path: cs.load_model("shapes-cnn", weights=path),
    "load_dataset": cs.load_dataset,
    "folder": lambda path: cs.load_dataset(f"folder:{path}"),
    "npz": lambda path: cs.load_dataset(f"npz:{path}"),
    "data_dir": lambda path: cs.load_dataset("mnist", data_dir=path),
    "trace": lambda path: cs.trace(cs.load_model("shapes-cnn"), path),
    "Trace.load": cs.Trace.load,
    "save": TRACE.save,
    "evaluate": cs.evaluate,
    "train": lambda path: cs.train("shapes", out=path, epochs=1),
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("function", TAKES)
def test_a_text_that_is_no_path_is_refused_in_a_sentence(
    function: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "no such user here" and function in {"train", "save"}:
        pytest.skip("a folder may have that name")
    with pytest.raises(ConvscopeError) as error:
        TAKES[function](PATHS[name])
    assert "\0" not in str(error.value)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]


def test_seeds_outside_the_generators_range_are_refused() -> None:
    for call in (lambda: cs.verify(TRACE, seed=-1), lambda: cs.load_model("shapes-cnn", seed=-1)):
        with pytest.raises(ConvscopeError, match="seed must be a whole number from 0, not -1"):
            call()
    assert cs.verify(TRACE, seed=2**70).proved
    with pytest.raises(ConvscopeError, match="seed must be at most"):
        cs.load_model("shapes-cnn", seed=2**70)


def test_a_negative_number_of_cells_is_refused() -> None:
    with pytest.raises(ConvscopeError, match="0 or more, not -5"):
        cs.verify(TRACE, cells=-5)
