"""The commands that measure: `convscope probe NAME`; each prints a result, or writes it as JSON or as a picture."""

import typer

from convscope.cli.probe.attribution import attribution
from convscope.cli.probe.borders import borders
from convscope.cli.probe.compare import compare
from convscope.cli.probe.dead import dead
from convscope.cli.probe.lint import lint
from convscope.cli.probe.patches import patches
from convscope.cli.probe.receptive_field import receptive_field
from convscope.cli.probe.shift import shift
from convscope.cli.probe.shortcut import shortcut
from convscope.cli.process_options import in_many

probe_app = typer.Typer(no_args_is_help=True, help="Ask a model a question and measure the answer.")


@probe_app.callback()
def _probe() -> None:
    pass


probe_app.command("shortcut")(shortcut)
probe_app.command("lint")(lint)
probe_app.command("receptive-field")(receptive_field)
probe_app.command("patches")(in_many(patches))
probe_app.command("shift")(in_many(shift))
probe_app.command("dead")(in_many(dead))
probe_app.command("borders")(borders)
probe_app.command("compare")(in_many(compare))
probe_app.command("attribution")(attribution)
