"""The explorer without a server: as a file that carries all its numbers, and as a widget of a notebook."""
