"""What all tests share: real data where it is, and a quiet, short-lived environment."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("convscope", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("convscope")

LONG = ("test_many", "test_distributed", "test_resume", "test_explorer", "test_server_training", "test_cli", "test_zoo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that none runs alone at the end while the other processes wait."""
    items.sort(key=lambda item: not item.path.name.startswith(LONG))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real MNIST and a photo."""
    found = os.environ.get("CONVSCOPE_DATA")
    if not found or not Path(found).is_dir():
        pytest.skip("CONVSCOPE_DATA names no folder with mnist/ and images/")
    return Path(found)


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
