"""The connectionist temporal classification loss, by the forward algorithm. Uses precision and NumPy."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.precision import FUNCTION
from convscope.typing import Array

Lengths = Sequence[int] | Array


def ctc(
    log_probs: Array, targets: Array, input_lengths: Lengths, target_lengths: Lengths, blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[Array | None, ...]:  # fmt: skip
    """_ctc_loss: minus the logarithm of the likelihood of each sequence of labels, over all of its alignments.

    >>> ctc(np.log(np.full((2, 1, 2), 0.5)), np.array([[1]]), [2], [1])[0].round(4)  # three alignments of four
    array([0.2877])

    Args:
        log_probs: Logarithms of probabilities, shape (T, N, C).
        targets: Labels in rows, shape (N, S), or of all sequences one after the other.
        input_lengths, target_lengths: The length of each sequence.
        zero_infinity: Used by the backward pass alone.

    Returns:
        Shape (N,); and what only a backward pass reads, as None.
    """
    del zero_infinity
    runs = list(_runs(log_probs, targets, input_lengths, target_lengths, blank, 0.0))
    return np.array([value for value, _ in runs]), None


def ctc_error(
    _y: object, u: float, log_probs: Array, targets: Array, input_lengths: Lengths, target_lengths: Lengths,
    blank: int = 0, zero_infinity: bool = False,
) -> tuple[Array, ...]:  # fmt: skip
    """Step by step in each state: the largest error of the states before it, and the roundings of a `logsumexp`.

    Exponents, shifted by their largest, are off by their own roundings, three exponentials and a logarithm by
    FUNCTION each, the shift, the score and the result by one.
    """
    del zero_infinity
    return np.array(
        [loss_error for _, loss_error in _runs(log_probs, targets, input_lengths, target_lengths, blank, u)]
    ), np.zeros(())


def _runs(
    log_probs: Array, targets: Array, input_lengths: Lengths, target_lengths: Lengths, blank: int, u: float
) -> Iterator[tuple[float, float]]:
    """The loss of each sequence and its error."""
    start = 0
    for n, (steps, length) in enumerate(zip(np.ravel(input_lengths), np.ravel(target_lengths), strict=True)):
        target = targets[n, :length] if targets.ndim > 1 else targets[start : start + length]
        start += length
        states = np.full(2 * length + 1, blank)
        states[1::2] = target
        yield _forward(log_probs[:steps, n, states], states, u)


def _forward(scores: Array, states: Array, u: float) -> tuple[float, float]:
    """The forward variables, all states of a step at once: each from itself, its neighbour, and over a blank."""
    count = len(states)
    if not len(scores):
        return (0.0 if count == 1 else np.inf), 0.0
    skips = np.zeros(count, bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    ways, errors = np.where(np.arange(count) < 2, scores[0], -np.inf), np.zeros(count)
    for score in scores[1:]:
        previous, before_previous = (np.concatenate([np.full(k, -np.inf), ways])[:count] for k in (1, 2))
        rows = np.stack([ways, previous, np.where(skips, before_previous, -np.inf)])
        row_errors = np.stack([errors, *(np.concatenate([np.zeros(k), errors])[:count] for k in (1, 2))])
        total, sum_error = _summed(rows, row_errors, u)
        ways = score + total
        errors = np.where(np.isfinite(ways), sum_error + u * np.abs(ways), 0.0)
    total, sum_error = _summed(ways[-2:, None], errors[-2:, None], u)
    return float(-total[0]), float(sum_error[0])


def _summed(rows: Array, errors: Array, u: float) -> tuple[Array, Array]:
    """log of the sum of exponentials over the first axis, and its error."""
    top = rows.max(0)
    total = np.logaddexp.reduce(rows, 0)
    share = np.where(np.isfinite(rows), np.exp(rows - np.where(np.isfinite(top), top, 0.0)), 0.0)
    depth = np.where(np.isfinite(rows), np.where(np.isfinite(top), top, 0.0) - rows, 0.0)
    roundings = 4 * FUNCTION + 4 + (share * depth).sum(0) + 2 * np.abs(top) + 2 * np.abs(total)
    return total, np.where(np.isfinite(rows), errors, 0.0).max(0) + np.where(np.isfinite(top), u * roundings, 0.0)


CTC: Mapping[str, Operation] = {"_ctc_loss": Operation(ctc, ctc_error)}
