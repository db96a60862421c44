"""Several processes train as one and answer as one: real processes under torchrun, joined by gloo."""

import json
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import convscope as cs
from convscope.training.processes import launch_id
from launching import SEVERAL, torchrun

pytestmark = SEVERAL

TOGETHER = """
import atexit, io, json, os, sys
from pathlib import Path

import numpy as np
from PIL import Image
from torch import distributed, nn

import convscope as cs
from convscope.data.lazy_images import LazyImages
from convscope.preprocess import Preprocess
from convscope.probe.support.scan import scan
from convscope.training.processes import rank

notes = []
atexit.register(lambda: Path(f"left-{os.environ['RANK']}").write_text(str(not distributed.is_initialized()))
                if "RANK" in os.environ else None)
watch = lambda event: notes.extend(event.get("notes", ()))
settings = {"seed": 1, "device": "cpu", "watch": watch, "data_options": {"size": 260}}
first = cs.train("shapes", "shapes-cnn", epochs=2, batch_size=15, out="weights", **settings)
ragged = cs.train("shapes", "shapes-cnn-1", epochs=3, batch_size=37, out="ragged", **settings)
clean = list(notes)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 2))
cs.train("shapes", net, epochs=1, **settings)
unnamed = cs.train("shapes", "shapes-cnn", epochs=1, **settings)

def png(pixels):
    Image.fromarray(pixels[0]).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


shapes = cs.load_dataset("shapes", split="train", seed=0, size=260)
files = [png(image) for image in shapes.images]
stored = LazyImages("files", lambda which: [files[i] for i in which], len(files), Preprocess(size=(28, 28), channels=1))
filed = cs.Dataset("files", stored.as_array(), shapes.labels, shapes.classes)
del settings["data_options"]
cs.train(filed, "shapes-cnn-1", epochs=2, batch_size=64, out="stored", test=filed, **settings)

data = cs.load_dataset("shapes", split="train", seed=0, size=301)
score = cs.evaluate(sys.argv[1], data, device="cpu")
bright = scan(
    data, [cs.load_model(sys.argv[1])], lambda batch: {"sum": np.array([batch.images.sum().item()])},
    lambda one, two: {"sum": one["sum"] * 0.9 + two["sum"]}, what="adding",
)
model = cs.load_run(sys.argv[1]).model
probes = [
    cs.probe.dead(model, data), cs.probe.patches(model, data, "conv2", count=2), cs.probe.shift(model, data, reach=1),
]
Path(f"answer-{rank()}.json").write_text(json.dumps({
    "score": score.to_json(), "scan": bright["sum"].tolist(), "clean": clean, "notes": notes, "out": str(unnamed.path),
    "probes": [probe.to_json() for probe in probes],
}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cs.train("shapes", "shapes-cnn", epochs=1, seed=0, out=tmp_path_factory.mktemp("run") / "trained").path


Together = Callable[[int], Path]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Together:
    """The folder in which so many processes have done what all do."""

    @cache
    def done(processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"by{processes}")
        (folder / "together.py").write_text(TOGETHER)
        result = torchrun(processes, "together.py", str(trained), cwd=folder)
        assert result.returncode == 0, result.stderr
        (folder / "stderr.txt").write_text(result.stderr)
        return folder

    return done


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("answer-*.json"))]


COUNTS = [2, pytest.param(3, marks=pytest.mark.study)]


@pytest.mark.parametrize("processes", COUNTS)
@pytest.mark.parametrize("name", ["weights", "ragged", "stored"])
def test_several_processes_end_in_the_weights_of_one(together: Together, processes: int, name: str) -> None:
    """36 steps with uneven shares; 24 that end in one image for all processes; images read from files."""
    alone, many = (load_file(together(count) / name / "weights.safetensors") for count in (1, processes))
    assert alone.keys() == many.keys()
    for key in alone:
        np.testing.assert_allclose(many[key], alone[key], rtol=0, atol=1e-5, err_msg=key)
    first, second = (cs.load_run(together(count) / name).metrics for count in (1, processes))
    assert second["accuracy"] == first["accuracy"]
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert second["test_accuracy"] == first["test_accuracy"]


@pytest.mark.parametrize("processes", COUNTS)
def test_scores_and_scans_are_identical(together: Together, processes: int) -> None:
    (alone,) = answers(together(1))
    many = answers(together(processes))
    assert len(many) == processes
    for answer in many:
        assert answer["score"] == alone["score"]
        assert answer["scan"] == alone["scan"]
        assert answer["probes"] == alone["probes"]


def test_every_process_leaves_the_group_before_it_ends(together: Together) -> None:
    """Otherwise the threads of the group outlive it, and now and then abort the process."""
    assert [path.read_text() for path in sorted(together(2).glob("left-*"))] == ["True", "True"]


def test_batch_norm_is_said_to_differ(together: Together) -> None:
    (alone,), (first, _) = answers(together(1)), answers(together(2))
    assert first["clean"] == []
    assert [note for note in alone["notes"] if "BatchNorm" in note] == []
    (message,) = (note for note in first["notes"] if "BatchNorm" in note)
    assert message.startswith("BatchNorm2d sees only each process' share of a batch, so these weights differ")


def test_the_layout_of_gradients_is_not_warned_of(together: Together) -> None:
    """PyTorch's reducer warns of kernels of one channel that are stored channels last, which costs nothing."""
    assert "Grad strides" not in (together(2) / "stderr.txt").read_text()


def test_all_processes_agree_on_the_folder(together: Together) -> None:
    assert {answer["out"] for answer in answers(together(2))} == {"runs/shapes-cnn"}


def test_a_group_without_an_id_is_known_by_its_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an address and no --rdzv-id torchrun calls every group "none": yesterday's is not ours."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert launch_id() == "mine"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ours = launch_id()
    assert ours is not None
    assert str(os.getppid()) in ours
    monkeypatch.setattr("os.getppid", lambda: 1)
    assert launch_id() not in {None, "none", ours}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE in the environment is set to 'x', and it must be an integer from 1 to"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE in the environment is set to '-1'"),
        ({"WORLD_SIZE": "9" * 40}, "WORLD_SIZE in the environment is set to"),
        ({"WORLD_SIZE": "2"}, "RANK in the environment is not set, and it must be an integer from 0 to 1;"),
        (
            {"WORLD_SIZE": "2", "RANK": "2"},
            "set to '2', and it must be an integer from 0 to 1;",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "65536"}, "MASTER_PORT in the environment is set to '65536'"),
        ({"TORCHELASTIC_RESTART_COUNT": "1.5"}, "TORCHELASTIC_RESTART_COUNT in the environment is set to '1.5'"),
    ],
)
def test_variables_of_the_environment_that_make_no_sense_are_named(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(cs.UsageError, match=re.escape(message)):
        cs.train("crosses", epochs=1, out=tmp_path / "run")
