"""Questions that the explorer's server answers: what it says is what `cs.probe` says, and work has bounds."""

import http.client
import json
import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

import convscope as cs
from asking import Page, opened
from convscope.cli import app as commands
from convscope.server.probes import catalog, routes, service
from convscope.server.probes.requests import ProbeArguments
from convscope.server.probes.schema import ProbeRequest
from convscope.server.session.workspace import Workspace
from serving import served

SAMPLE = {"kind": "sample", "source": "shapes", "split": "test", "index": 3}
PATIENCE = 600
"""Seconds for what comes, also on a machine with much else to do."""


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


def ended(page: Page, info: Any) -> Any:
    """The question when it is over."""
    until(lambda: page.get(f"probes/{info['id']}")["state"] in {"done", "stopped", "failed"})
    return page.get(f"probes/{info['id']}")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def asked(page: Page, question: str, **more: Any) -> Any:
    """What a question's answer says, beside its result."""
    info = ended(page, page.post("probes", question=question, **more))
    assert info["state"] == "done", info["message"]
    answer = page.get(f"probes/{info['id']}/answer")
    return {**answer, "id": info["id"], "result": page.get(f"probes/{info['id']}/json")}


def written(parts: Any) -> str:
    """The parts of an answer as printing the result writes them."""
    warned = [
        "\n".join(part["lines"])
        if part["kind"] == "text"
        else str(cs.probe.Table(tuple(part["head"]), part["rows"], tuple(part["right"])))
        for part in parts
    ]
    return "\n\n".join(warned)


def model(folder: Path, name: str) -> Any:
    return cs.load_run(folder / name).model


def shapes(split: str) -> cs.Dataset:
    return cs.load_dataset("shapes", split=split)


ASKED: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "receptive-field": (
        {"model": "a", "input": SAMPLE, "step": "conv2", "cell": [0, 4, 4]},
        lambda at: cs.probe.receptive_field(cs.trace(model(at, "a"), shapes("test").image(3)), "conv2", (0, 4, 4)),
    ),
    "shift": (
        {"model": "a", "other": "b", "reach": 1, "images": 30},
        lambda at: cs.probe.shift(
            {"shapes-cnn": model(at, "a"), "shapes-cnn-1": model(at, "b")}, shapes("test").part(slice(30)), reach=1
        ),
    ),
    "compare": (
        {"model": "a", "other": "b", "images": 50},
        lambda at: cs.probe.compare([model(at, "a"), model(at, "b")], shapes("test").part(slice(50))),
    ),
    "dead": ({"model": "a"}, lambda at: cs.probe.dead(model(at, "a"), shapes("train"))),
    "shortcut": ({"source": "shapes"}, lambda _: cs.probe.shortcut("shapes")),
    "lint": ({"model": "a", "images": 40}, lambda at: cs.probe.lint(at / "a", images=40)),
    "gradients": (
        {"model": "a", "images": 70, "points": 3},
        lambda at: cs.probe.gradients(at / "a", images=70, points=3),
    ),
    "patches": (
        {"model": "a", "step": "conv1", "channels": 2, "images": 50},
        lambda at: cs.probe.patches(model(at, "a"), shapes("test").part(slice(50)), "conv1", channels=2),
    ),
    "attribution": (
        {"model": "a", "input": SAMPLE, "output": 1},
        lambda at: cs.probe.attribution(model(at, "a"), "shapes:test/3", 1),
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
    net = model(folder, "a")
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


# Work


class Slow:
    """A question that goes on until it is let go."""

    def __init__(self) -> None:
        self.models: list[Any] = []
        self.priorities: list[int] = []
        self.go = threading.Event()

    def __call__(self, subject: cs.probe.Subject, _: Any, progress: catalog.Progress) -> Any:
        self.models.append(subject.models[0])
        self.priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        while not self.go.wait(0.01):
            progress("waiting", len(self.models), 9)
        return cs.probe.dead(subject.models[0], subject.data, progress=progress)


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


def test_a_probe_has_a_model_of_its_own_and_traces_do_not_wait_for_it(own: Page, slow: Slow) -> None:
    info = own.post("probes", question="dead", model="a")
    until(lambda: bool(slow.models))
    trace = own.trace(model="a")
    assert own.gallery.traces.get(trace["id"]).model is own.gallery.model("a").read()[0]
    assert slow.models[0] is not own.gallery.model("a").read()[0]
    if sys.platform == "linux":
        assert slow.priorities == [min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + service.NICE)] or (
            slow.priorities == [service.NICE]
        )
    assert own.get(f"probes/{info['id']}/answer", 409).startswith("this question has no answer")
    slow.go.set()
    assert ended(own, info)["state"] == "done"


def test_progress_is_told_and_a_cancelled_question_ends_and_can_be_asked_again(own: Page, slow: Slow) -> None:
    info = own.post("probes", question="dead", model="a")
    until(lambda: own.get(f"probes/{info['id']}")["what"] == "waiting")
    assert own.get(f"probes/{info['id']}")["total"] == 9
    assert own.post("probes", question="dead", model="a")["id"] == info["id"]
    assert len(slow.models) == 1
    own.post(f"probes/{info['id']}", command="cancel")
    assert ended(own, info)["state"] == "stopped"
    assert "cancelled" in own.get(f"probes/{info['id']}/answer", 409)

    slow.go.set()
    again = own.post("probes", question="dead", model="a")
    assert again["id"] == info["id"]
    assert ended(own, again)["state"] == "done"
    own.post(f"probes/{info['id']}", command="cancel")
    assert own.get(f"probes/{info['id']}")["state"] == "done"


def test_few_run_some_wait_and_more_are_refused(own: Page, slow: Slow) -> None:
    several = [own.post("probes", question="dead", model="a", images=n) for n in range(1, service.AT_ONCE + 1)]
    until(lambda: len(slow.models) == service.AT_ONCE)
    first = 10
    waiting = [own.post("probes", question="dead", model="a", images=first + n) for n in range(service.WAITING)]
    assert {info["state"] for info in waiting} == {"waiting"}
    assert "cancel one" in own.post("probes", 409, question="dead", model="a", images=99)
    assert len(own.get("probes")) == service.AT_ONCE + service.WAITING

    own.post(f"probes/{waiting[0]['id']}", command="cancel")
    assert own.get(f"probes/{waiting[0]['id']}")["state"] == "stopped"
    later = own.post("probes", question="dead", model="a", images=99)
    slow.go.set()
    for info in (*several, *waiting[1:], later):
        assert ended(own, info)["state"] == "done"


@pytest.fixture
def streams(own: Page) -> Iterator[Callable[[Any], AbstractContextManager[Iterator[Any]]]]:
    """A real server, which sends what it has to say at once: a question -> its events as they come."""
    app = cast("FastAPI", own.client.app)
    app.router.lifespan_context = lambda _: nullcontext()

    @contextmanager
    def followed(info: Any) -> Iterator[Iterator[Any]]:
        with closing(http.client.HTTPConnection("localhost", port, timeout=120)) as client:
            client.request("GET", f"/api/probes/{info['id']}/events", headers=dict(own.client.headers))
            yield (json.loads(line[5:]) for line in client.getresponse() if line.startswith(b"data:"))

    with served(app) as port:
        yield followed


def test_a_question_is_followed_to_its_end(own: Page, slow: Slow, streams: Any) -> None:
    info = own.post("probes", question="dead", model="a", images=5)
    until(lambda: bool(slow.models))
    with streams(info) as events:
        warned = [next(events)]
        slow.go.set()
        warned += events
    assert warned[0]["state"] == "running"
    assert warned[-1]["state"] == "done"
    assert {event["id"] for event in warned} == {info["id"]}


def test_a_page_that_leaves_gives_its_place_to_another_one(
    own: Page, slow: Slow, streams: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "FOLLOWERS", 2)
    info = own.post("probes", question="dead", model="a", images=5)
    until(lambda: bool(slow.models))
    with streams(info) as mine:
        assert next(mine)["state"] == "running"
        for _ in range(5):
            with streams(info) as others:
                assert next(others)["state"] == "running"
                assert "2 pages follow this question" in own.get(f"probes/{info['id']}/events", 503)
            until(lambda: len(probe_of(own, info).followers) == 1)
        slow.go.set()
        assert [event["state"] for event in mine][-1] == "done"
    until(lambda: len(probe_of(own, info).followers) == 0)


def probe_of(page: Page, info: Any) -> service.RunningProbe:
    known: service.ProbeService = cast("FastAPI", page.client.app).state.probes
    return known.get(info["id"])


def test_questions_are_listed_as_they_were_asked_however_often_they_are_looked_at(own: Page, slow: Slow) -> None:
    asked = [own.post("probes", question="dead", model="a", images=n)["id"] for n in (1, 2, 3)]
    own.get(f"probes/{asked[0]}")
    assert [info["id"] for info in own.get("probes")] == asked
    assert own.post("probes", question="dead", model="a", images=1)["id"] == asked[0]
    assert [info["id"] for info in own.get("probes")] == asked


def test_to_look_for_a_question_refuses_nothing_where_no_further_one_can_wait(own: Page, slow: Slow) -> None:
    infos = [
        own.post("probes", question="dead", model="a", images=n + 1) for n in range(service.AT_ONCE + service.WAITING)
    ]
    until(lambda: len(slow.models) == service.AT_ONCE)
    known: service.ProbeService = cast("FastAPI", own.client.app).state.probes
    assert known.find("q1") is None
    assert own.post("probes", question="dead", model="a", images=3)["id"] == infos[2]["id"]


def test_when_the_server_ends_so_do_its_questions(folder: Path, slow: Slow) -> None:
    with opened(Workspace.of_folder(folder)) as page:
        page.post("probes", question="dead", model="a")
        until(lambda: bool(slow.models))
        state = cast("FastAPI", page.client.app).state
    until(lambda: {probe.state for probe in state.probes.all()} == {"stopped"})
    with pytest.raises(Exception, match="ending"):
        state.probes.check_room()


def test_the_oldest_answers_are_forgotten_and_can_be_asked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "KEPT", 2)
    with opened(Workspace.of_folder(folder)) as page:
        first, *_, last = [asked(page, "dead", model="a", images=n) for n in (5, 6, 7, 8)]
        assert len(page.get("probes")) == 2
        page.get(f"probes/{first['id']}/answer", 404)
        assert page.get(f"probes/{last['id']}/answer")["sentence"] == last["sentence"]
        assert asked(page, "dead", model="a", images=5)["result"] == first["result"]


def test_a_mistake_of_ours_is_a_sentence_without_details(
    own: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_subject: cs.probe.Subject, _settings: Any, _progress: catalog.Progress) -> Any:
        raise RuntimeError("what only the terminal sees")

    table = cast("dict[str, cs.probe.Probe]", cs.probe.PROBES)
    monkeypatch.setitem(table, "dead", replace(table["dead"], run=broken))
    info = ended(own, own.post("probes", question="dead", model="a"))
    assert info["state"] == "failed"
    assert "should not have happened (RuntimeError)" in info["message"]
    assert "what only" not in info["message"]
    assert "what only" in caplog.text


def test_whatever_a_model_does_the_next_question_is_answered_and_few_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError

    def leave(_: object) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(os, "setpriority", denied)
    questions = service.ProbeService(at_once=1)
    request = ProbeRequest(question="shortcut", source="shapes")
    for number in range(service.KEPT + 9):
        asked = questions.ask(ProbeArguments(f"q{number}", request, ()), leave)
        until(lambda asked=asked: asked.state == "failed")  # type: ignore[misc]
        assert "SystemExit" in asked.message
    assert len(questions.all()) <= service.KEPT + 1


def test_a_part_that_is_not_there_is_refused_in_a_sentence(own: Page) -> None:
    message = own.post("probes", 422, question="dead", model="a", source="shapes", split="all")
    assert "shapes has no images of the part all" in message


def test_an_edited_model_beside_itself_has_a_name_of_its_own(own: Page) -> None:
    same: dict[str, Any] = {
        "question": "shift",
        "model": "a",
        "other": "a",
        "source": "shapes",
        "images": 4,
        "reach": 1,
    }
    assert "one model with the same weights twice" in own.post("probes", 422, **same)
    info = ended(own, own.post("probes", **same, edits=[{"parameter": "conv1.bias", "cell": [0], "values": [9.0]}]))
    assert info["state"] == "done", info
    table = next(part for part in own.get(f"probes/{info['id']}/answer")["parts"] if "head" in part)
    assert [row[0].endswith(", edited") for row in table["rows"]] == [True, False]
