"""Parts: what is recomputed some cells at a time is what is recomputed as a whole, and takes little memory."""

import numpy as np
import pytest
from support.rule_cases import CASES, recorded

from convscope.proof.recomputation import recompute, recompute_in_parts
from convscope.reference.parts import CUTS
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Step
from convscope.traces.trace import Trace


def test_every_operation_that_is_cut_has_a_reference() -> None:
    assert set(CUTS) <= set(OPERATIONS)


def _put_together(trace: Trace, step: Step, cells: int) -> tuple[int, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """How many parts there are, and the values and bounds that they add up to."""
    whole: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    count = 0
    for count, part in enumerate(recompute_in_parts(trace, step, cells=cells), 1):
        for output, found in part.found.items():
            shape = step.results[output].shape
            values, bounds = whole.setdefault(output, (np.full(shape, 77.0), np.full(shape, 77.0)))
            box = part.box_in(output, len(shape))
            assert values[box].shape == found.values.shape
            values[box], bounds[box] = found.values, found.bounds
    return count, whole


@pytest.mark.parametrize("name", CASES)
def test_parts_add_up_to_the_whole(name: str) -> None:
    trace, *_ = recorded(name)
    for step in trace.all_steps:
        if step.op not in CUTS:
            continue
        _, parts = _put_together(trace, step, cells=7)
        whole = recompute(trace, step)
        assert parts.keys() == whole.keys()
        for output, found in whole.items():
            values, bounds = parts[output]
            np.testing.assert_allclose(values, found.values, rtol=1e-12, atol=1e-13, err_msg=f"{step.op} {output}")
            np.testing.assert_allclose(
                bounds, np.broadcast_to(found.bounds, values.shape), rtol=1e-9, err_msg=f"{step.op} {output}"
            )
