"""`normattn train`: one host, one mechanism, one seed."""

from pathlib import Path
from typing import Annotated

import typer

from . import _common, _options, _progress, _settings


def train(
    ctx: typer.Context,
    data: _options.Data,
    host: _options.Host,
    out: Annotated[Path, typer.Option(help="The job's folder; an unfinished job in it resumes.")],
    attention: Annotated[
        str, typer.Option(help="One mechanism, such as 'ean(groups=8)'.", metavar="NAME")
    ] = "none",
    stem: _options.Stem = "imagenet",
    seed: Annotated[int, typer.Option(help="Everything random follows from it.", min=0)] = 0,
    recipe: _options.RecipeName = "quick",
    epochs: _options.Epochs = None,
    overrides: _options.Overrides = None,
    train_limit: _options.TrainLimit = None,
    on_bad_image: _options.OnBadImage = "stop",
    image_size: _options.ImageSize = None,
    sites: _options.Sites = None,
    start: _options.Start = "paper",
    pretrained: _options.Pretrained = False,
    fuse: _options.Fuse = True,
    device: _options.Device = "auto",
    tensorboard: _progress.TensorBoard = False,
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Train a host with one mechanism; save the model, and resume to the same bit when cut short.

    Example: normattn train --data digits --host resnet20 --attention nam --out runs/nam
    """
    from .. import training
    from ..training import processor

    job = training.Job(
        data=data,
        host=host,
        stem=stem,
        mechanism=attention,
        seed=seed,
        recipe=training.recipe(recipe, **_settings.recipe_fields(ctx, overrides or [], epochs)),
        train_limit=train_limit,
        on_bad_image=on_bad_image,
        image_size=image_size,
        sites=_settings.parse_sites(sites),
        start=start,
        pretrained=pretrained,
        fuse=fuse,
    )
    _common.suggest_stem(host, stem, data, image_size)
    processor.prepare(out)
    logs = out if tensorboard else None
    with _common.resumable(ctx), _progress.display(json, tensorboard=logs) as progress:
        record = training.run_job(job, out, device=device, progress=progress)
    if json:
        _common.print_json({"event": "result", "folder": str(out), **record})
        return
    console = _common.out()
    console.print(_common.metrics_table({job.mechanism: record["metrics"]}))
    console.print(f"Model: {out}", soft_wrap=True, highlight=False)
