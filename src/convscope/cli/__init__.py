"""The command line: parses, calls the API, prints. No logic lives here."""

import sys
import warnings
from typing import Any

import typer
from typer.rich_utils import rich_format_error

import convscope as cs
from convscope.cli import catalog, explorer, exporting, inspection, lessons, plotting, training
from convscope.cli.console import drop_output, hushed, notes_on_data, print_in_any_encoding, remark
from convscope.cli.options import in_many
from convscope.cli.probe import probe_app

app = typer.Typer(
    name="convscope",
    help="Shows every number inside a convolutional network, and proves each one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(explorer.demo)
app.command()(in_many(training.train))
app.command()(in_many(training.evaluate))
app.command()(training.predict)
app.command()(inspection.trace)
app.command()(inspection.explain)
app.command()(inspection.verify)
app.command()(inspection.summary)
app.command()(exporting.workbook)
app.command()(exporting.report)
app.command()(inspection.check)
app.command("open")(explorer.open_model)
app.command()(explorer.serve)
app.command()(lessons.lesson)
app.command()(lessons.notebook)
app.command("filter")(plotting.filter_image)
app.add_typer(plotting.plot_app, name="plot")
app.add_typer(probe_app, name="probe")
app.command()(catalog.datasets)
app.command()(catalog.models)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(f"convscope {cs.__version__}")
        raise typer.Exit


# Typer brings its own copy of Click or uses the one beside it, by version; this is the base of both ones' usage errors.
ClickException: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Run the command line: status 0, 2 for bad usage, 1 for a failed job, 130 after Ctrl-C."""
    warnings.showwarning = _show_warning
    print_in_any_encoding()
    try:
        with notes_on_data():
            status = app(standalone_mode=False)
    except ClickException as error:
        message = cs.spelled(error.format_message())  # it may contain control characters from the arguments
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
        remark(f"error: {error.filename or 'a file'}: {error.strerror or error}.")
        drop_output()
        sys.exit(1)
    except typer.Abort:
        remark("stopped")
        sys.exit(1)
    sys.exit(status)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line."""
    if not hushed():
        remark(f"warning: {message}")
