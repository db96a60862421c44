"""Data sets: a name, a folder or an archive becomes a `Dataset` in memory."""

from convscope.data.catalog import DATASETS, PLACES, DatasetEntry, DatasetSource, at_hand, entry_of, load_dataset
from convscope.data.dataset import Dataset, check_trainable, overlap

__all__ = [
    "DATASETS",
    "PLACES",
    "Dataset",
    "DatasetEntry",
    "DatasetSource",
    "at_hand",
    "check_trainable",
    "entry_of",
    "load_dataset",
    "overlap",
]
