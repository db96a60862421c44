"""Recurrent layers: an LSTM layer as oneDNN calculates it in one operation, and the packing of sequences.

On CPUs, float32 LSTMs without projections arrive as one `mkldnn_rnn_layer` for each layer and direction; all others,
GRUs and plain recurrent networks arrive as matrix products, sigmoids and sums, step by step.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import gamma
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.titles import TitledStep
from convscope.ops.vjp import VJP, Varies, kept_for_backward, only, tangent, wide
from convscope.typing import Array

LSTM = 2
"""The kind of layer, as ATen numbers it."""
GATES = ("input gate", "forget gate", "candidate", "output gate")
"""In the order of the weights' rows."""
SIGMOID, TANH = 10.0, 6.0
"""Roundings of the functions, as the primitives have them."""


def lstm(call: Call, cell: Cell) -> Expr:
    """One unit at one time: the output gate times the tanh of the cell state.

    A cell state is the previous one times the forget gate, plus the candidate times the input gate. Previous states are
    the recorded ones, so that errors do not accumulate over a sequence; only cell states are intermediate numbers. The
    second and third results are the last state and the last cell state.

    Source: Hochreiter and Schmidhuber 1997; PyTorch documentation, torch.nn.LSTM; aten/src/ATen/native/mkldnn/RNN.cpp.

    Raises:
        UsageError: another kind of layer, or a result that only a backward pass reads.
    """
    check_layer(call)
    if call.output > 2:
        kept_for_backward(call)
    times = times_of(call)
    if call.output:
        (image, unit), last = cell, len(times) - 1
    else:
        time, image, unit = cell
        last = times.index(time)
    path = path_of(call, image, unit, last)
    state = cell_state(call, path, last)
    if call.output == 2:
        return state
    squashed = Apply("tanh", {"x": state}, note="the tanh of the cell state")
    return Apply("mul", {"x": gate_of(call, path, last, 3), "y": squashed}, note="the state of the layer")


def check_layer(call: Call) -> None:
    """Refuse layers of another kind, and those whose states were not recorded.

    Raises:
        UsageError: it is one of them.
    """
    if call["mode"] != LSTM or call["batch_sizes"]:
        raise UsageError("no rule explains this kind of recurrent layer in one operation; the LSTM alone has one.")
    if "states" not in call.extra:
        raise UsageError("no rule explains a recurrent layer whose own results were not recorded.")


def times_of(call: Call) -> list[int]:
    """The steps of the sequence, in the order in which the layer takes them."""
    times = list(range(call["input"].shape[0]))
    return times[::-1] if call["reverse"] else times


class UnitHistory(NamedTuple):
    """The history of one unit of one sequence up to a time step: K steps, 4 gates in the order of `GATES`."""

    image: int
    unit: int
    gates: Array
    """(K, 4)"""
    gate_errors: Array
    """(K, 4)"""
    states: Array
    """(K + 1,): the cell state before each step, and the last."""
    state_errors: Array


def path_of(call: Call, image: int, unit: int, last: int) -> UnitHistory:
    """The gates and cell states of a unit up to step number `last`, with a kernel's possible errors."""
    history = histories(call, [image], [unit], last)
    return UnitHistory(image, unit, *(numbers[:, 0, ..., 0] for numbers in history))


class Histories(NamedTuple):
    """The gates and cell states of n sequences and some units, over the first K steps."""

    gates: Array
    """(K, n, 4, units)"""
    gate_errors: Array
    states: Array
    """(K + 1, n, units): before each step, and the last."""
    state_errors: Array


@np.errstate(all="ignore")  # infinities and nan are explained like any number
def histories(call: Call, images: Sequence[int], units: Sequence[int], last: int) -> Histories:
    """The gates and cell states of sequences and units up to step number `last`, with a kernel's possible errors."""
    hidden, u = call["hidden_size"], call.precision.sum
    rows = np.add.outer(np.arange(4) * hidden, units).ravel()
    times = times_of(call)[: last + 1]
    values = np.concatenate([wide(call["input"])[times][:, images], before(call, images)[: last + 1]], axis=-1)
    weights = np.concatenate([wide(call["weight0"])[rows], wide(call["weight1"])[rows]], axis=1)
    bias, size = np.zeros(len(rows)), np.zeros(len(rows))
    if call["has_biases"]:
        input_bias, state_bias = wide(call["weight2"])[rows], wide(call["weight3"])[rows]
        bias, size = input_bias + state_bias, np.abs(input_bias) + np.abs(state_bias)
    shape = (len(times), len(images), 4, len(units))
    arguments = (each_times(values, weights.T) + bias).reshape(shape)
    magnitudes = (each_times(np.abs(values), np.abs(weights).T) + size).reshape(shape)
    argument_error = gamma(values.shape[-1] + 3, u) * magnitudes
    is_tanh = (np.arange(4) == 2)[:, None]
    gates = np.where(is_tanh, np.tanh(arguments), 1 / (1 + np.exp(-arguments)))
    errors = argument_error * np.where(is_tanh, 1.0, 0.25) + u * np.where(is_tanh, TANH, SIGMOID) * np.abs(gates)
    states = [wide(call["cx_"])[np.ix_(images, units)]]
    state_errors = [np.zeros_like(states[0])]
    for gate, error in zip(np.moveaxis(gates, 2, 1), np.moveaxis(errors, 2, 1), strict=True):
        retained, new = gate[1] * states[-1], gate[0] * gate[2]
        state_error = gate[1] * state_errors[-1] + error[1] * (np.abs(states[-1]) + state_errors[-1])
        state_error = state_error + gate[0] * error[2] + error[0] * (np.abs(gate[2]) + error[2])
        states.append(retained + new)
        state_errors.append(state_error + 2 * u * (np.abs(retained) + np.abs(new)))
    return Histories(gates, errors, np.array(states), np.array(state_errors))


def each_times(rows: Array, matrix: Array) -> Array:
    """Each row times a matrix, with bits that do not depend on the other rows."""
    return np.matmul(rows[..., None, :], matrix)[..., 0, :]


def before(call: Call, images: Sequence[int]) -> Array:
    """(T, n, H): the recorded states before each step, in the order of the steps."""
    states: Operand = call.extra["states"]
    earlier = wide(states)[times_of(call)[:-1]][:, images]
    return np.concatenate([wide(call["hx_"])[None, images], earlier])


def cell_state(call: Call, path: UnitHistory, step: int) -> Dot:
    """The cell state after a step, as a sum of two products of intermediate numbers."""

    def derive_left(index: int) -> Leaf | Dot | Apply:
        if index:
            return gate_of(call, path, step, 2)
        return cell_state(call, path, step - 1) if step else leaf(call["cx_"], (path.image, path.unit))

    def derive_right(index: int) -> Apply:
        return gate_of(call, path, step, 0 if index else 1)

    places = np.arange(2)[:, None]
    gates, errors = path.gates[step], path.gate_errors[step]
    left = Cells(
        np.array([path.states[step], gates[2]]),
        Source("previous state, candidate", "computed", (2,), call.dtype),
        places,
        (2,),
        errors=np.array([path.state_errors[step], errors[2]]),
        derive=derive_left,
    )
    right = Cells(
        gates[[1, 0]],
        Source("forget gate, input gate", "computed", (2,), call.dtype),
        places,
        (2,),
        errors=errors[[1, 0]],
        derive=derive_right,
    )
    return Dot(left, right, note="the cell state: the kept part of the previous one, plus the new part", extra=1)


def gate_of(call: Call, path: UnitHistory, step: int, gate: int) -> Apply:
    """A gate: a function of the input and of the state before, each times its weights, plus their biases."""
    row = gate * call["hidden_size"] + path.unit
    time = times_of(call)[step]
    inputs, hidden = call["input"].shape[2], call["hidden_size"]
    if step:
        state = outer(call.extra["states"], [times_of(call)[step - 1], path.image, range(hidden)])
    else:
        state = outer(call["hx_"], [path.image, range(hidden)])
    parts = [
        Dot(
            cells,
            outer(call[weight], [row, range(count)]),
            leaf(call[bias], (row,)) if call["has_biases"] else None,
            note=note,
            extra=inputs + hidden - count + 2,  # kernels may add all of it up in one sum
        )
        for cells, weight, bias, count, note in (
            (outer(call["input"], [time, path.image, range(inputs)]), "weight0", "weight2", inputs, "of the input"),
            (state, "weight1", "weight3", hidden, "of the previous state"),
        )
    ]
    total = Apply("add", {"x": parts[0], "y": parts[1]})
    return Apply("tanh" if gate == 2 else "sigmoid", {"x": total}, note=f"the {GATES[gate]}")


def lstm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Backpropagation through time, at the states of this sequence."""
    check_layer(call)
    only(call, varies, "input", "hx_", "cx_", "weight0", "weight1", "weight2", "weight3")
    if call.output > 2:
        kept_for_backward(call)
    x, w, r = wide(call["input"]), wide(call["weight0"]), wide(call["weight1"])
    bias = wide(call["weight2"]) + wide(call["weight3"]) if call["has_biases"] else 0.0
    h, c, times, steps = wide(call["hx_"]), wide(call["cx_"]), times_of(call), []
    for time in times:
        i, f, g, o = np.split(x[time] @ w.T + h @ r.T + bias, 4, axis=1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        before, c = c, f * c + i * g
        earlier, h = h, o * np.tanh(c)
        steps.append((i, f, g, o, before, c, earlier, h))
    results = (np.stack([step[-1] for step in steps])[np.argsort(times)], h, c)
    value = float(np.sum(weights * results[call.output]))
    by_x, by_h, by_c = np.zeros_like(x), np.zeros_like(h), np.zeros_like(h)
    by_w, by_r, by_bias = np.zeros_like(w), np.zeros_like(r), np.zeros(len(w))
    by_h, by_c = (by_h + weights if call.output == 1 else by_h), (by_c + weights if call.output == 2 else by_c)
    for time, (i, f, g, o, before, c, earlier, _) in zip(times[::-1], steps[::-1], strict=True):
        by_h = by_h + (weights[time] if not call.output else 0.0)
        squashed = np.tanh(c)
        by_c = by_c + by_h * o * (1 - squashed**2)
        slopes = (g * i * (1 - i), before * f * (1 - f), i * (1 - g * g))
        gate_gradients = np.concatenate([*(by_c * slope for slope in slopes), by_h * squashed * o * (1 - o)], axis=1)
        by_x[time], by_h, by_c = gate_gradients @ w, gate_gradients @ r, by_c * f
        by_w, by_r, by_bias = (
            by_w + gate_gradients.T @ x[time],
            by_r + gate_gradients.T @ earlier,
            by_bias + gate_gradients.sum(axis=0),
        )
    learnt = {"weight0": by_w, "weight1": by_r, "weight2": by_bias, "weight3": by_bias}
    gradients = {"input": by_x, "hx_": by_h, "cx_": by_c, **learnt}
    return tangent({name: gradients[name] for name in varies}, call, value)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def lstm_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The input of each sequence up to this time step, its initial states, and all weights."""
    mask, times = as_mask(mask), times_of(call)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    reached = mask.max(axis=-1, initial=0.0)  # (T, N), or (N,) of the last states
    time_mask = np.broadcast_to(reached, (len(times), *reached.shape[-1:])).copy()
    if not call.output:
        time_mask[times] = np.flip(np.maximum.accumulate(np.flip(reached[times], 0), axis=0), 0)
    if "input" in varies:
        masks["input"] = np.broadcast_to(time_mask[..., None], call["input"].shape).copy()
    for name in varies & {"hx_", "cx_"}:
        masks[name] = np.broadcast_to(time_mask.max(axis=0, initial=0.0)[:, None], call[name].shape).copy()
    return masks


def lstm_title(step: TitledStep) -> str:
    """`LSTM layer of 64 units, reversed`."""
    return f"LSTM layer of {step.shape[-1]:,} units" + (", reversed" if step.arguments.get("reverse") else "")


def packed(call: Call, cell: Cell) -> Leaf:
    """The time steps of all unfinished sequences; the second result is the number of sequences at each time step.

    Source: PyTorch documentation, torch.nn.utils.rnn.pack_padded_sequence.
    """
    if call.output:
        count = int(np.count_nonzero(call["lengths"].array > cell[0]))
        return number(count, f"sequences of more than {cell[0]} steps")
    return leaf(call["input"], (*map(int, _packed_from(call)[cell[0]]), *cell[1:]))


def _packed_from(call: Call) -> Array:
    """(rows, 2): the first two indices of the input for each row of the packed data."""
    lengths: Array = call["lengths"].array
    rows = [(t, n) for t in range(int(lengths.max(initial=0))) for n in np.flatnonzero(lengths > t)]
    places = np.array(rows, np.int64).reshape(-1, 2)
    return places[:, ::-1] if call["batch_first"] else places


def packed_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass each row's weights to its time step of the input."""
    only(call, varies, "input")
    result = np.zeros(call["input"].shape)
    if not call.output:
        result[tuple(_packed_from(call).T)] = weights
    return VJP({"input": result})


def packed_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The time step of each row, and the lengths."""
    mask = as_mask(mask)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if "input" in varies:
        masks["input"] = np.zeros(call["input"].shape, np.float32)
        if not call.output:
            masks["input"][tuple(_packed_from(call).T)] = mask
    return masks


RECURRENT: Mapping[str, Op] = {
    "mkldnn_rnn_layer": Op(lstm, lstm_dependencies, lstm_vjp, title=lstm_title, rounding="narrow"),
    "_pack_padded_sequence": Op(packed, packed_dependencies, packed_vjp, role="index", selected_by=("lengths",)),
}
