"""Notation: the code is run, and gives the recorded number."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convscope as cs
from convscope.traces.notation import CALLS, FORMULAS, formula, pytorch_code
from rule_cases import CASES, recorded


@pytest.mark.parametrize("name", CASES)
def test_the_code_gives_the_recorded_number(name: str) -> None:
    trace = recorded(name)[0]
    random = np.random.default_rng(0)
    for step in trace.steps:
        if 0 in step.shape:
            continue
        for cell in random.integers(0, step.shape, (4, len(step.shape))):
            code = pytorch_code(step, tuple(map(int, cell)))
            if code is None:
                continue
            *lines, call = code.splitlines()
            scope = {"trace": trace, "torch": torch, "F": F}
            exec("\n".join(lines), scope)
            assert eval(call, scope).item() == pytest.approx(float(step.output[tuple(cell)]), rel=1e-5, abs=1e-6)


def test_every_call_is_run() -> None:
    seen = {step.op for name in CASES for step in recorded(name)[0].steps if pytorch_code(step, step.shape) is not None}
    assert seen >= CALLS.keys() - {"max_pool3d_with_indices", "silu", "mm", "exp"}
    assert FORMULAS.keys() <= CALLS.keys()


def test_a_convolution_as_a_formula_says_where_its_window_is() -> None:
    """The formula is evaluated literally."""
    torch.manual_seed(0)
    trace = cs.trace(nn.Conv2d(2, 3, (2, 3), stride=(2, 1), dilation=(1, 2)), torch.rand(1, 2, 7, 9))
    step = trace["conv2d"]
    x, weight, bias = (trace.operand(step, name) for name in ("input", "weight", "bias"))
    text = formula(step, (0, 1, 2, 3))
    assert text == "out[1, 2, 3] = Σ over c, r, s of in[c, 4 + r, 3 + 2s] · weight[1, c, r, s] + bias[1]"
    terms = [x[0, c, 4 + r, 3 + 2 * s] * weight[1, c, r, s] for c in range(2) for r in range(2) for s in range(3)]
    assert sum(terms) + bias[1] == pytest.approx(float(step.output[0, 1, 2, 3]), rel=1e-5)


def test_what_has_no_short_call_has_none() -> None:
    trace = cs.trace(nn.BatchNorm2d(2).train(), torch.rand(3, 2, 4, 5), training=True)
    assert [pytorch_code(step, (0, 0, 0, 0)) for step in trace.steps if step.op in CALLS] == [None]
