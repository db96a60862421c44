"""What is open while folders change under it: runs and data that come, change, break and go."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import convscope as cs
from asking import Page, opened
from convscope.server.session.data_sources import DataSource, DataSources
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.workspace import Workspace

CROSS = {"kind": "sample", "source": "crosses", "split": "test", "index": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("crosses", epochs=2, out=tmp_path_factory.mktemp("run") / "one")


def pictures(folder: Path) -> Path:
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for index in range(5):
            brightness = np.full((8, 8), 20 * index, np.uint8)
            Image.fromarray(brightness).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture
def trained_on_folders(tmp_path: Path) -> Iterator[tuple[Page, Path]]:
    for name in ("first", "second"):
        data = pictures(tmp_path / name)
        cs.train(f"folder:{data}", "mnist-small", epochs=1, batch_size=8, out=tmp_path / "runs" / name)
    with opened(Workspace.of_folder(tmp_path / "runs")) as page:
        yield page, tmp_path


def test_a_deleted_data_folder_leaves_the_rest_as_it_was(trained_on_folders: tuple[Page, Path]) -> None:
    page, folder = trained_on_folders
    before = page.get("session")
    shutil.rmtree(folder / "first")
    fill_memory(page)
    assert page.get("session") == before
    assert {"first.data", "second.data"} <= {source["id"] for source in before["sources"]}
    gone = {"kind": "sample", "source": "first.data", "split": "test", "index": 0}
    assert "there is no folder" in page.trace(gone, 400, model="first")
    page.trace({**gone, "source": "second.data"}, model="second")
    with opened(Workspace.of_folder(folder / "runs")) as later:
        session = later.get("session")
        assert [model["source"] for model in session["models"]] == [None, "second.data"]
        assert "first.data" not in {source["id"] for source in session["sources"]}


def fill_memory(page: Page) -> None:
    """With images of other data, as many as there is room for."""
    for split in ("train", "test"):
        for source in ("crosses", "shapes"):
            page.gallery.sources_known.split(source, split)


def test_data_of_runs_are_named_by_what_differs(tmp_path: Path) -> None:
    for seed in (0, 1):
        cs.train("crosses", epochs=1, seed=seed, out=tmp_path / f"run-{seed}")
    with opened(Workspace.of_folder(tmp_path)) as page:
        names = [source["name"] for source in page.get("session")["sources"]]
    assert [name for name in names if "crosses" in name] == ["crosses", "crosses (seed 1, of run-1)"]


def test_data_are_not_decoded_again_to_say_what_there_is(
    trained_on_folders: tuple[Page, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, _ = trained_on_folders
    fill_memory(page)
    loaded = []
    monkeypatch.setattr(DataSource, "load", lambda self, split: loaded.append((self.id, split)))
    page.get("session")
    assert loaded == []


def test_data_that_load_slowly_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sources, begun, go_on = DataSources(), threading.Event(), threading.Event()
    load = DataSource.load

    def slow(self: DataSource, split: str) -> cs.Dataset:
        if self.id == "shapes":
            begun.set()
            assert go_on.wait(60)
        return load(self, split)

    monkeypatch.setattr(DataSource, "load", slow)
    waiting = threading.Thread(target=sources.split, args=("shapes", "test"))
    waiting.start()
    try:
        assert begun.wait(60)
        other = threading.Thread(target=sources.split, args=("crosses", "test"), daemon=True)
        other.start()
        other.join(30)
        assert not other.is_alive()
    finally:
        go_on.set()
        waiting.join()


def test_weights_written_while_a_trace_is_asked_for_belong_to_the_next_one(
    run: cs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.path, tmp_path / "one")
    newest = ModelHandle.newest

    def written_meanwhile(self: ModelHandle) -> int | None:
        add_one(tmp_path / "one")
        return newest(self)

    with opened(Workspace.of_folder(tmp_path)) as page:
        with monkeypatch.context() as patch:
            patch.setattr(ModelHandle, "newest", written_meanwhile)
            before = page.trace(CROSS)
        after = page.trace(CROSS)
        assert after["id"] != before["id"]
        first = page.raw(f"traces/{before['id']}/parameters/conv1.weight")
        second = page.raw(f"traces/{after['id']}/parameters/conv1.weight")
        assert np.array_equal(second, first + 1)


def add_one(folder: Path) -> None:
    """Write all weights anew, larger by one, as a training does it."""
    weights = {name: value + 1 for name, value in load_file(folder / "weights.safetensors").items()}
    save_file(weights, folder / "part")
    later = (folder / "weights.safetensors").stat().st_mtime_ns + 1_000_000
    os.utime(folder / "part", ns=(later, later))
    (folder / "part").replace(folder / "weights.safetensors")


def test_a_link_to_a_run_is_that_run_however_often_one_looks(run: cs.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "runs" / "first")
    shutil.copytree(run.path, tmp_path / "elsewhere" / "second")
    (tmp_path / "runs" / "best").symlink_to("first")
    (tmp_path / "runs" / "other").symlink_to(tmp_path / "elsewhere" / "second")
    with opened(Workspace.of_folder(tmp_path / "runs")) as page:
        for _ in range(3):
            assert [model["id"] for model in page.get("session")["models"]] == ["first", "second"]


def test_a_run_in_the_place_of_another_one_is_what_it_is_now(tmp_path: Path) -> None:
    first, second = pictures(tmp_path / "first"), pictures(tmp_path / "second")
    for picture in second.glob("*/*.png"):
        Image.fromarray(np.full((8, 8), 250, np.uint8)).save(picture)
    cs.train(f"folder:{first}", "mnist-small", epochs=1, batch_size=8, out=tmp_path / "runs/x")
    with opened(Workspace.of_folder(tmp_path / "runs")) as page:
        (before,) = page.get("session")["models"]
        shown = {"kind": "sample", "source": "x.data", "split": "test", "index": 0}
        assert page.trace(shown)["input"]["high"] < 0.5
        shutil.rmtree(tmp_path / "runs/x")
        assert page.get("session")["models"][0]["parameters"] == before["parameters"]
        cs.train(f"folder:{second}", "simple-cnn", epochs=1, batch_size=8, out=tmp_path / "runs/x")
        (after,) = page.get("session")["models"]
        assert after["parameters"] == cs.load_run(tmp_path / "runs/x").parameters != before["parameters"]
        assert page.trace(shown)["input"]["high"] > 0.9
        assert page.get("session")["models"] == [after]


def test_a_run_that_its_training_adds_while_one_looks_is_there_once(
    run: cs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Workspace.of_folder(tmp_path)
    path = shutil.copytree(run.path, tmp_path / "one")
    adding = threading.Thread(target=gallery.add_run, args=("one", path))
    new_id = gallery._new_id

    def meanwhile(name: str) -> str:
        adding.start()
        adding.join(0.5)
        return new_id(name)

    monkeypatch.setattr(gallery, "_new_id", meanwhile)
    assert [model.id for model in gallery.session().models] == ["one"]
    adding.join()
    assert [model.id for model in gallery.session().models] == ["one"]
    gallery.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", None),
        ("dataset", 3),
        ("dataset", {"source": "shapes"}),
        ("dataset", {"source": 3, "name": "x", "seed": 0, "options": {}}),
        ("model", None),
        ("model", {"name": "crosses"}),
        ("card", None),
        ("card", {"name": "x"}),
    ],
)
def test_a_damaged_run_is_passed_over(run: cs.Run, tmp_path: Path, key: str, value: Any) -> None:
    shutil.copytree(run.path, tmp_path / "good")
    shutil.copytree(run.path, tmp_path / "odd")
    config = {name: part for name, part in run.config.items() if name != key}
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config if value is None else {**config, key: value}))
    with pytest.raises(cs.ConvscopeError, match=r"odd/config\.json is damaged"):
        cs.load_run(tmp_path / "odd")
    with opened(Workspace.of_folder(tmp_path)) as page:
        assert page.models == ["good"]


def test_models_of_runs_are_described_without_being_loaded(run: cs.Run, tmp_path: Path) -> None:
    norm = cs.train("shapes", "mnist-small", epochs=1, out=tmp_path / "norm")
    shutil.copytree(run.path, tmp_path / "one")
    with opened(Workspace.of_folder(tmp_path)) as page:
        models = page.get("session")["models"]
        assert not [one for one in page.gallery._models.values() if one._read is not None]
        for model, of in zip(models, (norm, run), strict=True):
            card = cs.card_of(of.model)
            assert card.preprocess.size is not None
            assert model["parameters"] == sum(value.numel() for value in of.model.parameters())
            assert model["classes"] == list(card.classes)
            height, width = card.preprocess.size
            channels, fixed = card.preprocess.channels, card.fixed_size
            assert model["expects"] == {"channels": channels, "height": height, "width": width, "fixed": fixed}
            assert model["notes"] == []
        page.trace(CROSS, model="one")
        assert page.get("session")["models"] == models


def test_a_run_of_a_network_given_by_hand_says_so_at_once(run: cs.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "own")
    config = {**run.config, "model": {**run.config["model"], "source": None}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    with opened(Workspace.of_folder(tmp_path)) as page:
        (model,) = page.get("session")["models"]
        assert "trained from a module passed in" in model["notes"][0]
