"""Recurrent layers: the LSTM as one operation, packed sequences. Knows precision and NumPy."""

from collections.abc import Mapping, Sequence

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
    outputs, _, c = _run(
        x, (weight0, weight1, weight2, weight3), hx_, cx_, reverse, batch_sizes, mode, has_biases, states
    )
    return outputs, outputs[0 if reverse else -1], c, None


def lstm_error(
    _y: object, u: float, x: Array, weight0: Array, weight1: Array, weight2: Array, weight3: Array, hx_: Array,
    cx_: Array, reverse: bool, batch_sizes: Sequence[int], mode: int, hidden_size: int, num_layers: int,
    has_biases: bool, bidirectional: bool, batch_first: bool, train: bool, states: Array | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """Step by step: gamma(I + H + 4) of a gate's magnitudes, a quarter of it behind a sigmoid, and FUNCTION + 4.

    c inherits f times its own error, h inherits o times that of tanh(c). Where the states are not recorded, their error
    enters the next gates times |R|.
    """
    del num_layers, bidirectional, batch_first, train, hidden_size
    weights = (weight0, weight1, weight2, weight3)
    _, (h, c), _ = _run(x, weights, hx_, cx_, reverse, batch_sizes, mode, has_biases, states, u)
    return h, h[0 if reverse else -1], c[0 if reverse else -1], np.zeros(())


def _run(
    x: Array, weights: Sequence[Array], h: Array, c: Array, reverse: bool, batch_sizes: Sequence[int], mode: int,
    has_biases: bool, states: Array | None, u: float = 0.0,
) -> tuple[Array, tuple[Array, Array], Array]:  # fmt: skip
    """Every h; how far every h and c may be off, for kernels of roundoff u; the last c."""
    if mode != LSTM or len(batch_sizes):
        raise UsageError("the reference has no recurrent layer in one operation but the LSTM of plain sequences.")
    w, r = weights[:2]
    bias = weights[2] + weights[3] if has_biases else np.zeros(len(w))
    biases = np.abs(weights[2]) + np.abs(weights[3]) if has_biases else bias
    outputs, off_h, off_c = (np.zeros((len(x), *h.shape)) for _ in range(3))
    e_h, e_c = np.zeros_like(h), np.zeros_like(c)
    for t in range(len(x))[:: -1 if reverse else 1]:
        size = np.abs(x[t]) @ np.abs(w).T + np.abs(h) @ np.abs(r).T + biases
        e_in = gamma(w.shape[1] + r.shape[1] + 4, u) * size + e_h @ np.abs(r).T
        i, f, g, o = np.split(x[t] @ w.T + h @ r.T + bias, 4, 1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        e_i, e_f, e_g, e_o = np.split(e_in, 4, 1)
        e_i, e_f, e_o = (e / 4 + (FUNCTION + 4) * u * s for e, s in ((e_i, i), (e_f, f), (e_o, o)))
        e_g = e_g + (FUNCTION + 4) * u * np.abs(g)
        e_c = f * e_c + e_f * (np.abs(c) + e_c) + i * e_g + e_i * (np.abs(g) + e_g)
        e_c = e_c + 2 * u * (np.abs(f * c) + np.abs(i * g))
        c = f * c + i * g
        e_t = e_c + (FUNCTION + 4) * u * np.abs(np.tanh(c))
        e_h = o * e_t + e_o * (np.abs(np.tanh(c)) + e_t) + u * o
        outputs[t], off_h[t], off_c[t] = o * np.tanh(c), e_h, e_c
        h, e_h = (outputs[t], e_h) if states is None else (states[t], np.zeros_like(e_h))
    return outputs, (off_h, off_c), c


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def packed(x: Array, lengths: Array, batch_first: bool) -> tuple[Array, Array]:
    """_pack_padded_sequence: the steps of the sequences, time by time, without padding; and how many each time has.

    >>> packed(np.array([[1.0, 5.0], [2.0, 0.0]]), np.array([2, 1]), False)
    (array([1., 5., 2.]), array([2, 1]))

    Args:
        x: Shape (T, N, ...), or (N, T, ...) with `batch_first`.
        lengths: Of the sequences, the longest first, shape (N,).
    """
    rows = np.swapaxes(x, 0, 1) if batch_first else x
    counts = np.array([np.count_nonzero(lengths > t) for t in range(int(lengths.max(initial=0)))], np.int64)
    return np.concatenate([rows[t, :n] for t, n in enumerate(counts)]), counts


RECURRENT: Mapping[str, Operation] = {
    "mkldnn_rnn_layer": Operation(lstm, lstm_error),
    "_pack_padded_sequence": Operation(packed, exact),
}
