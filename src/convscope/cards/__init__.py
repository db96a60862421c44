"""Cards: what a model expects of a picture and what its outputs mean, said by us or found in the model's own config."""

from convscope.cards.card import ATTRIBUTE, AXES, SHAPES, Card, attach, attached
from convscope.cards.card_inference import at_size, card_of, entering, infer_card
from convscope.cards.input_layer import expected_input, input_layers
from convscope.cards.processors import preprocess_from_processor

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
