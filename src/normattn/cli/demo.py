"""`normattn demo`: the main job end to end on data that needs no download."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from . import _common, _options, _progress, slim
from .compare import show_run

EPOCHS = 6  # of 1,408 images each: 21 trainings take about three minutes on two cores
TARGET = {"flops": 0.5}  # counted, so that every machine can meet it, however busy
STEPS, ROUND_TO = 2, 4  # rounds of slimming; the layers are too narrow for multiples of 8
BATCH = 256  # of few images of 8×8 the calls of layers take the time, however narrow those are
MECHANISMS = ("none", "half", "se", "cbam", "nam-channel", "nam", "ean")
SEEDS = (0, 1, 2)


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    device: _options.Device = "auto",
    json: _options.Json = False,
) -> None:
    """Compare seven mechanisms on handwritten digits, halve the best model, and export it.

    A few minutes on a laptop, no download. Run it again to see it again; nothing is trained twice.
    """
    from .. import training
    from ..comparison import Protocol, compare
    from ..comparison.slimmed import best_model, export_result
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
        target=TARGET,
        recipe=fine_tuning(epochs=EPOCHS),
        steps=STEPS,
        round_to=ROUND_TO,
        batch=BATCH,
    )
    if not json:
        _common.out().print(f"\nThe best model, {name}, at half the multiply-adds:", markup=False)
    with _common.resumable(ctx), _progress.display(json) as progress:
        record, profile = slim.run(job, out / "slim", device, progress)
    slim.show(record, profile, out / "slim", json)
    try:
        exported = export_result(out / "slim")
    except ConfigError as error:  # what exports need is an extra
        _common.note(f"Not exported. {error}")
        return
    if json:
        _common.print_json({"event": "result", **exported})
    else:
        _common.out().print(exported["text"], soft_wrap=True, highlight=False, markup=False)
