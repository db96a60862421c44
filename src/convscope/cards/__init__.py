"""Cards: a model's expected input and the meaning of its outputs, defined here or read from the model's config."""
