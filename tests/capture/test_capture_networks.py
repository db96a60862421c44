"""Capture on random small networks: in-place writes, reuse, branches, concatenation, views, groups, dilation."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import convscope as cs
from convscope.traces.step import Origin
from grown_networks import PLANS, Grown
from replay import assert_replays, assert_same_output, same


def grow(plan: list[tuple[str, int, int]]) -> tuple[Grown, Tensor]:
    """The network with all its layers made."""
    torch.manual_seed(len(plan))
    net, image = Grown(plan), torch.randn(1, 2, 7, 6)
    with torch.no_grad():
        net.train()(image.clone())
    return net.eval(), image


@settings(max_examples=120)
@given(PLANS)
def test_a_trace_has_the_bits_of_an_untraced_run(plan: list[tuple[str, int, int]]) -> None:
    net, image = grow(plan)
    before = torch.get_rng_state()
    with torch.no_grad():
        expected = net(image.clone())
    torch.set_rng_state(before)
    trace = cs.trace(net, image)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_output(expected, trace.output)
    assert same(trace.input, image.numpy())
    assert_replays(trace)


@settings(max_examples=60)
@given(PLANS, st.sampled_from([0, 0.002, 0.02]))
def test_less_kept_gives_the_same_numbers(plan: list[tuple[str, int, int]], budget: float) -> None:
    net, image = grow(plan)
    everything, some = cs.trace(net, image), cs.trace(net, image, keep=budget)
    assert [repr(step) for step in some.all_steps] == [repr(step) for step in everything.all_steps]
    assert_replays(some)
    for one, other in zip(some.steps, everything.steps, strict=True):
        assert all(map(same, one.outputs, other.outputs)), one


@settings(max_examples=60)
@given(PLANS, st.randoms())
def test_every_operand_is_found_where_it_was_made(plan: list[tuple[str, int, int]], random: Any) -> None:
    net, image = grow(plan)
    trace = cs.trace(net, image)
    for step in trace.all_steps:
        for name, item, ref in step.refs():
            value = trace.operand(step, name)
            array = value[item] if isinstance(value, tuple) else value
            if array.size and ref.dtype == "float32":
                cell = tuple(random.randrange(n) for n in array.shape)
                origin = trace.origin(step, name, cell, item)
                found = _made(trace, origin)[origin.cell]
                assert np.array_equal(found, array[cell], equal_nan=True), (step, name, cell, origin)


def _made(trace: cs.Trace, origin: Origin) -> Any:
    """The array that an origin is a cell of."""
    if origin.kind == "step":
        return trace[origin.id].outputs[origin.output]
    if origin.kind == "constant":
        return trace.constants[origin.id]
    return (trace.parameters if origin.kind == "parameter" else trace.inputs)[origin.name]
