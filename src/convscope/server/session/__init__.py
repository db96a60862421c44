"""The session: open models, data sources and uploaded images, and how an image becomes a model's input."""
