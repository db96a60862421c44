"""Models: the built-in networks, and user-defined ones, loaded with a card that describes their input."""

from torch.nn import Module as Module
