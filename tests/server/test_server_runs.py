"""Runs in the explorer: their history, new weights, folders that come later or are gone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convscope as cs
from asking import Page, opened, page_of, traced
from convscope.server.session.workspace import Workspace


@pytest.fixture(scope="module")
def net() -> Any:
    return cs.load_model("shapes-cnn", seed=3)


@pytest.fixture(scope="module")
def page(net: Any) -> Iterator[Page]:
    with page_of(net) as page:
        yield page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("shapes", epochs=1, out=tmp_path_factory.mktemp("runs") / "a run", seed=1)


@pytest.fixture
def served(run: cs.Run, tmp_path: Path) -> Iterator[Page]:
    shutil.copytree(run.path, tmp_path / "a run")
    with opened(Workspace.of_folder(tmp_path)) as page:
        yield page


# Runs


def test_the_history_of_a_run_can_be_traced(served: Page, run: cs.Run) -> None:
    (model,) = served.get("session")["models"]
    assert (model["id"], model["run"], model["history"]) == ("a-run", True, run.steps)
    now = served.trace()
    for step in (run.steps[0], run.steps[4]):
        past = cs.load_model(run.path)
        past.load_state_dict({name: torch.tensor(value) for name, value in run.weights_at(step).items()})
        info = served.trace(at=step)
        output = served.raw(f"traces/{info['id']}/steps/{info['output']}/output")
        assert np.array_equal(output, traced(past).output[0])
    assert served.trace()["id"] == now["id"]
    assert served.trace(at=run.steps[-1])["answers"] == now["answers"]
    assert f"kept no weights at step {run.steps[-1] + 1}" in served.trace(status=404, at=run.steps[-1] + 1)


def test_new_weights_of_a_run_are_seen(served: Page, run: cs.Run) -> None:
    folder = served.gallery.model("a-run").run
    assert folder is not None
    before = served.trace()
    history = folder.path / "history"
    shutil.copy(history / f"{run.steps[0]:09d}.safetensors", folder.path / "weights.safetensors")
    for path in history.glob("*.safetensors"):
        path.unlink()
    after = served.trace()
    assert after["id"] != before["id"]
    assert after["answers"] != before["answers"]
    assert served.get("session")["models"][0]["history"] == []


def test_a_training_that_goes_on_shows_its_newest_weights(served: Page, run: cs.Run) -> None:
    folder = served.gallery.model("a-run").run
    assert folder is not None
    past = served.trace(at=run.steps[0])
    newest = folder.path / "history" / f"{run.steps[-1] + 1:09d}.safetensors"
    shutil.copyfile(folder.path / "history" / f"{run.steps[0]:09d}.safetensors", newest)
    assert served.trace()["answers"] == past["answers"]


def test_a_deleted_run_folder_gets_a_sentence(served: Page, run: cs.Run, tmp_path: Path) -> None:
    before = served.trace()
    shutil.rmtree(tmp_path / "a run")
    assert "no longer exists" in served.trace(status=410, at=run.steps[0])
    after = served.trace()
    assert after["answers"] == before["answers"]
    (model,) = served.get("session")["models"]
    assert model["history"] == []
    assert "no longer exists" in model["notes"][-1]


def test_a_run_that_was_never_read_and_is_gone(run: cs.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "b")
    gallery = Workspace.of_folder(tmp_path)
    shutil.rmtree(tmp_path / "b")
    with opened(gallery) as page:
        (model,) = page.get("session")["models"]
        assert "no longer exists" in model["notes"][0]
        assert "no longer exists" in page.trace(status=410)


def test_runs_that_come_later_are_found_and_other_folders_are_not(run: cs.Run, tmp_path: Path) -> None:
    with opened(Workspace.of_folder(tmp_path / "later")) as page:
        assert page.models == []
        shutil.copytree(run.path, tmp_path / "later" / "c")
        (tmp_path / "later" / "other").mkdir()
        (tmp_path / "later" / "other" / "config.json").write_text("{}")
        assert [model["id"] for model in page.get("session")["models"]] == ["c"]


def test_a_model_changed_in_the_session_is_traced_anew() -> None:
    model = cs.load_model("shapes-cnn")
    with page_of(model) as page:
        before = page.trace()
        with torch.no_grad():
            model.get_parameter("fc.bias").add_(1)
        after = page.trace()
        assert after["id"] != before["id"]
        value = {answer["index"]: answer["value"] for answer in before["answers"]}
        assert all(a["value"] == pytest.approx(value[a["index"]] + 1, abs=1e-5) for a in after["answers"])
        why = page.get(f"traces/{before['id']}/steps/{before['output']}/explain", cell="0")
        assert why["proof"]["status"] == "weights changed"
