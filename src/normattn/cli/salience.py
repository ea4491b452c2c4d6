"""`normattn salience`: does a criterion know which channels of a trained model matter?"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from . import _common, _options, _progress

if TYPE_CHECKING:
    from ..comparison.removal import RemovalRecords


def salience(
    ctx: typer.Context,
    artifact: Annotated[
        Path, typer.Argument(help="A saved model, or a training's folder.", metavar="ARTIFACT")
    ],
    data: _options.Data,
    out: Annotated[Path, typer.Option(help="The folder of the record; an unfinished one resumes.")],
    criteria: Annotated[
        str,
        typer.Option(
            help="bn-scale, nam, taylor, magnitude, random, gate, comma-separated; 'all' leaves "
            "out those that have nothing to rank.",
            metavar="A,B,...",
        ),
    ] = "all",
    limit: Annotated[
        int | None,
        typer.Option(
            help="Evaluate on this many validation images: a class-balanced part.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        str,
        typer.Option(
            help="Remove from the groups that each criterion ranks itself ('own'), or from those "
            "that all of them rank ('common').",
            metavar="RULE",
        ),
    ] = "own",
    fractions: Annotated[
        str,
        typer.Option(
            help="Which fractions of each group's channels to remove, ascending, comma-separated; "
            "nine between 0.05 and 0.9 by default.",
            metavar="F,F,...",
            show_default=False,
        ),
    ] = "",
    draws: Annotated[int, typer.Option(help="Random orders to compare with.", metavar="N")] = 5,
    calibration: Annotated[
        int, typer.Option(help="Training images that taylor and gate look at.", metavar="N")
    ] = 512,
    seed: Annotated[int, typer.Option(help="Of the random orders.")] = 0,
    on_bad_image: _options.OnBadImage = "stop",
    device: _options.Device = "auto",
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Remove channels least salient first, most salient first and at random; compare what is left.

    Nothing is fine-tuned. If a criterion knows which channels matter, accuracy falls last in the
    first order and first in the second. Writes salience.json, report.html, salience.md and
    salience.svg. The same command goes on with a run that was cut short, and adds criteria to a
    finished one.

    Example: normattn salience runs/nam --data digits --limit 300 --out runs/nam-salience
    """
    from ..comparison.removal import Removal, removal_curves
    from ..model.artifact import load

    names = () if criteria == "all" else tuple(name.strip() for name in criteria.split(","))
    asked = {"fractions": _numbers(fractions)} if fractions else {}
    removal = Removal(names, limit, calibration, draws, scope, seed=seed, **asked)
    images = _common.images_for("salience", artifact, data, on_bad_image)
    with _common.resumable(ctx), _progress.display(json) as progress:
        records = removal_curves(
            load(artifact), images, out, removal, device=device, progress=progress
        )
    _show(records, out, json)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"salience: expected fractions as numbers, comma-separated, got {text!r}. "
            "Write them as 0.05,0.1,0.2."
        ) from None


def _show(records: "RemovalRecords", out: Path, json: bool) -> None:
    from ..comparison.removal import missing, removal_table, summarise_removal, write_removal

    page = write_removal(out)
    rows = summarise_removal(records)
    if json:
        found = [dataclasses.asdict(row) for row in rows]
        _common.print_json({"event": "result", "report": str(page), "criteria": found})
    else:
        console = _common.out()
        console.print(removal_table(records))
        for row in rows:
            console.print(row.sentence, soft_wrap=True, highlight=False, markup=False)
        console.print(f"Report: {page}", soft_wrap=True, highlight=False, markup=False)
    for line in missing(records):
        _common.note(line)
