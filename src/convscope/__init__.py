"""convscope shows every number inside a convolutional network, and proves each one.

The public names, resolved when first used, so that importing convscope loads no torch.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope import filters as filters
    from convscope import plot as plot
    from convscope import probe as probe
    from convscope import reference as reference
    from convscope.capture import Difference as Difference
    from convscope.capture import Ref as Ref
    from convscope.capture import Step as Step
    from convscope.capture import Trace as Trace
    from convscope.capture import difference as difference
    from convscope.capture import trace as trace
    from convscope.cards import card_of as card_of
    from convscope.data import DATASETS as DATASETS
    from convscope.data import PLACES as PLACES
    from convscope.data import at_hand as at_hand
    from convscope.data import load_dataset as load_dataset
    from convscope.data.dataset import Dataset as Dataset
    from convscope.errors import ConvscopeError as ConvscopeError
    from convscope.errors import ImageError as ImageError
    from convscope.errors import TraceError as TraceError
    from convscope.errors import TrustError as TrustError
    from convscope.errors import UsageError as UsageError
    from convscope.files import write_whole as write_whole
    from convscope.images import FORMATS as FORMATS
    from convscope.images import Preprocess as Preprocess
    from convscope.images import read_image as read_image
    from convscope.inputs import load_image as load_image
    from convscope.inputs import prepare as prepare
    from convscope.inputs import random_image as random_image
    from convscope.model_inputs import prepare_inputs as prepare_inputs
    from convscope.model_inputs import random_inputs as random_inputs
    from convscope.models import DEFAULT_MODELS as DEFAULT_MODELS
    from convscope.models import MODELS as MODELS
    from convscope.models import files_of as files_of
    from convscope.models import load_model as load_model
    from convscope.models import parse_model_args as parse_model_args
    from convscope.plain import json_text as json_text
    from convscope.proof import explain as explain
    from convscope.proof import verify as verify
    from convscope.server.launch import open as open  # noqa: A004  # people say cs.open
    from convscope.server.launch import serve as serve
    from convscope.spelling import spelled as spelled
    from convscope.training import Run as Run
    from convscope.training import evaluate as evaluate
    from convscope.training import free_path as free_path
    from convscope.training import interpret as interpret
    from convscope.training import launch as launch
    from convscope.training import load_run as load_run
    from convscope.training import predict as predict
    from convscope.training import train as train

# PyTorch looks this up when it first makes a tensor: large ones then come in pages of 2 MB, which Linux hands out
# faster than 512 small ones; a trace keeps every result, so most of its memory is new. Set it to 0 to do without.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

_ROOMS = ("filters", "plot", "probe", "reference")
_NAMES = {
    "ConvscopeError": "errors",
    "DATASETS": "data",
    "DEFAULT_MODELS": "models",
    "Dataset": "data.dataset",
    "Difference": "capture",
    "ImageError": "errors",
    "MODELS": "models",
    "PLACES": "data",
    "FORMATS": "images",
    "Preprocess": "images",
    "Ref": "capture",
    "Run": "training",
    "Step": "capture",
    "Trace": "capture",
    "TraceError": "errors",
    "TrustError": "errors",
    "UsageError": "errors",
    "at_hand": "data",
    "card_of": "cards",
    "difference": "capture",
    "evaluate": "training",
    "explain": "proof",
    "files_of": "models",
    "free_path": "training",
    "interpret": "training",
    "json_text": "plain",
    "launch": "training",
    "load_dataset": "data",
    "load_image": "inputs",
    "load_model": "models",
    "load_run": "training",
    "open": "server.launch",
    "parse_model_args": "models",
    "predict": "training",
    "prepare": "inputs",
    "prepare_inputs": "model_inputs",
    "random_image": "inputs",
    "random_inputs": "model_inputs",
    "read_image": "images",
    "serve": "server.launch",
    "spelled": "spelling",
    "trace": "capture",
    "train": "training",
    "verify": "proof",
    "write_whole": "files",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"convscope.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"convscope.{_NAMES[name]}"), name)
    raise AttributeError(f"convscope has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*_ROOMS, *_NAMES])


def _in_notebook() -> None:
    """Where IPython runs, let it show convscope's objects."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "display_formatter", None) is not None:
        from convscope.notebook import register  # noqa: PLC0415  # elsewhere it is not needed

        register(shell.display_formatter)


_in_notebook()
