"""Dependencies and VJPs of layers and losses are written apart and agree: no slope outside the cells that are read."""

import numpy as np
import pytest
import torch

from convscope.errors import UsageError
from convscope.expr.call import Call
from convscope.ops import OPS
from convscope.ops.lookup import dependencies_of
from convscope.proof.calls import call_of
from rule_cases import recorded
from rule_cases_layers import LAYERS


def followed(call: Call, weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    """How many operands the slopes of some cells were compared for."""
    compared = 0
    vjp = OPS[call.op].vjp
    for name, operand in call.operands().items():
        try:
            gradients = {} if vjp is None else vjp(call, weights, frozenset({name})).gradients
        except UsageError:  # it cannot be followed through this argument
            continue
        masks = dependencies_of(call, (weights != 0).astype(np.float32), frozenset({name}))
        for key, gradient in gradients.items():
            assert masks[key].shape == gradient.shape == operand.shape
            assert not np.any((gradient != 0) & (masks[key] == 0)), f"{call.op} reads more of {key} than it says"
            compared += 1
    return compared


@pytest.mark.parametrize("name", LAYERS)
def test_no_slope_is_outside_the_cells_that_are_read(name: str) -> None:
    trace, _, _ = recorded(name, torch.float64)
    compared = 0
    for step in trace.all_steps:
        if step.op in OPS and step.results and "float" in step.dtype and 0 not in step.shape:
            weights = np.zeros(step.shape)
            weights[tuple(n // 2 for n in step.shape)] = 1.0
            compared += followed(call_of(trace, step), weights)
    assert compared or "positions" in name
