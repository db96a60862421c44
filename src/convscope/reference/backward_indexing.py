"""Backward of what selects by indices: bags of embeddings, segments, fractional max pooling, masked scatter.

Uses precision and NumPy. The indices and results of the forward pass are taken as recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from convscope.errors import UsageError
from convscope.reference.operation import Operation, moved
from convscope.reference.precision import carried, gamma
from convscope.typing import Array

SUM, MEAN, MAX = range(3)
MISSING = np.zeros(0)


def embedding_bag_backward(
    grad: Array, indices: Array, offsets: Array, offset2bag: Array, bag_size: Array, maximum_indices: Array,
    num_weights: int, scale_grad_by_freq: bool, mode: int, sparse: bool = False,
    per_sample_weights: Array | None = None, padding_idx: int = -1,
) -> Array:  # fmt: skip
    """_embedding_bag_backward: the gradient of each bag, to all rows that it holds.

    >>> bag = np.array([0, 2, 0]), np.array([0, 1])
    >>> unknown = MISSING, MISSING, MISSING
    >>> embedding_bag_backward(np.array([[1.0], [4.0]]), *bag, *unknown, 3, False, MEAN).tolist()
    [[3.0], [0.0], [2.0]]

    Args:
        grad: Shape (B, D).
        indices, offsets: Rows of all bags, shape (L,), and where each bag starts.
        offset2bag, bag_size: Not used: they follow from the offsets.
        maximum_indices: The row of each maximum, shape (B, D).
        num_weights: The rows of the table.
        scale_grad_by_freq, mode, per_sample_weights, padding_idx: As in the forward operation; 0 is sum, 1 mean, 2 max.
        sparse: Changes no number.

    Raises:
        UsageError: gradients are scaled by the frequency of rows.
    """
    if scale_grad_by_freq:
        raise UsageError("the reference has no gradient of an embedding that is scaled by frequency.")
    result = np.zeros((num_weights, grad.shape[1]))
    for bag, places in _members(indices, offsets, len(grad), padding_idx):
        if mode == MAX:
            result[maximum_indices[bag], np.arange(grad.shape[1])] += grad[bag]
            continue
        weights = np.ones(len(places)) if per_sample_weights is None else per_sample_weights[places]
        share = np.outer(weights, grad[bag]) / (len(places) if mode == MEAN else 1)
        np.add.at(result, indices[places], share)
    return result


def embedding_bag_backward_error(
    _y: Array, u: float, grad: Array, indices: Array, offsets: Array, offset2bag: Array, bag_size: Array,
    maximum_indices: Array, num_weights: int, scale_grad_by_freq: bool, mode: int, sparse: bool = False,
    per_sample_weights: Array | None = None, padding_idx: int = -1,
) -> Array:  # fmt: skip
    """A row that is selected T times: T additions, and for each a quotient and a product."""
    scale = None if per_sample_weights is None else np.abs(per_sample_weights)
    settings = (maximum_indices, num_weights, scale_grad_by_freq, mode, sparse, scale, padding_idx)
    size = embedding_bag_backward(np.abs(grad), indices, offsets, offset2bag, bag_size, *settings)
    most = len(grad) if mode == MAX else int(np.bincount(indices.astype(np.int64)).max(initial=0))
    return carried(gamma(most + (0 if mode == MAX else 2), u) * size, size, u)


def bag_weights_backward(
    grad: Array, weight: Array, indices: Array, offsets: Array, offset2bag: Array, mode: int, padding_idx: int = -1
) -> Array:
    """_embedding_bag_per_sample_weights_backward: the gradient of each index' bag times the row that it selects."""
    result = np.zeros(len(indices))
    for bag, places in _members(indices, offsets, len(grad), padding_idx):
        result[places] = weight[indices[places]] @ grad[bag]
    return result


def bag_weights_backward_error(
    _y: Array, u: float, grad: Array, weight: Array, indices: Array, offsets: Array, offset2bag: Array, mode: int,
    padding_idx: int = -1,
) -> Array:  # fmt: skip
    """A sum of D products."""
    size = bag_weights_backward(np.abs(grad), np.abs(weight), indices, offsets, offset2bag, mode, padding_idx)
    return carried(gamma(grad.shape[1], u) * size, size, u)


def _members(indices: Array, offsets: Array, bags: int, padding: int) -> Iterator[tuple[int, Array]]:
    """Each bag that is not empty, and where its indices are, without the padding index."""
    ends = [*offsets[:bags].astype(int).tolist(), len(indices)]
    for bag, (start, end) in enumerate(pairwise(ends)):
        places = np.arange(start, end)
        places = places[indices[places] != padding] if padding >= 0 else places
        if len(places):
            yield bag, places


def fractional_max_pool_backward(
    grad_output: Array, x: Array, kernel_size: Sequence[int], output_size: Sequence[int], indices: Array
) -> Array:
    """fractional_max_pool{2,3}d_backward: each window's gradient to the cell that its index names.

    >>> at = np.array([[[3]]])
    >>> fractional_max_pool_backward(np.array([[[5.0]]]), np.zeros((1, 2, 2)), (2, 2), (1, 1), at).tolist()
    [[[0.0, 0.0], [0.0, 5.0]]]
    """
    rank = len(kernel_size)
    lead = x.shape[: x.ndim - rank]
    result = np.zeros((int(np.prod(lead)), int(np.prod(x.shape[-rank:]))))
    planes = np.arange(len(result))[:, None]
    np.add.at(result, (planes, indices.reshape(len(result), -1)), grad_output.reshape(len(result), -1))
    return result.reshape(x.shape)


def fractional_max_pool_backward_error(
    _y: Array, u: float, grad_output: Array, x: Array, kernel_size: Sequence[int], output_size: Sequence[int],
    indices: Array,
) -> Array:  # fmt: skip
    """A sum of as many gradients as windows have this maximum; exact for one."""
    settings = x, kernel_size, output_size, indices
    count = fractional_max_pool_backward(np.ones_like(grad_output), *settings)
    size = fractional_max_pool_backward(np.abs(grad_output), *settings)
    return np.where(count > 1, carried(gamma(float(count.max(initial=1.0)), u) * size, size, u), 0.0)


def segment_reduce_backward(
    grad: Array, output: Array, data: Array, reduce: str, lengths: Array | None = None, offsets: Array | None = None,
    axis: int = 0, initial: float | None = None,
) -> Array:  # fmt: skip
    """_segment_reduce_backward: a segment's gradient to its cells; of a maximum to those equal to it, in equal parts.

    >>> grad, best, x = np.array([6.0]), np.array([4.0]), np.array([1.0, 4.0, 4.0])
    >>> segment_reduce_backward(grad, best, x, "max", lengths=np.array([3])).tolist()
    [0.0, 3.0, 3.0]

    Raises:
        UsageError: a factor of a product is 0 or nan.
    """
    if lengths is None and offsets is None:
        raise UsageError("the reference has segments only with lengths or offsets.")
    result = np.zeros(data.shape)
    ends = offsets if lengths is None else np.cumsum(np.concatenate([0 * lengths[..., :1], lengths], -1), -1)
    assert ends is not None
    for lead in np.ndindex(ends.shape[:-1]):
        for segment, (start, end) in enumerate(pairwise(ends[lead].astype(int))):
            at = (*lead, segment)
            result[lead][start:end] = _shares(grad[at], output[at], data[lead][start:end], reduce)
    return result


def _shares(grad: Array, output: Array, cells: Array, reduce: str) -> Array:
    """The gradients of the cells of one segment."""
    if reduce in {"sum", "mean"}:
        return np.broadcast_to(grad / (max(len(cells), 1) if reduce == "mean" else 1), cells.shape)
    if reduce == "prod":
        if (cells == 0).any() or np.isnan(cells).any():
            raise UsageError("the reference has no gradient of a product with a factor of 0 or nan.")
        return grad * output / cells
    equal = (cells == output) | (np.isnan(cells) & np.isnan(output))
    return np.where(equal, grad / np.maximum(equal.sum(0), 1), 0.0)


def segment_reduce_backward_error(
    y: Array, u: float, grad: Array, output: Array, data: Array, reduce: str, lengths: Array | None = None,
    offsets: Array | None = None, axis: int = 0, initial: float | None = None,
) -> Array:  # fmt: skip
    """A quotient; of a product also one more product, which may leave the type.

    PyTorch divides positive gradients alone among equal cells, so those of others are unknown.
    """
    if reduce == "prod":
        largest_product = np.abs(grad).max(initial=0.0) * np.abs(output).max(initial=0.0)
        return carried(3 * u * np.abs(y), largest_product, u)
    if reduce == "sum":
        return np.zeros(y.shape)
    if reduce == "mean":
        return u * np.abs(y)
    share = segment_reduce_backward(np.ones_like(grad), output, data, reduce, lengths, offsets, axis, initial)
    return np.where((share > 0) & (share < 1) & ~(y > 0), np.inf, u * np.abs(y))


def masked_scatter_backward(grad_output: Array, mask: Array, sizes: Sequence[int]) -> Array:
    """masked_scatter_backward: the gradients where the mask is true, in order; zeros for numbers that were not used.

    >>> masked_scatter_backward(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), [2, 2]).tolist()
    [[1.0, 3.0], [0.0, 0.0]]
    """
    chosen = grad_output[np.broadcast_to(mask, grad_output.shape)]
    result = np.zeros(int(np.prod(sizes)))
    result[: len(chosen)] = chosen
    return result.reshape(tuple(sizes))


_POOL = Operation(fractional_max_pool_backward, fractional_max_pool_backward_error)
BACKWARD_INDEXING: Mapping[str, Operation] = {
    "_embedding_bag_backward": Operation(embedding_bag_backward, embedding_bag_backward_error),
    "_embedding_bag_per_sample_weights_backward": Operation(bag_weights_backward, bag_weights_backward_error),
    "fractional_max_pool2d_backward": _POOL,
    "fractional_max_pool3d_backward": _POOL,
    "_segment_reduce_backward": Operation(segment_reduce_backward, segment_reduce_backward_error),
    "masked_scatter_backward": moved(masked_scatter_backward),
}
