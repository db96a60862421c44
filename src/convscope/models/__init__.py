"""Models: the built-in networks, and user-defined ones, loaded with a card that describes their input."""

from torch.nn import Module

from convscope.cards.card_inference import card_of
from convscope.models.catalog import DEFAULT_MODELS, MODELS, ModelEntry
from convscope.models.checked_imports import Imports, watching
from convscope.models.loading import load_model
from convscope.models.network_arguments import parse_model_args
from convscope.models.trust import allowed_imports, remember
from convscope.models.user_code import failed, files_of
from convscope.models.weights import load_weights

__all__ = [
    "DEFAULT_MODELS",
    "MODELS",
    "Imports",
    "ModelEntry",
    "Module",
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
