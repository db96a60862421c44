"""Many cells at once: a vectorized rule gives each cell the value and the bound that it gives it alone, bit for bit."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import convscope as cs
from convscope.expr.call import Call, Cell
from convscope.expr.expr import BoundedResult, Dot, Expr
from convscope.expr.precision import exact_sums
from convscope.ops import OPS
from convscope.ops.op import Vectorized
from convscope.proof import step_check
from convscope.proof.calls import call_of
from convscope.proof.step_check import UNABLE, groups, results_of
from convscope.traces.trace import Trace
from rule_cases import CASES, recorded

Array = NDArray[np.int64]


def calls(trace: Trace) -> Iterator[tuple[Call, Array]]:
    """Each result of each step that a vectorized rule explains, with some of its cells in any order."""
    for step in trace.all_steps:
        if step.is_complex or step.role == "random" or step.op not in OPS:
            continue
        for output, made in enumerate(step.results):
            size = math.prod(made.shape)
            if isinstance(OPS[step.op].rule, Vectorized) and made.shape and size:
                flat = np.random.default_rng(size).permutation(size)[:16]
                yield call_of(trace, step, output), np.stack(np.unravel_index(flat, made.shape), -1)


def alone(call: Call, cell: Array) -> BoundedResult | None:
    try:
        return OPS[call.op].rule(call, tuple(map(int, cell))).result(call.precision)
    except UNABLE:
        return None


def assert_alone_as_among_others(trace: Trace) -> None:
    for call, cells in calls(trace):
        rule = OPS[call.op].rule
        expected = [alone(call, cell) for cell in cells]
        if None in expected:  # the rule cannot explain some of them
            continue
        for rows in groups(rule, call, cells) or []:  # what is called alike is explained in one go
            if len(rows) > 1:
                shapes = map(np.shape, rule(call, tuple(cells[rows].T)).result(call.precision))
                assert np.broadcast_shapes(*shapes) in {(len(rows),), ()}, call.op
        results = results_of(rule, call, cells)
        assert results.able.all()
        for result, which in ((results.values, 0), (results.errors, 1)):
            np.testing.assert_array_equal(result, [pair[which] for pair in expected if pair], f"{call.op}, {which}")


@pytest.mark.parametrize("name", CASES)
def test_a_cell_among_others_is_the_cell_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_check, "TERMS", 300)  # so that some groups fall into parts
    with np.errstate(all="ignore"):
        assert_alone_as_among_others(recorded(name)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_so_it_is_in_other_types(dtype: torch.dtype) -> None:
    looked_at = 0
    for name in [*CASES][::11]:
        try:
            trace, *_ = recorded(name, dtype)
        except Exception:  # PyTorch has no such kernel
            continue
        with np.errstate(all="ignore"):
            assert_alone_as_among_others(trace)
        looked_at += 1
    assert looked_at > 20


VECTORIZED = {"convolution", "addmm", "relu", "max_pool2d_with_indices", "native_batch_norm", "view", "cat"}


def test_the_operations_of_networks_are_explained_together() -> None:
    missing = set(VECTORIZED)
    for name in CASES:
        for call, cells in calls(recorded(name)[0]):
            if len(cells) > 9 and len(groups(OPS[call.op].rule, call, cells) or cells) < len(cells):
                missing.discard(call.op)
        if not missing:
            break
    assert not missing


def test_a_rule_that_is_wrong_for_some_cells_only_is_caught() -> None:
    """A vectorized rule with another kernel in its last column contradicts the recorded numbers there."""
    rule = OPS["convolution"].rule

    def broken(call: Call, cell: Cell) -> Expr:
        dot = rule(call, cell)
        assert isinstance(dot, Dot)
        assert dot.right is not None
        last = np.asarray(cell[-1] == call.shape[-1] - 1)[..., None]
        return replace(dot, right=replace(dot.right, values=np.where(last, 1.001, 1.0) * dot.right.values))

    trace = cs.trace(torch.nn.Conv2d(2, 5, 3, padding=1), torch.rand(1, 2, 20, 20))
    op = replace(OPS["convolution"], rule=Vectorized(broken))
    (wrong,) = cs.verify(trace, ops=OPS | {"convolution": op}).mismatches
    assert wrong.mismatch is not None
    assert wrong.mismatch.witness == "expression"
    assert wrong.mismatch.cell[-1] == 19
    assert cs.verify(trace).proved


def test_a_wrong_rule_of_a_result_without_axes_is_caught() -> None:
    rule = OPS["mean"].rule

    def broken(call: Call, cell: Cell) -> Expr:
        dot = rule(call, cell)
        assert isinstance(dot, Dot)
        return replace(dot, divisor=dot.divisor + 1)

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean()

    trace = cs.trace(Mean(), torch.rand(1, 3, 20))
    (wrong,) = cs.verify(trace, ops=OPS | {"mean": replace(OPS["mean"], rule=Vectorized(broken))}).mismatches
    assert wrong.mismatch is not None
    assert (wrong.mismatch.cell, wrong.mismatch.witness) == ((), "expression")


def test_a_rule_that_fails_for_many_explains_each_cell_by_itself() -> None:
    rule = OPS["relu"].rule

    def one_only(call: Call, cell: Cell) -> Expr:
        if not isinstance(cell[0], int):
            raise TypeError("one cell at a time")
        return rule(call, cell)

    trace = cs.trace(torch.nn.ReLU(), torch.randn(1, 3, 20))
    report = cs.verify(trace, ops=OPS | {"relu": replace(OPS["relu"], rule=Vectorized(one_only))})
    assert report.proved
    assert report.steps[0].explained == 60


@pytest.mark.parametrize("fails", [0, 7, 59])
def test_a_rule_that_leaves_a_cell_open_proves_nothing(fails: int) -> None:
    rule = OPS["relu"].rule

    def partial(call: Call, cell: Cell) -> Expr:
        if np.any(np.asarray(cell[-1]) == fails):
            raise ValueError("not this one")
        return rule(call, cell)

    trace = cs.trace(torch.nn.ReLU(), torch.randn(1, 1, 60))
    report = cs.verify(trace, ops=OPS | {"relu": replace(OPS["relu"], rule=Vectorized(partial))})
    assert (report.steps[0].finding, report.steps[0].explained) == ("recomputed", fails)


def fsum(row: NDArray[np.float64]) -> float:
    try:
        return math.fsum(row.tolist())
    except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond the type
        return float(row.sum())


numbers = st.one_of(
    st.floats(width=64), st.floats(-4, 4, width=16), st.sampled_from([0.0, 1e16, -1e16, 1.0, 2.0**-53, 2.0**-1074])
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_rows_add_up_as_fsum_adds_them(data: st.DataObject) -> None:
    count, rows = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    some = np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    with np.errstate(all="ignore"):
        table = some[random.integers(0, count, (rows, 600))] * random.choice([1.0, -1.0, 0.0], (rows, 600))
        np.testing.assert_array_equal(exact_sums(table), [fsum(row) for row in table])


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300, 2.0**-1060])
def test_rows_of_products_add_up_as_fsum_adds_them(scale: float) -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((200, 300)).astype(np.float32).astype(float) * random.standard_normal(300) * scale
    cancelling = np.concatenate([table, -table + 2.0**-60 * scale * random.standard_normal(table.shape)], 1)
    for rows in (table, cancelling, np.round(table * 8) / 8):
        np.testing.assert_array_equal(exact_sums(rows), [fsum(row) for row in rows])
