"""Cards: a model's expected input and the meaning of its outputs, defined here or read from the model's config."""

from convscope.cards.card import ATTRIBUTE, AXES, SHAPES, Card, attach, attached, expected_input, input_layers
from convscope.cards.card_inference import at_size, card_of, entering, infer_card, preprocess_from_processor

__all__ = [
    "ATTRIBUTE",
    "AXES",
    "SHAPES",
    "Card",
    "at_size",
    "attach",
    "attached",
    "card_of",
    "entering",
    "expected_input",
    "infer_card",
    "input_layers",
    "preprocess_from_processor",
]
