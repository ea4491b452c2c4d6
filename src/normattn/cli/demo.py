"""`normattn demo`: the main job end to end on data that needs no download."""

from pathlib import Path
from typing import Annotated

import typer

from . import _common, _options, _progress, slim
from .compare import show_run

EPOCHS = 6  # of 1,408 images each: 21 trainings take about three minutes on two cores
SPEEDUP = 2.0
STEPS = 2  # rounds of slimming
BATCH = 32  # at one image of 8×8 the layers' calls take the time, however narrow the layers are
MECHANISMS = ("none", "half", "se", "cbam", "nam-channel", "nam", "ean")
SEEDS = (0, 1, 2)


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    device: _options.Device = "auto",
    json: _options.Json = False,
) -> None:
    """Compare seven mechanisms on handwritten digits, slim the best model to 2×, and export it.

    A few minutes on a laptop, no download. Run it again to see it again; nothing is trained twice.
    """
    from .. import training
    from ..comparison import Protocol, compare
    from ..comparison.slimmed import best_model
    from ..training.slimming import SlimJob, fine_tuning

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
    name, model = best_model(records)
    job = SlimJob(
        artifact=str(model),
        data="digits",
        target={"speedup": SPEEDUP},
        recipe=fine_tuning(epochs=EPOCHS),
        steps=STEPS,
        batch=BATCH,
    )
    if not json:
        _common.out().print(f"\nThe best model, {name}, slimmed to {SPEEDUP:g}×:", markup=False)
    with _common.resumable(ctx), _progress.display(json) as progress:
        record, profile = slim.run(job, out / "slim", device, progress)
    slim.show(record, profile, out / "slim", json)
