"""Similarity: how alike two layers represent the same images: linear CKA, in batches, without bias.

Source: S. Kornblith et al., Similarity of neural network representations revisited, ICML 2019 (CKA); T. Nguyen,
M. Raghu, S. Kornblith, Do wide and deep networks learn the same things?, ICLR 2021 (over batches); L. Song et al.,
Feature selection via dependence maximization, JMLR 2012 (the unbiased estimator).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LEAST = 4
"""The fewest images in a batch from which the estimator can be calculated."""


def gram(result: Tensor) -> Tensor:
    """The products of a batch's images with each other, the diagonal 0: (N, N), float64.

    Args:
        result: Shape (N, ...); each image is one vector.
    """
    vectors = result.flatten(1).float()
    vectors = vectors - vectors.mean(dim=0)
    products = (vectors @ vectors.T).double()
    return products.fill_diagonal_(0.0)


def dependence(grams: Sequence[Tensor], others: Sequence[Tensor]) -> NDArray[np.float64]:
    """The unbiased Hilbert-Schmidt independence criterion of every layer with every other: (L, M).

    >>> import torch
    >>> line = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    >>> one, same = gram(line), gram(3 * line)
    >>> cka(*(dependence([a], [b]) for a, b in ((one, same), (one, one), (same, same))))
    array([[1.]])
    """
    found = np.zeros((len(grams), len(others)))
    for row, one in enumerate(grams):
        for column, other in enumerate(others):
            found[row, column] = _hsic(one, other)
    return found


def _hsic(one: Tensor, other: Tensor) -> float:
    n = len(one)
    cross = float((one * other).sum())
    totals = float(one.sum()) * float(other.sum()) / ((n - 1) * (n - 2))
    lines = 2 * float(one.sum(dim=0) @ other.sum(dim=0)) / (n - 2)
    return (cross + totals - lines) / (n * (n - 3))


def cka(cross: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred kernel alignment from sums of dependences: 1 for the same representation, about 0 for unrelated ones.

    Args:
        cross: Of the layers of one model with those of another, (L, M).
        one: Of the first model's layers with themselves, (L, L) or its diagonal (L,).
        other: Of the second model's, (M, M) or (M,).

    Returns:
        (L, M); nan where a layer gives the same for all images.
    """
    left, right = (np.diag(part) if part.ndim == 2 else part for part in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.round(cross / np.sqrt(np.outer(left, right)), 12))
