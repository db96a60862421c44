"""What all tests share: real data where it is, and a quiet, short-lived environment."""

import gc
import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import convscope as cs
from browser import browser, on_screen, tab
from commands import Commands

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("convscope", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("convscope")

LONG = (
    "test_many", "test_lessons", "test_document_examples", "test_explorer_train", "test_resume",
    "test_server_training", "test_server_api", "test_check", "test_cli", "test_rules", "test_explorer_probe",
    "test_explorer_places", "test_explorer_layers", "test_explorer_use", "test_explorer", "test_explorer_change",
    "test_explorer_newcomer", "test_plot", "test_hub_unreadable", "test_summary_failures", "test_distributed",
    "test_signals", "test_trust", "test_report", "test_training", "test_explain", "test_zoo", "test_portability",
    "test_operator_database", "test_numpy_engine", "test_parts", "test_server_launch",
    "test_probe_receptive_field", "test_probe_mistakes", "test_server_training_http", "test_model_inputs",
    "test_notebook", "test_workbook", "test_hub_named", "test_plot_commands",
)  # fmt: skip
"""Files that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: processes get whole files in this order, and none is busy alone in the end."""
    path = {f"{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: path.get(item.path.name, len(LONG)))


def pytest_collection_finish() -> None:
    """Spare each test what takes longest around it.

    The tests themselves are not garbage: searching their objects takes a third of a second each time. And pytest adds
    its handlers, six times a test, to every logger that passes nothing on, of which PyTorch has fifty.
    """
    gc.freeze()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.name.partition(".")[0] == "torch":
            logger.propagate = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test of the page reports what was on screen."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and hasattr(page, "wrong"):
        report.sections.append(("The page", on_screen(page)))
    return report


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of the tests' own, for their child processes too."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVSCOPE_STATE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real MNIST and a photo."""
    result = os.environ.get("CONVSCOPE_DATA")
    if not result or not Path(result).is_dir():
        pytest.skip("CONVSCOPE_DATA names no folder with mnist/ and images/")
    return Path(result)


@pytest.fixture
def convscope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The command line in this process."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    return Commands(monkeypatch, capsys)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with browser() as result:
        yield result


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page in it that must end without an error on the console."""
    with tab(chromium) as result:
        yield result


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
    from convscope.server.http import page

    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "assets" / "a.js").write_text("let a;")
    (folder / ".sources").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(page, "STATIC", folder)
    return folder
