"""Training from the page over HTTP: started, followed, found again, traced while it runs, and refused."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

import convscope as cs
from convscope.server import jobs
from convscope.server.app import make_app
from convscope.server.http.security import Access
from convscope.server.session.workspace import Workspace
from convscope.server.trainings import registry as several
from convscope.server.trainings import training as one
from convscope.server.trainings.registry import Trainings
from convscope.server.trainings.schema import TrainingEvent
from page_trainings import PATIENCE, Sources, say, until, wait_for

TOKEN = "a-token-of-the-tests"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child is ended only where a test means it to be."""
    monkeypatch.setattr(one, "PATIENCE", PATIENCE)
    monkeypatch.setattr(several, "PATIENCE", PATIENCE)


@pytest.fixture
def trainings(tmp_path: Path) -> Iterator[Trainings]:
    made = Trainings(Sources(), tmp_path / "runs")
    yield made
    made.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("training ")]


# Over HTTP


@contextmanager
def served(trainings: Trainings) -> Iterator[httpx.Client]:
    """A real server on a free port, and a client that may ask it."""
    app, headers = make_app(trainings.workspace, Access(TOKEN), trainings), {"Authorization": f"Bearer {TOKEN}"}
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def events_of(lines: Iterator[str]) -> Iterator[TrainingEvent | None]:
    """A stream's events; None for a comment that says it is alive."""
    for line in lines:
        if line.startswith(":"):
            yield None
        elif line:
            yield TrainingEvent.model_validate_json(line.removeprefix("data: "))


def test_a_training_is_started_followed_and_found_again_over_http(
    trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "HEARTBEAT", 0.1)
    with served(trainings) as client:
        assert client.get("/api/training").json()["models"]["crosses"][0] == "crosses"
        wanted = {"source": "shapes", "model": "shapes-mlp", "epochs": 2, "paused": True}
        answer = client.post("/api/trainings", json=wanted)
        assert answer.status_code == 200, answer.text
        name = answer.json()["id"]
        with client.stream("GET", f"/api/trainings/{name}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = events_of(stream.iter_lines())
            first = next(events)
            assert first is not None
            assert (first.info.state, first.points, first.history) == ("starting", [], [])
            paused = next(event for event in events if event is not None and event.info.state == "paused")
            assert paused.history == [0]
            assert next(event for event in events if event is None) is None, "silence is broken by a comment"
        until(lambda: trainings.get(name).listeners == 0)

        assert client.post(f"/api/trainings/{name}", json={"command": "resume"}).status_code == 200
        for _ in range(2):  # the second stream comes when all is over, and repeats it
            with client.stream("GET", f"/api/trainings/{name}/events") as stream:
                warned = [event for event in events_of(stream.iter_lines()) if event is not None]
            assert warned[-1].info.state == "done"
            run = cs.load_run(trainings.get(name).path)
            points = [(point["event"], point["step"]) for event in warned for point in event.points]
            assert points == [(event["event"], event["step"]) for event in run.history]
            assert [step for event in warned for step in event.history] == run.steps
        assert [info["id"] for info in client.get("/api/trainings").json()] == [name]


def test_a_training_is_a_model_of_the_gallery_while_it_runs(tmp_path: Path) -> None:
    gallery = Workspace.of_folder(tmp_path)
    trainings = Trainings(gallery, tmp_path)
    with served(trainings) as client:
        wanted = {"source": "shapes", "model": "shapes-cnn", "epochs": 1, "seed": 5, "paused": True}
        name = client.post("/api/trainings", json=wanted).json()["id"]
        training = trainings.get(name)
        wait_for(training, "paused")
        say(trainings, training, "step")
        until(lambda: training.history == [0, 1])
        (model,) = client.get("/api/session").json()["models"]
        assert (model["id"], model["run"], model["history"]) == (name, True, [0, 1])

        image, run = cs.load_image("shapes:test/3"), cs.load_run(training.path)
        for step in (0, 1, None):
            sample = {"kind": "sample", "source": "shapes", "split": "test", "index": 3}
            answer = client.post("/api/traces", json={"model": name, "input": sample, "at": step})
            assert answer.status_code == 200, answer.text
            conv = next(s for s in answer.json()["steps"] if s["name"] == "conv1")
            raw = client.get(f"/api/traces/{answer.json()['id']}/steps/{conv['id']}/output").content
            expected = cs.trace(
                cs.load_model("shapes-cnn"), image, overrides=run.weights_at(1 if step is None else step)
            )
            assert raw == expected["conv1"].output[0].tobytes(), step
        say(trainings, training, "resume")
        wait_for(training, "done")
    gallery.close()


def test_bad_requests_get_a_sentence_over_http(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    post: Any = httpx.Client.post
    with served(trainings) as client:
        for path, body, status, message in [
            ("/api/trainings", {"source": "nothing", "model": "crosses"}, 404, "available: crosses, shapes"),
            ("/api/trainings", {"source": "crosses", "model": "crosses", "epochs": 0}, 422, "epochs"),
            ("/api/trainings", {"source": "../etc", "model": "crosses"}, 422, "source"),
            ("/api/trainings", {"source": "crosses", "model": "crosses", "out": "/tmp/x"}, 422, "out"),
            ("/api/trainings/none", {"command": "stop"}, 404, "unknown training 'none'"),
            ("/api/trainings/none", {"command": "explode"}, 422, "command"),
        ]:
            answer = post(client, path, json=body)
            assert answer.status_code == status, answer.text
            assert message in answer.json()["message"]
        assert client.get("/api/trainings/none/events").status_code == 404
        assert client.get("/api/trainings", headers={"Authorization": "Bearer guess"}).status_code == 401
        monkeypatch.setattr(several, "AT_ONCE", 0)
        busy = client.post("/api/trainings", json={"source": "crosses", "model": "crosses"})
        assert busy.status_code == 409
        assert "0 at a time" in busy.json()["message"]
