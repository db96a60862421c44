"""What there is: the commands datasets and models."""

import convscope as cs
from convscope.cli.console import say, show_json, show_table
from convscope.cli.options import Json


def datasets(as_json: Json = False) -> None:
    """List the data sets with shapes, sizes and sources."""
