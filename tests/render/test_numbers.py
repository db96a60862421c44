"""Numbers as text: Python and the page agree on the same table of cases (web/src/lib/format.test.ts reads it too)."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.render.numbers import MINUS, aligned, compact, digits_for, number_of, percent
from convscope.server.explanations.explanations import cell_words

CASES: dict[str, list[list[Any]]] = json.loads(
    (Path(__file__).parents[1] / "support/number_cases.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("value", "digits", "text"), CASES["compact"])
def test_one_number(value: float, digits: int, text: str) -> None:
    assert compact(value, digits) == text


@pytest.mark.parametrize(("value", "change", "digits", "text"), CASES["change"])
def test_a_number_has_the_digits_that_show_its_change(value: float, change: float, digits: int, text: str) -> None:
    assert digits_for(value, change) == digits
    assert compact(value, digits) == text


@given(number=st.floats(1e-6, 1e3), share=st.floats(1e-10, 1e-2), sign=st.sampled_from([-1, 1]))
def test_a_small_change_is_seen(number: float, share: float, sign: int) -> None:
    after = number * (1 + sign * share)
    texts = [compact(value, digits_for(value, after - number)) for value in (number, after)]
    seen = number_of(texts[1]) - number_of(texts[0])
    assert math.isclose(seen, after - number, rel_tol=0.02)


@pytest.mark.parametrize(("values", "texts"), CASES["aligned"])
def test_numbers_of_one_table_have_the_same_decimals(values: list[float], texts: list[str]) -> None:
    assert aligned(np.array(values)).tolist() == texts


@pytest.mark.parametrize(("share", "text"), CASES["percent"])
def test_a_share(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("cell", "text"), CASES["cell"])
def test_a_cell_in_words(cell: list[int], text: str) -> None:
    assert cell_words([0, *cell], [1, *(n + 1 for n in cell)]) == text


@given(value=st.floats(-1e300, 1e300, allow_subnormal=False), digits=st.integers(2, 9))
def test_a_shown_number_is_the_number_to_its_digits(value: float, digits: int) -> None:
    shown = number_of(compact(value, digits))
    assert math.isclose(shown, value, rel_tol=0.51 * 10.0 ** (1 - digits), abs_tol=0)
    assert "-" not in compact(value, digits)
    assert compact(-abs(value), digits).startswith(MINUS) or value == 0
