"""Probes asked by the page: each answer is what the probe says and what its command prints."""

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

import convscope as cs
from asking import Page, opened
from convscope.cli import app as commands
from convscope.server.session.workspace import Workspace
from probe_pages import Slow, asked, ended, model_of

SAMPLE = {"kind": "sample", "source": "shapes", "split": "test", "index": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("work") / "runs"
    for name, model, data in (
        ("a", "shapes-cnn", "shapes"),
        ("b", "shapes-cnn-1", "shapes"),
    ):
        cs.train(data, model=model, epochs=1, out=made / name)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        with opened(Workspace.of_folder(folder)) as result:
            yield result


def written(parts: Any) -> str:
    """The parts of an answer as printing the result writes them."""
    warned = [
        "\n".join(part["lines"])
        if part["kind"] == "text"
        else str(cs.probe.Table(tuple(part["head"]), part["rows"], tuple(part["right"])))
        for part in parts
    ]
    return "\n\n".join(warned)


def shapes(split: str) -> cs.Dataset:
    return cs.load_dataset("shapes", split=split)


ASKED: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "receptive-field": (
        {"model": "a", "input": SAMPLE, "step": "conv2", "cell": [0, 4, 4]},
        lambda at: cs.probe.receptive_field(cs.trace(model_of(at, "a"), shapes("test").image(3)), "conv2", (0, 4, 4)),
    ),
    "shift": (
        {"model": "a", "other": "b", "reach": 1, "images": 30},
        lambda at: cs.probe.shift(
            {"shapes-cnn": model_of(at, "a"), "shapes-cnn-1": model_of(at, "b")},
            shapes("test").part(slice(30)),
            reach=1,
        ),
    ),
    "compare": (
        {"model": "a", "other": "b", "images": 50},
        lambda at: cs.probe.compare([model_of(at, "a"), model_of(at, "b")], shapes("test").part(slice(50))),
    ),
    "dead": ({"model": "a"}, lambda at: cs.probe.dead(model_of(at, "a"), shapes("train"))),
    "shortcut": ({"source": "shapes"}, lambda _: cs.probe.shortcut("shapes")),
    "lint": ({"model": "a", "images": 40}, lambda at: cs.probe.lint(at / "a", images=40)),
    "gradients": (
        {"model": "a", "images": 70, "points": 3},
        lambda at: cs.probe.gradients(at / "a", images=70, points=3),
    ),
    "patches": (
        {"model": "a", "step": "conv1", "channels": 2, "images": 50},
        lambda at: cs.probe.patches(model_of(at, "a"), shapes("test").part(slice(50)), "conv1", channels=2),
    ),
    "attribution": (
        {"model": "a", "input": SAMPLE, "output": 1},
        lambda at: cs.probe.attribution(model_of(at, "a"), "shapes:test/3", 1),
    ),
}
"""Question -> what a page asks, and the same in Python."""
TIMED = ("milliseconds", "milliseconds_range", "machine")


def timeless(result: Any) -> Any:
    """A result without what differs each time it is measured."""
    if isinstance(result, dict):
        return {key: timeless(value) for key, value in result.items() if key not in TIMED}
    return [timeless(part) for part in result] if isinstance(result, list) else result


@pytest.mark.parametrize("name", ASKED)
def test_an_answer_is_what_the_probe_says_and_what_its_command_prints(name: str, page: Page, folder: Path) -> None:
    body, ask = ASKED[name]
    if name == "attribution":
        pytest.importorskip("captum")
    answer, wanted = asked(page, name, **body), ask(folder)
    assert timeless(answer["result"]) == timeless(json.loads(json.dumps(wanted.to_json())))
    if name != "compare":
        assert written(answer["parts"]) == str(wanted)
        assert answer["sentence"] in str(wanted)
    picture = page.client.get(f"/api/probes/{answer['id']}/picture")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.content.startswith(b"<?xml")

    assert answer["command"] is not None
    program, *words = shlex.split(answer["command"])
    assert program == "convscope"
    done = CliRunner().invoke(commands, [*words, "--json"])
    assert done.exit_code in {0, 1}, done.output
    assert timeless(json.loads(done.stdout)) == timeless(answer["result"])


def test_every_question_is_listed_with_its_caveats(page: Page) -> None:
    warned = {question["name"]: question for question in page.get("questions")}
    assert set(warned) == set(cs.probe.PROBES) == set(ASKED)
    for name, question in warned.items():
        assert question["misleads"] == cs.probe.PROBES[name].caveats


def test_what_has_no_meaning_for_a_question_makes_no_other_one(page: Page) -> None:
    first = page.post("probes", question="shortcut", source="shapes")
    assert page.post("probes", question="shortcut", source="shapes", step="x", model="a", reach=2)["id"] == first["id"]
    assert page.post("probes", question="shortcut", source="color-shapes")["id"] != first["id"]
    dead = page.post("probes", question="dead", model="a", images=20)
    assert (
        page.post("probes", question="dead", model="a", images=20, source="shapes", split="train")["id"] == dead["id"]
    )
    assert dead["request"]["source"] == "shapes"
    assert dead["request"]["split"] == "train"
    many = page.post("probes", question="dead", model="a", images=50_000)
    assert many["request"]["images"] == 1000
    for info in (first, dead, many):
        ended(page, info)


def test_edits_and_weights_of_the_past_are_asked_and_no_command_says_so(page: Page, folder: Path) -> None:
    run = cs.load_run(folder / "a")
    data = shapes("test").part(slice(20))
    body = {"model": "a", "split": "test", "images": 20, "step": "conv1"}
    plain, past = asked(page, "dead", **body), asked(page, "dead", **body, at=0)
    first = cs.load_run(folder / "a").model
    for name, parameter in first.named_parameters():
        parameter.data.copy_(parameter.data.new_tensor(run.weights_at(0)[name]))
    assert past["result"] == json.loads(json.dumps(cs.probe.dead(first, data, ["conv1"]).to_json())) != plain["result"]

    silent = asked(page, "dead", **body, edits=[{"parameter": "conv1.weight", "cell": [0], "values": [0] * 9}])
    assert [unit["unit"] for unit in silent["result"]["steps"][0]["dead"]] == [0]
    assert asked(page, "dead", **body)["result"] == plain["result"]
    assert plain["command"] is not None
    assert past["command"] is silent["command"] is None


def test_a_model_of_this_session_has_a_command_while_it_is_as_its_run_saved_it(folder: Path) -> None:
    net = model_of(folder, "a")
    with opened(Workspace.of_model(net)) as page:
        same = asked(page, "dead", model=page.models[0], images=20)
        assert re.fullmatch(r"convscope probe dead \S*runs/a --images 20", same["command"])
        net.conv1.weight.detach().add_(1)
        other = asked(page, "dead", model=page.models[0], images=20)
        assert other["command"] is None
        assert other["result"] != same["result"]


def test_new_weights_are_asked_anew(folder: Path, tmp_path: Path) -> None:
    cs.train("shapes", model="shapes-cnn-1", epochs=1, out=tmp_path / "run")
    with opened(Workspace.of_folder(tmp_path)) as page:
        first = asked(page, "dead", model="run", images=10)
        later = time.time_ns() + 10**10
        os.utime(tmp_path / "run/weights.safetensors", ns=(later, later))
        assert asked(page, "dead", model="run", images=10)["id"] != first["id"]


def test_the_second_model_has_its_newest_weights_too_while_its_training_goes_on(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "runs")
    last = cs.load_run(copied / "b").steps[-1]
    later = time.time_ns() + 10**10
    os.utime(copied / f"b/history/{last:09d}.safetensors", ns=(later, later))
    with opened(Workspace.of_folder(copied)) as page:
        answer = asked(page, "shift", model="a", other="b", reach=1, images=10)
        warned = page.get(f"probes/{answer['id']}")["request"]
    assert (warned["at"], warned["other_at"]) == (None, last)
    assert [result["model"] for result in answer["result"]["models"]] == ["shapes-cnn", f"shapes-cnn-1 at step {last}"]
    assert answer["command"] is None


BAD = [
    (404, {"question": "dead", "model": "missing"}, "unknown model"),
    (404, {"question": "dead", "model": "a", "source": "nowhere"}, "unknown data source"),
    (422, {"question": "dead"}, "about a model"),
    (422, {"question": "compare", "model": "a"}, "the other one"),
    (422, {"question": "compare", "model": "a", "other": "a"}, "twice"),
    (422, {"question": "attribution", "model": "a"}, "about an image"),
    (422, {"question": "shortcut"}, "about data"),
    (422, {"question": "why"}, "question"),
    (422, {"question": "shift", "model": "a", "reach": 99}, "reach"),
    (404, {"question": "attribution", "model": "a", "input": {**SAMPLE, "index": 900}}, "images 0 to 199"),
    (400, {"question": "dead", "model": "a", "step": "conv9"}, "no step is called 'conv9'"),
    (400, {"question": "receptive-field", "model": "a", "input": SAMPLE, "step": "conv1", "cell": [0, 99, 0]}, "99"),
    (400, {"question": "attribution", "model": "a", "input": SAMPLE, "output": 7}, "outputs 0 to 1"),
    (404, {"question": "dead", "model": "a", "at": 17}, "kept no weights"),
]


@pytest.mark.parametrize(("status", "body", "words"), BAD, ids=[words for _, _, words in BAD])
def test_what_cannot_be_asked_is_answered_by_a_sentence(status: int, body: Any, words: str, page: Page) -> None:
    answer = page.client.post("/api/probes", json=body)
    if answer.status_code == 200:  # only the work itself can tell
        info = ended(page, answer.json())
        assert info["state"] == "failed"
        assert words in info["message"]
        answer = page.client.get(f"/api/probes/{info['id']}/answer")
    assert answer.status_code == status
    assert words in answer.json()["message"]


def test_an_image_of_another_size_is_refused_with_the_ways_to_make_it_fit(page: Page) -> None:
    body: dict[str, Any] = {"model": "a", "input": {**SAMPLE, "source": "crosses", "index": 0}}
    answer = page.client.post("/api/probes", json={"question": "receptive-field", **body})
    assert (answer.status_code, answer.json()["fit"]) == (409, ["resize", "pad"])
    for way in answer.json()["fit"]:
        assert asked(page, "receptive-field", **body, fit=way)["sentence"]


def test_nothing_is_known_of_what_was_never_asked(page: Page) -> None:
    for path in ("", "/events", "/answer", "/picture", "/json"):
        assert "ask the question again" in page.get(f"probes/q1{path}", 404)
    assert "ask the question again" in page.post("probes/q1", 404, command="cancel")
    every = asked(page, "receptive-field", model="a", input=SAMPLE)
    assert "no picture" in page.get(f"probes/{every['id']}/picture", 404)


def test_names_are_hostile_text(page: Page) -> None:
    evil = "<img src=x onerror=alert(1)>"
    net = cs.load_model("shapes-cnn", seed=1, classes=[evil, "</svg><script>"])
    with opened(Workspace.of_model(net)) as own:
        pytest.importorskip("captum")
        answer = asked(own, "attribution", model=own.models[0], input=SAMPLE, output=0)
        assert answer["sentence"].startswith(evil)
        picture = own.client.get(f"/api/probes/{answer['id']}/picture").text
        assert "&lt;img" in picture
        assert "<img" not in picture
        assert "<script" not in picture
        assert answer["command"] is None


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow()
    table = cast("dict[str, cs.probe.Probe]", cs.probe.PROBES)
    monkeypatch.setitem(table, "dead", replace(table["dead"], run=made))
    yield made
    made.go.set()


@pytest.fixture
def own(folder: Path, slow: Slow) -> Iterator[Page]:
    """A server that answers slowly."""
    assert not slow.models
    with opened(Workspace.of_folder(folder)) as result:
        yield result
