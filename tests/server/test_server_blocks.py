"""Networks of blocks over HTTP: planned as `cs.blocks` plans them, opened without training, trained, refused."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convscope as cs
from block_lists import HOSTILE, SOUND
from convscope.server.app import make_app
from convscope.server.blocks import BLOCKS, BY_HAND
from convscope.server.http.security import Access
from convscope.server.session import workspace as gallery
from convscope.server.session.workspace import Workspace
from convscope.server.trainings.registry import Trainings
from page_trainings import until

KEY = {"Authorization": "Bearer t", "Host": "localhost"}
NET: list[dict[str, Any]] = [
    {"block": "conv", "kernels": 4, "padding": 1},
    {"block": "relu"},
    {"block": "max-pool"},
    {"block": "flatten"},
    {"block": "linear"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Trainings, Workspace]]:
    workspace = Workspace()
    trainings = Trainings(workspace, tmp_path_factory.mktemp("runs"))
    client = TestClient(make_app(workspace, Access("t"), trainings), base_url="http://localhost", headers=KEY)
    yield client, trainings, workspace
    trainings.close()
    workspace.close()


@pytest.fixture
def client(server: tuple[TestClient, Trainings, Workspace]) -> TestClient:
    return server[0]


def ask(client: TestClient, path: str, blocks: Any, source: str = "shapes", **more: Any) -> Any:
    return client.post(f"/api/{path}", json={"source": source, "blocks": blocks, **more})


def test_the_plan_is_that_of_python(client: TestClient) -> None:
    answer = ask(client, "blocks/plan", NET).json()
    result = cs.blocks.plan(NET, (1, 28, 28), 2)
    assert [block["sums"] for block in answer["blocks"]] == [
        [{"name": name, "text": text} for name, text in block.sums()] for block in result.blocks
    ]
    assert (answer["parameters"], answer["problem"], answer["ending"]) == (result.parameters, "", None)
    assert answer["blocks"][0]["weight"] == [4, 1, 3, 3]
    colour = ask(client, "blocks/plan", NET, source="color-shapes").json()
    assert {"name": "parameters", "text": "(3·3·3 + 1)·4 = 112"} in colour["blocks"][0]["sums"]


def test_the_templates_are_those_of_python_with_values_in_one_row(client: TestClient) -> None:
    options = client.get("/api/blocks").json()
    assert [kind["name"] for kind in options["kinds"]] == list(cs.blocks.KINDS)
    templates = {each["name"]: each["blocks"] for each in options["templates"]}
    assert list(templates) == list(cs.blocks.TEMPLATES)
    assert len(templates["detector"][0]["values"]["weight"]) == 9
    for name, blocks in templates.items():
        answer = ask(client, "blocks/plan", blocks).json()
        assert answer["problem"] == "", name
        assert answer["parameters"] == cs.blocks.plan(cs.blocks.template(name), (1, 28, 28), 2).parameters


def test_a_problem_comes_with_its_repair(client: TestClient) -> None:
    answer = ask(client, "blocks/plan", [NET[0], NET[4]]).json()
    assert answer["problem"].startswith("block 2 (fc1): a linear layer takes a list of numbers")
    repair = answer["blocks"][1]["problem"]["repair"]
    assert (repair["title"], repair["at"], repair["removed"]) == ("insert flatten", 1, 0)
    assert repair["added"][0]["block"] == "flatten"


def test_the_code_is_text(client: TestClient) -> None:
    assert ask(client, "blocks/code", NET).json()["code"] == cs.blocks.code(NET, (1, 28, 28), 2)
    refused = ask(client, "blocks/code", [NET[4]])
    assert (refused.status_code, refused.json()["message"][:14]) == (400, "block 1 (fc1):")


def test_a_network_opens_without_training_and_its_numbers_are_proved(client: TestClient) -> None:
    detector = [{"block": "conv", "kernels": 1, "values": {"weight": [0, 1, 0, 1, 1, 1, 0, 1, 0], "bias": [-4]}}]
    name = ask(client, "blocks/open", detector).json()["model"]
    assert ask(client, "blocks/open", detector).json()["model"] == name
    request = {"model": name, "input": {"kind": "sample", "source": "shapes", "split": "test", "index": 0}}
    trace = client.post("/api/traces", json=request).json()
    answer = client.get(f"/api/traces/{trace['id']}/steps/0/explain?cell=0,3,4").json()
    image = cs.load_dataset("shapes", split="test").images[0, 0] > 0
    window = image[3:6, 4:7]
    kernel = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    assert answer["proof"]["status"] == "proved"
    assert answer["explanation"]["value"] == (window * kernel).sum() - 4
    model = client.get("/api/session").json()["models"]
    assert [(each["source"], each["run"]) for each in model if each["id"] == name] == [("shapes", False)]


def test_the_oldest_of_many_designs_is_closed(
    client: TestClient, server: tuple[TestClient, Trainings, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "DESIGNS", 3)
    named = [ask(client, "blocks/open", [{"block": "conv", "kernels": n}]).json()["model"] for n in range(1, 6)]
    assert [server[2].has_model(name) for name in named][-3:] == [True] * 3
    assert not server[2].has_model(named[0])
    assert client.get(f"/api/models/{named[0]}/blocks").status_code == 404


def test_a_training_of_blocks_is_a_run_whose_list_can_be_had_again(
    client: TestClient, server: tuple[TestClient, Trainings, Workspace]
) -> None:
    info = ask(client, "trainings", NET, model="blocks", epochs=1).json()
    training = server[1].get(info["id"])
    assert info["request"]["blocks"][0]["kernels"] == 4
    until(lambda: training.over)
    assert training.state == "done", training.message
    run = cs.load_run(training.path)
    assert run.config["model"]["args"] == {"blocks": NET, "classes": 2}
    found = client.get(f"/api/models/{info['id']}/blocks").json()["blocks"]
    assert found == NET
    assert [each["run"] for each in client.get("/api/session").json()["models"] if each["id"] == info["id"]] == [True]


def test_one_number_is_trained_as_the_number_of_the_class(
    client: TestClient, server: tuple[TestClient, Trainings, Workspace]
) -> None:
    blocks = cs.blocks.template("crosses")
    info = ask(client, "trainings", blocks, source="crosses", model="blocks", epochs=1).json()
    training = server[1].get(info["id"])
    until(lambda: training.over)
    assert training.state == "done", training.message
    assert cs.load_run(training.path).recipe.loss == "mse"


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ([], "the network has no blocks yet; add one."),
        (
            [NET[4]],
            "block 1 (fc1): a linear layer takes a list of numbers, but gets 1x28x28 maps; put",
        ),
        ([NET[0]], "it ends in 4x28x28 maps, and 2 classes need one number each: add flatten and linear."),
        (
            [{"block": "conv", "kernels": -1}],
            "block 1: kernels of conv must be an integer from 1 to",
        ),
        ([{"block": "x" * 21}], "the request is not understood: blocks.0.block: String should have at most 20"),
        ([NET[1]] * (BLOCKS + 1), "the request is not understood: blocks: List should have at most 64 items"),
        ([{"block": "conv", "code": "import os"}], "the request is not understood: blocks.0.code: Extra inputs"),
        (
            [{**NET[0], "values": {"weight": [0] * (BY_HAND + 1)}}],
            "the request is not understood: blocks.0.values",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(client: TestClient, blocks: Any, sentence: str) -> None:
    answer = ask(client, "trainings", blocks, model="blocks")
    assert answer.status_code in {400, 422}
    assert answer.json()["message"].startswith(sentence)
    assert not any(info["state"] == "starting" for info in client.get("/api/trainings").json())


@given(st.one_of(SOUND, HOSTILE), st.sampled_from(["blocks/plan", "blocks/code", "blocks/open"]))
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_list_gets_an_answer_or_a_sentence(client: TestClient, blocks: Any, path: str) -> None:
    try:
        body = json.dumps({"source": "shapes", "blocks": blocks}, allow_nan=True)
    except ValueError:
        return
    answer = client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 422}, answer.text
    if answer.status_code != 200:
        message = answer.json()["message"]
        assert message.endswith(".")
        assert "\n" not in message


def test_a_server_without_such_a_source_says_so(client: TestClient) -> None:
    answer = ask(client, "blocks/plan", NET, source="nothing")
    assert (answer.status_code, answer.json()["message"][:30]) == (404, "unknown data source 'nothing';")


def test_another_network_has_no_list(client: TestClient, tmp_path: Path, server: Any) -> None:
    run = cs.train("shapes", "shapes-mlp", epochs=1, out=tmp_path / "run", data_options={"size": 20})
    server[2].add_run("plain", run.path)
    assert client.get("/api/models/plain/blocks").json() == {"blocks": None}


def test_values_that_a_list_leaves_open_are_left_out_of_it(client: TestClient, tmp_path: Path, server: Any) -> None:
    by_hand = {**NET[0], "bias": False, "values": {"weight": [0] * 36, "bias": None}}  # as the page sends it
    blocks = [by_hand, {**NET[1], "values": None}, *NET[2:]]
    args = {"blocks": blocks}
    run = cs.train("shapes", "blocks", epochs=1, out=tmp_path / "run", data_options={"size": 20}, model_args=args)
    server[2].add_run("open", run.path)
    found = client.get("/api/models/open/blocks").json()["blocks"]
    assert found == [{**by_hand, "values": {"weight": [0] * 36}}, *NET[1:]]


def test_a_block_that_a_run_cannot_have_is_said(client: TestClient, tmp_path: Path, server: Any) -> None:
    args = {"blocks": NET}
    run = cs.train("shapes", "blocks", epochs=1, out=tmp_path / "run", data_options={"size": 20}, model_args=args)
    config = json.loads((run.path / "config.json").read_text())
    config.pop("sha256")
    for name, blocks, status in (("newer", [{"block": "softmax"}], 404), ("text", "conv", 200), ("none", None, 200)):
        config["model"]["args"]["blocks"] = blocks
        (run.path / "config.json").write_text(json.dumps(config))
        server[2].add_run(name, run.path)
        answer = client.get(f"/api/models/{name}/blocks")
        assert answer.status_code == status, name
        assert answer.json().get("blocks") is None
        assert status == 200 or "no block is called 'softmax'" in answer.json()["message"]


def design(workspace: Workspace, name: str, built: list[str]) -> str:
    def build() -> Any:
        built.append(name)
        return cs.load_model("shapes-cnn")

    return workspace.open_design(name, build, "shapes")


def test_a_design_that_two_browsers_open_at_once_is_built_once() -> None:
    workspace, built, both = Workspace(), list[str](), threading.Barrier(2)

    def build() -> Any:
        built.append("a")
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)  # the other one, if it is let in
        return cs.load_model("shapes-cnn")

    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(workspace.open_design("a", build, "shapes"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workspace.close()
    assert (built, ids) == (["a"], ["a", "a"])


def test_the_design_that_was_not_opened_for_longest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "DESIGNS", 2)
    workspace, built = Workspace(), list[str]()
    for name in ("a", "b", "a", "c"):
        design(workspace, name, built)
    workspace.close()
    assert [opened.id for opened in workspace.opened()] == ["a", "c"]
    assert built == ["a", "b", "c"]


def test_a_run_that_has_the_name_of_a_design_is_not_taken_for_it(tmp_path: Path) -> None:
    run = cs.train("shapes", "shapes-mlp", epochs=1, out=tmp_path / "a", data_options={"size": 20})
    workspace, built = Workspace(), list[str]()
    workspace.add_run("a", run.path)
    assert design(workspace, "a", built) == design(workspace, "a", built) == "a.2"
    workspace.close()
    assert workspace.model("a").run is not None
    assert built == ["a"]
