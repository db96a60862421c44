"""Which build of PyTorch the set-up installs: from a local index, into an environment without PyTorch."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux pip's default build has CUDA")


@pytest.fixture(scope="module")
def version() -> str:
    """The version of PyTorch that constraints.txt pins."""
    match = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert match
    return match.group(1)


def add_wheel(index: Path, version: str) -> None:
    """An index page for torch with one wheel of this version, which holds nothing."""
    folder = index / "torch"
    folder.mkdir(parents=True)
    name = f"torch-{version}-py3-none-any.whl"
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("torch/__init__.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<html><body><a href="{name.replace("+", "%2B")}">{name}</a></body></html>')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, version: str) -> Iterator[str]:
    """Two package indexes: /default has the default build, /cpu the CPU build."""
    root = tmp_path_factory.mktemp("indexes")
    add_wheel(root / "default", version)
    add_wheel(root / "cpu", f"{version}+cpu")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment for this file: making one with pip takes long."""
    path = tmp_path_factory.mktemp("installing") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    return path


@pytest.fixture
def python(venv: Path) -> Path:
    """The interpreter of a virtual environment without torch."""
    for path in venv.glob("lib/python*/site-packages/torch*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return venv / "bin/python"


def install(python: Path, server: str, *arguments: str, path: str = "") -> str:
    environment = {
        "PATH": f"{path}:{os.environ['PATH']}",
        "PIP_INDEX_URL": f"{server}/default",
        "PIP_NO_DEPS": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    command = [str(python), "scripts/install_torch.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def installed(python: Path) -> str:
    question = "import importlib.metadata; print(importlib.metadata.version('torch'))"
    return subprocess.run([str(python), "-c", question], capture_output=True, text=True, check=True).stdout.strip()


def test_the_cpu_build_is_preferred_and_announced(python: Path, server: str, version: str) -> None:
    message = install(python, server, f"{server}/cpu", "--cpu")
    assert message.startswith("Installing PyTorch's CPU build: about 200 MB to download, 1.1 GB on disk")
    assert "Downloading" in message, "pip shows what it does"
    assert installed(python) == f"{version}+cpu"
    assert install(python, server, f"{server}/cpu", "--cpu") == "", "it is not installed twice"


def test_without_the_cpu_index_pip_installs_its_default_build(python: Path, server: str, version: str) -> None:
    message = install(python, server, f"{server}/nowhere", "--cpu")
    assert message.startswith(f"{server}/nowhere cannot be reached, so pip's own index is used")
    assert installed(python) == version


def test_a_machine_with_a_gpu_gets_the_default_build(python: Path, server: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu/nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "gpu/nvidia-smi").chmod(0o755)
    message = install(python, server, f"{server}/cpu", path=str(tmp_path / "gpu"))
    assert message.startswith("Installing PyTorch with pip's default build")
    assert installed(python) == version
