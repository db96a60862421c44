"""The session: models, data sources and images that are open, and how an image becomes a model's input."""
