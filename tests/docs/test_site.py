"""The documentation site: built without a fault, works from disk, loads nothing from elsewhere; its search finds."""

import doctest
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import missing, tab
from documents import ROOT

pytest.importorskip("zensical", reason="the site needs the extra docs")
sys.path.insert(0, str(ROOT / "scripts"))
import build_site  # scripts, which their folder makes importable
import fence_examples

BUILT = ROOT / "build" / "docs"
"""Where `make docs` puts the site, if it has no fault."""


def is_newer(index: Path, *sources: Path) -> bool:
    """Whether a site is newer than all pages, docstrings and scripts that it is made from."""
    files = (file for folder in sources for file in folder.rglob("*") if file.suffix in {".md", ".py", ".css", ".js"})
    made_from = [file for file in files if "static" not in file.parts]
    return index.is_file() and max(file.stat().st_mtime for file in made_from) < index.stat().st_mtime


def test_a_site_is_used_only_while_it_is_newer_than_its_sources(tmp_path: Path) -> None:
    index = tmp_path / "index.html"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").touch()
    assert not is_newer(index, tmp_path / "docs")
    index.touch()
    os.utime(index, ns=(0, (tmp_path / "docs" / "a.md").stat().st_mtime_ns + 10**9))
    assert is_newer(index, tmp_path / "docs")
    os.utime(index, ns=(0, 0))
    assert not is_newer(index, tmp_path / "docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of these sources: that of `make docs` while it is newer, or one built here without the lessons."""
    if is_newer(BUILT / "index.html", *(ROOT / name for name in ("docs", "src", "scripts"))):
        return BUILT
    if not build_site.SHIM.is_dir():
        missing("the script of the search is not installed: npm --prefix web ci")
    out = tmp_path_factory.mktemp("site") / "docs"
    command = [sys.executable, str(ROOT / "scripts" / "build_site.py"), str(out), "--without-lessons"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


@pytest.fixture
def tabs(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of the site in the browser; any request that leaves the disk fails the test."""
    size, scheme = request.param
    with tab(chromium, size=size, scheme=scheme) as page:
        left: list[str] = []
        page.on(
            "request", lambda asked: left.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
        )
        yield page
        assert not left


LOOKS = [((1440, 900), "light"), ((1440, 900), "dark"), ((390, 844), "light"), ((390, 844), "dark")]
SHOWN = ("index", "how-to/own-model", "reference/python", "reference/http")


@pytest.mark.parametrize("tabs", LOOKS, indirect=True, ids=lambda look: f"{look[0][0]}-{look[1]}")
def test_pages_open_from_disk_and_load_nothing_from_elsewhere(tabs: Any, site: Path) -> None:
    dark = tabs.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for name in SHOWN:
        tabs.goto((site / f"{name}.html").as_uri())
        tabs.locator("h1").wait_for()
        scheme = tabs.locator("body").get_attribute("data-md-color-scheme")
        assert scheme == ("slate" if dark else "default")
        assert tabs.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"


@pytest.mark.parametrize("tabs", LOOKS[:1], indirect=True, ids=["search"])
def test_search_works_from_disk(tabs: Any, site: Path) -> None:
    tabs.goto((site / "index.html").as_uri())
    tabs.locator(".md-search__button").click()
    tabs.get_by_role("combobox", name="Search").fill("transposed")
    tabs.get_by_role("option").filter(has_text="Any number of dimensions").click()
    tabs.wait_for_url("**/reference/operations.html*")


def test_every_public_name_has_an_entry(site: Path) -> None:
    import convscope as cs

    page = (site / "reference" / "python.html").read_text()
    names = set(cs._PUBLIC)
    assert {name for name in names if f'id="convscope.{name}"' in page} == names
    rooms = (site / "reference" / "python-rooms.html").read_text()
    figures = {name for name in vars(cs.plot) if not name.startswith("_") and callable(getattr(cs.plot, name))}
    expected = {f"reference.{name}" for name in cs.reference.__all__} | {f"plot.{name}" for name in figures}
    expected |= {f"probe.public.{probe.function}" for probe in cs.probe.PROBES.values()}
    assert {name for name in expected if f'id="convscope.{name}"' in rooms} == expected


def test_every_route_has_an_entry(site: Path) -> None:
    from convscope.server.openapi import document

    page = (site / "reference" / "http.html").read_text()
    for path, methods in json.loads(document())["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page


def test_language_models_get_a_list_of_pages_that_exist(site: Path) -> None:
    text = (site / "llms.txt").read_text()
    links = [line.partition("](")[2].partition(")")[0] for line in text.splitlines() if line.startswith("- [")]
    assert len(links) > 30
    assert not [link for link in links if not (site / link).is_file()]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="missing.html">x</a>', "missing.html does not exist"),
        ('<a href="#nowhere">x</a>', "#nowhere has no such anchor"),
        ('<a href="other.html#nowhere">x</a>', "other.html#nowhere has no such anchor"),
        ('<img src="missing.png">', "missing.png does not exist"),
        ('<script src="https://example.org/a.js"></script>', "loads https://example.org/a.js from elsewhere"),
        ('<link href="//example.org/a.css">', "loads //example.org/a.css from elsewhere"),
        ("<style>@import 'https://example.org/a.css'</style>", "loads https://example.org/a.css from elsewhere"),
        ('<a href="https://example.org">x</a><a href="other.html#here">x</a>', ""),
    ],
)
def test_a_broken_link_is_a_fault(body: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f"<h1>x</h1>{body}")
    (tmp_path / "other.html").write_text('<h1 id="here">x</h1>')
    assert list(build_site.faults_of(tmp_path)) == ([f"index.html: {fault}"] if fault else [])


def test_a_page_that_its_index_does_not_list_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "how-to").mkdir()
    (tmp_path / "how-to" / "index.md").write_text("# How-to\n\n- [A](a.md): about a\n")
    (tmp_path / "how-to" / "a.md").write_text("# The `a`\n")
    assert build_site.pages_of(tmp_path, "how-to") == [build_site.Page("how-to/a.md", "The a", "about a")]
    (tmp_path / "how-to" / "b.md").write_text("# B\n")
    with pytest.raises(SystemExit, match=r"index.md lists the pages of its folder; it lacks b.md"):
        build_site.pages_of(tmp_path, "how-to")


def test_examples_in_docstrings_become_code_blocks() -> None:
    result = doctest.testmod(fence_examples)
    assert (result.failed, result.attempted) == (0, 1)
    assert fence_examples.fenced(">>> f()  # doctest: +SKIP\n<BLANKLINE>\n1") == "```pycon\n>>> f()\n\n1\n```\n"
