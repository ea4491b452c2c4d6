"""`normattn compare`: train mechanisms on equal terms and show who wins, if anyone."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _common, _options, _progress, _settings

if TYPE_CHECKING:
    from ..comparison import RunRecords


def compare(
    ctx: typer.Context,
    data: _options.Data,
    host: _options.Host,
    attention: _options.Attention,
    out: Annotated[Path, typer.Option(help="The run folder; an unfinished run in it resumes.")],
    stem: _options.Stem = "imagenet",
    seeds: Annotated[
        str, typer.Option(help="How many seeds, or which: 3 or 0,1,5.", metavar="N|A,B,...")
    ] = "3",
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
    """Train every mechanism with every seed on equal terms; print the table, write the report.

    Mechanisms with one seed share the host's first weights, the batches and the crops, so their
    differences are paired. Finished trials are never run again: the same command resumes a run
    that was cut short.

    Example: normattn compare --data digits --host resnet20 --attention none,half,nam --out runs/x
    """
    from .. import training
    from ..attention import parse_list
    from ..comparison import Protocol
    from ..comparison import compare as run_comparison

    fields = _settings.recipe_fields(ctx, overrides or [], epochs)
    protocol = Protocol(
        data=data,
        host=host,
        stem=stem,
        mechanisms=tuple(mechanism.label for mechanism in parse_list(attention)),
        seeds=_settings.parse_seeds(seeds),
        recipe=training.recipe(recipe, **fields),
        train_limit=train_limit,
        on_bad_image=on_bad_image,
        image_size=image_size,
        sites=_settings.parse_sites(sites),
        start=start,
        pretrained=pretrained,
        fuse=fuse,
    )
    _common.suggest_stem(host, stem, data, image_size)
    logs = out if tensorboard else None
    display = _progress.display(json, run=out, tensorboard=logs)
    with _common.resumable(ctx), display as progress:
        records = run_comparison(protocol, out, device=device, progress=progress)
    show_run(records, json)


def show_run(records: "RunRecords", json: bool) -> None:
    """Write the report of a run, show its table, and fail if one of its trials has."""
    from ..comparison import summarise, table, write_report

    summary = summarise(records)
    page = write_report(records.folder)
    if json:
        _common.print_json({"event": "result", "report": str(page), **dataclasses.asdict(summary)})
    else:
        console = _common.out()
        console.print(table(summary))
        console.print(f"Report: {page}", soft_wrap=True, highlight=False)
    for message in summary.notes:
        _common.note(message)
    failed = [
        f"{trial.name}: {trial.reason}" for trial in records.trials if trial.status == "failed"
    ]
    if failed:
        _common.complain("Failed trials (the same command tries them again):")
        for message in failed:
            _common.complain(f"  {message}")
        raise typer.Exit(1)
