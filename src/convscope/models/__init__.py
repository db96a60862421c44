"""Models: the tutorials' networks by name, and any network of yours, loaded with what it expects of a picture."""

from convscope.cards import card_of
from convscope.models.arguments import parse_model_args
from convscope.models.catalog import DEFAULT_MODELS, MODELS, Entry
from convscope.models.imports import Imports, watching
from convscope.models.loading import load_model
from convscope.models.trust import allowed_imports, remember
from convscope.models.usercode import failed, files_of
from convscope.models.weights import load_weights

__all__ = [
    "DEFAULT_MODELS",
    "MODELS",
    "Entry",
    "Imports",
    "allowed_imports",
    "card_of",
    "failed",
    "files_of",
    "load_model",
    "load_weights",
    "parse_model_args",
    "remember",
    "watching",
]
