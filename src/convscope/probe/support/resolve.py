"""Given: models and data as a person names them, loaded."""

from pathlib import Path

from torch import nn

from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset
from convscope.models.loading import load_model

Model = nn.Module | str | Path
"""A module, or what `load_model` takes: a built-in network, a run folder, file.py:Class."""


def as_model(model: Model) -> nn.Module:
    """A module.

    >>> as_model("shapes-cnn").fc
    Linear(in_features=144, out_features=2, bias=True)
    """
    return model if isinstance(model, nn.Module) else load_model(model)


def as_data(data: Dataset | str, split: str) -> Dataset:
    """A data set; of one that is given by name, this split.

    >>> as_data("shapes", "test").split
    'test'
    """
    return load_dataset(data, split=split) if isinstance(data, str) else data
