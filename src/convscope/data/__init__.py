"""Data sets: a name, a folder or an archive becomes a `Dataset` in memory."""

from convscope.data.catalog import DATASETS, PLACES, Entry, Place, entry_of, load_dataset
from convscope.data.dataset import Dataset, check_trainable, overlap

__all__ = ["DATASETS", "PLACES", "Dataset", "Entry", "Place", "check_trainable", "entry_of", "load_dataset", "overlap"]
