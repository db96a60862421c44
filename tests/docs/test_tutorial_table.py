"""The page of the repeated tutorials: every row runs in the build; here, that a row which lacks something fails."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from documents import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import tutorial_rows  # scripts, which their folder makes importable
import tutorial_table

NETWORK = next(row for row in tutorial_rows.ROWS if row.item.startswith("The network"))
BY_HAND = next(row for row in tutorial_rows.ROWS if row.item.startswith("ReLU and max"))


def test_every_item_of_the_newcomer_s_report_has_a_row() -> None:
    counts = [sum(row.tutorial == number for row in tutorial_rows.ROWS) for number in range(1, 6)]
    assert counts == [8, 12, 5, 7, 16]
    assert all(row.shows or row.draws for row in tutorial_rows.ROWS)


def test_a_row_is_a_heading_with_its_commands_and_their_output(tmp_path: Path) -> None:
    shown = [tutorial_table.run(row, {"cs": cs}) for row in (NETWORK, BY_HAND)]
    page = tutorial_table.page(shown, tmp_path, "")
    assert "in 2 items" in page
    assert "```sh\nconvscope trace crosses crosses:plus\n```" in page
    assert "array([[5.]])" in page


@pytest.mark.parametrize("change", [{"shows": ("no such output",)}, {"draws": 1}])
def test_a_row_that_lacks_something_fails(change: dict[str, Any]) -> None:
    with pytest.raises(tutorial_table.RowError, match=r"no such output|draws 0 pictures instead of 1"):
        tutorial_table.run(dataclasses.replace(BY_HAND, **change), {"cs": cs})


def test_a_command_that_fails_is_no_output() -> None:
    with pytest.raises(tutorial_table.RowError, match=r"status 1"):
        tutorial_table.of_command("convscope trace crosses nowhere.png")


def test_a_long_output_loses_its_middle() -> None:
    assert tutorial_table.shortened("a\nb") == "a\nb"
    lines = tutorial_table.shortened("\n".join(map(str, range(5000)))).split("\n")
    assert lines[13:16] == ["13", "… 4,978 lines …", "4992"]
