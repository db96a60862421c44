"""Gradients: one step of a training, and the backward pass of an image, as traces whose numbers can be explained."""
