"""`normattn watch`: a run's page in the browser, refreshed while records arrive."""

from pathlib import Path
from typing import Annotated

import typer

from . import _common, _options

PORT = 8770


def watch(
    run: Annotated[
        Path,
        typer.Argument(
            help="A folder of compare, slim or salience, finished or not.", metavar="RUN"
        ),
    ],
    port: Annotated[
        int, typer.Option(help="Where to listen; 0 takes any port that is free.", min=0, max=65535)
    ] = PORT,
    json: _options.Json = False,
) -> None:
    """Serve the report of a run to browsers of this machine, and refresh it as records arrive.

    Nothing is written, and no other machine can connect. Ctrl-C ends it.

    Example: normattn watch runs/demo
    """
    from ..comparison.watching import Watcher

    with Watcher(run, port) as watcher:
        if json:
            _common.print_json({"event": "watching", "run": str(run), "url": watcher.url})
        else:
            text = f"{run} is shown at {watcher.url} (Ctrl-C ends this)"
            _common.out().print(text, soft_wrap=True, highlight=False, markup=False)
        watcher.serve_forever()
