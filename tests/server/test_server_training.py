"""Training from the page: real child processes, really killed; the weights of a plain training; nothing left over."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from convscope.server.session.schema import SourceInfo
from convscope.server.session.workspace import Workspace
from convscope.server.trainings import registry as several
from convscope.server.trainings import training as one
from convscope.server.trainings.registry import Busy, Missing, Trainings, models_for
from convscope.server.trainings.schema import TrainCommand, TrainingEvent, TrainingInfo, TrainRequest

TOKEN = "a-token-of-the-tests"
PATIENCE = 600
"""Seconds for what comes; on a machine with much else to do a process takes long to start."""


class Sources:
    """A gallery with two data sets."""

    def __init__(self) -> None:
        self.runs: dict[str, Path] = {}

    def sources(self) -> Sequence[SourceInfo]:
        return [self._source(name, trainable=name != "square") for name in ("crosses", "shapes", "square")]

    def training_data(self, source: str) -> tuple[str, Mapping[str, Any]]:
        return source, {}

    def has_model(self, model: str) -> bool:
        return model == "crosses"

    def add_run(self, name: str, path: Path) -> None:
        self.runs[name] = path

    def close(self) -> None:
        pass

    @staticmethod
    def _source(name: str, *, trainable: bool) -> SourceInfo:
        entry = cs.DATASETS[name]
        channels, height, width = entry.shape
        return SourceInfo(
            id=name, name=name, splits=dict(entry.sizes), classes=list(entry.classes), channels=channels,
            height=height, width=width, trainable=trainable,
        )  # fmt: skip


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


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"waited for {PATIENCE} s"
        time.sleep(0.01)


def wait_for(training: one.Training, *states: str) -> TrainingInfo:
    until(lambda: training.state in states or training.over)
    assert training.state in states, training.info()
    return training.info()


def ask(trainings: Trainings, **request: Any) -> one.Training:
    return trainings.get(trainings.start(TrainRequest(**request)).id)


def say(trainings: Trainings, training: one.Training, word: Any) -> TrainingInfo:
    return trainings.command(training.name, TrainCommand(command=word))


def assert_same_weights(a: cs.Run, b: cs.Run, step: int) -> None:
    left, right = a.weights_at(step), b.weights_at(step)
    assert left.keys() == right.keys()
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


def gone(process: int) -> bool:
    """Whether a process has ended, zombies included."""
    try:
        return " Z " in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True


def test_paused_stepped_and_resumed_it_ends_in_the_weights_of_a_plain_training(
    trainings: Trainings, tmp_path: Path
) -> None:
    training = ask(trainings, source="shapes", model="shapes-cnn", epochs=2, seed=3, paused=True)
    assert wait_for(training, "paused").step == 0
    assert training.history == [0]
    assert isinstance(trainings.workspace, Sources)
    assert trainings.workspace.runs == {"shapes-cnn": tmp_path / "runs" / "shapes-cnn"}

    for step in (1, 2, 3):
        say(trainings, training, "step")
        until(lambda: training.info().step > step - 1)  # noqa: B023  # called at once
        assert training.info().step == training.history[-1] == step
        assert training.state == "paused"
    time.sleep(0.3)
    assert training.info().step == 3
    say(trainings, training, "resume")
    info = wait_for(training, "done")

    plain = cs.train("shapes", "shapes-cnn", epochs=2, seed=3, device="cpu", out=tmp_path / "plain")
    mine = cs.load_run(training.path)
    assert (info.step, info.epoch) == (info.total, info.epochs) == (100, 2)
    assert training.history == mine.steps == sorted({*plain.steps, 1, 2, 3})
    for step in plain.steps:
        assert_same_weights(mine, plain, step)
    stepped = [p for p in training.points if p["event"] == "step"]
    assert [p["step"] for p in stepped] == [1, 2, 3]  # each with the loss of its own batch
    for point in stepped:
        loss = float(cs.trace(mine, at_step=int(point["step"] or 0))["loss"].output)
        assert point["loss"] == pytest.approx(loss, rel=1e-6)
    points = [p for p in training.points if p["event"] != "step"]
    warned = [(p["event"], p["step"], p["loss"], p.get("test_loss")) for p in points]
    assert warned == [(e["event"], e["step"], e["loss"], e.get("test_loss")) for e in plain.history]
    assert info.loss == plain.metrics["loss"]


def test_a_pause_is_where_weights_are_and_a_stop_keeps_them(trainings: Trainings) -> None:
    training = ask(trainings, source="shapes", model="mlp-512", epochs=500)
    until(lambda: training.info().step > 5)
    say(trainings, training, "pause")
    paused = wait_for(training, "paused")
    assert paused.step in training.history
    say(trainings, training, "pause")
    say(trainings, training, "stop")
    stopped = wait_for(training, "stopped")
    assert stopped.message == f"stopped at step {paused.step} of {paused.total}; its weights are kept."
    run = cs.load_run(training.path)
    assert not run.finished
    weights = cs.load_model(str(training.path)).state_dict()
    kept = run.weights_at(paused.step)
    assert all((weights[name].numpy() == value).all() for name, value in kept.items())
    assert say(trainings, training, "stop").state == "stopped"
    with pytest.raises(Busy, match=r"mlp-512 is stopped and cannot resume; start a new one"):
        say(trainings, training, "resume")


def test_a_killed_child_is_told_and_two_at_a_time_are_the_most(trainings: Trainings) -> None:
    first, second = (ask(trainings, source="crosses", model="crosses", epochs=10_000, paused=True) for _ in range(2))
    assert (first.name, second.name) == ("crosses-2", "crosses-3"), "crosses is another model's id"
    with pytest.raises(Busy, match=r"crosses-2 and crosses-3 are running, and the limit is 2 at a time"):
        ask(trainings, source="crosses", model="crosses")
    wait_for(first, "paused")
    wait_for(second, "paused")
    first.process.kill()
    assert wait_for(first, "failed").message == (
        "the training's process was killed by signal 9 after step 0; its saved weights are kept."
    )
    assert cs.load_model(str(first.path))
    third = ask(trainings, source="crosses", model="crosses", epochs=30, lr=2.0)
    say(trainings, second, "step")
    until(lambda: second.info().step == 1)
    assert wait_for(third, "done").step == 30
    assert [info.state for info in trainings.infos()] == ["failed", "paused", "done"]


def test_a_child_that_does_not_stop_is_ended_and_nothing_of_it_stays(
    trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one, "PATIENCE", 0.1)
    training = ask(trainings, source="crosses", model="crosses", paused=True)
    wait_for(training, "paused")
    training.process.send_signal(signal.SIGSTOP)
    say(trainings, training, "stop")
    assert wait_for(training, "stopped").message == (
        "the training did not stop in time and was killed after step 0; its saved weights are kept."
    )
    until(lambda: training.process.stdin is not None and training.process.stdin.closed)
    assert training.process.stdout is not None
    assert training.process.stdout.closed


@pytest.mark.study
def test_every_draw_of_a_tutorial_is_told(trainings: Trainings) -> None:
    training = ask(trainings, source="crosses", model="crosses", recipe="tutorial", lr=2.0)
    assert wait_for(training, "done").step == 5000
    assert len(training.points) == 5001


def test_what_cannot_be_trained_gets_a_sentence(trainings: Trainings) -> None:
    for request, message in {
        ("nothing", "crosses"): "unknown training data 'nothing'; available: crosses, shapes",
        ("square", "crosses"): "unknown training data 'square'",
        ("shapes", "crosses"): "the model 'crosses' does not fit shapes; models that do: shapes-cnn, ",
        ("shapes", "os:system"): "the model 'os:system' does not fit shapes",
    }.items():
        with pytest.raises(Missing, match=message):
            ask(trainings, source=request[0], model=request[1])
    with pytest.raises(Missing, match="unknown training 'none'; none has been started yet"):
        trainings.get("none")
    training = ask(trainings, source="shapes", model="mlp-512", recipe="tutorial")
    info = wait_for(training, "failed")
    assert info.message.startswith("no tutorial recipe exists for 'mlp-512'")
    assert training.history == []


def test_runs_are_called_as_the_command_line_calls_them(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `cs.train` and the page write into the same runs/
    plain = [cs.train("shapes", "shapes-mlp", epochs=1).path.name for _ in range(2)]
    assert plain == ["shapes-mlp", "shapes-mlp-2"]
    mine = [ask(trainings, source="shapes", model="shapes-mlp", epochs=1, paused=True) for _ in range(2)]
    assert [training.name for training in mine] == ["shapes-mlp-3", "shapes-mlp-4"]
    wait_for(mine[0], "paused")
    wait_for(mine[1], "paused")
    assert cs.free_path("shapes-mlp") == Path("runs/shapes-mlp-5")


def test_the_end_of_the_server_saves_and_ends_its_trainings(trainings: Trainings) -> None:
    training = ask(trainings, source="shapes", model="mlp-512", epochs=500)
    until(lambda: training.info().step > 5)
    trainings.close()
    assert training.process.returncode == 0
    info = training.info()
    assert info.state == "stopped"
    assert f"{info.step:09d}" in {path.name for path in training.path.glob("snapshots/*")}
    trainings.close()
    with pytest.raises(Busy, match="the server is shutting down"):
        ask(trainings, source="shapes", model="shapes-cnn")


SERVER = """
import sys, time
from pathlib import Path
sys.path.append("../support")
from test_server_training import Sources, TrainRequest, Trainings
trainings = Trainings(Sources(), Path(sys.argv[1]))
for paused in (False, True):
    info = trainings.start(TrainRequest(source="shapes", model="mlp-512", epochs=1000, paused=paused))
    print(trainings.get(info.id).process.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_server_takes_its_trainings_along_and_they_save_themselves(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    assert server.stdout is not None
    try:
        children = [int(server.stdout.readline()) for _ in range(2)]
        running, paused = (tmp_path / name for name in ("mlp-512", "mlp-512-2"))
        until(lambda: bool(cs.Run(running).history) and bool(cs.Run(paused).steps))
        assert not any(map(gone, children))
    finally:
        server.kill()
        server.communicate()
    until(lambda: all(map(gone, children)))
    for run in (running, paused):
        assert cs.load_model(str(run))
    saved = max(int(path.name) for path in running.glob("snapshots/[0-9]*"))
    assert saved >= cs.Run(running).history[-1]["step"] > 0


def test_models_are_offered_for_data_that_they_fit(trainings: Trainings) -> None:
    options = trainings.options()
    assert set(options.models) == {"crosses", "shapes"}
    assert options.models["crosses"][0] == "crosses"
    assert options.models["shapes"][:3] == ["shapes-cnn", "shapes-mlp", "shapes-cnn-1"]
    assert not {"crosses", "stripes"} & set(options.models["shapes"])
    assert "simple-cnn" in models_for((3, 32, 32), 4)
    assert models_for((3, 512, 512), 4) == ("mnist-small",)
    assert models_for((3, 32, 48), 4) == ()
    assert "crosses" not in models_for((1, 3, 3), 5)


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


def test_bad_requests_get_a_sentence_over_http(trainings: Trainings) -> None:
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
        client.post("/api/trainings", json={"source": "crosses", "model": "crosses", "paused": True})
        client.post("/api/trainings", json={"source": "crosses", "model": "crosses", "paused": True})
        busy = client.post("/api/trainings", json={"source": "crosses", "model": "crosses"})
        assert busy.status_code == 409
        assert "2 at a time" in busy.json()["message"]
