"""The types of the server's explanations: all that `Explanation.to_json()` can give has exactly the declared keys."""

import json
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError
from torch import nn, tensor

import convscope as cs
from convscope.expr import call
from convscope.server.explanations.schema import ExplanationJson, Kind
from rule_cases import CASES, recorded

TYPES = TypeAdapter(ExplanationJson)


@pytest.mark.parametrize("name", CASES)
def test_every_operation_has_an_expression_of_these_types(name: str) -> None:
    trace, _, _ = recorded(name)
    for step in trace.all_steps:
        if 0 in step.shape or step.is_complex:
            continue
        plain = cs.explain(trace, step, tuple(size - 1 for size in step.shape)).to_json(proof=False)
        assert TYPES.validate_python(plain, strict=True) == plain
        assert json.loads(TYPES.dump_json(TYPES.validate_python(plain))) == json.loads(json.dumps(plain))


def test_with_its_status_and_numbers_that_are_not_finite() -> None:
    plain = cs.explain(cs.trace(nn.ReLU(), tensor([[float("nan"), 1.0]])), "relu", (0,)).to_json()
    assert (plain["value"], plain["status"]) == ("nan", "proved")
    assert TYPES.validate_python(plain) == plain


@pytest.mark.parametrize(
    "change",
    [{"extra": 1}, {"status": "not explained"}, {"expr": {"type": "sum"}}, {"value": "none"}, {"cell": None}],
    ids=str,
)
def test_other_keys_and_words_are_refused(change: dict[str, Any]) -> None:
    plain = cs.explain(cs.trace(nn.ReLU(), tensor([[1.0]])), "relu", (0,)).to_json()
    with pytest.raises(ValidationError):
        TYPES.validate_python(plain | change)


def test_the_kinds_of_sources_are_those_of_expressions() -> None:
    assert get_args(Kind) == get_args(call.Kind)
