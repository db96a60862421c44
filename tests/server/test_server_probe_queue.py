"""Probes at work: some run, some wait, they can be cancelled, followed and forgotten."""

import http.client
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI

import convscope as cs
from asking import Page, opened
from convscope.server.probes import catalog, routes, service
from convscope.server.probes.requests import ProbeArguments
from convscope.server.probes.schema import ProbeRequest
from convscope.server.session.workspace import Workspace
from probe_pages import Slow, asked, ended, until
from serving import served


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
    infos = []
    for number in range(1, service.AT_ONCE + service.WAITING + 1):
        infos.append(own.post("probes", question="dead", model="a", images=number))
        if number == service.AT_ONCE:  # until these run, they wait too
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
