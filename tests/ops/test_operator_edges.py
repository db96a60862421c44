"""Edge values, equal numbers and odd layouts in PyTorch's operator database: no traceback, no false mismatch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.errors import UsageError
from rule_case import Doing as Of

pytest.importorskip("expecttest", reason="the operator database of PyTorch's tests imports it")
SCRIPT = Path(__file__).parents[1] / "support" / "operator_edges.py"


def studied(share: float, *dtypes: str) -> list[dict[str, Any]]:
    """The results for each type, from one process."""
    command = [sys.executable, str(SCRIPT), ",".join(dtypes), str(share), "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7200)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_some_operations_on_edge_values_end_in_a_finding() -> None:
    results = studied(0.015, "float32", "bfloat16")
    assert len(results) == 2
    for result in results:
        assert result["lines"] == []
        assert result["counts"]["proved"] > 8


def test_memory_behind_a_tensor_without_cells_is_refused_in_a_sentence() -> None:
    memory = torch.arange(6.0).reshape(2, 3)
    trace = cs.trace(Of(lambda x: torch.as_strided(memory[:0], (2, 2), (2, 1)) + x), torch.ones(1))
    step = next(step for step in trace.all_steps if step.op == "as_strided")
    assert "which is not recorded" in str(cs.explain(trace, step, (0, 0)))


class RunningMaximum(nn.Module):
    """A running maximum of a parameter without cells."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first.cummax(0)[0].flatten()[None] * x


def test_a_gradient_that_is_the_input_itself_is_refused_in_a_sentence() -> None:
    """PyTorch's gradient of a running maximum of no cells is the tensor that it was given."""
    with pytest.raises(UsageError, match="no recorded operation made"):
        cs.verify(cs.trace(RunningMaximum(), torch.ones(1, 1), target=torch.zeros(1), loss=lambda y, _: y.sum()))


@pytest.mark.study
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_operations_on_edge_values_end_in_a_finding(dtype: str) -> None:
    (result,) = studied(1.0, dtype)
    assert result["lines"] == []
    assert result["counts"]["proved"] > 1000
