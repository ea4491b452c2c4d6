"""`normattn demo`: the main job end to end on data that needs no download."""

from pathlib import Path
from typing import Annotated

import typer

from . import _common, _options, _progress
from .compare import show_run

EPOCHS = 6  # of 1,408 images each: 21 trainings take about three minutes on two cores
MECHANISMS = ("none", "half", "se", "cbam", "nam-channel", "nam", "ean")
SEEDS = (0, 1, 2)


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    device: _options.Device = "auto",
    json: _options.Json = False,
) -> None:
    """Compare seven mechanisms on handwritten digits: a few minutes on a laptop, no download.

    Run it again to see the table again; nothing is trained twice.
    """
    from .. import training
    from ..comparison import Protocol, compare

    protocol = Protocol(
        data="digits",
        host="resnet20",
        stem="cifar",
        mechanisms=MECHANISMS,
        seeds=SEEDS,
        recipe=training.recipe("quick", epochs=EPOCHS),
    )
    with _common.resumable(ctx), _progress.display(json) as progress:
        records = compare(protocol, out, device=device, progress=progress)
    show_run(records, json)
