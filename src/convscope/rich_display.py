"""Rich display: the methods that a notebook's front end calls on a result. Imports convscope only in these calls."""

import importlib


class RichDisplay:
    """A result that any notebook shows as text and, where there is one, as a picture.

    Source: the display protocol of Jupyter, which marimo, VS Code and Colab share
    (https://ipython.readthedocs.io/en/stable/config/integrating.html).
    """

    __slots__ = ()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002
        """Text and picture by MIME type."""
        bundle: dict[str, str] = importlib.import_module("convscope.notebook").bundle(self)
        return bundle
