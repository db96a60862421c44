"""The gradients of an LSTM layer that oneDNN calculates in one operation: backpropagation through time.

For each step, from the last to the first, with c' the cell state before it and s = tanh(c):

    dh = its own gradient + Rᵀ·d (of the next step),    dc = dc·f (of the next step) + dh·o·(1 - s²)
    d = dc·g·i(1 - i), dc·c'·f(1 - f), dc·i·(1 - g²), dh·s·o(1 - o)

d are the gradients of the gates before their sigmoid or tanh; all results are sums of them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import Span, gather, leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import gamma
from convscope.ops.recurrent import (
    GATES,
    TANH,
    cell_state,
    check_layer,
    each_times,
    gate_of,
    histories,
    path_of,
    times_of,
)
from convscope.ops.vjp import wide
from convscope.typing import Array

COLUMNS = 6
"""Roundings that are followed back through time one by one, for each unit."""
FOLLOWED = 2**21
"""Sequences × units³ up to which they are followed; beyond, their magnitudes are added at every step."""
OF_GATES = "the weights × the gradients of the gates"
INPUT, FORGET, CANDIDATE, OUTPUT = range(4)
DH, DC = range(2)
OVER_STEPS = "over all steps and sequences, the gradient of the gate × what this weight multiplied"


@np.errstate(all="ignore")  # infinities and nan are explained like any number
def lstm_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the input, of a weight, of a bias, of the initial hidden state or of the initial cell state.

    Source: Hochreiter and Schmidhuber 1997; PyTorch, aten/src/ATen/native/mkldnn/RNN.cpp.

    Raises:
        UsageError: another kind of layer.
    """
    layer = _forward(call)
    check_layer(layer)
    steps, images = (range(n) for n in call["input"].shape[:2])
    rows, times = range(4 * call["hidden_size"]), times_of(layer)
    if call.output in {1, 2, 3, 4}:
        back = _Backward(call, layer, images)
        if call.output > 2:
            return Dot(back.moved([steps, images, cell[0]]), note="the gradients of this gate, over all steps", extra=1)
        if call.output == 1:
            inputs = gather(call["input"], [steps, images, cell[1]])
            return Dot(back.moved([steps, images, cell[0]]), inputs, note=OVER_STEPS, extra=1)
        return _of_recurrent_weight(call, back, cell)
    image = cell[1] if call.output == 0 else cell[0]
    back = _Backward(call, layer, sorted({*np.ravel(image).tolist()}))
    if call.output < 6:
        time, weight = (cell[0], "weight1") if call.output == 0 else (times[0], "weight2")
        return Dot(back.moved([time, image, rows]), gather(call[weight], [rows, cell[-1]]), note=OF_GATES, extra=1)
    return back.first(cell)


def _forward(call: Call) -> Call:
    """The layer whose gradients these are, as a call of its own."""
    renamed = {"weight1": "weight0", "weight2": "weight1", "weight3": "weight2", "weight4": "weight3", "cx_tmp": "cx_"}
    arguments = {renamed.get(name, name): value for name, value in call.arguments.items()}
    return Call("mkldnn_rnn_layer", arguments, call["output"].shape, call.dtype, 0, {"states": call["output"]})


def _of_recurrent_weight(call: Call, back: "_Backward", cell: Cell) -> Dot | Apply:
    """The first step starts from the initial state, the others from the recorded one before them."""
    images, times = range(call["input"].shape[1]), back.times
    first = Dot(
        back.moved([times[0], images, cell[0]]),
        gather(call["hx_"], [images, cell[1]]),
        note="the same for the initial state",
        extra=len(images) * (len(times) - 1) + 2,  # kernels may add all of it up in one sum
    )
    if len(times) == 1:
        return first
    earlier, later = (Span(0, np.array(step_times)) for step_times in (times[:-1], times[1:]))
    later_steps = Dot(
        back.moved([later, images, cell[0]]),
        gather(call["output"], [earlier, images, cell[1]]),
        note=OVER_STEPS,
        extra=len(images) + 2,
    )
    return Apply("add", {"x": later_steps, "y": first})


Axis = int | range | Span


class _Backward:
    """Backpropagation through time of some sequences, with a kernel's possible errors.

    A rounding at one step reaches an earlier one times the product of the steps between, whose terms mostly cancel.
    So each recent rounding is followed with its sign, as a column of `by_h` and `by_c`: its effect on dh and dc.
    Sums of magnitudes, taken anew at every step, would grow by about the square root of the number of units each time.
    """

    def __init__(self, call: Call, layer: Call, images: Sequence[int]) -> None:
        self.call, self.layer, self.times = call, layer, times_of(layer)
        self._images = list(images)
        steps, sequences, _ = call["input"].shape
        units = call["hidden_size"]
        self.d = np.zeros((2, steps, sequences, 4 * units))
        self.dh, self.dc = np.zeros((2, 2, steps, sequences, units))
        self._slopes()
        self._run()

    def _slopes(self) -> None:
        """The factors of dh and dc in all steps at once, with errors: (K, n, H) and (K, n, 4, H)."""
        history, u = histories(self.layer, self._images, range(self.call["hidden_size"]), len(self.times) - 1), self._u
        (i, f, g, o), (di, df, dg, do) = (np.moveaxis(a, 2, 0) for a in (history.gates, history.gate_errors))
        s = np.tanh(history.states[1:])
        ds = history.state_errors[1:] + TANH * u * np.abs(s)

        def steep(y: Array, error: Array) -> tuple[Array, Array]:
            return y * (1 - y), error * (np.abs(1 - 2 * y) + error) + 3 * u * y  # kernels may calculate y - y²

        def flat(y: Array, error: Array) -> tuple[Array, Array]:
            return 1 - y * y, error * (2 * np.abs(y) + error) + 3 * u

        def times(slope: tuple[Array, Array], factor: Array, error: Array) -> tuple[Array, Array]:
            a, da = slope
            rounding = u * (np.abs(a) + da) * (np.abs(factor) + error)
            return a * factor, np.abs(a) * error + da * (np.abs(factor) + error) + rounding

        self._through, self._through_errors = times(flat(s, ds), o, do)
        earlier, error = history.states[:-1], history.state_errors[:-1]
        parts = (
            times(steep(i, di), g, dg),
            times(steep(f, df), earlier, error),
            times(flat(g, dg), i, di),
            times(steep(o, do), s, ds),
        )
        self._into, self._into_errors = (np.stack(slopes_of_gates, 2) for slopes_of_gates in zip(*parts, strict=True))
        self._forget = f, df

    @property
    def _u(self) -> float:
        return self.call.precision.sum

    def _operand(self, name: str, *index: int) -> Array:
        operand: Operand | None = self.call[name]
        zeros = np.zeros((len(self._images), self.call["hidden_size"]))
        return zeros if operand is None else wide(operand)[index][self._images]

    def _run(self) -> None:
        u, r = self._u, wide(self.call["weight2"])
        n, units = len(self._images), self.call["hidden_size"]
        summed, through = gamma(4 * units + 2, u), np.abs(r)
        none = np.zeros((2, n, units, 0))
        cotangents, limit = none, units * (COLUMNS if n * units**3 <= FOLLOWED else 2)
        dh, dc = self._operand("grad_hy"), self._operand("grad_cy")
        own_h, own_c = np.zeros((2, n, units))
        for k in reversed(range(len(self.times))):
            incoming = self._operand("grad_output", self.times[k])
            cotangents = _with(
                cotangents, DH, own_h + u * (np.abs(dh) + own_h + np.abs(cotangents[DH]).sum(-1) + np.abs(incoming))
            )
            dh = dh + incoming
            off_h = np.abs(cotangents[DH]).sum(-1)
            slope, part = self._through[k], dh * self._through[k]
            own_c = own_c + (np.abs(dh) + off_h) * ((1 + u) * self._through_errors[k] + u * np.abs(slope))
            cotangents[DC] += slope[..., None] * cotangents[DH]
            cotangents = _with(
                cotangents, DC, own_c + u * (np.abs(dc) + np.abs(part) + own_c + np.abs(cotangents[DC]).sum(-1))
            )
            dc = dc + part
            off_c = np.abs(cotangents[DC]).sum(-1)
            slopes = self._into[k]
            base, base_error = np.stack((dc, dc, dc, dh), 1), np.stack((off_c, off_c, off_c, off_h), 1)
            rounding = (np.abs(base) + base_error) * ((1 + u) * self._into_errors[k] + u * np.abs(slopes))
            by_d = slopes[..., None] * cotangents[[DC, DC, DC, DH]].swapaxes(0, 1)
            d, rounding, by_d = (x.reshape(n, 4 * units, *x.shape[3:]) for x in (base * slopes, rounding, by_d))
            off_d = rounding + np.abs(by_d).sum(-1)
            index = np.ix_([self.times[k]], self._images)
            self.dh[:, index[0], index[1]] = np.stack((dh, off_h))[:, None]
            self.dc[:, index[0], index[1]] = np.stack((dc, off_c))[:, None]
            self.d[:, index[0], index[1]] = np.stack((d, off_d))[:, None]
            forget = self._forget[0][k]
            own_h = each_times(rounding + summed * (np.abs(d) + off_d), through)
            own_c = (np.abs(dc) + off_c) * ((1 + u) * self._forget[1][k] + u * forget)
            dh, dc, cotangents = (
                each_times(d, r),
                dc * forget,
                np.stack((r.T @ by_d, forget[..., None] * cotangents[DC])),
            )
            if cotangents.shape[-1] > limit:
                sums = np.abs(cotangents).sum(-1)
                cotangents = _with(_with(none, DH, sums[DH]), DC, sums[DC])

    def moved(self, axes: Sequence[Axis]) -> Cells:
        """The gradients of some gates, with their cells (time, sequence, row)."""
        source = Source("gradient of the gates", "computed", self.d.shape[1:], self.call.dtype)
        cells, errors = (gather(Operand(numbers, source), axes) for numbers in self.d)

        def derive(index: int) -> Apply:
            return self._gate_gradient(*map(int, cells.cells[index]))

        return replace(cells, errors=errors.values, derive=derive)

    def first(self, cell: Cell) -> Dot:
        """The gradient of the initial cell state."""
        image, unit = cell
        axes = [self.times[0], image, unit]
        source = Source("gradient of the cell state", "computed", self.dc.shape[1:], self.call.dtype)
        dc, errors = (gather(Operand(numbers, source), axes) for numbers in self.dc)
        forget = np.zeros_like(self.dc)
        forget[:, self.times[0], self._images] = [gate[0] for gate in self._forget]
        source = Source("forget gate", "computed", self.dc.shape[1:], self.call.dtype)
        forget_cells, forget_errors = (gather(Operand(numbers, source), axes) for numbers in forget)
        return Dot(
            replace(dc, errors=errors.values, derive=lambda _: self._cell_gradient(0, image, unit)),
            replace(forget_cells, errors=forget_errors.values, derive=lambda _: self._gate(0, image, unit, FORGET)),
            note="the part of the next cell state's gradient that the forget gate lets through",
        )

    def _gate(self, k: int, image: int, unit: int, gate: int) -> Apply:
        return gate_of(self.layer, path_of(self.layer, image, unit, k), k, gate)

    def _state(self, k: int, image: int, unit: int) -> Dot | Leaf:
        """The cell state after step number k."""
        if k < 0:
            return leaf(self.layer["cx_"], (image, unit))
        return cell_state(self.layer, path_of(self.layer, image, unit, k), k)

    def _squashed(self, k: int, image: int, unit: int) -> Apply:
        return Apply("tanh", {"x": self._state(k, image, unit)}, note="the tanh of the cell state")

    def _gate_gradient(self, time: int, image: int, row: int) -> Apply:
        """Of a gate before its sigmoid or tanh."""
        gate, unit = divmod(row, self.call["hidden_size"])
        k = self.times.index(time)
        index = k, image, unit
        of_state = gate != OUTPUT
        factors: dict[int, Expr] = {
            INPUT: self._gate(*index, CANDIDATE),
            FORGET: self._state(k - 1, image, unit),
            CANDIDATE: self._gate(*index, INPUT),
            OUTPUT: self._squashed(*index),
        }
        arriving = self._cell_gradient(*index) if of_state else self._state_gradient(*index)
        grad = Apply("mul", {"x": arriving, "y": factors[gate]}, note=f"the gradient of the {GATES[gate]}")
        name = "tanh_backward" if gate == CANDIDATE else "sigmoid_backward"
        return Apply(
            name, {"grad": grad, "y": self._gate(*index, gate)}, note=f"of the {GATES[gate]} before its function"
        )

    def _cell_gradient(self, k: int, image: int, unit: int) -> Dot:
        """The gradient of the cell state after step number k: through the result, and through the next cell state."""
        position, last = (k, image, unit), k == len(self.times) - 1
        column = self._images.index(image)

        def left(index: int) -> Expr:
            return self._cell_gradient(k + 1, image, unit) if index else self._state_gradient(*position)

        def right(index: int) -> Apply:
            if index:
                return self._gate(k + 1, image, unit, FORGET)
            slope = {"grad": self._gate(*position, OUTPUT), "y": self._squashed(*position)}
            return Apply("tanh_backward", slope, note="the output gate × the slope of the tanh")

        numbers = [(self.dh[:, self.times[k], image, unit], self._slope(k, column, unit))]
        if not last:
            forget = np.array([gate[k + 1, column, unit] for gate in self._forget])
            numbers.append((self.dc[:, self.times[k + 1], image, unit], forget))
        values = np.array(numbers)  # (terms, side, value and error)
        places = np.arange(len(values))[:, None]
        names = ("gradient of h, gradient of the next c", "slope, forget gate of the next step")
        gradients, factors = (
            Cells(values[:, side, 0], Source(name, "computed", (len(values),), self.call.dtype), places,
                  (len(values),), errors=values[:, side, 1], derive=derive)
            for side, (name, derive) in enumerate(zip(names, (left, right), strict=True))
        )  # fmt: skip
        last_gradient = self.call["grad_cy"] if last else None
        bias = None if last_gradient is None else leaf(last_gradient, (image, unit))
        return Dot(gradients, factors, bias, note="the gradient of the cell state", extra=1)

    def _slope(self, k: int, column: int, unit: int) -> Array:
        return np.array([self._through[k, column, unit], self._through_errors[k, column, unit]])

    def _state_gradient(self, k: int, image: int, unit: int) -> Expr:
        """The gradient of the result of step number k: its own, and through the gates of the next step."""
        every, last = self.call["grad_output"], self.call["grad_hy"]
        output_gradient = None if every is None else leaf(every, (self.times[k], image, unit))
        if k < len(self.times) - 1:
            gate_gradients = self.moved([self.times[k + 1], image, range(self.d.shape[-1])])
            weights = outer(self.call["weight2"], [range(self.d.shape[-1]), unit])
            return Dot(
                gate_gradients,
                weights,
                output_gradient,
                note="through the gates of the next step, and its own",
                extra=1,
            )
        of_last = None if last is None else leaf(last, (image, unit))
        if output_gradient is not None and of_last is not None:
            return Apply(
                "add", {"x": output_gradient, "y": of_last}, note="as part of the output, and as the last state"
            )
        return output_gradient or of_last or number(0.0, "no gradient")


def _with(cotangents: Array, state_index: int, errors: Array) -> Array:
    """The columns, and one more for the rounding of each of these numbers."""
    new = np.zeros((*cotangents.shape[:3], errors.shape[-1]))
    new[state_index] = errors[..., None] * np.eye(errors.shape[-1])
    return np.concatenate([cotangents, new], -1)
