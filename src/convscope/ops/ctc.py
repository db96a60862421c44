"""The connectionist temporal classification loss: how likely a sequence of labels is, over all ways to align it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import leaf
from convscope.expr.expr import Apply, Cells, Expr, number
from convscope.expr.primitives import PRIMITIVES
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Varies, kept_for_backward, only, tangent, wide
from convscope.typing import Array


def ctc(call: Call, cell: Cell) -> Expr:
    """The negative log-likelihood over all alignments, step by step: in each state a log-sum-exp.

    States are the labels with blanks around them. A transition stays, comes from the previous state, or skips a blank
    between two different labels.

    Source: Graves and others, ICML 2006, section 4.1; PyTorch, aten/src/ATen/native/LossCTC.cpp.

    Raises:
        UsageError: the second result, which only a backward pass reads.
    """
    kept_for_backward(call)
    path = _path(call, cell[0] if cell else 0)
    steps, states = path.ways.shape
    if not steps:
        return number(0.0 if states == 1 else np.inf, "no step")
    last = np.arange(max(states - 2, 0), states)
    total = Apply("logsumexp", {"cells": _ways(call, path, steps - 1, last)}, note="over all final states")
    return Apply("neg", {"x": total}, note="the negative log-likelihood")


class _Path(NamedTuple):
    """The states of one sequence, and the logarithms of the likelihoods to be in each of them after each step."""

    image: int
    labels: Array
    """(S,): the class of each state, blanks between."""
    ways: Array
    """(T, S)"""
    errors: Array
    """(T, S): how far a kernel may be off."""


def _ints(value: Operand | Sequence[int]) -> list[int]:
    return [int(n) for n in (value.array.reshape(-1) if isinstance(value, Operand) else value)]


def _labels(call: Call, image: int) -> Array:
    """The labels of a sequence with blanks before, between and after; targets are rows, or one after the other."""
    lengths, targets = _ints(call["target_lengths"]), call["targets"].array
    target = targets[image] if targets.ndim > 1 else targets[sum(lengths[:image]) :]
    states: Array = np.full(2 * lengths[image] + 1, call["blank"], np.int64)
    states[1::2] = target[: lengths[image]]
    return states


def _sources(labels: Array, state: int) -> Array:
    """The states from which each state can be reached."""
    skips = state > 1 and state % 2 and labels[state] != labels[state - 2]
    return np.arange(max(state - 1 - int(skips), 0), state + 1)


def _path(call: Call, image: int) -> _Path:
    labels, steps = _labels(call, image), _ints(call["input_lengths"])[image]
    scores, precision = wide(call["log_probs"])[:steps, image][:, labels], call.precision
    ways, errors = np.full(scores.shape, -np.inf), np.zeros(scores.shape)
    ways[:1, :2] = scores[:1, :2]
    total = PRIMITIVES["logsumexp"]
    for step in range(1, steps):
        for state in range(len(labels)):
            before = _sources(labels, state)
            row, row_errors = ways[step - 1, before], errors[step - 1, before]
            if np.isneginf(row).all():
                continue
            summed = float(total.value(row))
            ways[step, state] = scores[step, state] + summed
            errors[step, state] = total.error(precision, summed, [row], [row_errors]) + precision.sum * abs(
                ways[step, state]
            )
    return _Path(image, labels, ways, errors)


def _ways(call: Call, path: _Path, step: int, states: Array) -> Cells:
    """The log-likelihoods of some states after a step, as intermediate numbers."""

    def derive(index: int) -> Expr:
        state = int(states[index])
        score = leaf(call["log_probs"], (step, path.image, int(path.labels[state])))
        if not step:
            return score if state < 2 else number(-np.inf, "not reached yet")
        before = _ways(call, path, step - 1, _sources(path.labels, state))
        total = Apply("logsumexp", {"cells": before}, note="over all transitions to here")
        return Apply("add", {"x": score, "y": total}, note=f"state {state} after step {step}")

    source = Source("state after step", "computed", path.ways.shape, call.dtype)
    places = np.stack([np.full(len(states), step), states], axis=1)
    values, errors = path.ways[step, states], path.errors[step, states]
    return Cells(values, source, places, (len(states),), errors=errors, derive=derive)


def ctc_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass to each score the probability that an alignment uses it, by the backward algorithm."""
    kept_for_backward(call)
    only(call, varies, "log_probs")
    result, value = np.zeros(call["log_probs"].shape), 0.0
    for image, weight in enumerate(weights.reshape(-1)):
        path = _path(call, image)
        steps, states = path.ways.shape
        last = path.ways[-1, max(states - 2, 0) :] if steps else np.full(1, -np.inf)
        if np.isneginf(last).all():
            continue
        value -= float(weight * np.logaddexp.reduce(last))
        passing = np.zeros(states)
        passing[max(states - 2, 0) :] = np.exp(last - np.logaddexp.reduce(last))
        for step in reversed(range(steps)):
            np.add.at(result[step, image], path.labels, -weight * passing)
            earlier = np.zeros(states)
            for state in np.flatnonzero(passing) if step else ():
                before = _sources(path.labels, int(state))
                row = path.ways[step - 1, before]
                earlier[before] += passing[state] * np.exp(row - np.logaddexp.reduce(row))
            passing = earlier
    return tangent({"log_probs": result}, call, value)


def ctc_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The scores of a sequence's labels and of the blank, in all of its steps."""
    masks = {name: np.full(call[name].shape, as_mask(mask).max(initial=0.0), np.float32) for name in varies}
    if "log_probs" in varies:
        masks["log_probs"] = np.zeros(call["log_probs"].shape, np.float32)
        reached = as_mask(mask).reshape(call["log_probs"].shape[1], -1).max(axis=1, initial=0.0)
        for image in np.flatnonzero(reached):
            steps = _ints(call["input_lengths"])[image]
            masks["log_probs"][:steps, image, _labels(call, int(image))] = 1.0
    return masks


CTC: Mapping[str, Op] = {"_ctc_loss": Op(ctc, ctc_dependencies, ctc_vjp, selected_by=("targets",))}
