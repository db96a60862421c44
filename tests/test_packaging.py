"""What is packaged holds the explorer's page, and is built with node only where that is needed."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import convscope as cs

ROOT = Path(__file__).parent.parent
PAGE = "convscope/server/static/index.html"
BUILD = "import sys; from hatchling import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that git knows, and nothing that was built."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=False)
    if listed.returncode:
        pytest.skip("no git checkout here")
    copy = tmp_path / "checkout"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def wheel(source: Path, out: Path, **environment: str) -> list[str]:
    """Build a wheel as a user's pip does; the names of what is in it."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=out.parent, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return archive.namelist()


def without_node(folder: Path) -> str:
    """A PATH on which a shell is found, and no node."""
    folder.mkdir()
    for name in ("sh", "env", "gcc", "uname"):
        if result := next((path for path in Path("/usr/bin").glob(name)), None):
            (folder / name).symlink_to(result)
    return str(folder)


@pytest.mark.study
@pytest.mark.skipif(sys.platform != "linux", reason="the PATH is made as Linux has it")
def test_the_page_travels_from_a_checkout_to_a_source_archive_to_a_wheel(checkout: Path, tmp_path: Path) -> None:
    path = without_node(tmp_path / "bin")
    names = wheel(checkout, tmp_path / "with-page", PATH=path)  # brings its own node
    assert PAGE in names
    assert any(name.startswith("convscope/server/static/assets/") for name in names)

    tools, archives = tmp_path / "tools", tmp_path / "archives"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-t", str(tools), "hatchling"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    subprocess.run(
        [sys.executable, "-c", BUILD, "build_sdist", str(archives)], env=environment, cwd=checkout, check=True
    )
    archive = next(archives.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        inside = packed.getnames()
    assert any(name.endswith(f"src/{PAGE}") for name in inside)
    assert not any("node_modules" in name for name in inside)

    registry = {"npm_config_registry": "http://127.0.0.1:9"}  # no server: the page is not built again
    assert PAGE in wheel(archive, tmp_path / "from-archive", PATH=path, **registry)


@pytest.mark.study
def test_without_the_page_it_can_be_installed_too(checkout: Path, tmp_path: Path) -> None:
    names = wheel(checkout, tmp_path / "without-page", CONVSCOPE_NO_WEB="1")
    assert "convscope/server/app.py" in names
    assert PAGE not in names


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", text, re.MULTILINE) == [cs.__version__]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "must hold one wheel and one sdist, and has 0 and 0."),
        (["a-1-py3-none-any.whl", "b-1-py3-none-any.whl", "a-1.tar.gz"], "and has 2 and 1."),
        (["a-1-py3-none-any.whl", "a-1.tar.gz"], "a-1-py3-none-any.whl has no explorer"),
    ],
)
def test_packages_that_are_not_complete_are_refused(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a/__init__.py", "")
    command = [sys.executable, str(ROOT / "scripts" / "check_dist.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
