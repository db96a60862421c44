"""The gradients of an LSTM layer in one operation: backpropagation through time. Uses precision and NumPy."""

from collections.abc import Sequence

import numpy as np

from convscope.reference.precision import gamma
from convscope.reference.recurrent import LSTMLayer, Rounded, TimeStep, check_layer
from convscope.typing import Array

COLUMNS = 6
"""Sources of errors that are followed, for each unit."""
FOLLOWED = 2**21
"""Sequences × units³ up to which they are followed."""


def lstm_backward(
    x: Array, weight1: Array, weight2: Array, weight3: Array, weight4: Array, hx_: Array, cx_tmp: Array,
    output: Array, hy_: Array, cy_: Array, grad_output: Array | None, grad_hy: Array | None, grad_cy: Array | None,
    reverse: bool, mode: int, hidden_size: int, num_layers: int, has_biases: bool, train: bool, bidirectional: bool,
    batch_sizes: Sequence[int], batch_first: bool, workspace: object,
) -> tuple[Array, ...]:  # fmt: skip
    """mkldnn_rnn_layer_backward of an LSTM: backpropagation through time.

    From the last step to the first, with dh and dc the gradients of h and c:

        dc = dc·f (of the next step) + dh·o·(1 - tanh²(c)),    dh = its own gradient + Rᵀ·d (of the next step)
        d = dc·g·i(1 - i), dc·c'·f(1 - f), dc·i·(1 - g²), dh·tanh(c)·o(1 - o)    for the rows of i, f, g, o

    with c' the cell state before the step. Then dx = Wᵀ·d, dW = Σ d·x, dR = Σ d·h', and the biases' gradient is Σ d.

    Args:
        x, weight1, weight2, weight3, weight4, hx_, cx_tmp, reverse, has_biases: As `lstm` has them.
        output: Every h that the forward pass recorded, shape (T, N, H).
        grad_output, grad_hy, grad_cy: The gradients of every h, of the last h and of the last c; None for zeros.
        hy_, cy_, workspace: What the kernel kept; not needed.

    Returns:
        The gradients of x, W, R, both biases, the initial h and the initial c.

    Raises:
        UsageError: another kind of layer.

    Source: Hochreiter and Schmidhuber 1997, appendix; oneDNN, src/cpu/rnn/postgemm_dispatcher.hpp.
    """
    del num_layers, bidirectional, batch_first, train, hidden_size, hy_, cy_, workspace
    check_layer(mode, batch_sizes)
    layer = _Backward((weight1, weight2, weight3, weight4), has_biases, reverse)
    steps = layer.steps(x, hx_, cx_tmp, output)
    return tuple(value for value, _ in layer.backward(x, steps, grad_output, grad_hy, grad_cy))


def lstm_backward_error(
    _y: object, u: float, x: Array, weight1: Array, weight2: Array, weight3: Array, weight4: Array, hx_: Array,
    cx_tmp: Array, output: Array, hy_: Array, cy_: Array, grad_output: Array | None, grad_hy: Array | None,
    grad_cy: Array | None, reverse: bool, mode: int, hidden_size: int, num_layers: int, has_biases: bool, train: bool,
    bidirectional: bool, batch_sizes: Sequence[int], batch_first: bool, workspace: object,
) -> tuple[Array, ...]:  # fmt: skip
    """The errors of gates and cell states, and of each gradient, carried on from step to step (see `_Sources`)."""
    del num_layers, bidirectional, batch_first, train, hidden_size, hy_, cy_, workspace, mode, batch_sizes
    layer = _Backward((weight1, weight2, weight3, weight4), has_biases, reverse, u)
    steps = layer.steps(x, hx_, cx_tmp, output)
    return tuple(error for _, error in layer.backward(x, steps, grad_output, grad_hy, grad_cy))


class _Backward(LSTMLayer):
    """An LSTM layer whose gradients are found."""

    def backward(
        self, x: Array, steps: Sequence[TimeStep], by_every: Array | None, by_last: Array | None, by_cell: Array | None
    ) -> list[tuple[Array, Array]]:
        """The gradients of x, W, R, the biases, the initial h and the initial c, each with its errors."""
        w, r = self.weights[:2]
        zero = np.zeros_like(steps[0].earlier)
        dh, dc = (Rounded.of(zero if gradient is None else gradient) for gradient in (by_last, by_cell))
        sources = _Sources(zero.shape, self.u > 0)
        dx, dx_error = np.zeros((2, *x.shape))
        d, d_error = np.zeros((2, *x.shape[:2], len(w)))
        earlier = np.zeros((*x.shape[:2], r.shape[1]))
        for step in reversed(steps):
            i, f, g, o = step.gates
            if by_every is not None:
                dh = self.added(dh, Rounded.of(by_every[step.time]))
            slope = self.product(self._flat(step.squashed), o)
            dh = sources.add_h(dh)
            dc = sources.add_c(self.added(dc, self.product(dh, slope)), slope.value)
            slopes = (
                self.product(self._steep(i), g),
                self.product(self._steep(f), step.before),
                self.product(self._flat(g), i),
                self.product(self._steep(o), step.squashed),
            )
            parts = [
                self.product(cotangent, slope_part)
                for cotangent, slope_part in zip((dc, dc, dc, dh), slopes, strict=True)
            ]
            gate_gradients = Rounded(*(np.concatenate(components, 1) for components in zip(*parts, strict=True)))
            followed = sources.moved([slope_part.value for slope_part in slopes])
            total = gate_gradients._replace(error=gate_gradients.error + _sum_of(followed))
            through = self._back(total, w)
            dx[step.time], dx_error[step.time] = through.value, through.error
            d[step.time], d_error[step.time], earlier[step.time] = total.value, total.error, step.earlier
            dh, dc = self._back(gate_gradients, r), self.product(dc, f)
            sources.step_back(followed, r, f.value)
        terms = gamma(x.shape[0] * x.shape[1] + 2, self.u)
        gate_error = d_error + terms * np.abs(d)
        by_w, by_r = (
            (np.tensordot(d, values, ((0, 1), (0, 1))), _outer(gate_error, values)) for values in (x, earlier)
        )
        by_bias = d.sum((0, 1)), gate_error.sum((0, 1))
        first = [
            (state.value, state.error + _sum_of(cotangent)) for state, cotangent in ((dh, sources.h), (dc, sources.c))
        ]
        return [(dx, dx_error), by_w, by_r, by_bias, by_bias, *first]

    def _back(self, x: Rounded, matrix: Array) -> Rounded:
        """The gradient before a matrix product, Mᵀ·x."""
        reach = x.reach @ np.abs(matrix)
        error = gamma(len(matrix) + 2, self.u) * reach + x.error @ np.abs(matrix)
        return Rounded(x.value @ matrix, error, (1 + gamma(len(matrix) + 2, self.u)) * reach)

    def _steep(self, gate: Rounded) -> Rounded:
        """The slope of a sigmoid from its value y, y(1 - y), which kernels calculate as y - y² too."""
        y, error = gate.value, gate.error
        return Rounded.of(y * (1 - y), error * (np.abs(1 - 2 * y) + error) + 3 * self.u * y)

    def _flat(self, tanh: Rounded) -> Rounded:
        """The slope of a tanh from its value y, 1 - y²."""
        y, error = tanh.value, tanh.error
        return Rounded.of(1 - y * y, error * (2 * np.abs(y) + error) + 3 * self.u)


class _Sources:
    """Where the errors of dh and dc came from, each followed back through time with its sign.

    An error made at one step reaches an earlier one times the product of the steps between, whose terms mostly cancel;
    sums of magnitudes, taken anew at every step, grow by about the square root of the number of units each time. So
    each error of the last steps is a column of `h` and `c`, which the steps multiply; from `COLUMNS` of them on (or
    where following costs too much), the cells' sums of magnitudes take their place.
    """

    def __init__(self, shape: tuple[int, ...], followed: bool) -> None:
        units = shape[-1]
        self.h, self.c = np.zeros((2, *shape, 0))
        self.followed = followed
        cheap = shape[0] * units**3 <= FOLLOWED
        self.columns = COLUMNS * units if cheap else 2 * units

    def add_h(self, dh: Rounded) -> Rounded:
        """Add the errors of this step's dh."""
        if not self.followed:
            return dh
        self.h = np.concatenate([self.h, _diagonal(dh.error)], -1)
        self.c = np.concatenate([self.c, np.zeros((*dh.error.shape, dh.error.shape[-1]))], -1)
        return Rounded(dh.value, np.zeros_like(dh.value), np.abs(dh.value) + _sum_of(self.h))

    def add_c(self, dc: Rounded, slope: Array) -> Rounded:
        """The same of dc, into which dh enters times a slope."""
        if not self.followed:
            return dc
        self.c = np.concatenate([self.c + slope[..., None] * self.h, _diagonal(dc.error)], -1)
        self.h = np.concatenate([self.h, np.zeros((*dc.error.shape, dc.error.shape[-1]))], -1)
        return Rounded(dc.value, np.zeros_like(dc.value), np.abs(dc.value) + _sum_of(self.c))

    def moved(self, slopes: Sequence[Array]) -> Array:
        """The errors of the four gates' gradients, shape (N, 4H, sources)."""
        cotangents = (self.c, self.c, self.c, self.h)
        return np.concatenate(
            [slope_part[..., None] * cotangent for slope_part, cotangent in zip(slopes, cotangents, strict=True)], 1
        )

    def step_back(self, gate_errors: Array, r: Array, forget: Array) -> None:
        """One step back in time: dh through the recurrent weights, dc through the forget gate."""
        self.h, self.c = r.T @ gate_errors, forget[..., None] * self.c
        if self.h.shape[-1] > self.columns:
            h, c = _diagonal(_sum_of(self.h)), _diagonal(_sum_of(self.c))
            self.h, self.c = np.concatenate([h, 0 * h], -1), np.concatenate([0 * c, c], -1)


def _diagonal(errors: Array) -> Array:
    return errors[..., None] * np.eye(errors.shape[-1])


def _sum_of(sources: Array) -> Array:
    return np.abs(sources).sum(-1)


def _outer(errors: Array, values: Array) -> Array:
    """Per row and column, the sum over all steps and sequences of errors × |what they are multiplied by|."""
    return np.tensordot(errors, np.abs(values), ((0, 1), (0, 1)))
