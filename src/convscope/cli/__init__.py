"""The command line: parses, calls the API, prints. No logic lives here."""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import convscope as cs
from convscope.cli.console import drop_output, hushed, notes_on_data, print_in_any_encoding, remark

MODULES: Mapping[str, str] = {
    "demo": "explorer",
    "train": "training",
    "evaluate": "training",
    "predict": "training",
    "trace": "inspection",
    "explain": "inspection",
    "verify": "inspection",
    "summary": "inspection",
    "workbook": "exporting",
    "report": "exporting",
    "check": "inspection",
    "open": "explorer",
    "serve": "explorer",
    "lesson": "lessons",
    "notebook": "lessons",
    "filter": "plotting",
    "plot": "plotting",
    "probe": "probe",
    "datasets": "catalog",
    "models": "catalog",
    "blocks": "catalog",
}
"""Command -> the module whose `COMMANDS` has it, in the order of the help. Only a requested command's is imported."""


def application(commands: Iterable[str] = MODULES) -> typer.Typer:
    """The command line with these commands."""
    result = typer.Typer(
        name="convscope",
        help="Shows every number inside a convolutional network, and proves each one.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    result.callback(invoke_without_command=True)(_options)
    for name in commands:
        command = importlib.import_module(f"convscope.cli.{MODULES[name]}").COMMANDS[name]
        if isinstance(command, typer.Typer):
            result.add_typer(command, name=name)
        else:
            result.command(name)(command)
    return result


def _options(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(f"convscope {cs.__version__}")
        raise typer.Exit


if TYPE_CHECKING:
    app: typer.Typer
else:

    def __getattr__(name: str) -> typer.Typer:
        """`app`, the command line with every command."""
        if name != "app":
            raise AttributeError(f"convscope.cli has no {name!r}.")
        return application()


# Typer brings its own copy of Click or uses the one beside it, by version; this is the base of both ones' usage errors.
ClickException: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


PLAIN = (
    (r"Input should be a valid integer.*", "write an integer, such as 10."),
    (r"Input should be a valid number.*", "write a number, such as 0.5."),
    (r"Input should be greater than or equal to (\S+)", r"write \1 or more."),
    (r"Input should be less than or equal to (\S+)", r"write \1 or less."),
)
"""What Typer's checks say, and the same for people who do not program."""


def main() -> None:
    """Run the command line: status 0, 2 for bad usage, 1 for a failed job, 130 after Ctrl-C."""
    _keep_settings_of_folder_out()
    warnings.showwarning = _show_warning
    print_in_any_encoding()
    requested = [name for name in sys.argv[1:2] if name in MODULES]
    try:
        with notes_on_data():
            status = application(requested or MODULES)(standalone_mode=False)
    except ClickException as error:
        from typer.rich_utils import rich_format_error  # noqa: PLC0415  # loads a parser of Markdown, used for help only

        message = error.format_message()
        for pattern, plain in PLAIN:
            message = re.sub(pattern, plain, message)
        message = cs.brief(message)  # it may contain control characters from the arguments
        error.format_message = lambda: message
        rich_format_error(error)
        sys.exit(error.exit_code)
    except cs.ConvscopeError as error:
        if not (error.shared and hushed()):
            remark(f"error: {error}")
        sys.exit(error.exit_status)
    except MemoryError as error:
        remark(f"error: not enough memory; use smaller batches or fewer images. {error}".rstrip())
        sys.exit(1)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        remark(f"error: {named}{str(error.strerror or error).rstrip('.')}.")
        drop_output()
        sys.exit(1)
    except typer.Abort:
        remark("stopped")
        sys.exit(1)
    except KeyboardInterrupt as stop:  # before Typer takes over, while a command's modules are imported
        remark(str(stop) or "stopped")
        sys.exit(130)
    sys.exit(status)


def _keep_settings_of_folder_out() -> None:
    """Import matplotlib from another folder if the working folder has settings for it, which may not be the user's.

    Matplotlib reads a file `matplotlibrc` there when it is imported, and no option prevents that.
    """
    if not os.path.lexists("matplotlibrc"):
        return
    working_folder = Path.cwd()
    os.chdir(Path(__file__).parent)
    try:
        import matplotlib  # noqa: ICN001, F401, PLC0415  # slow, and most commands do not need it
    finally:
        os.chdir(working_folder)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line."""
    if not hushed():
        remark(f"warning: {message}")
