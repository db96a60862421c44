"""The study that the lessons quote: complete, and what the script measures."""

import importlib
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convscope as cs
from convscope.lessons.parsing import PAGES
from convscope.lessons.spreads import RESULT, Spread, spread, study
from convscope.training.recipes import Recipe

BENCH = Path(__file__).parents[2] / "bench"


def _script() -> Any:
    """The script as a module; the files of bench/ import each other by name."""
    sys.path.append(str(BENCH))
    try:
        return importlib.import_module("lesson_spreads")
    finally:
        sys.path.remove(str(BENCH))


script = _script()
MEASUREMENTS: Any = script.MEASUREMENTS
QUOTED = re.compile(r"""spread\(['"](.+?)['"], ['"](.+?)['"]\)""")


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_is_in_the_file_with_all_its_seeds_and_conditions(name: str) -> None:
    record = study()["measurements"][name]
    assert record["seeds"] == list(MEASUREMENTS[name].seeds)
    assert record["question"] == MEASUREMENTS[name].question
    assert record["values"]
    assert all(len(values) == len(record["seeds"]) for values in record["values"].values())
    if "model" in record["condition"]:
        settings = {field.name for field in fields(Recipe)} - {"seed", "log_every"}
        assert set(record["condition"]["recipe"]) == settings
        assert {"dataset", "arguments", "test_images"} <= set(record["condition"])


def test_the_file_names_its_environment_and_has_nothing_else() -> None:
    assert set(study()["measurements"]) == set(MEASUREMENTS)
    assert set(study()["environment"]) == set(script.environment())


@pytest.mark.parametrize(
    ("name", "seed", "tolerance"),
    [("overlap", 3, 0), ("area", 3, 1e-5), ("gradients", 3, 1e-3), ("shapes-mlp, fast", 3, 0.05)],
)
def test_one_seed_measured_again_gives_what_the_file_says(
    name: str, seed: int, tolerance: float, tmp_path: Path
) -> None:
    """Trainings may differ a little on another kind of processor; what is counted may not."""
    row = MEASUREMENTS[name].measure(seed, tmp_path / "run", lambda _: None)
    record = study()["measurements"][name]
    assert row["condition"] == record["condition"]
    assert set(row["values"]) == set(record["values"])
    for quantity, value in row["values"].items():
        stored = record["values"][quantity][record["seeds"].index(seed)]
        if quantity == "seconds" or value is None or isinstance(value, str):
            assert (stored is None) == (value is None)
            assert isinstance(stored, type(value)) or quantity == "seconds"
        else:
            np.testing.assert_allclose(value, stored, rtol=tolerance if name == "gradients" else 0, atol=tolerance)


def test_a_study_is_ended_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["lesson_spreads.py", "overlap", "--work", str(tmp_path), *words])
        return int(script.main())

    assert run("--minutes", "0") == script.UNFINISHED
    assert "0 of 20 measured" in capsys.readouterr().out
    kept = tmp_path / "overlap" / "0.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps({"condition": {"kept": True}, "values": {"shapes": 5}}))
    with pytest.raises(SystemExit, match="different conditions"):
        run()  # a seed that was measured otherwise is noticed, not mixed in
    kept.unlink()
    assert run() == 0
    capsys.readouterr()
    assert run() == 0
    assert capsys.readouterr().out == ""  # nothing is measured twice


def test_what_is_written_can_be_read_again() -> None:
    found = {"a": {"question": "?", "condition": {"b": 1}, "seeds": [0, 1], "values": {"c": [0.123456789, None]}}}
    record = json.loads(script.written(found))
    assert record["measurements"]["a"]["values"]["c"] == [0.123457, None]
    assert json.loads(RESULT.read_text(encoding="utf-8")) == study()


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_what_the_lessons_quote_was_measured(page: Path) -> None:
    """Also in lessons whose data are not at hand here."""
    for measurement, quantity in QUOTED.findall(page.read_text(encoding="utf-8")):
        assert spread(measurement, quantity).n >= 3


def test_a_spread_in_words() -> None:
    some = Spread(np.array([0.5, 0.75, 1.0]), (42, 43, 44), {"test_images": 1000}, study()["environment"])
    assert some.percent == "75.0 % (50.0 to 100.0 % in 3 repetitions)"
    assert str(some) == "0.75 (0.5 to 1 in 3 repetitions)"
    assert some.conditions.startswith("1,000 test images; 3 seeds from 42 on; ")
    trained = spread("shapes-cnn, published", "test_accuracy").conditions
    assert trained.startswith(
        "shapes-cnn trained on shapes; adam, learning rate 0.001 (constant); batches of 10, 10 epochs;"
    )
    assert spread("mnist-convnet, fast", "right_by_level").median.shape == (11,)


def test_an_unknown_quantity_names_those_that_exist() -> None:
    with pytest.raises(cs.ConvscopeError, match="overlap"):
        spread("overlaps", "shapes")
    with pytest.raises(cs.ConvscopeError, match="color-shapes"):
        spread("overlap", "shape")
