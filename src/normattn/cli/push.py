"""`normattn push`: a saved model on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from . import _common, _options


def push(
    path: Annotated[
        Path,
        typer.Argument(help="A saved model: a folder, or a .safetensors file.", metavar="ARTIFACT"),
    ],
    repo: Annotated[str, typer.Argument(help="Where to: user/name.", metavar="REPO")],
    license: Annotated[
        str | None,
        typer.Option(
            help="What others may do with the weights, by the Hub's names, e.g. apache-2.0.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            help="Whether a new repository is private; by default as the account has it.",
            show_default=False,
        ),
    ] = None,
    message: Annotated[
        str, typer.Option(help="Of the commit.", metavar="TEXT")
    ] = "Model saved by normattn",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Write what would be pushed here, and push nothing.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Put a saved model on the Hugging Face Hub, with a model card.

    The card shows what was measured, and how to load the model. Log in first with `hf auth login`;
    nothing but the model and its card leaves this machine.

    Example: normattn push runs/nam me/resnet20-nam --license apache-2.0
    """
    from ..model._hub import push_to_hub

    place = push_to_hub(
        path, repo, license=license, private=private, message=message, folder=folder
    )
    if json:
        _common.print_json({"event": "result", "repository": repo, "place": place})
    else:
        _common.out().print(place, soft_wrap=True, markup=False, highlight=False)
