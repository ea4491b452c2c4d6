"""The command line: one file a command, no logic in it beyond parsing, calling and showing.

torch and everything that needs it is imported inside the commands, so that `normattn --help`
answers at once.
"""

from typing import Annotated

import typer

from ._common import Commands
from .compare import compare
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .inspect import inspect
from .list import list_names
from .predict import predict
from .profile import profile
from .push import push
from .report import report
from .salience import salience
from .slim import slim
from .train import train
from .watch import watch

app = typer.Typer(
    name="normattn",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs reflow, and brackets stay brackets
    pretty_exceptions_enable=False,
    help="Normalization-based attention for vision models: graft it, train it, compare it on equal "
    "terms, then make the model smaller and ship it.",
    epilog="Start with: normattn demo",
)
for command in (
    *(demo, compare, watch, train, evaluate, profile, report),
    *(inspect, salience, slim, export, predict, push, doctor),
):
    app.command()(command)
app.command("list")(list_names)


def main() -> None:
    """Run the `normattn` command."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"normattn {version('normattn')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
