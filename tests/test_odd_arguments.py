"""Arguments that nothing can be done with: one sentence from whatever takes a path, a seed or a count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convscope as cs
from convscope.errors import ConvscopeError
from convscope.type_checks import RESULTS, _where_from

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
        with pytest.raises(ConvscopeError, match="seed must be an integer from 0, not -1"):
            call()
    assert cs.verify(TRACE, seed=2**70).proved
    with pytest.raises(ConvscopeError, match="seed must be at most"):
        cs.load_model("shapes-cnn", seed=2**70)


def test_a_negative_number_of_cells_is_refused() -> None:
    with pytest.raises(ConvscopeError, match="0 or more, not -5"):
        cs.verify(TRACE, cells=-5)


NUMBER = 10**5000
"""Python refuses to write it in a message."""
ANY: Any = cs
"""Without the types that these calls do not have."""
BLOCK = cs.blocks.read_block({"block": "conv"})
WHY = cs.explain(TRACE, 0, (0, 0, 0))
IMPOSSIBLE: dict[str, tuple[Callable[[], object], str]] = {
    "a huge number": (
        lambda: cs.train("crosses", epochs=NUMBER),
        "train takes no integer of 16,610 bits as its epochs",
    ),
    "one in a list": (lambda: cs.explain(TRACE, 0, (0, 0, NUMBER, 0)), "16,610 bits as its cell"),
    "one in a mapping": (lambda: cs.load_model("shapes-cnn", args={"kernels": NUMBER}), "16,610 bits as its args"),
    "one in a Preprocess": (lambda: cs.Preprocess(size=(NUMBER, 1)), "height, width., not a number of 16,610 bits"),
    "one of a step": (lambda: TRACE.operands(NUMBER), "trace takes no integer of 16,610 bits as its step"),
    "one in a set": (lambda: ANY.explain(TRACE, 0, {NUMBER}), "16,610 bits as its cell"),
    "one in an array of objects": (
        lambda: ANY.explain(TRACE, 0, np.array([NUMBER], object)),
        "16,610 bits as its cell",
    ),
    "a Dataset's images": (lambda: ANY.Dataset("mine", NUMBER, [0], ["a"]), "16,610 bits as its images"),
    "rows of other lengths": (lambda: cs.load_image([[1], [1, 2]]), "an array of numbers, not a list"),
    "a level": (lambda: ANY.probe.shift("crosses", "crosses", levels=b"ab"), "a level of translation is"),
    "models": (lambda: ANY.probe.shift(3, "crosses"), "a mapping or a list as its models, not an int"),
    "a picture of one axis": (
        lambda: cs.plot.maps(TRACE, picture=np.zeros(2)),
        ".C, H, W. or .H, W., not float64",
    ),
    "one of complex numbers": (lambda: cs.plot.network(TRACE, picture=np.zeros((2, 2), complex)), "not complex128 of"),
    "an operand's cell": (lambda: TRACE.origin(0, "self", (0, 0, 0, 0, 0)), "self of relu has no cell .0, 0, 0, 0, 0."),
    "an operand without this cell": (lambda: TRACE.origin(0, "self", (0, 0, 9, 9)), "self of relu has no cell"),
    "a walk's cell": (lambda: ANY.Explanation.to_walk(WHY, [("relu", print)]), "a cell is a tuple of integers"),
    "a walk's number": (lambda: ANY.Explanation.to_walk(WHY, [("relu", 0.5)]), "a cell is a tuple of integers"),
    "a shift below 0": (lambda: cs.probe.shift("crosses", "crosses", reach=-1), "a number of pixels from 0, not -1"),
    "no figure": (lambda: cs.probe.lint(figure="a.png"), "a matplotlib figure as its figure, not a str"),
    "no data": (
        lambda: ANY.probe.lint(cs.load_model("shapes-cnn"), TRACE),
        "a pair of arrays .images, labels., not a Trace",
    ),
    "no image": (lambda: cs.report("crosses", []), "images is empty"),
    "a network that is a number": (lambda: ANY.blocks.read(3), "read takes a path as its network, not 3"),
    "a block's setting": (lambda: ANY.blocks.Block.changed(BLOCK, kernels="x"), "kernels of conv must be"),
    "images": (lambda: ANY.load_dataset("crosses").part(torch.ones(1, requires_grad=True)), "chosen by a slice"),
    "a kind without a maker": (lambda: ANY.Explanation.follow(WHY, 3), "takes a Leaf as its part, not an int.$"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_nothing_can_be_done_with_is_refused_in_a_sentence(name: str) -> None:
    call, message = IMPOSSIBLE[name]
    with pytest.raises(ConvscopeError, match=message):
        call()


def test_a_probe_that_is_named_as_the_maker_of_an_argument_exists() -> None:
    assert {probe.function for probe in cs.probe.PROBES.values()} >= {
        _where_from(kind).removeprefix("cs.probe.").removesuffix(" makes one") for kind in RESULTS
    }
