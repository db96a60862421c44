"""Recurrent layers: the LSTM as one operation, packed sequences. Uses precision and NumPy."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.reference.operation import Operation, exact
from convscope.reference.precision import FUNCTION, gamma
from convscope.typing import Array

LSTM = 2


def lstm(
    x: Array, weight0: Array, weight1: Array, weight2: Array, weight3: Array, hx_: Array, cx_: Array, reverse: bool,
    batch_sizes: Sequence[int], mode: int, hidden_size: int, num_layers: int, has_biases: bool, bidirectional: bool,
    batch_first: bool, train: bool, states: Array | None = None,
) -> tuple[Array | None, ...]:  # fmt: skip
    """mkldnn_rnn_layer of an LSTM: one layer in one direction over a sequence.

    c = f·c + i·g and h = o·tanh(c), with i, f, o the sigmoid and g the tanh of W·x + b + R·h + b'.

    Args:
        x: Shape (T, N, I).
        weight0, weight1, weight2, weight3: W, shape (4H, I); R, (4H, H); their biases, (4H,); rows of i, f, g, o.
        hx_, cx_: The first h and c, shape (N, H).
        reverse: From the last step to the first.
        has_biases: Without, `weight2` and `weight3` mean nothing.
        states: The h that a kernel recorded, shape (T, N, H): each step is then recomputed from the one before it.

    Returns:
        Every h, shape (T, N, H); the last h and the last c; and what only a backward pass reads, as None.

    Raises:
        UsageError: another kind of layer.
    """
    del num_layers, bidirectional, batch_first, train, hidden_size  # of the network that the layer is part of
    check_layer(mode, batch_sizes)
    layer = LSTMLayer((weight0, weight1, weight2, weight3), has_biases, reverse)
    outputs = np.zeros((len(x), *hx_.shape))
    for step in layer.steps(x, hx_, cx_, states):
        outputs[step.time], last, cell = step.h.value, step.h.value, step.c.value
    return outputs, last, cell, None


def lstm_error(
    _y: object, u: float, x: Array, weight0: Array, weight1: Array, weight2: Array, weight3: Array, hx_: Array,
    cx_: Array, reverse: bool, batch_sizes: Sequence[int], mode: int, hidden_size: int, num_layers: int,
    has_biases: bool, bidirectional: bool, batch_first: bool, train: bool, states: Array | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """Step by step: gamma(I + H + 4) of a gate's magnitudes, a quarter of it behind a sigmoid, and FUNCTION + 4.

    c inherits f times its own error, h inherits o times that of tanh(c). Where the states are not recorded, their error
    enters the next gates times |R|.
    """
    del num_layers, bidirectional, batch_first, train, hidden_size, batch_sizes, mode
    layer = LSTMLayer((weight0, weight1, weight2, weight3), has_biases, reverse, u)
    outputs = np.zeros((len(x), *hx_.shape))
    for step in layer.steps(x, hx_, cx_, states):
        outputs[step.time], last, cell = step.h.error, step.h.error, step.c.error
    return outputs, last, cell, np.zeros(())


def check_layer(mode: int, batch_sizes: Sequence[int]) -> None:
    """Refuse other kinds of layers.

    Raises:
        UsageError: it is not an LSTM of plain sequences.
    """
    if mode != LSTM or len(batch_sizes):
        raise UsageError("the reference has no recurrent layer in one operation but the LSTM of plain sequences.")


class Rounded(NamedTuple):
    """Numbers, bounds of a kernel's errors, and bounds of the kernel's magnitudes; all of one shape."""

    value: Array
    error: Array
    reach: Array

    @classmethod
    def of(cls, value: Array, error: Array | None = None) -> "Rounded":
        """Recorded numbers, which are exact, or numbers with an error."""
        bound = np.zeros_like(value) if error is None else error
        return cls(value, bound, np.abs(value) + bound)


class TimeStep(NamedTuple):
    """One time step: gates, the cell state before it and after it, its tanh, the result, and the h before it."""

    time: int
    gates: tuple[Rounded, ...]
    before: Rounded
    c: Rounded
    squashed: Rounded
    h: Rounded
    earlier: Array


class LSTMLayer(NamedTuple):
    """An LSTM layer in one direction, and the unit roundoff of the kernel that runs it."""

    weights: Sequence[Array]
    has_biases: bool
    reverse: bool
    u: float = 0.0

    def steps(self, x: Array, h: Array, c: Array, states: Array | None) -> list[TimeStep]:
        """The time steps in the order in which the layer takes them, each from the recorded state before it."""
        w, r = self.weights[:2]
        bias = self.weights[2] + self.weights[3] if self.has_biases else np.zeros(len(w))
        biases = np.abs(self.weights[2]) + np.abs(self.weights[3]) if self.has_biases else bias
        state, cell = Rounded.of(h), Rounded.of(c)
        steps = []
        for t in range(len(x))[:: -1 if self.reverse else 1]:
            size = np.abs(x[t]) @ np.abs(w).T + np.abs(state.value) @ np.abs(r).T + biases
            error = gamma(w.shape[1] + r.shape[1] + 4, self.u) * size + state.error @ np.abs(r).T
            values = np.split(x[t] @ w.T + state.value @ r.T + bias, 4, 1)
            e_i, e_f, e_g, e_o = np.split(error, 4, 1)
            i, f, o = (self._sigmoid(values[k], e) for k, e in ((0, e_i), (1, e_f), (3, e_o)))
            g = self._tanh(values[2], e_g)
            before, cell = cell, self.added(self.product(cell, f), self.product(g, i))
            squashed = self._tanh(cell.value, cell.error)
            output = self.product(squashed, o)
            steps.append(TimeStep(t, (i, f, g, o), before, cell, squashed, output, state.value))
            state = output if states is None else Rounded.of(states[t])
        return steps

    def _sigmoid(self, x: Array, error: Array) -> Rounded:
        result = 1 / (1 + np.exp(-x))
        return Rounded.of(result, error / 4 + (FUNCTION + 4) * self.u * result)

    def _tanh(self, x: Array, error: Array) -> Rounded:
        result = np.tanh(x)
        return Rounded.of(result, error + (FUNCTION + 4) * self.u * np.abs(result))

    def product(self, x: Rounded, y: Rounded) -> Rounded:
        """A product, including its own rounding."""
        reach = x.reach * y.reach
        error = np.abs(y.value) * x.error + y.error * x.reach + self.u * reach
        return Rounded(x.value * y.value, error, (1 + self.u) * reach)

    def added(self, x: Rounded, y: Rounded) -> Rounded:
        """A sum, including its own rounding."""
        reach = x.reach + y.reach
        return Rounded(x.value + y.value, x.error + y.error + self.u * reach, (1 + self.u) * reach)


def packed(x: Array, lengths: Array, batch_first: bool) -> tuple[Array, Array]:
    """_pack_padded_sequence: the steps of the sequences, time by time, without padding; and how many each time has.

    >>> packed(np.array([[1.0, 5.0], [2.0, 0.0]]), np.array([2, 1]), False)
    (array([1., 5., 2.]), array([2, 1]))

    Args:
        x: Shape (T, N, ...), or (N, T, ...) with `batch_first`.
        lengths: The lengths of the sequences, the longest first, shape (N,).
    """
    rows = np.swapaxes(x, 0, 1) if batch_first else x
    counts = np.array([np.count_nonzero(lengths > t) for t in range(int(lengths.max(initial=0)))], np.int64)
    return np.concatenate([rows[t, :n] for t, n in enumerate(counts)]), counts


RECURRENT: Mapping[str, Operation] = {
    "mkldnn_rnn_layer": Operation(lstm, lstm_error),
    "_pack_padded_sequence": Operation(packed, exact),
}
