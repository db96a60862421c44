"""The command line: parses, calls the API, prints. No logic lives here."""

import errno
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import typer

import convscope as cs
from convscope.cli.console import (
    drop_output,
    hushed,
    notes_on_data,
    open_missing_streams,
    print_in_any_encoding,
    remark,
)


class CommandEntry(NamedTuple):
    """Where a command is defined, and its line in the list of commands."""

    module: str
    """The module whose `COMMANDS` has it; only a requested command's is imported."""
    summary: str
    """The first sentence of its help, so that the list imports no module; a test compares the two."""


COMMANDS: Mapping[str, CommandEntry] = {
    "demo": CommandEntry(
        "explorer",
        "Train the shapes network, evaluate it, draw its figures, explain one of its numbers, and open the explorer.",
    ),
    "train": CommandEntry("training", "Train a network and write a run folder: `convscope train shapes`."),
    "evaluate": CommandEntry(
        "training", "Evaluate a run: accuracy, loss, recall and precision of each class, confusion matrix."
    ),
    "predict": CommandEntry("training", "Predict the classes of pictures, including your own."),
    "trace": CommandEntry(
        "inspection",
        "List the steps of a forward pass, or of a training step: name, operation, shape, parameters, range.",
    ),
    "explain": CommandEntry(
        "inspection", "Explain one number: `convscope explain crosses crosses:plus --at conv1:0,1,1`."
    ),
    "verify": CommandEntry("inspection", "Recompute every number independently; exit status 1 if any does not match."),
    "summary": CommandEntry(
        "inspection",
        "Sizes, parameters and costs of every layer as arithmetic; exit status 1 if the model fails on SIZE.",
    ),
    "workbook": CommandEntry(
        "exporting",
        "Write a network as a spreadsheet of live formulas: `convscope workbook crosses crosses:plus -o net.xlsx`.",
    ),
    "report": CommandEntry(
        "exporting",
        "Write a model and every number of some images as one HTML file: `convscope report runs/shapes-cnn`.",
    ),
    "check": CommandEntry(
        "inspection",
        "Check your own function against the reference; exit status 1 if it is wrong: "
        "`convscope check mine.py:conv2d`.",
    ),
    "open": CommandEntry("explorer", "Open the explorer on a model: a page where every number can be clicked."),
    "serve": CommandEntry("explorer", "Open the explorer on all runs of a folder."),
    "lesson": CommandEntry(
        "lessons",
        "Take a lesson beside the explorer, or in the terminal; without a name, list them: `convscope lesson crosses`.",
    ),
    "notebook": CommandEntry("lessons", "Write lessons as Jupyter notebooks: `convscope notebook lessons`."),
    "filter": CommandEntry("plotting", "Slide one kernel over a picture: `convscope filter dog.jpg --kernel sobel-x`."),
    "plot": CommandEntry("plotting", "Draw data, kernels, feature maps, networks and trainings."),
    "probe": CommandEntry("probe", "Ask a model a question and measure the answer."),
    "datasets": CommandEntry("catalog", "List the data sets with shapes, sizes and sources."),
    "models": CommandEntry("catalog", "List the built-in networks: tutorial, input, parameters."),
    "blocks": CommandEntry(
        "catalog",
        "Show a network of blocks as arithmetic, as JSON to edit, or as code; exit status 1 if it cannot be built.",
    ),
}
"""Command -> its entry, in the order of the help."""


def application(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands."""
    result = _without_commands()
    for name in commands:
        command = importlib.import_module(f"convscope.cli.{COMMANDS[name].module}").COMMANDS[name]
        if isinstance(command, typer.Typer):
            result.add_typer(command, name=name)
        else:
            result.command(name)(command)
    return result


def listing() -> typer.Typer:
    """The command line for its own help: the commands' names and summaries, which do nothing."""
    result = _without_commands()
    for name, entry in COMMANDS.items():
        result.command(name, help=entry.summary)(lambda: None)
    return result


def _without_commands() -> typer.Typer:
    result = typer.Typer(
        name="convscope",
        help="Shows every number inside a convolutional network, and proves each one.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    result.callback(invoke_without_command=True)(_options)
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
    (r"(?<=: )'.*' is not a valid integer\.", "write an integer, such as 10."),  # as older releases say it
    (r"(?<=: )'.*' is not a valid float\.", "write a number, such as 0.5."),
    (r"(?<=: )\S+ is not in the range x>=(\S+)\.", r"write \1 or more."),
    (r"(?<=: )\S+ is not in the range (\S+)<=x<=(\S+)\.", r"write a number from \1 to \2."),
)
"""What Typer's checks say, and the same for people who do not program."""


def main() -> None:
    """Run the command line: status 0, 2 for bad usage, 1 for a failed job, 130 after Ctrl-C."""
    _prepare_process()
    try:
        with notes_on_data():
            status = _requested(sys.argv[1:])(standalone_mode=False)
    except ClickException as error:
        _show_usage_error(error)
        sys.exit(error.exit_code)
    except cs.ConvscopeError as error:
        if not (error.shared and hushed()):
            remark(f"error: {error}")
        sys.exit(error.exit_status)
    except MemoryError as error:
        remark(f"error: not enough memory; use smaller batches or fewer images. {error}".rstrip())
        sys.exit(1)
    except OSError as error:
        remark(f"error: {_sentence(error)}")
        drop_output()
        sys.exit(1)
    except RuntimeError as error:
        if not _is_loop_of_links(error.__context__):  # in place of which pathlib raises it before Python 3.13
            raise
        remark(f"error: {_sentence(error.__context__)}")
        sys.exit(1)
    except typer.Abort:
        remark("stopped")
        sys.exit(1)
    except KeyboardInterrupt as stop:  # before Typer takes over, while a command's modules are imported
        remark(str(stop) or "stopped")
        sys.exit(130)
    sys.exit(status)


def _prepare_process() -> None:
    open_missing_streams()
    if sys.argv[1:2] != ["lesson"]:  # whose code may open windows
        os.environ["MPLBACKEND"] = "agg"  # figures are files, and another backend may not exist here
    _keep_settings_of_folder_out()
    warnings.showwarning = _show_warning
    print_in_any_encoding()


def _show_usage_error(error: Any) -> None:
    """Print what Typer found wrong with a command, in plain words."""
    from typer.rich_utils import rich_format_error  # noqa: PLC0415  # loads a parser of Markdown, used for help only

    message = error.format_message()
    for pattern, plain in PLAIN:
        message = re.sub(pattern, plain, message)
    message = cs.brief(message)  # it may contain control characters from the arguments
    error.format_message = lambda: message
    rich_format_error(error)


def _sentence(error: OSError) -> str:
    """An error of the system in one sentence, with the variables of the environment that name a loop of links."""
    path = f"{error.filename}: " if error.filename else ""
    if not _is_loop_of_links(error):
        return f"{path}{str(error.strerror or error).rstrip('.')}."
    variables = [name for name, value in os.environ.items() if _leads_into_a_loop(value)]
    names = f"; the variable {' or '.join(variables)} names it" if variables else ""
    return f"{path}too many levels of symbolic links{names}."


def _is_loop_of_links(error: BaseException | None) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno == errno.ELOOP


def _leads_into_a_loop(path: str) -> bool:
    try:
        Path(path).stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:  # not a path
        return False
    return False


def _requested(arguments: Sequence[str]) -> typer.Typer:
    """The command line as far as these arguments need it."""
    if arguments in ([], ["--help"], ["-h"], ["--version"]) and "_CONVSCOPE_COMPLETE" not in os.environ:
        return listing()  # a shell that completes a line calls without arguments, and needs the commands
    return application([name for name in arguments[:1] if name in COMMANDS] or COMMANDS)


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
