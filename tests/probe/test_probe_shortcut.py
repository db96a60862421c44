"""Shortcut: rules that one can check by hand, exactly fitted, honestly scored."""

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import convscope as cs
from convscope.cli import app
from convscope.probe.support.trivial_features import FEATURES, MEANS, _best_rules, features_of, fit_rule


def test_the_area_rule_on_shapes_scores_seventeen_of_eighteen_and_says_so() -> None:
    result = cs.probe.shortcut("shapes")
    area = result.features[0]
    assert (area.name, area.rule) == ("area", "circle where area is 81 or 113, else square")
    assert area.exact == pytest.approx(17 / 18)
    assert area.test.n == 200
    assert area.test.interval[0] < 17 / 18 < area.test.interval[1]
    assert "Of all 3,889 possible images, each as likely as the tutorial draws it, that is 94.4 %." in str(result)


def test_as_published_the_rule_scores_the_same_within_its_interval() -> None:
    train, test = (cs.load_dataset("shapes", split=s, sampling="published", size=2000) for s in ("train", "test"))
    low, high = cs.probe.shortcut(train, test).features[0].test.interval
    assert low < 17 / 18 < high


def test_features_that_can_be_counted() -> None:
    images = np.zeros((2, 3, 6, 7), np.uint8)
    images[0, 0, 1:3, 2:5] = 255
    images[0, 1, 1:3, 2:5] = 100
    images[1, 2, 5, 6] = 255
    data = cs.Dataset("two", images, np.array([0, 1]), ("a", "b"))
    numbers, _ = features_of(data)
    assert set(numbers) == set(MEANS)
    wanted = {"area": [6, 1], "height": [2, 1], "width": [3, 1], "row": [1.5, 5], "column": [3, 6], "colours": [2, 2]}
    for name, values in wanted.items():
        assert numbers[name].tolist() == values
    assert numbers["red"][0] == pytest.approx(6 / 42)
    assert numbers["border"].tolist() == pytest.approx([0, 1 / 3 / 22])


def test_black_pictures_have_features_too() -> None:
    numbers, _ = features_of(cs.Dataset("black", np.zeros((1, 1, 5, 5), np.uint8), np.array([0]), ("a",)))
    assert set(numbers) == set(FEATURES)
    assert all(np.isfinite(v).all() for v in numbers.values())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=3, max_size=30), st.integers(1, 4))
def test_no_rule_of_as_few_intervals_is_better(pairs: list[tuple[int, int]], most: int) -> None:
    """Against every assignment of classes to the distinct values that has at most so many runs."""
    values, labels = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    distinct = np.unique(values)
    best = 0
    for classes in product(range(3), repeat=len(distinct)):
        if 1 + np.count_nonzero(np.diff(classes)) <= most:
            best = max(best, int((np.array(classes)[np.searchsorted(distinct, values)] == labels).sum()))
    rule = _best_rules(values, labels, 3, distinct, most)[-1]
    assert len(rule.pieces) <= most
    assert int((rule(values) == labels).sum()) == best


def test_noise_gets_the_shortest_rule() -> None:
    rng = np.random.default_rng(0)
    rule = fit_rule(rng.random(400), rng.integers(0, 2, 400), 2)
    assert len(rule.pieces) <= 3


def test_data_without_a_shortcut_are_said_to_have_none() -> None:
    rng = np.random.default_rng(1)
    data = cs.Dataset("noise", rng.integers(0, 256, (300, 1, 6, 6), np.uint8), rng.integers(0, 2, 300), ("a", "b"))
    result = cs.probe.shortcut(data)
    assert result.possible is None
    assert "No single one of these features does measurably better than guessing." in str(result)
    assert result.guess.n + result.trained_on == 300


def test_other_classes_in_the_test_images_are_refused() -> None:
    train = cs.load_dataset("shapes", size=20)
    test = cs.Dataset("other", train.images, train.labels, ("circle", "square"))
    with pytest.raises(cs.ConvscopeError, match="in the same order"):
        cs.probe.shortcut(train, test)
    one = cs.Dataset("one", train.images, np.zeros(20, int), ("square", "circle"))
    with pytest.raises(cs.ConvscopeError, match="training needs at least two"):
        cs.probe.shortcut(one)


def test_the_command_says_it_writes_json_and_draws(tmp_path: object) -> None:
    result = CliRunner().invoke(app, ["probe", "shortcut", "color-shapes", "--json", "--out", f"{tmp_path}/s.png"])
    assert result.exit_code == 0, result.output
    message = json.loads(result.stdout)
    assert message["features"][0]["name"] == "green"
    assert message["figure"].endswith("s.png")
    assert message["features"][0]["of_all_possible_images"] == pytest.approx(17 / 18)
