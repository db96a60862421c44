"""Every picture of README and docs is one that a script draws from the present page, so none grows old unnoticed."""

import re
import sys
from pathlib import Path

from documents import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import docs_pictures  # scripts, which their folder makes importable

REFERENCE = re.compile(r"(?:\bsrc(?:set)?=\"|!\[[^\]]*\]\()([^\"()\s]+)[\")]")


def pictures_in(page: Path) -> list[Path]:
    """The files of the pictures that a page shows."""
    return [(page.parent / path).resolve() for path in REFERENCE.findall(page.read_text(encoding="utf-8"))]


def test_both_ways_to_show_a_picture_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('![A map.](images/a.png)\n<source srcset="b.png">\n<img src="../c.png" alt="(c).png">')
    assert pictures_in(page) == [tmp_path / "images/a.png", tmp_path / "b.png", tmp_path.parent / "c.png"]


def test_every_picture_is_drawn_by_the_script_or_listed_there() -> None:
    known = {file for name in docs_pictures.PICTURES for file in docs_pictures.files_of(name)}
    known |= set(docs_pictures.DRAWN_OTHERWISE)
    expected = {docs_pictures.IMAGES / file for file in known}
    shown = {picture for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] for picture in pictures_in(page)}
    assert shown == expected
    assert set(docs_pictures.IMAGES.iterdir()) == expected
