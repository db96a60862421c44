"""Rules: every cell of every operation adds up, within a bound that is sound and says something."""

import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convscope.errors import UnknownName, UsageError
from convscope.expr import primitives
from convscope.expr.call import Call, Operand, full_cell
from convscope.expr.expr import Apply, Dot, Leaf
from convscope.expr.primitives import PRIMITIVES, Primitive
from convscope.ops import OPS, Op, explain_cell, role_of
from convscope.ops.dependencies import everything
from convscope.proof.explanation import Explanation, explain
from convscope.traces.trace import Trace
from rule_cases import CASES, recorded

ROOT = Path(__file__).parents[2]
Cell = tuple[int, ...]
KEPT_FOR_BACKWARD = {"_embedding_bag": 1, "_embedding_bag_forward_only": 1, "mkldnn_rnn_layer": 3, "_ctc_loss": 1}
"""The first result of an operation that only a backward pass reads: no rule explains it."""


def sampled(shape: tuple[int, ...], count: int) -> Iterator[Cell]:
    """The first and the last cell, and some between."""
    total = math.prod(shape)
    for flat in sorted({0, total - 1, *np.random.default_rng(total).integers(0, max(total, 1), count).tolist()}):
        if total:
            yield tuple(map(int, np.unravel_index(flat, shape)))


def explained(trace: Trace, count: int) -> Iterator[Explanation]:
    """Cells of all results of all steps, hidden ones too."""
    for step in trace.all_steps:
        for output, made in enumerate(step.results):
            for cell in sampled(made.shape, count):
                if output < KEPT_FOR_BACKWARD.get(step.op, len(step.results)):
                    yield explain(trace, step, cell, output=output)


def assert_adds_up(why: Explanation) -> None:
    assert why.raw is not None, why.step
    assert why.agrees, f"{why.step} {why.cell}: {why.value} is not {why.recorded} ± {why.bound}\n{why.raw}"


@dataclass
class Recorded:
    """A case, its trace, and explanations of some of its cells."""

    name: str
    trace: Trace
    explanations: list[Explanation]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Recorded:
    """Each case, recorded and explained once for all tests that look at it."""
    trace, _, _ = recorded(request.param)
    return Recorded(request.param, trace, [*explained(trace, 12)])


def test_every_cell_adds_up(case: Recorded) -> None:
    for why in case.explanations:
        assert_adds_up(why)


OTHER_TYPES = (torch.float64, torch.bfloat16, torch.float16)
STUDY = pytest.mark.study
EACH_IN_OTHER_TYPES = [
    pytest.param(name, dtype, id=f"{name}-{dtype}", marks=[] if number % len(OTHER_TYPES) == which else STUDY)
    for number, name in enumerate(CASES)
    for which, dtype in enumerate(OTHER_TYPES)
]
"""Every case in every type; in the short run each case in one of them, by turns."""


@pytest.mark.parametrize(("name", "dtype"), EACH_IN_OTHER_TYPES)
def test_every_cell_adds_up_in_other_types(name: str, dtype: torch.dtype) -> None:
    try:
        trace, _, _ = recorded(name, dtype)
    except Exception as error:
        if (
            "not implemented for" in str(error)
            or "should be the same" in str(error)
            or "must have the same" in str(error)
        ):
            pytest.skip(f"PyTorch has no such kernel: {error}")
        raise
    for why in explained(trace, 4):
        assert_adds_up(why)


def test_a_bound_says_something(case: Recorded) -> None:
    """A bound so wide that anything fits would prove nothing: half of them are below a small share of the numbers."""
    for step in case.trace.steps:
        if step.dtype != "float32":
            continue
        found = [
            why for why in case.explanations if why.step is step and why.output == 0 and math.isfinite(why.recorded)
        ]
        if found:
            size = math.sqrt(sum(why.recorded**2 for why in found) / len(found))
            assert float(np.median([why.bound for why in found])) <= size * CASES[case.name].resolution, step


def test_every_number_names_where_it_was_made(case: Recorded) -> None:
    """A leaf's number stands in the tensor, at the cell, that the leaf names."""
    for why in case.explanations:
        for part in why.parts(all=True):
            if isinstance(part, Leaf) and part.source.kind != "computed":
                assert_stands(case.trace, part)


def assert_stands(trace: Trace, leaf: Leaf) -> None:
    kind, name = leaf.source.kind, leaf.source.name
    if kind == "step":
        array = trace[name].outputs[leaf.source.output]
    elif kind == "parameter":
        array = trace.parameters[name]
    elif kind == "input":
        array = trace.inputs[name]
    else:
        return
    found = float(array[leaf.cell])
    assert found == leaf.number or (math.isnan(found) and math.isnan(leaf.number)), (leaf, found)


def recorded_operations() -> set[str]:
    return {step.op for name in CASES for step in recorded(name)[0].all_steps}


def test_every_rule_has_a_case() -> None:
    seen = recorded_operations()
    updates = {name for name in OPS if name.startswith("convscope::")}  # see capture/test_training_step.py
    newer = {name for name in OPS if not hasattr(torch.ops.aten, name)} - updates
    newer |= {"ldexp"} if torch.__version__.startswith("2.6.") else set()  # there it consists of others
    assert set(OPS) - seen - newer == updates
    assert {role_of(op) for op in seen - set(OPS)} <= {"random"}


def test_every_rule_has_a_heading() -> None:
    headings = [
        line
        for line in (ROOT / "docs" / "reference" / "operations.md").read_text().splitlines()
        if line.startswith("### ")
    ]
    named = [name for line in headings for name in line.split("`")[1::2]]
    assert sorted(named) == sorted(OPS)


def image(*shape: int) -> Operand:
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    return Operand.of(values, "image", "input")


def convolution(padding: int = 1, shape: tuple[int, ...] = (1, 1, 3, 3)) -> Call:
    kernel = Operand.of(np.ones((1, 1, 3, 3), np.float32), "conv1.weight", "parameter")
    settings = {"stride": [1, 1], "padding": [padding] * 2, "dilation": [1, 1], "transposed": False, "groups": 1}
    return Call("convolution", {"input": image(1, 1, 3, 3), "weight": kernel, "bias": None, **settings}, shape)


def test_a_window_says_which_cells_are_padding() -> None:
    dot = explain_cell(convolution(), (0, 0, 0, 0))
    assert isinstance(dot, Dot)
    assert dot.left.inside is not None
    assert dot.left.inside.reshape(3, 3).tolist() == [[False] * 3, [False, True, True], [False, True, True]]
    assert dot.sources[4].tolist() == [0, 0, 0, 0]
    assert dot.products.tolist() == [0, 0, 0, 0, 0, 1, 0, 3, 4]
    assert dot.value() == 8


def test_leading_zeros_of_a_cell_may_be_left_out() -> None:
    assert explain_cell(convolution(), (1, 1)).value() == explain_cell(convolution(), (0, 0, 1, 1)).value() == 36


@pytest.mark.parametrize("cell", [(0, 3, 0), (1, 0, 0, 0), (-1, 0), (0, 0, 0, 0, 0)])
def test_a_cell_outside_is_refused_with_the_valid_range(cell: Cell) -> None:
    with pytest.raises(
        UsageError, match=r"no cell .*; its shape is \((1, )?1, 3, 3\), its cells are (0 to 0 x )?0 to 0 x"
    ):
        explain_cell(convolution(), cell)


@pytest.mark.parametrize("cell", [("a",), (1.5, 0), None, "11"])
def test_something_that_is_no_cell_is_refused(cell: Any) -> None:
    with pytest.raises(UsageError, match=r"a cell is a tuple of integers such as \(3, 10, 12\), not"):
        full_cell(cell, (3, 3))
    assert full_cell(2, (3,)) == (2,)


def test_a_tensor_without_axes_has_one_cell() -> None:
    assert full_cell((), ()) == ()
    with pytest.raises(UsageError, match=r"whose only cell is \(\)"):
        full_cell((0,), ())


def test_an_operation_without_a_rule_is_refused_by_name() -> None:
    call = Call("convolutio", {}, (1,))
    with pytest.raises(
        UnknownName, match="no operation with a rule is called 'convolutio'; did you mean 'convolution'"
    ):
        explain_cell(call, (0,))
    assert explain_cell(call, (0,), {"convolutio": Op(lambda *_: Leaf(1.0, image(1).source), everything)}).value() == 1


def one(op: str, value: float, **options: object) -> Leaf | Dot | Apply:
    given = Operand.of(np.array([value, 1.0], np.float32), "x")
    return explain_cell(Call(op, {"self": given, **options}, (2,)), (0,))


@pytest.mark.parametrize("op", ["relu", "sigmoid", "exp", "log", "sqrt", "neg", "hardswish", "silu", "mish", "tanh"])
def test_nan_goes_in_and_comes_out(op: str) -> None:
    assert math.isnan(one(op, math.nan).value())


def test_infinities_are_explained_like_any_number() -> None:
    assert one("exp", 1000.0).value() == math.inf
    assert one("log", 0.0).value() == -math.inf
    assert one("relu", math.inf).value() == math.inf
    assert one("neg", math.inf).value() == -math.inf


def test_the_largest_of_a_window_with_nan_is_nan() -> None:
    given = Operand.of(np.array([[1.0, math.nan, 3.0]], np.float32), "x")
    assert math.isnan(explain_cell(Call("amax", {"self": given, "dim": [1], "keepdim": False}, (1,)), (0,)).value())


def test_a_sum_is_rounded_once() -> None:
    """float64 sums lose what fsum keeps."""
    values = np.array([1e16, 1.0, -1e16, 1.0])
    call = Call("sum", {"self": Operand.of(values, "x"), "dim": None, "keepdim": False}, (), "float64")
    assert explain_cell(call, ()).value() == 2.0


def test_zeros_cost_no_rounding() -> None:
    """A relu's zeros are added exactly, so the bound counts the other terms alone."""
    few, many = (np.zeros(100, np.float32), np.ones(100, np.float32))
    few[:2] = 1
    call = {"dim": None, "keepdim": False, "dtype": None}
    bounds = [
        explain_cell(Call("sum", {"self": Operand.of(values, "x"), **call}, ()), ()).result(
            Call("sum", {}, ()).precision
        )
        for values in (few, many)
    ]
    assert bounds[0].error < bounds[1].error / 1000


MUTATIONS: Mapping[str, dict[str, object]] = {
    "stride": {"stride": [2, 1]},
    "padding": {"padding": [0, 1]},
    "dilation": {"dilation": [1, 2]},
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_setting_is_seen(name: str) -> None:
    """A rule that used other settings than the kernel would disagree with it."""
    trace, _, _ = recorded("reflected")
    step = next(s for s in trace.steps if s.op == "convolution")
    rule = OPS["convolution"].rule

    def broken(call: Call, cell: Cell) -> Leaf | Dot | Apply:
        return rule(Call(call.op, {**call.arguments, **MUTATIONS[name]}, call.shape, call.dtype), cell)

    wrong = [
        explain(trace, step, cell, ops={**OPS, "convolution": replace(OPS["convolution"], rule=broken)})
        for cell in sampled(step.shape, 20)
    ]
    assert any(why.status == "mismatch" for why in wrong)
    assert all(explain(trace, step, cell).proved for cell in sampled(step.shape, 20))


def other_products(dot: Dot, change: str) -> Dot:
    assert dot.right is not None
    weights = dot.right.values.reshape(dot.right.grid)
    turned = {"turned kernel": weights[:, ::-1, ::-1], "swapped axes": weights.swapaxes(1, 2)}
    if change == "dropped bias":
        return Dot(dot.left, dot.right, None)
    values = weights.copy()
    if change == "changed kernel cell":
        values[0, 0, 0] *= 1.001
    values = turned.get(change, values).reshape(-1)
    right = dot.right
    return Dot(dot.left, type(right)(values, right.source, right.cells, right.grid), dot.bias)


@pytest.mark.parametrize("change", ["turned kernel", "swapped axes", "dropped bias", "changed kernel cell"])
def test_a_broken_rule_turns_red(change: str) -> None:
    trace, _, _ = recorded("reflected")
    step = next(s for s in trace.steps if s.op == "convolution")

    def broken(call: Call, cell: Cell) -> Leaf | Dot | Apply:
        dot = OPS["convolution"].rule(call, cell)
        assert isinstance(dot, Dot)
        return other_products(dot, change)

    found = {
        explain(trace, step, c, ops={**OPS, "convolution": replace(OPS["convolution"], rule=broken)}).status
        for c in sampled(step.shape, 20)
    }
    assert "mismatch" in found


def test_a_step_lies_and_is_caught() -> None:
    """A result that was altered after the fact does not follow from the step's inputs."""
    trace, _, _ = recorded("batch norm")
    why = explain(trace, trace.steps[0], (0, 1, 2, 3))
    lying = Explanation(
        **{**{f: getattr(why, f) for f in Explanation.__dataclass_fields__}, "recorded": why.recorded + 1e-4}
    )
    assert why.proved
    assert lying.status == "mismatch"
    assert "✗ mismatch" in str(lying)


def test_every_primitive_is_in_the_table() -> None:
    for module in pkgutil.iter_modules(primitives.__path__, f"{primitives.__name__}."):
        for table in vars(importlib.import_module(module.name)).values():
            if isinstance(table, dict) and any(isinstance(value, Primitive) for value in table.values()):
                assert table.keys() <= PRIMITIVES.keys(), module.name
