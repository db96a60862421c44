"""The command that checks a user's function against the reference."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import show_json, show_text
from convscope.cli.options import Json


def check(
    function: Annotated[str, typer.Argument(help="Your function, as FILE.py:FUNCTION.")],
    as_: Annotated[
        str | None,
        typer.Option("--as", help="Its operation: conv2d, conv2d_backward, max_pool2d, ...; by default from its name."),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of its arrays, such as nhwc; by default detected.")] = None,
    seconds: Annotated[float, typer.Option(help="Time limit for the function.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Check your own function against the reference; exit status 1 if it is wrong: `convscope check mine.py:conv2d`.

    Convolution, pooling, their gradients, ReLU, linear, softmax, cross-entropy, batch norm, im2col and mean squared
    error, in NumPy, torch or plain lists. The answer names the likely mistake and shows the first wrong number as two
    sums. The function runs in a separate process.
    """
    result = cs.check_file(function, as_, layout=layout, seconds=seconds)
    if as_json:
        show_json(result.json)
    else:
        show_text(result.text)
    if not result.right:
        raise typer.Exit(1)
