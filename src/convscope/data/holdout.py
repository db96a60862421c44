"""Hold-out: which images are test where a data set itself does not say. Knows labels alone."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

TEST_SHARE = 0.2


def split_indices(labels: ArrayLike, split: str, seed: int) -> NDArray[np.intp]:
    """The indices of one split, in order: a fifth of each class, chosen by the seed, is test; the rest is train.

    >>> split_indices([0, 0, 0, 0, 0, 1, 1], "test", seed=0).shape
    (2,)

    Args:
        labels: The class of each image, shape (N,).
        split: "train", "test" or "all". A class of two images or more has at least one in each.
        seed: The same seed gives the same split.
    """
    classes = np.asarray(labels)
    if split == "all":
        return np.arange(len(classes))
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(classes), bool)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        if len(members) > 1:
            held_out[members[: max(1, round(TEST_SHARE * len(members)))]] = True
    return np.flatnonzero(held_out == (split == "test"))
