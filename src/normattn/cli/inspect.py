"""`normattn inspect`: a page on what trained attention does over real images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from . import _common, _options, _progress

if TYPE_CHECKING:
    from ..data.opening import OnBadImage


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A saved model, a training's folder, or a comparison's run folder.", metavar="PATH"
        ),
    ],
    data: _options.Data,
    out: Annotated[Path, typer.Option(help="The page to write.", metavar="PAGE.html")],
    images: Annotated[
        int, typer.Option(help="Images to show with maps, and mistakes to show.", metavar="N")
    ] = 8,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Look at this many validation images: a class-balanced part.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    on_bad_image: _options.OnBadImage = "stop",
    device: _options.Device = "auto",
    json: _options.Json = False,
    config: _options.Config = None,
) -> None:
    """Look inside attention: what its gates multiply by, where they look, and what that is worth.

    Writes one page that needs nothing else, and the numbers as gates.json beside it; of a
    comparison's run, into each trial's folder, where the run's report finds them. Grad-CAM beside
    the maps needs captum: pip install 'normattn[inspect]'.

    Example: normattn inspect runs/nam --data digits --out nam.html
    """
    from ..comparison.inspection import Inspection, inspections

    asked = Inspection(data, images, limit, cast("OnBadImage", on_bad_image))
    with _progress.display(json) as progress:
        found = inspections(path, out, asked, device=device, progress=progress)
    if json:
        models = [{"model": m.name, "summary": list(m.summary)} for m in found.models]
        _common.print_json({"event": "result", "page": str(found.page), "models": models})
    else:
        console = _common.out()
        for model in found.models:
            for line in (model.name, *(f"  {line}" for line in model.summary)):
                console.print(line, soft_wrap=True, highlight=False, markup=False)
        console.print(f"Page: {found.page}", soft_wrap=True, highlight=False, markup=False)
    for line in found.missing:
        _common.note(line)
