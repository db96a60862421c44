"""Training from the page: real child processes, really killed; the weights of a plain training; nothing left over."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from convscope.server.trainings import registry
from convscope.server.trainings import training as one
from convscope.server.trainings.registry import Busy, Missing, OwnNetworks, Trainings, models_for
from page_trainings import PATIENCE, Sources, ask, say, until, wait_for


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child is ended only where a test means it to be."""
    monkeypatch.setattr(one, "PATIENCE", PATIENCE)
    monkeypatch.setattr(registry, "PATIENCE", PATIENCE)


@pytest.fixture
def trainings(tmp_path: Path) -> Iterator[Trainings]:
    made = Trainings(Sources(), tmp_path / "runs")
    yield made
    made.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("training ")]


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
    mine = ask(trainings, source="shapes", model="shapes-mlp", epochs=1, paused=True)
    assert mine.name == "shapes-mlp-3"
    wait_for(mine, "paused")
    assert cs.free_path("shapes-mlp") == Path("runs/shapes-mlp-4")


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
from page_trainings import Sources
from convscope.server.trainings.registry import Trainings
from convscope.server.trainings.schema import TrainRequest
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


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, kernels: int = 2, classes: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, kernels, 3, stride=3)
        self.fc = nn.Linear(kernels * 81, classes)

    def forward(self, x):
        return self.fc(self.conv1(x).flatten(1))
"""


def test_a_network_of_the_user_is_offered_where_it_fits_and_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSCOPE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "net.py").write_text(NET)
    location = f"{tmp_path / 'net.py'}:Net"
    made = Trainings(Sources(), tmp_path / "runs", {location: {"kernels": 3}})
    try:
        options = made.options()
        assert options.models["shapes"][-1] == "net.py:Net"
        assert "net.py:Net" not in options.models["crosses"]
        assert "fc (Linear) expects 243 numbers" in options.unfit["crosses"]["net.py:Net"]
        assert options.unfit["shapes"] == {}
        training = ask(made, source="shapes", model="net.py:Net", epochs=1)
        wait_for(training, "done")
        run = cs.load_run(training.path)
        assert (run.config["model"]["source"], run.config["model"]["args"]) == (location, {"kernels": 3})
        assert run.model.get_parameter("conv1.weight").shape == (3, 1, 3, 3)
        with pytest.raises(Missing, match="does not fit crosses"):
            ask(made, source="crosses", model="net.py:Net")
        for other in (location, f"{tmp_path / 'net.py'}:Other", "os:system"):  # the page cannot name code
            with pytest.raises(Missing, match="does not fit shapes"):
                ask(made, source="shapes", model=other)
    finally:
        made.close()


def test_networks_of_one_name_are_told_apart_by_their_folders() -> None:
    own = OwnNetworks({"/a/net.py:Net": {}, "/b/net.py:Net": {}, "package.module:factory": {}})
    assert list(own.networks) == ["net.py:Net", "/b/net.py:Net", "package.module:factory"]


def own_network(tmp_path: Path, forward: str) -> tuple[OwnNetworks, Path]:
    path = tmp_path / "net.py"
    path.write_text(NET.replace("return self.fc(self.conv1(x).flatten(1))", forward))
    return OwnNetworks({f"{path}:Net": {}}), path


@pytest.mark.parametrize(
    ("forward", "problem"),
    [
        ("y = self.fc(self.conv1(x).flatten(1)); self.norm = y.sum(); return y", ""),
        ("y = self.fc(self.conv1(x).flatten(1)); return {'logits': y, 'maps': x + 1}", ""),
        ("return self.fc(self.conv1(x).flatten(1)).sum(1)", "it returns 1 number for an image"),
        ("return self.conv1(x)", "maps of 2x9x9 numbers"),
        ("return 'yes'", "the model returns a str"),
    ],
    ids=["not the last step", "beside other tensors", "one number", "maps", "a text"],
)
def test_whether_a_network_fits_depends_on_what_it_returns(tmp_path: Path, forward: str, problem: str) -> None:
    own, _ = own_network(tmp_path, forward)
    found = own.problem("net.py:Net", Sources().sources()[1])
    assert problem in found
    assert bool(problem) == bool(found)


def test_a_network_whose_file_changes_is_tried_again(tmp_path: Path) -> None:
    own, path = own_network(tmp_path, "return self.conv1(x)")
    source = Sources().sources()[1]
    assert "maps" in own.problem("net.py:Net", source)
    path.write_text(NET)
    assert own.problem("net.py:Net", source) == ""


def test_two_requests_at_once_try_a_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, _ = own_network(tmp_path, "return self.fc(self.conv1(x).flatten(1))")
    tried, both, predict = [], threading.Barrier(2), cs.predict

    def slowly(*args: Any) -> Any:
        tried.append(args)
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)  # the other one, if it is let in
        return predict(*args)

    monkeypatch.setattr(cs, "predict", slowly)
    threads = [threading.Thread(target=own.problem, args=("net.py:Net", Sources().sources()[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == 1
