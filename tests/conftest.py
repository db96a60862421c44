"""What all tests share: real data where it is, and a quiet, short-lived environment."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import convscope as cs
from browser import browser, tab
from commands import Commands

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("convscope", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("convscope")

LONG = (
    "test_resume", "test_many", "test_cli", "test_server_training", "test_explorer_train", "test_server_launch",
    "test_examples", "test_explorer", "test_zoo", "test_training", "test_explorer_change", "test_distributed",
)  # fmt: skip
"""Files that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process begins with its share of the long files: none runs alone in the end while the others wait.

    Processes start with equal parts of the list, in its order, and take from the ends of each other's parts.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    place = {f"{name}.py": number % processes for number, name in enumerate(LONG)}
    others = [item for item in items if item.path.name not in place]
    size, parts = -(-len(items) // processes), list[pytest.Item]()
    for process in range(processes):
        long = [item for item in items if place.get(item.path.name) == process]
        count = max(0, size - len(long))
        parts += [*long, *others[:count]]
        del others[:count]
    items[:] = [*parts, *others]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real MNIST and a photo."""
    found = os.environ.get("CONVSCOPE_DATA")
    if not found or not Path(found).is_dir():
        pytest.skip("CONVSCOPE_DATA names no folder with mnist/ and images/")
    return Path(found)


@pytest.fixture
def convscope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The command line in this process."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    return Commands(monkeypatch, capsys)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page in it that must end without an error on the console."""
    with tab(chromium) as found:
        yield found


@pytest.fixture(scope="module")
def shapes() -> Iterator[Any]:
    """The explorer on one of the test images, with a network of the seed 3."""
    with cs.open(cs.load_model("shapes-cnn", seed=3), "shapes:test/12", port=0, browser=False) as explorer:
        yield explorer


@pytest.fixture(scope="module")
def traced() -> cs.Trace:
    """The pass that it explains, made here."""
    model = cs.load_model("shapes-cnn", seed=3)
    return cs.trace(model, cs.load_image("shapes:test/12", like=model))


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hugging Face datasets convert parquet files into a cache; here into a folder that goes away."""
    datasets = pytest.importorskip("datasets", reason="hub: data need Hugging Face datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


@pytest.fixture
def static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built page of the explorer, with a secret beside it."""
    from convscope.server import page

    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "assets" / "a.js").write_text("let a;")
    (folder / ".sources").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(page, "STATIC", folder)
    return folder
