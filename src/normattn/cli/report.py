"""`normattn report`: a run's table and page again, also of a run that is not finished."""

from pathlib import Path
from typing import Annotated

import typer

from . import _options
from .compare import show_run


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.", metavar="RUN")],
    json: _options.Json = False,
) -> None:
    """Rebuild report.html, report.md and results.csv of a run, and show its table.

    Example: normattn report runs/demo
    """
    from ..comparison import read_run

    show_run(read_run(run), json)
